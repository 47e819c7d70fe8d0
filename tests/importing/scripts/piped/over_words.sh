#!/bin/bash
# a grid in a file that the script writes, and the ways people go over words
set -e -- --steps 10
printf '%s %s\n' 1e-3 1 3e-4 2 > grid.txt
while read -r lr seed; do
    python main.py --lr "$lr" --seed "$seed" "$@"
done < grid.txt
while read -r seed; do python main.py --lr 1e-2 --seed "$seed" --steps 10; done < <(seq 1 2)
seq 3 4 | xargs -P 2 -I{} python main.py --lr 1e-3 --seed {} --steps 10
echo 5 6 | xargs -n 1 python main.py --lr 3e-4 --steps 10 --seed
echo "python main.py --lr 3e-4 --seed 7 --steps 10" | bash
echo "python main.py --lr 1e-3 --seed 8 --steps 10" > jobs.txt
bash jobs.txt || echo "failed" >> failed.txt

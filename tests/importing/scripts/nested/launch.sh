#!/usr/bin/env bash
# three rates, three seeds, one GPU after the other
export OMP_NUM_THREADS=8
export WANDB_API_KEY=0123456789abcdef0123456789abcdef01234567
DATA=${DATA:-/data/shakespeare}
STEPS=5000
gpu=0
mkdir -p logs
for lr in 6e-4 3e-4; do
    for seed in {1..3}; do
        name="lr${lr}-seed${seed}"
        CUDA_VISIBLE_DEVICES=$gpu nohup python -u src/train.py --data=$DATA --lr=$lr --steps=$STEPS \
            --seed=$seed --name=$name --gpu 0 --compile > logs/$name.log 2>&1 &
        gpu=$(( (gpu + 1) % 4 ))
        sleep 2
    done
done
wait
rsync -a logs/ me@desk:results/

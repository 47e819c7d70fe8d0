#!/bin/bash
if [ $# -lt 2 ]; then
  echo "usage: $0 RATE SEED"
  exit 1
fi
rate=$1
seed=${2:-0}
extra=${@:3}
python3 nmt.py --train-set data/de-en.tsv -lr $rate -s $seed --seed $seed --log_dir "logs/${rate//e-/m}_$seed" $extra

#!/bin/bash
source ~/envs/qk/bin/activate
cd ~/projects/qk

python main.py --model gpt-small \
    --epochs 10 --warmup 100 \
    --seed 1 --save results/base_s1

#!/bin/bash
source ~/envs/qk/bin/activate
cd ~/projects/qk

python main.py --model gpt-small \
    --epochs 10 --warmup 400 \
    --freeze-qk \
    --seed 2 --save results/frozen_s2

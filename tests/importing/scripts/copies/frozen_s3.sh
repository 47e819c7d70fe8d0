#!/bin/bash
source ~/envs/qk/bin/activate
cd ~/projects/qk

python main.py --model gpt-small \
    --epochs 10 --warmup 100 \
    --freeze-qk \
    --seed 3 --save results/frozen_s3

#!/bin/bash
# one session for each arm
tmux new-session -d -s base   'cd ~/work/vit && source venv/bin/activate && CUDA_VISIBLE_DEVICES=0 python train.py --cfg configs/base.yaml --seed 7 2>&1 | tee base.log'
tmux new-session -d -s rope   'cd ~/work/vit && source venv/bin/activate && CUDA_VISIBLE_DEVICES=1 python train.py --cfg configs/rope.yaml --seed 7 2>&1 | tee rope.log'
tmux new -d -s wide
tmux send-keys -t wide "cd ~/work/vit" C-m
tmux send-keys -t wide "source venv/bin/activate" Enter
tmux send-keys -t wide "CUDA_VISIBLE_DEVICES=2,3 python train.py --cfg configs/wide.yaml --seed 7 2>&1 | tee wide.log" C-m

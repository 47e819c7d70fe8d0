#!/bin/bash
# the two machines in the corner
ssh me@crow "cd /home/me/gnn && nohup .venv/bin/python train.py --dataset cora --hidden 64 --seed 5 > cora.log 2>&1 &"
ssh -p 2222 me@raven 'cd /home/me/gnn && nohup .venv/bin/python train.py --dataset pubmed --hidden 64 --seed 5 > pubmed.log 2>&1 &'
scp me@crow:gnn/cora.log .

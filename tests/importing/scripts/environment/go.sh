#!/bin/bash
export PYTHONPATH=$PWD/src:$PYTHONPATH
export TOKENIZERS_PARALLELISM=false
i=1
while [ $i -le 3 ]; do
  SEED=$i DROPOUT=0.1 timeout 12h python -W ignore tools/train.py
  SEED=$i DROPOUT=0.3 timeout 12h python -W ignore tools/train.py
  i=$((i+1))
done

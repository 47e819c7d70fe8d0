#!/bin/bash
GPUS=(0 1)
n=0
while read -r model lr seed; do
  [[ $model == \#* ]] && continue
  gpu=${GPUS[$((n % ${#GPUS[@]}))]}
  torchrun --nproc_per_node 1 --master_port $((29400 + n)) train_${model}.py --lr $lr --device cuda:$gpu --random_seed $seed &
  let n+=1
done <<LIST
# model rate seed
unet 1e-4 1
unet 1e-4 2
dit  2e-4 1
dit  2e-4 2
LIST
wait

#!/bin/bash
MODEL=gpt2
for i in `seq 41 43`
do
  for wd in 0.0 0.1
  do
    accelerate launch --multi_gpu --mixed_precision bf16 --num_processes 4 --main_process_port $((29500 + i)) \
      run_clm.py \
      --model_name_or_path $MODEL \
      --dataset_name wikitext --dataset_config_name wikitext-2-raw-v1 \
      --do_train --do_eval \
      --weight_decay $wd \
      --per_device_train_batch_size 8 \
      --seed $i \
      --run_name ${MODEL}-wd${wd}-${i} \
      --output_dir /tmp/clm/${MODEL}/wd${wd}/${i} 2>&1 | tee clm_${wd}_${i}.log
  done
done

#!/bin/bash
export NCCL_DEBUG=WARN
export HF_HOME=/data/hf
STAGE=$1
for stage in 2 3; do
deepspeed --num_gpus=8 --master_port 29600 finetune.py --deepspeed configs/zero${stage}.json \
  --lora_r 16 --target_modules q_proj v_proj --fp16 --learning_rate 2e-5 --seed 1234 --output_dir out/zero$stage
done
deepspeed --include localhost:0,1 evaluate.py --ckpt out/zero$STAGE

#!/usr/bin/env bash
# oelm-jobs: run gpt_base of study tiny on there.
# Runs by hand with `bash FILE`, and again: the supervisor claims, leases, resumes and records whoever starts it.

umask 077 # who may read what the run writes

cd -- /elsewhere/.oelm/snapshots/SNAPSHOT || exit 78
exec /venv/python /elsewhere/.oelm/agent/AGENT supervise -- \
  /venv/python -m train --model_type gpt --d_model 16 --num_layers 1 --num_heads 2 --d_ff 32 --seq_len 16 --vocab_size 64 --dropout 0.0 --batch_size 4 --max_steps 24 --warmup_steps 2 --seed 42 --val_interval 6 --val_batches 2 --log_interval 2 --save_interval 6 --data_path /elsewhere/data/tiny/train.bin --out_dir /elsewhere/models/checkpoints/tiny/exp_gpt_base \
  <<'OELM_RECORD'
{
 "version": 1,
 "token": "oelm-TOKEN1",
 "study": "tiny",
 "run": "gpt_base",
 "group": "gpt_base",
 "label": "Group A: GPT-Base",
 "seed": 42,
 "tag": "",
 "target": "there",
 "project": "/project",
 "run_dir": "/elsewhere/models/checkpoints/tiny/exp_gpt_base",
 "fingerprint": "3c04d25b1a3c8c220423bfcb477e610fabc2281295865851fb37d94651741d84",
 "snapshot": "HASH",
 "revision": "",
 "diff": "",
 "train_code": "HASH",
 "factors": {
  "model_type": "gpt"
 },
 "train": {
  "freeze_ffn": false,
  "qk_init": "orthogonal_head",
  "d_model": 16,
  "num_layers": 1,
  "num_heads": 2,
  "d_ff": 32,
  "seq_len": 16,
  "vocab_size": 64,
  "dropout": 0.0,
  "max_steps": 24,
  "warmup_steps": 2,
  "max_lr": 0.0003,
  "min_lr": 3e-05,
  "weight_decay": 0.1,
  "grad_clip": 1.0,
  "beta1": 0.9,
  "beta2": 0.95,
  "val_interval": 6,
  "val_batches": 2,
  "use_amp": true,
  "gradient_accumulation_steps": 1,
  "num_workers": 2,
  "compile": "auto",
  "log_interval": 2,
  "save_interval": 6,
  "keep_last": 2,
  "keep_every": 25000,
  "data_path": "/elsewhere/data/tiny/train.bin",
  "val_data_path": null,
  "use_wandb": false,
  "wandb_project": "oelm",
  "wandb_run_name": null,
  "use_tensorboard": false,
  "model_type": "gpt",
  "seed": 42,
  "out_dir": "/elsewhere/models/checkpoints/tiny/exp_gpt_base",
  "resume": "auto",
  "batch_size": 4
 },
 "world_size": 1,
 "global_batch": 4,
 "gpus": 1,
 "port": null,
 "after": null,
 "stop_on_failure": false,
 "max_retries": 0,
 "extended_from": null,
 "left": [
  {
   "target": "here",
   "run_dir": "/project/models/checkpoints/tiny/exp_gpt_base",
   "token": "oelm-TOKEN2"
  }
 ]
}
OELM_RECORD

#!/bin/bash
# oelm-jobs: run oelm_freeze of study tiny on there.
# Runs by hand with `sbatch FILE`, and again: the supervisor claims, resumes and records whoever starts it.
# Not submitted: this runs the code in its folder as it is; oelm-submit runs a snapshot of it.
#SBATCH --job-name=oelm_freeze.by-hand.0
#SBATCH --chdir=/data/oelm
#SBATCH --output=by-hand.0.log
#SBATCH --comment=oelm_freeze.by-hand.0
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@600
#SBATCH --nodes=1
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=1
#SBATCH --time=2:00

umask 077 # who may read what the run writes
# Until the supervisor listens, the warning before the time limit must not end this script.
trap '' USR1
export OELM_JOB_NAME=$SLURM_JOB_NAME # by which the job is told from others, whatever set-up lines make of it
unset "${!SLURM_ARRAY_@}" # submitted from within an array's task, this job is no task of it
run_dir=/data/oelm/models/checkpoints/tiny/exp_oelm_freeze
# What Slurm itself says goes to the file above; all else to the run.
mkdir -p -- "$run_dir/.oelm" && exec >>"$run_dir/.oelm/supervisor.log" 2>&1
printf '%(%Y-%m-%d %H:%M:%S)T launched\n' -1

cd -- /project || exit 78
exec /python -m oelm_jobs.agent supervise -- \
  /python -m train --model_type oelm --freeze_qk true --d_model 16 --num_layers 1 --num_heads 2 --d_ff 32 --seq_len 16 --vocab_size 64 --dropout 0.0 --batch_size 4 --max_steps 12 --warmup_steps 2 --seed 42 --val_interval 6 --val_batches 2 --log_interval 2 --save_interval 6 --data_path /data/oelm/data/tiny/train.bin --out_dir /data/oelm/models/checkpoints/tiny/exp_oelm_freeze \
  <<'OELM_RECORD'
{
 "version": 1,
 "token": "by-hand",
 "study": "tiny",
 "run": "oelm_freeze",
 "group": "oelm_freeze",
 "label": "Group C: OELM-Freeze",
 "seed": 42,
 "tag": "",
 "target": "there",
 "project": "/project",
 "run_dir": "/data/oelm/models/checkpoints/tiny/exp_oelm_freeze",
 "fingerprint": "",
 "snapshot": "HASH",
 "revision": "",
 "diff": "",
 "train_code": "HASH",
 "factors": {
  "model_type": "oelm",
  "freeze_qk": true
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
  "max_steps": 12,
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
  "data_path": "/data/oelm/data/tiny/train.bin",
  "val_data_path": null,
  "use_wandb": false,
  "wandb_project": "oelm",
  "wandb_run_name": null,
  "use_tensorboard": false,
  "model_type": "oelm",
  "freeze_qk": true,
  "seed": 42,
  "out_dir": "/data/oelm/models/checkpoints/tiny/exp_oelm_freeze",
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
 "scheduler": "slurm",
 "warning_s": 600,
 "max_timeouts": 7,
 "requeue": true,
 "fate": ""
}
OELM_RECORD

#!/bin/bash
# oelm-jobs: run gpt_base of study tiny on here.
# Runs by hand with `sbatch FILE`, and again: the supervisor claims, resumes and records whoever starts it.
#SBATCH --job-name=gpt_base.oelm-TOKEN1.0
#SBATCH --chdir=/project/.oelm/slurm
#SBATCH --output=oelm-TOKEN1.0.log
#SBATCH --comment=gpt_base.oelm-TOKEN1.0
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
#SBATCH --nodes=1
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=1
#SBATCH --time=30
#SBATCH --mem=8G

umask 077 # who may read what the run writes
# Until the supervisor listens, the warning before the time limit must not end this script.
trap '' USR1
export OELM_JOB_NAME=$SLURM_JOB_NAME # by which the job is told from others, whatever set-up lines make of it
unset "${!SLURM_ARRAY_@}" # submitted from within an array's task, this job is no task of it
run_dir=/project/models/checkpoints/tiny/exp_gpt_base
# What Slurm itself says goes to the file above; all else to the run.
mkdir -p -- "$run_dir/.oelm" && exec >>"$run_dir/.oelm/supervisor.log" 2>&1
printf '%(%Y-%m-%d %H:%M:%S)T launched\n' -1

# Set-up, line by line. It does not inherit the claim: a process that it leaves behind must not hold it.
{ :
module load cuda
} 99>&- || { echo 'set-up failed: module load cuda' >&2; exit 78; }

cd -- /project/.oelm/snapshots/SNAPSHOT || exit 78
exec python /project/.oelm/agent/AGENT supervise -- \
  python -m train --model_type gpt --d_model 16 --num_layers 1 --num_heads 2 --d_ff 32 --seq_len 16 --vocab_size 64 --dropout 0.0 --batch_size 4 --max_steps 12 --warmup_steps 2 --seed 42 --val_interval 6 --val_batches 2 --log_interval 2 --save_interval 6 --data_path /project/data/tiny/train.bin --out_dir /project/models/checkpoints/tiny/exp_gpt_base \
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
 "target": "here",
 "project": "/project",
 "run_dir": "/project/models/checkpoints/tiny/exp_gpt_base",
 "fingerprint": "bf9fe7782284df00d57418a7fa4a0430f677044b8e7f85a9b81d9df6958f3b51",
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
  "data_path": "/project/data/tiny/train.bin",
  "val_data_path": null,
  "use_wandb": false,
  "wandb_project": "oelm",
  "wandb_run_name": null,
  "use_tensorboard": false,
  "model_type": "gpt",
  "seed": 42,
  "out_dir": "/project/models/checkpoints/tiny/exp_gpt_base",
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
 "warning_s": 120,
 "max_timeouts": 100,
 "requeue": true,
 "fate": "/project/.oelm/slurm/oelm-TOKEN1.0.fate.json"
}
OELM_RECORD

#!/bin/bash
# oelm-jobs: run oelm_no_freeze of study tiny on here.
# Runs by hand with `sbatch FILE`, and again: the supervisor claims, resumes and records whoever starts it.
#SBATCH --job-name=oelm_no_freeze.oelm-TOKEN1.1
#SBATCH --chdir=/project/.oelm/slurm
#SBATCH --output=oelm-TOKEN1.1.log
#SBATCH --comment=oelm_no_freeze.oelm-TOKEN1.1
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
#SBATCH --nodes=1
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=1
#SBATCH --time=30
#SBATCH --mem=8G

umask 077 # who may read what the run writes
# Until the supervisor listens, the warning before the time limit must not end this script.
trap '' USR1
export OELM_JOB_NAME=$SLURM_JOB_NAME # by which the job is told from others, whatever set-up lines make of it
unset "${!SLURM_ARRAY_@}" # submitted from within an array's task, this job is no task of it
run_dir=/project/models/checkpoints/tiny/exp_oelm_no_freeze
# What Slurm itself says goes to the file above; all else to the run.
mkdir -p -- "$run_dir/.oelm" && exec >>"$run_dir/.oelm/supervisor.log" 2>&1
printf '%(%Y-%m-%d %H:%M:%S)T launched\n' -1

# Set-up, line by line. It does not inherit the claim: a process that it leaves behind must not hold it.
{ :
module load cuda
} 99>&- || { echo 'set-up failed: module load cuda' >&2; exit 78; }

cd -- /project/.oelm/snapshots/SNAPSHOT || exit 78
exec python /project/.oelm/agent/AGENT supervise -- \
  python -m train --model_type oelm --freeze_qk false --d_model 16 --num_layers 1 --num_heads 2 --d_ff 32 --seq_len 16 --vocab_size 64 --dropout 0.0 --batch_size 4 --max_steps 12 --warmup_steps 2 --seed 42 --val_interval 6 --val_batches 2 --log_interval 2 --save_interval 6 --data_path /project/data/tiny/train.bin --out_dir /project/models/checkpoints/tiny/exp_oelm_no_freeze \
  <<'OELM_RECORD'
{
 "version": 1,
 "token": "oelm-TOKEN1",
 "study": "tiny",
 "run": "oelm_no_freeze",
 "group": "oelm_no_freeze",
 "label": "Group B: OELM-NoFreeze",
 "seed": 42,
 "tag": "",
 "target": "here",
 "project": "/project",
 "run_dir": "/project/models/checkpoints/tiny/exp_oelm_no_freeze",
 "fingerprint": "01ac2ceb94e7f4c614c700c06fa6c2c33e30e140f9879a098f5cded220e84008",
 "snapshot": "HASH",
 "revision": "",
 "diff": "",
 "train_code": "HASH",
 "factors": {
  "model_type": "oelm",
  "freeze_qk": false
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
  "data_path": "/project/data/tiny/train.bin",
  "val_data_path": null,
  "use_wandb": false,
  "wandb_project": "oelm",
  "wandb_run_name": null,
  "use_tensorboard": false,
  "model_type": "oelm",
  "freeze_qk": false,
  "seed": 42,
  "out_dir": "/project/models/checkpoints/tiny/exp_oelm_no_freeze",
  "resume": "auto",
  "batch_size": 4
 },
 "world_size": 1,
 "global_batch": 4,
 "gpus": 1,
 "port": null,
 "after": "/project/models/checkpoints/tiny/exp_gpt_base",
 "stop_on_failure": false,
 "max_retries": 0,
 "extended_from": null,
 "scheduler": "slurm",
 "warning_s": 120,
 "max_timeouts": 100,
 "requeue": true,
 "fate": "/project/.oelm/slurm/oelm-TOKEN1.1.fate.json"
}
OELM_RECORD

#!/bin/bash
# oelm-jobs: run oelm_freeze of study tiny on here.
# Runs by hand with `sbatch FILE`, and again: the supervisor claims, resumes and records whoever starts it.
#SBATCH --job-name=oelm_freeze.oelm-TOKEN1.2
#SBATCH --chdir=/project/.oelm/slurm
#SBATCH --output=oelm-TOKEN1.2.log
#SBATCH --comment=oelm_freeze.oelm-TOKEN1.2
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
#SBATCH --nodes=1
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=1
#SBATCH --time=30
#SBATCH --mem=8G

umask 077 # who may read what the run writes
# Until the supervisor listens, the warning before the time limit must not end this script.
trap '' USR1
export OELM_JOB_NAME=$SLURM_JOB_NAME # by which the job is told from others, whatever set-up lines make of it
unset "${!SLURM_ARRAY_@}" # submitted from within an array's task, this job is no task of it
run_dir=/project/models/checkpoints/tiny/exp_oelm_freeze
# What Slurm itself says goes to the file above; all else to the run.
mkdir -p -- "$run_dir/.oelm" && exec >>"$run_dir/.oelm/supervisor.log" 2>&1
printf '%(%Y-%m-%d %H:%M:%S)T launched\n' -1

# Set-up, line by line. It does not inherit the claim: a process that it leaves behind must not hold it.
{ :
module load cuda
} 99>&- || { echo 'set-up failed: module load cuda' >&2; exit 78; }

cd -- /project/.oelm/snapshots/SNAPSHOT || exit 78
exec python /project/.oelm/agent/AGENT supervise -- \
  python -m train --model_type oelm --freeze_qk true --d_model 16 --num_layers 1 --num_heads 2 --d_ff 32 --seq_len 16 --vocab_size 64 --dropout 0.0 --batch_size 4 --max_steps 12 --warmup_steps 2 --seed 42 --val_interval 6 --val_batches 2 --log_interval 2 --save_interval 6 --data_path /project/data/tiny/train.bin --out_dir /project/models/checkpoints/tiny/exp_oelm_freeze \
  <<'OELM_RECORD'
{
 "version": 1,
 "token": "oelm-TOKEN1",
 "study": "tiny",
 "run": "oelm_freeze",
 "group": "oelm_freeze",
 "label": "Group C: OELM-Freeze",
 "seed": 42,
 "tag": "",
 "target": "here",
 "project": "/project",
 "run_dir": "/project/models/checkpoints/tiny/exp_oelm_freeze",
 "fingerprint": "45b0e55f1d2eed4fcfbfcdef6f1a5c1c8b9c76ff36d5f2100e8221c37fe193f2",
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
  "data_path": "/project/data/tiny/train.bin",
  "val_data_path": null,
  "use_wandb": false,
  "wandb_project": "oelm",
  "wandb_run_name": null,
  "use_tensorboard": false,
  "model_type": "oelm",
  "freeze_qk": true,
  "seed": 42,
  "out_dir": "/project/models/checkpoints/tiny/exp_oelm_freeze",
  "resume": "auto",
  "batch_size": 4
 },
 "world_size": 1,
 "global_batch": 4,
 "gpus": 1,
 "port": null,
 "after": "/project/models/checkpoints/tiny/exp_oelm_no_freeze",
 "stop_on_failure": false,
 "max_retries": 0,
 "extended_from": null,
 "scheduler": "slurm",
 "warning_s": 120,
 "max_timeouts": 100,
 "requeue": true,
 "fate": "/project/.oelm/slurm/oelm-TOKEN1.2.fate.json"
}
OELM_RECORD

#!/bin/bash
# oelm-jobs: 4 runs of study tiny on there, a task of an array each.
# Runs by hand with `sbatch FILE`, and again: the supervisor claims, resumes and records whoever starts it.
# Not submitted: this runs the code in its folder as it is; oelm-submit runs a snapshot of it.
#SBATCH --job-name=tiny.by-hand.0
#SBATCH --chdir=/data/oelm
#SBATCH --output=by-hand.0_%a.log
#SBATCH --comment=tiny.by-hand.0
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
#SBATCH --array=0-3
#SBATCH --nodes=1
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=1

umask 077 # who may read what the run writes
# Until the supervisor listens, the warning before the time limit must not end this script.
trap '' USR1
export OELM_JOB_NAME=$SLURM_JOB_NAME # by which the job is told from others, whatever set-up lines make of it
run_dirs=(
  /data/oelm/models/checkpoints/tiny/exp_gpt_base
  /data/oelm/models/checkpoints/tiny/exp_oelm_no_freeze
  /data/oelm/models/checkpoints/tiny/exp_gpt_base-s43
  /data/oelm/models/checkpoints/tiny/exp_oelm_no_freeze-s43
)
run_dir=${run_dirs[${SLURM_ARRAY_TASK_ID:?start this script with sbatch}]}
# What Slurm itself says goes to the file above; all else to the run.
mkdir -p -- "$run_dir/.oelm" && exec >>"$run_dir/.oelm/supervisor.log" 2>&1
printf '%(%Y-%m-%d %H:%M:%S)T launched\n' -1

cd -- /project || exit 78
exec /python -m oelm_jobs.agent supervise \
  <<'OELM_RECORD'
{"shared": {"version": 1, "token": "by-hand", "study": "tiny", "tag": "", "target": "there", "project": "/project", "fingerprint": "", "snapshot": "HASH", "revision": "", "diff": "", "train_code": "HASH", "world_size": 1, "global_batch": 4, "gpus": 1, "port": null, "after": null, "stop_on_failure": false, "max_retries": 0, "extended_from": null, "scheduler": "slurm", "warning_s": 120, "max_timeouts": 100, "requeue": true, "fate": ""},
"runs": [
{"run": "gpt_base", "group": "gpt_base", "label": "Group A: GPT-Base", "seed": 42, "run_dir": "/data/oelm/models/checkpoints/tiny/exp_gpt_base", "factors": {"model_type": "gpt"}, "train": {"freeze_ffn": false, "qk_init": "orthogonal_head", "d_model": 16, "num_layers": 1, "num_heads": 2, "d_ff": 32, "seq_len": 16, "vocab_size": 64, "dropout": 0.0, "max_steps": 12, "warmup_steps": 2, "max_lr": 0.0003, "min_lr": 3e-05, "weight_decay": 0.1, "grad_clip": 1.0, "beta1": 0.9, "beta2": 0.95, "val_interval": 6, "val_batches": 2, "use_amp": true, "gradient_accumulation_steps": 1, "num_workers": 2, "compile": "auto", "log_interval": 2, "save_interval": 6, "keep_last": 2, "keep_every": 25000, "data_path": "/data/oelm/data/tiny/train.bin", "val_data_path": null, "use_wandb": false, "wandb_project": "oelm", "wandb_run_name": null, "use_tensorboard": false, "model_type": "gpt", "seed": 42, "out_dir": "/data/oelm/models/checkpoints/tiny/exp_gpt_base", "resume": "auto", "batch_size": 4}, "command": ["/python", "-m", "train", "--model_type", "gpt", "--d_model", "16", "--num_layers", "1", "--num_heads", "2", "--d_ff", "32", "--seq_len", "16", "--vocab_size", "64", "--dropout", "0.0", "--batch_size", "4", "--max_steps", "12", "--warmup_steps", "2", "--seed", "42", "--val_interval", "6", "--val_batches", "2", "--log_interval", "2", "--save_interval", "6", "--data_path", "/data/oelm/data/tiny/train.bin", "--out_dir", "/data/oelm/models/checkpoints/tiny/exp_gpt_base"]},
{"run": "oelm_no_freeze", "group": "oelm_no_freeze", "label": "Group B: OELM-NoFreeze", "seed": 42, "run_dir": "/data/oelm/models/checkpoints/tiny/exp_oelm_no_freeze", "factors": {"model_type": "oelm", "freeze_qk": false}, "train": {"freeze_ffn": false, "qk_init": "orthogonal_head", "d_model": 16, "num_layers": 1, "num_heads": 2, "d_ff": 32, "seq_len": 16, "vocab_size": 64, "dropout": 0.0, "max_steps": 12, "warmup_steps": 2, "max_lr": 0.0003, "min_lr": 3e-05, "weight_decay": 0.1, "grad_clip": 1.0, "beta1": 0.9, "beta2": 0.95, "val_interval": 6, "val_batches": 2, "use_amp": true, "gradient_accumulation_steps": 1, "num_workers": 2, "compile": "auto", "log_interval": 2, "save_interval": 6, "keep_last": 2, "keep_every": 25000, "data_path": "/data/oelm/data/tiny/train.bin", "val_data_path": null, "use_wandb": false, "wandb_project": "oelm", "wandb_run_name": null, "use_tensorboard": false, "model_type": "oelm", "freeze_qk": false, "seed": 42, "out_dir": "/data/oelm/models/checkpoints/tiny/exp_oelm_no_freeze", "resume": "auto", "batch_size": 4}, "command": ["/python", "-m", "train", "--model_type", "oelm", "--freeze_qk", "false", "--d_model", "16", "--num_layers", "1", "--num_heads", "2", "--d_ff", "32", "--seq_len", "16", "--vocab_size", "64", "--dropout", "0.0", "--batch_size", "4", "--max_steps", "12", "--warmup_steps", "2", "--seed", "42", "--val_interval", "6", "--val_batches", "2", "--log_interval", "2", "--save_interval", "6", "--data_path", "/data/oelm/data/tiny/train.bin", "--out_dir", "/data/oelm/models/checkpoints/tiny/exp_oelm_no_freeze"]},
{"run": "gpt_base-s43", "group": "gpt_base", "label": "Group A: GPT-Base", "seed": 43, "run_dir": "/data/oelm/models/checkpoints/tiny/exp_gpt_base-s43", "factors": {"model_type": "gpt"}, "train": {"freeze_ffn": false, "qk_init": "orthogonal_head", "d_model": 16, "num_layers": 1, "num_heads": 2, "d_ff": 32, "seq_len": 16, "vocab_size": 64, "dropout": 0.0, "max_steps": 12, "warmup_steps": 2, "max_lr": 0.0003, "min_lr": 3e-05, "weight_decay": 0.1, "grad_clip": 1.0, "beta1": 0.9, "beta2": 0.95, "val_interval": 6, "val_batches": 2, "use_amp": true, "gradient_accumulation_steps": 1, "num_workers": 2, "compile": "auto", "log_interval": 2, "save_interval": 6, "keep_last": 2, "keep_every": 25000, "data_path": "/data/oelm/data/tiny/train.bin", "val_data_path": null, "use_wandb": false, "wandb_project": "oelm", "wandb_run_name": null, "use_tensorboard": false, "model_type": "gpt", "seed": 43, "out_dir": "/data/oelm/models/checkpoints/tiny/exp_gpt_base-s43", "resume": "auto", "batch_size": 4}, "command": ["/python", "-m", "train", "--model_type", "gpt", "--d_model", "16", "--num_layers", "1", "--num_heads", "2", "--d_ff", "32", "--seq_len", "16", "--vocab_size", "64", "--dropout", "0.0", "--batch_size", "4", "--max_steps", "12", "--warmup_steps", "2", "--seed", "43", "--val_interval", "6", "--val_batches", "2", "--log_interval", "2", "--save_interval", "6", "--data_path", "/data/oelm/data/tiny/train.bin", "--out_dir", "/data/oelm/models/checkpoints/tiny/exp_gpt_base-s43"]},
{"run": "oelm_no_freeze-s43", "group": "oelm_no_freeze", "label": "Group B: OELM-NoFreeze", "seed": 43, "run_dir": "/data/oelm/models/checkpoints/tiny/exp_oelm_no_freeze-s43", "factors": {"model_type": "oelm", "freeze_qk": false}, "train": {"freeze_ffn": false, "qk_init": "orthogonal_head", "d_model": 16, "num_layers": 1, "num_heads": 2, "d_ff": 32, "seq_len": 16, "vocab_size": 64, "dropout": 0.0, "max_steps": 12, "warmup_steps": 2, "max_lr": 0.0003, "min_lr": 3e-05, "weight_decay": 0.1, "grad_clip": 1.0, "beta1": 0.9, "beta2": 0.95, "val_interval": 6, "val_batches": 2, "use_amp": true, "gradient_accumulation_steps": 1, "num_workers": 2, "compile": "auto", "log_interval": 2, "save_interval": 6, "keep_last": 2, "keep_every": 25000, "data_path": "/data/oelm/data/tiny/train.bin", "val_data_path": null, "use_wandb": false, "wandb_project": "oelm", "wandb_run_name": null, "use_tensorboard": false, "model_type": "oelm", "freeze_qk": false, "seed": 43, "out_dir": "/data/oelm/models/checkpoints/tiny/exp_oelm_no_freeze-s43", "resume": "auto", "batch_size": 4}, "command": ["/python", "-m", "train", "--model_type", "oelm", "--freeze_qk", "false", "--d_model", "16", "--num_layers", "1", "--num_heads", "2", "--d_ff", "32", "--seq_len", "16", "--vocab_size", "64", "--dropout", "0.0", "--batch_size", "4", "--max_steps", "12", "--warmup_steps", "2", "--seed", "43", "--val_interval", "6", "--val_batches", "2", "--log_interval", "2", "--save_interval", "6", "--data_path", "/data/oelm/data/tiny/train.bin", "--out_dir", "/data/oelm/models/checkpoints/tiny/exp_oelm_no_freeze-s43"]}
]}
OELM_RECORD

#!/bin/bash
# oelm-jobs: 2 runs of study tiny on there, a task of an array each.
# Runs by hand with `sbatch FILE`, and again: the supervisor claims, resumes and records whoever starts it.
# Not submitted: this runs the code in its folder as it is; oelm-submit runs a snapshot of it.
#SBATCH --job-name=tiny.by-hand.1
#SBATCH --chdir=/data/oelm
#SBATCH --output=by-hand.1_%a.log
#SBATCH --comment=tiny.by-hand.1
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
#SBATCH --array=0-1
#SBATCH --nodes=1
#SBATCH --gres=gpu:2
#SBATCH --cpus-per-task=2

umask 077 # who may read what the run writes
# Until the supervisor listens, the warning before the time limit must not end this script.
trap '' USR1
export OELM_JOB_NAME=$SLURM_JOB_NAME # by which the job is told from others, whatever set-up lines make of it
run_dirs=(
  /data/oelm/models/checkpoints/tiny/exp_oelm_freeze
  /data/oelm/models/checkpoints/tiny/exp_oelm_freeze-s43
)
run_dir=${run_dirs[${SLURM_ARRAY_TASK_ID:?start this script with sbatch}]}
# What Slurm itself says goes to the file above; all else to the run.
mkdir -p -- "$run_dir/.oelm" && exec >>"$run_dir/.oelm/supervisor.log" 2>&1
printf '%(%Y-%m-%d %H:%M:%S)T launched\n' -1

cd -- /project || exit 78
exec /python -m oelm_jobs.agent supervise \
  <<'OELM_RECORD'
{"shared": {"version": 1, "token": "by-hand", "study": "tiny", "group": "oelm_freeze", "label": "Group C: OELM-Freeze", "tag": "", "target": "there", "project": "/project", "fingerprint": "", "snapshot": "HASH", "revision": "", "diff": "", "train_code": "HASH", "factors": {"model_type": "oelm", "freeze_qk": true}, "train": {"freeze_ffn": false, "qk_init": "orthogonal_head", "d_model": 16, "num_layers": 1, "num_heads": 2, "d_ff": 32, "seq_len": 16, "vocab_size": 64, "dropout": 0.0, "max_steps": 12, "warmup_steps": 2, "max_lr": 0.0003, "min_lr": 3e-05, "weight_decay": 0.1, "grad_clip": 1.0, "beta1": 0.9, "beta2": 0.95, "val_interval": 6, "val_batches": 2, "use_amp": true, "gradient_accumulation_steps": 1, "num_workers": 2, "compile": "auto", "log_interval": 2, "save_interval": 6, "keep_last": 2, "keep_every": 25000, "data_path": "/data/oelm/data/tiny/train.bin", "val_data_path": null, "use_wandb": false, "wandb_project": "oelm", "wandb_run_name": null, "use_tensorboard": false, "model_type": "oelm", "freeze_qk": true, "resume": "auto", "batch_size": 2}, "world_size": 2, "global_batch": 4, "gpus": 2, "port": 29511, "after": null, "stop_on_failure": false, "max_retries": 0, "extended_from": null, "scheduler": "slurm", "warning_s": 120, "max_timeouts": 100, "requeue": true, "fate": "", "command": ["/python", "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29511", "-m", "train", "--model_type", "oelm", "--freeze_qk", "true", "--d_model", "16", "--num_layers", "1", "--num_heads", "2", "--d_ff", "32", "--seq_len", "16", "--vocab_size", "64", "--dropout", "0.0", "--batch_size", "2", "--max_steps", "12", "--warmup_steps", "2", "--seed", null, "--val_interval", "6", "--val_batches", "2", "--log_interval", "2", "--save_interval", "6", "--data_path", "/data/oelm/data/tiny/train.bin", "--out_dir", null]},
"runs": [
{"run": "oelm_freeze", "seed": 42, "run_dir": "/data/oelm/models/checkpoints/tiny/exp_oelm_freeze", "train": {"seed": 42, "out_dir": "/data/oelm/models/checkpoints/tiny/exp_oelm_freeze"}, "command": {"34": "42", "46": "/data/oelm/models/checkpoints/tiny/exp_oelm_freeze"}},
{"run": "oelm_freeze-s43", "seed": 43, "run_dir": "/data/oelm/models/checkpoints/tiny/exp_oelm_freeze-s43", "train": {"seed": 43, "out_dir": "/data/oelm/models/checkpoints/tiny/exp_oelm_freeze-s43"}, "command": {"34": "43", "46": "/data/oelm/models/checkpoints/tiny/exp_oelm_freeze-s43"}}
]}
OELM_RECORD

(
#!/usr/bin/env bash
# oelm-jobs: run speed_trial of study tiny on local.
# Runs by hand with `bash FILE`, and again: the supervisor claims, leases, resumes and records whoever starts it.
# Not submitted: this runs the code in its folder as it is; oelm-submit runs a snapshot of it.

umask 077 # who may read what the run writes

cd -- /project || exit 78
exec /python -m oelm_jobs.agent supervise -- \
  /python -m train.speed_trial --rounds 15 --seconds 2 --arm oelm_freeze:model_type=oelm,freeze_qk=true --arm oelm_no_freeze:model_type=oelm,freeze_qk=false --d_model 16 --num_layers 1 --num_heads 2 --d_ff 32 --seq_len 16 --vocab_size 64 --dropout 0.0 --batch_size 4 --max_steps 12 --warmup_steps 2 --seed 42 --val_interval 6 --val_batches 2 --log_interval 2 --save_interval 6 --data_path /project/data/tiny/train.bin --out_dir /project/models/checkpoints/tiny/exp_speed_trial \
  <<'OELM_RECORD'
{
 "version": 1,
 "token": "by-hand",
 "study": "tiny",
 "run": "speed_trial",
 "group": "speed_trial",
 "label": "Speed trial",
 "seed": 42,
 "tag": "",
 "target": "local",
 "project": "/project",
 "run_dir": "/project/models/checkpoints/tiny/exp_speed_trial",
 "fingerprint": "",
 "snapshot": "HASH",
 "revision": "",
 "diff": "",
 "train_code": "HASH",
 "factors": {},
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
  "seed": 42,
  "out_dir": "/project/models/checkpoints/tiny/exp_speed_trial",
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
 "extended_from": null
}
OELM_RECORD
)

(
#!/usr/bin/env bash
# oelm-jobs: run gpt_base of study tiny on local.
# Runs by hand with `bash FILE`, and again: the supervisor claims, leases, resumes and records whoever starts it.
# Not submitted: this runs the code in its folder as it is; oelm-submit runs a snapshot of it.

umask 077 # who may read what the run writes

cd -- /project || exit 78
exec /python -m oelm_jobs.agent supervise -- \
  /python -m train --model_type gpt --d_model 16 --num_layers 1 --num_heads 2 --d_ff 32 --seq_len 16 --vocab_size 64 --dropout 0.0 --batch_size 4 --max_steps 12 --warmup_steps 2 --seed 42 --val_interval 6 --val_batches 2 --log_interval 2 --save_interval 6 --data_path /project/data/tiny/train.bin --out_dir /project/models/checkpoints/tiny/exp_gpt_base \
  <<'OELM_RECORD'
{
 "version": 1,
 "token": "by-hand",
 "study": "tiny",
 "run": "gpt_base",
 "group": "gpt_base",
 "label": "Group A: GPT-Base",
 "seed": 42,
 "tag": "",
 "target": "local",
 "project": "/project",
 "run_dir": "/project/models/checkpoints/tiny/exp_gpt_base",
 "fingerprint": "",
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
 "after": "/project/models/checkpoints/tiny/exp_speed_trial",
 "stop_on_failure": false,
 "max_retries": 0,
 "extended_from": null
}
OELM_RECORD
)

(
#!/usr/bin/env bash
# oelm-jobs: run oelm_no_freeze of study tiny on local.
# Runs by hand with `bash FILE`, and again: the supervisor claims, leases, resumes and records whoever starts it.
# Not submitted: this runs the code in its folder as it is; oelm-submit runs a snapshot of it.

umask 077 # who may read what the run writes

cd -- /project || exit 78
exec /python -m oelm_jobs.agent supervise -- \
  /python -m train --model_type oelm --freeze_qk false --d_model 16 --num_layers 1 --num_heads 2 --d_ff 32 --seq_len 16 --vocab_size 64 --dropout 0.0 --batch_size 4 --max_steps 12 --warmup_steps 2 --seed 42 --val_interval 6 --val_batches 2 --log_interval 2 --save_interval 6 --data_path /project/data/tiny/train.bin --out_dir /project/models/checkpoints/tiny/exp_oelm_no_freeze \
  <<'OELM_RECORD'
{
 "version": 1,
 "token": "by-hand",
 "study": "tiny",
 "run": "oelm_no_freeze",
 "group": "oelm_no_freeze",
 "label": "Group B: OELM-NoFreeze",
 "seed": 42,
 "tag": "",
 "target": "local",
 "project": "/project",
 "run_dir": "/project/models/checkpoints/tiny/exp_oelm_no_freeze",
 "fingerprint": "",
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
 "extended_from": null
}
OELM_RECORD
)

(
#!/usr/bin/env bash
# oelm-jobs: run oelm_freeze of study tiny on local.
# Runs by hand with `bash FILE`, and again: the supervisor claims, leases, resumes and records whoever starts it.
# Not submitted: this runs the code in its folder as it is; oelm-submit runs a snapshot of it.

umask 077 # who may read what the run writes

cd -- /project || exit 78
exec /python -m oelm_jobs.agent supervise -- \
  /python -m train --model_type oelm --freeze_qk true --d_model 16 --num_layers 1 --num_heads 2 --d_ff 32 --seq_len 16 --vocab_size 64 --dropout 0.0 --batch_size 4 --max_steps 12 --warmup_steps 2 --seed 42 --val_interval 6 --val_batches 2 --log_interval 2 --save_interval 6 --data_path /project/data/tiny/train.bin --out_dir /project/models/checkpoints/tiny/exp_oelm_freeze \
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
 "target": "local",
 "project": "/project",
 "run_dir": "/project/models/checkpoints/tiny/exp_oelm_freeze",
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
 "extended_from": null
}
OELM_RECORD
)

"""Say what an option of a program is for, by its name and values: a seed, a place for results, a port, a device."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .. import names

SEEDS = frozenset({"seed", "random_seed", "manual_seed", "rng_seed", "global_seed", "seed_everything", "random_state"})
"""Options that take the seed, by the last part of their names."""
OUTPUTS = frozenset(
    {
        "checkpoint_dir", "ckpt_dir", "ckpt_path_out", "default_root_dir", "dump_path", "exp_dir", "experiment_dir",
        "log_dir", "log_file", "log_path", "logdir", "logging_dir", "metrics_file", "out", "out_dir", "out_path",
        "outdir", "output", "output_dir", "output_file", "output_path", "output_root", "outputdir", "outpath",
        "result_dir", "results", "results_dir", "results_path", "run_dir", "save", "save_dir", "save_folder",
        "save_path", "save_root", "save_to", "savedir", "savepath", "tb_dir", "tensorboard_dir",
        "work_dir", "workdir",
    }
)  # fmt: skip
"""Options that say where results go."""
_OUTPUT_KEYS = frozenset({"hydra.run.dir", "hydra.sweep.dir"})
LABELS = frozenset(
    {
        "comment", "desc", "description", "exp", "exp_id", "exp_name", "experiment", "experiment_name", "expname",
        "job_name", "name", "notes", "run", "run_id", "run_name", "suffix", "tag", "tags", "trial_name", "version",
        "wandb_name", "wandb_run_name", "wandb_tags",
    }
)  # fmt: skip
"""Options that name a run for people."""
_PORTS = frozenset({"port", "master_port", "dist_port", "main_process_port"})
_RANKS = frozenset({"local_rank", "node_rank", "rank", "dist_url", "master_addr"})
_DEVICES = frozenset(
    {"cuda", "cuda_device", "cuda_id", "device", "device_id", "device_ids", "devices", "gpu", "gpu_id", "gpu_ids",
     "gpuid", "visible_devices"}
)  # fmt: skip
_INDICES = re.compile(r"(cuda:)?\d{1,2}(,\d{1,2})*")
_PLACES = re.compile(
    r"(\./|\.\./|/|~/)?([\w.-]+/)*?(out|outputs?|runs?|results?|checkpoints?|ckpts?|logs?|exps?|experiments?|saved?(_models?)?|"
    r"work_dirs?)([_/-].*)?"
)


def normal(name: str) -> str:
    """Return an option's name in one spelling, its last part where it has several."""
    return name.lstrip("-+~").partition("#")[0].rpartition(".")[2].replace("-", "_").lower()


def is_seed(name: str, values: Sequence[str | None]) -> bool:
    """Tell whether an option takes the seed in all commands."""
    return normal(name) in SEEDS and all(
        value is not None and re.fullmatch(r"\d{1,19}", value) and int(value) <= names.MAX_SEED for value in values
    )


def is_output(name: str) -> bool:
    """Tell whether an option says where results go."""
    return normal(name) in OUTPUTS or name.lstrip("+") in _OUTPUT_KEYS


def looks_like_output(value: str) -> bool:
    """Tell whether a value is a path to which results go, whatever its option is called."""
    return "/" in value and _PLACES.fullmatch(value) is not None


def is_label(name: str) -> bool:
    """Tell whether an option only names a run."""
    return normal(name) in LABELS


def is_port(name: str, value: str) -> bool:
    """Tell whether an option takes the port at which processes meet."""
    return normal(name) in _PORTS and value.isdigit()


def is_rank(name: str) -> bool:
    """Tell whether an option is told by what starts a program's processes."""
    return normal(name) in _RANKS


def as_leased(name: str, value: str) -> str:
    """Return the devices that a run calls so where it sees only what it leases; empty where the option names none."""
    if normal(name) not in _DEVICES or not _INDICES.fullmatch(value):
        return ""
    number = value.count(",") + 1
    return ("cuda:" if value.startswith("cuda:") else "") + ",".join(map(str, range(number)))

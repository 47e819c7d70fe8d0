"""Owns the checks between a plan and its submission: whether data, devices, memory and disk will do; leaves queueing
to workflow.

Each failure names the command that mends it, and comes before anything is queued.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..connections import connect, interpreter
from ..data import check as data_check
from ..data import token_folder
from ..errors import DataError, PreflightError
from ..plan import Plan
from ..schedulers import allowed_environment
from ..scripts import templates
from ..spec import Run, Study, Target
from ..study.resolve import token_files
from ..targets.files import LOCAL
from ..train import config as trainer
from ..train import estimate
from . import site

NOTHING = "nothing was queued"


def data_hash(target: Target, project: Path, study: Study) -> str:
    """Check the study's token files where they are, and return the hash over both.

    Files that agree with their manifest and are no younger are believed; others are read whole, once.

    Raises:
        PreflightError: One won't do, as data_check says, or holds other data than the project's.
    """
    connection = connect(target, project)
    paths = token_files(connection.resolved, study)
    here = token_files(connect(LOCAL, project).resolved, study)
    rows = connection.call("data", {"root": connection.root, "files": list(paths)}, timeout_s=1800)["files"]
    named = (study.train["data_path"], study.train.get("val_data_path") or study.train["data_path"])
    need, hashes = data_check.need_of(study), []
    for path, mine, name in zip(paths, map(Path, here), named, strict=True):
        is_own = not target.host and paths == here
        if fault := data_check.fault(path, rows[path], need):
            where = path if is_own else f"{target.name}: {path}"
            folder = Path(str(name)).parent
            make = f"make it: {token_folder.how_to_make(mine.parent)}" if is_own else _how_to_have(target, mine, folder)
            raise PreflightError(f"{where}: {fault.found}; {NOTHING}", hint=fault.mend or make)
        known = "" if is_own else _listed_here(mine)
        if known and known != rows[path]["sha256"]:
            raise PreflightError(
                f"{target.name}: {path} holds other data than {mine} of this project; {NOTHING}",
                hint=f"runs would be compared over different data: remove or rename one of them, then --send-data,"
                f' or give another folder in data of target "{target.name}"',
            )
        hashes.append(str(rows[path]["sha256"]))
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _how_to_have(target: Target, mine: Path, folder: Path) -> str:
    """Say what to do about a token file that a target lacks."""
    if target.host:
        return (
            "send the project's: the same command with --send-data; or name the folder that holds it there:"
            f' data = {{ "{folder}" = "/..." }} in the targets file'
        )
    if not mine.is_file():
        return f"make it: {token_folder.how_to_make(mine.parent)}; then the same command with --send-data"
    return (
        f"the project has it: the same command with --send-data copies it there; or let runs read it in {mine.parent}:"
        f' data = {{ "{folder}" = "{mine.parent}" }} in the targets file'
    )


def _listed_here(path: Path) -> str:
    """Return the hash that the project's own manifest gives a token file; empty where there is none."""
    try:
        manifest = token_folder.read_manifest(path.parent)
    except DataError:
        return ""
    listed = manifest.files.get(path.name) if manifest else None
    return listed.sha256 if listed else ""


def check_target(plan: Plan, runs: Sequence[Run], answer: Mapping[str, Any]) -> None:
    """Refuse what the target can never grant.

    Args:
        runs: Those of the plan that would really be started.
        answer: The probe's, with ``devices`` and ``disk_free``.

    Raises:
        PreflightError: Too few devices, too little memory on them, or too little disk for the checkpoints.
    """
    if answer.get("lease_error"):
        raise PreflightError(f"target {plan.target.name}: {answer['lease_error']}; {NOTHING}")
    devices = [device for device in answer["devices"] if plan.target.may_lease(device["label"])]
    python = os.path.expanduser(plan.target.python)
    if plan.target.kind == "local" and python and not plan.target.setup and shutil.which(python) is None:
        raise PreflightError(
            f"target {plan.target.name}: python = {plan.target.python!r} is no program on this machine; {NOTHING}",
            hint="give the path of the interpreter that has torch, or set-up lines that put it on PATH",
        )
    if plan.target.slurm is not None:
        for remark in site.judge(plan.target, answer["site"], {run.world_size for run in runs}):
            if remark.is_bad:
                raise PreflightError(f"{plan.target.name}: {remark.found}; {NOTHING}", hint=remark.mend)
    for run in runs:
        if plan.target.slurm is None:
            _check_devices(plan, run, devices, str(answer.get("limit") or ""))
        _check_memory(plan, run, devices)
    one_of = {run.group: run for run in runs}  # seeds change no size
    each = {name: estimate.checkpoint_disk_bytes(_config(run)) for name, run in one_of.items()}
    need = sum(each[run.group] for run in runs)
    free = int(answer["disk_free"])
    if need > free:
        raise PreflightError(
            f"the checkpoints of {len(runs)} runs need up to {need / 1e9:.1f} GB; {plan.target.name} has"
            f" {free / 1e9:.1f} GB free at {plan.root}; {NOTHING}",
            hint=f"lower keep_last or keep_every in [train] of {plan.study.path}, or make room",
        )


def out_of_reach(plan: Plan) -> str:
    """Return what to say where the interpreter that a cluster's jobs get can't talk to Slurm; empty where it can, and
    where nobody knows: its set-up may need a compute node.

    Raises:
        TargetError: The target can't be asked.
    """
    target, connection = plan.target, connect(plan.target, plan.project)
    script = templates.trial(plan.project, target)
    if not script:
        return ""
    request = {
        "trial": script,
        "setup": list(target.setup),
        "python": interpreter(target) if target.host else connection.python,
        "environment": allowed_environment(target),
    }
    words = connection.call("slurm_trial", request, timeout_s=180)["slurm_error"]
    if not words:
        return ""
    remark = site.out_of_reach(interpreter(target), words)
    return f"{target.name}: {remark.found}; {remark.mend}"


def _config(run: Run) -> trainer.TrainConfig:
    return trainer.from_dict({key: value for key, value in run.train.items() if value is not None})


def _check_devices(plan: Plan, run: Run, devices: Sequence[Mapping[str, Any]], limit: str) -> None:
    is_gpu = bool(devices) and str(devices[0]["label"]).startswith("gpu")
    indices = {int(str(device["label"]).rpartition(":")[2]) for device in devices}
    missing = sorted(set(run.gpus) - indices) if isinstance(run.gpus, tuple) and is_gpu else []
    if not missing and run.world_size <= len(devices):
        return
    kind = "GPU" if is_gpu else "CPU slot"
    wanted = f"GPU {', '.join(map(str, missing))}" if missing else f"{run.world_size} {kind}s"
    has = (
        f"{kind}s {', '.join(map(str, sorted(indices)))}"
        if is_gpu
        else f"{len(devices)} {kind}{'s' * (len(devices) != 1)}"
    )
    has = has if devices else "no GPU that runs may have"
    has += f" (held to {limit})" if limit else ""
    raise PreflightError(
        f"group {run.group} of study {run.study} asks for {wanted}; {plan.target.name} has {has}; {NOTHING}",
        hint=f"change gpus of the group in {plan.study.path}, or give another --target",
    )


def _check_memory(plan: Plan, run: Run, devices: Sequence[Mapping[str, Any]]) -> None:
    """Compare the estimate with the GPU's memory; an estimate that is off by less than half must not forbid a run."""
    memory = [int(device["memory_mb"]) for device in devices if device.get("memory_mb")]
    if not memory:
        return
    config = _config(run)
    need = estimate.training_bytes(config)
    if need > 1.5 * max(memory) * 2**20:
        smaller = estimate.fitting_batch_size(config, max(memory) * 2**20)
        hint = "use a smaller model"
        if smaller is not None:
            accumulation = config.gradient_accumulation_steps * config.batch_size // smaller
            hint = f"gradient_accumulation_steps = {accumulation} in [train] makes batches of {smaller} that would fit"
        raise PreflightError(
            f"run {run.name} would need about {need / 1e9:.0f} GB on each GPU; the largest of {plan.target.name} has"
            f" {max(memory) / 1024:.0f} GB; {NOTHING}",
            hint=hint,
        )

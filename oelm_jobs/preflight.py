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

import msgspec

from . import data, site
from .connections import Connection, connect
from .errors import DataError, PreflightError
from .plan import Plan
from .runs import token_files
from .spec import Run, Study, Target
from .targets import LOCAL
from .train import config as trainer
from .train import estimate

NOTHING = "nothing was queued"


def data_hash(target: Target, project: Path, study: Study) -> str:
    """Check the study's token files where they are, and return the hash over both.

    Files that agree with their manifest are believed; without one they are read whole. Those of a target on this
    machine that aren't the project's own are looked at as on any other.

    Raises:
        PreflightError: One is missing or damaged, or holds ids beyond the vocabulary, or others than the project's.
    """
    connection = connect(target, project)
    paths = token_files(connection.resolved, study)
    here = token_files(connect(LOCAL, project).resolved, study)
    if not target.host and paths == here:
        hashes = [_token_hash(Path(path), study) for path in paths]
    else:
        hashes = _hashes_there(connection, paths, here, study)
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _token_hash(path: Path, study: Study) -> str:
    vocab_size = int(study.train["vocab_size"])
    if not path.is_file():
        raise PreflightError(f"{path}: no such file; {NOTHING}", hint=f"make it: {data.how_to_make(path.parent)}")
    try:
        size = path.stat().st_size
        if size == 0 or size % 2:
            raise PreflightError(
                f"{path}: {size} bytes are not uint16 token ids; {NOTHING}", hint="make it anew: oelm-data"
            )
        manifest = data.read_manifest(path.parent)
        listed = manifest.files.get(path.name) if manifest else None
        if manifest is None or listed is None:
            data.check_tokens(path, vocab_size)
            return data.hash_tokens(path)
    except (OSError, DataError) as error:
        raise PreflightError(f"{error}; {NOTHING}", hint=getattr(error, "hint", "")) from error
    if listed.size != size:
        raise PreflightError(
            f"{path}: has {size} bytes, its manifest says {listed.size}; {NOTHING}",
            hint=f"check it: oelm-data check {path.parent}",
        )
    _check_vocabulary(str(path), manifest, study)
    return listed.sha256


def _check_vocabulary(path: str, manifest: data.Manifest, study: Study) -> None:
    if manifest.tokenizer.vocab_size > int(study.train["vocab_size"]):
        raise PreflightError(
            f"{path}: made with {manifest.tokenizer.vocab_size} token ids, but {study.path} says"
            f" vocab_size = {study.train['vocab_size']}; {NOTHING}",
            hint="set vocab_size in [train] to the data's",
        )


def _hashes_there(connection: Connection, paths: Sequence[str], here: Sequence[str], study: Study) -> list[str]:
    """Let the target look at token files, which are ``here`` in the project; return their hashes."""
    target = connection.target
    rows = connection.call("data", {"root": connection.root, "files": list(paths)}, timeout_s=1800)["files"]
    named = (study.train["data_path"], study.train.get("val_data_path") or study.train["data_path"])
    return [
        _hash_there(target, path, rows[path], Path(mine), Path(str(name)).parent, study)
        for path, mine, name in zip(paths, here, named, strict=True)
    ]


def _hash_there(target: Target, path: str, row: Mapping[str, Any], mine: Path, folder: Path, study: Study) -> str:
    """Judge what a target says of a token file that is ``mine`` in the project, in what the study calls ``folder``."""
    name = target.name
    if "error" in row:
        raise PreflightError(f"{name}: {path}: {row['error']}; {NOTHING}", hint=_how_to_have(target, mine, folder))
    size = int(row["size"])
    if size == 0 or size % 2:
        raise PreflightError(f"{name}: {path}: {size} bytes are not uint16 token ids; {NOTHING}")
    vocab_size = int(study.train["vocab_size"])
    if int(row.get("largest", 0)) >= vocab_size:
        raise PreflightError(
            f"{name}: {path}: holds id {row['largest']}, the vocabulary's last id is {vocab_size - 1}; {NOTHING}"
        )
    if row["manifest"]:
        try:
            _check_vocabulary(f"{name}: {path}", msgspec.convert(row["manifest"], data.Manifest), study)
        except msgspec.ValidationError as error:
            raise PreflightError(f"{name}: the manifest beside {path} can't be read: {error}; {NOTHING}") from error
    known = _listed_here(mine)
    if known and known != row["sha256"]:
        raise PreflightError(
            f"{name}: {path} holds other data than {mine} of this project; {NOTHING}",
            hint=f"runs would be compared over different data: remove or rename one of them, then --send-data,"
            f' or give another folder in data of target "{name}"',
        )
    return str(row["sha256"])


def _how_to_have(target: Target, mine: Path, folder: Path) -> str:
    """Say what to do about a token file that a target lacks."""
    if target.host:
        return (
            "send the project's: the same command with --send-data; or name the folder that holds it there:"
            f' data = {{ "{folder}" = "/..." }} in the targets file'
        )
    if not mine.is_file():
        return f"make it: {data.how_to_make(mine.parent)}; then the same command with --send-data"
    return (
        f"the project has it: the same command with --send-data copies it there; or let runs read it in {mine.parent}:"
        f' data = {{ "{folder}" = "{mine.parent}" }} in the targets file'
    )


def _listed_here(path: Path) -> str:
    """Return the hash that the project's own manifest gives a token file; empty where there is none."""
    try:
        manifest = data.read_manifest(path.parent)
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

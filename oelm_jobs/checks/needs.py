"""What runs need of a target: token files, devices, memory, disk, W&B.

Preflight refuses what is bad of it, doctor shows all of it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data import check as data_check
from ..data.token_folder import how_to_make
from ..spec.study import Run, Study
from ..spec.target import Target
from ..train import config as trainer
from ..train import estimate
from .finding import BAD, GOOD, WARNING, Finding


def free_bytes(answer: Mapping[str, Any]) -> int:
    """Return the bytes that checkpoints may take, by the disk and by quotas."""
    quotas = [row for row in answer["quotas"] if answer["checkpoints"] in row["paths"] and row["limit"]]
    return min(int(left) for left in [answer["disk_free"], *(max(0, row["limit"] - row["used"]) for row in quotas)])


def data(
    study: Study, target: Target, rows: Mapping[str, Mapping[str, Any]], paths: Sequence[str], *, own: Sequence[str]
) -> Finding:
    """Judge a study's token files where the target has them; ``own`` are those of the project."""
    what, tokens = f"data of {study.name}", 0
    folder = Path(paths[0]).parent
    make = how_to_make(folder)
    if target.host or list(paths) != list(own):
        make = f"oelm-submit --study {study.name} --target {target.name} --send-data"
    for path in paths:
        row = rows[path]
        if fault := data_check.fault(path, row, data_check.need_of(study)):
            mend = fault.mend or f"make or send it: {make}"
            return Finding(what=what, verdict=BAD, found=f"{path}: {fault.found}", mend=mend)
        tokens += row["size"] // 2
    if not rows[paths[0]]["manifest"]:
        return Finding(what=what, verdict=WARNING, found=f"{folder} has no manifest: its content can't be checked")
    return Finding(what=what, verdict=GOOD, found=f"{tokens:,} tokens agree with their manifest")


def devices(
    study: Study,
    target: Target,
    runs: Sequence[Run],
    rows: Sequence[Mapping[str, Any]],
    limit: str,
) -> Finding:
    """Compare the devices that runs ask for with those that there are.

    Args:
        rows: The target's devices that runs may have, as its agent lists them.
        limit: What holds runs to these; empty where nothing does.
    """
    what = f"devices for {study.name}"
    is_gpu = not rows or str(rows[0]["label"]).startswith("gpu")  # of CPU slots there is always one
    indices = {int(str(row["label"]).rpartition(":")[2]) for row in rows}
    for run in runs:
        missing = sorted(set(run.gpus) - indices) if isinstance(run.gpus, tuple) and is_gpu else []
        if not missing and run.world_size <= len(rows):
            continue
        wanted = f"{run.world_size} {'GPUs' if is_gpu else 'CPU slots'}"
        if missing:
            wanted = f"GPU {', '.join(map(str, missing))}"
        if not rows:
            has = "no GPU that runs may have"
        elif is_gpu:
            has = f"GPUs {', '.join(map(str, sorted(indices)))}"
        else:
            has = f"{len(rows)} CPU slot{'s' * (len(rows) != 1)}"
        has += f" (held to {limit})" if limit else ""
        return Finding(
            what=what,
            verdict=BAD,
            found=f"group {run.group} of study {run.study} asks for {wanted}; {target.name} has {has}",
            mend=f"change gpus of the group in {study.path}, or give another --target",
        )
    most = max(run.world_size for run in runs)
    return Finding(what=what, verdict=GOOD, found=f"at most {most} of {len(rows)} at a time")


def _config(run: Run) -> trainer.TrainConfig:
    return trainer.from_dict({key: value for key, value in run.train.items() if value is not None})


def _one_of_each(runs: Sequence[Run]) -> list[Run]:
    """Return the first run of each group: seeds change no size."""
    first: dict[str, Run] = {}
    for run in runs:
        first.setdefault(run.group, run)
    return list(first.values())


def memory(study: Study, target: Target, runs: Sequence[Run], rows: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """Compare the estimate for the largest run with the GPUs' memory, where that is known.

    An estimate that is off by less than half must not forbid a run: it is bad only beyond that, on the largest GPU.
    """
    sizes = [int(row["memory_mb"]) for row in rows if row.get("memory_mb")]
    if not sizes:
        return []
    what = f"memory for {study.name}"
    need, largest = max(
        ((estimate.training_bytes(_config(run)), run) for run in _one_of_each(runs)), key=lambda pair: pair[0]
    )
    if need > 1.5 * max(sizes) * 2**20:
        config = _config(largest)
        smaller = estimate.fitting_batch_size(config, max(sizes) * 2**20)
        mend = "use a smaller model"
        if smaller is not None:
            accumulation = config.gradient_accumulation_steps * config.batch_size // smaller
            mend = f"gradient_accumulation_steps = {accumulation} in [train] makes batches of {smaller} that would fit"
        found = (
            f"run {largest.name} would need about {need / 1e9:.0f} GB on each GPU; the largest of {target.name} has"
            f" {max(sizes) / 1024:.0f} GB"
        )
        return [Finding(what=what, verdict=BAD, found=found, mend=mend)]
    found = f"about {need / 1e9:.1f} GB for group {largest.group}; the smallest GPU has {min(sizes) / 1024:.0f} GB"
    if need > min(sizes) * 2**20:
        mend = f"raise gradient_accumulation_steps in {study.path}"
        return [Finding(what=what, verdict=WARNING, found=found, mend=mend)]
    return [Finding(what=what, verdict=GOOD, found=found)]


def disk(study: Study, target: Target, runs: Sequence[Run], free: int) -> Finding:
    """Compare what the runs' checkpoints take at most with the bytes that are free for them."""
    trained = [run for run in runs if run.trial is None]
    each = {run.group: estimate.checkpoint_disk_bytes(_config(run)) for run in _one_of_each(trained)}
    need = sum(each[run.group] for run in trained)
    what = f"disk for {study.name}"
    if need > free:
        found = (
            f"the checkpoints of {len(trained)} runs need up to {need / 1e9:.1f} GB; {target.name} has"
            f" {free / 1e9:.1f} GB free at {target.checkpoint_root or target.root}"
        )
        mend = f"lower keep_last or keep_every in [train] of {study.path}, or make room (oelm-clean)"
        return Finding(what=what, verdict=BAD, found=found, mend=mend)
    found = f"all its checkpoints take up to {need / 1e9:.2f} GB, {free / 1e9:.1f} GB are free"
    return Finding(what=what, verdict=GOOD, found=found)


def wandb(study: Study, target: Target, answer: Mapping[str, Any]) -> list[Finding]:
    """Judge whether W&B will take what runs report, where the study asks for it."""
    if not study.train.get("use_wandb") or "torch" not in answer["trial"]:
        return []
    what = f"W&B of {study.name}"
    if not answer["trial"]["wandb"]:
        return [
            Finding(what=what, verdict=WARNING, found="not installed; runs go on without", mend="pip install wandb")
        ]
    online = os.environ.get("WANDB_MODE") == "online" and "WANDB_MODE" in target.env
    if online and not answer["wandb_login"] and "WANDB_API_KEY" not in target.env:
        return [Finding(what=what, verdict=BAD, found="WANDB_MODE is online, nobody is logged in", mend="wandb login")]
    return [
        Finding(what=what, verdict=GOOD, found="online" if online else "offline; oelm-fetch brings its folders home")
    ]

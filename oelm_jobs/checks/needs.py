"""Owns judging what a study needs of a target: token files, devices, memory, disk, W&B; leaves looking to the agent
there, and what else a run needs to doctor.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data import check as data_check
from ..data.token_folder import how_to_make
from ..spec import Study, Target
from ..train import config as trainer
from ..train import estimate
from .finding import BAD, GOOD, WARNING, Finding


def _left(answer: Mapping[str, Any]) -> int:
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


def devices(study: Study, answer: Mapping[str, Any]) -> Finding:
    most = max(group.world_size for group in study.groups.values())
    have = sum(1 for device in answer["devices"] if not device.get("fault"))
    what = f"devices for {study.name}"
    if most > have:
        return Finding(
            what=what,
            verdict=BAD,
            found=f"a group asks for {most}, there are {have}",
            mend=f"change gpus in {study.path}",
        )
    return Finding(what=what, verdict=GOOD, found=f"at most {most} of {have} at a time")


def _runs(study: Study) -> list[tuple[str, trainer.TrainConfig]]:
    """Return the study's groups with a configuration of one process each."""
    found = []
    for group in study.groups.values():
        values = {**study.train, **group.values, "seed": 0}
        values["batch_size"] = study.global_batch // (group.world_size * int(values["gradient_accumulation_steps"]))
        found.append((group.name, trainer.from_dict({key: v for key, v in values.items() if v is not None})))
    return found


def memory(study: Study, answer: Mapping[str, Any]) -> list[Finding]:
    memory = [int(device["memory_mb"]) for device in answer["devices"] if device.get("memory_mb")]
    if not memory:
        return []
    needs = {name: estimate.training_bytes(config) for name, config in _runs(study)}
    name = max(needs, key=lambda group: needs[group])
    found = f"about {needs[name] / 1e9:.1f} GB for group {name}; the smallest GPU has {min(memory) / 1024:.0f} GB"
    what = f"memory for {study.name}"
    if needs[name] > min(memory) * 2**20:
        mend = f"raise gradient_accumulation_steps in {study.path}"
        return [Finding(what=what, verdict=WARNING, found=found, mend=mend)]
    return [Finding(what=what, verdict=GOOD, found=found)]


def disk(study: Study, answer: Mapping[str, Any]) -> Finding:
    need = len(study.seeds) * sum(estimate.checkpoint_disk_bytes(config) for _, config in _runs(study))
    left = _left(answer)
    found = f"all its checkpoints take up to {need / 1e9:.2f} GB, {left / 1e9:.1f} GB are free"
    what = f"disk for {study.name}"
    if need > left:
        mend = f"lower keep_last or keep_every in {study.path}, or make room (oelm-clean)"
        return Finding(what=what, verdict=BAD, found=found, mend=mend)
    return Finding(what=what, verdict=GOOD, found=found)


def wandb(study: Study, target: Target, answer: Mapping[str, Any]) -> list[Finding]:
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

"""Owns judging a target: which findings cost a night, and what to do about each; leaves looking to the agent there."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import data
from .connections import connect
from .errors import OelmError
from .project import study_files
from .spec import Study, Target
from .study import read_study, target_path

GOOD, WARNING, BAD = "good", "warning", "bad"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing looked at."""

    what: str
    """Its name."""
    verdict: str
    """GOOD, WARNING (works, but) or BAD (a run would fail)."""
    found: str
    """What was found."""
    mend: str = ""
    """What to do about it."""


def examine(project: Path, target: Target) -> list[Finding]:
    """Look at everything that a run on ``target`` needs.

    Raises:
        TargetError: The target can't be reached at all.
    """
    studies, found = [], _client()
    for path in study_files(project):
        try:
            studies.append(read_study(path))
        except OelmError as error:
            found.append(Finding(what=f"study {path.stem}", verdict=BAD, found=str(error), mend=f"edit {path}"))
    connection = connect(target, project)
    ports = sorted({group.port for study in studies for group in study.groups.values() if group.port})
    request = {"root": connection.root, "python": connection.python, "setup": list(target.setup), "ports": ports}
    answer = connection.call("examine", request, timeout_s=240)
    found += [_torch(answer, target), _root(answer, connection.root), *_devices(answer)]
    for study in studies:
        found += [_data(study, target, connection.root), _fit(study, answer)]
    taken = answer["ports_taken"]
    if taken:
        listed = ", ".join(map(str, taken))
        found.append(Finding(what="ports", verdict=WARNING, found=f"{listed} taken; a free one will be used instead"))
    elif ports:
        found.append(Finding(what="ports", verdict=GOOD, found=f"{', '.join(map(str, ports))} free"))
    return found


def _client() -> list[Finding]:
    version = platform.python_version()
    found = [Finding(what="python here", verdict=GOOD, found=f"{version} ({sys.executable})")]
    if shutil.which("bash") is None:
        found.append(Finding(what="bash", verdict=BAD, found="not found", mend="install bash: launch scripts need it"))
    return found


def _torch(answer: Mapping[str, Any], target: Target) -> Finding:
    torch = answer["torch"]
    if "error" in torch:
        mend = "install torch there, or name the interpreter (python) or the set-up lines (setup) in the targets file"
        return Finding(what="torch", verdict=BAD, found=str(torch["error"]), mend=mend)
    gpus = any(str(device["label"]).startswith("gpu") for device in answer["devices"])
    found = f"{torch['torch']} on Python {torch['python']}"
    if gpus and not torch["cuda"]:
        return Finding(
            what="torch",
            verdict=BAD,
            found=f"{found} sees no GPU, nvidia-smi does",
            mend="install a CUDA build of torch there",
        )
    return Finding(what="torch", verdict=GOOD, found=found + (f", {torch['gpus']} GPUs" if torch["cuda"] else ", CPU"))


def _root(answer: Mapping[str, Any], root: str) -> Finding:
    if answer["writable"]:
        return Finding(
            what="root", verdict=BAD, found=answer["writable"], mend=f"make {root} writable, or set root of the target"
        )
    free = answer["disk_free"] / 1e9
    if free < 2:
        return Finding(
            what="disk", verdict=WARNING, found=f"{free:.1f} GB free at {root}", mend="make room: checkpoints need it"
        )
    return Finding(what="disk", verdict=GOOD, found=f"{free:.1f} GB free at {root}")


def _devices(answer: Mapping[str, Any]) -> list[Finding]:
    if "lease_error" in answer:
        return [
            Finding(what="leases", verdict=BAD, found=answer["lease_error"], mend="OELM_LEASE_DIR names another folder")
        ]
    devices, queue = answer["devices"], answer["queue"]
    held = [f"{d['label']} by {d['user']} ({d['run']})" for d in devices if d["run"]]
    foreign = [d["label"] for d in devices if not d["run"] and d["memory_used_mb"] > 1000]
    names = sorted({str(device["name"]) for device in devices})
    found = [Finding(what="devices", verdict=GOOD, found=f"{len(devices)} x {' / '.join(names)}")]
    if foreign:
        found.append(
            Finding(
                what="foreign use",
                verdict=WARNING,
                found=f"{', '.join(foreign)} in use without a lease; runs wait for them",
            )
        )
    holders = "held: " + ", ".join(held) if held else "all free"
    found.append(Finding(what="leases", verdict=GOOD, found=holders + (f"; {len(queue)} runs wait" if queue else "")))
    return found


def _data(study: Study, target: Target, root: str) -> Finding:
    what = f"data of {study.name}"
    folder = Path(target_path(target, root, str(study.train["data_path"]))).parent
    make = "oelm-data demo" if folder.name == "demo" else f"oelm-data make TEXT... --output {folder}"
    if not folder.is_dir():
        return Finding(what=what, verdict=BAD, found=f"no folder {folder}", mend=f"make it: {make}")
    try:
        manifest = data.check(folder)
    except OelmError as error:
        return Finding(what=what, verdict=BAD, found=str(error), mend=error.hint or f"make it anew: {make}")
    if manifest is None:
        return Finding(what=what, verdict=WARNING, found=f"{folder} has no manifest: its content can't be checked")
    vocab = manifest.tokenizer.vocab_size
    if vocab > int(study.train["vocab_size"]):
        return Finding(
            what=what,
            verdict=BAD,
            found=f"{vocab} token ids, vocab_size is {study.train['vocab_size']}",
            mend=f"edit {study.path}",
        )
    tokens = sum(file.tokens for file in manifest.files.values())
    return Finding(what=what, verdict=GOOD, found=f"{tokens:,} tokens agree with their manifest")


def _fit(study: Study, answer: Mapping[str, Any]) -> Finding:
    most = max(group.world_size for group in study.groups.values())
    have = len(answer["devices"])
    what = f"devices for {study.name}"
    if most > have:
        return Finding(
            what=what,
            verdict=BAD,
            found=f"a group asks for {most}, there are {have}",
            mend=f"change gpus in {study.path}",
        )
    return Finding(what=what, verdict=GOOD, found=f"at most {most} of {have} at a time")

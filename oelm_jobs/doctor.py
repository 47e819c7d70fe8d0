"""Owns judging a target: which findings cost a night, and what to do about each; leaves looking to the agent there."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import site, snapshot
from .agent import rundir
from .connections import Place, connect, interpreter, unreached
from .errors import OelmError
from .project import study_files
from .runs import token_files
from .spec import Study, Target
from .study import read_study
from .train import config as trainer
from .train import estimate

GOOD, WARNING, BAD = "good", "warning", "bad"
LITTLE_LEFT = 0.05
"""Part of a quota below which what is left of it is worth a word."""


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
    """Look at everything that a run on ``target`` needs, in one round trip.

    Raises:
        TargetError: The target can't be reached at all.
    """
    studies, found = [], _client(target)
    for path in study_files(project):
        try:
            studies.append(read_study(path))
        except OelmError as error:
            found.append(Finding(what=f"study {path.stem}", verdict=BAD, found=str(error), mend=f"edit {path}"))
    there = unreached(target, project)
    code = Place(tree=snapshot.take(project), folder=f"{there.root}/{rundir.CONTROL}/snapshots")
    connection = connect(target, project)
    files = {study.name: token_files(there, study) for study in studies}
    ports = sorted({group.port for study in studies for group in study.groups.values() if group.port})
    request = {
        "root": there.root,
        "checkpoint_root": there.checkpoint_root,
        "python": interpreter(target) if target.host else connection.python,
        "setup": list(target.setup),
        "code": f"{code.folder}/{code.tree.hash}",
        "ports": ports,
        "files": sorted({path for pair in files.values() for path in pair}),
        "slurm": target.slurm is not None,
    }
    begun = time.time()
    answer = connection.call("examine", request, trees=[code], timeout_s=1800)
    answer["devices"] = [device for device in answer["devices"] if target.may_lease(device["label"])]
    if target.host:
        found += [_host(answer), *_clock(answer, begun), *_tools(answer)]
    found += [_torch(answer, target), *_trainer(answer, target), _root(answer), *_quota(answer)]
    for study in studies:
        found += [_data(study, target, answer["data"], files[study.name]), _disk(study, answer)]
        found += _wandb(study, target, answer)
    if target.slurm is not None:
        return found + _cluster(answer, target, studies)
    found += [*(_logout(answer, target) if target.host else []), *_locks(answer), *_devices(answer)]
    for study in studies:
        found += [_fit(study, answer), *_memory(study, answer)]
    return found + _ports(ports, answer["ports_taken"])


def _client(target: Target) -> list[Finding]:
    version = platform.python_version()
    found = [Finding(what="python here", verdict=GOOD, found=f"{version} ({sys.executable})")]
    needs = (
        {"ssh": "reaches the target", "rsync": "brings results home"} if target.host else {"bash": "runs the scripts"}
    )
    for name, purpose in needs.items():
        if shutil.which(name) is None:
            found.append(
                Finding(what=f"{name} here", verdict=BAD, found="not found", mend=f"install {name}: it {purpose}")
            )
    return found


def _host(answer: Mapping[str, Any]) -> Finding:
    words = f"{answer['user']}@{answer['host']}, Python {answer['agent_python']} for the agent, root {answer['root']}"
    return Finding(what="host", verdict=GOOD, found=words)


def _clock(answer: Mapping[str, Any], begun: float) -> list[Finding]:
    """Compare the clocks: ages of heartbeats are told by the one there."""
    off = max(begun - answer["time"], answer["time"] - time.time(), 0.0)
    if off < 60:
        return []
    return [
        Finding(
            what="clock",
            verdict=WARNING,
            found=f"the clocks here and there differ by {off:.0f} s; ages and times to go will look wrong",
            mend="let one of them keep time (NTP)",
        )
    ]


def _tools(answer: Mapping[str, Any]) -> list[Finding]:
    purposes = {"bash": "launch scripts need it", "rsync": "oelm-fetch needs it"}
    missing = [name for name in purposes if not answer[name]]
    if not missing:
        return [Finding(what="bash, rsync", verdict=GOOD, found="there")]
    return [
        Finding(what=name, verdict=BAD, found="not found there", mend=f"install it there: {purposes[name]}")
        for name in missing
    ]


def _logout(answer: Mapping[str, Any], target: Target) -> list[Finding]:
    if not answer["ends_processes"]:
        return []
    return [
        Finding(
            what="logout",
            verdict=BAD,
            found="this host ends what a user leaves running at logout (KillUserProcesses): runs would not survive it",
            mend=f"ssh {target.host} loginctl enable-linger, or ask its administrators for it",
        )
    ]


def _torch(answer: Mapping[str, Any], target: Target) -> Finding:
    trial = answer["trial"]
    if "error" in trial:
        mend = "install torch there, or name the interpreter (python) or the set-up lines (setup) in the targets file"
        return Finding(what="torch", verdict=BAD, found=str(trial["error"]), mend=mend)
    gpus = any(str(device["label"]).startswith("gpu") for device in answer["devices"])
    found = f"{trial['torch']} on Python {trial['python']}"
    if gpus and not trial["cuda"]:
        return Finding(
            what="torch",
            verdict=BAD,
            found=f"{found} sees no GPU, nvidia-smi does",
            mend="install a CUDA build of torch there",
        )
    return Finding(what="torch", verdict=GOOD, found=found + (f", {trial['gpus']} GPUs" if trial["cuda"] else ", CPU"))


def _trainer(answer: Mapping[str, Any], target: Target) -> list[Finding]:
    trial = answer["trial"]
    if "trainer_error" not in trial:
        return [] if "error" in trial else [Finding(what="trainer", verdict=GOOD, found="the project's train/ starts")]
    return [
        Finding(
            what="trainer",
            verdict=BAD,
            found=f"the project's train/ does not start there: {trial['trainer_error']}",
            mend=f"mend train/, or give {target.name} another interpreter or set-up",
        )
    ]


def _root(answer: Mapping[str, Any]) -> Finding:
    root = answer["root"]
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


def _locks(answer: Mapping[str, Any]) -> list[Finding]:
    if not answer["locks"]:
        return []
    return [
        Finding(
            what="locks",
            verdict=BAD,
            found=f"files below the root can't be locked ({answer['locks']}): claims would not hold",
            mend="set root (or checkpoint_root) of the target to a local disk",
        )
    ]


def _quota(answer: Mapping[str, Any]) -> list[Finding]:
    found = []
    for row in answer["quotas"]:
        what = f"quota of group {row['group']}" if row["group"] else "quota"
        mount = row["mount"]
        for used, limit, words in (
            (row["used"], row["limit"], f"{row['used'] / 1e9:.1f} of {row['limit'] / 1e9:.1f} GB used on {mount}"),
            (row["files"], row["files_limit"], f"{row['files']:,} of {row['files_limit']:,} files used on {mount}"),
        ):
            if limit:
                verdict = BAD if used >= limit else WARNING if used > (1 - LITTLE_LEFT) * limit else GOOD
                mend = "" if verdict == GOOD else "free some: oelm-clean, or by hand"
                found.append(Finding(what=what, verdict=verdict, found=words, mend=mend))
    return found


def _disk_left(answer: Mapping[str, Any]) -> int:
    """Return the bytes that checkpoints may take, by the disk and by quotas."""
    quotas = [row for row in answer["quotas"] if answer["checkpoints"] in row["paths"] and row["limit"]]
    return min(int(left) for left in [answer["disk_free"], *(max(0, row["limit"] - row["used"]) for row in quotas)])


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


def _data(study: Study, target: Target, rows: Mapping[str, Mapping[str, Any]], paths: Sequence[str]) -> Finding:
    what, tokens = f"data of {study.name}", 0
    folder = Path(paths[0]).parent
    make = "oelm-data demo" if folder.name == "demo" else f"oelm-data make TEXT... --output {folder}"
    if target.host:
        make = f"oelm-submit --study {study.name} --target {target.name} --send-data"
    vocabulary = int(study.train["vocab_size"])
    for path in paths:
        row = rows[path]
        wrong = str(row.get("error", ""))
        if not wrong and (row["size"] == 0 or row["size"] % 2):
            wrong = f"{row['size']} bytes are not uint16 token ids"
        listed = ((row["manifest"] or {}).get("files") or {}).get(Path(path).name)
        if not wrong and isinstance(listed, dict) and listed.get("sha256") != row["sha256"]:
            wrong = "differs from its manifest"
        if wrong:
            return Finding(what=what, verdict=BAD, found=f"{path}: {wrong}", mend=f"make or send it: {make}")
        if int(row.get("largest", 0)) >= vocabulary:
            found = f"{path} holds id {row['largest']}, vocab_size is {vocabulary}"
            return Finding(what=what, verdict=BAD, found=found, mend=f"edit {study.path}")
        tokens += row["size"] // 2
    if not rows[paths[0]]["manifest"]:
        return Finding(what=what, verdict=WARNING, found=f"{folder} has no manifest: its content can't be checked")
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


def _runs(study: Study) -> list[tuple[str, trainer.TrainConfig]]:
    """Return the study's groups with a configuration of one process each."""
    found = []
    for group in study.groups.values():
        own = study.global_batch // (group.world_size * int(study.train["gradient_accumulation_steps"]))
        values = {**study.train, **group.factors, "seed": 0, "batch_size": own}
        found.append((group.name, trainer.from_dict({key: v for key, v in values.items() if v is not None})))
    return found


def _memory(study: Study, answer: Mapping[str, Any]) -> list[Finding]:
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


def _disk(study: Study, answer: Mapping[str, Any]) -> Finding:
    need = len(study.seeds) * sum(estimate.checkpoint_disk_bytes(config) for _, config in _runs(study))
    left = _disk_left(answer)
    found = f"all its checkpoints take up to {need / 1e9:.2f} GB, {left / 1e9:.1f} GB are free"
    what = f"disk for {study.name}"
    if need > left:
        mend = f"lower keep_last or keep_every in {study.path}, or make room (oelm-clean)"
        return Finding(what=what, verdict=BAD, found=found, mend=mend)
    return Finding(what=what, verdict=GOOD, found=found)


def _wandb(study: Study, target: Target, answer: Mapping[str, Any]) -> list[Finding]:
    if not study.train.get("use_wandb") or "error" in answer["trial"]:
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


def _cluster(answer: Mapping[str, Any], target: Target, studies: Sequence[Study]) -> list[Finding]:
    """Say what the cluster makes of the target's options."""
    if "site" not in answer:
        mend = "is this the login node, and is Slurm up? Try squeue there"
        return [Finding(what="slurm", verdict=BAD, found=str(answer["site_error"]), mend=mend)]
    sizes = {target.gpus_per_run or group.world_size for study in studies for group in study.groups.values()}
    return [
        Finding(
            what=remark.what,
            verdict=BAD if remark.is_bad else WARNING if remark.is_odd else GOOD,
            found=remark.found,
            mend=remark.mend,
        )
        for remark in site.judge(target, answer["site"], sizes)
    ]


def _ports(wanted: Sequence[int], taken: Sequence[int]) -> list[Finding]:
    if taken:
        listed = ", ".join(map(str, taken))
        return [Finding(what="ports", verdict=WARNING, found=f"{listed} taken; a free one will be used instead")]
    return [Finding(what="ports", verdict=GOOD, found=f"{', '.join(map(str, wanted))} free")] if wanted else []

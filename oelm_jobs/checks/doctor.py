"""Checks of a target before it costs a night: all that its runs need, in one look, and what to do about each."""

from __future__ import annotations

import platform
import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..agent import registry, rundir, snapshots
from ..code import snapshot
from ..connections import Connection, PlacedTree, connect, interpreter, unreached
from ..errors import ConfigurationError, OelmError
from ..folders import study_files
from ..schedulers import allowed_environment
from ..scripts.jobs import preview
from ..scripts.templates import trial as trial_script
from ..spec.study import Run, Study
from ..spec.target import Target
from ..study.files import read_study
from ..study.plan import SEQUENTIAL, Plan
from ..study.resolve import plan_runs, token_files
from ..targets.files import LOCAL
from ..targets.sbatch import without_slurm
from . import needs, site
from .finding import BAD, GOOD, WARNING, Finding

if TYPE_CHECKING:
    from ..agent import messages

LEASE_BYTES, LEASE_FILES = 1_000_000, 100
"""So much room the leases of a busy host take."""
LITTLE_LEFT = 0.05
"""Part of a quota below which what is left of it is worth a word."""
PROFILE_WORDS = re.compile(r"\b(module|ml|spack|conda|mamba|micromamba): |conda (init|activate)")
"""What a shell says that lacks what sites define in profiles."""


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
    taken = snapshot.take(project)
    code = PlacedTree(tree=taken, folder=f"{there.root}/{rundir.CONTROL}/{snapshots.FOLDER}")
    connection = connect(target, project)
    runs, unplanned = _runs(there, studies)
    jobs, unprinted = _jobs(project, there, studies, runs, taken, connection)
    trial, untried = _trial(project, target)
    found += dict.fromkeys([*unplanned, *unprinted, *untried])  # what is wrong with a target shows in each of them
    files = {study.name: token_files(there, study) for study in studies}
    ports = sorted({group.port for study in studies for group in study.groups.values() if group.port})
    request: messages.ExamineRequest = {
        "root": there.root,
        "checkpoint_root": there.checkpoint_root,
        "python": interpreter(target) if target.host else connection.python,
        "setup": list(target.setup),
        "code": f"{code.folder}/{code.tree.hash}",
        "trial": trial,
        "jobs": jobs,
        "environment": allowed_environment(target),
        "ports": ports,
        "files": sorted({path for pair in files.values() for path in pair}),
        "slurm": target.slurm is not None,
    }
    begun = time.time()
    answer = connection.call(registry.EXAMINE, request, trees=[code], timeout_s=1800)
    answer["devices"] = [device for device in answer["devices"] if target.may_lease(device["label"])]
    if target.host:
        found += [_host(answer), *_clock(answer, begun), *_tools(answer)]
    found += [*_setup(answer["trial"], target), *_torch(answer), *_trainer(answer, target, taken.passed_over)]
    found += [_root(answer), *_quota(answer)]
    for study in studies:
        own = token_files(unreached(LOCAL, project), study)
        found.append(needs.data(study, target, answer["data"], files[study.name], own=own))
        if study.name in runs:
            found.append(needs.disk(study, there, runs[study.name], needs.free_bytes(answer)))
        found += needs.wandb(study, target, answer)
    if target.slurm is not None:
        return found + _cluster(answer, target, studies)
    found += [*(_logout(answer, target) if target.host else []), *_locks(answer), *_devices(answer)]
    limit = str(answer.get("limit") or "")
    sound = [device for device in answer["devices"] if not device.get("fault")]  # runs would wait for the others
    for study in studies:
        if study.name in runs and not answer.get("lease_error"):
            found.append(needs.devices(study, target, runs[study.name], sound, limit))
            found += needs.memory(study, target, runs[study.name], answer["devices"])
    return found + _ports(ports, answer["ports_taken"])


def _runs(target: Target, studies: Sequence[Study]) -> tuple[dict[str, list[Run]], list[Finding]]:
    """Return the runs of each study, and why those of others can't be told."""
    runs: dict[str, list[Run]] = {}
    wrong = []
    for study in studies:
        try:
            runs[study.name] = plan_runs(study, target, target.root)
        except ConfigurationError as error:
            wrong.append(_unmade(error, target))
    return runs, wrong


def _jobs(
    project: Path,
    target: Target,
    studies: Sequence[Study],
    runs: Mapping[str, Sequence[Run]],
    code: snapshot.Snapshot,
    connection: Connection,
) -> tuple[dict[str, str], list[Finding]]:
    """Return the script of a job of each size that runs have, by number of processes, and why others can't be made."""
    jobs: dict[str, str] = {}
    wrong: dict[int, Finding] = {}
    for study in studies:
        for run in runs.get(study.name, ()):
            size = run.world_size
            if str(size) in jobs or size in wrong:
                continue
            plan = Plan(
                project=project,
                study=study,
                target=target,
                mode=SEQUENTIAL,
                stop_on_failure=False,
                runs=(run,),
                differences=(),
                data_hash="",
            )
            try:
                jobs[str(size)] = preview(plan, [run], code, connection, token="oelm-doctor")[0].script
            except ConfigurationError as error:
                wrong[size] = _unmade(error, target)
    return jobs, list(wrong.values())


def _trial(project: Path, target: Target) -> tuple[str, list[Finding]]:
    """Return how launch scripts of the target begin, and why that can't be tried; without one it isn't."""
    try:
        script = trial_script(project, target)
    except ConfigurationError as error:
        return "", [_unmade(error, target)]
    if script:
        return script, []
    words = "not tried: the template of its scripts has no block called command"
    return "", [Finding(what="set-up", verdict=WARNING, found=words)]


def _unmade(error: ConfigurationError, target: Target) -> Finding:
    mend = error.hint or f"change target {target.name} or its template, or the study"
    return Finding(what="script", verdict=BAD, found=str(error), mend=mend)


def _client(target: Target) -> list[Finding]:
    version = platform.python_version()
    found = [Finding(what="python here", verdict=GOOD, found=f"{version} ({sys.executable})")]
    programs = (
        {"ssh": "reaches the target", "rsync": "brings results home"} if target.host else {"bash": "runs the scripts"}
    )
    for name, purpose in programs.items():
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


def _setup(trial: Mapping[str, Any], target: Target) -> list[Finding]:
    """Say how far the set-up gets in the shell that runs have."""
    lines, shell = len(target.setup), "a login shell" if target.login_shell else "a shell that reads no profile"
    if "setup_error" not in trial:
        if not target.setup or not trial:
            return []
        return [Finding(what="set-up", verdict=GOOD, found=f"{lines} {'line' if lines == 1 else 'lines'}, in {shell}")]
    line, said = str(trial["line"]), str(trial["setup_error"])
    found = f"ended before its end: {said}"
    if line:
        number = list(target.setup).index(line) + 1 if line in target.setup else "?"
        found = f"line {number}, {' '.join(line.split())}: {said or 'failed without a word'}"
    mend = f"mend setup of target {target.name}: each line has to succeed, in {shell}"
    if trial["is_broken"]:
        mend = f"write what belongs together into one line of setup of target {target.name}: each is run on its own"
    elif PROFILE_WORDS.search(said) and target.slurm is not None and not target.login_shell:
        mend = f"set login_shell = true in target {target.name}"
    elif PROFILE_WORDS.search(said):
        mend = f"source the file that defines it first, in setup of target {target.name}"
    return [Finding(what="set-up", verdict=BAD, found=found, mend=mend)]


def _torch(answer: Mapping[str, Any]) -> list[Finding]:
    trial = answer["trial"]
    if "error" in trial:
        mend = "install torch there, or name the interpreter (python) or the set-up lines (setup) in the targets file"
        return [Finding(what="torch", verdict=BAD, found=str(trial["error"]), mend=mend)]
    if "torch" not in trial:
        return []
    gpus = any(str(device["label"]).startswith("gpu") for device in answer["devices"])
    found = f"{trial['torch']} on Python {trial['python']}"
    if gpus and not trial["cuda"]:
        mend = "install a CUDA build of torch there"
        return [Finding(what="torch", verdict=BAD, found=f"{found} sees no GPU, nvidia-smi does", mend=mend)]
    found += f", {trial['gpus']} GPUs" if trial["cuda"] else ", CPU"
    return [Finding(what="torch", verdict=GOOD, found=found)]


def _trainer(answer: Mapping[str, Any], target: Target, passed_over: str) -> list[Finding]:
    trial = answer["trial"]
    if "trainer_error" not in trial:
        words = passed_over or "the project's train/ starts"
        return [Finding(what="trainer", verdict=GOOD, found=words)] if "torch" in trial else []
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


def _devices(answer: Mapping[str, Any]) -> list[Finding]:
    if "lease_error" in answer:
        error = answer["lease_error"]
        is_listing = error.startswith("nvidia-smi ")
        mend = "run nvidia-smi there by hand" if is_listing else "OELM_LEASE_DIR names another folder"
        return [Finding(what="leases", verdict=BAD, found=error, mend=mend)]
    devices, queue = answer["devices"], answer["queue"]
    held = [f"{d['label']} by {d['user']} ({d['run']})" for d in devices if d["run"]]
    held += [f"{d['label']} without a ticket by {d['holder']}" for d in devices if d["holder"]]
    foreign = [d["label"] for d in devices if not d["run"] and not d["holder"] and d["memory_used_mb"] > 1000]
    names = sorted({str(device["name"]) for device in devices})
    count = f"{len(devices)} x {' / '.join(names)}" if devices else "none that runs may have"
    limit = f", held to {answer['limit']}" if answer["limit"] else ""
    found = [Finding(what="devices", verdict=GOOD if devices else BAD, found=count + limit)]
    if not devices:
        found[0] = replace(found[0], mend="name GPUs that are there, or unset it")
    for device in devices:
        if device["fault"]:
            mend = "nvidia-smi shows more; its administrators reset it. Runs that need it wait"
            found.append(Finding(what="devices", verdict=BAD, found=device["fault"], mend=mend))
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
    return found + _lease_folder(answer)


def _lease_folder(answer: Mapping[str, Any]) -> list[Finding]:
    """Judge the folder in which all users of the host keep their leases."""
    found, where = [], answer["lease_folder"]
    if answer["lease_privacy"]:
        mend = "let OELM_LEASE_DIR name a folder (mode 1777) that all users see, for all of them"
        words = f"other users' leases are not seen: {answer['lease_privacy']}"
        found.append(Finding(what="lease folder", verdict=WARNING, found=words, mend=mend))
    free, files = answer["lease_room"], answer["lease_files"]
    if free < LEASE_BYTES or 0 <= files < LEASE_FILES:
        words = f"{where}: {free / 1e6:.1f} MB and {files if files >= 0 else 'enough'} files are left"
        mend = "make room there: without it no run gets devices"
        found.append(Finding(what="lease folder", verdict=BAD, found=words, mend=mend))
    if answer["junk"]:
        more = f" and {len(answer['junk']) - 5} more" if len(answer["junk"]) > 5 else ""
        words = f"passed over in {where}: {', '.join(answer['junk'][:5])}{more}"
        found.append(Finding(what="lease folder", verdict=WARNING, found=words, mend="have it removed by its owner"))
    return found


def _cluster(answer: Mapping[str, Any], target: Target, studies: Sequence[Study]) -> list[Finding]:
    """Say what the cluster makes of the target's options."""
    if "site" not in answer:
        mend = without_slurm(target)
        if target.clusters:
            mend = f"check clusters = {target.clusters!r} in sbatch of the target: sacctmgr show cluster lists them"
        return [Finding(what="slurm", verdict=BAD, found=str(answer["site_error"]), mend=mend)]
    sizes = {target.gpus_per_run or group.world_size for study in studies for group in study.groups.values()}
    found = site.judge(target, answer["site"], sizes) + site.tried(target, answer["tests"])
    if answer["trial"].get("slurm_error"):
        found.append(site.out_of_reach(interpreter(target), str(answer["trial"]["slurm_error"])))
    return found


def _ports(wanted: Sequence[int], taken: Sequence[int]) -> list[Finding]:
    if taken:
        listed = ", ".join(map(str, taken))
        return [Finding(what="ports", verdict=WARNING, found=f"{listed} taken; a free one will be used instead")]
    return [Finding(what="ports", verdict=GOOD, found=f"{', '.join(map(str, wanted))} free")] if wanted else []

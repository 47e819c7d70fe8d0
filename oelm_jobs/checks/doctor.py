"""Checks of a target before it costs a night: all that its runs need, in one look, and what to do about each."""

from __future__ import annotations

import platform
import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..agent import registry, rundir, snapshots
from ..agent.sentences import _, joined
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
from ..study.plan import Mode, Plan
from ..study.resolve import plan_runs, token_files
from ..targets.files import LOCAL
from ..targets.sbatch import without_slurm
from . import needs, site
from .finding import Finding, Grade, bad, good, warning

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
            what, mend = _("study {study}", path.stem), _("edit {path}", str(path))
            found.append(bad(what, str(error), mend))
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
    limit = answer.get("limit", "")
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
                mode=Mode.SEQUENTIAL,
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
    words = _("not tried: the template of its scripts has no block called command")
    return "", [warning(_("set-up"), words)]


def _unmade(error: ConfigurationError, target: Target) -> Finding:
    mend = error.hint or _("change target {target} or its template, or the study", target.name)
    return bad(_("script"), str(error), mend)


def _client(target: Target) -> list[Finding]:
    version = platform.python_version()
    found = [good(_("python here"), f"{version} ({sys.executable})")]
    mends = {"bash": _("install bash: it runs the scripts")}
    if target.host:
        mends = {
            "ssh": _("install ssh: it reaches the target"),
            "rsync": _("install rsync: it brings results home"),
        }
    for name, mend in mends.items():
        if shutil.which(name) is None:
            what = _("{program} here", name)
            found.append(bad(what, _("not found"), mend))
    return found


def _host(answer: messages.ExamineAnswer) -> Finding:
    words = _(
        "{user}@{host}, Python {version} for the agent, root {root}",
        answer["user"],
        answer["host"],
        answer["agent_python"],
        answer["root"],
    )
    return good(_("host"), words)


def _clock(answer: messages.ExamineAnswer, begun: float) -> list[Finding]:
    """Compare the clocks: ages of heartbeats are told by the one there."""
    off = max(begun - answer["time"], answer["time"] - time.time(), 0.0)
    if off < 60:
        return []
    words = _("the clocks here and there differ by {seconds:.0f} s; ages and times to go will look wrong", off)
    return [warning(_("clock"), words, _("let one of them keep time (NTP)"))]


def _tools(answer: messages.ExamineAnswer) -> list[Finding]:
    tools = (
        ("bash", answer["bash"], _("install it there: launch scripts need it")),
        ("rsync", answer["rsync"], _("install it there: oelm-fetch needs it")),
    )
    missing = [(name, mend) for name, path, mend in tools if not path]
    if not missing:
        return [good("bash, rsync", _("there"))]
    return [bad(name, _("not found there"), mend) for name, mend in missing]


def _logout(answer: messages.ExamineAnswer, target: Target) -> list[Finding]:
    if not answer["ends_processes"]:
        return []
    words = _("this host ends what a user leaves running at logout (KillUserProcesses): runs would not survive it")
    mend = _("ssh {host} loginctl enable-linger, or ask its administrators for it", target.host)
    return [bad(_("logout"), words, mend)]


def _setup(trial: messages.Trial, target: Target) -> list[Finding]:
    """Say how far the set-up gets in the shell that runs have."""
    lines, shell = len(target.setup), _("a login shell") if target.login_shell else _("a shell that reads no profile")
    if "setup_error" not in trial:
        if not target.setup or not trial:
            return []
        found = _("1 line, in {shell}", shell)
        if lines != 1:
            found = _("{count} lines, in {shell}", lines, shell)
        return [good(_("set-up"), found)]
    line, said, name = trial["line"], trial["setup_error"], target.name
    found = _("ended before its end: {words}", said)
    if line:
        number = list(target.setup).index(line) + 1 if line in target.setup else "?"
        words = said or _("failed without a word")
        found = _("line {number}, {line}: {words}", number, " ".join(line.split()), words)
    mend = _("mend setup of target {target}: each line has to succeed, in {shell}", name, shell)
    if trial["is_broken"]:
        mend = _("write what belongs together into one line of setup of target {target}: each is run on its own", name)
    elif PROFILE_WORDS.search(said) and target.slurm is not None and not target.login_shell:
        mend = _("set login_shell = true in target {target}", name)
    elif PROFILE_WORDS.search(said):
        mend = _("source the file that defines it first, in setup of target {target}", name)
    return [bad(_("set-up"), found, mend)]


def _torch(answer: messages.ExamineAnswer) -> list[Finding]:
    trial = answer["trial"]
    if "error" in trial:
        mend = _(
            "install torch there, or name the interpreter (python) or the set-up lines (setup) in the targets file"
        )
        return [bad("torch", trial["error"], mend)]
    if "torch" not in trial:
        return []
    gpus = any(device["label"].startswith("gpu") for device in answer["devices"])
    torch = _("{version} on Python {python}", trial["torch"], trial["python"])
    if gpus and not trial["cuda"]:
        found = _("{torch} sees no GPU, nvidia-smi does", torch)
        return [bad("torch", found, _("install a CUDA build of torch there"))]
    found = _("{torch}, CPU", torch)
    if trial["cuda"]:
        found = _("{torch}, {count} GPUs", torch, trial["gpus"])
    return [good("torch", found)]


def _trainer(answer: messages.ExamineAnswer, target: Target, passed_over: str) -> list[Finding]:
    trial = answer["trial"]
    if "trainer_error" not in trial:
        words = passed_over or _("the project's train/ starts")
        return [good(_("trainer"), words)] if "torch" in trial else []
    words = _("the project's train/ does not start there: {error}", trial["trainer_error"])
    mend = _("mend train/, or give {target} another interpreter or set-up", target.name)
    return [bad(_("trainer"), words, mend)]


def _root(answer: messages.ExamineAnswer) -> Finding:
    root = answer["root"]
    if answer["writable"]:
        mend = _("make {root} writable, or set root of the target", root)
        return bad(_("root"), answer["writable"], mend)
    free = answer["disk_free"] / 1e9
    found = _("{free:.1f} GB free at {path}", free, root)
    if free < 2:
        return warning(_("disk"), found, _("make room: checkpoints need it"))
    return good(_("disk"), found)


def _locks(answer: messages.ExamineAnswer) -> list[Finding]:
    if not answer["locks"]:
        return []
    words = _("files below the root can't be locked ({why}): claims would not hold", answer["locks"])
    mend = _("set root (or checkpoint_root) of the target to a local disk")
    return [bad(_("locks"), words, mend)]


def _quota(answer: messages.ExamineAnswer) -> list[Finding]:
    found = []
    for row in answer["quotas"]:
        what = _("quota of group {group}", row["group"]) if row["group"] else _("quota")
        used_gb, limit_gb, mount = row["used"] / 1e9, row["limit"] / 1e9, row["mount"]
        room = _("{used:.1f} of {limit:.1f} GB used on {mount}", used_gb, limit_gb, mount)
        count = _("{used:,} of {limit:,} files used on {mount}", row["files"], row["files_limit"], mount)
        for used, limit, words in ((row["used"], row["limit"], room), (row["files"], row["files_limit"], count)):
            if limit:
                verdict = (
                    Grade.BAD if used >= limit else Grade.WARNING if used > (1 - LITTLE_LEFT) * limit else Grade.GOOD
                )
                mend = "" if verdict is Grade.GOOD else _("free some: oelm-clean, or by hand")
                found.append(Finding(what=what, verdict=verdict, found=words, mend=mend))
    return found


def _devices(answer: messages.ExamineAnswer) -> list[Finding]:
    if "lease_error" in answer:
        is_listing = "lease_room" in answer  # the folder will do: it is the devices that can't be listed
        mend = _("run nvidia-smi there by hand") if is_listing else _("OELM_LEASE_DIR names another folder")
        return [bad(_("leases"), answer["lease_error"], mend)]
    devices, queue = answer["devices"], answer["queue"]
    held = [_("{device} by {user} ({run})", row["label"], row["user"], row["run"]) for row in devices if row["run"]]
    held += [
        _("{device} without a ticket by {holder}", row["label"], row["holder"]) for row in devices if row["holder"]
    ]
    foreign = [d["label"] for d in devices if not d["run"] and not d["holder"] and d["memory_used_mb"] > 1000]
    names = sorted({device["name"] for device in devices})
    words = _("none that runs may have")
    if devices:
        words = _("{count} x {model}", len(devices), names[0] if len(names) == 1 else " / ".join(names))
    if answer["limit"]:
        words = _("{devices}, held to {limit}", words, answer["limit"])
    mend = _("name GPUs that are there, or unset it")
    found = [good(_("devices"), words) if devices else bad(_("devices"), words, mend)]
    for device in devices:
        if device["fault"]:
            mend = _("nvidia-smi shows more; its administrators reset it. Runs that need it wait")
            found.append(bad(_("devices"), device["fault"], mend))
    if foreign:
        words = _("{devices} in use without a lease; runs wait for them", foreign)
        found.append(warning(_("foreign use"), words))
    holders = _("held: {devices}", held) if held else _("all free")
    waiting = _("{count} runs wait", len(queue)) if queue else ""
    found.append(good(_("leases"), joined([holders, waiting])))
    return found + _lease_folder(answer)


def _lease_folder(answer: messages.ExamineAnswer) -> list[Finding]:
    """Judge the folder in which all users of the host keep their leases."""
    found, where = [], answer["lease_folder"]
    if answer["lease_privacy"]:
        mend = _("let OELM_LEASE_DIR name a folder (mode 1777) that all users see, for all of them")
        words = _("other users' leases are not seen: {why}", answer["lease_privacy"])
        found.append(warning(_("lease folder"), words, mend))
    free, files = answer["lease_room"], answer["lease_files"]
    if free < LEASE_BYTES or 0 <= files < LEASE_FILES:
        words = _("{path}: {free:.1f} MB and enough files are left", where, free / 1e6)
        if files >= 0:
            words = _("{path}: {free:.1f} MB and {count} files are left", where, free / 1e6, files)
        mend = _("make room there: without it no run gets devices")
        found.append(bad(_("lease folder"), words, mend))
    if junk := answer["junk"]:
        words = _("passed over in {path}: {junk}", where, junk[:5])
        if len(junk) > 5:
            words = _("{words} and {count} more", words, len(junk) - 5)
        mend = _("have it removed by its owner")
        found.append(warning(_("lease folder"), words, mend))
    return found


def _cluster(answer: messages.ExamineAnswer, target: Target, studies: Sequence[Study]) -> list[Finding]:
    """Say what the cluster makes of the target's options."""
    if "site" not in answer:
        mend = without_slurm(target)
        if target.clusters:
            mend = _(
                "check clusters = {value!r} in sbatch of the target: sacctmgr show cluster lists them", target.clusters
            )
        return [bad("slurm", answer["site_error"], mend)]
    sizes = {target.gpus_per_run or group.world_size for study in studies for group in study.groups.values()}
    found = site.judge(target, answer["site"], sizes) + site.tried(target, answer["tests"])
    if answer["trial"].get("slurm_error"):
        found.append(site.out_of_reach(interpreter(target), answer["trial"]["slurm_error"]))
    return found


def _ports(wanted: Sequence[int], taken: Sequence[int]) -> list[Finding]:
    if taken:
        words = _("{ports} taken; a free one will be used instead", list(taken))
        return [warning(_("ports"), words)]
    return [good(_("ports"), _("{ports} free", list(wanted)))] if wanted else []

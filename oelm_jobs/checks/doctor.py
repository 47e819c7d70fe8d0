"""Checks of a target before it costs a night: all that its runs need, in one look, and what to do about each."""

from __future__ import annotations

import contextlib
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..agent import registry, rundir, snapshots
from ..agent.sentences import _, joined
from ..code import snapshot
from ..connections import Connection, PlacedTree, connect, interpreter, unreached
from ..errors import ConfigurationError, OelmError, few
from ..folders import study_files
from ..schedulers import allowed_environment
from ..scripts.jobs import Scripts
from ..scripts.templates import trial as trial_script
from ..spec.study import Run, Study
from ..spec.target import Target
from ..study import blocks
from ..study.files import read_study
from ..study.plan import Mode, Plan
from ..study.resolve import data_paths, plan_runs, token_files
from ..targets.files import LOCAL
from ..targets.sbatch import without_slurm
from . import needs, site
from . import notify as notifications
from .finding import Finding, bad, good, warning

if TYPE_CHECKING:
    from ..agent import messages

LEASE_BYTES, LEASE_FILES = 1_000_000, 100
"""So much room the leases of a busy host take."""
LITTLE_BYTES, LITTLE_LEFT = 2_000_000_000, 0.05
"""Free bytes, and the part of a quota below which what is left of it is worth a word."""
PROFILE_WORDS = re.compile(r"\b(module|ml|spack|conda|mamba|micromamba): |conda (init|activate)")
"""What a shell says that lacks what sites define in profiles."""


def examine(project: Path, target: Target, *, notify: bool = False) -> list[Finding]:
    """Look at everything that a run on ``target`` needs, in one round trip; what scripts read is hashed in another.

    Args:
        notify: Send a test of the notifications.

    Raises:
        TargetError: The target can't be reached at all.
    """
    studies, found = [], list(_client(target))
    for path in study_files(project):
        try:
            studies.append(read_study(path))
        except OelmError as error:
            found.append(bad(_("study {study}", path.stem), str(error), _("edit {path}", str(path))))
    there = unreached(target, project)
    taken = snapshot.take(project)
    code = PlacedTree(tree=taken, folder=f"{there.root}/{rundir.CONTROL}/{snapshots.FOLDER}")
    connection = connect(target, project)
    runs: dict[str, list[Run]] = {}
    plans: dict[int, Plan] = {}  # of one run of each size
    jobs: dict[str, str] = {}
    trial, unmade = "", list[Finding]()
    for study in studies:
        with _noted(unmade, there):
            runs[study.name] = plan_runs(study, there)
        for run in runs.get(study.name, ()):
            plan = Plan(project=project, study=study, target=there, mode=Mode.SEQUENTIAL, runs=(run,))
            plans.setdefault(run.world_size, plan)
    for size, plan in plans.items():
        with _noted(unmade, there):
            tried = Scripts(plan=plan, connection=connection, snapshot=taken, token="oelm-doctor", is_sent=False)
            jobs[str(size)] = tried.render(plan.runs)[0].script
    with _noted(unmade, target):
        trial = trial_script(project, target)
        if not trial:
            words = _("not tried: the template of its scripts has no block called command")
            unmade.append(warning(_("set-up"), words))
    found += dict.fromkeys(unmade)  # what is wrong with a target shows in each of them
    in_blocks = [within for study in studies for within in blocks.each(study).values()]
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
        "files": sorted({path for within in in_blocks for path in token_files(there, within)}),
        "slurm": target.slurm is not None,
    }
    begun = time.time()
    answer = connection.call(registry.EXAMINE, request, trees=[code], timeout_s=1800)
    answer["devices"] = [device for device in answer["devices"] if target.may_lease(device["label"])]
    if target.host:
        found += _host(answer, begun)
    trained = [study for study in studies if study.program is None]
    interpreter_needs = _interpreter(answer, target, taken.passed_over, trains=bool(trained or not studies))
    found += [*_setup(answer["trial"], target), *interpreter_needs, *_room(answer)]
    for study in trained:
        for within in blocks.each(study).values():
            own = token_files(unreached(LOCAL, project), within)
            found.append(needs.data(within, target, answer["data"], token_files(there, within), own=own))
        if study.name in runs:
            found.append(needs.disk(study, there, runs[study.name], needs.free_bytes(answer)))
            found += needs.compiling(study, target, runs[study.name], answer["trial"])
        found += needs.wandb(study, target, answer)
    found += _script_data(
        project, connection, [within for within in in_blocks if within.program and within.program.data]
    )
    with _noted(found, target):
        found += notifications.look(connection, studies, sends=notify)
    if target.slurm is not None:
        return [*found, *_cluster(answer, target, studies)]
    found += [*_host_rules(answer, target), *_devices(answer)]
    limit = answer.get("limit", "")
    sound = [device for device in answer["devices"] if not device.get("fault")]  # runs would wait for the others
    for study in studies:
        if study.name in runs and not answer.get("lease_error"):
            found.append(needs.devices(study, target, runs[study.name], sound, limit))
            if study.program is None:
                found += needs.memory(study, target, runs[study.name], answer["devices"])
    return [*found, *_ports(ports, answer["ports_taken"])]


def _script_data(project: Path, connection: Connection, studies: Sequence[Study]) -> Iterator[Finding]:
    """Say of each study whether what its script reads is there."""
    there = [data_paths(connection.resolved, study) for study in studies]
    if not there:
        return
    every = sorted({path for paths in there for path in paths})
    request: messages.ContentRequest = {"root": connection.resolved.root, "files": every}
    rows = connection.call(registry.CONTENT, request, timeout_s=1800)["files"]
    for study, paths in zip(studies, there, strict=True):
        own = data_paths(unreached(LOCAL, project), study)
        yield needs.script_data(study, connection.target, rows, paths, own=own)


@contextlib.contextmanager
def _noted(found: list[Finding], target: Target) -> Iterator[None]:
    """Add why something can't be made for the target to what was found, and go on without."""
    try:
        yield
    except ConfigurationError as error:
        mend = error.hint or _("change target {target} or its template, or the study", target.name)
        found.append(bad(_("script"), str(error), mend))


def _client(target: Target) -> Iterator[Finding]:
    yield good(_("python here"), f"{platform.python_version()} ({sys.executable})")
    mends = {"bash": _("install bash: it runs the scripts")}
    if target.host:
        mends = {
            "ssh": _("install ssh: it reaches the target"),
            "rsync": _("install rsync: it brings results home"),
        }
    for name, mend in mends.items():
        if shutil.which(name) is None:
            yield bad(_("{program} here", name), _("not found"), mend)


def _host(answer: messages.ExamineAnswer, begun: float) -> Iterator[Finding]:
    """Say whose the host is, whether its clock is right (ages of heartbeats are told by it), and what it lacks.

    Args:
        begun: When the question was asked, by the clock here.
    """
    words = _(
        "{user}@{host}, Python {version} for the agent, root {root}",
        answer["user"],
        answer["host"],
        answer["agent_python"],
        answer["root"],
    )
    yield good(_("host"), words)
    off = max(begun - answer["time"], answer["time"] - time.time(), 0.0)
    if off >= 60:
        words = _("the clocks here and there differ by {seconds:.0f} s; ages and times to go will look wrong", off)
        yield warning(_("clock"), words, _("let one of them keep time (NTP)"))
    if answer["bash"] and answer["rsync"]:
        yield good("bash, rsync", _("there"))
    for name, path, mend in (
        ("bash", answer["bash"], _("install it there: launch scripts need it")),
        ("rsync", answer["rsync"], _("install it there: oelm-fetch needs it")),
    ):
        if not path:
            yield bad(name, _("not found there"), mend)


def _setup(trial: messages.Trial, target: Target) -> Iterator[Finding]:
    """Say how far the set-up gets in the shell that runs have."""
    lines, shell = len(target.setup), _("a login shell") if target.login_shell else _("a shell that reads no profile")
    if "setup_error" not in trial:
        if lines and trial:
            words = _("1 line, in {shell}", shell) if lines == 1 else _("{count} lines, in {shell}", lines, shell)
            yield good(_("set-up"), words)
        return
    line, said, name = trial["line"], trial["setup_error"], target.name
    found = _("ended before its end: {words}", said)
    if line:
        number = target.setup.index(line) + 1 if line in target.setup else "?"
        why = said or _("failed without a word")
        found = _("line {number}, {line}: {words}", number, " ".join(line.split()), why)
    mend = _("mend setup of target {target}: each line has to succeed, in {shell}", name, shell)
    if trial["is_broken"]:
        mend = _("write what belongs together into one line of setup of target {target}: each is run on its own", name)
    elif PROFILE_WORDS.search(said) and target.slurm is not None and not target.login_shell:
        mend = _("set login_shell = true in target {target}", name)
    elif PROFILE_WORDS.search(said):
        mend = _("source the file that defines it first, in setup of target {target}", name)
    yield bad(_("set-up"), found, mend)


def _interpreter(
    answer: messages.ExamineAnswer, target: Target, passed_over: str, *, trains: bool
) -> Iterator[Finding]:
    """Say whether the interpreter of runs has torch, and starts the trainer.

    Args:
        passed_over: What of the trainer's code was not sent.
        trains: Whether a study runs the built-in trainer: a script may do without torch.
    """
    trial = answer["trial"]
    if "error" in trial:
        mend = needs.how_to_have_torch(target, answer["devices"])
        yield bad("torch", trial["error"], mend) if trains else warning("torch", trial["error"], mend)
    if "torch" not in trial:
        return
    torch = _("{version} on Python {python}", trial["torch"], trial["python"])
    if trial["cuda"]:
        yield good("torch", _("{torch}, {count} GPUs", torch, trial["gpus"]))
    elif any(device["label"].startswith("gpu") for device in answer["devices"]):
        yield bad("torch", _("{torch} sees no GPU, nvidia-smi does", torch), _("install a CUDA build of torch there"))
    else:
        yield good("torch", _("{torch}, CPU", torch))
    if not trains:
        return
    if "trainer_error" in trial:
        words = _("the project's train/ does not start there: {error}", trial["trainer_error"])
        yield bad(_("trainer"), words, _("mend train/, or give {target} another interpreter or set-up", target.name))
    else:
        yield good(_("trainer"), passed_over or _("the project's train/ starts"))


def _room(answer: messages.ExamineAnswer) -> Iterator[Finding]:
    """Say what can be written below the root, by the disk and by quotas."""
    root, found = answer["root"], _("{free:.1f} GB free at {path}", answer["disk_free"] / 1e9, answer["root"])
    if answer["writable"]:
        yield bad(_("root"), answer["writable"], _("make {root} writable, or set root of the target", root))
    elif answer["disk_free"] < LITTLE_BYTES:
        yield warning(_("disk"), found, _("make room: checkpoints need it"))
    else:
        yield good(_("disk"), found)
    for row in answer["quotas"]:
        what = _("quota of group {group}", row["group"]) if row["group"] else _("quota")
        used_gb, limit_gb, mount = row["used"] / 1e9, row["limit"] / 1e9, row["mount"]
        room = _("{used:.1f} of {limit:.1f} GB used on {mount}", used_gb, limit_gb, mount)
        count = _("{used:,} of {limit:,} files used on {mount}", row["files"], row["files_limit"], mount)
        for used, limit, words in ((row["used"], row["limit"], room), (row["files"], row["files_limit"], count)):
            if limit and used > (1 - LITTLE_LEFT) * limit:
                yield (bad if used >= limit else warning)(what, words, _("free some: oelm-clean, or by hand"))
            elif limit:
                yield good(what, words)


def _host_rules(answer: messages.ExamineAnswer, target: Target) -> Iterator[Finding]:
    """Say what a plain host does to processes and files that runs rest on."""
    if target.host and (partitions := answer.get("partitions")):
        names = few(partitions)
        words = _("this host submits to a cluster ({partitions}): others mind what computes on a login node", names)
        mend = _(
            'let target {name} have kind = "slurm" and sbatch = {{ partition = "{partition}" }}, for its compute nodes',
            target.name,
            partitions[0],
        )
        yield warning("slurm", words, mend)
    if target.host and answer["ends_processes"]:
        words = _("this host ends what a user leaves running at logout (KillUserProcesses): runs would not survive it")
        mend = _("ssh {host} loginctl enable-linger, or ask its administrators for it", target.host)
        yield bad(_("logout"), words, mend)
    if answer["locks"]:
        words = _("files below the root can't be locked ({why}): claims would not hold", answer["locks"])
        yield bad(_("locks"), words, _("set root (or checkpoint_root) of the target to a local disk"))


def _devices(answer: messages.ExamineAnswer) -> Iterator[Finding]:
    if "lease_error" in answer:
        is_listing = "lease_room" in answer  # the folder will do: it is the devices that can't be listed
        mend = _("run nvidia-smi there by hand") if is_listing else _("OELM_LEASE_DIR names another folder")
        yield bad(_("leases"), answer["lease_error"], mend)
        return
    devices, queue = answer["devices"], answer["queue"]
    held = [_("{device} by {user} ({run})", row["label"], row["user"], row["run"]) for row in devices if row["run"]]
    held += [
        _("{device} without a ticket by {holder}", row["label"], row["holder"]) for row in devices if row["holder"]
    ]
    foreign = [d["label"] for d in devices if not d["run"] and not d["holder"] and d["memory_used_mb"] > 1000]
    names = sorted({device["name"] for device in devices})
    words = _("{count} x {model}", len(devices), names) if devices else _("none that runs may have")
    if answer["limit"]:
        words = _("{devices}, held to {limit}", words, answer["limit"])
    mend = _("name GPUs that are there, or unset it")
    yield good(_("devices"), words) if devices else bad(_("devices"), words, mend)
    for device in devices:
        if device["fault"]:
            mend = _("nvidia-smi shows more; its administrators reset it. Runs that need it wait")
            yield bad(_("devices"), device["fault"], mend)
    if foreign:
        yield warning(_("foreign use"), _("{devices} in use without a lease; runs wait for them", foreign))
    holders = _("held: {devices}", held) if held else _("all free")
    yield good(_("leases"), joined([holders, _("{count} runs wait", len(queue)) if queue else ""]))
    yield from _lease_folder(answer)


def _lease_folder(answer: messages.ExamineAnswer) -> Iterator[Finding]:
    """Judge the folder in which all users of the host keep their leases."""
    where, free, files = answer["lease_folder"], answer["lease_room"], answer["lease_files"]
    if answer["lease_privacy"]:
        mend = _("let OELM_LEASE_DIR name a folder (mode 1777) that all users see, for all of them")
        words = _("other users' leases are not seen: {why}", answer["lease_privacy"])
        yield warning(_("lease folder"), words, mend)
    if free < LEASE_BYTES or 0 <= files < LEASE_FILES:
        words = _("{path}: {free:.1f} MB and enough files are left", where, free / 1e6)
        if files >= 0:
            words = _("{path}: {free:.1f} MB and {count} files are left", where, free / 1e6, files)
        yield bad(_("lease folder"), words, _("make room there: without it no run gets devices"))
    if junk := answer["junk"]:
        words = _("passed over in {path}: {junk}", where, junk[:5])
        if len(junk) > 5:
            words = _("{words} and {count} more", words, len(junk) - 5)
        yield warning(_("lease folder"), words, _("have it removed by its owner"))


def _cluster(answer: messages.ExamineAnswer, target: Target, studies: Sequence[Study]) -> Iterator[Finding]:
    """Say what the cluster makes of the target's options."""
    if "site" not in answer:
        mend = without_slurm(target)
        if target.clusters:
            mend = _(
                "check clusters = {value!r} in sbatch of the target: sacctmgr show cluster lists them", target.clusters
            )
        yield bad("slurm", answer["site_error"], mend)
        return
    sizes = {target.gpus_per_run or group.world_size for study in studies for group in study.groups.values()}
    stop_s = max((study.program.stop_s for study in studies if study.program), default=0.0)
    yield from site.judge(target, answer["site"], sizes, stop_s)
    yield from site.tried(target, answer["tests"])
    if answer["trial"].get("slurm_error"):
        yield site.out_of_reach(interpreter(target), answer["trial"]["slurm_error"])


def _ports(wanted: Sequence[int], taken: Sequence[int]) -> Iterator[Finding]:
    if taken:
        yield warning(_("ports"), _("{ports} taken; a free one will be used instead", list(taken)))
    elif wanted:
        yield good(_("ports"), _("{ports} free", list(wanted)))

"""What runs need of a target: torch, token files, devices, memory, disk, W&B.

Preflight refuses what is bad of it, doctor shows all of it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..agent.sentences import _, joined
from ..connections import interpreter
from ..data import check as data_check
from ..data.token_folder import how_to_make
from ..folders import COMMANDS
from ..programs import built_in
from ..spec.study import Run, Study
from ..spec.target import Target
from .finding import Finding, bad, good, warning

if TYPE_CHECKING:
    from ..agent import messages


NO_TORCH = "No module named 'torch'"
"""What Python says of torch that isn't there."""


def how_to_have_torch(target: Target, devices: Sequence[messages.DeviceRow]) -> str:
    """Say what to do about a target whose interpreter has no torch.

    Args:
        devices: What the target has; empty where that isn't known.
    """
    python = interpreter(target)
    if target.host or python != sys.executable:
        return _(
            "install torch there, or name the interpreter (python) or the set-up lines (setup) in the targets file"
        )
    name = "python" if shutil.which("python") == python else shlex.quote(python)
    pip = f"{name} -m pip install"
    mend = _("install it: {command}", f"{pip} 'oelm-jobs[train]'")
    if sys.platform != "linux" or not devices or any(row["label"].startswith("gpu") for row in devices):
        return mend
    cpu = f"{pip} torch --index-url https://download.pytorch.org/whl/cpu"
    return joined([mend, _("or, without a GPU, its CPU build, which is much smaller: {command}", cpu)])


def free_bytes(answer: messages.ExamineAnswer) -> int:
    """Return the bytes that checkpoints may take, by the disk and by quotas."""
    quotas = [row for row in answer["quotas"] if answer["checkpoints"] in row["paths"] and row["limit"]]
    return min([answer["disk_free"], *(max(0, row["limit"] - row["used"]) for row in quotas)])


def data(
    study: Study, target: Target, rows: Mapping[str, messages.TokenFile], paths: Sequence[str], *, own: Sequence[str]
) -> Finding:
    """Judge a study's token files where the target has them; ``own`` are those of the project."""
    what, tokens = _("data of {study}", study.name), 0
    folder = Path(paths[0]).parent
    make = how_to_make(folder)
    if target.host or list(paths) != list(own):
        make = f"oelm-submit --study {study.name} --target {target.name} --send-data"
    for path in paths:
        row = rows[path]
        if fault := data_check.fault(path, row, study):
            mend = fault.hint or _("make or send it: {command}", make)
            return bad(what, _("{path}: {why}", path, str(fault)), mend)
        tokens += row["size"] // 2
    if not rows[paths[0]]["manifest"]:
        return warning(what, _("{folder} has no manifest: its content can't be checked", str(folder)))
    return good(what, _("{count:,} tokens agree with their manifest", tokens))


def script_data(
    study: Study, target: Target, rows: Mapping[str, messages.Content], paths: Sequence[str], *, own: Sequence[str]
) -> Finding:
    """Judge the files and folders that a study's script reads where the target has them; ``own`` are the project's."""
    what, size = _("data of {study}", study.name), 0
    for path, mine in zip(paths, own, strict=True):
        mend = _("put it there")
        if target.host or path != mine:
            mend = _("send it: {command}", f"oelm-submit --study {study.name} --target {target.name} --send-data")
        if "error" in rows[path]:
            return bad(what, _("{path}: {why}", path, rows[path]["error"]), mend)
        if "arriving" in rows[path]:
            return bad(what, _("{path}: not all that was sent is there", path), mend)
        size += rows[path]["size"]
    return good(what, _("{size:,.1f} MB in {paths}", size / 1e6, list(paths)))


def devices(
    study: Study,
    target: Target,
    runs: Sequence[Run],
    rows: Sequence[messages.DeviceRow],
    limit: str,
) -> Finding:
    """Compare the devices that runs ask for with those that there are.

    Args:
        rows: The target's devices that runs may have, as its agent lists them.
        limit: What holds runs to these; empty where nothing does.
    """
    what = _("devices for {study}", study.name)
    is_gpu = not rows or rows[0]["label"].startswith("gpu")  # of CPU slots there is always one
    indices = {int(row["label"].rpartition(":")[2]) for row in rows}
    for run in runs:
        missing = sorted(set(run.gpus) - indices) if isinstance(run.gpus, tuple) and is_gpu else []
        if not missing and run.world_size <= len(rows):
            continue
        if missing:
            wanted = _("GPU {indices}", missing)
        elif is_gpu:
            wanted = _("{count} GPUs", run.world_size)
        else:
            wanted = _("{count} CPU slots", run.world_size)
        if not rows:
            has = _("no GPU that runs may have")
        elif is_gpu:
            has = _("GPUs {indices}", sorted(indices))
        else:
            has = _("1 CPU slot") if len(rows) == 1 else _("{count} CPU slots", len(rows))
        if limit:
            has = _("{devices} (held to {limit})", has, limit)
        found = _(
            "group {group} of study {study} asks for {wanted}; {target} has {devices}",
            run.group,
            run.study,
            wanted,
            target.name,
            has,
        )
        mend = _("change gpus of the group in {path}, or give another --target", str(study.path))
        if study.path.match(str(COMMANDS / "*")):
            mend = _("give the command another --gpus or --target")
        return bad(what, found, mend)
    most = max(run.world_size for run in runs)
    return good(what, _("at most {most} of {count} at a time", most, len(rows)))


def _one_of_each(runs: Sequence[Run]) -> list[Run]:
    """Return the first run of each group: seeds change no size."""
    first: dict[str, Run] = {}
    for run in runs:
        first.setdefault(run.group, run)
    return list(first.values())


def memory(study: Study, target: Target, runs: Sequence[Run], rows: Sequence[messages.DeviceRow]) -> Iterator[Finding]:
    """Compare the estimate for the largest run with the GPUs' memory, where that is known.

    An estimate that is off by less than half must not forbid a run: it is bad only beyond that, on the largest GPU.
    """
    sizes = [row["memory_mb"] for row in rows if row["memory_mb"]]
    if not sizes:
        return
    what = _("memory for {study}", study.name)
    need, largest = max(((built_in.memory_bytes(run), run) for run in _one_of_each(runs)), key=lambda pair: pair[0])
    if need > 1.5 * max(sizes) * 2**20:
        found = _(
            "run {run} would need about {need:.0f} GB on each GPU; the largest of {target} has {memory:.0f} GB",
            largest.name,
            need / 1e9,
            target.name,
            max(sizes) / 1024,
        )
        yield bad(what, found, built_in.how_to_fit(largest, max(sizes) * 2**20))
        return
    found = _(
        "about {need:.1f} GB for group {group}; the smallest GPU has {memory:.0f} GB",
        need / 1e9,
        largest.group,
        min(sizes) / 1024,
    )
    if need > min(sizes) * 2**20:
        yield warning(what, found, built_in.how_to_use_less_memory(study))
    else:
        yield good(what, found)


def disk(study: Study, target: Target, runs: Sequence[Run], free: int) -> Finding:
    """Compare what the runs' checkpoints take at most with the bytes that are free for them."""
    trained = [run for run in runs if run.trial is None]
    each = {run.group: built_in.checkpoint_bytes(run) for run in _one_of_each(trained)}
    need = sum(each[run.group] for run in trained)
    what = _("disk for {study}", study.name)
    if need > free:
        found = _(
            "the checkpoints of {count} runs need up to {need:.1f} GB; {target} has {free:.1f} GB free at {path}",
            len(trained),
            need / 1e9,
            target.name,
            free / 1e9,
            target.checkpoint_root or target.root,
        )
        return bad(what, found, built_in.how_to_use_less_disk(study))
    found = _("all its checkpoints take up to {need:.2f} GB, {free:.1f} GB are free", need / 1e9, free / 1e9)
    return good(what, found)


def wandb(study: Study, target: Target, answer: messages.ExamineAnswer) -> Iterator[Finding]:
    """Judge whether W&B will take what runs report, where the study asks for it."""
    if not built_in.uses_wandb(study) or "torch" not in answer["trial"]:
        return
    what = _("W&B of {study}", study.name)
    online = os.environ.get("WANDB_MODE") == "online" and "WANDB_MODE" in target.env
    if not answer["trial"]["wandb"]:
        yield warning(what, _("not installed; runs go on without"), "pip install wandb")
    elif online and not answer["wandb_login"] and "WANDB_API_KEY" not in target.env:
        yield bad(what, _("WANDB_MODE is online, nobody is logged in"), "wandb login")
    else:
        yield good(what, _("online") if online else _("offline; oelm-fetch --sync wandb sends what runs leave"))


def compiling(study: Study, target: Target, runs: Sequence[Run], trial: messages.Trial) -> Iterator[Finding]:
    """Judge whether runs that would be compiled there can be; a login node without a GPU doesn't know."""
    if "compiling" not in trial:
        return
    is_elsewhere = target.slurm is not None and not trial["cuda"]
    device = "cuda" if trial["cuda"] or is_elsewhere else "cpu"
    wanted = [run for run in _one_of_each(runs) if built_in.wants_compile(run, device)]
    what, why = _("torch.compile for {study}", study.name), trial["compiling"]
    if wanted and is_elsewhere:
        yield good(what, _("only known on a compute node; the log of a run says what is missing"))
    elif wanted and not why:
        yield good(what, _("compiler and headers are there"))
    elif wanted:
        mend = _("install it there, or set compile in [train] of {path} to false", str(study.path))
        grade = bad if any(map(built_in.must_compile, wanted)) else warning
        yield grade(what, _("can't be had there: {why}; runs are slower without", why), mend)

"""Checks between a plan and its submission: whether data, devices, memory and disk will do.

Each failure names the command that mends it, and comes before anything is queued.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..agent import registry
from ..agent.sentences import _, joined
from ..connections import Connection, interpreter, unreached
from ..data import check as data_check
from ..data import token_folder
from ..errors import DataError, PreflightError
from ..schedulers import allowed_environment
from ..scripts import templates
from ..spec.study import Run, Study
from ..spec.target import Target
from ..study.plan import Plan
from ..study.resolve import token_files
from ..targets.files import LOCAL
from . import needs, site
from .finding import Finding, bad

if TYPE_CHECKING:
    from ..agent import messages

NOTHING = _("nothing was queued")


def data_hash(connection: Connection, project: Path, study: Study) -> str:
    """Check the study's token files where they are, and return the hash over both.

    Files that agree with their manifest and are no younger are believed; others are read whole, once.

    Raises:
        PreflightError: One won't do, as data_check says, or holds other data than the project's.
    """
    target = connection.target
    paths = token_files(connection.resolved, study)
    here = token_files(unreached(LOCAL, project), study)
    request: messages.DataRequest = {"root": connection.root, "files": list(paths)}
    rows = connection.call(registry.DATA, request, timeout_s=1800)["files"]
    named = (study.train["data_path"], study.train.get("val_data_path") or study.train["data_path"])
    need, hashes = data_check.need_of(study), []
    for path, mine, name in zip(paths, map(Path, here), named, strict=True):
        is_own = not target.host and paths == here
        if fault := data_check.fault(path, rows[path], need):
            where = path if is_own else f"{target.name}: {path}"
            folder = Path(str(name)).parent
            make = _how_to_make(mine) if is_own else _how_to_have(target, mine, folder)
            found = _("{path}: {why}", where, fault.found)
            raise PreflightError(joined([found, NOTHING]), hint=fault.mend or make)
        known = "" if is_own else _listed_here(mine)
        if known and known != rows[path]["sha256"]:
            found = _("{target}: {path} holds other data than {own} of this project", target.name, path, str(mine))
            raise PreflightError(
                joined([found, NOTHING]),
                hint=_(
                    "runs would be compared over different data: remove or rename one of them, then --send-data,"
                    ' or give another folder in data of target "{target}"',
                    target.name,
                ),
            )
        hashes.append(rows[path]["sha256"])
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _how_to_make(path: Path) -> str:
    return _("make it: {command}", token_folder.how_to_make(path.parent))


def _how_to_have(target: Target, mine: Path, folder: Path) -> str:
    """Say what to do about a token file that a target lacks."""
    if target.host:
        return _(
            "send the project's: the same command with --send-data; or name the folder that holds it there:"
            ' data = {{ "{folder}" = "/..." }} in the targets file',
            str(folder),
        )
    if not mine.is_file():
        return joined([_how_to_make(mine), _("then the same command with --send-data")])
    return _(
        "the project has it: the same command with --send-data copies it there; or let runs read it in {own}:"
        ' data = {{ "{folder}" = "{own}" }} in the targets file',
        str(mine.parent),
        str(folder),
    )


def _listed_here(path: Path) -> str:
    """Return the hash that the project's own manifest gives a token file; empty where there is none."""
    try:
        manifest = token_folder.read_manifest(path.parent)
    except DataError:
        return ""
    listed = manifest.files.get(path.name) if manifest else None
    return listed.sha256 if listed else ""


def check_target(plan: Plan, runs: Sequence[Run], answer: messages.PollAnswer) -> None:
    """Refuse what the target can never grant.

    Args:
        runs: Those of the plan that would really be started.
        answer: The probe's, with ``devices`` and ``disk_free``.

    Raises:
        PreflightError: The first of the findings that is bad.
    """
    for finding in _findings(plan, runs, answer):
        if finding.is_bad:
            raise PreflightError(joined([finding.found, NOTHING]), hint=finding.mend)


def _findings(plan: Plan, runs: Sequence[Run], answer: messages.PollAnswer) -> Iterator[Finding]:
    """Yield what there is to say of the target for the runs, what costs least to mend first."""
    study, target = plan.study, plan.target
    if answer.get("lease_error"):
        found = _("target {target}: {error}", target.name, answer["lease_error"])
        yield bad(_("leases"), found)
    python = os.path.expanduser(target.python)
    if target.kind == "local" and python and not target.setup and shutil.which(python) is None:
        yield bad(
            _("python"),
            _("target {target}: python = {value!r} is no program on this machine", target.name, target.python),
            _("give the path of the interpreter that has torch, or set-up lines that put it on PATH"),
        )
    rows = [row for row in answer["devices"] if target.may_lease(row["label"])]
    if target.slurm is not None:
        for finding in site.judge(target, answer["site"], {run.world_size for run in runs}):
            yield replace(finding, found=_("{target}: {why}", target.name, finding.found))
    else:
        yield needs.devices(study, target, runs, rows, answer.get("limit", ""))
    yield from needs.memory(study, target, runs, rows)
    yield needs.disk(study, target, runs, answer["disk_free"])


def out_of_reach(plan: Plan, connection: Connection) -> str:
    """Return what to say where the interpreter that a cluster's jobs get can't talk to Slurm; empty where it can, and
    where nobody knows: its set-up may need a compute node.

    Raises:
        TargetError: The target can't be asked.
    """
    target = connection.target
    script = templates.trial(plan.project, target)
    if not script:
        return ""
    request: messages.SlurmTrialRequest = {
        "trial": script,
        "setup": list(target.setup),
        "python": interpreter(target) if target.host else connection.python,
        "environment": allowed_environment(target),
    }
    error = connection.call(registry.SLURM_TRIAL, request, timeout_s=180)["slurm_error"]
    if not error:
        return ""
    finding = site.out_of_reach(interpreter(target), error)
    return joined([_("{target}: {why}", target.name, finding.found), finding.mend])

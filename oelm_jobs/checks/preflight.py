"""Checks between a plan and its submission: whether data, devices, memory and disk will do.

Each failure names the command that mends it, and comes before anything is queued.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..agent import registry
from ..agent.checks import trial
from ..agent.sentences import _, joined
from ..connections import Connection, interpreter, unreached
from ..data import check as data_check
from ..data import token_folder
from ..errors import DataError, PreflightError
from ..programs import built_in
from ..schedulers import allowed_environment
from ..scripts import templates
from ..spec.study import Run, Study
from ..spec.target import Target
from ..study import blocks
from ..study.blocks import DataHash
from ..study.plan import Plan
from ..study.resolve import data_paths, token_files
from ..targets.files import LOCAL
from . import needs, site
from .finding import Finding, bad

if TYPE_CHECKING:
    from ..agent import messages

NOTHING = _("nothing was queued")
HAS_TORCH = f"""
import importlib.util, json
print(json.dumps({{}} if importlib.util.find_spec("torch") else {{"error": {needs.NO_TORCH!r}}}))
"""
"""What an interpreter is asked; to import torch would take seconds."""


def data_hash(connection: Connection, project: Path, study: Study) -> DataHash:
    """Check the study's token files where they are, and return the hash over both, of each block its own.

    Files that agree with their manifest and are no younger are believed; others are read whole, once.

    Raises:
        PreflightError: One won't do, as data_check says, or holds other data than the project's; or two blocks of the
            built-in trainer hold the same.
    """
    found = {name: _data_hash(connection, project, within) for name, within in blocks.each(study).items()}
    for name, digest in found.items() if study.program is None else ():
        if same := [other for other in found if other != name and found[other] == digest]:
            what = _("blocks {one} and {other} of {path} hold the same data", name, same[0], str(study.path))
            raise PreflightError(
                joined([what, NOTHING]), hint=_("a block is a data set of its own: remove one of them")
            )
    return found if study.blocks else found[""]


def _data_hash(connection: Connection, project: Path, study: Study) -> str:
    """Return the hash of a study's data, or of one of its blocks."""
    if study.program is not None:
        return _content_hash(connection, project, study)
    target = connection.target
    paths = token_files(connection.resolved, study)
    here = token_files(unreached(LOCAL, project), study)
    request: messages.DataRequest = {"root": connection.resolved.root, "files": list(paths)}
    rows = connection.call(registry.DATA, request, timeout_s=1800)["files"]
    named = [*built_in.data(study).values()] * 2  # the validation file, where none is named, lies beside the other
    hashes = []
    is_own = not target.host and paths == here
    for path, mine, name in zip(paths, map(Path, here), named, strict=False):
        if fault := data_check.fault(path, rows[path], study):
            found = _("{path}: {why}", path if is_own else f"{target.name}: {path}", str(fault))
            have = _how_to_have(None if is_own else target, mine, Path(str(name)).parent)
            raise PreflightError(joined([found, NOTHING]), hint=fault.hint or have)
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


def _content_hash(connection: Connection, project: Path, study: Study) -> str:
    """Return the hash over what a study's script reads, by the names that it has for them."""
    assert study.program is not None
    target, there = connection.target, connection.resolved
    paths = data_paths(there, study)
    request: messages.ContentRequest = {"root": there.root, "files": paths}
    rows = connection.call(registry.CONTENT, request, timeout_s=1800)["files"] if paths else {}
    here = data_paths(unreached(LOCAL, project), study)
    digest = hashlib.sha256()
    for name, path, mine in zip(study.program.data, paths, here, strict=True):
        is_own = not target.host and path == mine
        where = path if is_own else f"{target.name}: {path}"
        if "error" in rows[path]:
            found = _("{path}: {why}", where, rows[path]["error"])
            mend = _how_to_bring(target, name, None if is_own else Path(mine))
            raise PreflightError(joined([found, NOTHING]), hint=mend)
        if staging := rows[path].get("arriving"):
            found = _("{path}: not all that was sent is there", where)
            mend = _("the same command with --send-data goes on with it; or remove {path} there", staging)
            raise PreflightError(joined([found, NOTHING]), hint=mend)
        digest.update(f"{name}\n{rows[path]['sha256']}\n".encode())
    return digest.hexdigest()


def _how_to_bring(target: Target, name: str, mine: Path | None) -> str:
    """Say what to do about data of a script that a target lacks.

    Args:
        name: What the program calls them.
        mine: Where they lie here; None where the target reads the project's own.
    """
    if mine is None:
        return _('bring it there, or name another place in data of target "{target}"', target.name)
    ways = [_("the same command with --send-data sends it")]
    if not mine.exists():
        ways = [_("put it at {path}", str(mine)), _("then the same command with --send-data")]
    if not name.startswith("/"):
        ways.append(_('or name where it lies there: data = {{ "{folder}" = "/..." }} in the targets file', name))
    return joined(ways)


def _how_to_have(target: Target | None, mine: Path, folder: Path) -> str:
    """Say what to do about a token file that a target lacks; None where it reads the project's own."""
    if target is not None and target.host:
        return _(
            "send the project's: the same command with --send-data; or name the folder that holds it there:"
            ' data = {{ "{folder}" = "/..." }} in the targets file',
            str(folder),
        )
    make = _("make it: {command}", token_folder.how_to_make(mine.parent, mine.name))
    if target is None:
        return make
    if not mine.is_file():
        return joined([make, _("then the same command with --send-data")])
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
    for finding in _of_target(plan, runs, answer):
        if finding.is_bad:
            raise PreflightError(joined([finding.found, NOTHING]), hint=finding.mend)


def _of_target(plan: Plan, runs: Sequence[Run], answer: messages.PollAnswer) -> Iterator[Finding]:
    """Yield what is found about a target, what costs least to mend first."""
    study, target = plan.study, plan.target
    if answer.get("lease_error"):
        yield bad(_("leases"), _("target {target}: {error}", target.name, answer["lease_error"]))
    python = os.path.expanduser(target.python)
    if target.kind == "local" and python and not target.setup and shutil.which(python) is None:
        why = _("target {target}: python = {value!r} is no program on this machine", target.name, target.python)
        mend = _("give the path of the interpreter that has torch, or set-up lines that put it on PATH")
        yield bad(_("python"), why, mend)
    rows = [row for row in answer["devices"] if target.may_lease(row["label"])]
    if study.program is None and (lacks := without_torch(plan.project, target, answer["devices"])) is not None:
        yield lacks
    if target.slurm is None:
        yield needs.devices(study, target, runs, rows, answer.get("limit", ""))
    else:
        for finding in site.judge(target, answer["site"], {run.world_size for run in runs}):
            yield replace(finding, found=_("{target}: {why}", target.name, finding.found))
    if study.program is None:
        yield from needs.memory(study, target, runs, rows)
        yield needs.disk(study, target, runs, answer["disk_free"])


def without_torch(project: Path, target: Target, devices: Sequence[messages.DeviceRow]) -> Finding | None:
    """Return what to say where the trainer would not find torch; None where it does, and where only a run can tell:
    on other hosts, and with an interpreter that a cluster's jobs get from elsewhere.
    """
    python = interpreter(target)
    is_own = python == sys.executable
    if target.host or (target.slurm is not None and not is_own):
        return None
    if is_own and importlib.util.find_spec("torch") is not None:
        return None
    script = templates.trial(project, target)
    said = trial.attempt(script, list(target.setup), python, "/", question=HAS_TORCH)
    if said.get("error") != needs.NO_TORCH:
        return None
    words = _("target {target}: {python} has no torch, which the built-in trainer needs", target.name, python)
    return bad("torch", words, needs.how_to_have_torch(target, devices))


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

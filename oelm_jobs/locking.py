"""Locking a study's plan: the lock file, its line in the ledger, and whether it still holds."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from . import ledger
from .agent.sentences import _
from .analysis.audit import lock, locks
from .analysis.audit.plan import plan_changes, plan_of
from .analysis.output import deposit, writing
from .checks import preflight
from .code import snapshot
from .connections import connect
from .errors import OelmError, UsageError, few
from .reporting import report_on
from .spec.study import Study
from .store import Store
from .study import lineage
from .study.blocks import DataHash, changed
from .study.files import load_study
from .study.resolve import plan_runs
from .targets.files import LOCAL


def ensure_locked(project: Path, study: Study | str | None, warn: Callable[[str], None]) -> str:
    """Return the hash of a study's lock, which is made where there is none.

    Args:
        warn: Is told which file was written, and what the lock says nothing of.

    Raises:
        UsageError: The lock file was edited.
        ConfigurationError: The study isn't as it was locked.
    """
    asked = study if isinstance(study, Study) else load_study(project, study, warn=warn)
    if known := locks.in_force(project, asked):
        return known
    path = lock_rules(project, asked, warn)
    warn(_("Locked: {path}. Commit it, so that its date can be trusted.", str(path)))
    return locks.in_force(project, asked)


def export(project: Path, study: Study | str | None, folder: Path, warn: Callable[[str], None]) -> list[Path]:
    """Write a study's lock, which is made where there is none, as plain files for an archive; return them.

    Raises:
        UsageError: The folder holds something, or can't be written; or the lock file was edited.
        ConfigurationError: The study isn't as it was locked.
    """
    asked = study if isinstance(study, Study) else load_study(project, study, warn=warn)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            _("--export {folder}: there is something already", str(folder)),
            hint=_("name a folder that is new or empty"),
        )
    ensure_locked(project, asked, warn)
    path = ledger.lock_path(project, asked)
    locked = lock.read(path)
    assert locked is not None  # else it was removed this very moment
    made = deposit.files(locked, path.read_bytes(), asked.path, ledger.path_of(project, asked.name))
    for name, content in made.items():
        writing.put(folder / name, content)
    return [folder / name for name in made]


def lock_rules(project: Path, study: Study | str | None, warn: Callable[[str], None]) -> Path:
    """Record a study's rules before training, so that later changes are reported; return the file.

    A study that was locked before and changed since is locked anew. The ledger keeps every lock, and each names the
    one before it.

    Args:
        warn: Is told why fingerprints are missing, what changed since the lock before, and which runs have begun.

    Raises:
        UsageError: It was locked before and has not changed; or its lock file was edited.
    """
    report = report_on(project, study, warn=warn)
    study = report.study
    path = ledger.lock_path(project, study)
    known = locks.load(project, study)
    newest = known.newest if known is not None else None
    prints, data = fingerprints(project, study, warn)
    code = snapshot.take(project, is_script=study.program is not None).train_code
    if newest is not None:
        changes = [change.said for change in plan_changes(newest.plan, plan_of(study))]
        if newest.seeds != study.seeds:
            changes.append(_("the seeds were {before} and are {after}", _shown(newest.seeds), _shown(study.seeds)))
        if newest.code and newest.code != code:
            changes.append(_("the code changed"))
        if changed(newest.data, data):
            changes.append(_("the data changed"))
        if not changes and path.exists():
            raise UsageError(
                _("study {study} was locked before: {path}", study.name, str(path)),
                hint=_("a report lists what changes; what changed can be locked anew, which it will tell"),
            )
        if changes:
            warn(_("It was locked before, which the report will say: {changes}", few(changes)))
    content = lock.content(
        study, report.runs, prints, report.made_at,
        code=code, data=data, before=newest.sha256 if newest is not None else "",
    )  # fmt: skip
    ledger.append_lock(project, study.name, json.loads(content))
    writing.put(path, content)
    if begun := [run.name for run in report.runs if lock.has_begun(run)]:
        warn(_("These runs had begun before, which the report will say: {runs}", begun))
    return path


def _shown(seeds: Sequence[int]) -> list[str]:
    return [*map(str, seeds)]


def fingerprints(project: Path, study: Study, warn: Callable[[str], None]) -> tuple[dict[str, str], DataHash]:
    """Return the fingerprint of each run of a study, by name, and the hash over its data; nothing while the data aren't
    here.

    Args:
        warn: Is told why not.
    """
    try:
        data_hash = preflight.data_hash(connect(LOCAL, project), project, study)
        others = lineage.others(project, study, load_study)
        known = {}
        if others:
            with Store() as store:
                known = {(run.study, run.name): run.fingerprint for run in store.runs(project)}
        here = replace(LOCAL, root=str(project))
        runs = plan_runs(study, here, data_hash=data_hash, others=others, known_runs=known)
    except OelmError as error:
        warn(_("Fingerprints of the study's runs are not known: {why}", str(error)))
        return {}, ""
    return {run.name: run.fingerprint for run in runs if run.fingerprint}, data_hash

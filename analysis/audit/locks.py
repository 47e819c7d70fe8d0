"""The locks of a study, one after the other: which is in force, and whether anybody changed one.

Each lock names the one before it by its hash. The ledger has all of them, the lock file the newest, and each run the
hash of the one that was in force when it was queued.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from oelm_jobs import ledger
from oelm_jobs.agent.sentences import Sentence, _, joined
from oelm_jobs.errors import ConfigurationError, UsageError
from oelm_jobs.programs import built_in, description
from oelm_jobs.spec.study import Study
from oelm_jobs.study import blocks

from . import lock as lock_file
from .lock import Lock
from .plan import plan_changes, plan_of


@dataclass(frozen=True, kw_only=True)
class Locks:
    """What is known of a study's locks."""

    all: tuple[Lock, ...]
    """From the first to the newest, which is the one in force."""
    remarks: tuple[Sentence, ...] = ()
    """What was changed in the file or the ledger that holds them, or is gone."""

    @property
    def newest(self) -> Lock:
        """The lock in force."""
        return self.all[-1]

    def by_hash(self, sha256: str) -> Lock | None:
        """Return the lock of a hash."""
        return next((lock for lock in self.all if lock.sha256 == sha256), None)


def load(project: Path, study: Study) -> Locks | None:
    """Return a study's locks, None where there is none.

    Raises:
        UsageError: The lock file was changed, or is none, and the ledger doesn't know what it held.
    """
    path = ledger.lock_path(project, study)
    known, remarks = _in_ledger(ledger.path_of(project, study.name), ledger.locks(project, study.name))
    try:
        there = lock_file.read(path)
    except UsageError as error:
        if not known:
            raise
        remarks.append(_("{why}; what counts here is the lock that the ledger has", str(error)))
        there = known[-1]
    if there is None:
        if not known:
            return None
        remarks.append(_("{path} is gone; what counts here is the lock that the ledger has", str(path)))
    elif there.sha256 not in [one.sha256 for one in known]:
        if known:
            remarks.append(_("{path}: the ledger has no line of this lock: oelm-report did not write it", str(path)))
        elif there.code:  # a lock of before there was a ledger tells no code
            where = str(ledger.path_of(project, study.name))
            said = _(
                "{path}, which has a line of every lock, is gone or was edited: what it said of runs is unknown", where
            )
            remarks.append(said)
        known.append(there)
    elif there.sha256 != known[-1].sha256:
        remarks.append(_("{path} is an earlier lock than the newest one in the ledger", str(path)))
    return Locks(all=tuple(known), remarks=tuple(remarks))


def _in_ledger(path: Path, lines: Sequence[Mapping[str, Any]]) -> tuple[list[Lock], list[Sentence]]:
    """Return the locks that a ledger has, and what is wrong with them."""
    found: list[Lock] = []
    remarks = []
    for line in lines:
        try:
            one = lock_file.of(line)
            is_whole = lock_file.is_whole(line)
        except msgspec.ValidationError:
            is_whole = False
        if not is_whole:
            remarks.append(_("{path}: a lock in it was edited, and doesn't count", str(path)))
            continue
        if one.before and one.before not in [earlier.sha256 for earlier in found]:
            remarks.append(_("{path}: the lock of before {hash} is missing", str(path), one.sha256[:12]))
        found.append(one)
    return found, remarks


def in_force(project: Path, study: Study, data_hash: blocks.DataHash = "") -> str:
    """Return the hash of the lock that runs of a study are queued under; empty where nothing is locked.

    Args:
        data_hash: Over the data that they would read; empty where that isn't known.

    Raises:
        UsageError: The lock file was edited.
        ConfigurationError: Study or data aren't as they were locked.
    """
    path = ledger.lock_path(project, study)
    locked = lock_file.read(path)
    if locked is None:
        return ""
    faults = [change.as_fault for change in plan_changes(locked.plan, plan_of(study))]
    for name, within in blocks.each(study).items():
        before, now = (blocks.hash_in(one, name) for one in (locked.data, data_hash))
        if before and now and before != now:
            what = _("the data are other ones than were locked: {files} (hash {hash}, locked {locked})",
                     _files(within), now[:12], before[:12])  # fmt: skip
            faults.append(what)
    if faults:
        raise ConfigurationError(
            _("{path} is not as {lock} has it: {faults}", str(study.path), str(path), joined(faults)),
            hint=_("put that back, or lock anew, which reports will tell: oelm-report --lock"),
        )
    return locked.sha256


def _files(study: Study) -> list[str]:
    """Return what the files are called whose hash a lock has."""
    named = description.of(study).data(study)
    found, (train, val) = [*named.values()], built_in.DATA
    if study.program is None and train in named and val not in named:
        found.insert(1, str(PurePosixPath(named[train]).with_name("val.bin")))  # is validated on what lies there
    return found

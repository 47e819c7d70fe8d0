"""Lock a study's plan before training, and list what changed since.

A plan that is fixed before the data keeps the error rates of its verdicts; adding seeds until a verdict appears does
not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from oelm_jobs.agent.sentences import Sentence, _
from oelm_jobs.agent.states import State
from oelm_jobs.errors import UsageError
from oelm_jobs.spec.study import Study
from oelm_jobs.study.blocks import DataHash, hash_in, of_tag

from ..printed import date
from ..reading.loaded_run import LoadedRun
from .plan import changes, hash_of, plan_changes, plan_of

VERSION = 1


class Lock(msgspec.Struct, frozen=True, kw_only=True):
    """A plan as it was when it was locked, and the lock file."""

    version: int
    """VERSION of who wrote it."""
    study: str
    """The study's name."""
    locked_at: float
    """Unix seconds."""
    plan: dict[str, Any]
    """What plan.plan_of returned of the study then."""
    plan_sha256: str
    """What shows that the plan wasn't edited."""
    fingerprints: dict[str, str] = {}
    """Fingerprint of each run whose data was known, by name."""
    started: tuple[str, ...] = ()
    """Runs that had begun before, for which the lock guarantees nothing."""
    code: str = ""
    """Hash of the code that counts for a comparison, as runs record it."""
    data: str | dict[str, str] = ""
    """Hash over the data, of a study with blocks by block; empty where they weren't here."""
    before: str = ""
    """Hash of the lock that this one replaced; empty of the first."""
    sha256: str = ""
    """Hash of all the rest of the file, by which runs name the lock; of locks that don't state it, what it would be."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that decide."""
        return tuple(self.plan.get("seeds", ()))


def content(
    study: Study,
    runs: Sequence[LoadedRun],
    fingerprints: Mapping[str, str],
    locked_at: float,
    *,
    code: str = "",
    data: DataHash = "",
    before: str = "",
) -> bytes:
    """Return the lock file of a study as it is now."""
    plan = plan_of(study)
    record = {
        "version": VERSION,
        "study": study.name,
        "locked_at": locked_at,
        "locked": date(locked_at),
        "plan_sha256": hash_of(plan),
        "plan": plan,
        "fingerprints": dict(fingerprints),
        "started": sorted(run.name for run in runs if has_begun(run)),
        "code": code,
        "data": data if isinstance(data, str) else dict(data),
        "before": before,
    }
    record["sha256"] = hash_of(record)
    return (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode()


def has_begun(run: LoadedRun) -> bool:
    """Tell whether a run was at work when it was last seen, here or on its target; no clock is asked."""
    return bool(run.last_step) or run.status in (State.RUNNING, State.DONE)


def read(path: Path) -> Lock | None:
    """Return a study's lock, None where there is none.

    Raises:
        UsageError: The file isn't a lock, or was changed after it was written.
    """
    try:
        written = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _no_lock(path, error) from error
    try:
        found: dict[str, Any] = msgspec.json.decode(written, type=dict)
        record = of(found)
    except msgspec.DecodeError as error:
        raise _no_lock(path, error) from error
    if record.version != VERSION:
        raise UsageError(
            _("{path}: lock version {version} is unknown; valid: {valid}", str(path), record.version, VERSION),
            hint=_("use the release that wrote it"),
        )
    if not is_whole(found):
        raise UsageError(
            _("{path}: was edited after it was locked: its content is not what its hash says", str(path)),
            hint=_("restore it from version control"),
        )
    return record


def _no_lock(path: Path, error: Exception) -> UsageError:
    return UsageError(
        _("{path}: not a lock file: {error}", str(path), str(error)),
        hint=_("restore it from version control, or remove it and lock again"),
    )


def of(found: Mapping[str, Any]) -> Lock:
    """Return the lock in a lock file's object.

    Raises:
        msgspec.ValidationError: There is none.
    """
    return msgspec.structs.replace(msgspec.convert(found, Lock), sha256=sha256_of(found))


def sha256_of(found: Mapping[str, Any]) -> str:
    """Return the hash of a lock file's object."""
    return hash_of({key: value for key, value in found.items() if key != "sha256"})


def is_whole(found: Mapping[str, Any]) -> bool:
    """Tell whether a lock file's object is what its hashes say; old ones have one of the plan alone."""
    is_plan = hash_of(found["plan"]) == found["plan_sha256"]
    return is_plan and found.get("sha256") in (None, sha256_of(found))


def deviations(lock: Lock, study: Study, runs: Sequence[LoadedRun], told: Collection[str] = ()) -> list[Sentence]:
    """List what isn't as it was locked: rules, seeds, configuration, and runs of other fingerprints.

    Args:
        told: Runs of which it is told elsewhere whether the lock came before them.
    """
    early = tuple(name for name in lock.started if name not in told)
    found = [_locked_late(early)] if early else []
    found += [change.said for change in plan_changes(lock.plan, plan_of(study))]
    planned = set(lock.seeds)
    added = sorted(
        ({run.seed for run in runs if run.seed is not None and not of_tag(study, run.tag)[1]} | set(study.seeds))
        - planned
    )
    if added:
        found.append(
            _(
                "seeds {seeds} came after the lock: they are shown, the verdicts rest on the locked seeds",
                tuple(map(str, added)),
            )
        )
    dropped = sorted(planned - set(study.seeds))
    if dropped:
        found.append(_("seeds {seeds} of the locked plan are no longer in the study", tuple(map(str, dropped))))
    for run in runs:
        known = lock.fingerprints.get(run.name)
        data, locked = data_of(run), hash_in(lock.data, of_tag(study, run.tag)[0])
        if locked and data and locked not in data:
            found.append(_("{run} was run on other data than locked", run.name))
        elif known and run.fingerprint and run.fingerprint != known:
            found.append(_("{run} was run with another configuration or other data than locked", run.name))
        is_told = run.name in lock.started or run.name in told
        if run.started_at is not None and run.started_at < lock.locked_at and not is_told:
            found.append(_locked_late((run.name,)))
    return found


def data_of(run: LoadedRun) -> list[str]:
    """Return the hash over the data that a run of the built-in trainer read, where it was tested that with the test
    file as well; nothing where its records don't say.
    """
    files = [str(run.data[key]) for key in ("train_sha256", "val_sha256", "test_sha256") if run.data.get(key)]
    return [hashlib.sha256("\n".join(files[:count]).encode()).hexdigest() for count in range(2, len(files) + 1)]


def _locked_late(runs: tuple[str, ...]) -> Sentence:
    return _("the plan was locked after {runs} had begun", runs)


def rule_deviations(lock: Lock, study: Study) -> dict[str, Sentence]:
    """Return, by the hypothesis's id, a remark for each verdict whose rule isn't the locked one."""
    before: Mapping[str, Any] = lock.plan.get("hypotheses", {})
    found = {}
    for name, rule in plan_of(study)["hypotheses"].items():
        if name not in before:
            found[name] = _("DEVIATION: this hypothesis is not part of the locked plan")
        elif differing := tuple(change.said for change in changes(before[name], rule)):
            found[name] = _("DEVIATION: the rule is not the locked one: {changes}", differing)
    return found

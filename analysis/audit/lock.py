"""Lock a study's plan before training, and list what changed since.

A plan that is fixed before the data keeps the error rates of its verdicts; adding seeds until a verdict appears does
not.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from oelm_jobs.agent.sentences import Sentence, _
from oelm_jobs.agent.states import State
from oelm_jobs.errors import UsageError
from oelm_jobs.programs import built_in
from oelm_jobs.spec.study import Hypothesis, Study

from ..printed import date
from ..reading.loaded_run import LoadedRun

VERSION = 1

_UNSAID = [("scale", "ratio"), ("is_told", False), ("at", "last"), ("goal", "minimize")]
"""What a rule is unless it says otherwise; locks don't hold it, as those from before it could be said don't."""


class Lock(msgspec.Struct, frozen=True, kw_only=True):
    """A plan as it was when it was locked, and the lock file."""

    version: int
    """VERSION of who wrote it."""
    study: str
    """The study's name."""
    locked_at: float
    """Unix seconds."""
    plan: dict[str, Any]
    """``question``, ``factors``, ``seeds``, ``global_batch``, ``train``, ``groups``, ``unequal``, ``hypotheses`` and,
    of a script, ``program``, as plain data.
    """
    plan_sha256: str
    """What shows that the plan wasn't edited."""
    fingerprints: dict[str, str] = {}
    """Fingerprint of each run whose data was known, by name."""
    started: tuple[str, ...] = ()
    """Runs that had begun before, for which the lock guarantees nothing."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that decide."""
        return tuple(self.plan.get("seeds", ()))


def plan_of(study: Study) -> dict[str, Any]:
    """Return what is locked: everything of a study that bears on a verdict, as plain data."""
    plan = {
        "question": study.question,
        "factors": list(study.factors),
        "seeds": list(study.seeds),
        "global_batch": study.global_batch,
        "train": dict(study.settings) if study.program else built_in.recorded(study.settings),
        "groups": {name: group.values for name, group in study.groups.items()},
        "unequal": dict(study.declared),
        "hypotheses": {
            h.id: {key: value for key, value in _rule(h).items() if (key, value) not in _UNSAID}
            for h in study.hypotheses
        },
    }
    if study.program is not None:
        stages = [asdict(stage) for stage in study.program.stages]
        plan["program"] = {"stages": stages, "metrics": asdict(study.program.metrics)}
    plain: dict[str, Any] = json.loads(json.dumps(plan))
    return plain


def _rule(h: Hypothesis) -> dict[str, Any]:
    """Return what a hypothesis says of how it is decided; JSON has no number for an infinite bound."""
    bounds = [bound if math.isfinite(bound) else str(bound) for bound in h.bounds]
    said = ("id", "claim", "measured")
    return {key: value for key, value in {**asdict(h), "bounds": bounds}.items() if key not in said}


def content(study: Study, runs: Sequence[LoadedRun], fingerprints: Mapping[str, str], locked_at: float) -> bytes:
    """Return the lock file of a study as it is now."""
    plan = plan_of(study)
    record = {
        "version": VERSION,
        "study": study.name,
        "locked_at": locked_at,
        "locked": date(locked_at),
        "plan_sha256": _hash(plan),
        "plan": plan,
        "fingerprints": dict(fingerprints),
        "started": sorted(run.name for run in runs if has_begun(run)),
    }
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
        record = msgspec.json.decode(path.read_bytes(), type=Lock)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(
            _("{path}: not a lock file: {error}", str(path), str(error)),
            hint=_("restore it from version control, or remove it and lock again"),
        ) from error
    if record.version != VERSION:
        raise UsageError(
            _("{path}: lock version {version} is unknown; valid: {valid}", str(path), record.version, VERSION),
            hint=_("use the release that wrote it"),
        )
    if _hash(record.plan) != record.plan_sha256:
        raise UsageError(
            _("{path}: the plan in it was edited after it was locked", str(path)),
            hint=_("restore it from version control"),
        )
    return record


def deviations(lock: Lock, study: Study, runs: Sequence[LoadedRun]) -> list[Sentence]:
    """List what isn't as it was locked: rules, seeds, configuration, and runs of other fingerprints."""
    now = plan_of(study)
    if "program" in now and "measured" not in lock.plan.get("program", {}).get("metrics", {}):
        del now["program"]["metrics"]["measured"]  # a lock from before it was locked
    found = [_locked_late(lock.started)] if lock.started else []
    compared = ("hypotheses", "groups", "train", "unequal", "question", "factors", "global_batch", "program")
    found += _changes("", *({name: plan[name] for name in compared if name in plan} for plan in (lock.plan, now)))
    planned = set(lock.seeds)
    added = sorted(({run.seed for run in runs if run.seed is not None and not run.tag} | set(study.seeds)) - planned)
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
        if known and run.fingerprint and run.fingerprint != known:
            found.append(_("{run} was run with another configuration or other data than locked", run.name))
        if run.started_at is not None and run.started_at < lock.locked_at and run.name not in lock.started:
            found.append(_locked_late((run.name,)))
    return found


def _locked_late(runs: tuple[str, ...]) -> Sentence:
    return _("the plan was locked after {runs} had begun", runs)


def rule_deviations(lock: Lock, study: Study) -> dict[str, Sentence]:
    """Return, by the hypothesis's id, a remark for each verdict whose rule isn't the locked one."""
    before: Mapping[str, Any] = lock.plan.get("hypotheses", {})
    found = {}
    for name, rule in plan_of(study)["hypotheses"].items():
        if name not in before:
            found[name] = _("DEVIATION: this hypothesis is not part of the locked plan")
        elif changes := tuple(_changes("", before[name], rule)):
            found[name] = _("DEVIATION: the rule is not the locked one: {changes}", changes)
    return found


def _changes(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Sentence]:
    found = []
    for key in [*before, *(key for key in after if key not in before)]:
        what = f"{name}.{key}" if name else key
        if key not in after:
            found.append(_("{what} = {before} was removed", what, _short(before[key])))
        elif key not in before:
            found.append(_("{what} = {after} was added", what, _short(after[key])))
        elif isinstance(before[key], dict) and isinstance(after[key], dict):
            found += _changes(what, before[key], after[key])
        elif before[key] != after[key]:
            found.append(_("{what} was {before} and is {after}", what, _short(before[key]), _short(after[key])))
    return found


def _short(value: Any) -> str:
    shown = json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= 100 else shown[:99] + "…"


def _hash(plan: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plan, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

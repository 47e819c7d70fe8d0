"""The plan that a lock holds: everything of a study that bears on a verdict, as plain data, and what differs of two."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

from oelm_jobs.agent.sentences import Sentence, _
from oelm_jobs.programs import built_in
from oelm_jobs.programs.length import KEY
from oelm_jobs.spec.study import FINAL_VAL_LOSS, Hypothesis, Study
from oelm_jobs.study import blocks, sweep

SEARCH = ("tuned", "sweep", "budget", "selection")
"""Keys of a plan that are about what is tried before anything is confirmed."""
_UNSAID = [("scale", "ratio"), ("is_told", False), ("at", "last"), ("goal", "minimize"), ("holds", ""), ("because", "")]
"""What a rule is unless it says otherwise; locks don't hold it, as those from before it could be said don't."""
_LATER = (*SEARCH, "confirm_seeds", "judge_on", "exclusions")
"""What locks hold that older ones don't."""
COMPARED = (
    "hypotheses", "groups", "train", "unequal", "question", "factors", "global_batch", "program", "blocks", *_LATER,
)  # fmt: skip
"""Keys of a plan of which any change is one of the plan; seeds that are added are told apart."""
EXCLUSIONS = {
    "diverged": "counts as a failure of its group",
    "crashed, cancelled or lost without a result": "is no result, and may run again",
    "run again after a result": "the first result decides",
}
"""What becomes of runs that are not what they should be; the report holds to it, whatever the study says."""


class Change(NamedTuple):
    """A key that two plans differ in."""

    key: str
    """With dots between the tables that it is in."""
    before: str | None
    """The value in the first plan; None where that lacks it."""
    after: str | None
    """The value in the second one; None where that lacks it."""

    @property
    def said(self) -> Sentence:
        """It in words."""
        if self.after is None:
            return _("{what} = {before} was removed", self.key, self.before)
        if self.before is None:
            return _("{what} = {after} was added", self.key, self.after)
        return _("{what} was {before} and is {after}", self.key, self.before, self.after)

    @property
    def as_fault(self) -> Sentence:
        """It as what is wrong with the second plan, and what would be right."""
        if self.after is None:
            return _("{key} is missing, locked as {value}", self.key, self.before)
        if self.before is None:
            return _("{key} = {value} is not in the lock: leave it out", self.key, self.after)
        return _("{key} is {value}, locked as {before}", self.key, self.after, self.before)


def plan_of(study: Study) -> dict[str, Any]:
    """Return what is locked of a study."""
    plan: dict[str, Any] = {
        "question": study.question,
        "factors": list(study.factors),
        "seeds": list(study.seeds),
        "global_batch": study.global_batch,
        "train": dict(study.settings) if study.program else built_in.recorded(study.settings),
        "groups": {name: group.values for name, group in study.groups.items()},
        "unequal": dict(study.declared),
        "hypotheses": {
            h.id: {key: value for key, value in rule_of(h).items() if (key, value) not in _UNSAID}
            for h in study.hypotheses
        },
        "tuned": list(study.tuned),
        "sweep": asdict(study.sweep) if study.sweep is not None else None,
        "budget": _budget(study),
        "selection": _selection(study),
        "confirm_seeds": list(study.confirm_seeds),
        "judge_on": study.judge_on,
        "exclusions": EXCLUSIONS,
    }
    if study.blocks:
        plan["blocks"] = {name: asdict(block) for name, block in study.blocks.items()}
    if study.program is not None:
        stages = [asdict(stage) for stage in study.program.stages]
        plan["program"] = {"stages": stages, "metrics": asdict(study.program.metrics)}
    plain: dict[str, Any] = json.loads(json.dumps(plan))
    return plain


def rule_of(h: Hypothesis) -> dict[str, Any]:
    """Return what a hypothesis says of how it is decided; JSON has no number for an infinite bound."""
    bounds = [bound if math.isfinite(bound) else str(bound) for bound in h.bounds]
    said = ("id", "claim", "measured")
    return {key: value for key, value in {**asdict(h), "bounds": bounds}.items() if key not in said}


def _budget(study: Study) -> dict[str, Any]:
    """Return how much each group is given, for each of the seeds."""
    combinations = len(sweep.settings(study.sweep)) if study.sweep is not None else 1
    length = study.program.length if study.program is not None else KEY
    steps = {name: within.settings.get(length) if length else None for name, within in blocks.each(study).items()}
    return {"combinations": combinations, "steps": steps if study.blocks else steps[""]}


def _selection(study: Study) -> dict[str, Any] | None:
    """Return by which rule a group's combination is chosen; None where there is no choice."""
    if study.sweep is None:
        return None
    goal = dict(study.program.metrics.goal) if study.program is not None else {FINAL_VAL_LOSS: "minimize"}
    metric, direction = next(iter(goal.items()), ("", ""))
    return {"metric": metric, "goal": direction, "at": "last", "over": "mean of the seeds", "of": "each group"}


def changes(before: Mapping[str, Any], after: Mapping[str, Any], name: str = "") -> list[Change]:
    """Return what differs between two plans, or parts of them."""
    found = []
    for key in [*before, *(key for key in after if key not in before)]:
        what = f"{name}.{key}" if name else key
        if key not in after or key not in before:
            values = [_short(part[key]) if key in part else None for part in (before, after)]
            found.append(Change(what, *values))
        elif isinstance(before[key], dict) and isinstance(after[key], dict):
            found += changes(before[key], after[key], what)
        elif before[key] != after[key]:
            found.append(Change(what, _short(before[key]), _short(after[key])))
    return found


def plan_changes(locked: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """Return what differs between a locked plan and a later one, but for seeds.

    What locks of older versions don't hold is not compared.
    """
    now = {name: now[name] for name in COMPARED if name in now and (name in locked or name not in _LATER)}
    if "program" in now and "measured" not in locked.get("program", {}).get("metrics", {}):
        program = now["program"]
        metrics = {key: value for key, value in program["metrics"].items() if key != "measured"}
        now["program"] = {**program, "metrics": metrics}
    return changes({name: locked[name] for name in COMPARED if name in locked}, now)


def _short(value: Any) -> str:
    shown = json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= 100 else shown[:99] + "…"


def hash_of(content: Mapping[str, Any]) -> str:
    """Return the hash of plain data, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

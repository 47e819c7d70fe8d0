"""What a plan's runs would do: their commands, and how long they should take where earlier runs tell the speed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..agent.rundir import finite
from ..connections import interpreter
from ..programs import built_in, description
from ..spec.study import Run
from ..stored_run import StoredRun
from ..study.plan import Mode, Plan


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """A run that nobody has submitted yet."""

    run: Run
    commands: tuple[tuple[str, ...], ...]
    """Argv of each of its stages there; of a script with what only an attempt knows in braces."""
    division: built_in.Division | None
    """How it divides its global batch; None where that is a script's own affair."""
    start_s: float | None
    """Expected seconds until it begins; None where that isn't known."""
    duration_s: float | None
    """Expected seconds of its training; None where no run of its group was measured on this target."""


def preview(plan: Plan, known: Iterable[StoredRun]) -> list[PlannedRun]:
    """Return a plan's runs as they would be executed.

    Args:
        known: Runs of the project, whose speed tells how long a run of their group takes.
    """
    rates: dict[str, float] = {}
    for one in known:
        rate = finite(one.progress.get("tokens_per_s"))
        if (one.study, one.target) == (plan.study.name, plan.target.name) and rate:
            rates[one.group] = rate
    python = interpreter(plan.target)
    found: list[PlannedRun] = []
    start: float | None = 0.0
    for run in plan.runs:
        is_known = run.program is None and run.group in rates
        seconds = built_in.tokens(run) / rates[run.group] if is_known else None
        found.append(
            PlannedRun(
                run=run,
                commands=tuple(map(tuple, description.of(run).commands(run, python))),
                division=built_in.division(run) if run.program is None else None,
                start_s=start,
                duration_s=seconds,
            )
        )
        if plan.mode is Mode.SEQUENTIAL:
            start = None if start is None or seconds is None else start + seconds
    return found

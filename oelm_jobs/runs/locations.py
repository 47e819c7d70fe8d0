"""Where a plan's runs lie on their target, by the index and by the records of this machine's directories."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ..agent import rundir
from ..agent.reasons import codes
from ..agent.sentences import _
from ..errors import ConfigurationError
from ..programs import description
from ..stored_run import StoredRun
from ..study.plan import Plan
from ..transfer import sync
from .observe import NOT_SUBMITTED


def where_they_lie(plan: Plan, stored: Sequence[StoredRun], say: Callable[[str], None]) -> Plan:
    """Return the plan with each run that was submitted before where it lies: another study may have been the default.

    A new one keeps out of a directory that holds a run of a former default: it lies in its study's own folder.

    Args:
        say: Is told which do.

    Raises:
        ConfigurationError: There, too, lies another study's run; or one would on a disk of macOS.
    """
    _check_letters(plan, [run.name for run in stored if run.study == plan.study.name])
    known = {run.name: run for run in stored if (run.study, run.target) == (plan.study.name, plan.target.name)}
    others = [run for run in stored if run.target == plan.target.name and run.study != plan.study.name]
    taken = {run.run_dir for run in others if not never_was(run)}

    def both_places(run_dir: str) -> tuple[str, str]:
        folder, name = run_dir.rpartition("/")[::2]
        folder = folder.removesuffix("/" + plan.study.name)
        return f"{folder}/{name}", f"{folder}/{plan.study.name}/{name}"

    places = {run.name: both_places(run.run_dir) for run in plan.runs}
    # What was fetched from elsewhere lies in directories of this machine, too.
    here = set() if plan.target.host else rundir.that_may_exist(itertools.chain.from_iterable(places.values()))

    def study_in(run_dir: str) -> str:
        return sync.study_in(Path(run_dir)) if run_dir in here else ""

    def is_it(run_dir: str, place: str) -> bool:
        # A dry run has not asked where the home folder of a target is.
        return run_dir.endswith(place[1:]) if place.startswith("~/") else run_dir == place

    def is_taken(run_dir: str) -> bool:
        return any(is_it(other, run_dir) for other in taken) or study_in(run_dir) not in ("", plan.study.name)

    runs = []
    for run in plan.runs:
        there = run.run_dir
        both = places[run.name]
        own = [place for place in both if run.name in known and is_it(known[run.name].run_dir, place)]
        if own := own or [place for place in both if study_in(place) == plan.study.name]:
            there = own[0]
        elif is_taken(there):
            there = both[1]
            say(_("{run_dir} holds a run of another study: {run} lies in {folder}", run.run_dir, run.name, there))
        if is_taken(there):
            raise ConfigurationError(
                _("{run_dir} holds a run of another study", there),
                hint=_("give these runs a name of their own: --tag NAME"),
            )
        if there != run.run_dir:
            run = replace(run, run_dir=there, settings={**run.settings, **description.of(run).placed(there)})
        runs.append(run)
    return replace(plan, runs=tuple(runs))


def _check_letters(plan: Plan, submitted: Sequence[str]) -> None:
    """Refuse a new run whose name is another's but for the case of letters: fetched to a disk that takes the two for
    one, as those of macOS do, either would take the other's place.

    Raises:
        ConfigurationError: There is one.
    """
    alike = {name.lower(): name for name in reversed(submitted)}
    for name in (run.name for run in plan.runs):
        other = alike.setdefault(name.lower(), name)
        if other != name and name not in submitted:
            raise ConfigurationError(
                _("runs {run} and {other} differ in upper and lower case alone: macOS keeps one", other, name),
                hint=_("rename the group, or give these runs a name of their own: --tag NAME"),
            )


def never_was(known: StoredRun) -> bool:
    """Tell whether a stored run's target has nothing of it: it was refused, or its directory was removed."""
    return bool(known.progress.get("absent")) or (NOT_SUBMITTED in codes(known.reason) and not known.progress)

"""Select runs of the store by names of studies, groups or runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..agent.sentences import _
from ..errors import UsageError, few, valid_choices
from ..store import Store
from ..stored_run import StoredRun


def names_of(meant: Iterable[Any]) -> list[str]:
    """Return what names each of the runs that are meant: by names, as runs, or by what holds runs (a view, a plan).

    Raises:
        TypeError: Something names no run.
    """
    found: list[str] = []
    for one in meant:
        if isinstance(one, str):
            found.append(one)
        elif hasattr(one, "runs"):
            found += names_of(one.runs)
        elif hasattr(one, "run"):
            found += names_of([one.run])
        elif hasattr(one, "study") and hasattr(one, "name"):
            found.append(f"{one.study}/{one.name}")
        else:
            raise TypeError(_("{kind} names no run", type(one).__name__))
    return found


def select(store: Store, project: Path, names: Sequence[str], study: str | None = None) -> list[StoredRun]:
    """Return the project's runs by names of studies, groups or runs; all of them without names.

    A group's first run has the group's own name, which stands for all of them: ``STUDY/RUN`` is that run alone.

    Raises:
        UsageError: A name or the study names nothing.
    """
    runs = store.runs(project)
    if study is not None:
        studies = {run.study for run in runs}
        if study not in studies:
            choices = valid_choices(study, studies)
            raise UsageError(
                _("no run of study {study!r} was submitted here; {choices}", study, choices),
                hint=_("submit it: oelm-submit --study {study}", study),
            )
        runs = [run for run in runs if run.study == study]
    if not names:
        return runs
    called: dict[str, list[StoredRun]] = {}
    for run in runs:
        for name in (run.name, run.group, run.study, f"{run.study}/{run.name}"):
            called.setdefault(name, []).append(run)
    chosen: set[tuple[str, str]] = set()
    for name in names:
        found = called.get(name, ())
        if not found:
            known = {run.name for run in runs} | {run.group for run in runs} | {run.study for run in runs}
            choices = valid_choices(name, known)
            raise UsageError(
                _("{name!r} names no study, group or run that was submitted here; {choices}", name, choices),
                hint=_("all of them: oelm-status") if known else _("what lies on the targets: oelm-status"),
            )
        chosen.update((run.study, run.name) for run in found)
    return [run for run in runs if (run.study, run.name) in chosen]


def select_one(store: Store, project: Path, name: str, study: str | None = None) -> StoredRun:
    """Return the one run of a name.

    Raises:
        UsageError: It names none, or several.
    """
    found = select(store, project, [name], study)
    exact = [run for run in found if run.name == name] or found
    if len(exact) > 1:
        names = few([f"{run.study}/{run.name}" for run in exact])
        raise UsageError(_("{name!r} names {count} runs: {runs}", name, len(exact), names), hint=_("name one of them"))
    return exact[0]

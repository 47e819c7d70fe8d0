"""Select runs of the store by names of studies, groups or runs, or by patterns of them.

One rule for all commands: a name means every run that is called so or whose group or study is, in whichever study; and
``STUDY/RUN`` means that run alone. Where a command is about one run, a name that several have to do with means the one
that is called so.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..agent.reasons import detailed
from ..agent.sentences import _
from ..errors import StoreError, UsageError, few, valid_choices
from ..store import Store
from ..stored_run import StoredRun

if TYPE_CHECKING:
    from ..spec.study import Study

_PATTERN = r"[*?\[]"


def _names_of(meant: Iterable[Any]) -> list[str]:
    """Return what names each of the runs that are meant: by names, as runs, or by what holds runs (a view, a plan).

    Raises:
        TypeError: Something names no run.
    """
    found: list[str] = []
    for one in meant:
        if isinstance(one, str):
            found.append(one)
        elif hasattr(one, "runs"):
            found += _names_of(one.runs)
        elif hasattr(one, "run"):
            found += _names_of([one.run])
        elif hasattr(one, "study") and hasattr(one, "name"):
            found.append(f"{one.study}/{one.name}")
        else:
            raise TypeError(_("{kind} names no run", type(one).__name__))
    return found


def select(
    store: Store,
    project: Path,
    meant: Sequence[Any],
    study: Study | str | None = None,
    besides: Sequence[StoredRun] = (),
) -> list[StoredRun]:
    """Return those of the project's runs that are meant: by names of studies, groups or runs or patterns of them
    (``*``, ``?``, ``[…]``), as runs, or by what holds runs; all of them where nothing is named. What holds none means
    none.

    A group's first run has the group's own name, which stands for all of them: ``STUDY/RUN`` is that run alone.

    Args:
        besides: Runs that the index doesn't know, and that are named in the same way; they come last.

    Raises:
        UsageError: A name or the study names nothing.
        TypeError: Something names no run.
    """
    names = _names_of(meant)
    wanted = study if study is None or isinstance(study, str) else study.name
    runs = [*store.runs(project, wanted), *(run for run in besides if wanted in (None, run.study))]
    if wanted is not None and not runs:
        choices = valid_choices(wanted, [run.study for run in (*store.runs(project), *besides)])
        raise UsageError(
            _("no run of study {study!r} was submitted here; {choices}", wanted, choices),
            hint=_("submit it: oelm-submit --study {study}", wanted),
        )
    if not meant:
        return runs
    called: dict[str, list[StoredRun]] = {}
    for run in runs:
        for name in (run.name, run.group, run.study, f"{run.study}/{run.name}"):
            called.setdefault(name, []).append(run)
    chosen: set[tuple[str, str]] = set()
    for name in names:
        found = called.get(name, [])
        if not found and re.search(_PATTERN, name):
            found = [run for known in called if fnmatch.fnmatchcase(known, name) for run in called[known]]
        if not found:
            choices = valid_choices(name, [known for known in called if ("/" in known) == ("/" in name)])
            raise UsageError(
                _("{name!r} names no study, group or run that was submitted here; {choices}", name, choices),
                hint=_("all of them: oelm-status") if runs else _("what lies on the targets: oelm-status"),
            )
        chosen.update((run.study, run.name) for run in found)
    return [run for run in runs if (run.study, run.name) in chosen]


def select_one(store: Store, project: Path, meant: Any, study: Study | str | None = None) -> StoredRun:
    """Return the one run that is meant.

    Raises:
        UsageError: There is none, or there are several.
    """
    found = select(store, project, [meant], study)
    exact = [run for run in found if run.name == meant] or found
    if len(exact) != 1:
        names = few([f"{run.study}/{run.name}" for run in exact])
        what = detailed(_("{count} runs where one is meant", len(exact)), names)
        raise UsageError(what, hint=_("name one of them") if exact else "")
    return exact[0]


def understood(runs: Iterable[StoredRun], *, whole: bool = True) -> tuple[list[StoredRun], dict[str, StoreError]]:
    """Part runs into those that the index can be believed about, and why not the others, by ``STUDY/RUN``.

    Args:
        whole: Also about their configurations.
    """
    sound, misread = [], {}
    for run in runs:
        error = run.misnamed or (run.without_misread() and run.misread if whole else None)
        if error is None:
            sound.append(run)
        else:
            misread[f"{run.study}/{run.name}"] = error
    return sound, misread

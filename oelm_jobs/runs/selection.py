"""Runs that were chosen by seeds, tags and states; loaded where somebody does, since a look at all runs does not."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..agent.sentences import _
from ..errors import UsageError, few, valid_choices

if TYPE_CHECKING:
    from ..agent.states import State
    from ..stored_run import StoredRun


@dataclass(frozen=True, kw_only=True)
class Only:
    """Narrows a choice of runs; what is empty narrows nothing."""

    seeds: Collection[range] = ()
    tags: Collection[str] = ()
    """Or patterns of them."""
    states: Collection[State] = ()

    def of(self, runs: Iterable[StoredRun]) -> tuple[StoredRun, ...]:
        """Return those of runs that have one of the seeds, one of the tags and are in one of the states.

        Raises:
            UsageError: None of them has one of the seeds, or one of the tags, in whatever state it is.
        """
        runs = tuple(runs)
        for seeds in self.seeds:
            if runs and not any(run.seed in seeds for run in runs):
                known = few([*map(str, sorted({run.seed for run in runs}))])
                what = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]}-{seeds[-1]}"
                raise UsageError(_("--seed {seed}: no such run; valid: {choices}", what, known))
        for tag in self.tags:
            if runs and not any(fnmatch.fnmatchcase(run.tag, tag) for run in runs):
                choices = valid_choices(tag, {run.tag for run in runs if run.tag})
                raise UsageError(_("--tag {tag}: no such run; {choices}", tag, choices))
        return tuple(run for run in runs if self._takes(run))

    def _takes(self, run: StoredRun) -> bool:
        return (
            (not self.seeds or any(run.seed in seeds for seeds in self.seeds))
            and (not self.tags or any(fnmatch.fnmatchcase(run.tag, tag) for tag in self.tags))
            and (not self.states or run.state in self.states)
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """Runs that were chosen; none of them means none, wherever runs are named."""

    runs: tuple[StoredRun, ...]
    out_of: int
    """How many there are to choose from, in the study or in the project."""

"""What a submission does with a run that was submitted before.

``decide`` is a function of its arguments. The decision that counts is made inside the store's write transaction, so
that of two submissions one gets each run.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..agent.sentences import _, joined
from ..agent.states import State
from ..code import listings
from ..errors import ConfigurationError
from ..programs import built_in, description, length
from ..runs import moving
from ..runs.locations import never_was
from ..spec.study import Run
from ..stored_run import StoredRun
from ..study import blocks
from ..study.plan import Plan
from ..transfer.home import home_of

if TYPE_CHECKING:
    from ..agent.record_types import Extended


class Again(enum.Enum):
    """What happens to a run that is over."""

    RESUME = "resume"
    """It goes on from its last checkpoint; one that is done is left alone."""
    RERUN = "rerun"
    """What it made is archived, and it starts over."""
    EXTEND = "extend"
    """It trains further, to more steps."""


@dataclass(frozen=True, kw_only=True)
class Leave:
    """The run is left alone."""

    reason: str
    """Why."""


@dataclass(frozen=True, kw_only=True)
class Take:
    """The run is submitted."""

    run: Run
    """As it is stored and sent: with what it continues, and what it leaves on other targets."""
    archives: bool = False
    """Whether what lies in its run directory is moved away first."""
    moved_from: StoredRun | None = None
    """What it was on another target, of which nothing comes along."""
    gone: State | None = None
    """What it was before its files were removed; None where they weren't."""


@dataclass(frozen=True)
class Facts:
    """What decides about a stored run besides the index and the plan, each looked up when a rule asks for it."""

    plan: Plan
    known: StoredRun
    run: Run
    in_place: Collection[str]
    """Names of runs of other targets that lie where they would on the plan's."""

    @property
    def is_gone(self) -> bool:
        """Whether its directory in the project was removed (the project was cloned anew, say), and no copy of it was
        fetched. One elsewhere may be on a disk that is away.
        """
        run_dir = Path(self.known.run_dir)
        project, target = self.plan.project, self.plan.target
        if self.known.target != target.name or target.host or not run_dir.is_relative_to(project):
            return False
        if os.path.lexists(run_dir) or any(folder.is_symlink() and not folder.exists() for folder in run_dir.parents):
            return False
        return not os.path.lexists(home_of(project, self.known))

    @property
    def lies_here(self) -> bool:
        """Whether it was submitted to another target and lies where it would on this one."""
        return self.run.name in self.in_place

    @property
    def changed(self) -> list[str] | None:
        """Names of files of its code that have changed since it was submitted; None where that isn't known."""
        return listings.changed(self.known.code, self.run.code)

    @property
    def has_checkpoint(self) -> bool:
        """Whether there may be a checkpoint of it: oelm-clean hasn't removed them all."""
        from ..transfer.clean import has_no_checkpoint  # here: new runs, and most others, are decided without

        return not has_no_checkpoint(self.plan.project, self.known)

    @property
    def is_same_data(self) -> bool:
        """Whether it trained on the data that are there now, with fewer steps than the planned run."""
        about = description.of(self.run)
        key = about.length_key(self.run)
        shorter = {**self.run.settings, key: self.known.settings[key]}
        data_hash = blocks.hash_in(self.plan.data_hash, self.run.block)
        now = about.fingerprint(replace(self.run, settings=shorter), data_hash)
        return not self.known.fingerprint or now == self.known.fingerprint


def decide(facts: Facts, again: Again) -> Take | Leave:
    """Say whether a run that the index knows is submitted: the first rule that applies.

    Raises:
        ConfigurationError: Its directory holds another configuration, or its name is taken.
    """
    known, run = facts.known, facts.run
    if (known.group, known.seed, known.tag) != (run.group, run.seed, run.tag):
        planned, before = (
            _("group {group}, seed {seed}, tag {tag!r}", one.group, one.seed, one.tag) for one in (run, known)
        )
        raise ConfigurationError(
            _("{run} would name two runs: {one}; and, submitted before, {other}", run.name, planned, before),
            hint=_("give these runs another name: --tag NAME"),
        )
    elsewhere = known.target != run.target
    moves = elsewhere and not facts.lies_here
    if known.state is State.PLANNED:
        return Leave(reason=_("is being submitted by another command"))
    if never_was(known):
        return _take(known, run)
    if not known.state.is_final:
        return Leave(reason=_under_way(known, elsewhere=elsewhere, again=again))
    if facts.is_gone:
        return _take(known, run, gone=known.state)
    if elsewhere and known.state is State.DONE and again is not Again.RERUN:
        return Leave(reason=_("is done on target {target}", known.target))
    differs = bool(known.fingerprint) and known.fingerprint != run.fingerprint
    changes = {} if again is Again.RERUN else _changes(known, run)
    if moves:
        if changes or (differs and again is not Again.RERUN):
            raise _another_configuration(known, run, changes)
        # Archived, since something may lie there from before it was elsewhere.
        return _take(known, run, archives=True, moved_from=known)
    if again is Again.RERUN:
        return _take(known, run, archives=True)
    if changes or differs:
        return _take(known, replace(run, extended_from=_extension(facts, changes, again)))
    if known.state is State.DONE:
        return Leave(reason=_done_with_other_code(facts) if has_other_code(known, run) else _("is done"))
    # An extension that was cancelled goes on as one.
    return _take(known, replace(run, extended_from=known.extended_from))


def has_other_code(known: StoredRun, run: Run) -> bool:
    """Tell whether a run of a script was submitted with other code before."""
    return bool(known.code and run.code) and known.code != run.code


def _done_with_other_code(facts: Facts) -> str:
    changed = facts.changed
    if changed is None:
        return _("is done, with other code: --rerun starts it over, --tag NAME makes another run")
    return _("is done; these files changed: {files} (--rerun starts it over, --tag NAME makes another run)", changed)


def _take(
    known: StoredRun,
    run: Run,
    *,
    archives: bool = False,
    moved_from: StoredRun | None = None,
    gone: State | None = None,
) -> Take:
    """Take a run; what it left on other targets stays in sight."""
    left = moving.left(known, run, moves=moved_from is not None)
    return Take(run=replace(run, left=left), archives=archives, moved_from=moved_from, gone=gone)


def _under_way(known: StoredRun, *, elsewhere: bool, again: Again) -> str:
    stands = _("is {state}", known.state)
    if elsewhere:
        stands = _("is {state} on target {target}", known.state, known.target)
    if known.state is State.UNKNOWN and known.reason:
        return _("{stands}: {reason}", stands, known.reason)
    return joined([stands, _("oelm-cancel ends it") if again is not Again.RESUME else ""])


def _extension(facts: Facts, changes: dict[str, str], again: Again) -> Extended:
    """Return what a run of more steps goes on from.

    Raises:
        ConfigurationError: It isn't one, or isn't meant to be.
    """
    known, run = facts.known, facts.run
    key = description.of(run).length_key(run)
    is_longer = set(changes) == {key} and run.settings[key] > known.settings[key]
    if again is not Again.EXTEND or not is_longer:
        raise _another_configuration(known, run, changes, may_extend=is_longer)
    if not facts.is_same_data:
        raise _another_configuration(known, run, {})
    if not facts.has_checkpoint:
        raise ConfigurationError(
            _("{run} has no checkpoint on {target} to go on from: oelm-clean freed them", run.name, known.target),
            hint=_("archive it there and start over: --rerun"),
        )
    return {length.KEY: known.max_steps, "fingerprint": known.fingerprint, "before": known.extended_from}


def _changes(known: StoredRun, run: Run) -> dict[str, str]:
    """Return what differs scientifically between a stored run and a planned one, by key, as a message."""
    in_full = dict if run.program else built_in.in_full
    before = {**in_full(known.settings), "global_batch": known.spec.get("global_batch")}
    after = {**in_full(run.settings), "global_batch": run.global_batch}
    own = description.of(run).of_the_place(run)
    keys = sorted(key for key in after if key in before and key not in own and before[key] != after[key])
    return {key: _("{key} was {before}, is {after}", key, str(before[key]), str(after[key])) for key in keys}


def _another_configuration(
    known: StoredRun, run: Run, changes: dict[str, str], *, may_extend: bool = False
) -> ConfigurationError:
    known_then = {"global_batch", *known.settings}
    about = description.of(run)
    added = [] if run.program else [key for key in about.scientific(run) if key not in known_then]
    other = _("{keys} did not exist then", added) if added else about.OTHERWISE
    differences = joined(changes.values()) or other
    longer = _("to train the finished run further: --extend") if may_extend else ""
    anew = _("give these runs a name of their own: --tag NAME; or archive the old one and start over: --rerun")
    return ConfigurationError(
        _("{run_dir} holds run {run} of another configuration: {differences}", known.run_dir, run.name, differences),
        hint=joined([longer, anew]),
    )

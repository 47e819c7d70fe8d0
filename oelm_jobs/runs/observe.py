"""Ask targets where runs stand, and store what they answer.

A poll that fails changes no state. A submission whose client died before it had an answer is settled first: the target
says for good whether it was accepted; nothing is ever concluded from silence.
"""

from __future__ import annotations

import enum
import functools
import itertools
import json
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..agent.reasons import BESIDE, because, codes
from ..agent.rundir import finite
from ..agent.sentences import _, joined
from ..agent.states import State
from ..errors import Nonsense, TargetError
from ..store import ACCEPTED, REFUSED, OpenSubmission, Store
from ..stored_run import STATES, Reason, StoredRun, is_as_stored

if TYPE_CHECKING:
    from ..agent.messages import PollAnswer
    from ..schedulers import Scheduler
    from ..spec.target import Target
    from ..stored_run import RunProgress


RECENT = 50
"""So many of the runs that failed or were cancelled last are asked about again: a script may have been started by
hand."""
UNCHANGED_S = 10.0
"""The age of an answer that says nothing new is stored where the last one is older: it is shown when the target is
silent.
"""
ELSEWHERE_S = 300.0
"""So long a submission that is made on another host is left alone after its last sign of life."""
NOT_SUBMITTED = "not_submitted"
"""Code of the reason of a run that never reached its target."""
SENDING: set[str] = set()
"""Tokens of the submissions that threads of this process are at."""


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """Runs as they stand, and how good that knowledge is."""

    runs: tuple[StoredRun, ...]
    unreachable: Mapping[str, str]
    """Target to the reason why it couldn't be asked; its runs keep their last state."""
    nonsense: tuple[str, ...] = ()
    """Of those reasons the ones that say that it answered, but nothing that can be believed."""
    at: float
    """When this was put together, Unix seconds."""
    hosts: Mapping[str, PollAnswer] = field(default_factory=dict)
    """Target to its devices, queue and free disk (agent/probe.py), where they were asked for."""

    def only(
        self, *, seeds: Collection[range] = (), tags: Collection[str] = (), states: Collection[State] = ()
    ) -> View:
        """Return the view of those of its runs that have one of the seeds and tags and are in one of the states.

        Raises:
            UsageError: None of them has one of the seeds, or one of the tags, in whatever state it is.
        """
        from .selection import Only  # here, since a look at all runs narrows nothing

        return replace(self, runs=Only(seeds=seeds, tags=tags, states=states).of(self.runs))


class Scope(enum.Enum):
    """Which runs a refresh asks about."""

    MOVING = "moving"
    """Those that may move; also what failed or was cancelled last, since a script may have been started by hand, where
    that costs no connection of its own."""
    STOPPED = "stopped"
    """Those that may move, and all that failed or were cancelled."""
    ALL = "all"


def refresh(
    store: Store,
    project: Path,
    runs: Iterable[StoredRun],
    *,
    scope: Scope = Scope.MOVING,
    hosts: Collection[str] = (),
    anew: bool = False,
) -> View:
    """Ask the targets about runs, once each and side by side, and store what they answer.

    A target that can't be asked changes no state.

    Args:
        hosts: Names of targets that are asked about their devices, queue and disk in the same round trip.
        anew: Let schedulers answer from now: who is about to act must not take for over what somebody has just started
            by hand.
    """
    runs = list(runs)
    targets, wanted = _wanted(project, runs, scope, hosts)
    settled, failed = _settle(store, project, targets, wanted)
    answers, silent = _poll(project, targets, settled, hosts, anew=anew)
    failed |= silent
    observed: dict[tuple[str, str], StoredRun] = {}
    for name, theirs in settled.items():
        for known in _remember(store, theirs, answers[name]) if name in answers else theirs:
            observed[known.study, known.name] = known
    return View(
        runs=tuple(observed.get((run.study, run.name), run) for run in runs),
        unreachable={name: str(error) for name, error in failed.items()},
        nonsense=tuple(str(error) for error in failed.values() if isinstance(error, Nonsense)),
        at=time.time(),
        hosts={name: answer for name, answer in answers.items() if name in hosts},
    )


Wanted = dict[str, list[StoredRun]]
"""Runs by the name of their target."""
Failed = dict[str, TargetError]
"""Why targets couldn't be asked, by their names."""


def _wanted(
    project: Path, runs: Sequence[StoredRun], scope: Scope, hosts: Collection[str]
) -> tuple[Mapping[str, Target], Wanted]:
    """Return the project's targets, and the runs to ask about; no file is read where nothing is to be asked."""
    wanted: Wanted = {}
    for run in runs:
        if scope is Scope.ALL or not run.state.is_final:
            wanted.setdefault(run.target, []).append(run)
        elif run.target in hosts:
            wanted.setdefault(run.target, [])
    last = reversed(runs) if scope is not Scope.ALL else ()
    may_be_started = filter(_may_be_started_by_hand, last)
    stopped = [*itertools.islice(may_be_started, RECENT if scope is Scope.MOVING else None)][::-1]
    targets: Mapping[str, Target] = {}
    if wanted or stopped:
        from ..targets.files import load_targets  # here, like others: a look at runs that are over asks nobody

        targets = load_targets(project)
    if scope is Scope.MOVING:
        asked = {*wanted, *(name for name, target in targets.items() if not target.host)}
        stopped = [run for run in stopped if run.target in asked]
    for run in stopped:
        wanted.setdefault(run.target, []).append(run)
    return targets, wanted


def _may_be_started_by_hand(run: StoredRun) -> bool:
    """True where a run that is over left a script on its target that runs by hand."""
    return run.state in (State.FAILED, State.CANCELLED) and NOT_SUBMITTED not in codes(run.reason)


def side_by_side(ask: Callable[[str], None], names: Collection[str]) -> Failed:
    """Ask several targets at once, since one that does not answer must not keep the others waiting; return those that
    couldn't be asked.
    """
    failed: Failed = {}

    def attempt(name: str) -> None:
        try:
            ask(name)
        except TargetError as error:
            failed[name] = error

    if len(names) > 1:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(min(16, len(names))) as pool:
            list(pool.map(attempt, names))
    else:
        for name in names:
            attempt(name)
    return failed


def _settle(store: Store, project: Path, targets: Mapping[str, Target], wanted: Wanted) -> tuple[Wanted, Failed]:
    """Settle submissions without an answer whose client is gone; return the runs as they stand then, and the targets
    that couldn't be asked.
    """
    settled: Wanted = {}
    failed: Failed = {}
    for name, runs in wanted.items():
        if name not in targets:
            gone = _("target {name!r} is in no targets file any more", name)
            failed[name] = TargetError(joined((gone, _("if it was renamed, oelm-status --rebuild finds its runs"))))
            continue
        is_open = any(run.state is State.PLANNED for run in runs)
        try:
            settled[name] = _settle_target(store, project, targets[name], runs) if is_open else runs
        except TargetError as error:
            failed[name] = error
    return settled, failed


def _settle_target(store: Store, project: Path, target: Target, runs: Sequence[StoredRun]) -> list[StoredRun]:
    """Settle the open submissions of one target's runs; return the runs as they stand then.

    Raises:
        TargetError: It can't be asked.
    """
    planned = {run.token for run in runs if run.state is State.PLANNED}
    for submission in store.open_submissions(project):
        token = submission.token
        if token not in planned or token in SENDING or _is_under_way(submission):
            continue
        known = store.runs_of(token)  # also those that nobody asks about now: it is settled once, for all
        open_ones = [run_dir for run_dir, state in known.items() if state is State.PLANNED]
        answer = scheduler_of(target, project).settle(token, submission.root, open_ones)
        states = dict.fromkeys(answer.accepted, (State.QUEUED, ""))
        states |= {run_dir: (State.FAILED, because(NOT_SUBMITTED, why=why)) for run_dir, why in answer.refused.items()}
        is_accepted = answer.accepted or len(open_ones) < len(known)
        store.answer(token, ACCEPTED if is_accepted else REFUSED, states=states)
    found = [store.run(project, run.study, run.name) for run in runs]
    return [run for run in found if run is not None]


def _poll(
    project: Path, targets: Mapping[str, Target], settled: Wanted, hosts: Collection[str], *, anew: bool
) -> tuple[dict[str, PollAnswer], Failed]:
    """Ask targets side by side where runs stand; return their answers, and those that couldn't be asked."""
    answers: dict[str, PollAnswer] = {}

    def ask(name: str) -> None:
        known = [run for run in settled[name] if not run.is_nowhere]
        asked = {run.run_dir: run.token for run in known if run.state is not State.PLANNED}
        ended = [run.run_dir for run in known if run.state.is_final]
        if asked or name in hosts:
            scheduler = scheduler_of(targets[name], project)
            answers[name] = scheduler.poll(asked, ended=ended, host=name in hosts, anew=anew)

    return answers, side_by_side(ask, settled)


def scheduler_of(target: Target, project: Path) -> Scheduler:
    """Return the scheduler of a target, over this process's connection."""
    from ..connections import connect
    from ..schedulers import scheduler

    return scheduler(connect(target, project))


def _is_under_way(submission: OpenSubmission) -> bool:
    """True while another process that makes a submission may still be at it."""
    from ..agent.processes import Identity  # here: few looks find a submission without an answer

    maker = Identity.from_json(json.loads(submission.maker))
    if maker is None or maker.pid == os.getpid():
        return False
    if maker.host != os.uname().nodename:  # the index lies on a shared home; whether it lives can't be seen from here
        return time.time() - submission.made_at < ELSEWHERE_S
    return maker.is_alive()


def _remember(store: Store, runs: list[StoredRun], answer: PollAnswer) -> list[StoredRun]:
    """Store what a target answered about its runs; return them as they stand then."""
    changed, same, now = [], [], time.time()  # by this machine's clock, which also tells an answer's age
    answers, found = answer["runs"], list(runs)
    ahead_s = round((finite(answer.get("time")) or now) - now, -1)
    for number, run in enumerate(runs):
        if run.state is State.PLANNED or run.run_dir not in answers:  # nobody was asked about it
            continue
        told: dict[str, Any] = {key: value for key, value in answers[run.run_dir].items() if value is not None}
        state, reason = STATES[told.pop("state")], str(told.pop("reason", ""))
        if ahead_s:  # what it says of times is by its own clock
            told["clock_ahead_s"] = ahead_s
        is_as_before = state is run.state and is_as_stored(run, reason, told)
        beside = {key: told.pop(key) for key in BESIDE if key in told}
        if "code" in beside:
            reason = Reason.of(reason, functools.partial(dict, beside))
        stands = run.seen(state, reason, cast("RunProgress", told), now)
        if not is_as_before:
            if told.get("absent") and NOT_SUBMITTED in codes(run.reason):
                continue  # it never got there, which is known better here
            if state is State.UNKNOWN and run.state.is_final:
                continue  # what was known of its end is not forgotten because nobody can be asked again
            changed.append(stands)
        elif now - (run.observed_at or 0.0) > UNCHANGED_S:
            same.append(stands)
        found[number] = stands
    if changed or same:
        store.observe(changed, unchanged=same)
    return found

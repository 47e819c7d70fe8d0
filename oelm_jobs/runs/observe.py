"""Owns asking targets where runs stand, and remembering what they answered; leaves changing anything to workflow.

A poll that fails changes no state. A submission whose client died before it had an answer is settled here: the target
says for good whether it was accepted; nothing is ever concluded from silence.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..agent import processes
from ..agent.rundir import finite
from ..agent.states import State
from ..connections import connect
from ..errors import Nonsense, TargetError
from ..schedulers import scheduler
from ..store import ACCEPTED, REFUSED, Store, StoredRun

if TYPE_CHECKING:
    from ..spec.target import Target


RECENT = 50
"""So many of the runs that failed or were cancelled last are asked about again: a script may have been started by
hand."""
UNCHANGED_S = 10.0
"""The age of an answer that says nothing new is stored where the last one is older: it is shown when the target is
silent.
"""
ELSEWHERE_S = 300.0
"""So long a submission that is made on another host is left alone after its last sign of life."""
NOT_SUBMITTED = "not submitted"
"""What the reason of a run begins with that never reached its target."""


@dataclass(frozen=True, kw_only=True)
class View:
    """Runs as they stand, and how good that knowledge is."""

    runs: tuple[StoredRun, ...]
    unreachable: Mapping[str, str]
    """Target to the reason why it couldn't be asked; its runs keep their last state."""
    nonsense: tuple[str, ...] = ()
    """Of those reasons the ones that say that it answered, but nothing that can be believed."""
    at: float
    """When this was put together, Unix seconds."""
    hosts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Target to its devices, queue and free disk (agent/probe.py), where they were asked for."""


def refresh(
    store: Store,
    project: Path,
    runs: Iterable[StoredRun],
    *,
    also_final: bool = False,
    also_stopped: bool = False,
    hosts: Collection[str] = (),
) -> View:
    """Ask the targets about runs that may have moved, once each and side by side, and store what they answer.

    A target that can't be asked changes no state. What failed or was cancelled may be started again by hand: it is
    asked about where that costs no connection of its own.

    Args:
        also_final: Whether all are asked about, wherever they are.
        also_stopped: Whether what failed or was cancelled is.
        hosts: Names of targets that are asked about their devices, queue and disk in the same round trip.
    """
    from ..targets.files import load_targets

    runs = list(runs)
    unreachable: dict[str, str] = {}
    nonsense: list[str] = []
    moving: dict[str, list[StoredRun]] = {}
    for run in runs:
        if also_final or not run.state.is_final:
            moving.setdefault(run.target, []).append(run)
        elif run.target in hosts:
            moving.setdefault(run.target, [])
    stopped = [
        run
        for run in runs
        if run.state in (State.FAILED, State.CANCELLED) and not also_final and not run.reason.startswith(NOT_SUBMITTED)
    ]
    targets = load_targets(project) if moving or stopped else {}
    for run in stopped if also_stopped else stopped[-RECENT:]:
        is_here = run.target in targets and not targets[run.target].host
        if also_stopped or is_here or run.target in moving:
            moving.setdefault(run.target, []).append(run)

    def fail(name: str, error: TargetError) -> None:
        unreachable[name] = str(error)
        if isinstance(error, Nonsense):
            nonsense.append(str(error))

    settled: dict[str, list[StoredRun]] = {}
    for name, theirs in moving.items():
        try:
            if name not in targets:
                raise TargetError(
                    f"target {name!r} is in no targets file any more; if it was renamed, oelm-status --rebuild finds"
                    " its runs"
                )
            settled[name] = _settle(store, project, targets[name], theirs)
        except TargetError as error:
            fail(name, error)
    observed: dict[tuple[str, str], StoredRun] = {}
    answers: dict[str, Mapping[str, Any]] = {}

    def ask(name: str) -> None:
        asked = {run.run_dir: run.token for run in settled[name] if run.state is not State.PLANNED}
        ended = [run.run_dir for run in settled[name] if run.state.is_final]
        try:
            if asked or name in hosts:
                answers[name] = scheduler(connect(targets[name], project)).poll(asked, ended=ended, host=name in hosts)
        except TargetError as error:
            fail(name, error)

    side_by_side(ask, list(settled))
    for name, theirs in settled.items():
        if name not in unreachable:
            answer = answers.get(name)
            for known in _remember(store, theirs, answer) if answer else theirs:
                observed[known.study, known.name] = known
    return View(
        runs=tuple(observed.get((run.study, run.name), run) for run in runs),
        unreachable=unreachable,
        nonsense=tuple(nonsense),
        at=time.time(),
        hosts={name: answer for name, answer in answers.items() if name in hosts},
    )


def side_by_side(ask: Callable[[str], None], names: Sequence[str]) -> None:
    """Ask several targets at once: one that does not answer must not keep the others waiting."""
    if len(names) < 2:
        for name in names:
            ask(name)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(16, len(names))) as pool:
        list(pool.map(ask, names))


def _settle(store: Store, project: Path, target: Target, runs: list[StoredRun]) -> list[StoredRun]:
    """Find out about submissions without an answer whose client is gone; return the runs as they stand then."""
    if all(run.state is not State.PLANNED for run in runs):
        return runs
    planned = {run.token for run in runs if run.state is State.PLANNED}
    for row in store.open_submissions(project):
        maker = processes.Identity.from_json(json.loads(row["maker"]))
        if row["token"] not in planned or _is_under_way(maker, row["made_at"]):
            continue
        known = store.runs_of(row["token"])  # also those that nobody asks about now: it is settled once, for all
        open_ones = [run_dir for run_dir, state in known.items() if state is State.PLANNED]
        answer = scheduler(connect(target, project)).settle(row["token"], row["root"], open_ones)
        states = dict.fromkeys(answer.accepted, (State.QUEUED, ""))
        states |= {run_dir: (State.FAILED, f"{NOT_SUBMITTED}: {words}") for run_dir, words in answer.refused.items()}
        is_accepted = answer.accepted or len(open_ones) < len(known)
        store.answer(row["token"], ACCEPTED if is_accepted else REFUSED, states=states)
    found = [store.run(project, run.study, run.name) for run in runs]
    return [run for run in found if run is not None]


def _is_under_way(maker: processes.Identity | None, touched_at: float) -> bool:
    """True while the process that makes a submission may still be at it."""
    if maker is None or maker.pid == os.getpid():
        return False
    if maker.host != os.uname().nodename:  # the index lies on a shared home; whether it lives can't be seen from here
        return time.time() - touched_at < ELSEWHERE_S
    return maker.is_alive()


def _remember(store: Store, runs: list[StoredRun], answer: Mapping[str, Any]) -> list[StoredRun]:
    """Store what a target answered about its runs; return them as they stand then."""
    changed, same, seen, now = [], [], {}, time.time()  # by the clock here, by which its age is told
    ahead_s = round((finite(answer.get("time")) or now) - now, -1)
    for run in runs:
        if run.state is State.PLANNED:
            continue
        row = dict(answer["runs"][run.run_dir])
        state, reason = State(row.pop("state")), str(row.pop("reason") or "")
        if row.get("absent") and run.reason.startswith(NOT_SUBMITTED):
            continue  # it never got there, which is known better here
        if state is State.UNKNOWN and run.state.is_final:
            continue  # what was known of its end is not forgotten because nobody can be asked again
        progress = {key: value for key, value in row.items() if value is not None}
        if ahead_s:  # what it says of times is by its own clock
            progress["clock_ahead_s"] = ahead_s
        if (run.state, run.reason, run.progress) != (state, reason, progress):
            changed.append((run, state, reason, progress))
        elif now - (run.observed_at or 0.0) > UNCHANGED_S:
            same.append(run)
        seen[run.study, run.name] = run._replace(state=state, reason=reason, progress=progress, observed_at=now)
    if changed or same:
        store.observe(changed, now, unchanged=same)
    return [seen.get((run.study, run.name), run) for run in runs]

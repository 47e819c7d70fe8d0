"""Owns what a command makes happen: submit · cancel · logs; leaves looking to observe, bringing results home
to fetch, printing to the command line.

A submission's intent and token are in the store before anything is sent. Where the answer stays unknown (the client
was killed, no reply came) observe settles the token with the target; nothing is ever sent again on a guess.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..agent import processes, rundir, snapshots
from ..checks import preflight, site
from ..code import snapshot
from ..connections import connect
from ..errors import CodeGone, ConfigurationError, UnknownAnswer
from ..plan import Plan
from ..runs import moving
from ..runs.locations import never_was, where_they_lie
from ..runs.observe import NOT_SUBMITTED, refresh
from ..schedulers import Answer, LaunchScript, Scheduler, scheduler, silent
from ..scripts.jobs import check_scripts, render
from ..spec import Run, State
from ..store import ACCEPTED, REFUSED, UNKNOWN, Store, StoredRun
from ..study.resolve import fingerprint
from ..targets.sbatch import MAX_ARRAY
from ..transfer.clean import has_no_checkpoint
from ..transfer.fetch import home_of
from . import sent

AGAIN, RERUN, EXTEND = "again", "rerun", "extend"
"""What a submission may do with a run that is over: go on or leave it alone, archive it and start over, train it
further.
"""
CODE_TRIES = 3
"""So often the code is sent for one submission."""


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """What a submission did with one run."""

    run: Run
    state: State
    """Where the run stands now."""
    note: str
    """Why it was left alone; empty where it was submitted."""


@dataclass
class _Choice:
    """What is decided about stored runs while the store is locked, by run name."""

    how: str
    plan: Plan
    """What is submitted."""
    left: dict[str, str] = field(default_factory=dict)
    """Why a run is left alone."""
    gone: dict[str, State] = field(default_factory=dict)
    """What a run was of which nothing exists any more."""
    archived: list[str] = field(default_factory=list)
    """Run directories to move away first."""
    extended: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What a run is the continuation of."""
    in_place: frozenset[str] = frozenset()
    """Runs of other targets that lie where they would on this one."""
    moved: dict[str, StoredRun] = field(default_factory=dict)
    """What a run was on another target, of which nothing comes along."""
    behind: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    """What a run leaves on other targets."""

    def __call__(self, known: StoredRun, run: Run) -> bool:
        """Say whether a stored run may be submitted.

        Raises:
            ConfigurationError: Its directory holds another configuration.
        """
        reason = self._why_not(known, run)
        if reason:
            self.left[run.name] = reason
        else:
            self.behind[run.name] = moving.left(known, run, moves=run.name in self.moved)
        return not reason

    def _why_not(self, known: StoredRun, run: Run) -> str:
        if (known.group, known.seed, known.tag) != (run.group, run.seed, run.tag):
            raise ConfigurationError(
                f"{run.name} would name two runs: group {run.group}, seed {run.seed}, tag {run.tag!r};"
                f" and, submitted before, group {known.group}, seed {known.seed}, tag {known.tag!r}",
                hint="give these runs another name: --tag NAME",
            )
        if known.state is State.PLANNED:
            return "is being submitted by another command"
        if never_was(known):
            return ""
        if not known.state.is_final:
            where = f" on target {known.target}" if known.target != run.target else ""
            if known.state is State.UNKNOWN and known.reason:
                return f"is {known.state}{where}: {known.reason}"
            return f"is {known.state}{where}" + ("; oelm-cancel ends it" if self.how != AGAIN else "")
        if known.target == run.target and _is_gone(self.plan, known):
            self.gone[run.name] = known.state
            return ""
        moves = known.target != run.target and run.name not in self.in_place
        if known.target != run.target and known.state is State.DONE and self.how != RERUN:
            return f"is done on target {known.target}"
        changes = _changes(known, run) if self.how != RERUN else {}
        if moves:
            if changes or (self.how != RERUN and known.fingerprint and known.fingerprint != run.fingerprint):
                raise _another_configuration(known, run, changes)
            self.moved[run.name] = known
        if moves or self.how == RERUN:
            self.archived.append(run.run_dir)  # there may be something from before it was elsewhere
            return ""
        if changes or (known.fingerprint and known.fingerprint != run.fingerprint):
            if (
                self.how == EXTEND
                and set(changes) == {"max_steps"}
                and run.train["max_steps"] > known.spec["train"]["max_steps"]
                and self._is_same_data(known, run)
            ):
                if has_no_checkpoint(self.plan.project, known):
                    raise ConfigurationError(
                        f"{run.name} has no checkpoint on {known.target} to go on from: oelm-clean freed them",
                        hint="archive it there and start over: --rerun",
                    )
                self.extended[run.name] = {
                    "max_steps": known.spec["train"]["max_steps"],
                    "fingerprint": known.fingerprint,
                    "before": known.spec.get("extended_from"),
                }
                return ""
            is_longer = run.train["max_steps"] > known.spec["train"]["max_steps"]
            raise _another_configuration(known, run, changes, may_extend=is_longer)
        if known.spec.get("extended_from"):  # an extension that was cancelled goes on as one
            self.extended[run.name] = known.spec["extended_from"]
        return "is done" if known.state is State.DONE else ""

    def _is_same_data(self, known: StoredRun, run: Run) -> bool:
        """Say whether a stored run of fewer steps trained on the data that is there now.

        Raises:
            ConfigurationError: It didn't.
        """
        train = {**run.train, "max_steps": known.spec["train"]["max_steps"]}
        if known.fingerprint and fingerprint(train, run.global_batch, self.plan.data_hash) != known.fingerprint:
            raise _another_configuration(known, run, {})
        return True


def _is_gone(plan: Plan, known: StoredRun) -> bool:
    """Tell whether a run's directory in the project was removed (the project was cloned anew, say) and no copy of it
    fetched; one elsewhere may be on a disk that is away.
    """
    run_dir = Path(known.run_dir)
    if plan.target.host or not run_dir.is_relative_to(plan.project) or os.path.lexists(run_dir):
        return False
    if any(folder.is_symlink() and not folder.exists() for folder in run_dir.parents):
        return False
    return not os.path.lexists(home_of(plan.project, known))


def _changes(known: StoredRun, run: Run) -> dict[str, str]:
    """Return what differs scientifically between a stored run and a planned one, key to words."""
    before = {**known.spec.get("train", {}), "global_batch": known.spec.get("global_batch")}
    after = {**run.train, "global_batch": run.global_batch}
    own = ("batch_size", "out_dir", "data_path", "val_data_path")
    keys = sorted(key for key in after if key in before and key not in own and before[key] != after[key])
    return {key: f"{key} was {before[key]}, is {after[key]}" for key in keys}


def _another_configuration(
    known: StoredRun, run: Run, changes: dict[str, str], *, may_extend: bool = False
) -> ConfigurationError:
    hint = "give these runs a name of their own: --tag NAME; or archive the old one and start over: --rerun"
    if may_extend and set(changes) == {"max_steps"}:
        hint = "to train the finished run further: --extend; " + hint
    return ConfigurationError(
        f"{known.run_dir} holds run {run.name} of another configuration: {'; '.join(changes.values()) or 'other data'}",
        hint=hint,
    )


def submit(plan: Plan, store: Store, how: str = AGAIN, say: Callable[[str], None] = silent) -> list[Submitted]:
    """Submit a plan's runs, each at most once; return what became of each.

    Runs that are under way or done are left alone; cancelled, failed and lost ones go on from their last checkpoint.

    Args:
        how: AGAIN, RERUN (a run that is over is archived and starts over) or EXTEND (a finished run goes on to more
            steps).
        say: Is told what is waited for.

    Raises:
        PreflightError: The target can't run it; nothing was queued.
        ConfigurationError: A run directory holds another configuration.
        UnknownAnswer: The launch may or may not have arrived; ``oelm-status`` finds out.
    """
    connection = connect(plan.target, plan.project)
    host = scheduler(connection)
    known = store.runs(plan.project)
    plan = where_they_lie(plan, known, say)
    known = [run for run in known if run.study == plan.study.name]
    view = refresh(store, plan.project, known, also_final=True, hosts=[plan.target.name])
    in_place = moving.in_place(plan, (run for run in view.runs if run.state.is_final))
    wanted = _wanted(plan, view.runs, how, in_place)
    there = (view.hosts.get(plan.target.name) or host.poll({}, host=True)) if wanted else {}
    token = f"oelm-{secrets.token_hex(8)}"
    code = snapshot.take(plan.project)
    if code.passed_over:
        say(code.passed_over)
    if wanted and plan.target.slurm is not None and (words := preflight.out_of_reach(plan)):
        say(words)
    max_array = site.array_limit(plan.target, there["site"]) if "site" in there else MAX_ARRAY
    if wanted:
        preflight.check_target(plan, wanted, there)
        check_scripts(plan, wanted, token, code, connection, max_array=max_array)
    choice = _Choice(how, plan, in_place=in_place)
    by_name = {run.name: run for run in plan.runs}
    taken = store.intend(
        plan.project,
        plan.target.name,
        plan.root,
        token,
        json.dumps(processes.identify(os.getpid()).to_json()),
        plan.runs,
        lambda known: choice(known, by_name[known.name]),
        choice.extended,
        choice.behind,
    )
    for run in taken:
        if run.name in choice.moved:
            before = choice.moved[run.name]
            say(
                f"{run.name} was {before.state} on target {before.target} and starts over on {run.target};"
                f" what it left there is in {before.run_dir}"
            )
        if run.name in choice.gone:
            say(f"{run.name} was {choice.gone[run.name]}, and its files are gone: it starts over")
    if taken:
        for words in sent.words(code, plan.target):
            say(words)
        _send(plan, store, host, taken, token, code, choice, say=say, max_array=max_array)
    stored = store.states(plan.project, plan.study.name)
    return [
        Submitted(run=run, state=stored.get(run.name, State.UNKNOWN), note=choice.left.get(run.name, ""))
        for run in plan.runs
    ]


def _wanted(plan: Plan, stored: Sequence[StoredRun], how: str, in_place: frozenset[str]) -> list[Run]:
    """Return the runs that a submission would start as things stand."""
    choice = _Choice(how, plan, in_place=in_place)
    known = {run.name: run for run in stored}
    return [run for run in plan.runs if run.name not in known or choice(known[run.name], run)]


def _send(
    plan: Plan,
    store: Store,
    host: Scheduler,
    runs: Sequence[Run],
    token: str,
    code: snapshot.Snapshot,
    choice: _Choice,
    *,
    say: Callable[[str], None],
    max_array: int,
) -> None:
    """Put code and runs on the target and remember its answer."""
    connection = connect(plan.target, plan.project)
    folder = f"{plan.root}/{rundir.CONTROL}/{snapshots.FOLDER}"
    try:
        connection.keep_tree(snapshot.agent(), f"{plan.root}/{rundir.CONTROL}/agent")
        connection.keep_tree(code, folder)
        jobs = render(
            plan, runs, token, code, connection, extended=choice.extended, left=choice.behind, max_array=max_array
        )
        for run in runs:
            aside = moving.set_copy_aside(plan.project, choice.moved[run.name]) if run.name in choice.moved else None
            if aside:
                say(f"{run.name}: what was fetched of it before is in {aside}")
        if choice.archived:  # last: what can fail before has not moved anything yet
            host.archive([run.run_dir for run in runs if run.run_dir in choice.archived])
        answer = _submit(host, jobs, token, say, store, again=lambda: connection.keep_tree(code, folder))
    except UnknownAnswer as error:
        store.answer(token, UNKNOWN)
        error.hint = error.hint or "whether it arrived is found out by: oelm-status"
        raise
    except BaseException as error:
        # Nothing was accepted: the runs are again what they were, so that the next submission may try.
        if isinstance(error, Exception):
            refused = (State.FAILED, f"{NOT_SUBMITTED}: {error}")
            store.answer(token, REFUSED, states={run.run_dir: refused for run in runs})
        raise
    states = dict.fromkeys((*answer.accepted, *answer.busy), (State.QUEUED, ""))
    states |= {run_dir: (State.FAILED, f"{NOT_SUBMITTED}: {words}") for run_dir, words in answer.refused.items()}
    store.answer(token, ACCEPTED, states=states, handle=answer.handle)
    for run in runs:
        if run.run_dir in answer.busy:
            choice.left[run.name] = "a live execution has its claim already"
        if run.run_dir in answer.refused:
            choice.left[run.name] = f"was not accepted: {answer.refused[run.run_dir]}"


def _submit(
    host: Scheduler,
    jobs: Sequence[LaunchScript],
    token: str,
    say: Callable[[str], None],
    store: Store,
    again: Callable[[], object],
) -> Answer:
    """Submit jobs; where the code was removed there since it was sent, have it sent once more."""
    tries = 0
    while True:
        try:
            return host.submit(jobs, token, say, lambda run_dirs: store.accept(token, run_dirs))
        except CodeGone:
            tries += 1
            if tries == CODE_TRIES:
                raise
            again()

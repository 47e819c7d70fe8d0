"""Submitting a plan's runs, each at most once: resolve, check, decide, render, send, remember.

A submission's intent and token are in the store before anything is sent. Where the answer stays unknown (the client
was killed, no reply came) observe settles the token with the target; nothing is ever sent again on a guess.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .. import ledger
from ..agent import processes, rundir, snapshots, trees
from ..agent.reasons import because
from ..agent.sentences import _
from ..agent.states import State
from ..checks import preflight, site
from ..code import kept, listings, snapshot
from ..code.snapshot import Tree
from ..connections import AGENT_FOLDER, Connection
from ..errors import CodeGone, LocalError, UnknownAnswer
from ..programs import built_in, description
from ..runs import moving
from ..runs.locations import where_they_lie
from ..runs.observe import NOT_SUBMITTED, SENDING, Scope, refresh
from ..schedulers import Scheduler, silent
from ..schedulers import scheduler as scheduler_of
from ..scripts.jobs import Scripts
from ..spec.study import Run
from ..store import ACCEPTED, REFUSED, UNKNOWN, Store
from ..stored_run import StoredRun
from ..study import notifying
from ..study.plan import Plan
from ..targets.sbatch import MAX_ARRAY
from . import sent, started_over
from .decide import Again, Facts, Leave, Take, decide, has_other_code
from .told import Told, declare

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


def submit(
    plan: Plan,
    connection: Connection,
    store: Store,
    again: Again = Again.RESUME,
    say: Callable[[str], None] = silent,
    why: str = "",
) -> list[Submitted]:
    """Submit a plan's runs, each at most once; return what became of each.

    Runs that are under way or done are left alone; cancelled, failed and lost ones go on from their last checkpoint.

    Args:
        connection: To the plan's target.
        again: What happens to runs that are over.
        say: Is told what is waited for.
        why: Why runs start over, for the ledger.

    Raises:
        PreflightError: The target can't run it; nothing was queued.
        ConfigurationError: A run directory holds another configuration, or the study isn't as it was locked.
        UnknownAnswer: The launch may or may not have arrived; ``oelm-status`` finds out.
    """
    notify = notifying.of_study(plan.study)  # what is off there is said before anything is done
    lock = lock_of(plan, connection)
    code = snapshot.take(plan.project, is_script=plan.study.program is not None)
    if plan.study.program is not None:
        listings.remember(code.train_code, code.counting)
        plan = replace(plan, runs=tuple(replace(run, code=code.train_code) for run in plan.runs))
    scheduler = scheduler_of(connection)
    stored = store.runs(plan.project)
    plan = where_they_lie(plan, stored, say)
    study, target = plan.study.name, plan.target.name
    stored = [run for run in stored if run.study == study]
    view = refresh(store, plan.project, stored, scope=Scope.ALL, hosts=[target], anew=True)
    in_place = moving.in_place(plan, connection, (run for run in view.runs if run.state.is_final))
    planned = {run.name: run for run in plan.runs}

    def decision_on(known: StoredRun) -> Take | Leave:
        return decide(Facts(plan, known, planned[known.name], in_place), again)

    token = f"oelm-{secrets.token_hex(8)}"
    seen = {run.name: run for run in view.runs}
    at_sight = {run.name: decision_on(seen[run.name]) for run in plan.runs if run.name in seen}
    wanted = [run for run in plan.runs if not isinstance(at_sight.get(run.name), Leave)]
    answer = (view.hosts.get(target) or scheduler.poll({}, host=True)) if wanted else None
    if code.passed_over:
        say(code.passed_over)
    max_array = site.array_limit(plan.target, answer["site"]) if answer and "site" in answer else MAX_ARRAY
    if wanted and any(run.parents for run in wanted):
        from . import lineage  # here: it can bring files, and few runs need others

        plan = lineage.placed(plan, connection, store, seen, {run.name for run in wanted}, token, say)
        planned.update({run.name: run for run in plan.runs})
        wanted = [planned[run.name] for run in wanted]
    scripts = Scripts(plan=plan, connection=connection, snapshot=code, token=token, max_array=max_array, lock=lock)
    if answer is not None:
        if plan.target.slurm is not None and (message := preflight.out_of_reach(plan, connection)):
            say(message)
        preflight.check_target(plan, wanted, answer)
        scripts.check(wanted)
    # What is left alone stays so, whatever it has come to since, where it needs others (nobody has looked where these
    # are) and where others need it: they ask how the execution ended that was seen.
    needed = {each.run for run in wanted for each in run.parents if each.study == plan.study.name}
    decisions: dict[str, Take | Leave] = {
        run.name: known
        for run in plan.runs
        if (run.parents or run.name in needed) and isinstance(known := at_sight.get(run.name), Leave)
    }
    bound = [run for run in plan.runs if run.name not in decisions]
    before: dict[str, StoredRun] = {}

    def binding(known: StoredRun) -> Run | None:
        before[known.name] = known
        decision = decisions[known.name] = decision_on(known)
        return decision.run if isinstance(decision, Take) else None

    SENDING.add(token)  # another thread that sees the intent must not take it for one that was given up
    try:
        maker = json.dumps(processes.identify(os.getpid()).to_json())
        taken = store.intend(plan.project, target, plan.root, token, maker, bound, binding, plan.study_file)
        still_there = _forgotten_there(plan) if len(decisions) < len(plan.runs) else frozenset()
        takes = [
            each
            if isinstance(each := decisions.get(run.name), Take)
            else Take(run=run, archives=(run.name, run.run_dir) in still_there)
            for run in taken
        ]
        for take in takes:
            if message := _starts_over(take):
                say(message)
        for message in _other_code(takes, seen):
            say(message)
        notes = {name: each.reason for name, each in decisions.items() if isinstance(each, Leave)}
        told = {run.run_dir: run.token for run in view.runs if run.target == target and not run.state.is_final}
        told |= {take.run.run_dir: token for take in takes}
        if takes:
            for message in sent.words(code, plan.target):
                say(message)
            notes |= _send(
                scripts, scheduler, store, takes, say, lambda: declare(plan, connection, notify, told, say),
                lambda: started_over.record(plan.project, takes, before, why),
            )  # fmt: skip
        elif told:
            declare(plan, connection, notify, told, say)
    finally:
        SENDING.discard(token)
    states = store.states(plan.project, study)
    return [
        Submitted(run=run, state=states.get(run.name, State.UNKNOWN), note=notes.get(run.name, "")) for run in plan.runs
    ]


def lock_of(plan: Plan, connection: Connection) -> str:
    """Return the hash of the lock that a plan's runs are queued under; empty where nothing is locked.

    Args:
        connection: To the plan's target, which is asked about the data that the lock knows.

    Raises:
        UsageError: The lock file was edited.
        ConfigurationError: Study or data aren't as they were locked.
    """
    if not ledger.lock_path(plan.project, plan.study).exists():
        return ""
    from ..analysis.audit import locks  # here: few studies are locked
    from ..study.files import read_study

    # The file's, since the study of a plan may be one that a command has changed.
    study = read_study(plan.study.path) if plan.study.path.is_file() else plan.study
    data_hash = plan.data_hash
    if data_hash and study.is_tuning and built_in.TEST_DATA in description.of(plan.study).data(plan.study):
        # What confirms a choice is measured on a test file besides, of which the lock of the trials knows nothing.
        data_hash = preflight.data_hash(connection, plan.project, replace(plan.study, judge_on=""))
    return locks.in_force(plan.project, study, data_hash)


def _forgotten_there(plan: Plan) -> frozenset[tuple[str, str]]:
    """Return name and run directory of forgotten runs whose files stayed where they were: they are no new run's. What a
    fetch has not found there may be there again.
    """
    known = ledger.read(plan.project, plan.study.name)
    stays = [
        entry for entry in known if entry.files == ledger.STAYS or (entry.files == ledger.GONE and not entry.place)
    ]
    return frozenset((entry.run, entry.run_dir) for entry in stays if entry.target == plan.target.name)


def _other_code(takes: Sequence[Take], seen: Mapping[str, StoredRun]) -> Iterator[str]:
    """Yield what to say of runs that go on with other code than before."""
    going_on: dict[tuple[str, str], list[str]] = {}
    for take in takes:
        known = seen.get(take.run.name)
        is_new = known is None or take.archives or take.moved_from is not None or take.gone is not None
        if known is not None and not is_new and has_other_code(known, take.run):
            going_on.setdefault((known.code, take.run.code), []).append(take.run.name)
    for (before, now), names in going_on.items():
        changed = listings.changed(before, now)
        if changed is None:
            yield _("{runs}: other code than before", names)
        else:
            yield _("{runs}: other code than before; changed: {files}", names, changed)


def _starts_over(take: Take) -> str:
    """Return what to say of a run that starts over although nobody asked for that; empty where it doesn't."""
    if take.moved_from is not None:
        before = take.moved_from
        return _(
            "{run} was {state} on target {target} and starts over on {other}; what it left there is in {run_dir}",
            take.run.name,
            before.state,
            before.target,
            take.run.target,
            before.run_dir,
        )
    if take.gone is not None:
        return _("{run} was {state}, and its files are gone: it starts over", take.run.name, take.gone)
    return ""


def _keep(project: Path, code: Tree, say: Callable[[str], None]) -> None:
    """Keep the code at home, for a bundle; runs don't need it, so where that can't be done it is said."""
    try:
        kept.keep(project, code)
    except (OSError, trees.Busy, trees.Damaged) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        say(_("the code of these runs can't be kept in the project, so that a bundle lacks it: {why}", said))


def _send(
    made: Scripts,
    scheduler: Scheduler,
    store: Store,
    takes: Sequence[Take],
    say: Callable[[str], None],
    have_told: Callable[[], Told],
    record: Callable[[], list[ledger.Entry]],
) -> dict[str, str]:
    """Put code and runs on the target and remember its answer; return why runs were not accepted, by run name.

    Args:
        have_told: Lets the target know what is to be told of them.
        record: Writes into the ledger which of them start over.
    """
    plan, connection, code, token = made.plan, made.connection, made.snapshot, made.token
    runs = [take.run for take in takes]
    folder = f"{plan.root}/{rundir.CONTROL}/{snapshots.FOLDER}"
    try:
        connection.keep_tree(snapshot.agent(), f"{plan.root}/{AGENT_FOLDER}")
        _keep(plan.project, code, say)
        connection.keep_tree(code, folder)
        told = have_told()
        scripts = replace(made, notify=told.folder, mail=told.slurm_mail).render(runs)
        entries = record()  # what can fail before has not moved anything yet
        copies: dict[str, str] = {}
        for take in takes:
            aside = moving.set_copy_aside(plan.project, take.moved_from) if take.moved_from is not None else None
            if aside:
                copies[take.run.name] = str(aside)
                say(_("{run}: what was fetched of it before is in {folder}", take.run.name, str(aside)))
        archived = [take.run.run_dir for take in takes if take.archives]
        moved = scheduler.archive(archived) if archived else None
        try:
            started_over.complete(plan.project, entries, moved, copies)
        except LocalError as error:  # the lines are there, and what was moved names itself
            say(str(error))
        for tries_left in reversed(range(CODE_TRIES)):
            try:
                answer = scheduler.submit(scripts, token, say, lambda run_dirs: store.accept(token, run_dirs))
                break
            except CodeGone:  # it was removed there since it was sent
                if not tries_left:
                    raise
                connection.keep_tree(code, folder)
    except UnknownAnswer as error:
        store.answer(token, UNKNOWN)
        error.hint = error.hint or _("whether it arrived is found out by: oelm-status")
        raise
    except BaseException as error:
        # Nothing was accepted: the runs are again what they were, so that the next submission may try.
        if isinstance(error, Exception):
            refused = (State.FAILED, because(NOT_SUBMITTED, why=str(error)))
            store.answer(token, REFUSED, states={run.run_dir: refused for run in runs})
        raise
    states = dict.fromkeys((*answer.accepted, *answer.busy), (State.QUEUED, ""))
    states |= {run_dir: (State.FAILED, because(NOT_SUBMITTED, why=why)) for run_dir, why in answer.refused.items()}
    store.answer(token, ACCEPTED, states=states)
    notes = dict.fromkeys(answer.busy, _("a live execution has its claim already"))
    notes |= {run_dir: _("was not accepted: {why}", reason) for run_dir, reason in answer.refused.items()}
    return {run.name: notes[run.run_dir] for run in runs if run.run_dir in notes}

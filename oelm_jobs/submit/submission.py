"""Submitting a plan's runs, each at most once: resolve, check, decide, render, send, remember.

A submission's intent and token are in the store before anything is sent. Where the answer stays unknown (the client
was killed, no reply came) observe settles the token with the target; nothing is ever sent again on a guess.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..agent import processes, rundir, snapshots
from ..agent.reasons import because
from ..agent.sentences import _
from ..agent.states import State
from ..checks import preflight, site
from ..code import snapshot
from ..connections import AGENT_FOLDER, Connection
from ..errors import CodeGone, UnknownAnswer
from ..runs import moving
from ..runs.locations import where_they_lie
from ..runs.observe import NOT_SUBMITTED, SENDING, Scope, refresh
from ..schedulers import Answer, LaunchScript, Scheduler, silent
from ..schedulers import scheduler as scheduler_of
from ..scripts.jobs import check_scripts, render
from ..spec.study import Run
from ..store import ACCEPTED, REFUSED, UNKNOWN, Store
from ..stored_run import StoredRun
from ..study.plan import Plan
from ..targets.sbatch import MAX_ARRAY
from . import sent
from .decide import Again, Facts, Leave, Take, decide

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
    plan: Plan, connection: Connection, store: Store, again: Again = Again.RESUME, say: Callable[[str], None] = silent
) -> list[Submitted]:
    """Submit a plan's runs, each at most once; return what became of each.

    Runs that are under way or done are left alone; cancelled, failed and lost ones go on from their last checkpoint.

    Args:
        connection: To the plan's target.
        again: What happens to runs that are over.
        say: Is told what is waited for.

    Raises:
        PreflightError: The target can't run it; nothing was queued.
        ConfigurationError: A run directory holds another configuration.
        UnknownAnswer: The launch may or may not have arrived; ``oelm-status`` finds out.
    """
    scheduler = scheduler_of(connection)
    stored = store.runs(plan.project)
    plan = where_they_lie(plan, stored, say)
    study, target = plan.study.name, plan.target.name
    stored = [run for run in stored if run.study == study]
    view = refresh(store, plan.project, stored, scope=Scope.ALL, hosts=[target])
    in_place = moving.in_place(plan, connection, (run for run in view.runs if run.state.is_final))
    planned = {run.name: run for run in plan.runs}

    def decision_on(known: StoredRun) -> Take | Leave:
        return decide(Facts(plan, known, planned[known.name], in_place), again)

    seen = {run.name: run for run in view.runs}
    wanted = [run for run in plan.runs if run.name not in seen or isinstance(decision_on(seen[run.name]), Take)]
    answer = (view.hosts.get(target) or scheduler.poll({}, host=True)) if wanted else None
    token = f"oelm-{secrets.token_hex(8)}"
    code = snapshot.take(plan.project)
    if code.passed_over:
        say(code.passed_over)
    max_array = site.array_limit(plan.target, answer["site"]) if answer and "site" in answer else MAX_ARRAY
    if answer is not None:
        if plan.target.slurm is not None and (message := preflight.out_of_reach(plan, connection)):
            say(message)
        preflight.check_target(plan, wanted, answer)
        check_scripts(plan, wanted, token, code, connection, max_array=max_array)
    decisions: dict[str, Take | Leave] = {}

    def binding(known: StoredRun) -> Run | None:
        decision = decisions[known.name] = decision_on(known)
        return decision.run if isinstance(decision, Take) else None

    SENDING.add(token)  # another thread that sees the intent must not take it for one that was given up
    try:
        taken = store.intend(
            plan.project,
            target,
            plan.root,
            token,
            json.dumps(processes.identify(os.getpid()).to_json()),
            plan.runs,
            binding,
        )
        takes = [each if isinstance(each := decisions.get(run.name), Take) else Take(run=run) for run in taken]
        for take in takes:
            if message := _starts_over(take):
                say(message)
        notes = {name: each.reason for name, each in decisions.items() if isinstance(each, Leave)}
        if takes:
            for message in sent.words(code, plan.target):
                say(message)
            notes |= _send(plan, connection, scheduler, store, takes, token, code, say=say, max_array=max_array)
    finally:
        SENDING.discard(token)
    states = store.states(plan.project, study)
    return [
        Submitted(run=run, state=states.get(run.name, State.UNKNOWN), note=notes.get(run.name, "")) for run in plan.runs
    ]


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


def _send(
    plan: Plan,
    connection: Connection,
    scheduler: Scheduler,
    store: Store,
    takes: Sequence[Take],
    token: str,
    code: snapshot.Snapshot,
    *,
    say: Callable[[str], None],
    max_array: int,
) -> dict[str, str]:
    """Put code and runs on the target and remember its answer; return why runs were not accepted, by run name."""
    runs = [take.run for take in takes]
    folder = f"{plan.root}/{rundir.CONTROL}/{snapshots.FOLDER}"
    try:
        connection.keep_tree(snapshot.agent(), f"{plan.root}/{AGENT_FOLDER}")
        connection.keep_tree(code, folder)
        scripts = render(plan, runs, token, code, connection, max_array=max_array)
        for take in takes:
            aside = moving.set_copy_aside(plan.project, take.moved_from) if take.moved_from is not None else None
            if aside:
                say(_("{run}: what was fetched of it before is in {folder}", take.run.name, str(aside)))
        archived = [take.run.run_dir for take in takes if take.archives]
        if archived:  # last: what can fail before has not moved anything yet
            scheduler.archive(archived)
        answer = _submit(scheduler, scripts, token, say, store, again=lambda: connection.keep_tree(code, folder))
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
    store.answer(token, ACCEPTED, states=states, handle=answer.handle)
    notes = dict.fromkeys(answer.busy, _("a live execution has its claim already"))
    notes |= {run_dir: _("was not accepted: {why}", reason) for run_dir, reason in answer.refused.items()}
    return {run.name: notes[run.run_dir] for run in runs if run.run_dir in notes}


def _submit(
    scheduler: Scheduler,
    scripts: Sequence[LaunchScript],
    token: str,
    say: Callable[[str], None],
    store: Store,
    again: Callable[[], object],
) -> Answer:
    """Submit scripts; where the code was removed there since it was sent, send that again first."""
    tries = 0
    while True:
        try:
            return scheduler.submit(scripts, token, say, lambda run_dirs: store.accept(token, run_dirs))
        except CodeGone:
            tries += 1
            if tries == CODE_TRIES:
                raise
            again()

"""Owns what a command makes happen: submit · poll · cancel · logs, the only orchestration; leaves printing to the
command line.

A submission's intent and token are in the store before anything is sent. Where the answer stays unknown (the client
was killed, no reply came) the target is asked until it has said for good whether the token was accepted; nothing is
ever sent again on a guess.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .agent import rundir
from .connections import Connection, connect
from .errors import ConfigurationError, PreflightError, TargetError, UnknownAnswer
from .schedulers import Job, scheduler
from .spec import State
from .store import ACCEPTED, REFUSED, UNKNOWN, Store, StoredRun

if TYPE_CHECKING:
    from .fairness import Difference
    from .snapshot import Snapshot
    from .spec import Run, Study, Target

SEQUENTIAL, PARALLEL = "sequential", "parallel"
MODES = (SEQUENTIAL, PARALLEL)


# Planning -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a submission would do."""

    project: Path
    study: Study
    target: Target
    mode: str
    """``sequential``: each run waits for the one before it; ``parallel``: each starts as soon as it has its devices."""
    stop_on_failure: bool
    """Whether a failed run keeps the ones behind it in its lane from starting."""
    root: str
    """Absolute path on the target."""
    runs: tuple[Run, ...]
    """In the order of their lane."""
    differences: tuple[Difference, ...]
    """What differs between the groups besides the factors, all of it declared or harmless."""


def make_plan(
    project: Path,
    study: Study,
    target: Target,
    *,
    groups: Sequence[str] = (),
    seeds: Sequence[int] = (),
    tag: str = "",
    overrides: Mapping[str, str] | None = None,
    mode: str = SEQUENTIAL,
    stop_on_failure: bool = False,
    data_hash: str = "",
) -> Plan:
    """Resolve a study into runs and check that their comparison is fair. Needs no data, no GPU and no network.

    Raises:
        UsageError: A group or an override doesn't exist.
        UnfairError: The groups would differ in more than the study declares.
    """
    from . import fairness
    from .study import plan_runs, scientific

    root = connect(target, project).root
    runs = plan_runs(study, target, root, groups=groups, seeds=seeds, tag=tag, overrides=overrides, data_hash=data_hash)
    arms = [
        fairness.Arm(
            group=run.group,
            run=run.name,
            scientific=scientific(run.train, run.global_batch),
            execution={"world_size": run.world_size, "batch_size": run.train["batch_size"]},
        )
        for run in runs
    ]
    differences = fairness.check(arms, factors=study.factors, unequal=study.unequal)
    return Plan(
        project=project,
        study=study,
        target=target,
        mode=mode,
        stop_on_failure=stop_on_failure,
        root=root,
        runs=tuple(runs),
        differences=tuple(differences),
    )


def record(plan: Plan, run: Run, token: str, snapshot: Snapshot, after: str | None) -> dict[str, Any]:
    """Return a run's record, which goes to the target as ``run.json``."""
    return {
        "version": 1,
        "token": token,
        "study": run.study,
        "run": run.name,
        "group": run.group,
        "label": run.label,
        "seed": run.seed,
        "tag": run.tag,
        "target": run.target,
        "project": str(plan.project),
        "run_dir": run.run_dir,
        "fingerprint": run.fingerprint,
        "snapshot": snapshot.hash,
        "revision": snapshot.revision,
        "train_code": snapshot.train_code,
        "factors": dict(run.factors),
        "train": dict(run.train),
        "world_size": run.world_size,
        "global_batch": run.global_batch,
        "gpus": list(run.gpus) if isinstance(run.gpus, tuple) else run.gpus,
        "port": run.port,
        "after": after,
        "stop_on_failure": plan.stop_on_failure,
        "max_retries": run.max_retries,
    }


def render(
    plan: Plan, runs: Sequence[Run], token: str, snapshot: Snapshot, connection: Connection, *, live: bool = False
) -> dict[str, str]:
    """Return the launch scripts by run directory.

    Args:
        live: Let the scripts run the code in the project's folder as it is (what a dry run prints, which sends no
            snapshot).
    """
    from .render import script
    from .snapshot import agent
    from .study import command

    control = f"{plan.root}/{rundir.CONTROL}"
    supervisor = [connection.python, f"{control}/agent/{agent().hash}"]
    code, note = f"{control}/snapshots/{snapshot.hash}", ""
    if live:
        supervisor = [connection.python, "-m", "oelm_jobs.agent"]
        code, note = (
            str(plan.project),
            "Not submitted: this runs the code in its folder as it is; oelm-submit runs a snapshot of it.",
        )
    scripts = {}
    for position, run in enumerate(runs):
        after = runs[position - 1].run_dir if plan.mode == SEQUENTIAL and position else None
        scripts[run.run_dir] = script(
            plan.project,
            plan.target,
            run,
            record(plan, run, token, snapshot, after),
            command=command(run, connection.python),
            python=connection.python,
            supervisor=supervisor,
            code=code,
            note=note,
        )
    return scripts


def expected_seconds(store: Store, plan: Plan) -> dict[str, float]:
    """Return by run name how long its training should take, where an earlier run of its group on this target tells
    the speed.
    """
    rates: dict[str, float] = {}
    for known in store.runs(plan.project, plan.study.name):
        rate = rundir.finite(known.progress.get("tokens_per_s"))
        if known.target == plan.target.name and rate:
            rates[known.group] = rate
    return {
        run.name: int(run.train["max_steps"]) * run.global_batch * int(run.train["seq_len"]) / rates[run.group]
        for run in plan.runs
        if run.group in rates
    }


# Submitting -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """What a submission did with one run."""

    run: Run
    state: State
    """Where the run stands now."""
    note: str
    """Why it was left alone; empty where it was submitted."""


def data_hash(target: Target, root: str, study: Study) -> str:
    """Check the study's token files on this machine and return the hash over both.

    Raises:
        PreflightError: One is missing or damaged; names the command that makes it.
    """
    import hashlib

    from . import data
    from .study import target_path

    train = Path(target_path(target, root, str(study.train["data_path"])))
    named = study.train.get("val_data_path")
    val = Path(target_path(target, root, str(named))) if named else train.with_name("val.bin")
    digests = []
    for path in (train, val):
        if not path.is_file():
            demo = path.parent.name == "demo"
            hint = "make it: oelm-data demo" if demo else f"make it: oelm-data make TEXT... --output {path.parent}"
            raise PreflightError(f"{path}: no such file; nothing was queued", hint=hint)
        size = path.stat().st_size
        if size == 0 or size % 2:
            raise PreflightError(
                f"{path}: {size} bytes are not uint16 token ids; nothing was queued", hint="make it anew: oelm-data"
            )
        manifest = data.read_manifest(path.parent)
        listed = manifest.files.get(path.name) if manifest else None
        if listed is not None and listed.size != size:
            raise PreflightError(
                f"{path}: has {size} bytes, its manifest says {listed.size}; nothing was queued",
                hint=f"check it: oelm-data check {path.parent}",
            )
        if manifest is not None and manifest.tokenizer.vocab_size > int(study.train["vocab_size"]):
            raise PreflightError(
                f"{path}: made with {manifest.tokenizer.vocab_size} token ids, but {study.path} says"
                f" vocab_size = {study.train['vocab_size']}; nothing was queued",
                hint="set vocab_size in [train] to the data's",
            )
        digests.append(listed.sha256 if listed is not None else data.hash_tokens(path))
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def submit(plan: Plan, store: Store) -> list[Submitted]:
    """Submit a plan's runs, each at most once; return what became of each.

    Runs that are under way or done are left alone; cancelled, failed and lost ones go on from their last checkpoint.

    Raises:
        PreflightError: The target can't run it; nothing was queued.
        ConfigurationError: A run directory holds another configuration.
        UnknownAnswer: The launch may or may not have arrived; ``oelm-status`` finds out.
    """
    import secrets

    from . import snapshot as snapshots

    connection = connect(plan.target, plan.project)
    host = scheduler(connection)
    refresh(store, plan.project, store.runs(plan.project, plan.study.name), also_final=True)
    _check_devices(plan, host.poll([], devices=True)["devices"])
    left: dict[str, str] = {}

    def may_submit(known: StoredRun) -> bool:
        run = next(run for run in plan.runs if run.name == known.name)
        reason = _why_not(known, run)
        if reason:
            left[known.name] = reason
        return not reason

    token = f"oelm-{secrets.token_hex(8)}"
    code = snapshots.take(plan.project)
    maker = json.dumps(rundir.identify(os.getpid()).to_json())
    taken = store.intend(
        plan.project,
        plan.target.name,
        plan.root,
        token,
        maker,
        plan.runs,
        lambda run: record(plan, run, token, code, None),
        may_submit,
    )
    states = {run.run_dir: State.QUEUED for run in taken}
    if taken:
        try:
            control = f"{plan.root}/{rundir.CONTROL}"
            connection.keep_tree(snapshots.agent(), f"{control}/agent")
            connection.keep_tree(code, f"{control}/snapshots")
            scripts = render(plan, taken, token, code, connection)
            answer = host.submit([Job(run_dir=r.run_dir, token=token, script=scripts[r.run_dir]) for r in taken], token)
        except UnknownAnswer as error:
            store.answer(token, UNKNOWN)
            error.hint = error.hint or "whether it arrived is found out by: oelm-status"
            raise
        except Exception as error:
            # Nothing was accepted: the intent is taken back, so that the next submission may try.
            refused = (State.FAILED, f"not submitted: {error}")
            store.answer(token, REFUSED, states={run.run_dir: refused for run in taken})
            raise
        outcome = dict.fromkeys((*answer.accepted, *answer.busy), (State.QUEUED, ""))
        store.answer(token, ACCEPTED, states=outcome, handle=answer.handle)
        for run in taken:
            if run.run_dir in answer.busy:
                left[run.name] = "a live execution has its claim already"
    stored = {known.name: known.state for known in store.runs(plan.project, plan.study.name)}
    return [
        Submitted(
            run=run, state=states.get(run.run_dir, stored.get(run.name, State.UNKNOWN)), note=left.get(run.name, "")
        )
        for run in plan.runs
    ]


def _why_not(known: StoredRun, run: Run) -> str:
    """Return why a run that is stored already is left alone; empty where it may be submitted (again)."""
    if known.progress.get("absent"):
        return ""
    if known.state is State.PLANNED:
        return "is being submitted by another command"
    if not known.state.is_final:
        return f"is {known.state}"
    if known.target != run.target and known.state is State.DONE:
        return f"is done on target {known.target}"
    if known.fingerprint != run.fingerprint and not known.reason.startswith("not submitted"):
        raise ConfigurationError(
            f"{run.run_dir} holds run {run.name} of another configuration: {_changes(known, run)}",
            hint="give these runs a name of their own: --tag NAME",
        )
    return "is done" if known.state is State.DONE else ""


def _changes(known: StoredRun, run: Run) -> str:
    before = known.spec.get("train", {})
    keys = sorted(key for key in run.train if key in before and before[key] != run.train[key])
    changes = [f"{key} was {before[key]}, is {run.train[key]}" for key in keys]
    if known.spec.get("global_batch") != run.global_batch:
        changes.append(f"global_batch was {known.spec.get('global_batch')}, is {run.global_batch}")
    return "; ".join(changes) or "other data"


def _check_devices(plan: Plan, devices: Sequence[Mapping[str, Any]]) -> None:
    """Refuse what the host can never grant, before anything is queued."""
    kind = "GPU" if devices and str(devices[0]["label"]).startswith("gpu") else "CPU slot"
    indices = {int(str(device["label"]).rpartition(":")[2]) for device in devices}
    for run in plan.runs:
        missing = sorted(set(run.gpus) - indices) if isinstance(run.gpus, tuple) and kind == "GPU" else []
        if missing or run.world_size > len(devices):
            wanted = f"GPU {', '.join(map(str, missing))}" if missing else f"{run.world_size} {kind}s"
            raise PreflightError(
                f"group {run.group} of study {run.study} asks for {wanted}; {plan.target.name} has {len(devices)}"
                f" {kind}{'s' if len(devices) != 1 else ''}; nothing was queued",
                hint=f"change gpus of the group in {plan.study.path}, or give another --target",
            )


# Polling --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class View:
    """Runs as they stand, and how good that knowledge is."""

    runs: tuple[StoredRun, ...]
    unreachable: Mapping[str, str]
    """Target to the reason why it couldn't be asked; its runs keep their last state."""
    at: float
    """When this was put together, Unix seconds."""


def refresh(store: Store, project: Path, runs: Iterable[StoredRun], *, also_final: bool = False) -> View:
    """Ask the targets about runs that may have moved, once each, and store what they answer.

    A target that can't be asked changes no state.
    """
    from .targets import load_targets

    runs = list(runs)
    unreachable: dict[str, str] = {}
    moving: dict[str, list[StoredRun]] = {}
    for run in runs:
        if also_final or not run.state.is_final:
            moving.setdefault(run.target, []).append(run)
    targets = load_targets(project) if moving else {}
    observed: dict[tuple[str, str], StoredRun] = {}
    for name, theirs in moving.items():
        try:
            if name not in targets:
                raise TargetError(f"target {name!r} is in no targets file any more")
            settled = _settle(store, project, targets[name], theirs)
            for known in _observe(store, project, targets[name], settled):
                observed[known.study, known.name] = known
        except TargetError as error:
            unreachable[name] = str(error)
    return View(
        runs=tuple(observed.get((run.study, run.name), run) for run in runs), unreachable=unreachable, at=time.time()
    )


def _settle(store: Store, project: Path, target: Target, runs: list[StoredRun]) -> list[StoredRun]:
    """Find out about submissions without an answer whose client is gone; return the runs as they stand then."""
    if all(run.state is not State.PLANNED for run in runs):
        return runs
    planned = {run.token for run in runs if run.state is State.PLANNED}
    for row in store.open_submissions(project):
        maker = rundir.Identity.from_json(json.loads(row["maker"]))
        if row["token"] not in planned or (maker is not None and maker.is_alive() and maker.pid != os.getpid()):
            continue
        mine = [run for run in runs if run.token == row["token"]]
        if scheduler(connect(target, project)).settle(row["token"]):
            store.answer(row["token"], ACCEPTED, states={run.run_dir: (State.QUEUED, "") for run in mine})
        else:
            reason = "not submitted: the client ended before it was sent"
            store.answer(row["token"], REFUSED, states={run.run_dir: (State.FAILED, reason) for run in mine})
    found = [store.run(project, run.study, run.name) for run in runs]
    return [run for run in found if run is not None]


def _observe(store: Store, project: Path, target: Target, runs: list[StoredRun]) -> list[StoredRun]:
    asked = [run for run in runs if run.state is not State.PLANNED and not run.reason.startswith("not submitted")]
    if not asked:
        return runs
    answer = scheduler(connect(target, project)).poll([run.run_dir for run in asked])
    rows, seen = [], {}
    for run in asked:
        row = dict(answer["runs"][run.run_dir])
        state, reason = State(row.pop("state")), str(row.pop("reason") or "")
        progress = {key: value for key, value in row.items() if value is not None}
        rows.append((run, state, reason, progress))
        seen[run.study, run.name] = replace(
            run, state=state, reason=reason, progress=progress, observed_at=answer["time"]
        )
    if any((run.state, run.reason, run.progress) != row[1:] for run, row in zip(asked, rows, strict=True)):
        store.observe(rows, answer["time"])
    return [seen.get((run.study, run.name), run) for run in runs]


# Cancelling and logs --------------------------------------------------------------------------------------------------


def cancel(store: Store, project: Path, runs: Sequence[StoredRun]) -> dict[str, str]:
    """End runs with all their processes; return by run name what was done.

    Raises:
        TargetError: A target can't be reached; its runs are as they were.
    """
    from .targets import load_target

    done: dict[str, str] = {}
    for name in dict.fromkeys(run.target for run in runs):
        theirs = [run for run in runs if run.target == name]
        host = scheduler(connect(load_target(project, name), project))
        answers = host.cancel([run.run_dir for run in theirs])
        done.update({run.name: answers[run.run_dir] for run in theirs})
    refresh(store, project, runs, also_final=True)
    return done


def read_log(project: Path, run: StoredRun, name: str, *, offset: int | None, lines: int) -> tuple[bytes, int, int]:
    """Return (content, offset of its beginning, size of the whole) of a piece of one of a run's logs.

    Args:
        offset: Where to begin in bytes; None means ``lines`` lines before the end.
    """
    import base64

    from .targets import load_target

    connection = connect(load_target(project, run.target), project)
    answer = connection.call("log", {"run_dir": run.run_dir, "name": name, "offset": offset, "lines": lines})
    return base64.b64decode(answer["content"]), int(answer["offset"]), int(answer["size"])

"""Owns plans: a study resolved into runs, audited and rendered before anything is done; leaves doing it to workflow."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import fairness, sbatch
from .agent import rundir, slurm_submit
from .connections import Connection, connect, interpreter, unreached
from .errors import ConfigurationError
from .fairness import Difference
from .runs import command, plan_runs, scientific
from .sbatch import MAX_ARRAY
from .schedulers import Job
from .snapshot import Snapshot
from .spec import Run, Study, Target

if TYPE_CHECKING:
    from .store import Store

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
    data_hash: str
    """Hash over the token files; empty where a plan is made without them."""


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
    offline: bool = False,
) -> Plan:
    """Resolve a study into runs and check that their comparison is fair. Needs no data and no GPU.

    Args:
        offline: Don't reach the target: its relative paths are shown below ``~``.

    Raises:
        UsageError: A group or an override doesn't exist.
        UnfairError: The groups would differ in more than the study declares.
        TargetError: The target can't be reached.
    """
    there = unreached(target, project) if offline else connect(target, project).resolved
    root = there.root
    runs = plan_runs(study, there, root, groups=groups, seeds=seeds, tag=tag, overrides=overrides, data_hash=data_hash)
    one_of = {run.group: run for run in runs if run.trial is None}  # seeds change nothing that is compared
    arms = [
        fairness.Arm(
            group=run.group,
            run=run.name,
            scientific=scientific(run.train, run.global_batch),
            execution={"world_size": run.world_size, "batch_size": run.train["batch_size"]},
        )
        for run in one_of.values()
    ]
    differences = fairness.check(arms, factors=study.factors, unequal=study.declared)
    return Plan(
        project=project,
        study=study,
        target=target,
        mode=mode,
        stop_on_failure=stop_on_failure,
        root=root,
        runs=tuple(runs),
        differences=tuple(differences),
        data_hash=data_hash,
    )


def _record(
    plan: Plan, run: Run, token: str, snapshot: Snapshot, after: str | None, extended_from: Any, left: Any
) -> dict[str, Any]:
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
        "diff": snapshot.diff,
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
        "extended_from": extended_from,
        **({"left": left} if left else {}),
        **({"share": plan.target.share} if plan.target.share else {}),
    }


def render(
    plan: Plan,
    runs: Sequence[Run],
    token: str,
    snapshot: Snapshot,
    connection: Connection,
    *,
    live: bool = False,
    extended: Mapping[str, Any] | None = None,
    left: Mapping[str, Any] | None = None,
    max_array: int = MAX_ARRAY,
) -> list[Job]:
    """Return what is to be sent: a script for each run, or for each array of runs where Slurm decides.

    Args:
        extended: By run name, what a run is the continuation of.
        left: By run name, what it has left on other targets.
        live: Nothing is sent: on this machine let the scripts run the code in the project's folder as it is.
        max_array: Most runs of an array.

    Raises:
        ConfigurationError: The target's options don't fit the runs, or a template is broken.
    """
    from .snapshot import agent

    control = f"{plan.root}/{rundir.CONTROL}"
    python = interpreter(plan.target) if live and plan.target.host else connection.python
    supervisor = [python, f"{control}/agent/{agent().hash}"]
    code, note = f"{control}/snapshots/{snapshot.hash}", ""
    if live and plan.target.host:
        note = f"Not submitted: oelm-submit --target {plan.target.name} sends this, and the code it names."
    elif live:
        supervisor = [sys.executable, "-m", "oelm_jobs.agent"]  # where the toolkit is installed, whatever trains
        code, note = (
            str(plan.project),
            "Not submitted: this runs the code in its folder as it is; oelm-submit runs a snapshot of it.",
        )
    words: dict[str, Any] = {"python": python, "supervisor": supervisor, "code": code, "note": note}
    lane = [None, *(run.run_dir for run in runs)] if plan.mode == SEQUENTIAL else [None] * len(runs)
    records = [
        _record(plan, run, token, snapshot, after, (extended or {}).get(run.name), (left or {}).get(run.name))
        for run, after in zip(runs, lane, strict=False)
    ]
    if plan.target.slurm is not None:
        return _slurm_jobs(plan, runs, token, records, words, live=live, max_array=max_array)
    from .render import script

    scripts = [
        script(plan.project, plan.target, run, known, command=command(run, python), **words)
        for run, known in zip(runs, records, strict=True)
    ]
    return [
        Job(
            run_dirs=(run.run_dir,),
            token=token,
            script=text,
            position=position,
            name=run.name,
            snapshot=None if live else snapshot.hash,
        )
        for position, (run, text) in enumerate(zip(runs, scripts, strict=True))
    ]


def check_scripts(
    plan: Plan, runs: Sequence[Run], token: str, snapshot: Snapshot, connection: Connection, *, max_array: int
) -> None:
    """Print the scripts of two runs of each size, which is as many as an array needs, and throw them away: what can't
    be printed is found before a submission is stored, at the same cost for a thousand runs.

    Raises:
        ConfigurationError: As ``render``.
    """
    sizes: dict[int, list[Run]] = {}
    for run in runs:
        sizes.setdefault(run.world_size, []).append(run)
    render(plan, [run for same in sizes.values() for run in same[:2]], token, snapshot, connection, max_array=max_array)


def _slurm_jobs(
    plan: Plan,
    runs: Sequence[Run],
    token: str,
    records: Sequence[Mapping[str, Any]],
    words: Mapping[str, Any],
    *,
    live: bool,
    max_array: int,
) -> list[Job]:
    """Return scripts with headers for sbatch; several runs that don't wait for each other share one."""
    from .render import slurm_script

    folder = plan.root if live else f"{plan.root}/{rundir.CONTROL}/{slurm_submit.FOLDER}"
    own = {"scheduler": "slurm", **sbatch.supervision(plan.target)}
    by_run = {run.name: known for run, known in zip(runs, records, strict=True)}
    largest = 2 * max((len(json.dumps(known)) for known in records[:10]), default=0)
    sequential = plan.mode == SEQUENTIAL
    given = sbatch.options_of(plan.target).sbatch.get("dependency") or ""
    if sequential and len(runs) > 1 and "?" in given:
        raise ConfigurationError(
            f"target {plan.target.name}: dependency = {given!r} in sbatch has alternatives, which can't be joined with"
            " the wait for the run before",
            hint="give --mode parallel, or jobs that all have to end, joined by ','",
        )
    jobs = []
    for batch in sbatch.batches(runs, token, sequential=sequential, limit=max_array, run_bytes=largest):
        stem = f"{token}.{batch.position}"
        fate = "" if live else str(slurm_submit.file_of(plan.root, token, batch.position, slurm_submit.FATE))
        script = slurm_script(
            plan.project,
            plan.target,
            batch.runs,
            [{**by_run[run.name], **own, "fate": fate} for run in batch.runs],
            commands=[command(run, words["python"]) for run in batch.runs],
            header=sbatch.header(plan.target, batch.runs, name=batch.name, folder=folder, stem=stem),
            **words,
        )
        run_dirs = tuple(run.run_dir for run in batch.runs)
        jobs.append(
            Job(
                run_dirs=run_dirs,
                token=token,
                script=script,
                position=batch.position,
                name=batch.name,
                after=batch.after,
                snapshot=None if live else str(records[0]["snapshot"]),
            )
        )
    return jobs


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

"""Owns plans: a study resolved into runs, audited and rendered before anything is done; leaves doing it to workflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import fairness
from .agent import rundir
from .connections import Connection, connect
from .fairness import Difference
from .snapshot import Snapshot
from .spec import Run, Study, Target
from .study import command, plan_runs, scientific

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
    plan: Plan,
    runs: Sequence[Run],
    token: str,
    snapshot: Snapshot,
    connection: Connection,
    *,
    live: bool = False,
    extended: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Return the launch scripts by run directory.

    Args:
        extended: By run name, what a run is the continuation of.
        live: Let the scripts run the code in the project's folder as it is (what a dry run prints, which sends no
            snapshot).
    """
    from .render import script
    from .snapshot import agent

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
            {**record(plan, run, token, snapshot, after), "extended_from": (extended or {}).get(run.name)},
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

"""Launch scripts and the records in them, made from a plan: what a scheduler is given to send."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ..agent import rundir
from ..agent.slurm import submit as slurm_submit
from ..code.snapshot import Snapshot
from ..connections import Connection, interpreter
from ..errors import ConfigurationError
from ..plan import SEQUENTIAL, Plan
from ..schedulers import LaunchScript
from ..spec import Run
from ..study.resolve import command
from ..targets import sbatch
from ..targets.sbatch import MAX_ARRAY


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
) -> list[LaunchScript]:
    """Return what is to be sent: a script for each run, or for each array of runs where Slurm decides.

    Args:
        extended: By run name, what a run is the continuation of.
        left: By run name, what it has left on other targets.
        live: Nothing is sent: on this machine let the scripts run the code in the project's folder as it is.
        max_array: Most runs of an array.

    Raises:
        ConfigurationError: The target's options don't fit the runs, or a template is broken.
    """
    from ..code.snapshot import agent

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
    from .templates import script

    scripts = [
        script(plan.project, plan.target, run, known, command=command(run, python), **words)
        for run, known in zip(runs, records, strict=True)
    ]
    return [
        LaunchScript(
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
) -> list[LaunchScript]:
    """Return scripts with headers for sbatch; several runs that don't wait for each other share one."""
    from .templates import slurm_script

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
            LaunchScript(
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

"""Launch scripts and the records in them, made from a plan: what a scheduler is given to send."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..agent import rundir, snapshots
from ..agent.run_record import RunRecord
from ..agent.sentences import _
from ..agent.slurm import submit as slurm_submit
from ..code.snapshot import Snapshot, agent
from ..connections import AGENT_FOLDER, Connection, interpreter
from ..errors import ConfigurationError
from ..schedulers import LaunchScript
from ..spec.study import Run
from ..spec.target import Target
from ..study.plan import Mode, Plan
from ..study.resolve import command
from ..targets import sbatch
from ..targets.sbatch import MAX_ARRAY
from .templates import Content, Program, script

BY_HAND = "by-hand"
"""Token of scripts that nobody submits."""


def _record(plan: Plan, run: Run, token: str, snapshot: Snapshot, after: str | None) -> RunRecord:
    """Return a run's record, which goes to the target as ``run.json``."""
    return RunRecord(
        token=token,
        study=run.study,
        run=run.name,
        group=run.group,
        label=run.label,
        seed=run.seed,
        tag=run.tag,
        target=run.target,
        project=str(plan.project),
        run_dir=run.run_dir,
        fingerprint=run.fingerprint,
        snapshot=snapshot.hash,
        revision=snapshot.revision,
        diff=snapshot.diff,
        train_code=snapshot.train_code,
        factors=dict(run.factors),
        train=dict(run.train),
        world_size=run.world_size,
        global_batch=run.global_batch,
        gpus=list(run.gpus) if isinstance(run.gpus, tuple) else run.gpus,
        port=run.port,
        after=after,
        stop_on_failure=plan.stop_on_failure,
        max_retries=run.max_retries,
        extended_from=run.extended_from,
        left=list(run.left) or None,
        share=plan.target.share or None,
    )


def render(
    plan: Plan, runs: Sequence[Run], token: str, snapshot: Snapshot, connection: Connection, *, max_array: int
) -> list[LaunchScript]:
    """Return what is to be sent: a script for each run, or for each array of runs where Slurm decides.

    Args:
        max_array: Most runs of an array.

    Raises:
        ConfigurationError: The target's options don't fit the runs, or a template is broken.
    """
    program = _sent(plan, snapshot, connection.python)
    return _jobs(plan, connection.target, runs, token, snapshot, program, max_array=max_array)


def preview(
    plan: Plan, runs: Sequence[Run], snapshot: Snapshot, connection: Connection, *, token: str = BY_HAND
) -> list[LaunchScript]:
    """Return scripts of which nothing is sent: on this machine they run the code in the project's folder as it is.

    Raises:
        ConfigurationError: As ``render``.
    """
    if plan.target.host:
        sends = f"Not submitted: oelm-submit --target {plan.target.name} sends this, and the code it names."
        program = replace(_sent(plan, snapshot, interpreter(plan.target)), note=sends)
    else:
        program = Program(
            python=connection.python,
            supervisor=(sys.executable, "-m", "oelm_jobs.agent"),  # where the toolkit is installed, whatever trains
            code=str(plan.project),
            note="Not submitted: this runs the code in its folder as it is; oelm-submit runs a snapshot of it.",
        )
    return _jobs(plan, connection.target, runs, token, snapshot, program, is_sent=False)


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


def _sent(plan: Plan, snapshot: Snapshot, python: str) -> Program:
    """Return agent and code as they lie on the target once they are sent."""
    return Program(
        python=python,
        supervisor=(python, f"{plan.root}/{AGENT_FOLDER}/{agent().hash}"),
        code=f"{plan.root}/{rundir.CONTROL}/{snapshots.FOLDER}/{snapshot.hash}",
    )


def _jobs(
    plan: Plan,
    target: Target,
    runs: Sequence[Run],
    token: str,
    snapshot: Snapshot,
    program: Program,
    *,
    is_sent: bool = True,
    max_array: int = MAX_ARRAY,
) -> list[LaunchScript]:
    """Return the scripts of runs; under Slurm several that don't wait for each other share one.

    Args:
        target: The plan's as its file describes it, which is what templates see.
    """
    lane = [None, *(run.run_dir for run in runs)] if plan.mode is Mode.SEQUENTIAL else [None] * len(runs)
    records = {run.name: _record(plan, run, token, snapshot, after) for run, after in zip(runs, lane, strict=False)}
    if plan.target.slurm is None:
        batches = [
            sbatch.Batch(runs=(run,), position=position, name=run.name, after=None) for position, run in enumerate(runs)
        ]
    else:
        _check_dependency(plan, runs)
        largest = 2 * max((len(json.dumps(records[run.name].to_json())) for run in runs[:10]), default=0)
        batches = sbatch.batches(
            runs, token, sequential=plan.mode is Mode.SEQUENTIAL, limit=max_array, run_bytes=largest
        )
    return [
        LaunchScript(
            run_dirs=tuple(run.run_dir for run in batch.runs),
            token=token,
            script=script(plan.project, target, _content(plan, batch, token, records, program, is_sent=is_sent)),
            position=batch.position,
            name=batch.name,
            after=batch.after,
            snapshot=snapshot.hash if is_sent else None,
        )
        for batch in batches
    ]


def _content(
    plan: Plan,
    batch: sbatch.Batch,
    token: str,
    records: Mapping[str, RunRecord],
    program: Program,
    *,
    is_sent: bool,
) -> Content:
    """Return what the script of a batch is printed from."""
    several = [records[run.name] for run in batch.runs]
    header: list[str] = []
    if plan.target.slurm is not None:
        folder, fate = plan.root, ""
        if is_sent:
            folder = f"{plan.root}/{rundir.CONTROL}/{slurm_submit.FOLDER}"
            fate = str(slurm_submit.file_of(plan.root, token, batch.position, slurm_submit.FATE))
        stem = f"{token}.{batch.position}"
        header = sbatch.header(plan.target, batch.runs, name=batch.name, folder=folder, stem=stem)
        own = {"scheduler": "slurm", **sbatch.supervision(plan.target), "fate": fate}
        several = [record._replace(**own) for record in several]
    commands = [tuple(command(run, program.python)) for run in batch.runs]
    return Content(
        program=program,
        runs=tuple(batch.runs),
        record=records_text([record.to_json() for record in several], commands),
        command=commands[0] if len(commands) == 1 else (),
        header=tuple(header),
    )


def records_text(records: Sequence[Mapping[str, object]], commands: Sequence[Sequence[str]]) -> str:
    """Return records as a script holds them: one, or those of an array, whose tasks pick theirs by their index and find
    their command in it.
    """
    if len(records) == 1:
        return json.dumps(records[0], ensure_ascii=False, indent=1)
    with_commands = [{**record, "command": list(argv)} for record, argv in zip(records, commands, strict=True)]
    shared, rests = sbatch.shared_part(with_commands)
    lines = ",\n".join(map(json.JSONEncoder(ensure_ascii=False).encode, rests))
    return f'{{"shared": {json.dumps(shared, ensure_ascii=False)},\n"runs": [\n{lines}\n]}}'


def _check_dependency(plan: Plan, runs: Sequence[Run]) -> None:
    """Refuse a dependency of the target's that can't be joined with a lane.

    Raises:
        ConfigurationError: It has alternatives.
    """
    given = sbatch.options_of(plan.target).sbatch.get("dependency") or ""
    if plan.mode is Mode.SEQUENTIAL and len(runs) > 1 and "?" in given:
        raise ConfigurationError(
            _(
                "target {target}: dependency = {value!r} in sbatch has alternatives, which can't be joined with the"
                " wait for the run before",
                plan.target.name,
                given,
            ),
            hint=_("give --mode parallel, or jobs that all have to end, joined by ','"),
        )

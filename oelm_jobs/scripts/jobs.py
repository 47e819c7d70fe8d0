"""Launch scripts and the records in them, made from a plan: what a scheduler is given to send."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter

from ..agent import rundir, snapshots
from ..agent.run_record import RunRecord
from ..agent.sentences import _
from ..agent.slurm import submit as slurm_submit
from ..code.snapshot import Snapshot, agent
from ..connections import AGENT_FOLDER, Connection, interpreter
from ..errors import ConfigurationError
from ..programs import built_in
from ..programs import script as own_script
from ..schedulers import LaunchScript
from ..spec import lineage
from ..spec.study import Run
from ..study.plan import Mode, Plan
from ..targets import sbatch
from ..targets.sbatch import MAX_ARRAY
from .templates import Installed, ScriptContent, script

OF_RUN = (
    "study", "group", "label", "seed", "tag", "target", "run_dir", "fingerprint", "world_size", "global_batch", "port",
    "max_retries", "extended_from",
)  # fmt: skip
"""Fields that a record has from its run as they are."""
_of_run = attrgetter(*OF_RUN)


@dataclass(frozen=True, kw_only=True)
class Scripts:
    """The scripts of a submission, each made when it is asked for."""

    plan: Plan
    connection: Connection
    snapshot: Snapshot
    token: str = rundir.BY_HAND
    max_array: int = MAX_ARRAY
    """Most runs of an array."""
    is_sent: bool = True
    """False where nothing is sent: on this machine they run the code in the project's folder as it is."""
    notify: str = ""
    """Folder on the target of what is to be told of them."""
    mail: Mapping[str, str] = field(default_factory=dict)
    """Options by which Slurm sends mail about them."""
    lock: str = ""
    """Hash of the study's lock that is in force; empty where nothing is locked."""

    def render(self, runs: Sequence[Run]) -> list[LaunchScript]:
        """Return a script for each run; under Slurm several runs that don't wait for each other share one.

        Raises:
            ConfigurationError: The target's options don't fit the runs, or a template is broken.
        """
        is_lane = self.plan.mode is Mode.SEQUENTIAL
        before = [None, *(run.run_dir for run in runs)] if is_lane else [None] * len(runs)
        after = {run.name: run_dir for run, run_dir in zip(runs, before, strict=False)}
        if self.plan.target.slurm is None:
            batches = [
                sbatch.Batch(
                    runs=(run,), position=position, name=run.name, after=position - 1 if is_lane and position else None
                )
                for position, run in enumerate(runs)
            ]
        else:
            _check_dependency(self.plan, runs)
            some = [self._record(run, after[run.name]) for run in runs[:10]]
            largest = 2 * max((len(json.dumps(record.to_json())) for record in some), default=0)
            batches = sbatch.batches(runs, self.token, sequential=is_lane, limit=self.max_array, run_bytes=largest)
        # Templates see the target as its file describes it.
        return [
            LaunchScript(
                run_dirs=tuple(run.run_dir for run in batch.runs),
                script=script(self.plan.project, self.connection.target, self._content(batch, after)),
                position=batch.position,
                name=batch.name,
                after=batch.after,
                snapshot=self.snapshot.hash if self.is_sent else None,
                gpus=batch.runs[0].gpus,
                needs=lineage.waited_for(batch.runs[0].parents),
            )
            for batch in batches
        ]

    def check(self, runs: Sequence[Run]) -> None:
        """Print the scripts of two runs of each size, which is as many as an array needs, and throw them away: what
        can't be printed is found before a submission is stored, at the same cost for a thousand runs.

        Raises:
            ConfigurationError: As ``render``.
        """
        sizes: dict[int, list[Run]] = {}
        for run in runs:
            sizes.setdefault(run.world_size, []).append(run)
        self.render([run for same in sizes.values() for run in same[:2]])

    @cached_property
    def _program(self) -> Installed:
        """Agent and code, as they lie on the target once they are sent."""
        root, target = self.plan.root, self.plan.target
        if not self.is_sent and not target.host:
            return Installed(
                python=self.connection.python,
                supervisor=(sys.executable, "-m", "oelm_jobs.agent"),  # where the toolkit is installed, whatever trains
                code=str(self.plan.project),
                note="Not submitted: this runs the code in its folder as it is; oelm-submit runs a snapshot of it.",
            )
        python = self.connection.python if self.is_sent else interpreter(target)
        sends = f"Not submitted: oelm-submit --target {target.name} sends this, and the code it names."
        return Installed(
            python=python,
            supervisor=(python, f"{root}/{AGENT_FOLDER}/{agent().hash}"),
            code=f"{root}/{rundir.CONTROL}/{snapshots.FOLDER}/{self.snapshot.hash}",
            note="" if self.is_sent else sends,
        )

    def _content(self, batch: sbatch.Batch, after: Mapping[str, str | None]) -> ScriptContent:
        """Return what the script of a batch is printed from.

        Args:
            after: Run directory that a run waits for, by the run's name.
        """
        header: list[str] = []
        records = [self._record(run, after[run.name]) for run in batch.runs]
        slurm = self.plan.target.slurm
        if slurm is not None:
            folder, fate = self.plan.root, ""
            if self.is_sent:
                folder = f"{folder}/{rundir.CONTROL}/{slurm_submit.FOLDER}"
                fate = str(slurm_submit.file_of(self.plan.root, self.token, batch.position, slurm_submit.FATE))
            stem = f"{self.token}.{batch.position}"
            header = sbatch.header(
                self.plan.target, batch.runs, name=batch.name, folder=folder, stem=stem, more=self.mail
            )
            warning_s = sbatch.warning_s(self.plan.target, batch.runs[0])
            records = [
                record._replace(
                    scheduler="slurm", warning_s=warning_s, max_timeouts=slurm.max_timeouts,
                    requeue=slurm.requeue, fate=fate, notify=self.notify or None,
                )
                for record in records
            ]  # fmt: skip
        python = self._program.python
        commands = [tuple(built_in.command(run, python)) for run in batch.runs if run.program is None]
        return ScriptContent(
            program=self._program,
            runs=tuple(batch.runs),
            record=records_text([record.to_json() for record in records], commands),
            command=commands[0] if len(commands) == 1 else (),
            header=tuple(header),
        )

    @cached_property
    def _run_dirs(self) -> dict[str, str]:
        return {run.name: run.run_dir for run in self.plan.runs}

    def _record(self, run: Run, after: str | None) -> RunRecord:
        """Return a run's record, which goes to the target as ``run.json``, without what it has from its job."""
        return RunRecord(
            **dict(zip(OF_RUN, _of_run(run), strict=True)),
            token=self.token,
            run=run.name,
            project=str(self.plan.project),
            snapshot=self.snapshot.hash,
            revision=self.snapshot.revision,
            diff=self.snapshot.diff,
            train_code=self.snapshot.train_code,
            factors=dict(run.factors),
            train=dict(run.settings) if run.program is None else {},
            program=own_script.record(run) if run.program is not None else None,
            gpus=list(run.gpus) if isinstance(run.gpus, tuple) else run.gpus,
            after=after,
            stop_on_failure=self.plan.stop_on_failure,
            left=list(run.left) or None,
            needs=list(lineage.records(run.parents, run.study, self._run_dirs)) or None,
            study_file=self.plan.study_file or None,
            share=self.plan.target.share or None,
            lock={"hash": self.lock} if self.lock else None,
        )


def records_text(records: Sequence[Mapping[str, object]], commands: Sequence[Sequence[str]]) -> str:
    """Return records as a script holds them: one, or those of an array, whose tasks pick theirs by their index and find
    their command in it (or their program: then there are no commands).
    """
    if len(records) == 1:
        return json.dumps(records[0], ensure_ascii=False, indent=1)
    with_commands = (
        [{**record, "command": list(argv)} for record, argv in zip(records, commands, strict=True)]
        if commands
        else records
    )
    shared, rests = sbatch.shared_part(with_commands)
    lines = ",\n".join(map(json.JSONEncoder(ensure_ascii=False).encode, rests))
    return f'{{"shared": {json.dumps(shared, ensure_ascii=False)},\n"runs": [\n{lines}\n]}}'


def _check_dependency(plan: Plan, runs: Sequence[Run]) -> None:
    """Refuse a dependency of the target's that can't be joined with a lane, or with the wait for what runs need.

    Raises:
        ConfigurationError: It has alternatives.
    """
    given = sbatch.options_of(plan.target).sbatch.get("dependency") or ""
    has_others = any(lineage.waited_for(run.parents) for run in runs)
    if ((plan.mode is Mode.SEQUENTIAL and len(runs) > 1) or has_others) and "?" in given:
        raise ConfigurationError(
            _(
                "target {target}: dependency = {value!r} in sbatch has alternatives, which can't be joined with the"
                " wait for the run before",
                plan.target.name,
                given,
            ),
            hint=_("give --mode parallel, or jobs that all have to end, joined by ','"),
        )

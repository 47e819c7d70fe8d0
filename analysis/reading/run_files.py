"""Read all records of one run directory into one value.

The names of the files are those that the agent writes (``oelm_jobs.agent.rundir``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from oelm_jobs.agent import rundir
from oelm_jobs.agent.run import remarks
from oelm_jobs.agent.sentences import Sentence
from oelm_jobs.agent.states import State

from . import files, metrics, series
from .loaded_run import Curve, Series, Treatment, Validations

STALE_S = 300.0
"""Seconds without a heartbeat after which a run without an end record isn't called running."""


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """The records of a run directory. Of a file that is absent or not understood the record is empty, or None where the
    absence itself matters.
    """

    result: files.Result = field(default_factory=files.Result)
    planned: files.Planned = field(default_factory=files.Planned)
    outcome: files.Outcome = field(default_factory=files.Outcome)
    """The result's own, or that of the trainer where the result has none."""
    heartbeat: files.Heartbeat | None = None
    start: files.Attempt | None = None
    end: files.EndRecord | None = None
    treatment: Treatment | None = None
    curve: Curve | None = None
    validations: Validations | None = None
    series: Mapping[str, Series] = field(default_factory=dict)
    """Metrics of a script."""
    now: float = 0.0
    """Unix seconds when it was looked at."""
    notes: tuple[Sentence, ...] = ()
    """What was not understood."""

    @property
    def stated(self) -> files.Planned:
        """What the result states of the run, else what its plan does."""
        names = files.Planned.__struct_fields__
        return files.Planned(**{name: getattr(self.result, name) or getattr(self.planned, name) for name in names})

    @property
    def attempts(self) -> list[files.Attempt]:
        """The attempts that ended."""
        return self.result.attempts or (self.end.attempts if self.end else [])

    @property
    def starts(self) -> int:
        """How often it was started."""
        return max(len(self.attempts), self.start.number if self.start else 0)

    @property
    def has_gpus(self) -> bool:
        """True where an attempt was given another device than slots of processors."""
        labels = [str(label) for attempt in self.attempts for label in attempt.devices]
        return any(label.rpartition("/")[2].partition(":")[0] != "cpu" for label in labels)

    @property
    def is_inexact(self) -> bool:
        """True where it went on from a checkpoint and nothing shows that its result is that of a run without a stop."""
        return any(attempt.inexact_resume for attempt in (*self.attempts, *([self.start] if self.start else [])))

    @property
    def per_gpu(self) -> int:
        """How many runs could have its GPUs at a time."""
        return max(attempt.per_gpu for attempt in [files.Attempt(), self.start or files.Attempt(), *self.attempts])

    @property
    def is_alive(self) -> bool:
        """True where the trainer's heartbeat is recent."""
        return self.heartbeat is not None and self.now - self.heartbeat.time < STALE_S

    @property
    def goes_on(self) -> bool:
        """True where an attempt began that is newer than the newest one that ended."""
        ended = [attempt.number for attempt in self.attempts]
        return bool(ended) and self.start is not None and self.start.number > max(ended)

    @property
    def state(self) -> str:
        """The state that a record of the end states; empty where there is none."""
        return self.result.status or (self.end.state if self.end else "")

    @property
    def reason(self) -> str:
        """The reason that a record of the end states."""
        return self.result.why if self.result.reason or self.end is None else self.end.why

    @property
    def last_step(self) -> int | None:
        """The largest step that a file names."""
        steps = [self.outcome.step, self.heartbeat.step if self.heartbeat else None]
        told = (self.curve, self.validations, *(series for series in self.series.values() if not series.is_counted))
        steps += [int(table.step[-1]) for table in told if table is not None]
        return max((step for step in steps if step is not None), default=None)

    @property
    def started_at(self) -> float | None:
        """Unix seconds of the first start."""
        known = [self.result.started_at, *(attempt.started_at for attempt in self.attempts)]
        known.append(self.start.started_at if self.start else None)
        if self.curve is not None and np.isfinite(self.curve.time).any():
            known.append(float(np.nanmin(self.curve.time)))
        return min((time for time in known if time is not None), default=None)

    @property
    def elapsed_hours(self) -> float | None:
        """Wall-clock hours: as stated, else those of the attempts, else those that the training records span."""
        if self.result.elapsed_hours is not None:
            return self.result.elapsed_hours
        walls = [attempt.wall_s for attempt in self.attempts if attempt.wall_s is not None]
        if walls:
            return sum(walls) / 3600
        known = self.curve.time[np.isfinite(self.curve.time)] if self.curve is not None else ()
        return float(np.max(known) - np.min(known)) / 3600 if len(known) > 1 else None

    @property
    def device_hours(self) -> float | None:
        """Hours times devices, GPUs or slots of processors: those of the attempts, else of GPUs as stated."""
        parts = [a.wall_s * len(a.devices) for a in self.attempts if a.wall_s is not None and a.devices]
        return sum(parts) / 3600 if parts else self.result.gpu_hours


def read(path: Path, *, now: float) -> RunFiles:
    """Read the files of a run directory; never raises for what they hold.

    The metrics come last: where a record says that the run is over, its curve is then whole.
    """
    notes: list[Sentence] = []

    def record(at: Path, form: type[files.F]) -> files.F | None:
        content, note = files.read(at, form)
        if note:
            notes.append(note)
        return content

    result = record(path / rundir.RESULT, files.Result) or files.Result()
    found = RunFiles(
        result=result,
        planned=record(rundir.control(path, rundir.RUN), files.Planned) or files.Planned(),
        outcome=result.outcome or record(rundir.control(path, rundir.OUTCOME), files.Outcome) or files.Outcome(),
        heartbeat=record(path / rundir.HEARTBEAT, files.Heartbeat),
        start=record(rundir.control(path, rundir.START), files.Attempt),
        end=record(rundir.control(path, rundir.END), files.EndRecord),
        treatment=record(path / rundir.TREATMENT, Treatment),
        now=now,
    )
    if found.stated.program is not None:
        is_over = found.state == State.DONE and not found.goes_on  # what is killed leaves half a row
        declared = found.stated.program.metrics
        told = series.read_series(path, declared, notes, attempts=found.starts, is_over=is_over)
        output = remarks.of_output(path)
        notes += [output] if isinstance(output, Sentence) else []
        return replace(found, series=told, notes=tuple(notes))
    curve, validations = metrics.read(path / rundir.METRICS, notes)
    return replace(found, curve=curve, validations=validations, notes=tuple(notes))


def exists(path: Path) -> bool:
    """Tell whether the toolkit's files (not just a log) are there."""
    signs = (path / rundir.METRICS, rundir.control(path, rundir.RUN), rundir.control(path, rundir.OUTCOME))
    if any(sign.exists() for sign in signs):
        return True
    result, _note = files.read(path / rundir.RESULT, files.Result)
    return result is not None and result.run != ""

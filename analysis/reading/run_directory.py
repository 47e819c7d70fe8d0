"""Read a run directory of the toolkit, finished or not, into a ``LoadedRun``."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from oelm_jobs.agent import rundir
from oelm_jobs.agent.reasons import codes
from oelm_jobs.agent.sentences import Sentence
from oelm_jobs.agent.states import FINAL, State

from . import files, run_files, run_state
from .loaded_run import DIVERGED, LoadedRun, Parameters, Point, Validations
from .metrics import steady_speed
from .numbers import is_finite
from .run_files import RunFiles


def load(path: Path, *, now: float, groups: Sequence[str] = (), first_seed: int | None = None) -> LoadedRun:
    """Read one run directory, finished or not.

    ``groups`` and ``first_seed`` tell apart names such as ``a-s43`` where no record names group and seed; ``now``
    (Unix seconds) decides whether a run without an end record is still running. Never raises for what the files hold:
    notes say what was not understood.
    """
    run = run_files.read(path, now=now)
    stated, outcome = run.stated, run.outcome
    name = stated.run or stated.name or rundir.run_name(path.name)
    group, seed, tag = split_name(name, groups, first_seed)
    program = stated.program or files.Program()
    train = stated.train or outcome.config or program.settings
    seeds = (run.result.seed, run.planned.seed, _whole(train.get("seed")), seed)  # of which 0 is one
    state, reason = run_state.state_of(run)
    final, best = _end_points(run, state, reason)
    # While a run is running, last lines may be half written.
    notes = [note for note in run.notes if state != State.RUNNING or not files.is_cut_off(note)]
    if state == State.DONE and isinstance(reason, Sentence):  # a remark, and no part of how it ended
        notes, reason = [*notes, reason], ""
    has_gpus = stated.program is None or run.has_gpus
    parameters = outcome.parameters
    if parameters == Parameters() and run.treatment is not None:
        parameters = run.treatment.parameters
    provenance = {key: getattr(stated, key) for key in ("revision", "snapshot", "train_code", "target", "diff")}
    provenance["revision"] = provenance["revision"] or str(outcome.versions.get("revision", ""))
    return LoadedRun(
        name=name,
        group=stated.group or group,
        label=stated.label,
        seed=next((known for known in seeds if known is not None), None),
        tag=stated.tag or tag,
        path=path,
        study=stated.study,
        status=state,
        reason=reason,
        max_steps=outcome.max_steps
        or (run.heartbeat or files.Heartbeat()).max_steps
        or program.max_steps
        or _whole(train.get("max_steps")),
        last_step=run.last_step,
        curve=run.curve,
        validations=run.validations,
        is_script=stated.program is not None,
        is_inexact=run.is_inexact,
        series=run.series,
        goals=program.metrics.goal,
        told_by={"lines": tuple(program.metrics.lines), "files": tuple(program.metrics.files)},
        final=final,
        best=best,
        test=_test(run, state),
        parameters=parameters,
        world_size=(run.result.world_size or outcome.world_size or run.planned.world_size) if has_gpus else None,
        global_batch=run.result.global_batch or outcome.global_batch or run.planned.global_batch or None,
        tokens_per_s=outcome.tokens_per_s or steady_speed(run.curve),
        elapsed_hours=run.elapsed_hours,
        gpu_hours=run.device_hours if has_gpus else None,
        peak_gpu_mem_gb=outcome.peak_gpu_mem_gb,
        attempts=len(run.attempts) or None,
        factors=stated.factors,
        train=train,
        queued_at=stated.queued_at,
        lock=stated.lock.hash if stated.lock is not None else "",
        fingerprint=stated.fingerprint,
        treatment=run.treatment,
        hardware={key: str(value) for key, value in outcome.hardware.items()},
        per_gpu=run.per_gpu,
        versions={key: str(value) for key, value in outcome.versions.items()},
        data=outcome.data,
        precision=outcome.precision,
        compiled=outcome.compiled,
        started_at=run.started_at,
        provenance={key: value for key, value in provenance.items() if value},
        notes=tuple(notes),
    )


def _whole(value: Any) -> int | None:
    return int(value) if is_finite(value) else None


def split_name(name: str, groups: Sequence[str], first_seed: int | None) -> tuple[str, int | None, str]:
    """Split a run's name into group, seed and tag; the longest known group that fits is taken."""
    known = "|".join(map(re.escape, sorted(groups, key=len, reverse=True)))
    match = re.fullmatch(rf"({known})(?:-s(\d+))?(?:-(.+))?", name) if groups else None
    match = match or re.fullmatch(r"(.+?)-s(\d+)(?:-([A-Za-z0-9_.]+))?", name)
    if match is None:
        return name, first_seed, ""
    group, seed, tag = match.groups()
    return group, int(seed) if seed else first_seed, tag or ""


def end_points(validations: Validations | None) -> tuple[Point | None, Point | None]:
    """Return the last validation and the one with the lowest loss; a loss that isn't a number is taken as infinite."""
    if validations is None:
        return None, None
    finite = np.where(np.isfinite(validations.loss), validations.loss, np.inf)
    final, best = (
        Point(step=int(validations.step[row]), loss=_or_inf(validations.loss[row]), full=bool(validations.full[row]))
        for row in (-1, int(np.argmin(finite)))
    )
    return final, best if math.isfinite(best.loss) else None


def _end_points(run: RunFiles, state: str, reason: str) -> tuple[Point | None, Point | None]:
    """Complete the end points by what the outcome of a finished run states."""
    final, best = end_points(run.validations)
    if state in FINAL:
        last, lowest = (
            None
            if end is None or end.val_loss is None
            else Point(step=end.step, loss=_or_inf(end.val_loss), full=end.val_full)
            for end in (run.outcome.final, run.outcome.best)
        )
        if last is not None and (final is None or last.step >= final.step):
            final = last
        if best is None and lowest is not None and math.isfinite(lowest.loss):
            best = lowest
    if DIVERGED in codes(reason):
        final = Point(step=run.outcome.step or (final.step if final else 0), loss=math.inf)
    return final, best


def _test(run: RunFiles, state: str) -> Point | None:
    """Return what a finished run was on its test file."""
    end = run.outcome.final
    if state != State.DONE or end is None or end.test_loss is None:
        return None
    return Point(step=end.step, loss=_or_inf(end.test_loss), full=True)


def _or_inf(loss: float) -> float:
    """Return the loss, infinity for NaN."""
    return float(loss) if not math.isnan(loss) else math.inf

"""Read a run directory of the toolkit, finished or not, into a ``LoadedRun``."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TypeVar

import numpy as np

from oelm_jobs.agent import rundir
from oelm_jobs.agent.reasons import codes
from oelm_jobs.agent.states import FINAL, State

from . import files, run_files, run_state
from .loaded_run import DIVERGED, LoadedRun, Point, Validations
from .metrics import steady_speed
from .run_files import RunFiles

_NAME = re.compile(r"(?P<group>.+?)(?:-s(?P<seed>\d+))?(?:-(?P<tag>[A-Za-z0-9_.]+))?$")
_T = TypeVar("_T")


def load(path: Path, *, now: float, groups: tuple[str, ...] = (), first_seed: int | None = None) -> LoadedRun:
    """Read one run directory, finished or not.

    ``groups`` and ``first_seed`` tell apart names such as ``a-s43`` where no record names group and seed; ``now``
    (Unix seconds) decides whether a run without an end record is still running. Never raises for what the files hold:
    notes say what was not understood.
    """
    run = run_files.read(path, now=now)
    result, planned, outcome = run.result, run.planned, run.outcome
    name = _stated(result.run, planned.run, planned.name, rundir.run_name(path.name))
    group, seed, tag = split_name(name, groups, first_seed)
    state, reason = run_state.state_of(run)
    final, best = _end_points(run, state, reason)
    return LoadedRun(
        name=name,
        group=_stated(result.group, planned.group, group),
        label=_stated(result.label, planned.label),
        seed=_known(result.seed, planned.seed, run_files.whole(run.train.get("seed"), seed)),
        tag=_stated(result.tag, planned.tag, tag),
        path=path,
        study=_stated(result.study, planned.study),
        status=state,
        reason=reason,
        max_steps=run.max_steps,
        last_step=run.last_step,
        curve=run.curve,
        validations=run.validations,
        final=final,
        best=best,
        parameters=run.parameters,
        world_size=_stated(result.world_size, outcome.world_size, planned.world_size),
        global_batch=_stated(result.global_batch, outcome.global_batch, planned.global_batch),
        tokens_per_s=_stated(outcome.tokens_per_s, steady_speed(run.curve)),
        elapsed_hours=run.elapsed_hours,
        gpu_hours=run.gpu_hours,
        peak_gpu_mem_gb=outcome.peak_gpu_mem_gb,
        attempts=len(run.attempts) or None,
        factors=_stated(result.factors, planned.factors),
        train=run.train,
        fingerprint=_stated(result.fingerprint, planned.fingerprint),
        treatment=run.treatment,
        hardware={key: str(value) for key, value in outcome.hardware.items()},
        versions={key: str(value) for key, value in outcome.versions.items()},
        data=outcome.data,
        precision=outcome.precision,
        started_at=run.started_at,
        provenance=_provenance(run),
        # While a run is running, its last line may be half written.
        notes=tuple(note for note in run.notes if note is not run.cut_off or state != State.RUNNING),
    )


def _stated(*values: _T) -> _T:
    """Return the first value that says something, else the last."""
    return next((value for value in values if value), values[-1])


def _known(*values: _T | None) -> _T | None:
    """Return the first value that isn't None; a zero says something."""
    return next((value for value in values if value is not None), None)


def _provenance(run: RunFiles) -> dict[str, str]:
    result, planned = run.result, run.planned
    known = {
        "revision": _stated(result.revision, planned.revision, str(run.outcome.versions.get("revision", ""))),
        "snapshot": _stated(result.snapshot, planned.snapshot),
        "train_code": _stated(result.train_code, planned.train_code),
        "target": _stated(result.target, planned.target),
        "diff": planned.diff,
    }
    return {key: value for key, value in known.items() if value}


def split_name(name: str, groups: tuple[str, ...], first_seed: int | None) -> tuple[str, int | None, str]:
    """Split a run's name into group, seed and tag; the longest known group that fits is taken."""
    for known in sorted(groups, key=len, reverse=True):
        if name == known or name.startswith(known + "-"):
            rest = re.fullmatch(r"(?:-s(\d+))?(?:-(.+))?", name[len(known) :])
            assert rest is not None  # every tail that begins with a dash fits the second alternative
            return known, int(rest[1]) if rest[1] else first_seed, rest[2] or ""
    match = _NAME.fullmatch(name)
    if match is None or match["seed"] is None:
        return name, first_seed, ""
    return match["group"], int(match["seed"]), match["tag"] or ""


def end_points(validations: Validations | None) -> tuple[Point | None, Point | None]:
    """Return the last validation and the one with the lowest loss; a loss that isn't a number is taken as infinite."""
    if validations is None:
        return None, None
    last = len(validations.step) - 1
    final = Point(
        step=int(validations.step[last]), loss=_or_inf(validations.loss[last]), full=bool(validations.full[last])
    )
    finite = np.where(np.isfinite(validations.loss), validations.loss, np.inf)
    low = int(np.argmin(finite))
    if not math.isfinite(finite[low]):
        return final, None
    return final, Point(step=int(validations.step[low]), loss=float(finite[low]), full=bool(validations.full[low]))


def _end_points(run: RunFiles, state: str, reason: str) -> tuple[Point | None, Point | None]:
    """Complete the end points by what the outcome of a finished run states."""
    outcome = run.outcome
    final, best = end_points(run.validations)
    if state in FINAL:
        stated = outcome.final
        loss = files.number(stated.val_loss) if stated else None
        if stated is not None and loss is not None and (final is None or stated.step >= final.step):
            final = Point(step=stated.step, loss=_or_inf(loss), full=stated.val_full)
        stated = outcome.best
        loss = files.number(stated.val_loss) if stated else None
        if best is None and stated is not None and loss is not None and math.isfinite(loss):
            best = Point(step=stated.step, loss=loss, full=stated.val_full)
    if DIVERGED in codes(reason):
        final = Point(step=outcome.step or (final.step if final else 0), loss=math.inf, full=False)
    return final, best


def _or_inf(loss: float) -> float:
    """Return the loss, infinity for NaN."""
    return float(loss) if not math.isnan(loss) else math.inf

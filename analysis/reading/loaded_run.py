"""A loaded run: curves, end points, counts and what is known about it.

Losses are in nats per token. What isn't known is None, or NaN inside an array, never zero.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oelm_jobs.agent.reasons import codes
from oelm_jobs.agent.sentences import Sentence, _
from oelm_jobs.agent.states import State

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]


DIVERGED = "diverged"
"""Code of the reason of a run whose loss is no longer finite, and status of its outcome."""


def perplexity(loss: float) -> float:
    """Return exp(loss), infinity where that is too large for a float."""
    return math.exp(loss) if loss < 700 else math.inf


@dataclass(frozen=True, kw_only=True)
class Records:
    """Columns of equal length, the step strictly increasing."""

    step: Ints
    """Optimizer steps done."""
    tokens: Floats
    """Tokens trained on until then."""
    loss: Floats
    """Loss; not finite where the run diverged."""
    time: Floats
    """Unix seconds."""


@dataclass(frozen=True, kw_only=True)
class Curve(Records):
    """What the trainer logged while training; the loss is the mean since the record before."""

    lr: Floats
    """Learning rate."""
    tokens_per_s: Floats
    """Training steps only, all GPUs together."""


@dataclass(frozen=True, kw_only=True)
class Validations(Records):
    """Every validation."""

    full: NDArray[np.bool_]
    """True where the whole validation file was used."""
    sampled: Floats
    """Loss on the usual part of the file where the whole was used as well, else NaN."""

    @property
    def curve(self) -> Validations:
        """The validations that make one curve: those on a part of the file where there are some, since the whole file's
        loss is lower or higher for reasons other than training.
        """
        is_both = self.full & (self.sampled == self.sampled)
        if is_both.any():
            kept = ~self.full | is_both
        elif self.full.all() or not self.full.any():
            return self
        else:  # a run from before the last step was told on the part as well
            kept = ~self.full
        columns = {field.name: getattr(self, field.name)[kept] for field in fields(self)}
        both = is_both[kept]
        columns["loss"][both], columns["full"][both] = columns["sampled"][both], False
        return Validations(**columns)


@dataclass(frozen=True, kw_only=True)
class Point:
    """One validation."""

    step: int
    """Optimizer steps done."""
    loss: float
    """Validation loss."""
    full: bool = False
    """True where the whole validation file was used."""

    @property
    def ppl(self) -> float:
        """Perplexity; infinite where the loss is too large for a float."""
        return perplexity(self.loss)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One value of a metric."""

    step: int
    """The step that it was told at."""
    value: float
    """It, in the metric's own unit."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """All values of one metric; there is at least one."""

    step: Ints
    """Strictly increasing."""
    value: Floats
    """As the program told them, NaN and infinity included."""
    is_counted: bool = False
    """True where no step is told: the values are numbered from 1."""

    @property
    def last(self) -> Reading:
        """The last value."""
        return Reading(step=int(self.step[-1]), value=float(self.value[-1]))

    def best(self, goal: str) -> Reading | None:
        """Return the first of the best finite values; None where none is finite.

        Args:
            goal: ``minimize`` or ``maximize``.
        """
        finite = [row for row, value in enumerate(self.value.tolist()) if math.isfinite(value)]
        if not finite:
            return None
        row = (max if goal == "maximize" else min)(finite, key=lambda row: float(self.value[row]))
        return Reading(step=int(self.step[row]), value=float(self.value[row]))


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Parameter counts; None where unknown."""

    total: int | None = None
    """All parameters, the padding of the vocabulary excluded."""
    trainable: int | None = None
    """Those that the optimizer changes."""
    frozen: int | None = None
    """Those that it doesn't."""
    qk: int | None = None
    """Those in query and key projections."""
    embedding: int | None = None
    """Those in token and position embeddings."""

    @property
    def other(self) -> int | None:
        """Those outside of embeddings, queries and keys."""
        if self.total is None or self.embedding is None or self.qk is None:
            return None
        return self.total - self.embedding - self.qk

    @property
    def frozen_share(self) -> float | None:
        """Frozen parameters as a share of all."""
        return self.frozen / self.total if self.frozen is not None and self.total else None

    @property
    def frozen_share_without_embedding(self) -> float | None:
        """Frozen parameters as a share of those outside the embeddings."""
        if self.frozen is None or self.total is None or self.embedding is None or self.total <= self.embedding:
            return None
        return self.frozen / (self.total - self.embedding)


@dataclass(frozen=True, kw_only=True)
class TensorGroup:
    """An entry of treatment.json's ``groups``."""

    requires_grad: bool | None = None
    """Whether gradients are taken."""
    in_optimizer: bool | None = None
    """Whether the optimizer holds it."""
    sha256_start: str = ""
    """Hash of the tensors before the first step."""
    sha256_end: str = ""
    """Hash after the last step; empty while the run isn't finished."""
    frozen_from_step: int = 0
    """The steps after which it was frozen; 0 where it was from the start, or never."""
    sha256_frozen: str = ""
    """Hash of the tensors then."""

    @property
    def changed(self) -> bool | None:
        """Whether training changed the tensors; None where no hash of the end is known."""
        return self.sha256_end != self.sha256_start if self.sha256_end else None


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Parameters of one part of the model."""

    name: str
    """The module's name."""
    total: int
    """All parameters in it."""
    trainable: int
    """Those that the optimizer changes."""


@dataclass(frozen=True, kw_only=True)
class Treatment:
    """treatment.json: what was done to the factor."""

    model_type: str = ""
    """``gpt`` or ``oelm``."""
    freeze_ffn: bool | None = None
    """What was asked for."""
    qk_init: str = ""
    """How the Q/K projections were drawn."""
    freeze_q: bool = False
    """Whether queries alone were to be frozen."""
    freeze_k: bool = False
    """Whether keys alone were."""
    freeze_layers: str = "all"
    """In which layers."""
    freeze_from_step: int = 0
    """After how many steps."""
    qk_norm: bool = False
    """Whether queries and keys are divided by their root mean square."""
    position: str = "learned"
    """How the model knows places."""
    parameters: Parameters = Parameters()
    """Counts."""
    groups: Mapping[str, TensorGroup] = field(default_factory=dict)
    """``qk`` (or ``q`` and ``k``, where one of them alone was frozen), ``qk_trained`` (in layers that freezing leaves
    out), ``ffn`` (where it was frozen) and ``other``.
    """
    layers: tuple[Layer, ...] = ()
    """Counts by part of the model."""


@dataclass(frozen=True, kw_only=True)
class LoadedRun:
    """One run, as read from its folder."""

    name: str
    """Run name."""
    group: str
    """Group name."""
    label: str
    """What tables and figures call the group."""
    seed: int | None
    """Seed; None where nothing says."""
    path: Path
    """Its folder."""
    study: str = ""
    """The study that its files name; empty where they name none."""
    tag: str = ""
    """Tag of its name."""
    source: str = "rundir"
    """``rundir`` (a run directory of the toolkit) or ``log`` (a log alone)."""
    is_script: bool = False
    """True where it ran a program of the user's own."""
    is_inexact: bool = False
    """True where such a program went on from a checkpoint: nothing shows that its result is that of a run without a
    stop.
    """
    status: str = State.UNKNOWN
    """A state (agent.states.State), or UNKNOWN where no record says."""
    reason: str = ""
    """Why it is so: ``diverged``, ``oom`` and so on."""
    max_steps: int | None = None
    """Planned steps."""
    last_step: int | None = None
    """The largest step seen."""
    curve: Curve | None = None
    """Training records."""
    validations: Validations | None = None
    """Validation records."""
    series: Mapping[str, Series] = field(default_factory=dict)
    """What a script told of itself, by metric; empty for the built-in trainer, which has the two tables above."""
    goals: Mapping[str, str] = field(default_factory=dict)
    """``minimize`` or ``maximize``, by metric; the first one is the main metric."""
    told_by: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Patterns of ``lines`` and ``files`` by which a script's metrics were found, as its study had them then."""
    final: Point | None = None
    """The last validation."""
    best: Point | None = None
    """The lowest validation loss."""
    test: Point | None = None
    """The last step on data that nothing was chosen by; None where it wasn't measured."""
    parameters: Parameters = field(default_factory=Parameters)
    """Counts."""
    world_size: int | None = None
    """Number of processes."""
    global_batch: int | None = None
    """Sequences per step."""
    tokens_per_s: float | None = None
    """Median over steady steps, all GPUs together."""
    elapsed_hours: float | None = None
    """Wall-clock hours from start to end."""
    gpu_hours: float | None = None
    """Hours times GPUs, over all attempts; of a run without any, times the slots of processors that it had."""
    peak_gpu_mem_gb: float | None = None
    """Peak memory of one GPU."""
    checkpoint_bytes: int | None = None
    """Size of its newest checkpoint with optimizer state."""
    attempts: int | None = None
    """How often it was started."""
    factors: Mapping[str, Any] = field(default_factory=dict)
    """Train keys that its group sets."""
    train: Mapping[str, Any] = field(default_factory=dict)
    """Resolved configuration; empty where unknown."""
    started_at: float | None = None
    """Unix seconds of the first start."""
    queued_at: float | None = None
    """Unix seconds when it was first submitted, by the clock of its target."""
    lock: str = ""
    """Hash of the lock of its study that was in force then; empty where there was none, or nothing says."""
    fingerprint: str = ""
    """Hash of what makes the run itself."""
    treatment: Treatment | None = None
    """What was done to the factor."""
    hardware: Mapping[str, str] = field(default_factory=dict)
    """``device``, ``name`` (model), ``host``."""
    per_gpu: int = 1
    """So many runs could have its GPUs at a time: more than 1 void what is said of its speed."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """python, torch, numpy, revision and more."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """Hashes and token counts of the data."""
    precision: str = ""
    """``fp32``, ``bf16`` …; empty where unknown."""
    compiled: bool | None = None
    """Whether its network was compiled; None where unknown."""
    provenance: Mapping[str, str] = field(default_factory=dict)
    """``revision``, ``snapshot``, ``train_code``, ``target``, ``diff`` (against the revision); those that are known."""
    notes: tuple[Sentence, ...] = ()
    """What a reader should know about how it was read (lines not understood, repeated steps …)."""

    @property
    def diverged(self) -> bool:
        """True where the trainer gave up on a loss that isn't finite, or the last validation isn't finite; of a script:
        the last value of its main metric.
        """
        if (main := self.series.get(self.main)) is not None and not math.isfinite(main.last.value):
            return True
        return DIVERGED in codes(self.reason) or (self.final is not None and not math.isfinite(self.final.loss))

    @property
    def main(self) -> str:
        """Name of a script's main metric; empty where it has none."""
        return next(iter(self.goals), "")

    @property
    def finished(self) -> bool:
        """True where the run came to its planned end."""
        return self.status == State.DONE

    @property
    def told_status(self) -> str:
        """Its status, and in parentheses why."""
        return _("{status} ({reason})", self.status, self.reason) if self.reason else self.status

    @property
    def is_on_cpus(self) -> bool:
        """True where it is known to have used no GPU."""
        return self.hardware.get("device") == "cpu"

    @property
    def tokens_per_s_per_gpu(self) -> float | None:
        """Speed of one GPU."""
        return self.tokens_per_s / self.world_size if self.tokens_per_s is not None and self.world_size else None


def told_apart(runs: Sequence[LoadedRun]) -> list[LoadedRun]:
    """Return the runs with the folder added to names that occur more than once (two result folders with the same
    groups).
    """
    count = Counter(run.name for run in runs)
    return [replace(run, name=f"{run.name} ({run.path})") if count[run.name] > 1 else run for run in runs]


def finished(runs: Sequence[LoadedRun]) -> Sequence[LoadedRun]:
    """Return the runs that came to their end or diverged (a log can't say and counts); all of them where none has."""
    return [run for run in runs if run.finished or run.diverged or run.source == "log"] or runs


def on_cpus(runs: Sequence[LoadedRun]) -> bool:
    """Tell whether no run is known to have used a GPU, and one to have used none."""
    return {run.is_on_cpus for run in runs if run.hardware} == {True}

"""Dataclasses of studies and their runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..agent.sentences import _
from .program import Program

if TYPE_CHECKING:
    from ..agent.record_types import Extended, Left


@dataclass(frozen=True, kw_only=True)
class Group:
    """One arm of a study."""

    name: str
    """Unique within the study; letters, digits, ``_`` and ``-``."""
    label: str
    """What tables and figures call it."""
    factors: Mapping[str, object]
    """The study's factors that this group sets."""
    gpus: int | tuple[int, ...]
    """Any so many GPUs, or exactly these indices (honoured for the study's first seed)."""
    port: int | None
    """Preferred port of torchrun; a free one is taken where it is None or in use."""
    declared: Mapping[str, object] = field(default_factory=dict)
    """Train keys besides that this group sets: tuned for each group, or declared unequal with a reason."""
    cpus: int = 1
    """Of a script without GPUs: how many CPU slots its runs ask for."""

    @property
    def values(self) -> dict[str, object]:
        """Every train key that this group sets."""
        return {**self.declared, **self.factors}

    @property
    def world_size(self) -> int:
        """Number of processes: one for each GPU."""
        return self.gpus if isinstance(self.gpus, int) else len(self.gpus)


RELATIONS = ("reduction", "increase", "equivalent_within", "at_most_above", "at_most_below", "ratio_at_least")
"""Decision rules that a hypothesis can declare."""

SCALES = ("ratio", "difference")
"""What is made of the values of two arms: group / against, or group − against in the metric's own units."""

METRICS = (
    "final_val_ppl",
    "final_val_loss",
    "best_val_ppl",
    "best_val_loss",
    "trainable_params",
    "total_params",
    "speed",
    "gpu_hours",
)
"""Quantities of the built-in trainer's runs that a hypothesis can be about."""


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """A claim about two groups with the rule that decides it.

    Rules: ``reduction = [low, high]`` (1 − group/against lies inside), ``increase = [low, high]`` (group/against − 1
    does), ``equivalent_within = x`` (differs by less than the fraction x, both ways), ``at_most_above = x`` and
    ``at_most_below = x`` (at most the fraction x above or below, one-sided), ``ratio_at_least = r`` (group/against ≥
    r − margin). On the scale of differences the numbers are in the metric's own units, and there is no
    ``ratio_at_least``.
    """

    id: str
    """``H1`` and so on."""
    metric: str
    """One of METRICS, or one that the study's own program tells (``is_told``)."""
    group: str
    """The arm that the claim is about."""
    against: str
    """The arm that it is compared with."""
    relation: str
    """One of RELATIONS."""
    bounds: tuple[float, ...]
    """``(low, high)`` for reduction and increase, of which high may be infinite; one number otherwise."""
    margin: float = 0.0
    """What ``ratio_at_least`` concedes, as a fraction."""
    level: float = 0.95
    """Confidence of the one-sided bound."""
    claim: str = ""
    """The claim in words, where the study gives it."""
    scale: str = "ratio"
    """One of SCALES."""
    is_told: bool = False
    """True where the metric is one that the study's own program tells by step, whatever its name."""
    at: str = "last"
    """The value of such a metric that counts: ``last`` or ``best``."""
    goal: str = "minimize"
    """Which values are better: ``minimize`` or ``maximize``; empty where the study doesn't say."""
    measured: str = ""
    """On how much of the validation data such a metric is measured: ``sampled``, ``full``, or empty where the study
    doesn't say.
    """


@dataclass(frozen=True, kw_only=True)
class SpeedTrial:
    """How long a speed trial measures."""

    rounds: int
    """Paired rounds, at least 15."""
    seconds: float
    """Length of one measurement of one arm, about, in seconds."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """One file in ``jobs/``."""

    name: str
    """The file's name without ``.toml``."""
    path: Path
    """Where it was read."""
    question: str
    """What the study asks, in one sentence."""
    is_default: bool
    """True for the study that commands mean when none is named."""
    factors: tuple[str, ...]
    """The train keys that the question is about: groups set them."""
    seeds: tuple[int, ...]
    """The first one's runs carry the bare group name."""
    global_batch: int
    """Sequences per step, the same for every group; 0 where a script has its own."""
    settings: Mapping[str, Any]
    """What groups have in common, without factors and what is derived: of the built-in trainer every scientific and
    execution key, defaults filled in; of a script what the study says.
    """
    groups: Mapping[str, Group]
    """By name, in the file's order."""
    unequal: Mapping[str, str]
    """Declared differences: key to reason."""
    hypotheses: tuple[Hypothesis, ...]
    """In the file's order."""
    max_retries: int
    """How often a crashed run is started again by its supervisor."""
    target_loss: float | None = None
    """Validation loss (nats) to which time and tokens are counted; the report picks one where it is None."""
    speed_trial: SpeedTrial | None = None
    """How the arms of the speed hypothesis are timed side by side before training; None: they are not."""
    program: Program | None = None
    """The script that runs execute; None for the built-in trainer."""
    tuned: tuple[str, ...] = ()
    """Train keys that were tuned for each group with equal budgets; they may differ."""

    @property
    def declared(self) -> dict[str, str]:
        """Keys that may differ over groups, with the reason: declared unequal, or tuned for each group."""
        return {**dict.fromkeys(self.tuned, _("tuned for each group with equal budgets")), **self.unequal}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One group × one seed with its fully resolved configuration, bound to a target."""

    name: str
    """``oelm_freeze``, ``oelm_freeze-s43``, with ``-TAG``."""
    study: str
    """The study's name."""
    group: str
    """The group's name."""
    label: str
    """The group's label."""
    seed: int
    """Seed of initial weights, dropout and data order."""
    tag: str
    """Told apart from the study's plain runs by it; empty for those."""
    target: str
    """The target's name."""
    run_dir: str
    """Absolute path on the target."""
    gpus: int | tuple[int, ...]
    """What the lease asks for."""
    port: int | None
    """Preferred port of torchrun."""
    global_batch: int
    """Sequences per step; 0 where a script has its own."""
    factors: Mapping[str, object]
    """The group's factors."""
    settings: Mapping[str, Any]
    """What its program is given: of the trainer every key, with paths as the target sees them."""
    max_retries: int
    """How often a crash is retried."""
    fingerprint: str
    """Hash of what makes the run scientifically itself; empty while the data's hash isn't known (dry run)."""
    trial: SpeedTrial | None = None
    """Of a speed trial: how long it measures; None for a training."""
    arms: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """Of a speed trial: the factors of each arm, which take turns on the same devices; empty for a training."""
    extended_from: Extended | None = None
    """What a longer run goes on from."""
    program: Program | None = None
    """The script that it executes; None for the built-in trainer."""
    data: tuple[tuple[str, str], ...] = ()
    """Of a script: what data it calls by a relative path, and where they lie on the target."""
    cpus: int = 1
    """Of a script without GPUs: how many CPU slots it asks for."""
    code: str = ""
    """Of a script that is being submitted: hash of its code."""
    left: tuple[Left, ...] = ()
    """What it leaves on other targets."""

    @property
    def world_size(self) -> int:
        """Number of processes: one for each GPU."""
        return self.gpus if isinstance(self.gpus, int) else len(self.gpus)

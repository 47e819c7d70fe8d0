"""Dataclasses of studies and their runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..agent.sentences import _
from .block import Block
from .lineage import SUCCESS, Input, Parent, Source
from .notify import Notify
from .program import Program
from .sweep import Sweep

if TYPE_CHECKING:
    from ..agent.record_types import Extended, Left


@dataclass(frozen=True, kw_only=True)
class Group:
    """One arm of a study."""

    name: str
    """Unique within the study; letters, digits, ``_`` and ``-``."""
    label: str
    """What tables and figures call the group; absent: its name."""
    factors: Mapping[str, object]
    """The study's factors that this group sets."""
    gpus: int | tuple[int, ...]
    """How many GPUs each run of the group takes, any of them (``2``), or which ones (``[0, 1]``; further seeds may have
    others); absent: 1. Where a machine has no GPU each is a CPU slot. ``0``, of a program: none, but CPU slots.
    """
    port: int | None
    """Port that the run's processes meet at, 1024 to 65535; a free one where it is absent or taken."""
    declared: Mapping[str, object] = field(default_factory=dict)
    """Train keys besides that this group sets: tuned for each group, or declared unequal with a reason."""
    cpus: int = 1
    """Of a program with ``gpus = 0``: how many CPU slots each run takes (on Slurm: cores)."""
    needs: tuple[Source, ...] = ()
    """Groups whose runs have to be over before those of this one begin ([how](../howto/lineage.md)): ``["gpt_base"]``,
    ``"STUDY/GROUP"`` of another study; each waits for the run of its own seed, or all for ``"GROUP-sSEED"``.
    """
    when: str = SUCCESS
    """``"success"``: what ``needs`` names has to be DONE; ``"always"``: over, however it ended."""
    inputs: Mapping[str, Input] = field(default_factory=dict)
    """Of a program: what each run takes from another one, which it waits for, by the name of its placeholder:
    ``{ init = "STUDY/GROUP:best" }``, ``:latest`` or ``:PATH`` in its run directory. The trainer has ``init_from``.
    """

    @property
    def values(self) -> dict[str, object]:
        """Every train key that this group sets."""
        return {**self.declared, **self.factors}

    @property
    def world_size(self) -> int:
        """Number of processes: one for each GPU."""
        return self.gpus if isinstance(self.gpus, int) else len(self.gpus)


REDUCTION = "reduction"
"""``[low, high]``: 1 − group / against lies inside; ``high`` may be ``inf``."""
INCREASE = "increase"
"""``[low, high]``: group / against − 1 lies inside; ``high`` may be ``inf``."""
EQUIVALENT_WITHIN = "equivalent_within"
"""The group differs by less than this fraction, both ways."""
AT_MOST_ABOVE = "at_most_above"
"""The group is at most this fraction above (one-sided)."""
AT_MOST_BELOW = "at_most_below"
"""The group is at most this fraction below (one-sided)."""
RATIO_AT_LEAST = "ratio_at_least"
"""group / against is at least this number − ``margin``."""
BETTER_BY = "better_by"
"""The group is better by at least this fraction: lower, or higher where the metric is one to maximize (``speed``, or by
the study's ``goal``); ``0``: better at all.
"""
RELATIONS = (REDUCTION, INCREASE, EQUIVALENT_WITHIN, AT_MOST_ABOVE, AT_MOST_BELOW, RATIO_AT_LEAST, BETTER_BY)
"""Decision rules that a hypothesis can declare, one each. On the scale of differences the numbers are in the metric's
own units, and there is no ``ratio_at_least``.
"""

SCALES = ("ratio", "difference")
"""What is made of the values of two arms: group / against, or group − against in the metric's own units."""

FINAL_VAL_PPL = "final_val_ppl"
"""Perplexity at the last step, on the whole validation file."""
FINAL_VAL_LOSS = "final_val_loss"
"""Loss at the last step, on the whole validation file, in nats per token."""
BEST_VAL_PPL = "best_val_ppl"
"""Lowest perplexity of all validations; a secondary end point."""
BEST_VAL_LOSS = "best_val_loss"
"""Lowest loss of all validations; a secondary end point."""
FINAL_TEST_PPL = "final_test_ppl"
"""Perplexity at the last step on the test file, by which nothing was chosen; needs ``judge_on = "test"``."""
FINAL_TEST_LOSS = "final_test_loss"
"""The same as a loss, in nats per token."""
TRAINABLE_PARAMS = "trainable_params"
"""Parameters that are trained: an exact count, which needs no statistics."""
TOTAL_PARAMS = "total_params"
"""All parameters: an exact count, which needs no statistics."""
SPEED = "speed"
"""Tokens per second, by the speed trial where there is one; on equal hardware alone."""
GPU_HOURS = "gpu_hours"
"""Time times GPUs, over all attempts of a run; on equal hardware alone."""
METRICS = (
    FINAL_VAL_PPL,
    FINAL_VAL_LOSS,
    BEST_VAL_PPL,
    BEST_VAL_LOSS,
    FINAL_TEST_PPL,
    FINAL_TEST_LOSS,
    TRAINABLE_PARAMS,
    TOTAL_PARAMS,
    SPEED,
    GPU_HOURS,
)
"""Quantities of the built-in trainer's runs that a hypothesis can be about."""


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """A claim about two groups with the rule of RELATIONS that decides it."""

    id: str
    """``H1`` and so on."""
    metric: str
    """What is compared: of the built-in trainer a metric of the table below; of a program one that ``goal`` or a
    pattern of ``lines`` names, or ``gpu_hours``.
    """
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
    """Confidence of the one-sided bound, above 0.5 and below 1; all verdicts of a study hold together at it."""
    claim: str = ""
    """The claim in words, for the report."""
    because: str = ""
    """Why the rule's numbers are what they are, for the report, which names the hypotheses that don't say it."""
    scale: str = "ratio"
    """What is made of the two values: ``"ratio"`` (group / against), or ``"difference"`` (group − against, in the
    metric's own units; for metrics that may be zero or negative).
    """
    is_told: bool = False
    """True where the metric is one that the study's own program tells by step, whatever its name."""
    at: str = "last"
    """Of a metric that a program tells: the value that counts, the last one or (by ``goal``) the best one, which is a
    secondary end point.
    """
    goal: str = "minimize"
    """Which values are better: ``minimize`` or ``maximize``; empty where the study doesn't say."""
    measured: str = ""
    """On how much of the validation data such a metric is measured: ``sampled``, ``full``, or empty where the study
    doesn't say.
    """
    holds: str = ""
    """Of a study with ``[blocks]``, over which of them the claim is: ``"each"`` (every one shows it) or ``"mean"`` (the
    mean over them shows it, each with the same weight).
    """

    @property
    def is_higher_better(self) -> bool:
        """Whether larger values of the metric are better."""
        return self.goal == "maximize" or (self.metric == SPEED and not self.is_told)


@dataclass(frozen=True, kw_only=True)
class SpeedTrial:
    """How long a speed trial measures."""

    rounds: int
    """How often all arms are timed in turn; at least 15."""
    seconds: float
    """About how long each arm is measured in a round."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """One file in ``jobs/``."""

    name: str
    """What the study is called, everywhere and for good: a file that is renamed later gives the name that it had."""
    path: Path
    """Where it was read."""
    question: str
    """What the study asks, in one sentence; plan and report begin with it."""
    is_default: bool
    """Whether commands mean this study where none is named. A project's only study needs no such line."""
    factors: tuple[str, ...]
    """The settings that the question is about (of the trainer: scientific keys): groups set them and differ in them."""
    seeds: tuple[int, ...]
    """Each group is run once with each, from 0 on. Runs of the first one are called as the group is, others
    ``GROUP-sSEED``; runs of two groups with the same seed are a pair.
    """
    global_batch: int
    """Sequences per optimizer step, the same for every group; the batch of each process follows from it."""
    settings: Mapping[str, Any]
    """What all groups have in common: in ``[train]`` keys of the [built-in trainer](trainer.md) and ``global_batch``,
    in ``[settings]`` the names and types of the program's own.
    """
    groups: Mapping[str, Group]
    """The arms that are compared, at least one: a table for each, by its name."""
    unequal: Mapping[str, str]
    """Differences between groups that are declared: setting = reason, a text that the report prints."""
    hypotheses: tuple[Hypothesis, ...]
    """What is expected, before anybody has looked: a table for each claim, by its name."""
    max_retries: int
    """How often a crashed run is started again, from its last checkpoint."""
    target_loss: float | None = None
    """Value of the main metric (of the trainer: validation loss, in nats) to which steps, tokens and GPU-hours are
    counted; absent: the report picks one.
    """
    speed_trial: SpeedTrial | None = None
    """How the arms of a hypothesis about ``speed`` are timed side by side on the same devices, before training; absent:
    they are not.
    """
    program: Program | None = None
    """A program of one's own, which runs execute in place of the built-in trainer: with it there is no ``[train]``."""
    tuned: tuple[str, ...] = ()
    """Settings that are tuned for each group: with a ``[sweep]`` of them, whose combinations all groups are tried with
    ([Tuning](../howto/tuning.md)); without one they were tuned elsewhere, with equal budgets, and groups set them.
    """
    confirm_seeds: tuple[int, ...] = ()
    """Where settings are tuned by a ``[sweep]``: the seeds that the best combination of each group is run with to be
    judged, none of them among ``seeds``, by which it is chosen.
    """
    judge_on: str = ""
    """Data that nothing was chosen by: ``"test"``, of the trainer, is ``test.bin`` beside the training file; of a
    program it is a metric that it tells, other than the main one. Absent: what is chosen by.
    """
    notify: Notify | None = None
    """What is told of its runs, and how ([Notifications](../howto/notifications.md)); absent: what the user's own
    ``config.toml`` says.
    """
    sweep: Sweep | None = None
    """What is swept: each group is run with each combination of values, which names its runs; absent: nothing."""
    blocks: Mapping[str, Block] = field(default_factory=dict)
    """Data sets that each group is run on, a table for each, by its name ([Blocks](../howto/blocks.md)); absent: one,
    which the settings name.
    """

    @property
    def is_tuning(self) -> bool:
        """Whether its sweep chooses settings for each group: verdicts rest on the runs that confirm the choice."""
        return bool(self.tuned) and self.sweep is not None

    @property
    def judged_seeds(self) -> tuple[int, ...]:
        """Seeds of the runs that verdicts rest on: where settings are tuned, those that confirm the choice."""
        return self.confirm_seeds if self.is_tuning else self.seeds

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
    """Told apart from the study's plain runs by it; empty for those. In a block it begins with the block's name."""
    block: str = ""
    """The block's name; empty in a study without blocks."""
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
    parents: tuple[Parent, ...] = ()
    """The runs that it needs."""

    @property
    def world_size(self) -> int:
        """Number of processes: one for each GPU."""
        return self.gpus if isinstance(self.gpus, int) else len(self.gpus)

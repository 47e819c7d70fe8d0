"""The types of ``analysis_results.json``, which ``oelm-report --json`` prints.

For the tests and the reference (tools/reference): nothing imports this module when a command runs.
"""

from __future__ import annotations

from typing import Any, TypedDict

Number = float | str | None
"""Infinite ones are ``"inf"`` and ``"-inf"``, unknown ones null."""


class FindingRow(TypedDict):
    """Something that the audit found."""

    severity: str
    """``void``, ``unfair``, ``warning``, ``declared`` or ``note``."""
    text: str
    """What, in the chosen language."""
    groups: list[str]
    """Groups that it is about; empty for all."""
    key: str
    """The configuration's key, where it is about one."""
    metrics: list[str]
    """Metrics that it voids; empty for all (``unfair``) or none (other severities)."""


class DifferenceRow(TypedDict):
    """A key that isn't the same for all groups."""

    key: str
    """Its name."""
    kind: str
    """``scientific`` or ``execution``."""
    values: dict[str, Any]
    """Value by group."""
    reason: str
    """The reason that the study declares; empty where it declares none."""
    unfair: bool
    """Whether it is a scientific one that is not declared."""


class ArmValue(TypedDict):
    """What a run has of a metric."""

    seed: int | None
    """The run's seed; null where it isn't known."""
    run: str
    """The run's name."""
    value: Number
    """Its value."""


class _VerdictMay(TypedDict, total=False):
    scale: str
    """``ratio`` or ``difference``; of metrics that a program tells, as the next two."""
    at: str
    """``last`` or ``best``."""
    goal: str
    """``minimize`` or ``maximize``; empty where the study doesn't say."""


class _Judged(_VerdictMay):
    """A hypothesis with what the data say about it."""

    id: str
    """The hypothesis' name in the study."""
    verdict: str
    """[The verdict](../report.md#verdicts)."""
    claim: str
    """The claim in words, in the chosen language, as all sentences here."""
    rule: str
    """The rule in words."""
    estimate: Number
    """The estimate in the rule's units."""
    interval: str | None
    """The interval in words; null without two seeds."""
    sentence: str
    """The result in a sentence."""
    reasons: list[str]
    """Why the verdict is what it is."""
    metric: str
    """What is compared."""
    group: str
    """The claim's arm."""
    against: str
    """The other arm."""
    relation: str
    """The rule."""
    bounds: list[Number]
    """Its numbers."""
    margin: float
    """What ``ratio_at_least`` concedes."""
    declared_level: float
    """The level that the study declares."""
    method: str
    """How it was judged; empty without data."""
    because: str
    """Why the rule's numbers are what they are; empty where the study doesn't say."""
    ratio: Number
    """The estimate: group / against."""
    ratio_low: Number
    """Its lower bound."""
    ratio_high: Number
    """Its upper bound."""
    sd_log_ratio: Number
    """Standard deviation of the log ratio of a pair (unpaired: of independent runs)."""
    difference: Number
    """The same values as group − against, in the metric's own units; null of a speed trial."""
    difference_low: Number
    """Its lower bound, at the same level."""
    difference_high: Number
    """Its upper bound."""
    sd_difference: Number
    """The same of the difference."""
    region: list[Number]
    """Ratios or differences that satisfy the rule, from and to."""
    one_sided_level: Number
    """Level of each bound, after Holm's adjustment."""
    count: int
    """Pairs; without pairing the smaller number of seeds of the two arms."""
    p_supported: Number
    """p value of the claim, not adjusted."""
    p_refuted: Number
    """p value of its opposite, not adjusted."""
    step: int | None
    """Step at which the values are compared."""
    values: dict[str, list[ArmValue]]
    """``group`` and ``against`` to what their runs have."""


class BlockRow(_Judged):
    """A hypothesis with what the data of one block say about it."""

    block: str
    """The block's name."""


class _OverBlocks(TypedDict, total=False):
    holds: str
    """``each`` or ``mean``: over which blocks the claim is. As the next one in a study with ``[blocks]`` alone."""
    blocks: list[BlockRow]
    """What each block alone shows; these do not hold together."""


class VerdictRow(_Judged, _OverBlocks):
    """A hypothesis with what the data say about it."""


class PointRow(TypedDict):
    """A validation."""

    step: int
    """Its step."""
    val_loss: Number
    """Loss, in nats per token."""
    val_ppl: Number
    """Perplexity."""
    whole_file: bool | None
    """Whether the whole validation file was used; null where that isn't known."""


class ValidationsRow(TypedDict):
    """The validations of a run."""

    count: int
    """How many."""
    first_step: int
    """Step of the first."""
    last_step: int
    """Step of the last."""


class TestRow(TypedDict):
    """The last step on the test file."""

    step: int
    """The step."""
    test_loss: Number
    """Loss, in nats per token."""
    test_ppl: Number
    """Perplexity."""


class _RunMay(TypedDict, total=False):
    block: str
    """The block that it is in; empty where it is in none. In a study with ``[blocks]`` alone."""
    test: TestRow
    """Of a study that is judged on a test file."""
    metrics: dict[str, Any]
    """Of a program: name of a metric to ``count``, ``last`` and, where it has a ``goal``, that and ``best``."""


class ResultRun(_RunMay):
    """A run."""

    run: str
    """Its name."""
    group: str
    """Its group's name."""
    seed: int | None
    """Its seed; null where it isn't known."""
    tag: str
    """Its tag; empty where it has none."""
    source: str
    """``rundir`` (a run directory of the toolkit) or ``log`` (a log alone)."""
    status: str
    """Where it stands."""
    reason: str
    """Why, in English."""
    max_steps: int | None
    """How many steps it takes."""
    last_step: int | None
    """The last step that it told."""
    final: PointRow | None
    """The validation at its last step."""
    best: PointRow | None
    """The best one."""
    validations: ValidationsRow | None
    """All of them; null where there is none."""
    parameters: dict[str, Any]
    """Counts of parameters."""
    world_size: int | None
    """Number of processes."""
    global_batch: int | None
    """Sequences per step."""
    tokens_per_s: Number
    """Median over steady steps."""
    elapsed_hours: Number
    """Over all attempts."""
    gpu_hours: Number
    """Over all attempts, times GPUs."""
    peak_gpu_mem_gb: Number
    """Most memory of a GPU."""
    attempts: int | None
    """How often it was started."""
    fingerprint: str
    """Hash of what makes it scientifically itself."""
    factors: dict[str, Any]
    """The group's factors."""
    train: dict[str, Any]
    """Its settings."""
    hardware: dict[str, str]
    """``device``, ``name`` (model), ``host``; those that are known."""
    versions: dict[str, str]
    """``python``, ``torch``, ``numpy``, ``revision`` and more."""
    data: dict[str, Any]
    """Hashes and token counts of its data."""
    precision: str
    """``fp32``, ``bf16`` and the like; empty where it isn't known."""
    provenance: dict[str, str]
    """``revision``, ``snapshot``, ``train_code``, ``target``, ``diff`` (against the revision); those that are known."""
    notes: list[str]
    """How its files were read, in the chosen language."""


class LockRow(TypedDict):
    """What the study's lock shows ([Locking](../howto/lock.md))."""

    sha256: str
    """Hash of the lock that verdicts are held to."""
    locked_at: str
    """When it was written, as a date."""
    said: list[str]
    """What was locked before what, in the chosen language."""
    search_locked_first: bool | None
    """Whether search space, budget and selection rule were locked before the first trial was queued; null without one,
    and where no record tells.
    """
    rest_locked_first: bool | None
    """Whether all the rest was locked before the first run was queued that verdicts rest on; null likewise."""


class TrialRow(TypedDict):
    """A combination that is tried with a seed."""

    run: str
    """Its run's name."""
    values: dict[str, Any]
    """By setting."""
    state: str
    """``done``, ``failed``, ``going``, ``missing`` (not run to its end) or ``unknown`` (not known here)."""
    result: Number
    """What is chosen by; null where there is none."""


class TunedGroup(TypedDict):
    """How a group was tuned."""

    trials: list[TrialRow]
    """Those that the study plans, in their order."""
    extra: list[str]
    """Further runs of the group, with other values or seeds."""
    steps: int | None
    """Steps of all trials that are over."""
    gpu_hours: Number
    """Of all that was run."""
    chosen: dict[str, Any] | None
    """The values that were recorded; null before ``oelm-submit --confirm``."""
    best_now: dict[str, Any] | None
    """The values that the trials choose now."""
    confirming: list[str]
    """Runs that confirm them, on which verdicts rest."""
    strange: list[str]
    """Runs tagged as such with other values, on which none does."""


class TuningRow(TypedDict):
    """How a study was tuned ([Tuning](../howto/tuning.md))."""

    recorded_at: str | None
    """When the choice was recorded; null before."""
    rule: str
    """How is chosen, in English."""
    seeds: list[int]
    """By which is chosen."""
    confirm_seeds: list[int]
    """With which the choice is confirmed."""
    judge_on: str
    """Data that nothing was chosen by; empty where there are none."""
    sound: bool
    """Whether nothing is wrong with it."""
    limits: list[str]
    """What is, in the chosen language."""
    groups: dict[str, TunedGroup]
    """By group."""


class EdgeRow(TypedDict):
    """A group whose runs need those of another one."""

    source: str
    """``GROUP``, or ``STUDY/GROUP`` of another study; with ``-sSEED`` where all need the run of one seed."""
    group: str
    """The group, named likewise."""
    input: str
    """What it calls what it takes; empty where it only waits."""
    artifact: str
    """``best``, ``latest`` or a path; empty where it takes nothing."""
    when: str
    """``success`` or ``always``."""


class _ResultsMay(TypedDict, total=False):
    tuning: TuningRow
    """How its settings were tuned by a sweep."""
    lineage: list[EdgeRow]
    """What groups need of others; there where any does."""


class Results(_ResultsMay):
    """Everything that a report knows."""

    version: int
    """1; raised when a key changes its meaning or goes away."""
    made_at: str
    """When, as a date."""
    study: str
    """The study's name."""
    question: str
    """What it asks."""
    interim: bool
    """Whether runs are not over yet."""
    locked_at: str | None
    """When its rules were fixed, as a date; null where they weren't."""
    lock: LockRow | None
    """The lock; null without one."""
    findings: list[FindingRow]
    """What limits the comparison."""
    deviations: list[str]
    """What differs from the rules that were fixed, in the chosen language."""
    verdicts: list[VerdictRow]
    """One for each hypothesis."""
    tables: dict[str, list[dict[str, Any]]]
    """The tables of the report: name to rows, each an object by column."""
    differences: list[DifferenceRow]
    """Keys that differ between groups, but for the factors."""
    runs: list[ResultRun]
    """The runs, group by group."""

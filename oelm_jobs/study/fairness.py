"""Compare the groups of a study: which keys differ, whether the study declared that, and which conclusions a difference
rules out.

Submit and report both ask here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..agent.sentences import _, joined
from ..errors import UnfairError

SCIENTIFIC = "scientific"
"""Kind of a key that changes what is learned: it must be equal over groups or declared."""
EXECUTION = "execution"
"""Kind of a key that changes only how fast and where: it voids what depends on that."""

_OF_THE_STEP = frozenset(
    {"batch_size", "compile", "gpu_model", "gradient_accumulation_steps", "host", "num_workers", "world_size"}
)
"""What a step runs on and how it is cut: it voids speed."""

_OF_THE_REST = frozenset(
    {"checkpoint_dir", "keep_every", "keep_last", "log_interval", "out_dir", "port", "resume", "save_interval",
     "target", "use_tensorboard", "use_wandb", "wandb_project", "wandb_run_name"}
)  # fmt: skip
"""What doesn't: tokens/s is counted over training steps alone."""

EXECUTION_KEYS = _OF_THE_STEP | _OF_THE_REST
"""Keys of the trainer and of a run that leave the sequence of updates as it is (micro-batch times world size times
accumulation is the global batch, which is scientific)."""

IGNORED_KEYS = frozenset({"seed", "data_path", "val_data_path"})
"""Neither kind: the seed is the replication, and of data the hash counts, not the path."""

SPEED_METRICS = ("speed", "gpu_hours")
"""What a difference in hardware or in the shape of a step makes incomparable."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One run as seen by the comparison."""

    group: str
    """The group's name."""
    run: str
    """The run's name; several runs of a group are its seeds."""
    scientific: Mapping[str, object]
    """Keys that must be equal over groups, factors included (they are left out of the comparison)."""
    execution: Mapping[str, object]
    """Keys that may differ."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A key that isn't the same for all arms."""

    key: str
    """Name of the key."""
    kind: str
    """``scientific`` or ``execution``."""
    values: Mapping[str, object]
    """Value by group; by run where the runs of one group disagree among themselves."""
    reason: str
    """The reason that the study declares; empty where it declares none."""

    @property
    def is_unfair(self) -> bool:
        """Whether it is a scientific difference that the study did not declare."""
        return self.kind == SCIENTIFIC and not self.reason

    @property
    def voids(self) -> tuple[str, ...]:
        """Metrics that can't be compared because of it (speed metrics for an execution difference, if any)."""
        if self.kind == SCIENTIFIC or self.key in _OF_THE_REST:
            return ()
        return SPEED_METRICS

    def __str__(self) -> str:
        return f"{self.key}: " + ", ".join(f"{name}={value!r}" for name, value in self.values.items())


def split(train: Mapping[str, object]) -> tuple[dict[str, object], dict[str, object]]:
    """Return the scientific and the execution keys of a configuration; seed and data paths belong to neither."""
    scientific = {k: v for k, v in train.items() if k not in EXECUTION_KEYS and k not in IGNORED_KEYS}
    execution = {k: v for k, v in train.items() if k in EXECUTION_KEYS}
    return scientific, execution


def differences(arms: Iterable[Arm], *, factors: Iterable[str], unequal: Mapping[str, str]) -> list[Difference]:
    """Return every key on which the arms differ, the factors apart, scientific ones first, each in alphabetical order.

    A factor explains a difference between groups, none between the runs of one. A key that an arm doesn't have is
    unknown there and compared among the others (old results record less).
    """
    listed = list(arms)
    between_groups = {*factors}
    found: list[Difference] = []
    for kind in (SCIENTIFIC, EXECUTION):
        tables = [(arm, arm.scientific if kind == SCIENTIFIC else arm.execution) for arm in listed]
        for key in sorted({key for _arm, table in tables for key in table} - IGNORED_KEYS):
            known = [(arm, table[key]) for arm, table in tables if key in table]
            first = known[0][1]
            if all(value is first or _equal(value, first) for _, value in known):
                continue
            values, is_between = _by_group(known)
            if not (is_between and key in between_groups):
                found.append(Difference(key=key, kind=kind, values=values, reason=unequal.get(key, "")))
    return found


def check(arms: Sequence[Arm], *, factors: Iterable[str], unequal: Mapping[str, str]) -> list[Difference]:
    """Return the permitted differences.

    Raises:
        UnfairError: Groups differ in a scientific key that is neither a factor nor declared.
    """
    left_out = tuple(factors)
    found = differences(arms, factors=left_out, unequal=unequal)
    unfair = [difference for difference in found if difference.is_unfair]
    if unfair:
        raise UnfairError(
            _(
                "the groups differ in more than the factors ({factors}): {differences}",
                left_out or _("none declared"),
                joined(map(str, unfair)),
            ),
            hint=_(
                'make them equal, or declare the difference in the study file: [unequal] {key} = "why"', unfair[0].key
            ),
        )
    return found


def _equal(a: Any, b: Any) -> bool:
    """Compare values of a configuration: 1 equals 1.0 but not True; lists equal tuples."""
    if isinstance(a, bool) is not isinstance(b, bool):
        return False
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=False))
    return bool(a == b)


def _by_group(known: Sequence[tuple[Arm, Any]]) -> tuple[dict[str, object], bool]:
    """Return values by group, and True; by run, and False, where the runs of one group disagree."""
    by_group: dict[str, object] = {}
    for arm, value in known:
        if arm.group in by_group and not _equal(by_group[arm.group], value):
            return {arm.run: value for arm, value in known}, False
        by_group[arm.group] = value
    return by_group, True

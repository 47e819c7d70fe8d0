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
from ..programs import built_in
from ..spec.program import Program

SCIENTIFIC = "scientific"
"""Kind of a key that changes what is learned: it must be equal over groups or declared."""
EXECUTION = "execution"
"""Kind of a key that changes only how fast and where: it voids what depends on that."""

PLACE = frozenset({"gpu_model", "host", "per_gpu", "compiled"})
"""Keys of what a run's steps are computed on, and whether they could be compiled there."""

SPEED_METRICS = ("speed", "gpu_hours")
"""What a difference in hardware or in the shape of a step makes incomparable, as do GPUs that runs share."""


@dataclass(frozen=True, kw_only=True)
class Kinds:
    """Which keys are compared in which way."""

    execution: frozenset[str]
    """Keys of execution; all others are scientific."""
    ignored: frozenset[str]
    """Keys that aren't compared."""
    of_the_step: frozenset[str]
    """Keys that say what a step runs on and how it is cut: they void speed. The rest doesn't: tokens/s is counted over
    training steps."""


BUILT_IN = Kinds(
    execution=(built_in.EXECUTION | PLACE | {"checkpoint_dir", "port", "target", "world_size"}) - built_in.REPLICATION,
    ignored=built_in.REPLICATION,
    of_the_step=built_in.OF_THE_STEP | PLACE | {"world_size"},
)
"""Those of the built-in trainer."""


def kinds(program: Program | None) -> Kinds:
    """Return the kinds of a program's keys: of a script's, all are scientific that the study doesn't except, and the
    number of GPUs. What it excepts voids speed: nobody knows what it does.
    """
    if program is None:
        return BUILT_IN
    return Kinds(
        execution=program.execution | PLACE | {"port", "target"},
        ignored=frozenset({"seed", program.seed}),
        of_the_step=program.execution | PLACE | {"world_size"},
    )


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One run as seen by the comparison."""

    group: str
    """The group's name."""
    run: str
    """The run's name; several runs of a group are its seeds."""
    keys: Mapping[str, object]
    """Values of scientific keys (factors included, which are left out of the comparison) and of those of execution."""


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
    voids: tuple[str, ...]
    """Metrics that can't be compared because of it: those of speed, or none."""

    @property
    def is_unfair(self) -> bool:
        """Whether it is a scientific difference that the study did not declare."""
        return self.kind == SCIENTIFIC and not self.reason

    def __str__(self) -> str:
        return f"{self.key}: " + ", ".join(f"{name}={value!r}" for name, value in self.values.items())


def differences(
    arms: Iterable[Arm], *, factors: Iterable[str], unequal: Mapping[str, str], kinds: Kinds = BUILT_IN
) -> list[Difference]:
    """Return every key on which the arms differ, the factors apart, scientific ones first, each in alphabetical order.

    A factor explains a difference between groups, none between the runs of one. A key that an arm doesn't have is
    unknown there and compared among the others (old results record less).
    """
    listed = list(arms)
    between_groups = {*factors}
    found: list[Difference] = []
    keys = {key for arm in listed for key in arm.keys} - kinds.ignored
    for key in (*sorted(keys - kinds.execution), *sorted(keys & kinds.execution)):
        known = [(arm, arm.keys[key]) for arm in listed if key in arm.keys]
        first = known[0][1]
        if all(value is first or _equal(value, first) for _, value in known):
            continue
        values, is_between = _by_group(known)
        if not (is_between and key in between_groups):
            kind = EXECUTION if key in kinds.execution else SCIENTIFIC
            voids = SPEED_METRICS if key in kinds.of_the_step else ()
            found.append(Difference(key=key, kind=kind, values=values, reason=unequal.get(key, ""), voids=voids))
    return found


def check(
    arms: Sequence[Arm], *, factors: Iterable[str], unequal: Mapping[str, str], kinds: Kinds = BUILT_IN
) -> list[Difference]:
    """Return the permitted differences.

    Raises:
        UnfairError: Groups differ in a scientific key that is neither a factor nor declared.
    """
    left_out = tuple(factors)
    found = differences(arms, factors=left_out, unequal=unequal, kinds=kinds)
    unfair = [difference for difference in found if difference.is_unfair]
    if unfair:
        named, told, key = left_out or _("none declared"), joined(map(str, unfair)), unfair[0].key
        raise UnfairError(
            _("the groups differ in more than the factors ({factors}): {differences}", named, told),
            hint=_('make them equal, or declare the difference in the study file: [unequal] {key} = "why"', key),
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

"""What an operation on several targets did, and why some of them could not be reached."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from .errors import NoSuchTarget, StoreError, TargetError

Each = TypeVar("Each")


@dataclass(frozen=True, kw_only=True)
class Outcome(Generic[Each]):
    """What an operation did, run by run."""

    done: tuple[Each, ...]
    """For each run of the targets that could be asked."""
    unreachable: Mapping[str, TargetError] = field(default_factory=dict)
    """Target to the error that kept the operation from it."""
    misread: Mapping[str, StoreError] = field(default_factory=dict)
    """``STUDY/RUN`` to why what the index has of it can't be understood; it was left alone."""


def each_target(names: Iterable[str], act: Callable[[str], None]) -> dict[str, TargetError]:
    """Act on each target once; one that can't be reached doesn't keep the others from it. Return errors by target."""
    errors: dict[str, TargetError] = {}
    for name in dict.fromkeys(names):
        try:
            act(name)
        except TargetError as error:
            errors[name] = error
        except NoSuchTarget as error:
            errors[name] = TargetError(str(error), hint=error.hint)
    return errors

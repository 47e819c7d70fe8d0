"""Dataclasses of what runs need of others before they begin."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..agent.record_types import NeedRecord

SUCCESS = "success"
"""A run begins once those that it needs are DONE; where one of them isn't in the end, it is CANCELLED."""
ALWAYS = "always"
"""A run begins once those that it needs are over, however they ended."""
WHEN = (SUCCESS, ALWAYS)
BEST, LATEST = "best", "latest"
"""Of a run's checkpoints: the best one, or the newest."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """The runs of a group that others need."""

    study: str
    """Empty for the study's own groups."""
    group: str
    seed: int | None = None
    """The seed of the one run that all others need; None: each needs the run of its own seed."""

    def __str__(self) -> str:
        of_seed = "" if self.seed is None else f"-s{self.seed}"
        return f"{self.study}/{self.group}{of_seed}" if self.study else f"{self.group}{of_seed}"


@dataclass(frozen=True, kw_only=True)
class Input:
    """A file, or a folder, of other runs' with which those of a group begin."""

    source: Source
    artifact: str
    """BEST, LATEST, or a path in the run directory or the working folder."""

    def __str__(self) -> str:
        return f"{self.source}:{self.artifact}"


@dataclass(frozen=True, kw_only=True)
class Parent:
    """A run that another one needs."""

    study: str
    run: str
    """Its name."""
    group: str
    seed: int
    when: str
    """One of WHEN."""
    input: str = ""
    """What the other one calls what it takes from it; empty where that only waits."""
    artifact: str = ""
    """What it takes from it."""
    fingerprint: str = ""
    """The needed run's; empty where nothing is taken from it, or it isn't known."""
    shown: str = ""
    """That as the study says it, the seed left out where each run takes that of its own."""
    place: NeedRecord | None = field(default=None, compare=False)
    """Where it lies, as the record of the run that needs it says; None before the submission knows that."""


def taken(parents: Iterable[Parent]) -> dict[str, list[str]]:
    """Return what makes a run itself of what it takes from others: of each the source's fingerprint, and the artifact,
    which the source itself chooses by that.
    """
    return {parent.input: [parent.fingerprint, parent.artifact] for parent in parents if parent.input}


def waited_for(parents: Iterable[Parent]) -> tuple[NeedRecord, ...]:
    """Return the records of the runs on the same target that are not over yet."""
    places = [parent.place for parent in parents if parent.place is not None]
    return tuple(place for place in places if "token" in place)


def records(parents: Iterable[Parent], study: str, dirs: Mapping[str, str]) -> Iterator[NeedRecord]:
    """Yield what a run's record says of those that it needs.

    Args:
        study: Of the run.
        dirs: Run directories of the plan's runs, by name: of a script that nobody submits no more is known.
    """
    for parent in parents:
        if parent.place is not None:
            yield parent.place
            continue
        row: NeedRecord = {"study": parent.study, "run": parent.run, "when": parent.when}
        if parent.study == study and parent.run in dirs:
            row["run_dir"] = dirs[parent.run]
        if parent.input:
            row |= {"input": parent.input, "artifact": parent.artifact, "fingerprint": parent.fingerprint}
        yield row

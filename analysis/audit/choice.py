"""The record of a choice: which combination was chosen for each group, among which trials, and when.

It is written once, before the first run that confirms it, so that what runs later can be held to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from oelm_jobs.agent import rundir
from oelm_jobs.agent.sentences import _
from oelm_jobs.errors import UsageError

from ..printed import date
from .plan import hash_of

VERSION = 1


class Considered(msgspec.Struct, frozen=True, kw_only=True):
    """A trial that was considered."""

    run: str
    """The run's name."""
    state: str
    """How it ended: ``done`` or ``failed``."""
    result: float | str | None
    """The metric that was chosen by; ``"inf"``, ``"-inf"`` or ``"nan"`` where it diverged, None where it has none."""
    fingerprint: str
    """Hash of what makes it itself."""


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """What was chosen for a group."""

    values: dict[str, Any]
    """By setting."""
    tag: str
    """Tag of the trials that have them."""
    trials: tuple[Considered, ...]
    """All that were considered, in the order in which they run."""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What was chosen in a study, and the file that says so."""

    version: int
    """VERSION of who wrote it."""
    study: str
    """The study's name."""
    chosen_at: float
    """Unix seconds."""
    chosen: str
    """The same as a date."""
    metric: str
    """What was chosen by."""
    goal: str
    """``minimize`` or ``maximize``."""
    rule: str
    """The selection rule, in English."""
    seeds: tuple[int, ...]
    """By which was chosen."""
    confirm_seeds: tuple[int, ...]
    """With which the choice is confirmed."""
    groups: dict[str, Chosen]
    """By group."""
    sha256: str = ""
    """Of all else, which shows that it wasn't edited."""


RULE = (
    "the best mean over the seeds; a combination that diverged or lacks a result comes behind all that are whole; of "
    "equal ones the first in the order of the sweep"
)


def made(
    study: str, groups: Mapping[str, Chosen], *, metric: str, goal: str, seeds: Sequence[int],
    confirm_seeds: Sequence[int], at: float,
) -> Choice:  # fmt: skip
    """Return the record of a choice."""
    choice = Choice(
        version=VERSION, study=study, chosen_at=at, chosen=date(at), metric=metric, goal=goal, rule=RULE,
        seeds=tuple(seeds), confirm_seeds=tuple(confirm_seeds), groups=dict(groups),
    )  # fmt: skip
    return msgspec.structs.replace(choice, sha256=_hash(choice))


def write(path: Path, choice: Choice) -> Choice:
    """Make the record, for good; return the one that counts, which is another where one was made meanwhile.

    Raises:
        UsageError: It can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        rundir.create(path, msgspec.to_builtins(choice))
    except OSError as error:
        raise UsageError(_("{path} can't be written: {why}", str(path), error.strerror or str(error))) from error
    found = read(path)
    assert found is not None
    return found


def read(path: Path) -> Choice | None:
    """Return the record of a choice; None where there is none.

    Raises:
        UsageError: The file isn't one, or was edited.
    """
    hint = _("restore it from version control; if no run has confirmed the choice, remove it and choose again")
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Choice)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(_("{path}: not the record of a choice: {error}", str(path), str(error)), hint=hint) from error
    if found.version != VERSION:
        raise UsageError(
            _("{path}: version {version} of a choice is unknown; valid: {valid}", str(path), found.version, VERSION),
            hint=_("use the release that wrote it"),
        )
    if _hash(found) != found.sha256:
        raise UsageError(_("{path}: the choice in it was edited after it was made", str(path)), hint=hint)
    return found


def _hash(choice: Choice) -> str:
    return hash_of(msgspec.to_builtins(msgspec.structs.replace(choice, sha256="")))

"""What to say of a snapshot before it is sent: how large it is, and what is left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..agent.sentences import _
from ..code.snapshot import LeftOut, Snapshot
from ..spec.target import Target

LARGE_BYTES = 10_000_000
"""From so many bytes on a snapshot is worth a warning: something in it is hardly code."""
MOST_NAMES = 5
"""So many files of a kind are named; of more, how many there are."""


def words(code: Snapshot, target: Target) -> Iterator[str]:
    """Yield what should be known before a snapshot is sent."""
    name, size = code.largest
    yield _(
        "code: {count} files, {size} MB, the largest {name} ({its_size} MB)",
        len(code.files),
        _mb(code.size),
        name,
        _mb(size),
    )
    if code.size >= LARGE_BYTES:
        yield _(
            "warning: a snapshot of {size} MB is large for code; what git ignores (.gitignore) is not sent",
            _mb(code.size),
        )
    secret = [each for each in code.left if each.is_secret and each.is_tracked]
    for why, names in _by_reason(secret):
        yield _("warning: tracked by git, but left out since it {why}: {names}", why, names)
    for why, names in _by_reason([each for each in code.left if not (each.is_secret and each.is_tracked)]):
        yield _("left out since it {why}: {names}", why, names)
    if target.share and code.own_alone:
        yield _(
            "warning: the group of {target}'s root may read what you alone may read here: {names}",
            target.name,
            _listed(code.own_alone),
        )


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f}" if size >= 50_000 else f"{size / 1e6:.3f}"


def _by_reason(left: Sequence[LeftOut]) -> Iterator[tuple[str, list[str]]]:
    for reason in dict.fromkeys(each.reason for each in left):
        yield reason, _listed([each.name for each in left if each.reason == reason])


def _listed(names: Sequence[str]) -> list[str]:
    more = [f"… ({len(names)})"] if len(names) > MOST_NAMES else []
    return [*names[:MOST_NAMES], *more]

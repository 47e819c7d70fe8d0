"""What to say of a snapshot before it is sent: how large it is, and what is left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..code.snapshot import Left, Snapshot
from ..spec.target import Target

LARGE_BYTES = 10_000_000
"""From so many bytes on a snapshot is worth a warning: something in it is hardly code."""
MOST_NAMES = 5
"""So many files of a kind are named; of more, how many there are."""


def words(code: Snapshot, target: Target) -> Iterator[str]:
    """Yield what should be known before a snapshot is sent."""
    name, size = code.largest
    yield f"code: {len(code.files)} files, {_mb(code.size)} MB, the largest {name} ({_mb(size)} MB)"
    if code.size >= LARGE_BYTES:
        yield f"warning: a snapshot of {_mb(code.size)} MB is large for code; what git ignores (.gitignore) is not sent"
    for left in _by_reason([each for each in code.left if each.is_secret and each.is_tracked]):
        yield f"warning: tracked by git, but left out since it {left[0].reason}: {_names(left)}"
    for left in _by_reason([each for each in code.left if not (each.is_secret and each.is_tracked)]):
        yield f"left out since it {left[0].reason}: {_names(left)}"
    if target.share and code.own_alone:
        names = _listed(code.own_alone)
        yield f"warning: the group of {target.name}'s root may read what you alone may read here: {names}"


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f}" if size >= 50_000 else f"{size / 1e6:.3f}"


def _by_reason(left: Sequence[Left]) -> list[list[Left]]:
    found: dict[str, list[Left]] = {}
    for each in left:
        found.setdefault(each.reason, []).append(each)
    return list(found.values())


def _names(left: Sequence[Left]) -> str:
    return _listed([each.name for each in left])


def _listed(names: Sequence[str]) -> str:
    more = [f"… ({len(names)})"] if len(names) > MOST_NAMES else []
    return ", ".join([*names[:MOST_NAMES], *more])

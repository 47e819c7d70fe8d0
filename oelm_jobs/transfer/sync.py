"""The files of runs at home: what a target announces, what was fetched, and whether it is what it should be.

What was fetched is recorded beside the run, so that files that haven't changed are neither transferred nor hashed
again.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..agent import inside, records, rundir, schema
from ..agent.run import result
from ..agent.sentences import _
from ..agent.transfer import inventory
from ..errors import TargetError

if TYPE_CHECKING:
    from ..agent.messages import Announced
    from ..agent.record_types import FetchedFile, FetchedRecord, ResultFile

CONTROLS = frozenset(f"{rundir.CONTROL}/{name}" for name in (*inventory.SENT_WHOLE, rundir.SUPERVISOR_LOG))
"""Control files that come along."""
UNSEEN = "".join(map(chr, [0xAD, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0xFEFF]))
UNNAMEABLE = (errno.ENAMETOOLONG, errno.EILSEQ)
"""What is said of a name that a disk can't hold (macOS refuses some text)."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One file as the target announces it."""

    name: str
    """Path within the run directory."""
    size: int
    """Bytes; of a growing file those that the hash covers."""
    sha256: str
    """Hexadecimal."""
    grows: bool
    """Whether it is appended to while the run trains."""
    content: bytes | None = None
    """What is in it, where it came with the announcement."""
    source: str = ""
    """Name under which it is to be had, where that is another."""


@dataclass(frozen=True, kw_only=True)
class Verified:
    """The comparison of a run's files with its manifest."""

    files: int
    """Files that the manifest lists."""
    size: int
    """Their bytes."""
    damaged: tuple[str, ...]
    """Listed files that are missing or differ."""
    has_manifest: bool
    """False before a run is over."""
    elsewhere: tuple[str, ...] = ()
    """Listed files that were not fetched, as asked."""


# What is at home ------------------------------------------------------------------------------------------------------


def record(run_dir: Path) -> FetchedRecord:
    """Return the record of what was fetched into a run directory (``origin``, ``target``, ``files``, ``left``); empty
    for a run of this machine.
    """
    return records.FETCHED.read_if_sound(run_dir) or {}


def study_in(run_dir: Path) -> str:
    """Return the study of the run in a directory of this machine, trained or fetched; empty where no record says."""
    known = records.RUN.read_if_sound(run_dir)
    return known.study if known else ""


def verify(run_dir: Path) -> Verified:
    """Compare a run directory with its manifest: presence, sizes and SHA-256, all read anew.

    A name in the manifest that leads out of the run directory counts as damaged, and so does a manifest that is none.
    """
    try:
        manifest = records.MANIFEST.read(run_dir)
    except schema.Misfit:
        return Verified(files=0, size=0, damaged=(rundir.MANIFEST,), has_manifest=True)
    entries = manifest["files"] if manifest else []
    left = {file["name"] for file in record(run_dir).get("left", [])}
    damaged, elsewhere = [], []
    for entry in entries:
        name = str(entry["name"])
        if name in left and not os.path.lexists(run_dir / name):
            elsewhere.append(name)
        elif not _is_listed(run_dir, name, entry):
            damaged.append(name)
    return Verified(
        files=len(entries),
        size=sum(int(entry["size"]) for entry in entries),
        damaged=tuple(damaged),
        has_manifest=manifest is not None,
        elsewhere=tuple(elsewhere),
    )


def _is_listed(run_dir: Path, name: str, entry: ResultFile) -> bool:
    """Tell whether a file matches its manifest's entry and lies inside the run directory."""
    path = run_dir / name
    try:
        is_inside = not path.is_symlink() and path.resolve().is_relative_to(run_dir.resolve())
        if not is_inside or not path.is_file() or path.stat().st_size != entry["size"]:
            return False
        return result.sha256(path) == entry["sha256"]
    except OSError:  # no disk has such a name, or it can't be read
        return False


def is_here(run_dir: Path, item: Item, known: FetchedFile, *, again: bool = False) -> bool:
    """Tell whether a file is at home as announced.

    Args:
        known: The record's entry for it; a file that looks as it did when it was verified is believed.
        again: Hash it all the same.
    """
    path = run_dir / item.name
    try:
        found = path.lstat()
    except OSError:
        return False
    if path.is_symlink() or not path.is_file() or found.st_size != item.size:
        return False
    if not again and known.get("sha256") == item.sha256 and known.get("seen") == [found.st_size, found.st_mtime_ns]:
        return True
    return result.sha256(path) == item.sha256


def seen(path: Path) -> list[int]:
    """Return the part of a file's stat by which it is recognised as unchanged."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def set_aside(run_dir: Path) -> Path:
    """Move a run directory at home to ``.archive`` beside it, as the target has done; return its new path."""
    folder = run_dir.parent / ".archive"
    folder.mkdir(exist_ok=True)
    place = folder / f"{run_dir.name}-{time.strftime('%Y%m%d-%H%M%S')}-{time.monotonic_ns() % 1000000}"
    run_dir.rename(place)
    return place


def safe_name(name: str) -> bool:
    """Tell whether an announced name can only lie inside the run directory, and is no hidden one but a control file's:
    other names are a hostile server's. ``.git`` or ``.envrc`` there would give orders to programs of the user's, and a
    disk that takes ``.OELM`` for ``.oelm`` would let the record of what was fetched be replaced.
    """
    if not inside.is_plain(name):
        return False
    # Some disks (HFS+) take a name with characters that can't be seen for the one without them.
    hidden = any(part.lstrip(UNSEEN).startswith(".") for part in name.split("/"))
    return not hidden or name in CONTROLS


@contextlib.contextmanager
def kept_inside() -> Iterator[None]:
    """Turn the error about a path that leads out of its folder into a TargetError.

    Raises:
        TargetError: One would, or can't be one here; nothing was written through it.
    """
    try:
        yield
    except inside.Outside as error:
        raise TargetError(
            _("{why}; nothing was written there", str(error)), hint=_("look at it, then remove it")
        ) from error
    except OSError as error:
        if error.errno not in UNNAMEABLE:
            raise
        name = error.filename2 or error.filename
        raise TargetError(_("a name that can't be a file's here: {name!r} ({why})", name, error.strerror)) from error


# Placing --------------------------------------------------------------------------------------------------------------


def place_content(run_dir: Path, item: Item) -> None:
    """Write a file that travelled in the inventory under its final name.

    Raises:
        TargetError: It is not what was announced.
    """
    assert item.content is not None
    if hashlib.sha256(item.content).hexdigest() != item.sha256:
        raise TargetError(_("{file} of {run} arrived damaged", item.name, run_dir.name))
    with kept_inside():
        inside.write(run_dir, item.name, item.content)


def write_record(run_dir: Path, content: FetchedRecord) -> None:
    """Record what was fetched."""
    text = json.dumps(content, indent=1) + "\n"
    with kept_inside():
        inside.write(run_dir, f"{rundir.CONTROL}/{rundir.FETCHED}", text.encode("ascii"))


def items(rows: Sequence[Announced]) -> Iterator[Item]:
    """Return the files of an inventory as items.

    Raises:
        TargetError: One would lie outside of its run directory, or is not described as agreed.
    """
    names = set()
    for row in rows:
        try:
            name, size, digest = str(row["name"]), int(row["size"]), str(row["sha256"])
            content = base64.b64decode(row["content"], validate=True) if "content" in row else None
            grows, source = bool(row["grows"]), str(row.get("source", ""))
        except (KeyError, TypeError, ValueError) as error:
            raise TargetError(
                _("the target announces a file in words that aren't understood: {why}", str(error))
            ) from error
        if not safe_name(name) or size < 0:
            raise TargetError(
                _("the target announces {name}: refused, it isn't inside the run directory", json.dumps(name))
            )
        if name in names:
            raise TargetError(_("the target announces {name} twice: refused", json.dumps(name)))
        names.add(name)
        if source and not re.fullmatch(rf"{re.escape(rundir.CONTROL)}/held/[^/\0]+", source):
            raise TargetError(
                _("the target announces {name} under {other}: refused", json.dumps(name), json.dumps(source))
            )
        yield Item(name=name, size=size, sha256=digest, grows=grows, content=content, source=source)

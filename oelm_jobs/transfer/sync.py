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
    from ..agent.record_types import FetchedRecord

CONTROLS = frozenset(f"{rundir.CONTROL}/{name}" for name in (*inventory.SENT_WHOLE, rundir.SUPERVISOR_LOG))
"""Control files that come along."""
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
    """Listed files that are missing, but for those that were not fetched as asked, or differ."""
    has_manifest: bool
    """False before a run is over."""


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
    damaged = []
    for entry in entries:
        path = run_dir / entry["name"]
        if entry["name"] in left and not os.path.lexists(path):
            continue
        # In this order: a link that leads to itself can't be resolved.
        if not is_whole(path, entry["size"], entry["sha256"]) or not path.resolve().is_relative_to(run_dir.resolve()):
            damaged.append(entry["name"])
    return Verified(
        files=len(entries),
        size=sum(entry["size"] for entry in entries),
        damaged=tuple(damaged),
        has_manifest=manifest is not None,
    )


def is_whole(path: Path, size: int, digest: str) -> bool:
    """Tell whether a file is a plain one of this size and content, which is read anew."""
    try:
        is_plain = not path.is_symlink() and path.is_file() and path.stat().st_size == size
        return is_plain and result.sha256(path) == digest
    except OSError:  # no disk has such a name, or it can't be read
        return False


def seen(path: Path) -> list[int]:
    """Return the part of a file's stat by which it is recognised as unchanged."""
    found = path.lstat()
    return [found.st_size, found.st_mtime_ns]


def set_aside(run_dir: Path) -> Path:
    """Move a run directory at home to ``.archive`` beside it, as the target has done; return its new path."""
    folder = run_dir.parent / rundir.ARCHIVE
    folder.mkdir(exist_ok=True)
    place = folder / f"{run_dir.name}-{time.strftime('%Y%m%d-%H%M%S')}-{time.monotonic_ns() % 1000000}"
    run_dir.rename(place)
    return place


def safe_name(name: str) -> bool:
    """Tell whether an announced name can only lie inside the run directory, and is that of a result or of a control
    file: other names are a hostile server's. ``.git`` or ``.envrc`` there would give orders to programs of the user's,
    and a disk that takes ``.OELM`` for ``.oelm`` would let the record of what was fetched be replaced.
    """
    return inside.is_plain(name) and (result.is_result(name) or name in CONTROLS)


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
        TargetError: One would lie outside of its run directory, or is announced twice.
    """
    names = set()
    for row in rows:
        name, source = row["name"], row.get("source", "")
        if not safe_name(name):
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
        content = base64.b64decode(row["content"]) if "content" in row else None
        yield Item(
            name=name, size=row["size"], sha256=row["sha256"], grows=row["grows"], content=content, source=source
        )

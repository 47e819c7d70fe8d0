"""Write a folder as a bundle, and open one: nothing of it is believed before its size and hash are those of its
manifest, and nothing is written but plain files below a folder of our own.

The archive is a tar of plain files alone (ustar), the manifest first, compressed by gzip; equal files make equal bytes.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import shutil
import stat
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..agent import schema
from ..agent.sentences import _
from ..errors import LocalError, UsageError, few

MANIFEST = "MANIFEST.json"
"""Name, size and SHA-256 of every other file."""
ABOUT = "bundle.json"
"""What it is a bundle of, and how its report was made."""
REPORT = "report"
"""Folder of what the report said."""
README = "README.md"
"""What it says to who unpacks it."""
TOPS = (README, ABOUT, "jobs", "experiments", "models", "data", "code", REPORT)
"""What may lie in one."""
SUFFIXES = (".tar.gz", ".tgz")
MOST_FILES = 200_000
MOST_BYTES = 8 << 30
"""What a bundle may hold when it is unpacked."""
MOST_MANIFEST = 64 << 20
BLOCK = tarfile.BLOCKSIZE
PIECE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A file of a manifest."""

    size: int
    sha256: str


def refused(place: Path, why: str) -> UsageError:
    """Return the error of a bundle that isn't what it says."""
    return UsageError(
        _("{path}: the bundle is refused: {why}", str(place), why),
        hint=_("nothing of it was used; ask for it again where it comes from"),
    )


def why_not(name: str) -> str:
    """Return why a bundle can't have a file of this name; empty where it may."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in name or not name.isprintable():
        return _("leads out of the bundle, or is no plain name")
    if parts[0] not in TOPS or (len(parts) == 1) is not (parts[0] in (README, ABOUT)):
        return _("doesn't belong into a bundle")
    try:
        tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")
    except UnicodeEncodeError:
        return _("leads out of the bundle, or is no plain name")
    except ValueError:
        return _("has a name that is too long")
    return ""


# Writing --------------------------------------------------------------------------------------------------------------


def files_in(folder: Path) -> list[str]:
    """Return the files of a folder by their names in a bundle, sorted; whatever is no plain file is among them."""
    found = []
    for place, folders, names in os.walk(folder):
        links = [name for name in folders if Path(place, name).is_symlink()]
        found += [Path(place, name).relative_to(folder).as_posix() for name in (*names, *links)]
    return sorted(found)


def write(folder: Path, path: Path) -> str:
    """Write a folder's files as a bundle, with a manifest; return the bundle's SHA-256.

    Raises:
        UsageError: A file's name can't be in a bundle, or they are too many or too much.
        LocalError: It can't be written.
    """
    names = files_in(folder)
    listed: list[dict[str, object]] = []
    for name in names:
        if why := why_not(name):
            raise UsageError(_("{name}: {why}", name, why))
        with (folder / name).open("rb") as file:
            sha256 = _hash(file)
        listed.append({"name": name, "size": (folder / name).stat().st_size, "sha256": sha256})
    total = sum((folder / name).stat().st_size for name in names)
    if len(names) > MOST_FILES or total > MOST_BYTES:
        raise UsageError(
            _("the bundle would hold {count} files, {size} GB; a bundle has at most {most} and {most_size} GB",
              len(names), f"{total / 1e9:.1f}", MOST_FILES, MOST_BYTES >> 30)
        )  # fmt: skip
    manifest = json.dumps({"version": 1, "files": listed}, indent=1, ensure_ascii=False).encode() + b"\n"
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            temporary.open("wb") as out,
            gzip.GzipFile(filename="", mode="wb", fileobj=out, mtime=0, compresslevel=6) as packed,
        ):
            _add(packed, MANIFEST, len(manifest))
            packed.write(manifest + bytes(-len(manifest) % BLOCK))
            for name in names:
                size = (folder / name).stat().st_size
                _add(packed, name, size)
                with (folder / name).open("rb") as file:
                    shutil.copyfileobj(file, packed, PIECE)
                packed.write(bytes(-size % BLOCK))
            packed.write(bytes(2 * BLOCK))
        with temporary.open("rb") as file:
            sha256 = _hash(file)
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise LocalError(_("{path}: can't be written: {why}", str(path), error.strerror or str(error))) from error
    return sha256


def _add(packed: gzip.GzipFile, name: str, size: int) -> None:
    """Write the header of a file that belongs to nobody and is from no time."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    packed.write(info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict"))


def _hash(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while piece := file.read(PIECE):
        digest.update(piece)
    return digest.hexdigest()


# Opening --------------------------------------------------------------------------------------------------------------


def is_one(place: Path) -> bool:
    """Tell whether somebody means a bundle by a path: an archive, or the folder that one was unpacked into."""
    if place.is_dir():
        return (place / ABOUT).is_file() and ((place / MANIFEST).exists() or (place / REPORT).is_dir())
    return place.is_file() and place.name.endswith(SUFFIXES)


@contextlib.contextmanager
def opened(place: Path) -> Iterator[Path]:
    """Check a bundle and yield the folder of its files, which is removed afterwards where it was unpacked for this.

    Raises:
        UsageError: It is not what its manifest says, or no bundle; it is said which file.
    """
    if place.is_dir():
        _check_folder(place)
        yield place.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="oelm-bundle-") as folder:
        try:
            _unpack(place, Path(folder).resolve())
        except (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError, ValueError) as error:
            raise refused(place, _("the archive is broken: {why}", str(error))) from error
        except OSError as error:
            raise LocalError(_("{path}: can't be read: {why}", str(place), error.strerror or str(error))) from error
        yield Path(folder).resolve()


def _check_folder(folder: Path) -> None:
    there = {name: None for name in files_in(folder) if name != MANIFEST}
    try:
        size = (folder / MANIFEST).stat().st_size
        content = (folder / MANIFEST).read_bytes() if size <= MOST_MANIFEST else b""
    except OSError as error:
        raise refused(folder, _("{name} is missing", MANIFEST)) from error
    listed = _listed(folder, content)
    for name in there:
        path = folder / name
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise refused(folder, _("{name} is no plain file", name))
        if name not in listed:
            raise refused(folder, _("{name} is not in its manifest", name))
        if found.st_size != listed[name].size:
            raise refused(folder, _("{name} was changed", name))
        with path.open("rb") as file:
            if _hash(file) != listed[name].sha256:
                raise refused(folder, _("{name} was changed", name))
    _all_there(folder, listed, there)


def _all_there(place: Path, listed: Mapping[str, Listed], there: Mapping[str, None]) -> None:
    if missing := [name for name in listed if name not in there]:
        raise refused(place, _("{names} is missing", few(missing)))


def _unpack(place: Path, folder: Path) -> None:
    """Write the files of an archive into an empty folder, each of them as it is listed."""
    with place.open("rb") as raw, gzip.GzipFile(fileobj=raw, mode="rb") as packed:
        first = _header(place, packed)
        if first is None or first.name != MANIFEST or first.size > MOST_MANIFEST:
            raise refused(place, _("it doesn't begin with {name}", MANIFEST))
        listed = _listed(place, _content(packed, first.size))
        total = sum(one.size for one in listed.values())
        if total > shutil.disk_usage(folder).free:
            raise refused(place, _("there is no room for its {size} GB in {folder}", f"{total / 1e9:.1f}", str(folder)))
        there: dict[str, None] = {}
        while (info := _header(place, packed)) is not None:
            if info.name in there:
                raise refused(place, _("{name} is in it twice", info.name))
            if info.name not in listed:
                raise refused(place, (why_not(info.name) and _("{name} {why}", info.name, why_not(info.name)))
                              or _("{name} is not in its manifest", info.name))  # fmt: skip
            if info.size != listed[info.name].size:
                raise refused(place, _("{name} was changed", info.name))
            there[info.name] = None
            path = folder / info.name
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                out = path.open("xb")
            except (FileExistsError, NotADirectoryError) as error:  # names that differ in capitals alone, say
                raise refused(place, _("{name} is in it twice", info.name)) from error
            digest, left = hashlib.sha256(), info.size
            with out:
                while left:
                    piece = packed.read(min(left, PIECE))
                    if not piece:
                        raise EOFError(_("it ends within {name}", info.name))
                    digest.update(piece)
                    out.write(piece)
                    left -= len(piece)
            if digest.hexdigest() != listed[info.name].sha256:
                raise refused(place, _("{name} was changed", info.name))
            _skip(packed, -info.size % BLOCK)
        for _block in range(4):  # some tars fill up the end
            rest = packed.read(PIECE)
            if rest.strip(b"\0"):
                raise refused(place, _("something comes behind its end"))
        if packed.read(1):
            raise refused(place, _("something comes behind its end"))
        _all_there(place, listed, there)


def _header(place: Path, packed: gzip.GzipFile) -> tarfile.TarInfo | None:
    """Return the header of the next file; None at the end. Only plain files are read: no other header is looked into,
    so that none can ask for more.
    """
    block = _content(packed, BLOCK)
    if not block.strip(b"\0"):
        return None
    info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    if info.type != tarfile.REGTYPE or info.size < 0:
        raise refused(place, _("{name} is no plain file", info.name or "?"))
    if info.name != MANIFEST and (why := why_not(info.name)):
        raise refused(place, _("{name} {why}", info.name, why))
    return info


def _content(packed: gzip.GzipFile, size: int) -> bytes:
    content = packed.read(size)
    if len(content) < size:
        raise EOFError(_("it ends too early"))
    if size % BLOCK:
        _skip(packed, -size % BLOCK)
    return content


def _skip(packed: gzip.GzipFile, size: int) -> None:
    if len(packed.read(size)) < size:
        raise EOFError(_("it ends too early"))


def _listed(place: Path, content: bytes) -> dict[str, Listed]:
    """Return what a manifest lists.

    Raises:
        UsageError: It is none, or lists what a bundle can't have.
    """
    try:
        record = schema.loads(content)
        rows = record["files"] if isinstance(record, dict) and record.get("version") == 1 else None
        found = {str(row["name"]): Listed(size=int(row["size"]), sha256=str(row["sha256"])) for row in rows or ()}
    except (schema.Misfit, KeyError, TypeError, ValueError, OverflowError) as error:
        raise refused(place, _("{name} is no manifest that is understood", MANIFEST)) from error
    if rows is None or len(found) != len(rows) or ABOUT not in found:
        raise refused(place, _("{name} is no manifest that is understood", MANIFEST))
    for name, one in found.items():
        if why := why_not(name):
            raise refused(place, _("{name} {why}", name, why))
        if one.size < 0:
            raise refused(place, _("{name} is no manifest that is understood", MANIFEST))
    if len(found) > MOST_FILES or sum(one.size for one in found.values()) > MOST_BYTES:
        raise refused(
            place, _("it says that it holds more than {most} files or {size} GB", MOST_FILES, MOST_BYTES >> 30)
        )
    return found

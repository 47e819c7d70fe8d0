"""Bring files of runs home and verify them: staging, check of size and hash, final place.

A file gets its final name only when it is complete and its hash is the one that was announced. Until then it lies in a
staging folder on the same disk, where the next try goes on with it. What was fetched is recorded beside the run, so
that files that haven't changed are neither transferred nor hashed again. Placed files are not forced to the disk: after
a power failure their size and time tell, and they are fetched again.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..agent import inside, processes, records, rundir, schema
from ..agent.run import result
from ..agent.transfer import inventory
from ..errors import LocalError, NotReached, TargetError
from .rsync import NETWORK_CODES, SOME_FAILED, Transfer

if TYPE_CHECKING:
    from ..agent.record_types import FetchedRecord

STAGING = ".oelm-fetch"
"""Folder beside run directories for what has not arrived whole."""
IDLE_S = 60.0
"""Without a byte for so long a transfer is ended and begun anew."""
PIECE_BYTES = 1 << 20
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


def _is_listed(run_dir: Path, name: str, entry: Mapping[str, Any]) -> bool:
    """Tell whether a file matches its manifest's entry and lies inside the run directory."""
    path = run_dir / name
    try:
        is_inside = not path.is_symlink() and path.resolve().is_relative_to(run_dir.resolve())
        if not is_inside or not path.is_file() or path.stat().st_size != entry["size"]:
            return False
        return bool(result.sha256(path) == entry["sha256"])
    except OSError:  # no disk has such a name, or it can't be read
        return False


def is_here(run_dir: Path, item: Item, known: Mapping[str, Any], *, again: bool = False) -> bool:
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
def _kept_inside() -> Iterator[None]:
    """Turn the error about a path that leads out of its folder into a TargetError.

    Raises:
        TargetError: One would, or can't be one here; nothing was written through it.
    """
    try:
        yield
    except inside.Outside as error:
        raise TargetError(f"{error}; nothing was written there", hint="look at it, then remove it") from error
    except OSError as error:
        if error.errno not in UNNAMEABLE:
            raise
        name = error.filename2 or error.filename
        raise TargetError(f"a name that can't be a file's here: {name!r} ({error.strerror})") from error


# Arriving -------------------------------------------------------------------------------------------------------------


@dataclass
class Arrival:
    """A file that is being transferred: its paths there, in staging and at home; it is hashed as it arrives."""

    source: str
    """Absolute path on the target."""
    files: Path
    """Folder into which rsync writes."""
    home: Path
    """The run directory at home."""
    item: Item

    def __post_init__(self) -> None:
        self._digest = hashlib.sha256()
        self.read = 0
        """Bytes hashed so far."""
        self.is_placed = False
        """True once it has its final name."""

    @property
    def name(self) -> str:
        """Its name below the folder into which rsync writes."""
        return self.source.lstrip("/")

    @property
    def staged(self) -> Path:
        """The path to which rsync writes it."""
        return self.files / self.name

    @property
    def mark(self) -> Path:
        """The file beside it that says which content it is part of."""
        name = hashlib.sha256(os.fsencode(self.staged.name)).hexdigest()[:32]  # its own may be as long as names can be
        return self.staged.with_name(f".{name}.for")

    def follow(self, buffer: memoryview) -> int:
        """Hash what has arrived since the last call, at most one buffer; return the number of bytes.

        rsync only ever appends here, so what is there stays as it is.
        """
        try:
            with open(self.staged, "rb", buffering=0, opener=_plainly) as file:
                file.seek(self.read)
                size = file.readinto(buffer[: self.item.size - self.read]) or 0
        except OSError:
            return 0
        self._digest.update(buffer[:size])
        self.read += size
        return size

    @property
    def arrived(self) -> int:
        """Bytes in staging, hashed or not."""
        try:
            return self.staged.lstat().st_size
        except OSError:
            return 0

    @property
    def is_whole(self) -> bool:
        """Whether it has its announced length and content."""
        return self.read == self.item.size and self._digest.hexdigest() == self.item.sha256

    @property
    def is_wrong(self) -> bool:
        """Whether it has its announced length and another content."""
        return self.read == self.item.size and self._digest.hexdigest() != self.item.sha256

    def begin_with(self, path: Path) -> None:
        """Copy what is at home already into staging.

        Raises:
            inside.Outside: It would be written elsewhere.
            OSError: It can't be written.
        """
        with open(path, "rb", opener=_plainly) as old:
            new = inside.open_below(self.files, self.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            with os.fdopen(new, "wb") as file:
                shutil.copyfileobj(old, file)

    def start_over(self) -> None:
        """Delete what has arrived. Of a growing file an empty one stays, so that the next try doesn't begin with the
        copy at home, which is not its beginning.
        """
        with _kept_inside(), contextlib.suppress(OSError):
            if self.item.grows:
                os.close(inside.open_below(self.files, self.name, os.O_WRONLY | os.O_TRUNC))
            else:
                inside.remove(self.files, self.name)
        self.__post_init__()


def _plainly(path: str, flags: int) -> int:
    return os.open(path, flags | inside.FLAGS)


class Staging:
    """The folder for files that are not complete yet, used by one fetch at a time."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        """Lock the folder; waits for another fetch to end.

        Raises:
            LocalError: It can't be made.
            TargetError: A link is in its place.
        """
        self.path = folder / STAGING
        try:
            with _kept_inside():
                self._lock = inside.open_below(folder, f"{STAGING}/lock", os.O_RDWR | os.O_CREAT)
                inside.make_parent(folder, f"{STAGING}/files/any")
        except OSError as error:
            raise LocalError(f"{self.path}: can't be written: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say("another fetch into this project is at work; waiting for it")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._end_orphan()

    @property
    def _orphan(self) -> Path:
        return self.path / "rsync.json"

    def _end_orphan(self) -> None:
        """End the rsync that a killed fetch left: two must not write the same file."""
        identity = processes.Identity.from_json(rundir.read_json(self._orphan))
        if identity is not None and identity.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(identity.pid, 15)
            deadline = time.monotonic() + 5
            while identity.is_alive():
                if time.monotonic() > deadline:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(identity.pid, 9)
                time.sleep(0.02)
        self._orphan.unlink(missing_ok=True)

    def arrival(self, run_dir: str, home: Path, item: Item) -> Arrival:
        """Return the arrival of a file; what has arrived of other content under its name is deleted.

        Args:
            run_dir: Where the target says that the run lies, absolute.
            home: Where it lies here.

        Raises:
            TargetError: It would be written elsewhere than into staging, or there lies no plain file.
        """
        arrival = Arrival(
            source=f"{run_dir}/{item.source or item.name}", files=self.path / "files", home=home, item=item
        )
        with _kept_inside():
            staged = inside.make_parent(arrival.files, arrival.name)
            place = inside.path_in(home, item.name)
            wanted = "growing" if item.grows else item.sha256
            if _text(arrival.mark) != wanted:
                arrival.start_over()
                inside.write(staged.parent, arrival.mark.name, wanted.encode())
            if staged.is_symlink() or (staged.exists() and not staged.is_file()):
                raise TargetError(f"{staged} is no plain file", hint=f"look at it, then remove {self.path}")
            is_here = place.is_file() and not place.is_symlink() and place.stat().st_size <= item.size
            if item.grows and not staged.exists() and is_here:
                arrival.begin_with(place)  # rsync sends what has been appended since
            if staged.exists() and staged.stat().st_size > item.size and not item.grows:
                arrival.start_over()
        return arrival

    def transfer(
        self,
        arrivals: Sequence[Arrival],
        shell: Sequence[str] | None,
        host: str,
        remote: str,
        advance: Callable[[int], None],
    ) -> None:
        """Have rsync bring files into staging, hashing them as they arrive.

        Args:
            shell: Words of the remote shell; None where the target is this machine.
            remote: Path of rsync there.
            advance: Called with the number of bytes that have arrived and been hashed.

        Raises:
            NotReached: The connection broke, or nothing moved for too long; what has arrived stays.
            LocalError: The disk here is full.
            TargetError: rsync can't do it at all.
        """
        self._check_room(arrivals)
        source = f"{host}:/" if shell else "/"
        transfer = Transfer(
            source, f"{self.path / 'files'}/", [a.source.lstrip("/") for a in arrivals], shell=shell, remote=remote
        )
        rundir.write_json(self._orphan, processes.identify(transfer.process.pid).to_json(), durable=False)
        idle_since, code, said = time.monotonic(), 0, ""
        buffer = memoryview(bytearray(PIECE_BYTES))
        try:
            while not transfer.is_over():
                moved = sum(arrival.follow(buffer) for arrival in arrivals if arrival.read < arrival.item.size)
                advance(moved)
                if moved:
                    idle_since = time.monotonic()
                elif time.monotonic() - idle_since > IDLE_S:
                    raise NotReached(f"nothing came from {host or 'the target'} for {IDLE_S:.0f} s")
                if moved < PIECE_BYTES:
                    time.sleep(0.02)  # the processor is rsync's and ssh's until there is a piece
        finally:
            code, said = transfer.end()
            self._orphan.unlink(missing_ok=True)
            for arrival in arrivals:
                while moved := arrival.follow(buffer):
                    advance(moved)
        if code in NETWORK_CODES:
            raise NotReached(f"the transfer from {host or 'the target'} broke off: {said or f'rsync exit code {code}'}")
        if code not in (0, *SOME_FAILED):
            self._check_room(arrivals)  # somebody else may have filled it meanwhile
            raise TargetError(f"rsync from {host or 'the target'}: {said or f'exit code {code}'}", hint=_mend(said))

    def _check_room(self, arrivals: Sequence[Arrival]) -> None:
        """Check that the disk here has room for what is still to come.

        Raises:
            LocalError: It doesn't.
        """
        need = sum(max(0, arrival.item.size - arrival.arrived) for arrival in arrivals)
        free = shutil.disk_usage(self.path).free
        if need > free:
            raise LocalError(
                f"{need / 1e6:,.1f} MB are to come and {self.path.parent} has {free / 1e6:,.1f} MB free; what has"
                " arrived stays",
                hint="make room here, or fetch fewer checkpoints: --checkpoints none, best or latest",
            )

    def close(self) -> None:
        """Unlock the folder, and remove it if it is empty."""
        files = self.path / "files"
        if files.is_dir() and not any(path.is_file() and not path.name.endswith(".for") for path in files.rglob("*")):
            shutil.rmtree(files, ignore_errors=True)
        os.close(self._lock)


def _text(path: Path) -> str:
    """Return what a small plain file holds; empty where there is none."""
    try:
        with open(path, "rb", opener=_plainly) as file:
            return file.read(256).decode("ascii", "replace")
    except OSError:
        return ""


def _mend(said: str) -> str:
    if "is your shell clean" in said or "protocol version mismatch" in said:
        return "the login shell there prints something where there is no terminal: make its start-up files quiet"
    return ""


# Placing --------------------------------------------------------------------------------------------------------------


def place_content(run_dir: Path, item: Item) -> None:
    """Write a file that travelled in the inventory under its final name.

    Raises:
        TargetError: It is not what was announced.
    """
    assert item.content is not None
    if hashlib.sha256(item.content).hexdigest() != item.sha256:
        raise TargetError(f"{item.name} of {run_dir.name} arrived damaged")
    with _kept_inside():
        inside.write(run_dir, item.name, item.content)


def place_arrival(arrival: Arrival) -> None:
    """Give a verified file its final name.

    Raises:
        TargetError: Staging holds something that is no plain file, or a link is on the way to its place.
    """
    assert arrival.is_whole
    with _kept_inside():
        file = inside.open_below(arrival.files, arrival.name, os.O_RDWR)
        try:
            if os.fstat(file).st_size > arrival.item.size:
                os.ftruncate(file, arrival.item.size)  # grew on after it was looked at: what is hashed counts
            # rsync has set what both the source and this user's umask allow.
            os.fchmod(file, os.fstat(file).st_mode & 0o666 | 0o600)
        finally:
            os.close(file)
        inside.replace((arrival.files, arrival.name), arrival.home, arrival.item.name)
    arrival.mark.unlink(missing_ok=True)
    arrival.is_placed = True


def write_record(run_dir: Path, content: Mapping[str, Any]) -> None:
    """Record what was fetched."""
    text = json.dumps(content, indent=1) + "\n"
    with _kept_inside():
        inside.write(run_dir, f"{rundir.CONTROL}/{rundir.FETCHED}", text.encode("ascii"))


def items(rows: Sequence[Mapping[str, Any]]) -> Iterator[Item]:
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
            raise TargetError(f"the target announces a file in words that aren't understood: {error}") from error
        if not safe_name(name) or size < 0:
            raise TargetError(f"the target announces {json.dumps(name)}: refused, it isn't inside the run directory")
        if name in names:
            raise TargetError(f"the target announces {json.dumps(name)} twice: refused")
        names.add(name)
        if source and not re.fullmatch(rf"{re.escape(rundir.CONTROL)}/held/[^/\0]+", source):
            raise TargetError(f"the target announces {json.dumps(name)} under {json.dumps(source)}: refused")
        yield Item(name=name, size=size, sha256=digest, grows=grows, content=content, source=source)

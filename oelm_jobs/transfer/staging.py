"""Bring files home with rsync: into a staging folder, hashed as they arrive, then under their final names.

A file gets its final name only when it is complete and its hash is the one that was announced. Until then it lies in a
staging folder on the same disk, where the next try goes on with it. Placed files are not forced to the disk: after a
power failure their size and time tell, and they are fetched again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..agent import inside, processes, rundir
from ..agent.sentences import _
from ..connections import Route
from ..errors import LocalError, NotReached, TargetError
from .rsync import PIECE_BYTES, SOME_FAILED, Transfer, watch
from .sync import Item, kept_inside

STAGING = ".oelm-fetch"
"""Folder beside run directories for what has not arrived whole."""


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
        with kept_inside(), contextlib.suppress(OSError):
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
        self._orphan = self.path / "rsync.json"
        try:
            with kept_inside():
                self._lock = inside.open_below(folder, f"{STAGING}/lock", os.O_RDWR | os.O_CREAT)
                inside.make_parent(folder, f"{STAGING}/files/any")
        except OSError as error:
            raise LocalError(_("{path}: can't be written: {why}", str(self.path), error.strerror)) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say(_("another fetch into this project is at work; waiting for it"))
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._end_orphan()

    def _end_orphan(self) -> None:
        """End the rsync that a killed fetch left: two must not write the same file."""
        identity = processes.Identity.from_json(rundir.read_json(self._orphan))
        if identity is not None:
            deadline = time.monotonic() + 5
            while identity.is_alive():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(identity.pid, signal.SIGTERM if time.monotonic() < deadline else signal.SIGKILL)
                time.sleep(0.1)
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
        with kept_inside():
            staged = inside.make_parent(arrival.files, arrival.name)
            place = inside.path_in(home, item.name)
            wanted = "growing" if item.grows else item.sha256
            if _text(arrival.mark) != wanted:
                arrival.start_over()
                inside.write(staged.parent, arrival.mark.name, wanted.encode())
            there, here = _lies(staged), _lies(place)
            if there is not None and not stat.S_ISREG(there.st_mode):
                raise TargetError(
                    _("{path} is no plain file", str(staged)), hint=_("look at it, then remove {path}", str(self.path))
                )
            is_here = here is not None and stat.S_ISREG(here.st_mode) and here.st_size <= item.size
            if item.grows and there is None and is_here:
                arrival.begin_with(place)  # rsync sends what has been appended since
            if there is not None and there.st_size > item.size and not item.grows:
                arrival.start_over()
        return arrival

    def transfer(
        self,
        arrivals: Sequence[Arrival],
        route: Route | None,
        remote: str,
        target: str,
        advance: Callable[[int], None],
    ) -> None:
        """Have rsync bring files into staging, hashing them as they arrive.

        Args:
            route: To the target; None where it is this machine.
            remote: Path of rsync there.
            target: Its name.
            advance: Called with the number of bytes that have arrived and been hashed.

        Raises:
            NotReached: The connection broke, or nothing moved for too long; what has arrived stays.
            LocalError: The disk here is full.
            TargetError: rsync can't do it at all.
        """
        self._check_room(arrivals)
        names = [arrival.name for arrival in arrivals]
        transfer = Transfer(f"{route.host}:/" if route else "/", f"{self.path}/files/", names, route, remote)
        rundir.write_json(self._orphan, processes.identify(transfer.process.pid).to_json(), durable=False)
        buffer = memoryview(bytearray(PIECE_BYTES))

        def follow() -> int:
            return sum(arrival.follow(buffer) for arrival in arrivals if arrival.read < arrival.item.size)

        try:
            watch(transfer, target, follow, advance, SOME_FAILED)
        except NotReached:
            raise
        except TargetError:
            self._check_room(arrivals)  # somebody else may have filled it meanwhile
            raise
        finally:
            self._orphan.unlink(missing_ok=True)
            while step := follow():
                advance(step)

    def _check_room(self, arrivals: Sequence[Arrival]) -> None:
        """Check that the disk here has room for what is still to come.

        Raises:
            LocalError: It doesn't.
        """
        need = sum(max(0, arrival.item.size - arrival.arrived) for arrival in arrivals)
        free = shutil.disk_usage(self.path).free
        if need > free:
            raise LocalError(
                _(
                    "{need:,.1f} MB are to come and {path} has {free:,.1f} MB free; what has arrived stays",
                    need / 1e6,
                    str(self.path.parent),
                    free / 1e6,
                ),
                hint=_("make room here, or fetch fewer checkpoints: --checkpoints none, best or latest"),
            )

    def close(self) -> None:
        """Unlock the folder, and remove it if it is empty."""
        files = self.path / "files"
        if files.is_dir() and not any(path.is_file() and not path.name.endswith(".for") for path in files.rglob("*")):
            shutil.rmtree(files, ignore_errors=True)
        os.close(self._lock)


def _lies(path: Path) -> os.stat_result | None:
    """Return what lies there, None for nothing; Path.exists would hide (since Python 3.14) that a name is no file's."""
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def _text(path: Path) -> str:
    """Return what a small plain file holds; empty where there is none."""
    try:
        with open(path, "rb", opener=_plainly) as file:
            return file.read(256).decode("ascii", "replace")
    except OSError:
        return ""


def place_arrival(arrival: Arrival) -> None:
    """Give a verified file its final name.

    Raises:
        TargetError: Staging holds something that is no plain file, or a link is on the way to its place.
    """
    assert arrival.is_whole
    with kept_inside():
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

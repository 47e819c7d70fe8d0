"""Tickets: files, locked by their makers, that hold a place in the host's queue for devices, or a lease.

Anybody may write into the folder. So a ticket counts only as what its maker could have got by asking: it is read
strictly, its user is who owns the file, and its time is no further from the file's than set-ups and clocks explain.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import stat
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import List, Optional, Tuple, Union

from .. import privacy, processes, schema
from ..schema import Each, Either, Number, Table, Text
from . import lease_folder

Request = Union[int, Tuple[int, ...]]
"""Any so many devices, or exactly these indices."""

EARLIEST_S = 3600.0
"""A ticket's time, when its run was queued, may be so long before its file was made (set-up lines take their time). A
file's change time is the kernel's, nobody can set it: so nobody gets further ahead than this by a made-up time.
"""
LATEST_S = 4 * 3600.0
"""And so long after it: who comes when the clock was set back by less stands behind all who wait. By a ticket of the
future nobody pushes those who come after it further back than half of this.
"""
MAX_BYTES = 1 << 16
OWN = "own-"
"""How the folder of a user's own line is called, with the user's number behind it."""
INDICES = Each(Number(0, 9999, whole=True))
CONTENT = Table(
    {"time": Number(0, 1e10), "token": Text(), "user": Text(), "run": Text(), "run_dir": Text(), "devices": INDICES,
     "request": Either((Number(1, 9999, whole=True), INDICES))},
    {"of": Text(among=("", "gpu", "cpu")), "per_gpu": Number(1, 64, whole=True)},
)  # fmt: skip
NAME = re.compile(r"(ticket|lease)-(\d{10}\.\d{6})-([\w.-]{1,100})-\d{1,10}\.json", re.ASCII)


class Junk(Exception):
    """A file of the folder is no ticket; the message names it, and whose it is."""


@dataclass(frozen=True)
class Ticket:
    """A place in the host's queue, or a lease once devices are named; valid as long as its maker lives."""

    time: float
    """When its run was queued, Unix seconds on this host."""
    token: str
    """Breaks ties, and names the run's attempt."""
    request: Request
    """What it asks for."""
    user: str
    """Login name, for people: of a ticket that was read, the owner of its file."""
    run: str
    """Run name, for people."""
    run_dir: str
    """Run directory."""
    devices: Tuple[int, ...] = ()
    """Granted device indices; empty while it waits."""
    of: str = ""
    """What it asks for devices of, ``gpu`` or ``cpu``; empty where an older version did not say."""
    per_gpu: int = 1
    """So many runs may have each of its GPUs at a time."""

    @property
    def kind(self) -> str:
        """``lease`` or ``ticket``."""
        return "lease" if self.devices else "ticket"

    @property
    def file_name(self) -> str:
        """Sorts in order of arrival, so that a queue is read without opening its tickets."""
        return "%s-%017.6f-%s-%d.json" % (self.kind, self.time, self.token, os.getpid())

    def conflicts_with(self, other: Ticket) -> bool:
        """Tell whether both may want the same devices: unless the kinds differ, or both name exact devices and share
        none.
        """
        if not self.may_be_of(other.of):
            return False
        if isinstance(self.request, tuple) and isinstance(other.request, tuple):
            return bool(set(self.request) & set(other.request))
        return True

    def may_be_of(self, kind: str) -> bool:
        """Tell whether it may be about a kind of devices: unless it is known to be about another."""
        return self.of == kind or not self.of or not kind


@dataclass(frozen=True)
class Found:
    """A valid ticket of the folder."""

    ticket: Ticket
    path: Path
    is_alive: bool
    """False for the lease of a lost supervisor of whose run processes live on: they may be computing."""


def read(path: Path) -> Optional[Found]:
    """Return the ticket in ``path``; None for that of a dead process, whose file is removed where permitted.

    Raises:
        Junk: It is none.
    """
    try:
        handle = os.open(str(path), lease_folder.OPENING)
    except FileNotFoundError:
        return None
    except OSError:
        raise Junk(lease_folder.described(path)) from None
    try:
        there = os.fstat(handle)
        content = os.read(handle, MAX_BYTES + 1) if stat.S_ISREG(there.st_mode) else b""
        ticket = _parsed(path.name, content, there, path.parent.name.startswith(OWN))
        if ticket is None:
            raise Junk(lease_folder.described(path))
        is_alive = lease_folder.is_held(handle) and not _is_held_by_others(path, there.st_uid)
    finally:
        os.close(handle)
    if not is_alive and not (ticket.devices and _has_survivors(ticket, there.st_uid)):
        with contextlib.suppress(OSError):  # gone already, or another user's: it is dead all the same
            path.unlink()
        return None
    return Found(replace(ticket, user=privacy.user_name(there.st_uid)), path, is_alive)


def _is_held_by_others(path: Path, uid: int) -> bool:
    """Tell whether other users' processes hold a ticket's lock, which they took when its maker was dead.

    A process that can't be looked into appears as root's (proc(5)) and may be anybody's.
    """
    holders = {processes.user_of(pid) for pid in lease_folder.holders_of(path) or ()}
    return bool(holders) and not holders & {uid, 0, -1}


def _has_survivors(ticket: Ticket, uid: int) -> bool:
    """Tell whether processes of a ticket's run are alive, of the user who made it: naming another user's run doesn't
    count.
    """
    return any(processes.user_of(process.pid) == uid for process in processes.of_run(ticket.run_dir))


def _parsed(name: str, content: bytes, there: os.stat_result, is_own: bool) -> Optional[Ticket]:
    """Parse a ticket; None where anything in it is invalid.

    Args:
        is_own: Nobody else can write where it lies: its time is as old as its run's submission.
    """
    match = NAME.fullmatch(name)
    if match is None or len(content) > MAX_BYTES:
        return None
    try:
        value = schema.loads(content)
    except schema.Misfit:
        return None
    if CONTENT.wrong(value) is not None or not "".join(map(str, value.values())).isprintable():
        return None
    for key in ("request", "devices"):
        if isinstance(value[key], list):
            value[key] = tuple(value[key])
    ticket = Ticket(**value)
    # A lease's file is made when the waiting is over, and its time is no place in line.
    is_in_reach = is_own or there.st_ctime - EARLIEST_S <= ticket.time <= there.st_ctime + LATEST_S
    is_what_it_is_called = (ticket.kind, "%017.6f" % ticket.time, ticket.token) == match.groups()
    return ticket if ticket.request and is_what_it_is_called and (ticket.devices or is_in_reach) else None


def own_line(where: Path) -> Optional[Path]:
    """Return (and make) the folder of this user's own line: users take turns, so that of one user's runs the first
    alone stands in the host's line. None where there can't be one: another user has taken its name, or the disk is
    full.
    """
    path = where / (OWN + str(os.getuid()))
    try:
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        found = os.lstat(str(path))
    except OSError:
        return None
    return path if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() else None


def own_leases(where: Path) -> int:
    """Return how many leases this user's live processes hold."""
    count = 0
    for name in names(where, "lease"):
        with contextlib.suppress(OSError):
            handle = os.open(str(where / name), lease_folder.OPENING)
            try:
                count += os.fstat(handle).st_uid == os.getuid() and lease_folder.is_held(handle)
            finally:
                os.close(handle)
    return count


def names(where: Path, kind: str) -> List[str]:
    """Return the names of a folder's files of one kind, in order of arrival; junk included."""
    return sorted(name for name in os.listdir(str(where)) if name.startswith(kind + "-") and name.endswith(".json"))


def find(kind: str, where: Path) -> Tuple[List[Found], List[str]]:
    """Return the valid tickets or leases in order of arrival, and descriptions of the other files named like one."""
    found: List[Found] = []
    junk: List[str] = []
    for name in names(where, kind):
        try:
            known = read(where / name)
            found += [known] if known is not None else []
        except Junk as error:
            junk.append(str(error))
    return found, junk


def waiting() -> List[Ticket]:
    """Return the tickets of waiting processes, in order of arrival."""
    return [known.ticket for known in find("ticket", lease_folder.folder())[0]]


def arrival(now: float) -> float:
    """Return the place in the queue (Unix seconds) of what arrives now: behind all who wait, also after the clock was
    set back.
    """
    return within_reach(max([now, *(ticket.time + 1e-6 for ticket in waiting())]), now)


def within_reach(at: float, now: float) -> float:
    """Return the place in the queue nearest to ``at`` that a ticket made now may have, with some seconds to make it."""
    return min(max(at, now - EARLIEST_S / 2), now + LATEST_S / 2)


def ahead_of(ticket: Ticket, where: Path, nth: int = 1) -> Optional[Tuple[Ticket, Path, int]]:
    """Return the nearest live ticket ahead that competes for devices (or the nth one), its file and the place in the
    queue behind it.
    """
    ahead = [name for name in names(where, "ticket") if name < ticket.file_name]
    for place in range(len(ahead), 0, -1):
        path = where / ahead[place - 1]
        with contextlib.suppress(Junk):
            other = read(path)
            if other is not None and other.ticket.conflicts_with(ticket):
                nth -= 1
                if not nth:
                    return other.ticket, path, place + 1
    return None


def post(ticket: Ticket, where: Path) -> Tuple[int, Path]:
    """Write the ticket's file, locking it before it gets its name so that it is never seen unlocked.

    Raises:
        OSError: It can't be written; it names the path.
    """
    temporary = where / (".%s-%d-%d" % (ticket.token, os.getpid(), time.monotonic_ns()))
    path = where / ticket.file_name
    handle = -1
    try:
        handle = os.open(str(temporary), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX)
        content = json.dumps(asdict(ticket)).encode()
        if os.write(handle, content) != len(content):
            raise OSError(lease_folder.FULL[0], os.strerror(lease_folder.FULL[0]))
        os.fchmod(handle, 0o644)
        os.replace(str(temporary), str(path))
    except OSError as error:
        if handle >= 0:
            os.close(handle)
            with contextlib.suppress(OSError):
                temporary.unlink()
        raise OSError(error.errno, error.strerror, str(where)) from error
    return handle, path


def withdraw(handle: int, path: Path) -> None:
    """Remove a ticket that this process has posted."""
    with contextlib.suppress(OSError):
        path.unlink()
    os.close(handle)

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
from typing import Any, List, Optional, Tuple, Union

from .. import processes
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
MAX_BYTES, MAX_TEXT, MAX_INDEX = 1 << 16, 4096, 9999
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
    uid: int
    """Owner of its file."""
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
        ticket = _parsed(path.name, os.read(handle, MAX_BYTES + 1), there) if stat.S_ISREG(there.st_mode) else None
        if ticket is None:
            raise Junk(lease_folder.described(path))
        is_alive = lease_folder.is_held(handle) and not _is_held_by_others(path, there.st_uid)
    finally:
        os.close(handle)
    if not is_alive and not (ticket.devices and _has_survivors(ticket, there.st_uid)):
        with contextlib.suppress(OSError):  # gone already, or another user's: it is dead all the same
            path.unlink()
        return None
    return Found(replace(ticket, user=lease_folder.user_name(there.st_uid)), path, there.st_uid, is_alive)


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


def _parsed(name: str, content: bytes, there: os.stat_result) -> Optional[Ticket]:
    """Parse a ticket; None where anything in it is invalid."""
    match = NAME.fullmatch(name)
    if match is None or len(content) > MAX_BYTES:
        return None
    try:
        value: Any = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    request: Any
    devices: Any
    at, request, devices = value.get("time"), value.get("request"), value.get("devices")
    texts: List[Any] = [value.get(key) for key in ("token", "user", "run", "run_dir")]
    if not all(isinstance(text, str) and len(text) <= MAX_TEXT and text.isprintable() for text in texts):
        return None
    if not (_is_count(request) or (_are_indices(request) and request)) or not _are_indices(devices):
        return None
    if isinstance(at, bool) or not isinstance(at, (int, float)) or not 0 <= at < 1e10:  # NaN is no less, either
        return None
    # A lease's file is made when the waiting is over, and its time is no place in line.
    if not devices and not there.st_ctime - EARLIEST_S <= at <= there.st_ctime + LATEST_S:
        return None
    of = value.get("of", "")
    if of not in ("", "gpu", "cpu"):
        return None
    asked: Request = tuple(request) if isinstance(request, list) else request
    token, user, run, run_dir = texts
    ticket = Ticket(float(at), token, asked, user, run, run_dir, tuple(devices), of)
    return ticket if (ticket.kind, "%017.6f" % ticket.time, token) == match.groups() else None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_INDEX


def _are_indices(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(i, int) and not isinstance(i, bool) and 0 <= i <= MAX_INDEX for i in value
    )


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
        except Junk as error:
            junk.append(str(error))
            continue
        found += [known] if known is not None else []
    return found, junk


def waiting(where: Optional[Path] = None) -> List[Ticket]:
    """Return the tickets of waiting processes, in order of arrival."""
    return [known.ticket for known in find("ticket", where or lease_folder.folder())[0]]


def arrival(now: float, where: Optional[Path] = None) -> float:
    """Return the place in the queue (Unix seconds) of what arrives now: behind all who wait, also after the clock was
    set back.
    """
    return within_reach(max([now, *(ticket.time + 1e-6 for ticket in waiting(where))]), now)


def within_reach(at: float, now: float) -> float:
    """Return the place in the queue nearest to ``at`` that a ticket made now may have, with some seconds to make it."""
    return min(max(at, now - EARLIEST_S / 2), now + LATEST_S / 2)


def ahead_of(ticket: Ticket, where: Path) -> Optional[Tuple[Ticket, Path, int]]:
    """Return the nearest live ticket ahead that competes for devices, its file and this ticket's place in the queue."""
    ahead = [name for name in names(where, "ticket") if name < ticket.file_name]
    for place in range(len(ahead), 0, -1):
        path = where / ahead[place - 1]
        with contextlib.suppress(Junk):
            other = read(path)
            if other is not None and other.ticket.conflicts_with(ticket):
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

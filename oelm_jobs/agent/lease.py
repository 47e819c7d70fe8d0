"""Owns the right to use devices of a plain host: locks held by live processes, first come first served; leaves what
is run to supervise.

One lock file per device and one ticket file per waiting or holding process lie in one folder per host that all users
can reach. The kernel releases both when their holder dies, so nothing has to be cleaned up for the next one to go on;
but what a dead holder's run has left alive keeps its devices. The locks are advisory: a process that does not ask is
seen only as a foreign process on its GPU.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import stat
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

from . import devices, processes, rundir
from .devices import Device

POLL_S, FOREIGN_POLL_S = 1.0, 15.0
"""How often the first in line looks again for devices; slower where only foreign processes are in the way."""

Request = Union[int, Tuple[int, ...]]
"""Any so many devices, or exactly these indices."""


class ImpossibleRequest(Exception):
    """This host can never grant the request."""


def folder() -> Path:
    """Return (and make) the folder of locks and tickets that all users of this host share.

    ``OELM_LEASE_DIR`` names another one.

    Raises:
        OSError: It can't be made, or it is not a plain directory.
    """
    path = Path(os.environ.get("OELM_LEASE_DIR") or "/tmp/oelm-leases")
    try:
        path.mkdir(mode=0o1777)
        path.chmod(0o1777)  # mkdir's mode is cut by the umask; sticky, so that nobody removes another user's files
    except FileExistsError:
        mode = os.lstat(str(path)).st_mode
        if not stat.S_ISDIR(mode):
            raise OSError("%s is not a directory" % path) from None
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise OSError(
                "%s is open to all and not sticky: chmod 1777 it, or locks can be taken away" % path
            ) from None
    return path


# Tickets --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ticket:
    """A place in the host's queue, or a lease once devices are named; it counts as long as its maker lives."""

    time: float
    """When its run was queued, Unix seconds on this host."""
    token: str
    """Breaks ties, and names the run's attempt."""
    request: Request
    """What it asks for."""
    user: str
    """Login name, for people."""
    run: str
    """Run name, for people."""
    run_dir: str
    """Run directory."""
    devices: Tuple[int, ...] = ()
    """Granted device indices; empty while it waits."""

    @property
    def file_name(self) -> str:
        """Sorts in order of arrival, so that a queue is read without opening its tickets."""
        return "%s-%017.6f-%s-%d.json" % ("lease" if self.devices else "ticket", self.time, self.token, os.getpid())

    def conflicts_with(self, other: "Ticket") -> bool:
        """False only where both ask for exact devices and share none."""
        if isinstance(self.request, tuple) and isinstance(other.request, tuple):
            return bool(set(self.request) & set(other.request))
        return True


def _read(path: Path) -> Optional[Ticket]:
    """Return the live ticket in ``path``; the file of a dead one is removed where that is allowed.

    A lease outlives its holder while processes of its run do: they may still be computing on the devices.
    """
    if rundir.is_locked(path):
        return _parse(path)
    ticket = _parse(path)
    if ticket is not None and ticket.devices and processes.of_run(ticket.run_dir):
        return ticket
    with contextlib.suppress(OSError):  # gone already, or another user's: it is dead all the same
        path.unlink()
    return None


def _parse(path: Path) -> Optional[Ticket]:
    content = rundir.read_json(path) or {}
    try:
        request = content["request"]
        return Ticket(
            float(content["time"]),
            str(content["token"]),
            tuple(int(i) for i in request) if isinstance(request, list) else int(request),
            str(content["user"]),
            str(content["run"]),
            str(content["run_dir"]),
            tuple(int(i) for i in content["devices"]),
        )
    except (KeyError, TypeError, ValueError):
        return None  # not ours, or another version's


def _names(where: Path, kind: str) -> List[str]:
    return sorted(name for name in os.listdir(str(where)) if name.startswith(kind + "-") and name.endswith(".json"))


def tickets(kind: str = "ticket", where: Optional[Path] = None) -> List[Ticket]:
    """Return the live ``ticket``s (waiting) or ``lease``s (holding) in order of arrival."""
    where = where or folder()
    found = [_read(where / name) for name in _names(where, kind)]
    return [ticket for ticket in found if ticket is not None]


def arrival(now: float) -> float:
    """Return the place in line (Unix seconds) of what arrives now: behind all who wait, also where the clock was set
    back meanwhile.
    """
    latest = now
    for name in _names(folder(), "ticket"):
        with contextlib.suppress(IndexError, ValueError):
            latest = max(latest, float(name.split("-")[1]) + 1e-6)
    return latest


def _in_the_way(ticket: Ticket, where: Path) -> Optional[Tuple[Ticket, Path, int]]:
    """Return the nearest live ticket ahead that wants devices which this one wants, its file, and this one's place in
    line.
    """
    ahead = [name for name in _names(where, "ticket") if name < ticket.file_name]
    for place in range(len(ahead), 0, -1):
        path = where / ahead[place - 1]
        other = _read(path)
        if other is not None and other.conflicts_with(ticket):
            return other, path, place + 1
    return None


def _post(ticket: Ticket, where: Path) -> Tuple[int, Path]:
    """Write the ticket's file, locked before it gets its name, so that nobody ever sees it without its lock."""
    temporary = where / (".%s-%d" % (ticket.token, time.monotonic_ns()))
    handle = os.open(str(temporary), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX)
    os.write(handle, json.dumps(asdict(ticket)).encode())
    os.fchmod(handle, 0o644)
    path = where / ticket.file_name
    os.replace(str(temporary), str(path))
    return handle, path


class Lease:
    """Devices held by this process until ``release`` or its death."""

    def __init__(self, granted: List[Device], handles: List[int], ticket_path: Path) -> None:
        self.devices = granted
        self._handles = handles
        self._ticket_path = ticket_path

    def release(self) -> None:
        """Give the devices back; harmless when called again."""
        if self._handles:
            with contextlib.suppress(OSError):
                self._ticket_path.unlink()
        while self._handles:
            os.close(self._handles.pop())  # the ticket's first, the devices' after it

    def environment(self) -> Dict[str, str]:
        """Return the variables that confine a process to the leased devices."""
        if self.devices[0].is_gpu:
            uuids = ",".join(device.key[len("gpu-") :] for device in self.devices)
            return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": uuids}
        return {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def acquire(
    request: Request,
    *,
    queued_at: float,
    token: str,
    run: str,
    run_dir: str,
    say: Callable[[str], None] = lambda text: None,
) -> Lease:
    """Wait in line for devices and return them, all or none.

    Signals interrupt the wait if their handler raises.

    Args:
        request: A number of devices, or exact indices.
        queued_at: Place in line, Unix seconds.
        say: Is told what is waited for whenever that changes.

    Raises:
        ImpossibleRequest: This host has not got what is asked for.
    """
    where = folder()
    host = devices.of_host()
    ticket = Ticket(queued_at, token, _possible(request, host), _user(), run, run_dir)
    guard = _keep(where)
    handle, path = _post(ticket, where)
    said, pause, lease = "", 0.05, None
    try:
        while True:
            # Only the first in line looks at devices: whoever waits behind it sleeps in the kernel until that one is
            # served or dies.
            obstacle = _in_the_way(ticket, where)
            granted: List[Device] = []
            foreign: List[Device] = []
            left: Dict[str, str] = {}
            if obstacle is not None:
                first, first_path, place = obstacle
                message = "waiting behind %s of %s (place %d)" % (first.run, first.user, place)
            else:
                granted, handles, foreign, left = _try(ticket.request, host, where)
                message = "waiting for %s" % _words(ticket.request, host)
                if foreign:
                    message += "; in use without a lease: " + ", ".join(device.label for device in foreign)
                for label, owner in left.items():
                    message += "; %s is still used by what is left of %s" % (label, owner)
            if granted:
                held_handle, held_path = _post(replace(ticket, devices=tuple(d.index for d in granted)), where)
                lease = Lease(granted, [guard, *handles, held_handle], held_path)
                return lease
            if message != said:
                say(message)
                said = message
            if obstacle is not None:
                wait_for_end(first_path)
            else:
                time.sleep(FOREIGN_POLL_S if foreign else pause)
                pause = min(2 * pause, POLL_S)
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(handle)
        if lease is None:
            os.close(guard)


def _keep(where: Path) -> int:
    """Keep the folder from being tidied away under a long training: systemd-tmpfiles leaves a locked folder alone
    (https://systemd.io/TEMPORARY_DIRECTORIES). Return the descriptor that does it.
    """
    handle = os.open(str(where), os.O_RDONLY)
    with contextlib.suppress(OSError):  # somebody is tidying this very moment
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return handle


def _try(
    request: Request, host: Sequence[Device], where: Path
) -> Tuple[List[Device], List[int], List[Device], Dict[str, str]]:
    """Lock what is asked for, all or nothing.

    Returns:
        Devices, descriptors; of those passed over, the ones that foreign processes use, and label to run name of those
        on which processes of a lost supervisor live.
    """
    wanted = len(request) if isinstance(request, tuple) else request
    locked: Dict[str, int] = {}
    granted: List[Device] = []
    foreign: List[Device] = []
    for device in host:  # always in sorted order
        if not isinstance(request, tuple) or device.index in request:
            try:
                locked[device.key] = lock(where / (device.key + ".lock"))
            except rundir.Busy:
                continue
    # Whoever holds a lease holds the locks: a lease on what is locked here has lost its holder.
    owners = {index: ticket.run for ticket in tickets("lease", where) for index in ticket.devices}
    left = {device.key: device for device in host if device.key in locked and device.index in owners}
    if len(locked) - len(left) >= wanted:
        # What others use is asked for only now, under the locks: nvidia-smi is too dear to be polled.
        free = [d for d in (devices.of_host() if host[0].is_gpu else host) if d.key in locked and d.key not in left]
        foreign = [device for device in free if device.is_used_by_others]
        granted = [device for device in free if not device.is_used_by_others][:wanted]
    if len(granted) < wanted:
        granted = []
    for key, handle in locked.items():
        if key not in [device.key for device in granted]:
            os.close(handle)
    words = {device.label: owners[device.index] for device in left.values()}
    return granted, [locked[device.key] for device in granted], foreign, words


def lock(path: Path) -> int:
    """Lock a file of the folder, which may be another user's: flock(2) needs no right to write. Return the descriptor.

    Raises:
        rundir.Busy: Another process holds it.
    """
    while True:
        try:
            handle = os.open(str(path), os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            try:
                # Exclusively: in a sticky folder O_CREAT on another user's file is refused (protected_regular).
                handle = os.open(str(path), os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
            except FileExistsError:
                continue  # somebody was faster
            os.fchmod(handle, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), os.stat(str(path))):
                return handle
        except FileNotFoundError:
            pass
        except OSError:
            os.close(handle)
            raise rundir.Busy(str(path)) from None
        os.close(handle)  # it was removed meanwhile; a lock that nobody else can see keeps nobody away


def wait_for_end(ticket_path: Path) -> None:
    """Sleep until the ticket's lock is given up."""
    try:
        handle = os.open(str(ticket_path), os.O_RDONLY)
    except OSError:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
    finally:
        os.close(handle)


def _possible(request: Request, host: Sequence[Device]) -> Request:
    """Return the request as this host takes it (CPU slots are alike: exact indices mean their number).

    Raises:
        ImpossibleRequest: The host has not got so many, or not these.
    """
    if isinstance(request, tuple):
        if not host[0].is_gpu:
            request = len(request)
        else:
            missing = sorted(set(request) - {device.index for device in host})
            if missing:
                raise ImpossibleRequest("asks for GPU %s; this host has %s" % (
                    ", ".join(map(str, missing)), ", ".join(str(device.index) for device in host)))  # fmt: skip
    if isinstance(request, int) and request > len(host):
        raise ImpossibleRequest("asks for %s; this host has %d" % (_words(request, host), len(host)))
    return request


def _words(request: Request, host: Sequence[Device]) -> str:
    kind = "GPU" if host[0].is_gpu else "CPU slot"
    if isinstance(request, tuple):
        return "%s %s" % (kind, ", ".join(map(str, request)))
    return "%d %s%s" % (request, kind, "" if request == 1 else "s")


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def table(where: Optional[Path] = None) -> Dict[str, Any]:
    """Return the host's devices with who holds them, and its queue, as JSON for status and doctor."""
    owner = {index: ticket for ticket in tickets("lease", where) for index in ticket.devices}
    rows = []
    for device in devices.of_host():
        ticket = owner.get(device.index)
        row = {name: getattr(device, name) for name in ("label", "name", "memory_mb", "memory_used_mb", "utilisation")}
        rows.append(dict(row, user=ticket.user if ticket else "", run=ticket.run if ticket else ""))
    return {"devices": rows, "queue": [asdict(ticket) for ticket in tickets("ticket", where)]}

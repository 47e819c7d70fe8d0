"""Lease devices of a plain host: locks held by live processes, first come first served.

One lock file per device and one ticket file per waiting or holding process lie in one folder per host that all users
can reach. The kernel releases both when their holder dies, so nothing has to be cleaned up for the next one to go on;
but what a dead holder's run has left alive keeps its devices. The locks are advisory: a process that does not ask is
seen only as a foreign process on its GPU.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Dict, List, Optional, Sequence, Tuple, cast

from .. import rundir
from ..reasons import because
from ..sentences import _, joined
from . import devices, lease_folder, permitted, tickets
from .devices import Device
from .tickets import Request, Ticket

if TYPE_CHECKING:
    from .. import messages

POLL_S, FOREIGN_POLL_S = 1.0, 15.0
"""How often the first in line looks again for devices; slower where only what no lock tells is in the way."""
GPUS_VARIABLE = "OELM_LEASED_GPUS"
"""How many GPUs a process of a run must be able to see; 0 on CPU slots."""
MOST_JUNK = 20
"""So many files that are passed over are named; whoever makes more of them is named by then."""


class ImpossibleRequest(Exception):
    """This host can never grant the request."""


class Lease:
    """Devices held by this process until ``release`` or its end."""

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
        """Return the environment variables that limit a process to the leased devices."""
        if self.devices[0].is_gpu:
            seen = ",".join(device.visible_name for device in self.devices)
            order = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", permitted.CUDA: seen}
            return dict(order, **{GPUS_VARIABLE: str(len(self.devices))})
        return {"OMP_NUM_THREADS": "1", permitted.CUDA: "", GPUS_VARIABLE: "0"}


def acquire(
    request: Request,
    *,
    queued_at: float,
    token: str,
    run: str,
    run_dir: str,
    say: Callable[[str], None] = lambda text: None,
    tell: Callable[[str], None] = lambda reason: None,
) -> Lease:
    """Wait in the queue for devices and lease them, all or none.

    Signals interrupt the wait if their handler raises.

    Args:
        request: A number of devices, or exact indices.
        queued_at: Place in line, Unix seconds, as near to it as a ticket's time may be.
        say: Called with what is passed over.
        tell: Called with what is being waited for, whenever that changes.

    Raises:
        ImpossibleRequest: This host has not got what is asked for.
        OSError: The folder of all users' tickets can't be used, or nvidia-smi does not answer.
    """
    where = lease_folder.folder()
    host = devices.of_host()
    request = _possible(request, host)
    me = lease_folder.user_name(os.getuid())
    line = _Line(Ticket(queued_at, token, request, me, run, run_dir, of=host[0].kind), where)
    for junk in _named(tickets.find("ticket", where)[1] + tickets.find("lease", where)[1]):
        say(_("passed over in {folder}: {junk}", str(where), junk))
    guard = _keep(where)
    said, pause, lease = "", 0.05, None
    try:
        while True:
            look, obstacle = _Look(), None
            faulty = _faulty(line.ticket.request, host)
            if faulty:
                # Whoever can't be served before a card is mended lets the others go first, and queues anew then.
                line.leave()
                look.hindrances += faulty
            else:
                try:
                    obstacle = line.stand()
                    if obstacle is None:
                        look = _try(line.ticket.request, host, where)
                        host = look.host
                    if look.granted:
                        held = replace(line.ticket, devices=tuple(device.index for device in look.granted))
                        held_handle, held_path = tickets.post(held, where)
                        lease = Lease(look.granted, [guard, *look.handles, held_handle], held_path)
                        return lease
                except OSError as error:
                    look.release()
                    if error.errno not in lease_folder.FULL:
                        raise
                    look.hindrances.append(_("{folder} can't be written: {why}", str(where), error.strerror))
            if obstacle is not None:
                first, first_path, place = obstacle
                message = because("waiting_behind", run=first.run, user=first.user, place=place)
            else:
                held_to = permitted.description() if not host or host[0].is_gpu else ""
                wanted = _described(line.ticket.request, host)
                what = because("of_permitted", devices=wanted, limit=held_to) if held_to else wanted
                message = joined([because("waiting_for", what=what), *look.hindrances])
            if message != said:
                tell(message)
                said = message
            if obstacle is not None:
                lease_folder.wait_for_end(first_path)
            else:
                time.sleep(FOREIGN_POLL_S if look.hindrances else pause)
                pause = min(2 * pause, POLL_S)
            if faulty:
                listed = _as_now([])
                host = host if listed is None else listed
    finally:
        line.leave()
        if lease is None:
            os.close(guard)


class _Line:
    """This process's place in the queue."""

    def __init__(self, ticket: Ticket, where: Path) -> None:
        self.ticket = ticket
        self._where = where
        self._posted: Optional[Tuple[int, Path]] = None
        self._has_left = False

    def stand(self) -> Optional[Tuple[Ticket, Path, int]]:
        """Join the queue (at its end, also after having left) and return who is ahead, as ``tickets.ahead_of`` does.

        Raises:
            OSError: No ticket can be written.
        """
        if self._posted is None:
            now = time.time()
            left = self._has_left
            at = tickets.arrival(now, self._where) if left else tickets.within_reach(self.ticket.time, now)
            self.ticket = replace(self.ticket, time=at)
            self._posted = tickets.post(self.ticket, self._where)
        return tickets.ahead_of(self.ticket, self._where)

    def leave(self) -> None:
        """Leave the queue; harmless when called again."""
        if self._posted is not None:
            handle, path = self._posted
            self._posted, self._has_left = None, True
            with contextlib.suppress(OSError):
                path.unlink()
            os.close(handle)


def _keep(where: Path) -> int:
    """Lock the folder, so that systemd-tmpfiles doesn't clean it during a long training
    (https://systemd.io/TEMPORARY_DIRECTORIES); return the descriptor.
    """
    handle = os.open(str(where), os.O_RDONLY)
    with contextlib.suppress(OSError):  # somebody is tidying this very moment
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return handle


# Looking at devices ---------------------------------------------------------------------------------------------------


@dataclass
class _Look:
    """What the first in the queue found."""

    granted: List[Device] = field(default_factory=list)
    """All that was asked for, or none."""
    handles: List[int] = field(default_factory=list)
    """Locks of what was granted."""
    hindrances: List[str] = field(default_factory=list)
    """What is in the way besides live leases, described."""
    host: List[Device] = field(default_factory=list)
    """The host's devices as they were seen last."""

    def release(self) -> None:
        """Give the locks back."""
        self.granted = []
        while self.handles:
            os.close(self.handles.pop())


def _wanted(request: Request) -> int:
    return len(request) if isinstance(request, tuple) else request


def _asked(request: Request, host: Sequence[Device]) -> List[Device]:
    """Return the devices that the request could be granted, sorted."""
    return [device for device in host if not isinstance(request, tuple) or device.index in request]


def fault_message(device: Device) -> str:
    """Return why a GPU isn't leased to anybody."""
    said = lease_folder.printable(device.fault, 60)
    return _("{device} can't be used: nvidia-smi says {words}", device.label, said)


def _faulty(request: Request, host: Sequence[Device]) -> List[str]:
    """Return the faulty GPUs without which a request can't be granted; empty where it can."""
    asked = _asked(request, host)
    faulty = [fault_message(device) for device in asked if device.fault]
    if len(asked) - len(faulty) >= _wanted(request):
        return []
    if not faulty and not host:
        return [_("nvidia-smi lists no GPU for it")]
    return faulty or [_("nvidia-smi lists only {devices}", [device.label for device in host])]


def _as_now(hindrances: List[str]) -> Optional[List[Device]]:
    """Return the host's GPUs as they are now; None, with the reason added to the hindrances, where nvidia-smi does not
    answer.

    Never CPU slots: where a run waits for GPUs and none is listed any more, it would waste a night on them.
    """
    try:
        return [device for device in devices.of_host() if device.is_gpu]
    except OSError as error:
        hindrances.append(str(error))
        return None


def _try(request: Request, host: List[Device], where: Path) -> _Look:
    """Lock the devices asked for, all or none."""
    look = _Look(host=host)
    locked: Dict[str, int] = {}
    busy: List[Device] = []
    for device in _asked(request, host):
        if device.fault:
            look.hindrances.append(fault_message(device))
            continue
        try:
            locked[device.key] = lease_folder.lock(_lock_path(device, where))
        except rundir.Busy:
            busy.append(device)
        except lease_folder.Unusable as error:
            look.hindrances.append(_("{device}: {error}", device.label, str(error)))
    claims = _claims(where, host[0].kind)
    if any(claims[device.index][0].is_alive for device in host if device.key in locked and device.index in claims):
        time.sleep(0.05)  # the kernel frees a killed process's locks one after the other, its ticket's last
        claims = _claims(where, host[0].kind)
    # What is leased and could be locked here has lost its holder, and what is left of that run computes on; or its lock
    # file was removed under it, as who made the file may do.
    taken = {device.key: device for device in host if device.key in locked and device.index in claims}
    if len(locked) - len(taken) >= _wanted(request):
        # What others use is asked for only now, under the locks: nvidia-smi is too dear to be polled.
        listed = _as_now(look.hindrances) if host[0].is_gpu else host
        look.host = host if listed is None else listed
        free = [device for device in listed or () if device.key in locked and device.key not in taken]
        foreign = [device for device in free if device.is_used_by_others]
        if foreign:
            labels = [device.label for device in foreign]
            look.hindrances.append(_("in use without a lease: {devices}", labels))
        look.hindrances += [fault_message(device) for device in free if device.fault]
        usable = [device for device in free if not device.is_used_by_others and not device.fault]
        look.granted = usable[: _wanted(request)]
    if len(look.granted) < _wanted(request):
        look.granted = []
    for key, handle in locked.items():
        if key not in [device.key for device in look.granted]:
            os.close(handle)
    look.handles = [locked[device.key] for device in look.granted]
    if not look.granted:
        for device in taken.values():
            by = claims[device.index][0]
            look.hindrances.append(
                _("{device} is leased to {run} of {user}, whose lock was removed",
                  device.label, by.ticket.run, by.ticket.user) if by.is_alive else
                _("{device} is still used by what is left of {run} of {user}",
                  device.label, by.ticket.run, by.ticket.user))  # fmt: skip
        for device in busy:
            if device.index not in claims:
                look.hindrances += _untold(device, where)
    return look


def _lock_path(device: Device, where: Path) -> Path:
    return where / (device.key + ".lock")


def _claims(where: Path, kind: str) -> Dict[int, List[tickets.Found]]:
    """Return by index the leases of each device of a kind, those of live processes first.

    Several are more than can be: one at most is true.
    """
    claims: Dict[int, List[tickets.Found]] = {}
    for known in sorted(tickets.find("lease", where)[0], key=lambda known: not known.is_alive):
        for index in known.ticket.devices if known.ticket.may_be_of(kind) else ():
            claims.setdefault(index, []).append(known)
    return claims


def _owner(device: Device, claims: Sequence[tickets.Found], where: Path) -> Optional[tickets.Found]:
    """Return the lease shown for a device: of several, that of the process which took the device's lock."""
    if len(claims) > 1:
        holders = lease_folder.holders_of(_lock_path(device, where)) or []
        for known in claims:
            if set(holders) & set(lease_folder.holders_of(known.path) or []):
                return known
    return claims[0] if claims else None


def _named(junk: List[str]) -> List[str]:
    """Return which junk to name."""
    more = len(junk) - MOST_JUNK
    return [*junk[:MOST_JUNK], _("{count} files more", more)] if more > 0 else junk


def _untold(device: Device, where: Path) -> List[str]:
    """Return a description of who holds a device's lock without a ticket; empty where the ticket has come meanwhile."""
    path = _lock_path(device, where)
    time.sleep(0.05)  # between a lock and its ticket there is a moment
    with contextlib.suppress(lease_folder.Unusable):
        if lease_folder.is_locked(path) and device.index not in _claims(where, device.kind):
            holder = lease_folder.holder_of(path)
            return [_("{device} is locked without a ticket by {holder}", device.label, holder)]
    return []


def _possible(request: Request, host: Sequence[Device]) -> Request:
    """Return the request as this host can grant it (CPU slots are alike: exact indices count as a number).

    Raises:
        ImpossibleRequest: The host has not got so many, or not these, or may not give them.
    """
    problem = ""
    if not host:
        problem = _("asks for {devices}; this host has no GPU that it may have", _described(request, host))
    elif isinstance(request, tuple):
        if not host[0].is_gpu:
            request = len(request)
        else:
            there = [device.index for device in host]
            missing = sorted(set(request) - set(there))
            if missing:
                problem = _("asks for GPU {missing}; this host has {there}", missing, there)
    if isinstance(request, int) and host and request > len(host):
        problem = _("asks for {devices}; this host has {count}", _described(request, host), len(host))
    if problem:
        limit = permitted.description()
        raise ImpossibleRequest(_("{problem} (held to {limit})", problem, limit) if limit else problem)
    return request


def _described(request: Request, host: Sequence[Device]) -> str:
    if isinstance(request, tuple):  # CPU slots are alike: nobody asks for certain ones
        return because("gpus_by_index", indices=list(request))
    kind = "gpu" if not host or host[0].is_gpu else "slot"
    return because(kind) if request == 1 else because(kind + "s", count=request)


def table(where: Optional[Path] = None) -> messages.LeaseTable:
    """Return the host's devices with their holders, and its queue, as JSON for status and doctor.

    ``devices``: a row each, whose ``holder`` names who holds a lock without a ticket, and whose ``fault`` says why it
    is leased to nobody; ``limit``: what holds runs of this environment to some GPUs; ``junk``: what is passed over.
    """
    where = where or lease_folder.folder()
    host, rows = devices.of_host(), []
    claims = _claims(where, host[0].kind) if host else {}
    waiting, junk = tickets.find("ticket", where)
    junk += tickets.find("lease", where)[1]
    for device in host:
        row: messages.DeviceRow = {
            "label": device.label,
            "name": device.name,
            "memory_mb": device.memory_mb,
            "memory_used_mb": device.memory_used_mb,
            "utilisation": device.utilisation,
            "user": "",
            "run": "",
            "holder": "",
            "fault": fault_message(device) if device.fault else "",
        }
        owner = _owner(device, claims.get(device.index, ()), where)
        try:
            is_locked = lease_folder.is_locked(_lock_path(device, where))
        except lease_folder.Unusable as error:
            row["fault"] = row["fault"] or str(error)
            is_locked = False
        if owner is not None:
            row["user"], row["run"] = owner.ticket.user, owner.ticket.run
        elif is_locked:
            row["holder"] = lease_folder.holder_of(_lock_path(device, where)) if _untold(device, where) else ""
        rows.append(row)
    return {
        "devices": rows,
        "queue": [cast("messages.TicketRow", asdict(known.ticket)) for known in waiting],
        "limit": permitted.description(),
        "junk": _named(junk),
    }

"""Lease devices of a plain host: locks held by live processes; users who wait take turns.

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
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Dict, List, Optional, Sequence, Tuple, cast

from .. import privacy
from ..reasons import because
from ..sentences import _, joined
from . import devices, lease_folder, looking, permitted, tickets
from .devices import Device
from .tickets import Request, Ticket

if TYPE_CHECKING:
    from .. import messages

POLL_S, FOREIGN_POLL_S = 1.0, 15.0
"""How often the first in line looks again for devices; slower where only what no lock tells is in the way."""
FAR = 3
"""Behind so many of its user's own runs that wait, a run has the time to be made ready when one of them is served."""
GPUS_VARIABLE = "OELM_LEASED_GPUS"
"""How many GPUs a process of a run must be able to see; 0 on CPU slots."""
MOST_JUNK = 20
"""So many files that are passed over are named; whoever makes more of them is named by then."""


class ImpossibleRequest(Exception):
    """This host can never grant the request."""


class Lease:
    """Devices held by this process until ``release`` or its end."""

    def __init__(self, granted: List[Device], handles: List[int], ticket_path: Path, per_gpu: int = 1) -> None:
        self.devices = granted
        self.per_gpu = per_gpu
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
            seen = ",".join(device.cuda_name or device.key[len("gpu-") :] for device in self.devices)
            return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", permitted.CUDA: seen, GPUS_VARIABLE: str(len(self.devices))}
        return {"OMP_NUM_THREADS": "1", permitted.CUDA: "", GPUS_VARIABLE: "0"}


def acquire(
    request: Request,
    *,
    queued_at: float,
    token: str,
    run: str,
    run_dir: str,
    is_late: bool = False,
    is_alone: bool = False,
    ticket_handle: int = -1,
    wait_far: Callable[[Path, int], None] = lambda path, handle: None,
    say: Callable[[str], None] = lambda text: None,
    tell: Callable[[str], None] = lambda reason: None,
) -> Lease:
    """Wait in the queue for devices and lease them, all or none.

    Signals interrupt the wait if their handler raises.

    Args:
        request: A number of devices, or exact indices.
        queued_at: When the run was queued, Unix seconds: its place among this user's runs, and in the line of all users
            (as near to it as a ticket's time may be) unless this user's runs were served meanwhile.
        is_late: They were: it is this user's turn after all who wait now.
        is_alone: It shares its GPUs with nobody, whatever the target allows.
        ticket_handle: Of the ticket in its user's line that it holds already.
        wait_far: Called before it waits behind at least FAR of its user's own runs, with the file whose lock to wait
            for and the handle of its own ticket; if it returns, the wait goes on here.
        say: Called with what is passed over.
        tell: Called with what is being waited for, whenever that changes.

    Raises:
        ImpossibleRequest: This host has not got what is asked for.
        OSError: The folder of all users' tickets can't be used, or nvidia-smi does not answer.
    """
    where = lease_folder.folder()
    host = devices.of_host()
    request = _possible(request, host)
    me = privacy.user_name(os.getuid())
    per_gpu = permitted.number(permitted.PER_GPU, 1) if host[0].is_gpu and not is_alone else 1
    most = permitted.number(permitted.MAX_PARALLEL, 0)
    ticket = Ticket(queued_at, token, request, me, run, run_dir, of=host[0].kind, per_gpu=per_gpu)
    own_folder = tickets.own_line(where)
    own, line = _Line(ticket, own_folder, ticket_handle) if own_folder else None, _Line(ticket, where)
    for junk in _named(tickets.find("ticket", where)[1] + tickets.find("lease", where)[1]):
        say(_("passed over in {folder}: {junk}", str(where), junk))
    guard = _keep(where)
    said, pause, close_at, lease = "", 0.05, 0.0, None
    try:
        while True:
            look, obstacle, is_limited = looking.Look(host), None, False
            faulty = looking.faulty_of(request, host)
            if faulty:
                # Whoever can't be served before a card is mended lets the others go first, and queues anew then.
                is_late = True
                line.leave()
                if own is not None:
                    own.leave()
                look.hindrances += faulty
            else:
                try:
                    # Who stands in the line of all users doesn't look back: nobody ahead there waits for the own line.
                    if own is not None and not line.is_in:
                        obstacle = own.ahead() if own.is_in else own.join(queued_at)
                    is_limited = obstacle is None and 0 < most <= tickets.own_leases(where)
                    if obstacle is not None or is_limited:
                        is_late = True
                        line.leave()
                    elif line.is_in:
                        obstacle = line.ahead()
                    else:
                        now = time.time()
                        obstacle = line.join(tickets.arrival(now) if is_late else tickets.within_reach(queued_at, now))
                    if obstacle is None and not is_limited:
                        is_close = time.monotonic() >= close_at
                        look = looking.take(line.ticket, host, where, is_close)
                        host = look.host
                        if is_close and not look.hindrances:
                            close_at = time.monotonic() + FOREIGN_POLL_S
                    if look.granted:
                        held = replace(line.ticket, devices=tuple(device.index for device in look.granted))
                        held_handle, held_path = tickets.post(held, where)
                        # Another run of this user may have come first at the same moment. Who counts after posting
                        # its own lease sees all before it: of one too many, the last at least gives up.
                        is_limited = 0 < most < tickets.own_leases(where)
                        if not is_limited:
                            locks = [handle for handles in look.granted.values() for handle in handles]
                            lease = Lease(list(look.granted), [guard, *locks, held_handle], held_path, per_gpu)
                            return lease
                        tickets.withdraw(held_handle, held_path)
                        look.release()
                        is_late = True
                        line.leave()
                except OSError as error:
                    look.release()
                    if error.errno not in lease_folder.FULL:
                        raise
                    look.hindrances.append(_("{folder} can't be written: {why}", str(where), error.strerror))
            if obstacle is not None:
                first, first_path, place = obstacle
                message = because("waiting_behind", run=first.run, user=first.user, place=place)
            elif is_limited:
                message = because("waiting_for_limit", most=most)
            else:
                held_to = permitted.description() if not host or host[0].is_gpu else ""
                wanted = _described(request, host)
                what = because("of_permitted", devices=wanted, limit=held_to) if held_to else wanted
                message = joined([because("waiting_for", what=what), *look.hindrances])
            if message != said:
                tell(message)
                said = message
            if obstacle is not None:
                far = own.ahead(FAR) if own is not None and not line.is_in else None
                if own is not None and far is not None:
                    wait_far(far[1], own.handle)
                lease_folder.wait_for_end(first_path)
            else:
                time.sleep(FOREIGN_POLL_S if look.hindrances else pause)
                pause = min(2 * pause, POLL_S)
            if faulty:
                listed = looking.gpus_now([])
                host = host if listed is None else listed
    finally:
        line.leave()
        if own is not None:
            own.leave()
        if lease is None:
            os.close(guard)


class _Line:
    """This process's place in a line of tickets."""

    def __init__(self, ticket: Ticket, where: Path, handle: int = -1) -> None:
        self.ticket = ticket
        self._where = where
        self._posted: Optional[Tuple[int, Path]] = None
        path = where / ticket.file_name
        with contextlib.suppress(OSError):  # else it stands there no more, and joins again
            if os.path.samestat(os.fstat(handle), os.stat(str(path))):
                self._posted = (handle, path)

    @property
    def handle(self) -> int:
        """Descriptor of its ticket, -1 where there is none."""
        return self._posted[0] if self._posted else -1

    @property
    def is_in(self) -> bool:
        """Whether it stands there."""
        return self._posted is not None

    def join(self, at: float) -> Optional[Tuple[Ticket, Path, int]]:
        """Join the line at a place (Unix seconds) and return who is ahead.

        Raises:
            OSError: No ticket can be written.
        """
        self.ticket = replace(self.ticket, time=at)
        self._posted = tickets.post(self.ticket, self._where)
        return self.ahead()

    def ahead(self, nth: int = 1) -> Optional[Tuple[Ticket, Path, int]]:
        """Return who is ahead, as ``tickets.ahead_of`` does."""
        return tickets.ahead_of(self.ticket, self._where, nth)

    def leave(self) -> None:
        """Leave the line; harmless when called again."""
        if self._posted is not None:
            handle, path = self._posted
            self._posted = None
            tickets.withdraw(handle, path)


def _keep(where: Path) -> int:
    """Lock the folder, so that systemd-tmpfiles doesn't clean it during a long training
    (https://systemd.io/TEMPORARY_DIRECTORIES); return the descriptor.
    """
    handle = os.open(str(where), os.O_RDONLY)
    with contextlib.suppress(OSError):  # somebody is tidying this very moment
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return handle


def _named(junk: List[str]) -> List[str]:
    """Return which junk to name."""
    more = len(junk) - MOST_JUNK
    return [*junk[:MOST_JUNK], _("{count} files more", more)] if more > 0 else junk


def _possible(request: Request, host: Sequence[Device]) -> Request:
    """Return the request as this host can grant it (CPU slots are alike: exact indices count as a number).

    Raises:
        ImpossibleRequest: The host has not got so many, or not these, or may not give them.
    """
    if isinstance(request, tuple) and host and not host[0].is_gpu:
        request = len(request)
    there = [device.index for device in host]
    missing = sorted(set(request) - set(there)) if isinstance(request, tuple) else []
    if not host:
        problem = _("asks for {devices}; this host has no GPU that it may have", _described(request, host))
    elif missing:
        problem = _("asks for GPU {missing}; this host has {there}", missing, there)
    elif looking.wanted(request) > len(host):
        problem = _("asks for {devices}; this host has {count}", _described(request, host), len(host))
    else:
        return request
    limit = permitted.description()
    raise ImpossibleRequest(_("{problem} (held to {limit})", problem, limit) if limit else problem)


def _described(request: Request, host: Sequence[Device]) -> str:
    if isinstance(request, tuple):  # CPU slots are alike: nobody asks for certain ones
        return because("gpus_by_index", indices=list(request))
    kind = "gpu" if not host or host[0].is_gpu else "slot"
    return because(kind) if request == 1 else because(kind + "s", count=request)


def table() -> messages.LeaseTable:
    """Return the host's devices with their holders, and its queue, as JSON for status and doctor.

    ``devices``: a row each, whose ``holder`` names who holds a lock without a ticket, and whose ``fault`` says why it
    is leased to nobody; ``limit``: what holds runs of this environment to some GPUs; ``junk``: what is passed over.
    """
    where = lease_folder.folder()
    host, rows = devices.of_host(), []
    claims = looking.claims_of(where, host[0].kind) if host else {}
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
            "fault": looking.fault_message(device) if device.fault else "",
        }
        owner = looking.owner(device, claims.get(device.index, ()), where)
        try:
            is_locked = lease_folder.is_locked(looking.lock_path(device, where))
        except lease_folder.Unusable as error:
            row["fault"] = row["fault"] or str(error)
            is_locked = False
        if owner is not None:
            sharing = [known for known in claims[device.index] if known.ticket.per_gpu > 1] or [owner]
            row["user"], row["run"] = (
                ", ".join(dict.fromkeys(words))
                for words in ([known.ticket.user for known in sharing], [known.ticket.run for known in sharing])
            )
        elif is_locked:
            row["holder"] = looking.untold(device, where)
        rows.append(row)
    return {
        "devices": rows,
        "queue": [cast("messages.TicketRow", asdict(known.ticket)) for known in waiting],
        "limit": permitted.description(),
        "junk": _named(junk),
    }

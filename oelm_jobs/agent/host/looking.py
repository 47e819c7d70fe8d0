"""What the first in line finds: the devices that a request can be granted now, locked, and what is in the way."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Optional, Sequence

from .. import rundir
from ..sentences import _
from . import devices, lease_folder, permitted, tickets
from .devices import Device
from .tickets import Request, Ticket


@dataclass
class Look:
    """What the first in the queue found."""

    host: List[Device]
    """The host's devices as they were seen last."""
    granted: Dict[Device, List[int]] = field(default_factory=dict)
    """All that was asked for, or none, with their locks."""
    hindrances: List[str] = field(default_factory=list)
    """What is in the way besides live leases, described."""

    def release(self) -> None:
        """Give the locks back."""
        while self.granted:
            _close(self.granted.popitem()[1])


def _close(handles: Sequence[int]) -> None:
    for handle in handles:
        os.close(handle)


def wanted(request: Request) -> int:
    """Return how many devices a request asks for."""
    return len(request) if isinstance(request, tuple) else request


def _asked(request: Request, host: Sequence[Device]) -> List[Device]:
    """Return the devices that the request could be granted, sorted."""
    return [device for device in host if not isinstance(request, tuple) or device.index in request]


def fault_message(device: Device) -> str:
    """Return why a GPU isn't leased to anybody."""
    said = lease_folder.printable(device.fault, 60)
    return _("{device} can't be used: nvidia-smi says {words}", device.label, said)


def faulty_of(request: Request, host: Sequence[Device]) -> List[str]:
    """Return the faulty GPUs without which a request can't be granted; empty where it can."""
    asked = _asked(request, host)
    faulty = [fault_message(device) for device in asked if device.fault]
    if len(asked) - len(faulty) >= wanted(request):
        return []
    if not faulty and not host:
        return [_("nvidia-smi lists no GPU for it")]
    return faulty or [_("nvidia-smi lists only {devices}", [device.label for device in host])]


def gpus_now(hindrances: List[str]) -> Optional[List[Device]]:
    """Return the host's GPUs as they are now; None, with the reason added to the hindrances, where nvidia-smi does not
    answer.

    Never CPU slots: where a run waits for GPUs and none is listed any more, it would waste a night on them.
    """
    try:
        return [device for device in devices.of_host() if device.is_gpu]
    except OSError as error:
        hindrances.append(str(error))
        return None


def take(ticket: Ticket, host: List[Device], where: Path, is_close: bool = True) -> Look:
    """Lock the devices that a ticket asks for, all or none.

    Args:
        is_close: Find out what is in the way besides live leases, too, which takes longer than to see that there are
            too few free locks.
    """
    look, request = Look(host), ticket.request
    locked: Dict[str, List[int]] = {}
    busy: List[Device] = []
    for device in _asked(request, host):
        if device.fault:
            look.hindrances.append(fault_message(device))
            continue
        try:
            locked[device.key] = _lock(device, where, ticket.per_gpu)
        except rundir.Busy:
            busy.append(device)
        except lease_folder.Unusable as error:
            look.hindrances.append(_("{device}: {error}", device.label, str(error)))
    if not is_close and len(locked) < wanted(request):
        for handles in locked.values():
            _close(handles)
        return Look(host)
    claims = claims_of(where, host[0].kind)
    if any(claims[device.index][0].is_alive for device in host if device.key in locked and device.index in claims):
        time.sleep(0.05)  # the kernel frees a killed process's locks one after the other, its ticket's last
        claims = claims_of(where, host[0].kind)
    # What is leased and could be locked here has lost its holder, and what is left of that run computes on; or its lock
    # file was removed under it, as who made the file may do.
    barred = {index for index, known in claims.items() if not _may_share(ticket, known)}
    taken = {device.key: device for device in host if device.key in locked and device.index in barred}
    if len(locked) - len(taken) >= wanted(request):
        # What others use is asked for only now, under the locks: nvidia-smi is too dear to be polled.
        listed = gpus_now(look.hindrances) if host[0].is_gpu else host
        look.host = host if listed is None else listed
        free = [device for device in listed or () if device.key in locked and device.key not in taken]
        # What those who share a GPU use of it can't be told from what others do.
        foreign = [device for device in free if device.is_used_by_others and device.index not in claims]
        if foreign:
            labels = [device.label for device in foreign]
            look.hindrances.append(_("in use without a lease: {devices}", labels))
        look.hindrances += [fault_message(device) for device in free if device.fault]
        usable = [device for device in free if device not in foreign and not device.fault]
        preferred = permitted.preferred()
        # Those first that nobody has yet; of them those that the target prefers.
        usable.sort(key=lambda device: (device.index in claims, device.index not in preferred))
        if len(usable) >= wanted(request):
            chosen = sorted(usable[: wanted(request)], key=lambda device: device.index)
            look.granted = {device: locked.pop(device.key) for device in chosen}
    for handles in locked.values():
        _close(handles)
    if not look.granted:
        for device in taken.values():
            by = claims[device.index][0]
            look.hindrances.append(
                _("{device} is leased to {run} of {user}, whose lock was removed",
                  device.label, by.ticket.run, by.ticket.user) if by.is_alive else
                _("{device} is still used by what is left of {run} of {user}",
                  device.label, by.ticket.run, by.ticket.user))  # fmt: skip
        for device in busy:
            holder = untold(device, where) if device.index not in claims else ""
            if holder:
                look.hindrances.append(_("{device} is locked without a ticket by {holder}", device.label, holder))
    return look


def _may_share(ticket: Ticket, claims: Sequence[tickets.Found]) -> bool:
    """Tell whether a run may have a device that those who lease it share: as many as it and they allow."""
    return all(known.is_alive and len(claims) < min(known.ticket.per_gpu, ticket.per_gpu) for known in claims)


def lock_path(device: Device, where: Path) -> Path:
    """Return the path of a device's lock file."""
    return where / (device.key + ".lock")


def _lock(device: Device, where: Path, per_gpu: int) -> List[int]:
    """Lock a device: alone, or as one of so many, who have a common lock, which keeps all others away, and one each.

    Raises:
        rundir.Busy: Others hold it.
        lease_folder.Unusable: It can't be locked.
    """
    if per_gpu == 1:
        return [lease_folder.lock(lock_path(device, where))]
    common = lease_folder.lock(lock_path(device, where), fcntl.LOCK_SH)
    for number in range(1, per_gpu + 1):
        try:
            return [common, lease_folder.lock(where / ("%s.%d.lock" % (device.key, number)))]
        except (rundir.Busy, lease_folder.Unusable):
            continue
    os.close(common)
    raise rundir.Busy(device.label)


def claims_of(where: Path, kind: str) -> Dict[int, List[tickets.Found]]:
    """Return by index the leases of each device of a kind, those of live processes first.

    Several are more than can be: one at most is true.
    """
    claims: Dict[int, List[tickets.Found]] = {}
    for known in sorted(tickets.find("lease", where)[0], key=lambda known: not known.is_alive):
        for index in known.ticket.devices if known.ticket.may_be_of(kind) else ():
            claims.setdefault(index, []).append(known)
    return claims


def owner(device: Device, claims: Sequence[tickets.Found], where: Path) -> Optional[tickets.Found]:
    """Return the lease shown for a device: of several, that of the process which took the device's lock."""
    if len(claims) > 1:
        holders = lease_folder.holders_of(lock_path(device, where)) or []
        for known in claims:
            if set(holders) & set(lease_folder.holders_of(known.path) or []):
                return known
    return claims[0] if claims else None


def untold(device: Device, where: Path) -> str:
    """Return who holds a device's lock without a ticket; empty where the ticket has come meanwhile."""
    path = lock_path(device, where)
    time.sleep(0.05)  # between a lock and its ticket there is a moment
    with contextlib.suppress(lease_folder.Unusable):
        if lease_folder.is_locked(path) and device.index not in claims_of(where, device.kind):
            return lease_folder.holder_of(path)
    return ""

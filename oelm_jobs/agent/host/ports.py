"""Choose ports of this host on which the processes of a run meet."""

from __future__ import annotations

import contextlib
import errno
import socket
from typing import Collection, Optional, Tuple

from .. import rundir
from ..sentences import _
from . import lease_folder


def reserve_port(preferred: Optional[int], avoided: Collection[int] = ()) -> Tuple[int, int]:
    """Reserve a free port; return it, and a descriptor that keeps other runs of this host from it.

    The preferred port if nobody has it, else one that the kernel picks. torchrun binds it only seconds later; the lock,
    which lasts as long as the descriptor, closes that gap against other runs (not against strangers).

    Args:
        avoided: Ports that turned out to be a stranger's.

    Raises:
        OSError: No port is free.
    """
    for _try in range(100):
        port = preferred
        if not port or port in avoided or not port_is_free(port):
            with socket.socket() as probe:
                probe.bind(("", 0))
                port = int(probe.getsockname()[1])
        try:
            return port, lease_folder.lock(lease_folder.folder() / ("port-%d.lock" % port))
        except (rundir.Busy, lease_folder.Unusable):
            preferred = None
    raise OSError(_("no free port on this host"))


def port_is_free(port: int) -> bool:
    """Tell whether ``port`` can be bound now for IPv4 and IPv6, since torch listens to both on one socket."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            probe = socket.socket(family)
        except OSError:  # this host does without the family
            continue
        with contextlib.closing(probe):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                probe.bind(("", port))
            except OSError as error:
                if error.errno != errno.EADDRNOTAVAIL:  # IPv6 is compiled in and switched off
                    return False
    return True

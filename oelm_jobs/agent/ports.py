"""Owns ports of this host that runs meet on; leaves what is said over them to torchrun."""

from __future__ import annotations

import socket
from typing import Optional, Tuple

from . import lease, rundir


def reserve_port(preferred: Optional[int]) -> Tuple[int, int]:
    """Return a port that is free here and now, and a descriptor that keeps other runs of this host from it.

    The preferred port if nobody has it, else one that the kernel picks. torchrun binds it only seconds later; the lock,
    which lasts as long as the descriptor, closes that gap against other runs (not against strangers).

    Raises:
        OSError: No port is free.
    """
    for _ in range(100):
        port = preferred
        if not port or not port_is_free(port):
            with socket.socket() as probe:
                probe.bind(("", 0))
                port = int(probe.getsockname()[1])
        try:
            return port, lease.lock(lease.folder() / ("port-%d.lock" % port))
        except rundir.Busy:
            preferred = None
    raise OSError("no free port on this host")


def port_is_free(port: int) -> bool:
    """True where ``port`` can be bound now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True

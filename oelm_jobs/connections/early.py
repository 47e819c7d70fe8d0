"""Begin to connect (``ssh -G``, the socket) while Python still imports fabric."""

from __future__ import annotations

import contextlib
import socket
import threading

from ..spec.target import Target
from . import sshconfig


def open_socket(hostname: str, port: int, timeout_s: float) -> socket.socket:
    """Return a connected socket that sends at once.

    paramiko leaves Nagle's algorithm on, which costs 40 ms for every command (Linux' delayed acknowledgement).

    Raises:
        OSError: It can't be connected.
    """
    made = socket.create_connection((hostname, port), timeout_s)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


class EarlySocket:
    """A socket that is being connected in the background."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._socket: socket.socket | None = None
        self._thread = threading.Thread(target=self._connect, daemon=True)
        self._thread.start()

    def _connect(self) -> None:
        # What goes wrong here is found out again, and told, when the connection is really made.
        with contextlib.suppress(Exception):
            settings = sshconfig.look_up(self._target)
            if not settings.proxy_jump and not settings.proxy_command and not settings.beyond:
                self._socket = open_socket(settings.hostname, settings.port, settings.connect_timeout_s)

    def take(self) -> socket.socket | None:
        """Return the socket, once; None where there is none (any more)."""
        self._thread.join()
        taken, self._socket = self._socket, None
        return taken

    def close(self) -> None:
        """Give it up."""
        taken = self.take()
        if taken is not None:
            taken.close()

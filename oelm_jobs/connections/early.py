"""Begin to connect (``ssh -G``, the socket) while Python still imports fabric."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

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


def begin(target: Target) -> Callable[[], socket.socket | None]:
    """Begin to connect in the background; return a function that gives the socket, once, and None where there is none
    (any more).
    """
    made: list[socket.socket] = []

    def connect() -> None:
        # What goes wrong here is found out again, and told, when the connection is really made.
        with contextlib.suppress(Exception):
            settings = sshconfig.look_up(target)
            if not settings.proxy and not settings.beyond:
                made.append(open_socket(settings.hostname, settings.port, settings.connect_timeout_s))

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()

    def take() -> socket.socket | None:
        thread.join()
        return made.pop() if made else None

    return take

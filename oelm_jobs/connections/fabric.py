"""Reach another machine through fabric, with known host keys and public keys only and a deadline on every step.

Programs and data go through a raw channel: ``Connection.run(in_stream=…)`` costs 10 ms a byte (fabric 3.2.3).
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import fabric
import paramiko

from ..agent.sentences import Sentence, _
from ..errors import NotReached, TargetError
from ..spec.target import Target
from ..visible import notice
from . import sshconfig
from .channel import MAX_SAID_BYTES, Broken, Channel, last_line
from .early import open_socket
from .knownhosts import Line
from .login import Beyond, Client, SecondFactor, about, beyond
from .openssh import OpenSSHConnection, may_ask

STEP_S = 15.0
"""How long banner, login and the opening of a channel may take, each."""
LOGIN_S = 60.0
"""How long all of them may take together: each lasts for as long as single bytes drip in."""
CLOSED_S = 5.0
"""A socket made early that fails within so long was closed by the server; another is tried."""
KEEPALIVE_S = 15
BROKEN = (OSError, EOFError, paramiko.SSHException)
"""What paramiko says of a connection that was lost."""


class _Login(fabric.Connection):  # type: ignore[misc]  # fabric ships no types
    """A connection to a host."""

    def __init__(self, settings: sshconfig.Settings, known: list[Line]) -> None:
        client = Client(settings, known)
        super().__init__(
            host=settings.hostname,
            user=settings.user,
            port=settings.port,
            forward_agent=False,
            connect_timeout=settings.connect_timeout_s,
            config=fabric.Config(lazy=True, overrides={"load_ssh_configs": False}),
            connect_kwargs={
                "banner_timeout": STEP_S, "auth_timeout": STEP_S, "channel_timeout": STEP_S,
                "allow_agent": False, "look_for_keys": False, "transport_factory": client.transport,
            },
        )  # fmt: skip
        self._set(client=client, _settings=settings)

    def open(self, early: socket.socket | None = None) -> None:
        """Connect.

        Args:
            early: A socket that is connected already.

        Raises:
            TargetError: Says what failed, and the mend.
            Beyond: The OpenSSH client may get there.
        """
        settings: sshconfig.Settings = self._settings
        try:
            sock = early or open_socket(settings.hostname, settings.port, settings.connect_timeout_s)
            self.connect_kwargs["sock"] = sock
            with _bounded(self.client, LOGIN_S):
                super().open()
        except (TargetError, Beyond):
            raise
        except paramiko.AuthenticationException as error:
            raise sshconfig.login_refused(settings, _message(error)) from error
        except paramiko.ssh_exception.IncompatiblePeer as error:
            raise Beyond(_("{host} offers no algorithm that paramiko may use", settings.alias)) from error
        except socket.gaierror as error:
            raise TargetError(
                _("{hostname}: no such host ({why})", settings.hostname, error.strerror),
                hint=_("is it an alias in ~/.ssh/config?"),
            ) from error
        except Exception as error:  # whatever a server's bytes make of paramiko
            raise NotReached(_("{host} can't be reached: {why}", settings.alias, _message(error))) from error
        self.transport.set_keepalive(KEEPALIVE_S)

    def drop(self) -> None:
        """Close it."""
        with contextlib.suppress(Exception):
            self.client.close()


@contextlib.contextmanager
def _bounded(client: Any, limit_s: float) -> Iterator[None]:
    """Close a client's connection when a step takes too long: some of paramiko's wait for ever."""
    watch = threading.Timer(limit_s, client.close)
    watch.daemon = True
    watch.start()
    try:
        yield
    finally:
        watch.cancel()


def _message(error: BaseException) -> str:
    """Return an error's message, one line; part of it may come from the server."""
    if isinstance(error, TimeoutError) or "No existing session" in str(error):  # a key exchange that took too long
        return _("nothing came for too long")
    message = (error.strerror if isinstance(error, OSError) else "") or str(error) or type(error).__name__
    return message if isinstance(message, Sentence) else last_line(message.encode("utf-8", "replace"))


class FabricConnection(OpenSSHConnection):
    """Another machine, through fabric; through OpenSSH where paramiko can't, behind other hosts, and for what needs a
    terminal.
    """

    def __init__(self, target: Target, early: Callable[[], socket.socket | None]) -> None:
        super().__init__(target)
        self._login: _Login | None = None
        self._early = early
        self._is_beyond = False
        """Whether OpenSSH has taken over."""

    def _open(self, line: str) -> Channel:
        self._is_beyond = self._is_beyond or bool(self._settings().proxy)
        if not self._is_beyond:
            try:
                return self._open_here(line)
            except Beyond as found:  # before a login was complete, so nothing was run
                self.close()
                hint = _('set connection = "openssh" in the targets file: it asks once for all commands')
                if isinstance(found, SecondFactor) and not may_ask() and not self._open_master():
                    raise TargetError(str(found), hint=hint) from None
                way = _('connection = "openssh" in the targets file takes this way at once')
                notice(_("{target}: {what}; going on through OpenSSH ({how})", self.target.name, str(found), way))
                self._is_beyond = True
        return super()._open(line)

    def _open_here(self, line: str) -> Channel:
        for fresh in (False, True):
            if self._login is None or not self._login.is_connected:
                fresh = True
                self._login = self._connected()
            try:
                channel = self._login.transport.open_session(timeout=STEP_S)
                channel.settimeout(STEP_S)
                with _bounded(self._login.client, STEP_S):
                    channel.exec_command(line)
                return _FabricChannel(channel)
            except BROKEN as error:
                # An old connection may have died unseen; the command was not run. ChannelException: MaxSessions.
                self._drop_unused()
                if fresh:
                    raise NotReached(
                        _("{host} runs no command just now: {why}", self.target.host, _message(error))
                    ) from error
        raise AssertionError

    def _connected(self) -> _Login:
        """Return a connection; the socket that was made early may have been closed by the server since."""
        settings = self._settings()
        known = about(settings)
        if why := beyond(settings, known):
            raise Beyond(why)
        early = self._early()
        for sock in (early, None) if early else (None,):
            login, begun = _Login(settings, known), time.monotonic()
            try:
                login.open(sock)
                return login
            except BaseException as error:
                login.drop()
                if not (sock and isinstance(error, NotReached) and time.monotonic() - begun <= CLOSED_S):
                    raise
        raise AssertionError

    def _drop(self) -> None:
        super()._drop()
        login, self._login = self._login, None
        if login is not None:
            login.drop()

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            if (early := self._early()) is not None:
                early.close()
            self._drop()


class _FabricChannel:
    """A raw channel of paramiko's transport."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._said = bytearray()

    def write(self, data: bytes, idle_s: float) -> None:
        """Send bytes; a full window waits for the other side."""
        with _unbroken():
            self._channel.settimeout(idle_s)
            self._channel.sendall(data)

    def close_input(self) -> None:
        """Send the end of its stdin."""
        with _unbroken():
            self._channel.shutdown_write()

    def read(self, idle_s: float) -> bytes:
        """Return the next bytes."""
        with _unbroken():
            self._channel.settimeout(idle_s)
            content = self._channel.recv(1 << 16)
        self._hear()
        return bytes(content)

    def _hear(self) -> None:
        while self._channel.recv_stderr_ready():
            self._said += self._channel.recv_stderr(1 << 16)
            del self._said[:-MAX_SAID_BYTES]

    def end(self) -> tuple[int | None, str]:
        """Return exit code and last line of stderr; paramiko's −1 means killed by a signal, or a lost connection."""
        deadline = time.monotonic() + STEP_S
        while not self._channel.status_event.wait(0.05):
            if time.monotonic() > deadline or not self._channel.get_transport().is_active():
                break
        self._hear()
        code = self._channel.exit_status
        return (code if code >= 0 else None), last_line(bytes(self._said))

    def close(self) -> None:
        """Close the channel, not the connection."""
        with contextlib.suppress(Exception):
            self._channel.close()


@contextlib.contextmanager
def _unbroken() -> Iterator[None]:
    """Turn what paramiko says of a lost connection into Broken."""
    try:
        yield
    except BROKEN as error:
        raise Broken(_message(error)) from error

"""Reach another machine through fabric, with known host keys and public keys only and a deadline on every step.

Programs and data go through a raw channel: ``Connection.run(in_stream=…)`` costs 10 ms a byte (fabric 3.2.3).
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import fabric
import paramiko

from ..agent.sentences import Sentence, _
from ..errors import NotReached, TargetError
from ..spec.target import Target
from ..visible import notice
from . import Route, sshconfig
from .channel import MAX_SAID_BYTES, Broken, Channel, last_line
from .early import EarlySocket, open_socket
from .login import Beyond, Client, HostKey, SecondFactor, beyond, may_ask
from .openssh import KEEP_PLAIN_S, OpenSSHConnection, plain_shell, plain_terminal
from .proxy import Proxy
from .remote import RemoteConnection

STEP_S = 15.0
"""How long banner, login and the opening of a channel may take, each."""
LOGIN_S = 60.0
"""How long all of them may take together: each lasts for as long as single bytes drip in."""
CLOSED_S = 5.0
"""A socket made early that fails within so long was closed by the server; another is tried."""
KEEPALIVE_S = 15


class _Hop(fabric.Connection):  # type: ignore[misc]  # fabric ships no types
    """One host of the way: a jump host, or the target itself."""

    def __init__(self, settings: sshconfig.Settings, gateway: _Hop | None) -> None:
        client = Client(settings)
        super().__init__(
            host=settings.hostname,
            user=settings.user,
            port=settings.port,
            gateway=gateway or False,
            forward_agent=False,
            connect_timeout=settings.connect_timeout_s,
            config=fabric.Config(lazy=True, overrides={"load_ssh_configs": False}),
            connect_kwargs={
                "banner_timeout": STEP_S, "auth_timeout": STEP_S, "channel_timeout": STEP_S,
                "allow_agent": False, "look_for_keys": False, "transport_factory": client.transport,
            },
        )  # fmt: skip
        self._set(client=client, _settings=settings, _proxy=None)

    def open(self, early: socket.socket | None = None) -> Any:
        """Connect.

        Args:
            early: A socket that is connected already.

        Raises:
            TargetError: Names the host of the way where it failed, and the mend.
            Beyond: The OpenSSH client may get there.
        """
        settings: sshconfig.Settings = self._settings
        try:
            if settings.proxy_command:
                self._set(_proxy=Proxy(settings.proxy_command))
                self.connect_kwargs["sock"] = self._proxy.socket
            elif not self.gateway:
                sock = early or open_socket(settings.hostname, settings.port, settings.connect_timeout_s)
                self.connect_kwargs["sock"] = sock
            with _bounded(self.client, LOGIN_S):
                result = super().open()
        except (TargetError, Beyond):
            raise
        except HostKey as refused:
            raise refused.error from None
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
            message = self._end_proxy() or _message(error)
            raise NotReached(_("{host} can't be reached: {why}", settings.alias, message)) from error
        self.transport.set_keepalive(KEEPALIVE_S)
        return result

    def open_gateway(self) -> Any:
        """Return a channel through the host before this one (fabric's own waits for an hour)."""
        self.gateway.open()
        try:
            return self.gateway.transport.open_channel(
                "direct-tcpip", (self.host, int(self.port)), ("", 0), timeout=STEP_S
            )
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise NotReached(
                _(
                    "{host} can't be reached from {gateway}: {why}",
                    self._settings.alias,
                    self.gateway._settings.alias,
                    _message(error),
                )
            ) from error

    def drop(self) -> None:
        """Close it and those on its way."""
        with contextlib.suppress(Exception):
            self.client.close()
        self._end_proxy()
        if self.gateway:
            self.gateway.drop()

    def _end_proxy(self) -> str:
        return self._proxy.end() if self._proxy is not None else ""


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


def _hop(alias: str, options: tuple[str, ...], gateways: tuple[str, ...] | None = None) -> _Hop:
    """Return the connection to a host behind the hosts before it.

    ``ProxyJump a,b`` visits a first and reaches b from there (ssh_config(5)); fabric 3.2.3 does it the other way round.

    Raises:
        Beyond: One of them can be reached with the OpenSSH client alone.
    """
    settings = sshconfig.resolve(alias, options)
    if why := beyond(settings):
        raise Beyond(why)
    jumps = settings.proxy_jump if gateways is None else gateways
    gateway: _Hop | None = None
    if jumps:
        name, more = _jump(jumps[-1])
        gateway = _hop(name, more, jumps[:-1] or None)
    return _Hop(settings, gateway)


def _jump(hop: str) -> tuple[str, tuple[str, ...]]:
    """Return a ProxyJump's ``[user@]host[:port]`` as alias and options of ssh."""
    user, _, rest = hop.removeprefix("ssh://").rpartition("@")
    host, port = rest, ""
    if rest.count(":") == 1 or rest.startswith("["):
        host, _, port = rest.rpartition(":") if not rest.endswith("]") else (rest, "", "")
    return host.strip("[]"), (*(("-l", user) if user else ()), *(("-p", port) if port else ()))


class FabricConnection(RemoteConnection):
    """Another machine, through fabric."""

    def __init__(self, target: Target, early: EarlySocket | None = None) -> None:
        super().__init__(target)
        self._hop: _Hop | None = None
        self._early = early
        self._instead: OpenSSHConnection | None = None
        """What goes on where paramiko can't."""

    def _open(self, line: str) -> Channel:
        if self._instead is None:
            try:
                return self._open_here(line)
            except Beyond as found:  # before a login was complete, so nothing was run
                self.close()
                other = OpenSSHConnection(self.target, KEEP_PLAIN_S)
                hint = _('set connection = "openssh" in the targets file: it asks once for all commands')
                if isinstance(found, SecondFactor) and not may_ask() and not other.is_logged_in():
                    raise TargetError(str(found), hint=hint) from None
                way = _('connection = "openssh" in the targets file takes this way at once')
                notice(_("{target}: {what}; going on through OpenSSH ({how})", self.target.name, str(found), way))
                self._instead = other
        return self._instead._open(line)

    def _open_here(self, line: str) -> Channel:
        for fresh in (False, True):
            if self._hop is None or not self._hop.is_connected:
                fresh = True
                self._hop = self._connected()
            try:
                channel = self._hop.transport.open_session(timeout=STEP_S)
                channel.settimeout(STEP_S)
                with _bounded(self._hop.client, STEP_S):
                    channel.exec_command(line)
                return _FabricChannel(channel)
            except (OSError, EOFError, paramiko.SSHException) as error:
                # An old connection may have died unseen; the command was not run. ChannelException: MaxSessions.
                self._drop_unused()
                if fresh:
                    raise NotReached(
                        _("{host} runs no command just now: {why}", self.target.name, _message(error))
                    ) from error
        raise AssertionError

    def _connected(self) -> _Hop:
        """Return a connection; the socket that was made early may have been closed by the server since."""
        options = tuple(sshconfig.login_options(self.target))
        hop, begun = _hop(self.target.host, options), time.monotonic()
        early, self._early = self._early.take() if self._early else None, None
        try:
            hop.open(early)
        except NotReached:
            hop.drop()
            if early is None or time.monotonic() - begun > CLOSED_S:
                raise
        except BaseException:
            hop.drop()
            raise
        else:
            return hop
        hop = _hop(self.target.host, options)
        hop.open()
        return hop

    def _drop(self) -> None:
        hop, self._hop = self._hop, None
        if hop is not None:
            hop.drop()
        if self._instead is not None:
            self._instead._drop()

    def close(self) -> None:
        """Close the connection and those on its way."""
        with self._lock:
            if self._early is not None:
                self._early.close()
                self._early = None
            self._drop()

    def route(self) -> Route:
        """Return how rsync reaches the target: through the OpenSSH client, five times as fast as paramiko."""
        if self._instead is not None:
            self._instead._is_noisy = self._is_noisy
            return self._instead.route()
        return self._route(plain_shell(self.target))

    def terminal(self, line: str, *options: str) -> list[str]:
        """Return ssh's argv; on a terminal it may ask for a passphrase."""
        return self._instead.terminal(line, *options) if self._instead else plain_terminal(self.target, line, *options)

    def forward(self, port: int, there: int) -> list[str]:
        """Forward a port through a master connection of OpenSSH; return the argv that ends it."""
        return OpenSSHConnection(self.target, KEEP_PLAIN_S).forward(port, there)


class _FabricChannel:
    """A raw channel of paramiko's transport."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._said = bytearray()

    def write(self, data: bytes, idle_s: float) -> None:
        """Send bytes; a full window waits for the other side."""
        self._channel.settimeout(idle_s)
        try:
            self._channel.sendall(data)
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise Broken(_lost(error)) from error

    def close_input(self) -> None:
        """Send the end of its stdin."""
        try:
            self._channel.shutdown_write()
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise Broken(_lost(error)) from error

    def read(self, idle_s: float) -> bytes:
        """Return the next bytes."""
        self._channel.settimeout(idle_s)
        try:
            content = self._channel.recv(1 << 16)
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise Broken(_lost(error)) from error
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


def _lost(error: BaseException) -> str:
    if isinstance(error, (socket.timeout, TimeoutError)):
        return _("nothing came for too long")
    return _message(error)

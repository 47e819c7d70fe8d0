"""Owns reaching another machine through fabric, hardened: known host keys only, keys and agents only, a deadline on
every step; leaves the conversation to remote and wire.

Programs and data go through a raw channel: ``Connection.run(in_stream=…)`` costs 10 ms a byte (fabric 3.2.3).
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
import types
from pathlib import Path
from typing import Any

# invoke imports unittest.mock, and with it asyncio, for a class that is of use in tests alone: 60 ms of a start-up.
if "unittest.mock" not in sys.modules:
    sys.modules["unittest.mock"] = types.ModuleType("unittest.mock")
    sys.modules["unittest.mock"].Mock = object  # type: ignore[attr-defined]
    import fabric

    del sys.modules["unittest.mock"]
else:
    import fabric
import paramiko

from ..errors import NotReached, TargetError
from ..spec import Target
from . import Route, sshconfig
from .channel import MAX_SAID_BYTES, Broken, Channel, last_line
from .early import EarlySocket, open_socket
from .openssh import KEEP_PLAIN_S, OpenSSHConnection, plain_shell, plain_terminal
from .remote import RemoteConnection

STEP_S = 15.0
"""How long banner, login and the opening of a channel may take, each."""
KEEPALIVE_S = 15


class SecondFactor(Exception):
    """The host wants more than a key."""


class _Client(paramiko.SSHClient):  # type: ignore[misc]
    """paramiko's client with OpenSSH's order of keys; never asks anybody anything."""

    def __init__(self, settings: sshconfig.Settings) -> None:
        super().__init__()
        self._settings = settings
        self.encrypted: list[str] = []
        """Key files that need a passphrase."""

    def _auth(self, username: str, *ignored: Any) -> None:
        """Try the agent's keys that are configured, then its others, then key files (ssh_config(5), IdentityFile)."""
        transport = self.get_transport()
        assert transport is not None
        error: Exception = paramiko.AuthenticationException("no key was accepted")
        for load in self._keys():
            try:
                key = load()
                if transport.auth_publickey(username, key):
                    raise SecondFactor
                return
            except paramiko.PasswordRequiredException:
                continue
            except paramiko.BadAuthenticationType as refused:
                raise paramiko.AuthenticationException(f"keys are not accepted ({refused.allowed_types})") from refused
            except paramiko.AuthenticationException as refused:
                error = refused
        if self.encrypted:
            raise paramiko.AuthenticationException(
                f"{self.encrypted[0]} is encrypted and isn't in an agent: ssh-add {self.encrypted[0]}"
            )
        raise error

    def _keys(self) -> list[Any]:
        """Return functions that give the keys to try, in order."""
        files = self._settings.identity_files
        public = {content for path in files if (content := _public(path))}
        agent_keys = _agent_keys(self._settings)
        known = [key for key in agent_keys if key.get_base64() in public]
        others = [] if self._settings.identities_only else [key for key in agent_keys if key not in known]
        in_agent = {key.get_base64() for key in known}
        left = [path for path in files if _public(path) not in in_agent]
        return [
            *((lambda key=key: key) for key in known + others),
            *((lambda path=path: self._load(path)) for path in left),
        ]

    def _load(self, path: str) -> Any:
        try:
            return paramiko.PKey.from_path(path)
        except (paramiko.PasswordRequiredException, TypeError, ValueError) as error:
            # cryptography says TypeError ("key is password-protected") where paramiko does not translate it
            if "password" in str(error).lower() or "encrypted" in str(error).lower():
                self.encrypted.append(path)
            raise paramiko.PasswordRequiredException(str(error)) from error
        except (OSError, paramiko.SSHException, paramiko.pkey.UnknownKeyType) as error:
            raise paramiko.PasswordRequiredException(f"{path}: {error}") from error


def _public(path: str) -> str:
    """Return the base64 of the public half beside a private key; empty where there is none."""
    try:
        return Path(f"{path}.pub").read_text(encoding="utf-8").split()[1]
    except (OSError, IndexError, UnicodeDecodeError):
        return ""


def _agent_keys(settings: sshconfig.Settings) -> list[Any]:
    if settings.identity_agent:
        os.environ["SSH_AUTH_SOCK"] = settings.identity_agent  # the only way to tell paramiko
    try:
        return list(paramiko.Agent().get_keys())
    except (paramiko.SSHException, OSError):
        return []


class _Refuse(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]
    """fabric's own policy accepts every key."""

    def __init__(self, settings: sshconfig.Settings) -> None:
        self._settings = settings

    def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:
        raise _HostKey(sshconfig.unknown_host(self._settings, f"{key.get_name()} {key.fingerprint}"))


class _HostKey(Exception):
    """Carries the error about a host key through paramiko."""

    def __init__(self, error: TargetError) -> None:
        super().__init__(str(error))
        self.error = error


class _Hop(fabric.Connection):  # type: ignore[misc]
    """A host on the way, or at its end."""

    def __init__(self, settings: sshconfig.Settings, gateway: Any) -> None:
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
                "allow_agent": False, "look_for_keys": False,
            },
        )  # fmt: skip
        client = _Client(settings)
        client.set_missing_host_key_policy(_Refuse(settings))
        known = paramiko.HostKeys()
        for path in settings.known_hosts:
            with contextlib.suppress(OSError, UnicodeDecodeError):
                known.load(path)
        name = settings.hostname if settings.port == 22 else f"[{settings.hostname}]:{settings.port}"
        for kind, key in (known.lookup(settings.key_name) or {}).items():
            client.get_host_keys().add(name, kind, key)
        self._set(client=client, _settings=settings)

    def open(self, early: socket.socket | None = None) -> Any:
        """Connect.

        Args:
            early: A socket that is connected already.

        Raises:
            TargetError: Names the host of the way where it failed, and the mend.
        """
        settings: sshconfig.Settings = self._settings
        try:
            if not self.gateway:
                sock = early or open_socket(settings.hostname, settings.port, settings.connect_timeout_s)
                self.connect_kwargs["sock"] = sock
            result = super().open()
        except TargetError:
            raise
        except _HostKey as refused:
            raise refused.error from None
        except paramiko.BadHostKeyException as error:
            raise sshconfig.changed_host(settings, f"{error.key.get_name()} {error.key.fingerprint}") from error
        except SecondFactor:
            raise TargetError(
                f"{settings.alias} wants a second factor",
                hint='set connection = "openssh" in the targets file: it asks once for all commands',
            ) from None
        except paramiko.AuthenticationException as error:
            raise sshconfig.no_entry(settings, str(error)) from error
        except socket.gaierror as error:
            raise TargetError(
                f"{settings.hostname}: no such host ({error.strerror})", hint="is it an alias in ~/.ssh/config?"
            ) from error
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise NotReached(f"{settings.alias} can't be reached: {_words(error)}") from error
        self.transport.set_keepalive(KEEPALIVE_S)
        return result

    def open_gateway(self) -> Any:
        """Return a channel through the host before this one (fabric's own waits for an hour)."""
        if isinstance(self.gateway, str):
            return super().open_gateway()
        self.gateway.open()
        try:
            return self.gateway.transport.open_channel(
                "direct-tcpip", (self.host, int(self.port)), ("", 0), timeout=STEP_S
            )
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise NotReached(
                f"{self._settings.alias} can't be reached from {self.gateway._settings.alias}: {_words(error)}"
            ) from error


def _words(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) else "") or str(error) or type(error).__name__


def _hop(alias: str, options: tuple[str, ...], gateways: tuple[str, ...] | None = None) -> _Hop:
    """Return the connection to a host behind the hosts before it.

    ``ProxyJump a,b`` visits a first and reaches b from there (ssh_config(5)); fabric 3.2.3 does it the other way round.
    """
    settings = sshconfig.resolve(alias, options)
    jumps = settings.proxy_jump if gateways is None else gateways
    gateway: Any = settings.proxy_command if not jumps else None
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

    def _open(self, line: str) -> Channel:
        for fresh in (False, True):
            if self._hop is None or not self._hop.is_connected:
                fresh = True
                self._hop = self._connected()
            try:
                channel = self._hop.transport.open_session(timeout=STEP_S)
                channel.settimeout(STEP_S)
                channel.exec_command(line)
                return _FabricChannel(channel)
            except (OSError, EOFError, paramiko.SSHException) as error:
                # An old connection may have died unseen; the command was not run. ChannelException: MaxSessions.
                self._drop()
                if fresh:
                    raise NotReached(f"{self.target.name} runs no command just now: {_words(error)}") from error
        raise AssertionError

    def _connected(self) -> _Hop:
        """Return a connection; the socket that was made early may have been closed by the server since."""
        words = tuple(sshconfig.words(self.target))
        early, self._early = self._early.take() if self._early else None, None
        if early is not None:
            try:
                hop = _hop(self.target.host, words)
                hop.open(early)
                return hop
            except NotReached:
                early.close()
        hop = _hop(self.target.host, words)
        hop.open()
        return hop

    def _drop(self) -> None:
        hop, self._hop = self._hop, None
        while isinstance(hop, _Hop):
            with contextlib.suppress(Exception):
                hop.client.close()
            hop = hop.gateway

    def close(self) -> None:
        """Close the connection and those on its way."""
        if self._early is not None:
            self._early.close()
            self._early = None
        self._drop()

    def route(self) -> Route:
        """Return how rsync gets there: through the OpenSSH client, five times as fast as a channel of paramiko."""
        return self._route(plain_shell(self.target))

    def terminal(self, line: str, *options: str) -> list[str]:
        """Return ssh's words; on a terminal it may ask."""
        return plain_terminal(self.target, line, *options)

    def forward(self, port: int, there: int) -> list[str]:
        """Have a master connection of OpenSSH's lead a port there; return the words that end it."""
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
        """Return exit code and last words; paramiko's −1 is a signal's death or a lost connection."""
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
        return "nothing came for too long"
    return _words(error)

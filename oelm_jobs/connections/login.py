"""Log in with paramiko: the order of keys and agents, the check of the host key, the algorithms allowed.

``Beyond`` says what the OpenSSH client could do and paramiko can't; a host key that was refused is never one of those.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paramiko
from paramiko.agent import AgentSSH

from ..agent.sentences import _
from . import knownhosts, sshconfig
from .openssh import may_ask

# What goes wrong is raised as well; without a handler logging prints it, with the tracebacks of paramiko's threads.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

AGENT_S = 60.0
"""How long an agent may take to answer: it may ask its user."""
UNUSABLE = ("sk-", "-cert-")
"""Parts of the names of kinds of keys that paramiko can't use."""


class Beyond(Exception):
    """The OpenSSH client can do something here that paramiko can't; the message says what."""


class SecondFactor(Beyond):
    """The host asks for more than a key, which a person has to enter."""


def beyond(settings: sshconfig.Settings, known: list[knownhosts.Line]) -> str:
    """Return what in the host's entry or known hosts only the OpenSSH client supports; empty where nothing does."""
    if settings.beyond:
        return _("{option} of ~/.ssh/config is beyond paramiko", settings.beyond)
    for line in known:
        if line.marker == knownhosts.AUTHORITY:
            return _(
                "{path} has a certificate authority for {host}, which is beyond paramiko", line.file, settings.alias
            )
    return ""


def about(settings: sshconfig.Settings) -> list[knownhosts.Line]:
    """Return the known-hosts lines about a host; as in ssh, the name without the port is used where there is none with
    it.
    """
    found = knownhosts.lines_about(settings.key_name, settings.known_hosts)
    if any(not line.marker for line in found) or settings.key_name != f"[{settings.hostname}]:{settings.port}":
        return found
    return [*found, *knownhosts.lines_about(settings.hostname, settings.known_hosts)]


class Client(paramiko.SSHClient):  # type: ignore[misc]  # paramiko ships no types
    """paramiko's client with OpenSSH's order of keys; it never prompts."""

    def __init__(self, settings: sshconfig.Settings, known: list[knownhosts.Line]) -> None:
        super().__init__()
        self._settings, self._known = settings, known
        self.set_missing_host_key_policy(self)
        self._untried: list[str] = []
        """What the OpenSSH client could have tried besides."""
        self._encrypted = ""
        """A key file that needs a passphrase."""

    def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:
        """Judge the key that a host presents. paramiko's own list is not used: it has one of each type and no markers.

        Raises:
            TargetError: It isn't known.
        """
        fingerprint = f"{key.get_name()} {key.fingerprint}"
        plain = [line for line in self._known if not line.marker]
        if any(line.marker == knownhosts.REVOKED and line.key == key.asbytes() for line in self._known):
            raise sshconfig.revoked_host(self._settings, fingerprint)
        if plain and not any(line.key == key.asbytes() for line in plain):
            raise sshconfig.changed_host(self._settings, fingerprint, file=plain[0].file)
        if not plain:
            raise sshconfig.unknown_host(self._settings, fingerprint)

    def transport(self, sock: Any, **options: Any) -> paramiko.Transport:
        """Return a transport limited to the user's algorithms, which asks for types of host keys that are known."""
        disabled = {
            kind: [name for name in getattr(paramiko.Transport, f"_preferred_{kind}") if name not in allowed]
            for kind, allowed in self._settings.algorithms.items()
        }
        made = paramiko.Transport(sock, **{**options, "disabled_algorithms": disabled})
        kinds = {line.kind for line in self._known if not line.marker}
        order = made.get_security_options()
        signed = {name: "ssh-rsa" if name.startswith("rsa-sha2-") else name for name in order.key_types}
        order.key_types = sorted(order.key_types, key=lambda name: signed[name] not in kinds)
        return made

    def _auth(self, username: str, *ignored: Any) -> None:
        """Try the agent's keys that are configured, then its others, then key files (ssh_config(5), IdentityFile)."""
        transport = self.get_transport()
        assert transport is not None
        error: Exception = paramiko.AuthenticationException(_("no key was accepted"))
        for key in self._keys():
            try:
                if transport.auth_publickey(username, key):
                    raise SecondFactor(_("{host} wants a second factor", self._settings.alias))
                return
            except paramiko.BadAuthenticationType as refused:
                error = paramiko.AuthenticationException(
                    _("keys are not accepted ({types})", str(refused.allowed_types))
                )
                break
            except paramiko.AuthenticationException as refused:
                if "timeout" in str(refused):
                    raise paramiko.SSHException(str(refused)) from refused
                if "algorithm" in str(refused):
                    self._untried.append(_("a signature that paramiko does not make"))
                error = refused
        self._ask_for_more(transport, username)
        if self._untried:
            raise Beyond(_("{host} may want {what}", self._settings.alias, self._untried[0]))
        if self._encrypted:
            raise paramiko.AuthenticationException(
                _("{path} is encrypted and isn't in an agent: ssh-add {path}", self._encrypted)
            )
        raise error

    def _ask_for_more(self, transport: paramiko.Transport, username: str) -> None:
        """Find out which other ways to log in the host offers that the OpenSSH client supports."""
        ways: list[str] = []
        try:
            transport.auth_none(username)
        except paramiko.BadAuthenticationType as refused:
            ways = refused.allowed_types
        except (OSError, EOFError, paramiko.SSHException):
            return  # enough was tried
        more = {"gssapi-with-mic": _("a Kerberos ticket"), "hostbased": _("the key of this machine")}
        self._untried += [more[way] for way in self._settings.other_logins if way in ways]
        if may_ask():
            self._untried += [_("the passphrase of {path}", self._encrypted)] if self._encrypted else []
            self._untried += [_("a password")] if {"password", "keyboard-interactive"} & set(ways) else []

    def _keys(self) -> Iterator[Any]:
        """Yield the keys to try, in order."""
        files = self._settings.identity_files
        public = {content for path in files if (content := _public(path))}
        held = _agent_keys(self._settings)
        usable = [key for key in held if not any(part in key.get_name() for part in UNUSABLE)]
        if len(usable) < len(held):
            self._untried.append(_("a key of the agent that is of no kind that paramiko knows"))
        known = [key for key in usable if key.get_base64() in public]
        in_agent = {key.get_base64() for key in known}
        certified = {path for path in files if Path(f"{path}-cert.pub").is_file()}
        left = [path for path in files if _public(path) not in in_agent]
        self._untried += [_("the certificate beside {path}", path) for path in files if path in certified - set(left)]
        yield from known
        yield from () if self._settings.identities_only else (key for key in usable if key not in known)
        for path in left:
            for bare in (False, True) if path in certified else (True,):
                if (key := self._load(path, bare)) is not None:
                    yield key

    def _load(self, path: str, bare: bool) -> Any:
        """Return a key, ``bare`` or with the certificate beside it; None where it can't be used."""
        try:
            key = paramiko.PKey.from_path(path)
        except Exception as error:
            # cryptography says TypeError ("key is password-protected") where paramiko does not translate it
            if "password" in str(error).lower() or "encrypted" in str(error).lower():
                self._encrypted = self._encrypted or path
            elif not isinstance(error, OSError):
                self._untried.append(_("{path}, which paramiko can't read", path))
            return None
        key.public_blob = None if bare else key.public_blob
        return key


def _public(path: str) -> str:
    """Return the base64 of the public half beside a private key; empty where there is none."""
    try:
        return Path(f"{path}.pub").read_text(encoding="utf-8").split()[1]
    except (OSError, IndexError, UnicodeDecodeError):
        return ""


class _Agent(AgentSSH):  # type: ignore[misc]  # as above
    """The agent at a given socket; paramiko's own class knows only the one in the environment."""

    def __init__(self, path: str) -> None:
        super().__init__()
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.settimeout(AGENT_S)
        try:
            made.connect(path)
            self._connect(made)
        except BaseException:
            made.close()
            raise


def _agent_keys(settings: sshconfig.Settings) -> list[Any]:
    path = settings.identity_agent
    path = os.environ.get(path[1:], "") if path.startswith("$") else path
    with contextlib.suppress(Exception):  # one that is gone, or talks nonsense, has no keys
        return list(_Agent(path).get_keys()) if path else []
    return []

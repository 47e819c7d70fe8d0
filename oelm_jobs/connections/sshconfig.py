"""Ask the OpenSSH client how it would reach a host (``ssh -G``), so that all connections and rsync follow
~/.ssh/config.
"""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..agent.sentences import _, joined
from ..errors import NotReached, TargetError
from ..folders import expanded, home
from ..spec.target import Target
from .channel import last_line

CONNECT_TIMEOUT_S = 10
"""How long a host may take to accept a connection, where ~/.ssh/config says nothing."""
FAST_CIPHER = "aes128-gcm@openssh.com"
"""Twice as fast as OpenSSH's first choice where the processors know AES, as all do that train or submit."""

SESSION = {"RemoteCommand": "none", "SessionType": "default", "StdinNull": "no", "ForkAfterAuthentication": "no"}
"""What a host's entry may say of every session, undone. Clients before OpenSSH 8.7 don't know them all, and an unknown
option ends them: ``ssh -G`` tells which ones it knows. (IgnoreUnknown on the command line would take the user's own
away.)"""

ALGORITHMS = {
    "kex": "kexalgorithms", "ciphers": "ciphers", "macs": "macs", "keys": "hostkeyalgorithms",
    "pubkeys": "pubkeyacceptedalgorithms",
}  # fmt: skip
"""By paramiko's word for a kind of algorithms, ``ssh -G``'s."""
OTHER_LOGINS = {"gssapi-with-mic": "gssapiauthentication", "hostbased": "hostbasedauthentication"}
BEYOND = {
    "CertificateFile": ("",), "PKCS11Provider": ("",), "KnownHostsCommand": ("",), "RevokedHostKeys": ("",),
    "PubkeyAuthentication": ("", "yes", "true"), "BindAddress": ("",), "BindInterface": ("",),
    "AddressFamily": ("", "any"),
}  # fmt: skip
"""Options that decide how a host is reached and that paramiko can't follow, with the values that ask for nothing."""


_AFTER_PROXY = re.compile(
    r"(?m)^(kex_exchange_identification: |banner exchange: |Connection closed by UNKNOWN port ).*$"
)
"""What ssh says after a ProxyCommand that ended has told why."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the OpenSSH client would do to reach a host (ssh_config(5))."""

    alias: str
    """What the user calls it."""
    hostname: str
    """Name or address."""
    user: str
    """Login name."""
    port: int
    """Port."""
    identity_files: tuple[str, ...]
    """Private keys that exist, in the order in which they are tried."""
    identities_only: bool
    """Whether the agent's other keys are left alone."""
    identity_agent: str
    """Socket of the agent, or ``$`` and the name of the variable that has it; empty for none."""
    known_hosts: tuple[str, ...]
    """Files of known host keys that exist."""
    forgets_keys: bool
    """Whether no file is named that could remember a host's key (``UserKnownHostsFile /dev/null``)."""
    key_name: str
    """What the host is called in files of known hosts."""
    proxy: str
    """How it is reached through other hosts: ProxyJump or ProxyCommand; empty where directly."""
    connect_timeout_s: int
    """How long connecting may take."""
    control_path: str
    """Socket of a master connection that the user may have open; empty where none is configured."""
    algorithms: Mapping[str, tuple[str, ...]]
    """By paramiko's word for their kind, the algorithms that the user allows, in order of preference."""
    other_logins: tuple[str, ...]
    """Ways to log in that the user allows and paramiko is not used for, as servers call them."""
    beyond: str
    """An option that decides and that paramiko can't follow; empty where there is none."""
    session: Mapping[str, str]
    """Options that give sessions back to the command line, of those that this client knows."""


def login_options(target: Target) -> list[str]:
    """Return the options of ssh's command line for the target's user and port."""
    return [*(["-l", target.user] if target.user else []), *(["-p", str(target.port)] if target.port else [])]


def look_up(target: Target) -> Settings:
    """Return how the OpenSSH client would reach a target.

    Raises:
        TargetError: There is no OpenSSH client, or ~/.ssh/config is off.
    """
    return resolve(target.host, tuple(login_options(target)))


@functools.lru_cache(maxsize=64)
def resolve(alias: str, options: tuple[str, ...] = ()) -> Settings:
    """Return how the OpenSSH client would reach ``alias`` with the command line's ``options``.

    Raises:
        TargetError: There is no OpenSSH client, or ~/.ssh/config is off.
    """
    try:
        done = subprocess.run(
            ["ssh", "-G", *options, "--", alias], stdin=subprocess.DEVNULL, capture_output=True, timeout=30
        )
    except FileNotFoundError as error:
        raise TargetError(_("there is no ssh command here"), hint=_("install the OpenSSH client")) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TargetError(_("ssh -G {host}: {why}", alias, str(error))) from error
    if done.returncode:
        why = last_line(done.stderr) or _("exit code {n}", done.returncode)
        raise TargetError(_("ssh -G {host}: {why}", alias, why))
    found: dict[str, list[str]] = {}
    for line in done.stdout.decode("utf-8", "replace").splitlines():
        key, _blank, value = line.partition(" ")
        found.setdefault(key.lower(), []).append(value.strip())

    def first(key: str) -> str:
        value = found.get(key, [""])[0]
        return "" if value.lower() == "none" else value

    hostname, user, port = first("hostname") or alias, first("user"), first("port") or "22"
    tokens = {"h": hostname, "n": alias, "p": port, "r": user, "k": first("hostkeyalias") or hostname}

    def path(value: str) -> str:
        value = _expand(value, tokens)
        return str(expanded(value)) if value else ""

    agent = found.get("identityagent", ["SSH_AUTH_SOCK"])[0]
    return Settings(
        alias=alias,
        hostname=hostname,
        user=user,
        port=int(port),
        identity_files=tuple(file for file in map(path, found.get("identityfile", [])) if Path(file).is_file()),
        identities_only=first("identitiesonly") == "yes",
        identity_agent="$SSH_AUTH_SOCK" if agent == "SSH_AUTH_SOCK" else path(first("identityagent")),
        known_hosts=tuple(
            file
            for key in ("userknownhostsfile", "globalknownhostsfile")
            for file in _files(map(path, first(key).split()))
        ),
        forgets_keys=set(first("userknownhostsfile").split()) <= {"/dev/null"},
        key_name=first("hostkeyalias") or (hostname if port == "22" else f"[{hostname}]:{port}"),
        proxy=first("proxyjump") or first("proxycommand"),
        connect_timeout_s=int(first("connecttimeout")) if first("connecttimeout").isdigit() else CONNECT_TIMEOUT_S,
        control_path=path(first("controlpath")),
        algorithms={kind: tuple(first(key).split(",")) for kind, key in ALGORITHMS.items() if first(key)},
        other_logins=tuple(way for way, key in OTHER_LOGINS.items() if first(key) == "yes"),
        beyond=next((option for option, usual in BEYOND.items() if first(option.lower()) not in usual), ""),
        session={option: value for option, value in SESSION.items() if option.lower() in found},
    )


def _expand(value: str, tokens: Mapping[str, str]) -> str:
    """Return a value with its tokens replaced (ssh_config(5), TOKENS), as far as ``ssh -G`` has left them."""
    if "%" not in value:
        return value
    import getpass
    import hashlib
    import os
    import socket

    here = socket.gethostname()
    own = {"%": "%", "l": here, "L": here.partition(".")[0], "i": str(os.getuid())}
    own |= {"d": str(home())} if "%d" in value else {}
    own["C"] = hashlib.sha1("".join((here, tokens["h"], tokens["p"], tokens["r"])).encode()).hexdigest()
    own |= {"u": getpass.getuser()} if "%u" in value else {}
    return re.sub(r"%(.)", lambda token: {**own, **tokens}.get(token[1], token[0]), value)


def _files(parts: Iterable[str]) -> list[str]:
    """Return the files that exist from a list in which blanks separate names and may be part of them."""
    left, found = list(parts), []
    while left:
        ends = (end for end in range(len(left), 0, -1) if Path(" ".join(left[:end])).is_file())
        end = next(ends, 0)
        found += [" ".join(left[:end])] if end else []
        del left[: end or 1]
    return found


def safety(settings: Settings, *, interactive: bool = False) -> list[str]:
    """Return the options with which the toolkit always calls ssh. The first value counts (ssh_config(5)), so they come
    before all others but -N and -f.

    Args:
        interactive: Whether the user may be asked for a passphrase or a second factor.
    """
    options = {
        "StrictHostKeyChecking": "yes",  # an unknown host is refused, whatever ~/.ssh/config says
        "BatchMode": "no" if interactive else "yes",
        "ConnectTimeout": str(settings.connect_timeout_s),
        "ServerAliveInterval": "10",
        "ServerAliveCountMax": "3",
        "ForwardAgent": "no",
        "ForwardX11": "no",
        "PermitLocalCommand": "no",
        "UpdateHostKeys": "no",
        "LogLevel": "INFO",  # what it says is read
        # What the user's entry wants of a login by hand. A forwarded port would be held by whoever came first.
        "ClearAllForwardings": "yes",
        "Tunnel": "no",
        "RequestTTY": "no",  # -t overrules it
        **settings.session,
    }
    ciphers = settings.algorithms.get("ciphers", ("",))
    if ciphers[0].startswith("chacha20") and FAST_CIPHER in ciphers:
        # OpenSSH's own order, which is for processors that don't know AES; what the user chose is left alone.
        options["Ciphers"] = ",".join(dict.fromkeys((FAST_CIPHER, *ciphers)))
    return [word for key, value in options.items() for word in ("-o", f"{key}={value}")]


# What went wrong ---------------------------------------------------------------------------------------------------


def unknown_host(settings: Settings, fingerprint: str, other: str = "") -> TargetError:
    """Return the error about a host whose key isn't known; ``other`` names one on the way, if it is that one."""
    options = ["-o", "UserKnownHostsFile=~/.ssh/known_hosts", "-o", "StrictHostKeyChecking=ask"]
    by_hand = " ".join(["ssh", *(options if settings.forgets_keys else []), _by_hand(settings)])
    hint: str = _("compare it with what its administrators say, then log in once by hand: {command}", by_hand)
    if settings.forgets_keys:
        forget = _("and take UserKnownHostsFile /dev/null for it out of ~/.ssh/config, which keeps it from being known")
        hint = joined([hint, forget])
    return _refused_key(_("the host key of {host} isn't known here", other or settings.alias), fingerprint, "", hint)


def revoked_host(settings: Settings, fingerprint: str, other: str = "") -> TargetError:
    """Return the error about a host whose key the user's files mark as revoked; ``other`` as above."""
    hint = _(
        "ask its administrators; the line is marked @revoked in the files of known hosts, or stands in RevokedHostKeys"
    )
    risk = _("somebody who has stolen it may be listening in")
    return _refused_key(_("the host key of {host} IS REVOKED", other or settings.alias), fingerprint, risk, hint)


def changed_host(settings: Settings, fingerprint: str, other: str = "", file: str = "") -> TargetError:
    """Return the error about a host whose key is not the known one, which is in ``file``; ``other`` as above."""
    hint = _(
        "if its administrators confirm the new key: ssh-keygen -f '{path}' -R '{name}' && ssh {login}",
        file or (*settings.known_hosts, "~/.ssh/known_hosts")[0],
        other or settings.key_name,
        _by_hand(settings),
    )
    risk = _("somebody may be listening in, or the server was set up anew")
    return _refused_key(_("the host key of {host} HAS CHANGED", other or settings.alias), fingerprint, risk, hint)


def _refused_key(what: str, fingerprint: str, risk: str, hint: str) -> TargetError:
    shown = _("it is {key}", fingerprint) if fingerprint else ""
    return TargetError(joined([what, shown, risk]), hint=hint)


def login_refused(settings: Settings, said: str) -> TargetError:
    """Return the error about a login that was refused."""
    return TargetError(
        _("{user}@{host}: public-key login refused: {why}", settings.user, settings.alias, said),
        hint=_(
            "`ssh {login}` must work without a question: put the key into your agent (ssh-add) and on"
            ' the server (ssh-copy-id); for a second factor set connection = "openssh" in the targets file',
            _by_hand(settings),
        ),
    )


def _by_hand(settings: Settings) -> str:
    own = resolve(settings.alias)
    more = ["-l", settings.user] if own.user != settings.user else []
    more += ["-p", str(settings.port)] if own.port != settings.port else []
    return " ".join([*more, settings.alias])


def explain(settings: Settings, said: str) -> TargetError:
    """Return the error for what the OpenSSH client printed on stderr."""
    lower, why = said.lower(), last_line(_AFTER_PROXY.sub("", said).encode()) or last_line(said.encode())
    fingerprint = next((word.rstrip(".") for word in said.split() if word.startswith("SHA256:")), "")
    named = re.search(r"host key (?:is known )?for (\S+) (?:has changed|was revoked|and you)", said, re.IGNORECASE)
    other = named[1] if named and named[1] not in (settings.key_name, settings.hostname) else ""
    if "host identification has changed" in lower:
        return changed_host(settings, fingerprint, other)
    if "host key verification failed" in lower or "host key is known for" in lower:
        if "revoked" in lower:
            return revoked_host(settings, fingerprint, other)
        if settings.proxy and not named:  # the host itself is named: it is asked for with strict checking
            other = _("a host on the way to {host}", settings.alias)
        return unknown_host(settings, fingerprint, other)
    if "permission denied" in lower or "too many authentication failures" in lower:
        return login_refused(settings, why)
    if "unable to negotiate with" in lower:
        return TargetError(
            _("{host} can't be talked to: {why}", settings.alias, why),
            hint=_(
                "if it is to be trusted with an old algorithm, allow that for this host in ~/.ssh/config, as in"
                " KexAlgorithms +diffie-hellman-group14-sha1"
            ),
        )
    if "could not resolve hostname" in lower or "bad configuration option" in lower:
        return TargetError(why, hint=_("is it an alias in ~/.ssh/config?"))
    return NotReached(_("{host} can't be reached: {why}", settings.alias, why or _("ssh gave no reason")))

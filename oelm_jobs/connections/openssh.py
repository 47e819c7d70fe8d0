"""Reach another machine through the OpenSSH client and one master connection, which all commands share: passphrase,
agent, bastions and second factor are asked for once.

A master that the user has open already (ControlPath in ~/.ssh/config) is used, else one is made and kept for a while.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

from ..agent.sentences import _
from ..errors import NotReached, TargetError
from ..spec.target import Target
from . import Route, sshconfig
from .channel import Channel, last_line
from .greeting import command
from .process import SSHProcess
from .remote import RemoteConnection
from .sockets import control_folder

KEEP_MASTER_S = 3600
"""How long a master outlives its last command."""
KEEP_PLAIN_S = 120
"""The same where nobody was asked for anything: time enough for rsync, and for the next look."""
LOGIN_S, ASK_S = 40.0, 150.0
"""How long a login may take without and with questions to the user."""
END_S = 15.0


def may_ask() -> bool:
    """Tell whether there is a terminal on which the user can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


class OpenSSHConnection(RemoteConnection):
    """Another machine, reached through ``ssh`` and a master connection."""

    def __init__(self, target: Target) -> None:
        """Initialise; connects on first use."""
        super().__init__(target)
        self._control = ""
        self._keep_s = KEEP_MASTER_S if target.connection == "openssh" else KEEP_PLAIN_S

    # The master -------------------------------------------------------------------------------------------------------

    def _settings(self) -> sshconfig.Settings:
        return sshconfig.look_up(self.target)

    def _argv(self, *options: str, interactive: bool = False) -> list[str]:
        """Return ssh's argv up to the host."""
        safety = sshconfig.safety(self._settings(), interactive=interactive)
        return ["ssh", *safety, *options, *sshconfig.login_options(self.target)]

    def _through(self, *options: str, interactive: bool = False) -> list[str]:
        """Return the argv up to the host of an ``ssh`` that goes through a live master, made where there is none.

        Raises:
            NotReached: Not just now.
            TargetError: The host's key or the user's was refused.
        """
        self._control = self._control or self._open_master() or self._log_in(self._own_path())
        shared = ("-o", f"ControlPath={self._control}", "-o", "ControlMaster=no")
        return self._argv(*shared, *options, interactive=interactive)

    def _own_path(self) -> str:
        import hashlib

        settings = self._settings()
        name = f"{settings.alias} {settings.user}@{settings.hostname}:{settings.port} {settings.proxy}"
        return str(control_folder() / hashlib.sha256(name.encode()).hexdigest()[:12])

    def _is_up(self, control: str) -> bool:
        argv = [*self._argv("-o", f"ControlPath={control}"), "-O", "check", "--", self.target.host]
        return _quietly(argv).returncode == 0

    def _open_master(self) -> str:
        """Return the socket of a live master connection; empty where there is none."""
        theirs = self._settings().control_path
        for control in [path for path in (theirs, self._own_path()) if path and Path(path).exists()]:
            if self._is_up(control):
                return control
        return ""

    def _log_in(self, control: str) -> str:
        """Make a master connection; return its socket, ``control``."""
        interactive = may_ask()  # a question where nobody sits would hang for ever
        # -N and -f first: behind SessionType=default they would be refused, behind ForkAfterAuthentication=no unheard.
        made = ("-o", f"ControlPath={control}", "-o", "ControlMaster=yes", "-o", f"ControlPersist={self._keep_s}")
        argv = ["ssh", "-N", "-f", *self._argv(*made, interactive=interactive)[1:], "--", self.target.host]
        Path(control).unlink(missing_ok=True)  # a dead master's; ssh would not replace it
        import tempfile

        # A file, not a pipe: the master keeps it open for as long as it lives. Questions go to the terminal.
        with tempfile.TemporaryFile() as told:
            try:
                code = subprocess.run(
                    argv,
                    stdin=None if interactive else subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=told,
                    start_new_session=not interactive,
                    timeout=ASK_S if interactive else LOGIN_S,
                ).returncode
            except subprocess.TimeoutExpired:
                raise NotReached(_("{host} did not let this login in in time", self.target.host)) from None
            told.seek(0)
            said = told.read(1 << 20).decode("utf-8", "replace")
        if code == 0 or self._is_up(control):  # another command of this user may have been faster
            return control
        error = sshconfig.explain(self._settings(), said)
        if isinstance(error, NotReached) and self._settings().proxy:
            # Where a master is to persist, ssh throws away what a ProxyCommand says of its failure.
            with contextlib.suppress(subprocess.TimeoutExpired):
                tried = _quietly([*self._argv("-o", "ControlPath=none"), "--", self.target.host, "exit"])
                if tried.returncode:
                    error = sshconfig.explain(self._settings(), tried.stderr.decode("utf-8", "replace"))
        if not interactive and "permission denied" in said.lower():
            error.hint = _(
                "a passphrase or a second factor can be asked for on a terminal only: log in there once with"
                " oelm shell {target}; the login then serves all commands for {n} minutes",
                self.target.name,
                self._keep_s // 60,
            )
        raise error

    # The connection ---------------------------------------------------------------------------------------------------

    def _open(self, line: str) -> Channel:
        return SSHProcess([*self._through("-T"), "--", self.target.host, line])

    def _drop(self) -> None:
        self._control = ""

    def close(self) -> None:
        """Do nothing: the master stays open for the next command."""
        self._drop()

    def route(self) -> Route:
        """Return how rsync reaches the target: through the same master."""
        return self._route(self._through())

    def terminal(self, line: str, *options: str) -> list[str]:
        """Return ssh's argv; on a terminal it may ask for a passphrase, and that login then serves all commands."""
        return [*self._through(*options, interactive=True), "--", self.target.host, line]

    def forward(self, port: int, there: int) -> list[str]:
        """Forward a port of this machine's loopback through the master; return the argv that ends it."""
        self._through()

        def argv(act: str) -> list[str]:
            # Without the user's configuration: the forwards of the host's entry would be asked for, too, and the
            # option that clears them clears this one.
            return ["ssh", "-F", "/dev/null", "-o", f"ControlPath={self._control}", "-O", act,
                    "-L", f"127.0.0.1:{port}:127.0.0.1:{there}", "--", self.target.host]  # fmt: skip

        done = _quietly(argv("forward"))
        if done.returncode:
            raise TargetError(
                _("{target}: port {port} can't be forwarded: {why}", self.target.name, port, last_line(done.stderr))
            )
        return argv("cancel")


class PlainSSHConnection(OpenSSHConnection):
    """A machine that stands alone, reached through one ``ssh`` for each command, as rsync reaches it; it never prompts.

    The first one is started at once: it logs in while Python still imports, and stays for a moment as the master of
    those that follow.
    """

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._early: SSHProcess | None = self._start(command(target.python or "python3"))

    def _start(self, line: str) -> SSHProcess:
        argv = [*self._shell(), "-T", "--", self.target.host, line]
        return SSHProcess(argv, lambda said: sshconfig.explain(self._settings(), said))

    def _shell(self) -> list[str]:
        """Return ssh's argv up to the host, with which it makes a master connection where there is none."""
        shared = ("ControlMaster=auto", f"ControlPath={control_folder()}/%C", f"ControlPersist={KEEP_PLAIN_S}")
        return self._argv(*(word for option in shared for word in ("-o", option)))

    def _open(self, line: str) -> Channel:
        early, self._early = self._early, None
        return early or self._start(line)

    def close(self) -> None:
        """End the process that was started early."""
        if self._early is not None:
            self._early.close()
            self._early = None

    def route(self) -> Route:
        """Return how rsync reaches the target."""
        return self._route(self._shell())


def _quietly(argv: list[str]) -> subprocess.CompletedProcess[bytes]:
    # Without a terminal: the ssh of a host on the way is told of no BatchMode, and would ask there.
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=END_S, start_new_session=True)

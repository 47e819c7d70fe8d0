"""Reach another machine through the OpenSSH client and one master connection, which all commands share: passphrase,
agent, bastions and second factor are asked for once.

A master that the user has open already (ControlPath in ~/.ssh/config) is used, else one is made and kept for a while.
"""

from __future__ import annotations

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


class OpenSSHConnection(RemoteConnection):
    """Another machine, reached through ``ssh`` and a master connection."""

    def __init__(self, target: Target, keep_s: int = KEEP_MASTER_S) -> None:
        """Initialise; connects on first use.

        Args:
            keep_s: How long a master that is made outlives its last command.
        """
        super().__init__(target)
        self._control = ""
        self._keep_s = keep_s

    # The master -------------------------------------------------------------------------------------------------------

    def _settings(self) -> sshconfig.Settings:
        return sshconfig.look_up(self.target)

    def _argv(self, control: str, *, interactive: bool = False) -> list[str]:
        """Return ssh's argv up to the host."""
        return ["ssh", *sshconfig.safety(self._settings(), interactive=interactive), "-o", f"ControlPath={control}",
                *sshconfig.login_options(self.target)]  # fmt: skip

    def _own_path(self) -> str:
        import hashlib

        settings = self._settings()
        name = f"{settings.alias} {settings.user}@{settings.hostname}:{settings.port} {settings.proxy_jump}"
        return str(control_folder() / hashlib.sha256(name.encode()).hexdigest()[:12])

    def _is_up(self, control: str) -> bool:
        argv = [*self._argv(control), "-O", "check", "--", self.target.host]
        return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=END_S).returncode == 0

    def _master(self) -> str:
        """Return the socket of a live master connection, making one where there is none.

        Raises:
            NotReached: Not just now.
            TargetError: The host's key or the user's was refused.
        """
        return self._open_master() or self._log_in(self._own_path())

    def _open_master(self) -> str:
        """Return the socket of a live master connection; empty where there is none."""
        theirs = self._settings().control_path
        for control in [path for path in (theirs, self._own_path()) if path and Path(path).exists()]:
            if self._is_up(control):
                return control
        return ""

    def is_logged_in(self) -> bool:
        """Tell whether a master connection is open, so that the user won't be prompted."""
        return bool(self._open_master())

    def _log_in(self, control: str) -> str:
        # Nobody is asked where nobody sits; a question there would hang for ever.
        interactive = sys.stdin.isatty() and sys.stderr.isatty()
        # -N and -f first: behind SessionType=default they would be refused, behind ForkAfterAuthentication=no unheard.
        argv = ["ssh", "-N", "-f", *self._argv(control, interactive=interactive)[1:], "-o", "ControlMaster=yes",
                 "-o", f"ControlPersist={self._keep_s}", "--", self.target.host]  # fmt: skip
        if Path(control).exists():
            Path(control).unlink(missing_ok=True)  # a dead master's; ssh would not replace it
        import tempfile

        # A file, not a pipe: the master keeps it open for as long as it lives. Questions go to the terminal.
        with tempfile.TemporaryFile() as said:
            login = subprocess.Popen(
                argv,
                stdin=None if interactive else subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                start_new_session=not interactive,
            )
            try:
                code = login.wait(ASK_S if interactive else LOGIN_S)
            except subprocess.TimeoutExpired:
                login.kill()
                login.wait()
                raise NotReached(_("{host} did not let this login in in time", self.target.name)) from None
            except BaseException:
                login.kill()
                raise
            said.seek(0)
            words_said = said.read(1 << 20).decode("utf-8", "replace")
        if code == 0 or self._is_up(control):  # another command of this user may have been faster
            return control
        raise self._explain(words_said, interactive)

    def _explain(self, said: str, interactive: bool) -> TargetError:
        error = sshconfig.explain(self._settings(), said)
        if not interactive and "permission denied" in said.lower():
            error.hint = _(
                "a passphrase or a second factor can be asked for on a terminal only: log in there once with"
                " oelm shell {target}; the login then serves all commands for {n} minutes",
                self.target.name,
                KEEP_MASTER_S // 60,
            )
        return error

    # The connection ---------------------------------------------------------------------------------------------------

    def _open(self, line: str) -> Channel:
        if not self._control:
            self._control = self._master()
        argv = [*self._argv(self._control), "-o", "ControlMaster=no", "-T", "--", self.target.host, line]
        return SSHProcess(argv)

    def _drop(self) -> None:
        self._control = ""

    def close(self) -> None:
        """Do nothing: the master stays open for the next command."""
        self._drop()

    def log_out(self) -> None:
        """End the master connection that this object made."""
        control = self._own_path()
        if Path(control).exists():
            argv = [*self._argv(control), "-O", "exit", "--", self.target.host]
            subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=END_S)
        self._drop()

    def route(self) -> Route:
        """Return how rsync reaches the target: through the same master."""
        self._control = self._control or self._master()
        return self._route([*self._argv(self._control), "-o", "ControlMaster=no"])

    def terminal(self, line: str, *options: str) -> list[str]:
        """Return ssh's argv; on a terminal it may ask for a passphrase, and that login then serves all commands."""
        self._control = self._control or self._master()
        return [*self._argv(self._control, interactive=True), "-o", "ControlMaster=no", *options, "--",
                self.target.host, line]  # fmt: skip

    def forward(self, port: int, there: int) -> list[str]:
        """Forward a port of this machine's loopback through the master; return the argv that ends it."""
        self._control = self._control or self._master()

        def argv(act: str) -> list[str]:
            # Without the user's configuration: the forwards of the host's entry would be asked for, too, and the
            # option that clears them clears this one.
            return ["ssh", "-F", "/dev/null", "-o", f"ControlPath={self._control}", "-O", act,
                    "-L", f"127.0.0.1:{port}:127.0.0.1:{there}", "--", self.target.host]  # fmt: skip

        done = subprocess.run(argv("forward"), stdin=subprocess.DEVNULL, capture_output=True, timeout=END_S)
        if done.returncode:
            raise TargetError(
                _("{target}: port {port} can't be forwarded: {why}", self.target.name, port, last_line(done.stderr))
            )
        return argv("cancel")


class PlainSSHConnection(OpenSSHConnection):
    """Another machine, reached through one ``ssh`` for each command, as rsync reaches it; it never prompts.

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
        shared = {"ControlMaster": "auto", "ControlPath": f"{control_folder()}/%C", "ControlPersist": str(KEEP_PLAIN_S)}
        options = [word for key, value in shared.items() for word in ("-o", f"{key}={value}")]
        return ["ssh", *sshconfig.safety(self._settings()), *options, *sshconfig.login_options(self.target)]

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

    def terminal(self, line: str, *options: str) -> list[str]:
        """Return ssh's argv; on a terminal it may ask for a passphrase."""
        return plain_terminal(self.target, line, *options)

    def forward(self, port: int, there: int) -> list[str]:
        """Forward a port through a master of its own; return the argv that ends it."""
        return OpenSSHConnection(self.target, KEEP_PLAIN_S).forward(port, there)


def plain_shell(target: Target, *, interactive: bool = False) -> list[str]:
    """Return the argv of an ``ssh`` that logs in by itself; it uses a master that the user has open, but makes none."""
    settings = sshconfig.look_up(target)
    return ["ssh", *sshconfig.safety(settings, interactive=interactive), "-o", "ControlMaster=no",
            *sshconfig.login_options(target)]  # fmt: skip


def plain_terminal(target: Target, line: str, *options: str) -> list[str]:
    """Return the argv of such an ``ssh`` that runs a line of shell on this terminal, where it may prompt."""
    return [*plain_shell(target, interactive=True), *options, "--", target.host, line]

"""Owns reaching another machine through the OpenSSH client and one master connection, so that agent, passphrase,
bastions and a second factor are asked for once for all commands; leaves the conversation to remote and wire.

A master that the user has open already (ControlPath in ~/.ssh/config) is used, else one is made and kept for a while.
"""

from __future__ import annotations

import hashlib
import os
import select
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from ..errors import NotReached, TargetError
from ..spec import Target
from . import Route, sshconfig
from .channel import MAX_SAID_BYTES, Broken, Channel, last_line
from .remote import RemoteConnection

KEEP_MASTER_S = 3600
"""How long a master outlives its last command."""
LOGIN_S, ASK_S = 40.0, 150.0
"""How long a login may take without and with questions to the user."""
END_S = 15.0


def control_folder() -> Path:
    """Return (and make) the folder of master sockets, which nobody else can enter.

    It is short because the path of a socket is (unix(7): 108 bytes), and holds no spaces.

    Raises:
        TargetError: Somebody else has made it.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    path = Path(runtime) / "oelm" if runtime and len(runtime) < 40 and " " not in runtime else None
    path = path or Path(f"/tmp/oelm-ssh-{os.getuid()}")
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise TargetError(f"{path} is not a folder of yours alone", hint=f"look at it, then remove it: ls -ld {path}")
    return path


class OpenSSHConnection(RemoteConnection):
    """Another machine, through ``ssh`` and its master connection."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._control = ""

    # The master -------------------------------------------------------------------------------------------------------

    def _settings(self) -> sshconfig.Settings:
        return sshconfig.look_up(self.target)

    def _words(self, control: str, *, interactive: bool = False) -> list[str]:
        """Return ssh's words up to the host."""
        return ["ssh", *sshconfig.safety(self._settings(), interactive=interactive), "-o", f"ControlPath={control}",
                *sshconfig.words(self.target)]  # fmt: skip

    def _own_path(self) -> str:
        settings = self._settings()
        name = f"{settings.alias} {settings.user}@{settings.hostname}:{settings.port} {settings.proxy_jump}"
        return str(control_folder() / hashlib.sha256(name.encode()).hexdigest()[:12])

    def _is_up(self, control: str) -> bool:
        words = [*self._words(control), "-O", "check", "--", self.target.host]
        return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=END_S).returncode == 0

    def _master(self) -> str:
        """Return the socket of a living master connection, made now where there is none.

        Raises:
            NotReached: Not just now.
            TargetError: The host's key or the user's was refused.
        """
        theirs = self._settings().control_path
        for control in [path for path in (theirs, self._own_path()) if path and Path(path).exists()]:
            if self._is_up(control):
                return control
        return self._log_in(self._own_path())

    def _log_in(self, control: str) -> str:
        # Nobody is asked where nobody sits; a question there would hang for ever.
        interactive = sys.stdin.isatty() and sys.stderr.isatty()
        words = [*self._words(control, interactive=interactive), "-o", "ControlMaster=yes",
                 "-o", f"ControlPersist={KEEP_MASTER_S}", "-N", "-f", "--", self.target.host]  # fmt: skip
        if Path(control).exists():
            Path(control).unlink(missing_ok=True)  # a dead master's; ssh would not replace it
        # A file, not a pipe: the master keeps it open for as long as it lives. Questions go to the terminal.
        with tempfile.TemporaryFile() as said:
            login = subprocess.Popen(
                words,
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
                raise NotReached(f"{self.target.name} did not let this login in in time") from None
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
            error.hint = (
                "a passphrase or a second factor can be asked for on a terminal only: log in there once with"
                f" oelm shell {self.target.name}; the login then serves all commands for {KEEP_MASTER_S // 60} minutes"
            )
        return error

    # The connection ---------------------------------------------------------------------------------------------------

    def _open(self, line: str) -> Channel:
        if not self._control:
            self._control = self._master()
        words = [*self._words(self._control), "-o", "ControlMaster=no", "-T", "--", self.target.host, line]
        return _Process(words)

    def _drop(self) -> None:
        self._control = ""

    def close(self) -> None:
        """Leave the master to the next command."""
        self._drop()

    def log_out(self) -> None:
        """End the master connection that this made."""
        control = self._own_path()
        if Path(control).exists():
            words = [*self._words(control), "-O", "exit", "--", self.target.host]
            subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=END_S)
        self._drop()

    def route(self) -> Route:
        """Return how rsync gets there: through the same master."""
        self._control = self._control or self._master()
        return self._route([*self._words(self._control), "-o", "ControlMaster=no"])

    def terminal(self, line: str, *options: str) -> list[str]:
        """Return ssh's words; on a terminal it may ask, and that login then serves all commands."""
        self._control = self._control or self._master()
        return [*self._words(self._control, interactive=True), "-o", "ControlMaster=no", *options, "--",
                self.target.host, line]  # fmt: skip


class PlainSSHConnection(OpenSSHConnection):
    """Another machine, through an ``ssh`` for each command: where nothing is asked, and rsync goes that way, too."""

    def _open(self, line: str) -> Channel:
        settings = self._settings()
        words = ["ssh", *sshconfig.safety(settings), *sshconfig.words(self.target), "-T", "--", self.target.host, line]
        return _Process(words, lambda said: sshconfig.explain(settings, said))

    def route(self) -> Route:
        """Return how rsync gets there: by an ``ssh`` of its own."""
        return self._route(["ssh", *sshconfig.safety(self._settings()), *sshconfig.words(self.target)])

    def terminal(self, line: str, *options: str) -> list[str]:
        """Return ssh's words; on a terminal it may ask."""
        return ["ssh", *sshconfig.safety(self._settings(), interactive=True), *sshconfig.words(self.target), *options,
                "--", self.target.host, line]  # fmt: skip


class _Process:
    """One ``ssh`` process."""

    def __init__(self, words: list[str], explain: Callable[[str], TargetError] | None = None) -> None:
        """Start it.

        Args:
            explain: Makes an error of what it said; only where it makes the connection itself.
        """
        self._explain = explain
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, bufsize=0,
            start_new_session=True,  # Ctrl-C at the client must not cut a launch in two
        )  # fmt: skip
        assert self._process.stdin is not None and self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        os.set_blocking(self._in.fileno(), False)
        self._early = bytearray()
        self._at_end = False

    def write(self, data: bytes, idle_s: float) -> None:
        """Send bytes, and take what comes meanwhile, so that a noisy shell does not block."""
        left = memoryview(data)
        while left:
            reading = [] if self._at_end else [self._out]
            readable, writable, _ = select.select(reading, [self._in], [], idle_s)
            if not readable and not writable:
                raise Broken("nothing moved for too long")
            if readable:
                piece = os.read(self._out.fileno(), 1 << 16)
                self._early += piece
                self._at_end = not piece
            if writable:
                try:
                    left = left[os.write(self._in.fileno(), left[: 64 << 10]) :]
                except BlockingIOError:
                    continue
                except OSError as error:
                    raise Broken(self.end()[1] or str(error)) from error

    def read(self, idle_s: float) -> bytes:
        """Return the next bytes."""
        if self._early:
            content = bytes(self._early)
            self._early.clear()
            return content
        if self._at_end:
            return b""
        if not select.select([self._out], [], [], idle_s)[0]:
            raise Broken("nothing came for too long")
        return os.read(self._out.fileno(), 1 << 16)

    def end(self) -> tuple[int | None, str]:
        """Return exit code and last words."""
        deadline = time.monotonic() + END_S
        while self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        code = self._process.poll()
        size = self._said.seek(0, os.SEEK_END)
        self._said.seek(max(0, size - MAX_SAID_BYTES))
        said = self._said.read()
        if code == 255 and self._explain is not None:  # ssh's own code, of a connection that could not be made
            error = self._explain(said.decode("utf-8", "replace"))
            if not isinstance(error, NotReached):
                raise error
        return (code if code is not None and code >= 0 else None), last_line(said)

    def close(self) -> None:
        """End the process; what it runs there sees its channel closed."""
        if self._process.poll() is None:
            for stream in (self._in, self._out):
                stream.close()
            try:
                self._process.wait(1.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for stream in (self._in, self._out, self._said):
            stream.close()

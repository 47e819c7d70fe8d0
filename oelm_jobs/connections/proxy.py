"""Run a ProxyCommand, whose stdin and stdout lead to a host (ssh_config(5))."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile

from .channel import MAX_SAID_BYTES, last_line

END_S = 2.0


class Proxy:
    """A running ProxyCommand, started by the user's shell as the OpenSSH client does."""

    def __init__(self, line: str) -> None:
        """Start it.

        Raises:
            OSError: There is no shell.
        """
        self.socket, theirs = socket.socketpair()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by end()
        try:
            self._process = subprocess.Popen(
                [os.environ.get("SHELL") or "/bin/sh", "-c", f"exec {line}"],
                stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=self._said, start_new_session=True,
            )  # fmt: skip
        except OSError:
            self.socket.close()
            self._said.close()
            raise
        finally:
            theirs.close()

    def end(self) -> str:
        """End it; return the last line of its stderr."""
        if self._said.closed:
            return ""
        self.socket.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END_S)
            self._process.kill()
            self._process.wait()
        with self._said:
            size = self._said.seek(0, 2)
            self._said.seek(max(0, size - MAX_SAID_BYTES))
            return last_line(self._said.read())

"""Run one ``ssh`` process as a channel.

It imports little, because the process is started while the rest of the toolkit is still being imported.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import time
from collections.abc import Callable, Sequence

from ..agent.sentences import _
from ..errors import NotReached, TargetError
from .channel import MAX_SAID_BYTES, Broken, last_line

PIECE_BYTES = 1 << 16
END_S = 15.0
"""How long a process may take to end once its output has."""


def end(process: subprocess.Popen[bytes], patience_s: float = 2.0) -> None:
    """End a process that still runs."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class SSHProcess:
    """One ``ssh`` process."""

    def __init__(self, argv: Sequence[str], explain: Callable[[str], TargetError] | None = None) -> None:
        """Start it.

        Args:
            explain: Makes an error of what it said; only where it makes the connection itself.
        """
        self._explain = explain
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
            start_new_session=True,  # Ctrl-C at the client must not cut a launch in two
        )  # fmt: skip
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self._streams = (self._process.stdin, self._process.stdout, self._process.stderr)
        self._in, self._out, self._err = (stream.fileno() for stream in self._streams)
        os.set_blocking(self._in, False)
        self._early, self._said = bytearray(), bytearray()
        self._open = {self._out, self._err}

    def _wait(self, idle_s: float, *, writing: bool) -> bool:
        """Read what has arrived; return whether more can be sent.

        Raises:
            Broken: Nothing moved for ``idle_s`` seconds.
        """
        readable, writable = select.select(list(self._open), [self._in] if writing else [], [], idle_s)[:2]
        if not readable and not writable:
            raise Broken(_("nothing came for too long"))
        for handle in readable:
            piece = os.read(handle, PIECE_BYTES)
            if not piece:
                self._open.discard(handle)
            elif handle == self._out:
                self._early += piece
            else:
                self._said += piece
                del self._said[:-MAX_SAID_BYTES]
        return bool(writable)

    def write(self, data: bytes, idle_s: float) -> None:
        """Send bytes, reading what arrives meanwhile so that a shell that prints much does not block."""
        left = memoryview(data)
        while left:
            if self._wait(idle_s, writing=True):
                try:
                    left = left[os.write(self._in, left[:PIECE_BYTES]) :]
                except BlockingIOError:
                    continue
                except OSError as error:
                    raise Broken(self.end()[1] or str(error)) from error

    def close_input(self) -> None:
        """Close its stdin."""
        self._streams[0].close()

    def read(self, idle_s: float) -> bytes:
        """Return the next bytes."""
        deadline = time.monotonic() + idle_s
        while not self._early and self._out in self._open:
            self._wait(max(0.0, deadline - time.monotonic()), writing=False)
        content = bytes(self._early)
        self._early.clear()
        return content

    def end(self) -> tuple[int | None, str]:
        """Return the exit code and the last line of stderr.

        Raises:
            TargetError: The connection could not be made, and trying again would not help.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)
        # Not to the end of stderr: a master that this process leaves behind may keep that open (OpenSSH before 8.5).
        with contextlib.suppress(Broken):
            while self._open:
                self._wait(0.0, writing=False)
        code, said = self._process.poll(), bytes(self._said)
        if code == 255 and self._explain is not None:  # ssh's own code
            error = self._explain(said.decode("utf-8", "replace"))
            if not isinstance(error, NotReached):
                raise error
        return (code if code is not None and code >= 0 else None), last_line(said)

    def close(self) -> None:
        """End the process; what it runs there finds its channel closed."""
        end(self._process)
        for stream in self._streams:
            stream.close()

"""Call rsync: its command line, its progress, the meaning of its exit codes.

Files arrive in a staging folder where they may stay unfinished: there ``--append`` goes on exactly where the last try
was cut, whatever ended it. Its own ``--timeout`` does not notice a sender that is merely stopped (rsync 3.2.7 took
218 s for ``--timeout=5``), so the caller watches the bytes and ends it.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

from ..agent.sentences import _
from ..errors import TargetError

NETWORK_CODES = frozenset({-15, -9, 10, 12, 20, 30, 35, 255})
"""Exit codes after which another try may succeed: the connection broke, or it was ended (rsync(1))."""
SOME_FAILED = (23, 24)
"""Exit codes that mean that some files could not be read or have vanished; the others are here."""
IO_TIMEOUT_S = 60
_PROGRESS = re.compile(rb"[\r\n]\s+([\d,.']+)\s+\d+%")
"""A line of ``--progress``: bytes, per cent, rate, time."""


@functools.lru_cache(maxsize=1)
def installed() -> str:
    """Return the path of the rsync that is installed here.

    The options below are understood by rsync 2.6.9 and by openrsync, which macOS has, as well.

    Raises:
        TargetError: There is none.
    """
    path = shutil.which("rsync")
    if path is None:
        raise TargetError(
            _("there is no rsync command here"), hint=_("install it: apt install rsync, or brew install rsync")
        )
    return path


def shell_argument(shell: Sequence[str]) -> str:
    """Return a remote shell's argv as rsync's ``-e`` takes it: split at blanks, with double quotes around arguments
    that hold some.

    Raises:
        TargetError: An argument holds a double quote.
    """
    if any('"' in argument for argument in shell):
        raise TargetError(_("a path with a double quote in it can't be handed to rsync as part of its remote shell"))
    return " ".join(
        f'"{argument}"' if re.search(r"[\s']", argument) or not argument else argument for argument in shell
    )


class Transfer:
    """A running rsync."""

    def __init__(
        self, source: str, destination: str, names: Iterable[str], *, shell: Sequence[str] | None, remote: str = ""
    ) -> None:
        """Start it.

        Args:
            source: Folder, with ``host:`` in front where it is remote; ends with a slash.
            destination: Folder, likewise.
            names: Files below ``source``; they appear below ``destination`` under the same relative path.
            shell: Words of the remote shell; None where both folders are here.
            remote: Path of the command at the other end; empty for what is on PATH there.

        Raises:
            TargetError: rsync can't be started.
        """
        # No recursion, links, devices, owners or modes: only the regular files that are named, and only their bytes.
        # It is said as well, since an alias in the user's ~/.popt may turn them on (popt(3)).
        # The list goes over the wire, not through the shell at the other end, so no name is ever quoted.
        argv = [installed(), "--append", "--times", "--relative", "--from0", "--files-from=-", "--progress"]
        argv += ["--no-links", "--no-devices", "--no-specials", "--no-perms", "--no-owner", "--no-group"]
        argv += [f"--timeout={IO_TIMEOUT_S}"]
        argv += ["-e", shell_argument(shell)] if shell else []
        argv += [f"--rsync-path={remote}"] if remote else []
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by end()
        self._list: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - as above
        self._out: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - as above
        self._list.write(b"".join(name.encode("utf-8", "surrogateescape") + b"\0" for name in names))
        self._list.seek(0)
        try:
            self.process = subprocess.Popen(
                [*argv, source, destination], stdin=self._list, stdout=self._out, stderr=self._said,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise TargetError(_("rsync can't be started: {why}", str(error))) from error

    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.process.poll() is not None

    def moved(self) -> int:
        """Return the bytes of the current file that rsync says it has moved; it grows while anything moves."""
        size = os.fstat(self._out.fileno()).st_size
        begin = max(0, size - 4096)
        found = _PROGRESS.findall(os.pread(self._out.fileno(), size - begin, begin))
        return int(re.sub(rb"\D", b"", found[-1])) if found else 0

    def end(self) -> tuple[int, str]:
        """End it if it still runs; return the exit code and the last line of stderr."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
        code = self.process.wait()
        size = self._said.seek(0, 2)
        self._said.seek(max(0, size - (16 << 10)))
        lines = [line.strip() for line in self._said.read().decode("utf-8", "replace").splitlines() if line.strip()]
        for file in (self._said, self._list, self._out):
            file.close()
        told = [line for line in lines if not line.startswith("rsync error")] or lines
        return code, "".join(c for c in (told or [""])[0] if c.isprintable())[:300]


def upload_folder(path: Path) -> str:
    """Return a local folder as rsync's source: absolute, so that a colon in it isn't taken for a host."""
    return f"{path.resolve()}/"

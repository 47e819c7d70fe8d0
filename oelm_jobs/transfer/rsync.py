"""Call rsync: its command line, its progress, the meaning of its exit codes.

Files arrive in a staging folder where they may stay unfinished: there ``--append`` goes on exactly where the last try
was cut, whatever ended it. Its own ``--timeout`` does not notice a sender that is merely stopped (rsync 3.2.7 took
218 s for ``--timeout=5``), so the caller watches the bytes and ends it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence

from ..agent.sentences import _
from ..connections import Route, process
from ..errors import NotReached, TargetError

NETWORK_CODES = frozenset({-15, -9, 10, 12, 20, 30, 35, 255})
"""Exit codes after which another try may succeed: the connection broke, or it was ended (rsync(1))."""
SOME_FAILED = (23, 24)
"""Exit codes that mean that some files could not be read or have vanished; the others are here."""
IO_TIMEOUT_S = 60
IDLE_S = 60.0
"""Without a byte for so long a transfer is ended and begun anew."""
LOOK_S = 0.02
PIECE_BYTES = 1 << 20
"""So much at a time is looked at."""
_PROGRESS = re.compile(rb"[\r\n]\s+([\d,.']+)\s+\d+%")
"""A line of ``--progress``: bytes, per cent, rate, time. The first of a file stands behind a line with its name."""


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
        self,
        source: str,
        destination: str,
        names: Iterable[str],
        route: Route | None,
        remote: str = "",
        *,
        has_links: bool = False,
    ) -> None:
        """Start it.

        Args:
            source: Folder, with ``host:`` in front where it is remote; ends with a slash.
            destination: Folder, likewise.
            names: Files below ``source``; they appear below ``destination`` under the same relative path.
            route: To the other end; None where both folders are here.
            remote: Path of the command there; empty for what is on PATH.
            has_links: Links among the names or on the way to them are followed.

        Raises:
            TargetError: rsync can't be started.
        """
        path = shutil.which("rsync")
        if path is None:
            raise TargetError(
                _("there is no rsync command here"), hint=_("install it: apt install rsync, or brew install rsync")
            )
        # The options are understood by rsync 2.6.9 and by openrsync, which macOS has, as well.
        # No recursion, links, devices, owners or modes: only the regular files that are named, and only their bytes.
        # It is said as well, since an alias in the user's ~/.popt may turn them on (popt(3)).
        # The list goes over the wire, not through the shell at the other end, so no name is ever quoted.
        argv = [path, "--append", "--times", "--relative", "--from0", "--files-from=-", "--progress"]
        argv += ["--no-devices", "--no-specials", "--no-perms", "--no-owner", "--no-group"]
        argv += ["--copy-links" if has_links else "--no-links"]
        argv += [f"--timeout={IO_TIMEOUT_S}"]
        argv += ["-e", shell_argument(route.shell)] if route else []
        argv += [f"--rsync-path={remote}"] if route and remote else []
        self._read = self._place = 0
        self._files = [tempfile.TemporaryFile() for _number in range(3)]  # noqa: SIM115 - closed by end()
        self._list, self._out, self._said = self._files
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
        """Return the bytes that rsync says it has moved since the last call, with what of a file had arrived before."""
        told = os.pread(self._out.fileno(), PIECE_BYTES, self._read)
        moved, end = 0, max(0, len(told) - 4096)  # where there is no line of progress: the next may be half there
        for line in _PROGRESS.finditer(told):
            place, end = int(re.sub(rb"\D", b"", line[1])), line.end()
            moved += place - (0 if line[0].startswith(b"\n") else self._place)
            self._place = place
        self._read += end
        return moved

    def end(self) -> tuple[int, str]:
        """End it if it still runs; return the exit code and the first line of stderr, which says why it failed."""
        process.end(self.process, 5.0)
        size = self._said.seek(0, 2)
        self._said.seek(max(0, size - (16 << 10)))
        lines = [line.strip() for line in self._said.read().decode("utf-8", "replace").splitlines() if line.strip()]
        for file in self._files:
            file.close()
        told = [line for line in lines if not line.startswith("rsync error")] or lines
        return self.process.returncode, "".join(c for c in (told or [""])[0] if c.isprintable())[:300]


def watch(
    transfer: Transfer, target: str, moved: Callable[[], int], advance: Callable[[int], None], also: Sequence[int] = ()
) -> None:
    """Wait for the end of a transfer with a target, and end it where nothing moves any more.

    Args:
        moved: Returns the bytes that have moved since it was called last.
        advance: Is called with them.
        also: Exit codes besides 0 that are no error.

    Raises:
        NotReached: The connection broke, or nothing moved for too long; what has arrived stays.
        TargetError: rsync can't do it at all.
    """
    moved_at, idle = time.monotonic(), ""
    try:
        while not transfer.is_over() and not idle:
            step = moved()
            advance(step)
            if step:
                moved_at = time.monotonic()
            elif time.monotonic() - moved_at > IDLE_S:
                idle = _("nothing moved for {n:.0f} s", IDLE_S)
            if step < PIECE_BYTES:
                time.sleep(LOOK_S)  # the processor is rsync's and ssh's until there is a piece
    finally:
        code, said = transfer.end()
    why = idle or said or _("rsync exit code {n}", code)
    if idle or code in NETWORK_CODES:
        raise NotReached(_("the transfer with {target} broke off: {why}", target, why))
    if code and code not in also:
        is_noise = "is your shell clean" in said or "protocol version mismatch" in said
        mend = _("the login shell there prints something where there is no terminal: make its start-up files quiet")
        raise TargetError(_("rsync with {target}: {why}", target, why), hint=mend if is_noise else "")

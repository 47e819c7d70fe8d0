"""A remote shell for rsync that drops what the login shell prints before a command runs, since rsync would take it for
its protocol.

    python quiet.py COUNT ssh … HOST rsync --server …

The first COUNT arguments are the ssh command, its host the last of them. Standard library only: it is run by its path.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys


def main(argv: list[str]) -> int:
    """Run ssh and pass on what it prints after a mark; return its exit code."""
    count = int(argv[0])
    mark = "oelm" + secrets.token_hex(16)
    command = [*argv[1 : count + 1], f"echo {mark}; exec {' '.join(argv[count + 1 :])}"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE)  # stdin is handed down as it is
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: child.terminate())
    assert child.stdout is not None
    source, ending, seen = child.stdout.fileno(), f"{mark}\n".encode(), b""
    while (at := seen.find(ending)) < 0:
        seen = seen[-len(ending) :]
        piece = os.read(source, 1 << 16)
        if not piece:
            return child.wait()
        seen += piece
    rest = seen[at + len(ending) :] or os.read(source, 1 << 18)
    while rest:
        while rest:
            rest = rest[os.write(1, rest) :]
        rest = os.read(source, 1 << 18)
    return child.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""``oelm shell``: open a shell on a target, in the environment of its runs."""

from __future__ import annotations

import os
import sys

import click

from . import complete
from .common import command, open_project


@command("oelm-shell")
@click.argument("target", default="local", shell_complete=complete.targets)
def main(target: str) -> None:
    """Open a shell on TARGET with its set-up applied, in its root.

    With connection = "openssh" this is also where a passphrase or a second factor is asked for, once for all commands.
    """
    argv = open_project().shell(target)
    sys.stdout.flush()
    os.execvp(argv[0], argv)

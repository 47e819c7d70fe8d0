"""``oelm tensorboard``: TensorBoard over a target's runs, through a forwarded port."""

from __future__ import annotations

import subprocess

import click

from ..agent.sentences import _
from ..errors import RunFailed, TargetError
from . import complete
from .common import command, narrate, open_project, say

PORT = 6006
"""TensorBoard's own."""
SSH_FAILED = 255
"""What ssh ends with when the trouble is its own (ssh(1))."""


@command("oelm-tensorboard")
@click.argument("target", default="local", shell_complete=complete.targets)
@click.option("--study", metavar="NAME", shell_complete=complete.studies, help=_("Only this study's runs."))
@click.option("--port", type=click.IntRange(1, 65535), metavar="N", help=_("Port on this machine.  [default: 6006]"))
def main(target: str, study: str | None, port: int | None) -> None:
    """Show the runs of TARGET in TensorBoard, which runs there and is seen here; Ctrl-C ends it.

    The built-in trainer writes its files where the study says use_tensorboard = true, other programs where they do.
    """
    project = open_project()
    argv, end, local = project.tensorboard(target, study, port or PORT)
    if port and local != port:
        narrate(_("port {port} is taken; using {other}", port, local))
    say(_("TensorBoard of {target}: http://127.0.0.1:{port}/", target, local))
    narrate(_("Ctrl-C ends it."))
    try:
        code = subprocess.run(argv, stdin=subprocess.DEVNULL).returncode
    except KeyboardInterrupt:
        return
    finally:
        if end:
            subprocess.run(end, stdin=subprocess.DEVNULL, capture_output=True)
    if code == SSH_FAILED and project.target(target).host:
        raise TargetError(
            _("TensorBoard on {target} isn't seen: ssh's own words are above", target),
            hint=_("what is wrong: oelm-doctor {target}", target),
        )
    if code not in (0, 130):
        raise RunFailed(
            _("TensorBoard on {target} ended with exit code {code}", target, code),
            hint=_("is it installed there? pip install tensorboard; its words are above"),
        )

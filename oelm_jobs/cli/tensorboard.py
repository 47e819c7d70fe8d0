"""``oelm tensorboard``: TensorBoard over a target's runs, through a forwarded port."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..agent.sentences import _
from ..errors import RunFailed, TargetError
from ..store import Store
from .common import command, narrate, project, say

if TYPE_CHECKING:
    from ..spec.study import Study

PORT = 6006
"""TensorBoard's own."""
SSH_FAILED = 255
"""What ssh ends with when the trouble is its own (ssh(1))."""


def _folder(root: Path, study: Study, target: str) -> str:
    """Return a study's folder below the target's checkpoints, as its runs have it; empty where they lie in no folder of
    its own.
    """
    with Store() as store:
        places = {Path(run.run_dir).parent.name for run in store.runs(root, study.name) if run.target == target}
    has_own = places == {study.name} if places else not study.is_default
    return study.name if has_own else ""


@command("oelm-tensorboard")
@click.argument("target", default="local")
@click.option("--study", metavar="NAME", help=_("Only this study's runs."))
@click.option("--port", type=click.IntRange(1, 65535), metavar="N", help=_("Port on this machine.  [default: 6006]"))
def main(target: str, study: str | None, port: int | None) -> None:
    """Show the runs of TARGET in TensorBoard, which runs there and is seen here; Ctrl-C ends it.

    Runs write its files where their study says use_tensorboard = true.
    """
    from ..runs import terminal
    from ..study.files import load_study
    from ..targets.files import load_target

    root = project()
    folder = _folder(root, load_study(root, study), target) if study else ""
    place = load_target(root, target)
    local = terminal.free_port(port or PORT)
    if port and local != port:
        narrate(_("port {port} is taken; using {other}", port=port, other=local))
    argv, end = terminal.tensorboard(root, place, folder, local)
    say(_("TensorBoard of {target}: http://127.0.0.1:{port}/", target=target, port=local))
    narrate(_("Ctrl-C ends it."))
    try:
        code = subprocess.run(argv, stdin=subprocess.DEVNULL).returncode
    except KeyboardInterrupt:
        return
    finally:
        if end:
            subprocess.run(end, stdin=subprocess.DEVNULL, capture_output=True)
    if code == SSH_FAILED and place.host:
        raise TargetError(
            _("TensorBoard on {target} isn't seen: ssh's own words are above", target=target),
            hint=_("what is wrong: oelm-doctor {target}", target=target),
        )
    if code not in (0, 130):
        raise RunFailed(
            _("TensorBoard on {target} ended with exit code {code}", target=target, code=code),
            hint=_("is it installed there? pip install tensorboard; its words are above"),
        )

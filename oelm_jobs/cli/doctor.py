"""``oelm-doctor``: check a target before runs are sent to it."""

from __future__ import annotations

from dataclasses import asdict

import click

from .. import visible
from ..agent.sentences import _
from ..errors import RunFailed
from ..language import translated
from . import complete
from .common import command, open_project, put, put_json

MARKS = {"good": (_("ok"), "green"), "warning": (_("warning"), "yellow"), "bad": (_("FAILS"), "red")}


@command("oelm-doctor")
@click.argument("target", default="local", shell_complete=complete.targets)
@click.option("--notify", is_flag=True, help=_("Send a test of the notifications, and say what came back."))
@click.option("--json", "as_json", is_flag=True, help=_("Print JSON."))
def main(target: str, notify: bool, as_json: bool) -> None:
    """Check that TARGET can run this project's studies: Python, torch, devices, leases, disk, data, ports.

    Exit code 1 when something would make a run fail.
    """
    from ..fitting import width as columns

    with open_project() as project:
        found = project.examine(target, notify=notify)
    if as_json:
        put_json({"version": 1, "target": target, "findings": [asdict(finding) for finding in found]})
    else:
        width = max(columns(visible.line(translated(finding.what))) for finding in found)

        def pad(text: str, size: int) -> str:
            shown = visible.line(translated(text))
            return shown + " " * (size - columns(shown))

        for finding in found:
            mark, colour = MARKS[finding.verdict.value]
            found_text, mend = (visible.text(translated(text)) for text in (finding.found, finding.mend))
            put(f"{click.style(pad(mark, 8), fg=colour)}{pad(finding.what, width)}  {found_text}")
            if finding.mend:
                put(f"{'':<8}{'':<{width}}  -> {mend}")
    bad = [finding.what for finding in found if finding.is_bad]
    if bad:
        raise RunFailed(_("target {target} can't run everything: {what}", target, bad))

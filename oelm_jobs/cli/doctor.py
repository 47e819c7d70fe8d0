"""``oelm-doctor``: check a target before runs are sent to it."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from .. import visible
from ..agent.sentences import _
from ..errors import RunFailed
from ..fitting import width, wrap
from ..language import translated
from . import complete
from .common import command, open_project, put, put_json, terminal_width

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..checks.finding import Finding

MARKS = {"good": (_("ok"), "green"), "warning": (_("warning"), "yellow"), "bad": (_("FAILS"), "red")}


@command("oelm-doctor")
@click.argument("target", default="local", shell_complete=complete.targets)
@click.option("--notify", is_flag=True, help=_("Send a test of the notifications, and say what came back."))
@click.option("--json", "as_json", is_flag=True, help=_("Print JSON."))
def main(target: str, notify: bool, as_json: bool) -> None:
    """Check that TARGET can run this project's studies: Python, torch, devices, leases, disk, data, ports.

    Exit code 1 when something would make a run fail.
    """
    with open_project() as project:
        found = project.examine(target, notify=notify)
    if as_json:
        put_json({"version": 1, "target": target, "findings": [asdict(finding) for finding in found]})
    else:
        _show(found)
    bad = [finding.what for finding in found if finding.is_bad]
    if bad:
        raise RunFailed(_("target {target} can't run everything: {what}", target, bad))


def _show(found: Sequence[Finding]) -> None:
    """Print what was found in three columns: in two on a terminal that has no room for them."""
    widest = max(width(visible.line(translated(finding.what))) for finding in found)
    room, begin = terminal_width() or math.inf, " " * (8 + widest + 2)
    if len(begin) > room / 2:
        begin = " " * 8
    for finding in found:
        mark, colour = MARKS[finding.verdict.value]
        what = visible.line(translated(finding.what))
        title = what + " " * (len(begin) - 8 - width(what))
        found_text, mend = (visible.text(translated(text)) for text in (finding.found, finding.mend))
        lines = [line for text in found_text.split("\n") for line in wrap(text, room, begin, begin)]
        if len(begin) > 8:
            title += lines.pop(0)[len(begin) :]
        shown_mark = translated(mark)
        put(click.style(shown_mark, fg=colour) + " " * (8 - width(shown_mark)) + title)
        for line in lines:
            put(line)
        if finding.mend:
            put(f"{begin}-> {mend}")  # it may be a command, which is to be copied

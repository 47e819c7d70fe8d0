"""``oelm-doctor``: check a target before runs are sent to it."""

from __future__ import annotations

from dataclasses import asdict

import click

from .. import visible
from ..errors import RunFailed
from ..language import tr
from .common import command, project, put, put_json

MARKS = {"good": ("ok", "green"), "warning": ("warning", "yellow"), "bad": ("FAILS", "red")}


@command("oelm-doctor")
@click.argument("target", default="local")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(target: str, as_json: bool) -> None:
    """Check that TARGET can run this project's studies: Python, torch, devices, leases, disk, data, ports.

    Exit code 1 when something would make a run fail.
    """
    from ..checks import doctor
    from ..checks.finding import BAD
    from ..table import width as columns
    from ..targets.files import load_target

    root = project()
    found = doctor.examine(root, load_target(root, target))
    if as_json:
        put_json({"version": 1, "target": target, "findings": [asdict(finding) for finding in found]})
    else:
        width = max(columns(visible.line(tr(finding.what))) for finding in found)

        def pad(text: str, size: int) -> str:
            return visible.line(tr(text)) + " " * (size - columns(visible.line(tr(text))))

        for finding in found:
            mark, colour = MARKS[finding.verdict]
            found_text, mend = visible.text(tr(finding.found)), visible.text(tr(finding.mend))
            put(f"{click.style(pad(mark, 8), fg=colour)}{pad(finding.what, width)}  {found_text}")
            if finding.mend:
                put(f"{'':<8}{'':<{width}}  -> {mend}")
    bad = [finding.what for finding in found if finding.verdict == BAD]
    if bad:
        raise RunFailed(f"target {target} can't run everything: {', '.join(tr(what) for what in bad)}")

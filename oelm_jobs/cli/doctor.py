"""``oelm-doctor``: checks a target before it costs a night."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from ..errors import RunFailed
from ..language import tr
from .common import command, project

MARKS = {"good": ("ok", "green"), "warning": ("warning", "yellow"), "bad": ("FAILS", "red")}


@command("oelm-doctor")
@click.argument("target", default="local")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(target: str, as_json: bool) -> None:
    """Check that TARGET can run this project's studies: Python, torch, devices, leases, disk, data, ports.

    Exit code 1 when something would make a run fail.
    """
    from .. import doctor
    from ..finding import BAD
    from ..table import width as columns
    from ..targets import load_target

    root = project()
    found = doctor.examine(root, load_target(root, target))
    if as_json:
        click.echo(
            json.dumps({"version": 1, "target": target, "findings": [asdict(finding) for finding in found]}, indent=1)
        )
    else:
        width = max(columns(tr(finding.what)) for finding in found)

        def pad(text: str, size: int) -> str:
            return tr(text) + " " * (size - columns(tr(text)))

        for finding in found:
            mark, colour = MARKS[finding.verdict]
            click.echo(f"{click.style(pad(mark, 8), fg=colour)}{pad(finding.what, width)}  {tr(finding.found)}")
            if finding.mend:
                click.echo(f"{'':<8}{'':<{width}}  -> {tr(finding.mend)}")
    bad = [finding.what for finding in found if finding.verdict == BAD]
    if bad:
        raise RunFailed(f"target {target} can't run everything: {', '.join(tr(what) for what in bad)}")

"""``oelm-fetch``: brings results home, whole and verified."""

from __future__ import annotations

import json
from typing import Any

import click

from ..errors import RunFailed
from .common import command, narrate, project, say


@command("oelm-fetch")
@click.argument("names", nargs=-1, metavar="[STUDY|GROUP|RUN]...")
@click.option("--study", metavar="NAME", help="Only this study.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(names: tuple[str, ...], study: str | None, as_json: bool) -> None:
    """Fetch runs and check every file against its manifest.

    Runs of this machine are here already; they are checked. Exit code 1 when a file is missing or differs.
    """
    from .. import observe, workflow
    from ..store import Store
    from .select import select

    root = project()
    rows: list[dict[str, Any]] = []
    with Store() as store:
        for run in observe.refresh(store, root, select(store, root, names, study)).runs:
            checked = workflow.fetch(root, run)
            rows.append(
                {
                    "run": run.name,
                    "state": str(run.state),
                    "run_dir": run.run_dir,
                    "files": checked.files,
                    "bytes": checked.size,
                    "verified": checked.has_manifest and not checked.damaged,
                    "damaged": list(checked.damaged),
                }
            )
            if not as_json:
                _show(rows[-1], checked.has_manifest)
    if as_json:
        click.echo(json.dumps({"version": 1, "runs": rows}, indent=1))
    if not rows:
        narrate("No run yet. Submit some: oelm-submit")
    damaged = [row["run"] for row in rows if row["damaged"]]
    if damaged:
        raise RunFailed(
            f"damaged: {', '.join(damaged)}",
            hint=f"archive and start over: oelm-submit --rerun (oelm-logs {damaged[0]})",
        )


def _show(row: dict[str, Any], has_manifest: bool) -> None:
    if row["damaged"]:
        say(f"{row['run']}: DAMAGED: {', '.join(row['damaged'])}")
    elif has_manifest:
        say(f"{row['run']}: {row['files']} files, {row['bytes'] / 1e6:.1f} MB, verified, in {row['run_dir']}")
    else:
        say(f"{row['run']}: is {row['state']}, nothing to verify yet")

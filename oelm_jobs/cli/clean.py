"""``oelm-clean``: frees a target's disk of checkpoints that are at home, verified."""

from __future__ import annotations

import click

from ..errors import UsageError
from .common import command, confirm, each_target, end_with, narrate, project, put_json, say


@command("oelm-clean")
@click.argument("names", nargs=-1, metavar="[STUDY|GROUP|RUN]...")
@click.option("--study", metavar="NAME", help="Only this study.")
@click.option("--all", "everything", is_flag=True, help="Every run of this project.")
@click.option("--dry-run", is_flag=True, help="Say what would go, and leave it.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(names: tuple[str, ...], study: str | None, everything: bool, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Remove checkpoints from targets where the copy here is verified once more; logs and results stay there.

    Runs that are not over are left alone, and so is the newest checkpoint of one that could be resumed. A finished run
    whose checkpoints are gone can't be extended there any more.
    """
    from .. import clean, observe
    from ..store import Store
    from .select import select

    if not names and study is None and not everything:
        raise UsageError("name a study, a group or a run", hint="or give --all; oelm-status lists them")
    root = project()
    with Store() as store:
        runs = observe.refresh(store, root, select(store, root, names, study)).runs
    found = clean.removable(root, runs)
    for one in found if not as_json else ():
        listed = f"{', '.join(one.files)} ({one.size / 1e6:,.1f} MB)" if one.files else "nothing to remove"
        say(f"{one.run.name} on {one.run.target}: {listed}{'; ' + one.note if one.note else ''}")
    size = sum(one.size for one in found)
    removed: list[clean.Removed] = []
    errors = {}
    if size and not dry_run:
        targets = ", ".join(dict.fromkeys(one.run.target for one in found if one.files))
        confirm(f"Remove {size / 1e6:,.1f} MB of checkpoints from {targets}?", yes=yes)
        errors = each_target(
            (one.run.target for one in found if one.files),
            lambda name: removed.extend(clean.remove(root, [one for one in found if one.run.target == name])),
        )
    if as_json:
        rows = [
            {
                "run": one.run.name,
                "removable": sorted(one.files),
                "bytes": one.size,
                "note": one.note,
                "removed": next((sorted(r.names) for r in removed if r.run == one.run), []),
            }
            for one in found
        ]
        put_json({"version": 1, "executed": not dry_run, "runs": rows})
    for done in removed if not as_json else ():
        for name, reason in done.kept.items():
            narrate(f"{done.run.name}: {name} stays: {reason}")
    if removed and not as_json:
        say(f"freed {sum(done.freed for done in removed) / 1e6:,.1f} MB")
    end_with(errors)

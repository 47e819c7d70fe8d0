"""``oelm-clean``: free a target's disk of checkpoints whose verified copy is at home, and of what no run needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ..agent.sentences import _, joined
from .common import command, confirm, end_with, narrate, open_project, put_json, say
from .selection import by_runs, choose

if TYPE_CHECKING:
    from ..transfer.clean import Removable, Unused


@command("oelm-clean")
@by_runs
@click.option("--all", "everything", is_flag=True, help=_("Every run of this project."))
@click.option("--dry-run", is_flag=True, help=_("Say what would go, and leave it."))
@click.option("--yes", is_flag=True, help=_("Don't ask."))
@click.option("--json", "as_json", is_flag=True, help=_("Print JSON."))
def main(
    names: tuple[str, ...],
    study: str | None,
    everything: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **only: Any,
) -> None:
    """Remove from targets checkpoints whose copy here is verified once more, and code and copies of inputs that nobody
    needs any more; logs and results stay there.

    Runs that are not over are left alone, and so is the newest checkpoint of one that could be resumed. A finished run
    whose checkpoints are gone can't be extended there any more. What a run that isn't over takes from another stays.
    Code (a snapshot of each submission) stays where a run that isn't over names it, whoever's, or a submission whose
    answer isn't known. What was brought from another target stays for a day, or as long as such a run takes it.
    """

    def ask(files: Sequence[Removable], code: Sequence[Unused]) -> bool:
        if not as_json:
            _announce(files, code)
        where = [one.run.target for one in files if one.files] + [one.target for one in code if one.names or one.copies]
        if not where or dry_run:
            return False
        what = []
        if any(one.files for one in files):
            what.append(_("{size:,.1f} MB of checkpoints", sum(one.size for one in files) / 1e6))
        if any(one.names for one in code):
            what.append(_("{size:,.1f} MB of code", sum(one.size for one in code) / 1e6))
        if any(one.copies for one in code):
            size = sum(sum(one.copies.values()) for one in code)
            what.append(_("{size:,.1f} MB of copies from other targets", size / 1e6))
        confirm(_("Remove {what} from {targets}?", what, list(dict.fromkeys(where))), yes=yes)
        return True

    with open_project() as project:
        chosen = choose(project, names, study, only)
        cleaned = project.clean(*chosen, study=study, everything=everything, confirm=ask)
    if as_json:
        gone = {(each.run.study, each.run.name): sorted(each.names) for each in cleaned.removed}
        rows = [
            {
                "run": one.run.name,
                **_as_json(one, sorted(one.files), gone.get((one.run.study, one.run.name), ())),
                "taken": [
                    {"file": it.name, "study": it.study, "run": it.run, "state": it.state, "more": it.more}
                    for it in one.taken
                ],
            }
            for one in cleaned.files
        ]
        names_of = {target: done.names for target, done in cleaned.discarded.items()}
        copies_of = {target: done.copies for target, done in cleaned.discarded.items()}
        snapshots = [
            {"target": one.target, **_as_json(one, one.names, names_of.get(one.target, ()))} for one in cleaned.code
        ]
        copies = [
            {
                "target": one.target, "removable": list(one.copies), "bytes": sum(one.copies.values()),
                "note": one.doubt, "removed": copies_of.get(one.target, ()),
            }
            for one in cleaned.code
        ]  # fmt: skip
        put_json({
            "version": 1, "executed": not dry_run, "runs": rows, "snapshots": snapshots, "copies": copies,
            "misread": cleaned.misread,
        })  # fmt: skip
    for each in cleaned.removed if not as_json else ():
        for name, reason in each.kept.items():
            narrate(_("{run}: {file} stays: {why}", each.run.name, name, reason))
    if (cleaned.removed or cleaned.discarded) and not as_json:
        freed = sum(one.freed for one in cleaned.removed) + sum(one.freed for one in cleaned.discarded.values())
        say(_("freed {size:,.1f} MB", freed / 1e6))
    end_with([*cleaned.misread.values(), *cleaned.unreachable.values()])


def _as_json(one: Removable | Unused, names: Sequence[str], removed: Sequence[str]) -> dict[str, object]:
    return {"removable": names, "bytes": one.size, "note": one.note, "removed": removed}


def _announce(found: Sequence[Removable], code: Sequence[Unused]) -> None:
    """Print what may be removed, and why something stays."""
    for one in found:
        what = _("{files} ({size:,.1f} MB)", sorted(one.files), one.size / 1e6) if one.files else _("nothing to remove")
        say(_("{run} on {target}: {what}", one.run.name, one.run.target, joined((what, one.note))))
    for each in code:
        if each.names:
            what = _("snapshots that no run needs: {count} ({size:,.1f} MB)", len(each.names), each.size / 1e6)
            say(_("code on {target}: {what}", each.target, what))
        if each.copies:
            size = sum(each.copies.values()) / 1e6
            what = _("copies from other targets that no run takes: {count} ({size:,.1f} MB)", len(each.copies), size)
            say(_("inputs on {target}: {what}", each.target, what))
        if each.note:
            say(_("code on {target}: {what}", each.target, each.note))

"""``oelm-forget``: take runs that are over out of everything that counts, with a line in the study's ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..agent.sentences import _, joined
from ..errors import few
from .common import command, confirm, end_with, narrate, open_project, put_json, say
from .selection import by_runs, called, choose

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..project import Forgotten
    from ..stored_run import StoredRun


@command("oelm-forget")
@by_runs
@click.option("--all", "everything", is_flag=True, help=_("Every run of this project."))
@click.option("--why", default="", metavar="TEXT", help=_("Your reason, for the ledger."))
@click.option(
    "--delete", is_flag=True, help=_("Remove what they made from their targets; else it is moved to .archive.")
)
@click.option("--yes", is_flag=True, help=_("Don't ask."))
@click.option("--json", "as_json", is_flag=True, help=_("Print JSON."))
def main(
    names: tuple[str, ...],
    study: str | None,
    everything: bool,
    why: str,
    delete: bool,
    yes: bool,
    as_json: bool,
    **only: Any,
) -> None:
    """Forget runs that are over: status, reports and later submissions know them no more.

    Their files are moved to .archive beside where they are, on their targets and here. A line for each in
    experiments/STUDY/ledger.jsonl says what it was, what it had reached and cost, and why it was forgotten. What isn't
    over is refused; oelm-cancel ends it.
    """
    with open_project() as project:

        def ask(runs: Sequence[StoredRun]) -> None:
            told = [_("{run} ({facts})", name, str(run.state)) for name, run in zip(called(runs), runs, strict=True)]
            question = _("Forget {count} runs ({runs})?", len(runs), few(told))
            if len(runs) == 1:
                question = _("Forget {run}?", told[0])
            if delete:
                targets = list(dict.fromkeys(run.target for run in runs))
                question = _("Forget {runs}, and remove for good what is on {targets}?", few(told), targets)
            if runs:
                confirm(question, yes=yes)

        chosen = choose(project, names, study, only)
        found = project.forget(*chosen, study=study, everything=everything, why=why, delete=delete, confirm=ask)
    if as_json:
        rows = [_as_json(one) for one in found.done]
        put_json({"version": 1, "runs": rows, "unreachable": found.unreachable, "misread": found.misread})
    names_of = called([one.run for one in found.done])
    for one, name in zip(found.done, names_of, strict=True) if not as_json else ():
        say(_("{run}: {what}", name, _what_was_done(one)))
    for path in dict.fromkeys(one.ledger for one in found.done):
        narrate(_("what they were is written in {path}", str(path)))
    end_with([*found.misread.values(), *found.unreachable.values()])


def _what_was_done(one: Forgotten) -> str:
    entry = one.entry
    said = {
        "archived": _("forgotten; its files are in {place} on {target}", entry.place, entry.target),
        "removed": _("forgotten; its files on {target} are removed", entry.target),
        "none": _("forgotten; it had no files on {target}", entry.target),
        "stays": _("forgotten; its files stay on {target}, which could not be asked", entry.target),
    }
    copy = _("what was fetched is in {place}", entry.copy) if entry.copy else ""
    return joined((said[entry.files], copy))


def _as_json(one: Forgotten) -> dict[str, object]:
    keys = (
        "group",
        "seed",
        "tag",
        "target",
        "state",
        "metric",
        "value",
        "step",
        "gpu_hours",
        "why",
        "files",
        "place",
        "copy",
    )
    return {"study": one.run.study, "run": one.run.name, **{key: getattr(one.entry, key) for key in keys}}

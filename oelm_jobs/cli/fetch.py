"""``oelm-fetch``: bring results home, complete and verified."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..agent.sentences import _, joined
from ..agent.states import Checkpoints
from ..errors import NotReached, RunFailed, UsageError
from ..language import chosen
from .common import command, end_with, narrate, open_project, put_json, say

if TYPE_CHECKING:
    from ..transfer.fetch import Fetched

WATCH_S = 10.0
"""Seconds between two looks of ``--watch``."""


@command("oelm-fetch")
@click.argument("names", nargs=-1, metavar="[STUDY|GROUP|RUN]...")
@click.option("--study", metavar="NAME", help=_("Only this study."))
@click.option(
    "--checkpoints",
    type=click.Choice([each.value for each in Checkpoints]),
    default="best",
    show_default=True,
    help=_("Which checkpoints come along."),
)
@click.option("--verify", is_flag=True, help=_("Hash what is here already anew, too."))
@click.option("--report", is_flag=True, help=_("Make the report when all has arrived."))
@click.option("--watch", is_flag=True, help=_("Go on until every run is over, fetching checkpoints as they are made."))
@click.option("--json", "as_json", is_flag=True, help=_("Print JSON."))
def main(
    names: tuple[str, ...],
    study: str | None,
    checkpoints: str,
    verify: bool,
    report: bool,
    watch: bool,
    as_json: bool,
) -> None:
    """Fetch runs and verify every file: finished ones, and what runs that still train have made so far.

    Only what is new is transferred; an interrupted fetch goes on where it was. A file gets its name when it is whole.
    Runs of this machine are here already; they are verified. Exit code 1 when a file is missing or differs.
    """
    from .progress import Meter
    from .view import titles

    if watch and as_json:
        raise UsageError(_("--watch and --json exclude each other"))
    told: set[Path] = set()
    with open_project() as project:
        while True:
            with Meter(_("fetching")) as meter:
                found = project.fetch(*names, study=study, checkpoints=checkpoints, verify=verify, progress=meter)
            fetched, errors = found.done, found.unreachable
            if as_json:
                content: dict[str, object] = {"version": 1, "runs": [_as_json(one) for one in fetched]}
                content["unreachable"] = {name: str(error) for name, error in errors.items()}
                put_json(content)
            called = titles([one.run for one in fetched])
            for one in fetched if not as_json else ():
                if not watch or one.new_files or (one.state.is_final and one.run_dir not in told):
                    _show(called[one.run.study, one.run.name], one)
                if one.state.is_final:
                    told.add(one.run_dir)
            lost = {name: error for name, error in errors.items() if isinstance(error, NotReached)}
            if not watch or len(lost) < len(errors):  # what another try does not mend is not tried again
                end_with(errors)
            if not watch or (not lost and all(one.state.is_final or one.note for one in fetched)):
                break
            for error in lost.values():
                narrate(joined((str(error), _("trying again"))))
            time.sleep(WATCH_S)
    if not fetched:
        narrate(_("No run yet. Submit some: oelm-submit"))
    if report:
        for name in dict.fromkeys(one.run.study for one in fetched):
            _report(project.folder, name, quiet=as_json)
    damaged = [called[one.run.study, one.run.name] for one in fetched if one.damaged]
    if damaged:
        raise RunFailed(
            _("damaged: {runs}", damaged),
            hint=_("archive and start over: oelm-submit --rerun (oelm-logs {run})", damaged[0]),
        )


def _as_json(one: Fetched) -> dict[str, object]:
    return {
        "study": one.run.study,
        "run": one.run.name,
        "state": str(one.state),
        "run_dir": str(one.run_dir),
        "files": one.files,
        "bytes": one.size,
        "new_files": one.new_files,
        "new_bytes": one.new_bytes,
        "verified": one.complete,
        "damaged": list(one.damaged),
        "left": list(one.left),
        "note": one.note,
    }


def _show(name: str, one: Fetched) -> None:
    what: str
    if one.damaged:
        what = _("DAMAGED: {files}", one.damaged)
    elif one.note:
        what = one.note
    else:
        what = _("{files} files, {size:.1f} MB, verified, in {path}", one.files, one.size / 1e6, str(one.run_dir))
        if one.new_files:
            what = _("{count} new ({size:.1f} MB), {all}", one.new_files, one.new_bytes / 1e6, what)
        if not one.complete:
            what = joined((what, _("it is {state}, this is what there is so far", one.state)))
    say(_("{run}: {what}", name, what))


def _report(root: Path, study: str, *, quiet: bool) -> None:
    """Make a study's report as oelm-report does; its output goes to stderr where stdout is for a program."""
    argv = [sys.executable, "-c", "from oelm_jobs.cli.report import main; main()", "--study", study, "--plot"]
    argv += ["--lang", chosen()]
    done = subprocess.run(argv, cwd=root, stdout=sys.stderr if quiet else None)
    if done.returncode:
        raise RunFailed(_("the report of study {study} could not be made (exit code {code})", study, done.returncode))

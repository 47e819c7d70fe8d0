"""``oelm-fetch``: bring results home, complete and verified."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..agent.sentences import _, joined
from ..agent.states import Checkpoints
from ..errors import NotReached, OelmError, RunFailed, UsageError
from .common import command, end_with, narrate, open_project, put_json, say
from .selection import by_runs, choose

if TYPE_CHECKING:
    from ..transfer.earlier import Earlier
    from ..transfer.fetch import Fetched

WATCH_S = 10.0
"""Seconds between two looks of ``--watch``."""


@command("oelm-fetch")
@by_runs
@click.option(
    "--checkpoints",
    type=click.Choice([each.value for each in Checkpoints]),
    default="best",
    show_default=True,
    help=_("Which checkpoints come along."),
)
@click.option("--verify", is_flag=True, help=_("Hash what is here already anew, too."))
@click.option("--report", is_flag=True, help=_("Make the report when all has arrived."))
@click.option(
    "--sync",
    type=click.Choice(["wandb", "mlflow"]),
    help=_(
        "Send what runs that are over have kept for W&B while they were offline (wandb sync), or export runs to MLflow."
    ),
)
@click.option("--watch", is_flag=True, help=_("Go on until every run is over, fetching checkpoints as they are made."))
@click.option("--json", "as_json", is_flag=True, help=_("Print JSON."))
def main(
    names: tuple[str, ...],
    study: str | None,
    report: bool,
    sync: str | None,
    watch: bool,
    as_json: bool,
    checkpoints: str,
    verify: bool,
    **only: Any,
) -> None:
    """Fetch runs and verify every file: finished ones, and what runs that still train have made so far.

    Only what is new is transferred; an interrupted fetch goes on where it was. A file gets its name when it is whole.
    Runs of this machine are here already; they are verified. Of a locked study comes along what a report reads of runs
    that were started over or forgotten. Exit code 1 when a file is missing or differs.
    """
    from .progress import Meter
    from .view import titles

    if watch and as_json:
        raise UsageError(_("--watch and --json exclude each other"))
    told: set[Path] = set()
    noted: set[tuple[str, str]] = set()
    tell: Callable[[str], None] = narrate
    with open_project() as project:
        while True:
            chosen, tell = choose(project, names, study, only, earlier=True, tell=tell), lambda text: None
            with Meter(_("fetching")) as meter:
                found = project.fetch(*chosen, study=study, checkpoints=checkpoints, verify=verify, progress=meter)
            fetched, errors = found.done, found.unreachable
            if as_json:
                rows = [_as_json(one) for one in fetched]
                before = [_as_json(one) | {"target": one.run.target, "event": one.entry.event} for one in found.earlier]
                put_json(
                    {"version": 1, "runs": rows, "earlier": before, "unreachable": errors, "misread": found.misread}
                )
            called = titles([one.run for one in fetched])
            for one in fetched if not as_json else ():
                if not watch or one.new_files or (one.state.is_final and one.run_dir not in told):
                    _show(called[one.run.study, one.run.name], one)
                if one.state.is_final:
                    told.add(one.run_dir)
            for past in found.earlier if not as_json else ():
                if past.new_files or past.damaged or (past.note and (past.run.target, past.note) not in noted):
                    _show(_called(past), past)
                noted.add((past.run.target, past.note))  # why a target can't be asked is told once
            lost = {name: error for name, error in errors.items() if isinstance(error, NotReached)}
            if errors and (not watch or len(lost) < len(errors)):  # what another try does not mend is not tried again
                end_with([*found.misread.values(), *errors.values()])
            if not watch or (not lost and all(one.state.is_final or one.note for one in fetched)):
                break
            for error in lost.values():
                narrate(joined((str(error), _("trying again"))))
            time.sleep(WATCH_S)
        to_send = project.wandb_sync(fetched) if sync == "wandb" else None
        if sync == "mlflow" and fetched:
            narrate(_("{count} runs are in MLflow: {place}", len(fetched), project.to_mlflow(fetched)))
    is_nothing = not fetched and not found.misread and not found.earlier
    if is_nothing and (study is not None or any(isinstance(one, str) or one.runs for one in chosen)):
        narrate(_("There is nothing more to fetch of runs that were started over or forgotten."))
    elif is_nothing and not chosen:
        narrate(_("No run yet. Submit some: oelm-submit"))
    if to_send is not None:
        _send(to_send, [called[one.run.study, one.run.name] for one in fetched if not one.state.is_final])
    files = {one.run.study: one.run.spec.get("study_file") or "" for one in fetched if report}
    trouble: list[OelmError] = [*found.misread.values()]
    for name, file in files.items():
        from .report import main as make_report

        try:
            with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
                click.get_current_context().invoke(make_report, study=file if Path(file).is_file() else name, plot=True)
        except OelmError as error:
            said = _("the report of study {study} could not be made: {why}", name, str(error))
            trouble.append(RunFailed(said, hint=error.hint))
    damaged = [called[one.run.study, one.run.name] for one in fetched if one.damaged]
    if damaged:
        mend = _("archive and start over: oelm-submit --rerun (oelm-logs {run})", damaged[0])
        trouble.append(RunFailed(_("damaged: {runs}", damaged), hint=mend))
    if lacking := [_called(past) for past in found.earlier if past.damaged]:
        trouble.append(RunFailed(_("damaged: {runs}", lacking), hint=_("try again: oelm-fetch")))
    end_with(trouble)


def _send(argv: Sequence[str], living: Sequence[str]) -> None:
    """Let W&B's own command send what was fetched; it asks for a login where it needs one.

    Raises:
        RunFailed: It did not succeed.
    """
    if living:
        narrate(_("W&B is sent what these runs have for it when they are over: {runs}", living))
    if not argv:
        narrate(_("There is nothing to send to W&B."))
    elif code := subprocess.run(argv, stdout=sys.stderr).returncode:
        raise RunFailed(
            _("wandb sync ended with exit code {code}", code),
            hint=_("its own words are above; try again: what has arrived is not sent twice"),
        )


def _called(past: Earlier) -> str:
    was = f"{past.entry.study}/{past.entry.run}"
    if past.is_forgotten:
        return _("{run}, before it was forgotten", was)
    return _("{run}, before it was started over", was)


def _as_json(one: Fetched) -> dict[str, object]:
    keys = ("state", "run_dir", "files", "new_files", "new_bytes", "damaged", "left", "note")
    same = {key: getattr(one, key) for key in keys}
    return {"study": one.run.study, "run": one.run.name, **same, "bytes": one.size, "verified": one.complete}


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

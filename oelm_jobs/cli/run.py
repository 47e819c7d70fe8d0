"""``oelm run``: run a command as it stands, without a study file."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..agent.reasons import detailed
from ..agent.sentences import _
from ..agent.states import State
from ..errors import EXIT_INTERRUPTED, RunFailed, UsageError
from . import complete
from .common import command, narrate, open_project
from .logs import write_log
from .progress import Meter
from .submit import confirm_archiving, show_submitted, wait_for

if TYPE_CHECKING:
    from ..project import Project
    from ..spec.study import Run


@command("oelm-run")
@click.argument("words", nargs=-1, shell_complete=complete.files, metavar=_("-- COMMAND..."), type=click.UNPROCESSED)
@click.option(
    "--target",
    default="local",
    show_default=True,
    metavar="NAME",
    shell_complete=complete.targets,
    help=_("Where to run."),
)
@click.option("--gpus", type=click.IntRange(0), default=1, show_default=True, metavar="N", help=_("GPUs of each run."))
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE,VALUE",
    help=_("Values of KEY, which stands in braces in the command; a run for each combination."),
)
@click.option(
    "--num-seeds",
    type=click.IntRange(1, 10_000),
    default=1,
    show_default=True,
    metavar="N",
    help=_("A run for each of N seeds; seed stands in braces in the command, too."),
)
@click.option(
    "--data",
    multiple=True,
    shell_complete=complete.files,
    metavar="PATH",
    help=_("A file or folder that the program reads and that is no code, as it calls it; repeatable."),
)
@click.option("--send-data", is_flag=True, help=_("Send the data where the target lacks them."))
@click.option("--save", default="", metavar="NAME", help=_("Write the study to jobs/NAME.toml, to be gone on with."))
@click.option("--tag", default="", metavar="TAG", help=_("Name these runs apart from those of the same command."))
@click.option("--rerun", is_flag=True, help=_("Archive runs that are over, and start them over."))
@click.option("--dry-run", is_flag=True, help=_("Show what would be done; leaves nothing behind."))
@click.option("--detach", is_flag=True, help=_("Return once it is submitted."))
@click.option("--yes", is_flag=True, help=_("Don't ask before runs are archived."))
def main(
    words: tuple[str, ...],
    target: str,
    gpus: int,
    settings: tuple[str, ...],
    num_seeds: int,
    data: tuple[str, ...],
    send_data: bool,
    save: str,
    tag: str,
    rerun: bool,
    dry_run: bool,
    detach: bool,
    yes: bool,
) -> None:
    """Run a command of your own, given behind --, and stay with it: one run's log is shown, of several runs the table.

    It needs no file: the code of the git checkout, or of the folder, goes along as it is now. Ctrl-C leaves the runs
    alone. The same command again goes on with what failed or was cancelled, and with --set KEY=VALUE adds runs.
    """
    with open_project(is_any=True) as project:
        with Meter(_("sending")) as meter:
            planned = project.plan_command(
                words, target, settings=_values(settings), gpus=gpus, num_seeds=num_seeds, data=data, save=save,
                tag=tag, offline=dry_run, sending=meter if send_data else None,
            )  # fmt: skip
        if dry_run:
            from .planned import show

            show(project, planned, script=False, as_json=False)
            return
        kept = planned.study.path.relative_to(project.folder)
        narrate(_("study {study} in {path}, code of {folder}", planned.study.name, str(kept), str(project.folder)))
        if rerun:
            confirm_archiving(project, planned, yes=yes)
        submitted = project.submit(planned, "rerun" if rerun else "resume")
        show_submitted(planned, submitted)
        if detach or all(item.state.is_final for item in submitted):
            return
        if len(planned.runs) > 1:
            wait_for(project, planned)
        else:
            _follow(project, planned.runs[0], lines=50 if submitted[0].note else 1_000_000)


def _values(settings: tuple[str, ...]) -> dict[str, list[str]]:
    """Return the values of each setting, as TOML has them."""
    from .values import several

    values: dict[str, list[str]] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        try:
            found = several(text)
        except ValueError as error:
            raise UsageError(_("--set {setting}: {why}", setting, str(error))) from None
        if not equals or not key or not all(found):
            raise UsageError(_("--set {setting}: give KEY=VALUE, or several values with commas between them", setting))
        values[key] = list(dict.fromkeys([*values.get(key, ()), *found]))
    return values


def _follow(project: Project, run: Run, lines: int) -> None:
    """Show a run's log, from so many lines before its end, until the run is over.

    Raises:
        RunFailed: It did not get done.
    """
    name = shlex.quote(run.name)
    try:
        last = write_log(project.follow(run, lines=lines))
    except KeyboardInterrupt:
        narrate(_("\n{run} goes on. Come back with: oelm-logs {run} -f; end it with: oelm-cancel {run}", name))
        raise SystemExit(EXIT_INTERRUPTED) from None
    if last.state is not State.DONE:
        what = detailed(_("{run} is {state}", run.name, last.state), last.reason)
        raise RunFailed(what, hint=_what_next(project.folder, last.reason, is_here=Path(run.run_dir).is_dir()))
    narrate(_("{run} is {state}; its files: {run_dir}", run.name, last.state, run.run_dir))


def _what_next(project: Path, why: str, *, is_here: bool = True) -> str:
    """Return what to do about a run that failed: name what it looked for and what is here, or go on."""
    for path in re.findall(r"'([^']+)'", why):
        if not Path(path).is_absolute() and os.path.exists(project / path):  # also of what can't be a file's name
            lacks = _("{path} is no code and didn't come along: the same command with --data {path}", path)
            return lacks if is_here else _("{words} --send-data", lacks)
    return _("the same command again goes on with it")

"""``oelm-report``: tables, verdicts and figures from run directories, finished or not."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .. import visible
from ..agent.sentences import _
from ..errors import UsageError
from ..language import chosen
from . import complete
from .common import command, narrate, open_project, put, terminal_width

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..reporting import StudyReport

FORMATS = ("text", "markdown", "json", "html", "latex", "csv")
WATCH_S = 10
"""Seconds between two looks of ``--watch``, and after which a browser loads the page again."""


@command("oelm-report")
@click.argument("names", nargs=-1, metavar="[GROUP|RUN]...", shell_complete=complete.runs_and_groups)
@click.option(
    "--study",
    metavar="NAME",
    shell_complete=complete.studies,
    help=_("Report on this study (a name in jobs/, or a file); else the default study."),
)
@click.option("--plot", is_flag=True, help=_("Draw the figures, too (PNG and SVG)."))
@click.option(
    "--output", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help=_("Where the files go.")
)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="text",
    show_default=True,
    help=_("What is printed (csv: the comparison)."),
)
@click.option("--json", "as_json", is_flag=True, help=_("The same as --format json."))
@click.option(
    "--from",
    "folders",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help=_("Read these folders (old results or a log alone will do; more may follow) instead of the study's runs."),
)
@click.option("--map", "mapping", multiple=True, metavar="GROUP=DIR", help=_("Read DIR as a run of GROUP; repeatable."))
@click.option(
    "--columns",
    multiple=True,
    metavar="METRIC=COLUMN,...",
    help=_(
        "The folders of --from hold tables (CSV, JSON, TensorBoard's events) with these columns, for example "
        "step=Step,val_loss=eval_loss; repeatable."
    ),
)
@click.option(
    "--goal",
    "goals",
    multiple=True,
    metavar="METRIC=minimize|maximize",
    help=_("Which way a metric of the folders of --from is better; repeatable, the main one first."),
)
@click.option(
    "--target-loss", type=float, metavar="LOSS", help=_("Count steps, tokens and GPU-hours to this validation loss.")
)
@click.option("--power", is_flag=True, help=_("Say how many seeds each hypothesis needs, and write nothing."))
@click.option(
    "--lock", "locking", is_flag=True, help=_("Record the study's rules before training; later changes are reported.")
)
@click.option("--watch", is_flag=True, help=_("Renew the files, report.html above all, until every run has ended."))
@click.option(
    "--style",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help=_("A matplotlib style."),
)
def main(
    names: tuple[str, ...],
    study: str | None,
    plot: bool,
    output: Path | None,
    form: str,
    as_json: bool,
    folders: tuple[Path, ...],
    mapping: tuple[str, ...],
    columns: tuple[str, ...],
    goals: tuple[str, ...],
    target_loss: float | None,
    power: bool,
    locking: bool,
    watch: bool,
    style: Path | None,
) -> None:
    """Compare the groups of a study: tables, verdicts on its hypotheses, and what limits the comparison.

    Writes comparison_table.txt, hypothesis_validation.txt, analysis_results.json, report.html and more into the
    study's experiments folder (or --output DIR), with --plot the figures, and prints the report. A selection of
    groups or runs is only printed, unless --output is given.
    """
    form = "json" if as_json else form
    more = _more_folders(names, folders)
    names, folders = tuple(name for name in names if Path(name) not in more), (*folders, *more)
    is_named = bool(folders or mapping)
    if columns and not is_named:
        raise UsageError(_("--columns is about folders"), hint=_("name them: --from DIR"))
    if locking:
        _lock(study, is_named=is_named)
        return

    def read() -> StudyReport:
        from .. import report_on

        return report_on(
            _project(is_named=is_named), study, only=names, folders=folders, mapping=mapping, columns=columns,
            goals=dict(word.partition("=")[::2] for word in goals), output=output, target_loss=target_loss,
            warn=narrate,
        )  # fmt: skip

    write = partial(_write, plot=plot or form == "html" or watch, style=style)
    if watch:
        _watch(read, write)
        return
    report = read()
    width = terminal_width()
    if power:
        text = report.show_power(form, language=chosen(), width=width)
    else:
        text = report.show(form, language=chosen(), style=style, width=width)
    put(visible.text(text), nl=False)  # it quotes logs and records that may come from anywhere
    if not power:
        write(report)


def _more_folders(names: tuple[str, ...], folders: tuple[Path, ...]) -> list[Path]:
    """Return the names that are folders belonging to ``--from`` (a shell expands ``--from old/*`` to many); one that
    lies directly in a folder of ``--from`` selects a run of it.
    """
    within = {folder.resolve() for folder in folders}
    return [
        Path(name) for name in names if within and Path(name).exists() and Path(name).resolve().parent not in within
    ]


def _project(*, is_named: bool) -> Path | None:
    """Return the folder of the current project; None outside of one, where folders are named."""
    try:
        return open_project().folder
    except UsageError as error:
        if not is_named:
            raise UsageError(
                str(error),
                hint=_("go to your project's folder; runs that you have need none: oelm report --from old_runs/"),
            ) from None
        return None


def _write(report: StudyReport, *, plot: bool, style: Path | None, refresh_s: int = 0) -> None:
    if report.folder is None:
        narrate(_("Nothing was written: give --output DIR to get the files, too."))
        return
    files, remarks = report.write(plot=plot, language=chosen(), style=style, refresh_s=refresh_s)
    for remark in remarks:
        narrate(remark)
    narrate(_("{count} files in {folder}", len(files), str(report.folder)))


def _lock(study: str | None, *, is_named: bool) -> None:
    if is_named:
        raise UsageError(
            _("--lock needs a study of a project"),
            hint=_("leave out --from and --map, and name the study: --study NAME"),
        )
    path = open_project().lock(study)
    narrate(_("Locked: {path}. Commit it, so that its date can be trusted.", str(path)))


def _watch(read: Callable[[], StudyReport], write: Callable[..., None]) -> None:
    """Rewrite the files while runs go on; the last page doesn't reload itself."""
    seen: tuple[object, ...] = ()
    try:
        while True:
            report = read()
            if report.folder is None:
                raise UsageError(_("--watch writes files"), hint=_("give --output DIR"))
            if (now := report.signature) != seen:
                seen = now
                write(report, refresh_s=0 if report.is_over else WATCH_S)
                if report.is_over:
                    return
            time.sleep(WATCH_S)
    except KeyboardInterrupt:
        write(read())

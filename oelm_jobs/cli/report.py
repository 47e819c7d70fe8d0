"""``oelm-report``: tables, verdicts and figures from run directories, finished or not."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .. import __version__, visible
from ..agent.sentences import _
from ..errors import UsageError, few
from ..language import chosen
from . import complete
from .common import command, narrate, open_project, put, terminal_width

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..reporting import StudyReport

CHECKLISTS = ("neurips", "arr")
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
@click.option(
    "--checklist",
    type=click.Choice(CHECKLISTS),
    help=_("Print the items on experiments of a paper's checklist, filled from the records; with --output DIR a file."),
)
@click.option(
    "--bundle",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.tar.gz",
    help=_("Pack all that the verdicts rest on; --from FILE.tar.gz checks it and reports on it anywhere."),
)
@click.option(
    "--anonymous",
    is_flag=True,
    help=_("Take names of people, users, hosts and targets, paths and e-mails out of what --bundle packs."),
)
@click.option(
    "--export",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help=_("With --lock: write the lock there as plain files for an archive, with checksums."),
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
    checklist: str | None,
    export: Path | None,
    bundle: Path | None,
    anonymous: bool,
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
    if export is not None and not locking:
        raise UsageError(_("--export goes with --lock"))
    if locking:
        _lock(study, export, is_named=is_named)
        return
    if anonymous and bundle is None:
        raise UsageError(_("--anonymous is about a bundle"), hint=_("give --bundle FILE.tar.gz"))
    if bundle is not None:
        if is_named or names:
            raise UsageError(_("--bundle packs a whole study"), hint=_("name it: --study NAME"))
        _bundle(study, bundle, is_anonymous=anonymous, target_loss=target_loss)
        return
    if any(map(_is_bundle, folders)):
        if len(folders) > 1 or study or mapping or columns or goals or watch or power or target_loss is not None:
            raise UsageError(
                _("a bundle is reported on alone, and as it was made"),
                hint=_("leave out the other options: --from FILE.tar.gz"),
            )
        _of_bundle(folders[0], names, form, plot=plot, style=style, output=output, checklist=checklist)
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
    if checklist is not None:
        _checklist(report, checklist, output)
        return
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


def _lock(study: str | None, export: Path | None, *, is_named: bool) -> None:
    if is_named:
        raise UsageError(
            _("--lock needs a study of a project"),
            hint=_("leave out --from and --map, and name the study: --study NAME"),
        )
    if export is not None:
        files = open_project().export_lock(export, study)
        narrate(_("{count} files in {folder}", len(files), str(export)))
        return
    path = open_project().lock(study)
    narrate(_("Locked: {path}. Commit it, so that its date can be trusted.", str(path)))


def _checklist(report: StudyReport, which: str, output: Path | None) -> None:
    text = report.show_checklist(which)
    put(visible.text(text), nl=False)
    if output is not None:
        path = report.write_checklist(which, output)
        narrate(_("wrote {path}", str(path)))


def _is_bundle(place: Path) -> bool:
    from .. import is_bundle

    return is_bundle(place)


def _bundle(study: str | None, path: Path, *, is_anonymous: bool, target_loss: float | None) -> None:
    made = open_project().bundle(path, study, anonymous=is_anonymous, target_loss=target_loss, language=chosen())
    for name, why in made.left_out.items():
        narrate(_("left out: {name}: {why}", name, why))
    for name, files in made.remaining.items():
        narrate(_("{name!r} is still in {files}, as a part of other words: rename it there", name, few(files)))
    if made.differs:
        narrate(_("{files} come out otherwise from the bundle alone: fetch the runs first (oelm fetch)", made.differs))
    narrate(_("{count} files in {path}", made.files, str(made.path)))
    narrate(_("Publish its SHA-256 elsewhere, so that it can be told from another one:"))
    put(f"{made.sha256}  {made.path.name}")


def _of_bundle(
    place: Path,
    names: tuple[str, ...],
    form: str,
    *,
    plot: bool,
    style: Path | None,
    output: Path | None,
    checklist: str | None,
) -> None:
    from .. import reproduce

    with reproduce(place, only=names, output=output) as found:
        if checklist is not None:
            _checklist(found.report, checklist, output)
        else:
            text = found.report.show(form, language=chosen(), style=style, width=terminal_width())
            put(visible.text(text), nl=False)
            if output is not None:
                _write(found.report, plot=plot or form == "html", style=style)
        if found.same:
            narrate(_("Reproduced byte for byte: {files}", found.same))
        if found.differs:
            raise UsageError(
                _("{path}: {files} in it say something else than its runs do", str(place), found.differs),
                hint=_("they were made by another version ({version} here), or changed", __version__),
            )


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

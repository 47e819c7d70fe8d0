"""``oelm-report``: tables, verdicts and figures from run directories, finished or not."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .. import visible
from ..agent.sentences import _
from ..agent.states import State
from .common import command, narrate, put

if TYPE_CHECKING:
    from ..analysis.audit.lock import Lock
    from ..analysis.reading.loaded_run import LoadedRun
    from ..analysis.report import Report
    from ..spec.study import Study
    from ..store import StoredRun

FORMATS = ("text", "markdown", "json", "html", "latex", "csv")
GOING_ON = (State.QUEUED, State.RUNNING)
WITHOUT_END = (State.QUEUED, State.UNKNOWN)
"""States of a run by its files where these tell neither an end nor that it is at work."""
WATCH_S = 10
"""Seconds between two looks of ``--watch``, and after which a browser loads the page again."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """The command line's options."""

    names: tuple[str, ...]
    study: str | None
    folders: tuple[Path, ...]
    mapping: tuple[str, ...]
    output: Path | None
    target_loss: float | None
    plot: bool
    style: Path | None
    language: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the runs come from, and where the report's files go."""

    project: Path | None
    """None where folders are named outside of any project."""
    study: Study
    runs: list[LoadedRun]
    strangers: list[LoadedRun]
    """Runs of other studies that lie where this one's do."""
    lock: Lock | None
    planned: Study | None
    """The whole study that the lock is about; None outside of a project."""
    folder: Path | None
    """None where nothing is written (a selection, or folders without ``--output``)."""
    summary: Path | None


@command("oelm-report")
@click.argument("names", nargs=-1, metavar="[GROUP|RUN]...")
@click.option(
    "--study", metavar="NAME", help=_("Report on this study (a name in jobs/, or a file); else the default study.")
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
    from ..analysis.reading import loading
    from ..language import chosen

    form = "json" if as_json else form
    more = _more_folders(names, folders)
    names, folders = tuple(name for name in names if Path(name) not in more), (*folders, *more)
    language = chosen()
    request = Request(
        names=names, study=study, folders=folders, mapping=mapping, output=output, target_loss=target_loss,
        plot=plot or form == "html" or watch, style=style, language=language,
    )  # fmt: skip
    if locking:
        _lock(request)
    elif watch:
        _watch(request)
    elif power:
        _power(request, form)
    else:
        source = _source(request)
        made_at = loading.now()
        report = _report(source, request)
        if form == "html":
            put(visible.text(_page(source, report, request, made_at)), nl=False)
        else:
            from ..analysis.output.writing import show

            _put(show(report, form, language, made_at), form)
        _write(source, report, request, made_at)


def _more_folders(names: tuple[str, ...], folders: tuple[Path, ...]) -> list[Path]:
    """Return the names that are folders belonging to ``--from`` (a shell expands ``--from old/*`` to many); one that
    lies directly in a folder of ``--from`` selects a run of it.
    """
    within = {folder.resolve() for folder in folders}
    return [
        Path(name) for name in names if within and Path(name).exists() and Path(name).resolve().parent not in within
    ]


def _source(request: Request) -> Source:
    from ..analysis.audit import lock
    from ..analysis.reading import loading
    from ..errors import UsageError
    from ..folders import find_project
    from ..study.files import load_study

    is_named = bool(request.folders or request.mapping)
    try:
        project: Path | None = find_project(Path.cwd())
    except UsageError:
        if not is_named:
            raise
        project = None
    asked, strangers = None, []
    if project is not None and (request.study or not is_named):
        asked = load_study(project, request.study, warn=narrate)
    if is_named:
        chosen, runs = loading.load_folders(request.folders, request.mapping, asked)
    else:
        assert project is not None and asked is not None
        chosen = asked
        runs, strangers = loading.study_runs(asked, project / "models" / "checkpoints")
        runs = _as_last_seen(project, asked, runs)
    locked = lock.read(loading.lock_path(project, asked)) if project is not None and asked is not None else None
    if request.names:
        chosen, runs = loading.selection(chosen, runs, request.names)
    folder, summary = request.output, None
    if folder is not None:
        summary = folder / f"{chosen.name}_summary.json"
    elif project is not None and asked is not None and not request.names and not is_named:
        folder, summary = loading.output_folder(project, asked), loading.summary_path(project, asked)
    return Source(
        project=project, study=chosen, runs=runs, strangers=strangers, lock=locked, planned=asked, folder=folder,
        summary=summary,
    )  # fmt: skip


def _as_last_seen(project: Path, study: Study, runs: list[LoadedRun]) -> list[LoadedRun]:
    """Return the runs, and those that exist only elsewhere. A run whose files here show no end, or are from before it
    was extended, gets the state in which its target was last seen to have it: fetched files are out of date. Only a
    run's own files show that it is DONE.
    """
    from ..analysis.reading.loaded_run import LoadedRun
    from ..store import Store, index_path

    if not index_path().exists():
        return runs
    with Store() as store:
        known = {run.name: run for run in store.runs(project, study.name)}
    found = []
    for run in runs:
        seen = known.get(run.name)
        if seen is not None:
            run = _by_clock_here(run, seen)
            is_elsewhere = seen.run_dir != str(run.path)
            is_older = bool(run.fingerprint and seen.fingerprint and run.fingerprint != seen.fingerprint)
            if run.status in WITHOUT_END or (is_elsewhere and is_older):
                run = _as_seen(run, seen, is_elsewhere=is_elsewhere)
        found.append(run)
    here = {run.name for run in runs}
    for seen in known.values():
        is_there = seen.progress or seen.state in GOING_ON  # not one that was never submitted
        if seen.name not in here and seen.group in study.groups and is_there and not Path(seen.run_dir).exists():
            run = LoadedRun(
                name=seen.name, group=seen.group, label=study.groups[seen.group].label, seed=seen.seed,
                path=Path(seen.run_dir), study=study.name, tag=seen.tag, last_step=_whole(seen.progress.get("step")),
            )  # fmt: skip
            found.append(_as_seen(run, seen, is_elsewhere=True))
    return sorted(found, key=lambda run: str(run.path.name))


def _by_clock_here(run: LoadedRun, seen: StoredRun) -> LoadedRun:
    """Return a run with its start corrected for the difference of its target's clock, since locks go by ours."""
    ahead_s = seen.progress.get("clock_ahead_s")
    if run.started_at is None or not isinstance(ahead_s, (int, float)):
        return run
    return replace(run, started_at=run.started_at - ahead_s)


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _as_seen(run: LoadedRun, seen: StoredRun, *, is_elsewhere: bool) -> LoadedRun:
    """Return a run in the state in which its target was last seen to have it."""
    if seen.state is State.DONE and is_elsewhere:
        return replace(
            run, status=State.UNKNOWN, reason=_("DONE on {target}: oelm-fetch brings it", target=seen.target)
        )
    if seen.state in (State.FAILED, State.CANCELLED) or (seen.state in GOING_ON and is_elsewhere):
        return replace(run, status=seen.state.value, reason=seen.reason)
    return run


def _report(source: Source, request: Request) -> Report:
    from .. import analysis
    from ..analysis.reading import loading

    trials, remarks = loading.load_trials(source.project, source.study, source.runs)
    remarks = [*remarks, *loading.left_out(request.folders)]
    target_loss = request.target_loss or source.study.target_loss
    return analysis.build(
        source.study,
        [*source.runs, *source.strangers],
        trials=trials,
        remarks=remarks,
        target_loss=target_loss,
        lock=source.lock,
        planned=source.planned,
    )


def _style(source: Source, request: Request) -> Path | None:
    from ..analysis.reading import loading

    return request.style or (loading.user_style(source.project) if source.project is not None else None)


def _page(source: Source, report: Report, request: Request, made_at: float) -> str:
    from ..analysis.output.writing import show

    page: str = show(report, "html", request.language, made_at, style=_style(source, request))
    return page


def _write(source: Source, report: Report, request: Request, made_at: float, *, refresh_s: int = 0) -> None:
    from .. import analysis

    if source.folder is None:
        narrate(_("Nothing was written: give --output DIR to get the files, too."))
        return
    files, remarks = analysis.write(
        report, source.folder, summary=source.summary, made_at=made_at, language=request.language, plot=request.plot,
        style=_style(source, request), refresh_s=refresh_s,
    )  # fmt: skip
    for remark in remarks:
        narrate(remark)
    narrate(_("{count} files in {folder}", count=len(files), folder=str(source.folder)))


def _power(request: Request, form: str) -> None:
    from ..analysis import power
    from ..analysis.output import writing as output

    source = _source(request)
    table = power.table(_report(source, request))
    _put(output.show_table(table, form, request.language), form)


def _put(text: str, form: str) -> None:
    """Print a report in one form; it quotes logs and records that may come from anywhere."""
    put(visible.in_json(text) if form == "json" else visible.text(text), nl=False)


def _lock(request: Request) -> None:
    from ..analysis.audit import lock
    from ..analysis.output import writing as output
    from ..analysis.reading import loading
    from ..errors import UsageError

    source = _source(replace(request, names=()))
    if source.project is None or request.folders or request.mapping:
        raise UsageError(
            _("--lock needs a study of a project"),
            hint=_("leave out --from and --map, and name the study: --study NAME"),
        )
    path = loading.lock_path(source.project, source.study)
    if source.lock is not None:
        raise UsageError(
            _("study {study} was locked before: {path}", study=source.study.name, path=str(path)),
            hint=_("a report lists what changed since; to lock anew, remove the file on purpose"),
        )
    output.put(
        path,
        lock.content(source.study, source.runs, _fingerprints(source.project, source.study), loading.now()),
    )
    begun = [run.name for run in source.runs if lock.has_begun(run)]
    if begun:
        narrate(_("These runs had begun before, which the report will say: {runs}", runs=begun))
    narrate(_("Locked: {path}. Commit it, so that its date can be trusted.", path=str(path)))


def _fingerprints(project: Path, study: Study) -> dict[str, str]:
    """Return the fingerprints of the study's runs; empty while the data aren't here."""
    from ..checks import preflight
    from ..connections import connect
    from ..errors import OelmError
    from ..study.resolve import plan_runs
    from ..targets.files import LOCAL

    try:
        data_hash = preflight.data_hash(connect(LOCAL, project), project, study)
        runs = plan_runs(study, LOCAL, str(project), data_hash=data_hash)
    except OelmError as error:
        narrate(_("The lock has no fingerprints of runs: {why}", why=str(error)))
        return {}
    return {run.name: run.fingerprint for run in runs}


def _watch(request: Request) -> None:
    """Rewrite the files while runs go on; the last page doesn't reload itself."""
    from ..analysis.reading import loading
    from ..errors import UsageError

    seen: tuple[object, ...] = ()
    try:
        while True:
            source = _source(request)
            if source.folder is None:
                raise UsageError(_("--watch writes files"), hint=_("give --output DIR"))
            now = loading.signature(source.runs)
            report = None
            if now != seen:
                seen, report = now, _report(source, request)
                made_at = loading.now()
                is_over = bool(source.runs) and all(run.status not in GOING_ON for run in source.runs)
                _write(source, report, request, made_at, refresh_s=0 if is_over else WATCH_S)
                if is_over:
                    return
            time.sleep(WATCH_S)
    except KeyboardInterrupt:
        source = _source(request)
        _write(source, _report(source, request), request, loading.now())

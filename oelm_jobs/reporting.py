"""A study's report, from run directories and from what the index last saw of runs that are elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from . import visible
from .agent.sentences import Sentence, _
from .agent.states import State
from .analysis import compute, earlier, elsewhere, power, printed
from .analysis import lineage as came_from
from .analysis.audit import choice, locks
from .analysis.audit.choice import Choice
from .analysis.audit.locks import Locks
from .analysis.blocks import build
from .analysis.earlier import Earlier, Settled
from .analysis.elsewhere import Alike
from .analysis.figures import draw
from .analysis.findings import AuditFinding
from .analysis.judging.verdicts import Verdict
from .analysis.output import checklist, writing
from .analysis.reading import loading
from .analysis.reading.loaded_run import LoadedRun
from .analysis.reading.run_state import NO_RECORD
from .analysis.report import Report
from .errors import OelmError, UsageError
from .folders import index_path
from .ledger import Entry
from .runs import renamed
from .spec.study import Study
from .store import Store
from .stored_run import StoredRun
from .study import lineage
from .study.files import load_study
from .study.resolve import run_directory
from .transfer import sync

Drawn = tuple[list[tuple[Path, bytes]], list[Sentence]]
"""Files of figures, and remarks."""
GOING_ON = (State.QUEUED, State.RUNNING)
WITHOUT_END = (State.QUEUED, State.UNKNOWN)
"""States of a run by its files where these tell neither an end nor that it is at work."""


@dataclass(frozen=True, kw_only=True)
class Bundled:
    """How the report in a bundle was made."""

    made_at: float
    """Unix seconds."""
    origin: Path
    """Where its project was."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StudyReport:
    """A study's runs and their comparison, which is made when it is first asked for."""

    project: Path | None
    """None where folders are named outside of any project."""
    study: Study
    """With the groups and runs that were asked for."""
    runs: list[LoadedRun]
    strangers: list[LoadedRun]
    """Runs of other studies that lie where this one's do."""
    past: list[Earlier]
    """Runs of the study that were started over or forgotten."""
    thrown_away: list[Entry]
    """Lines of the ledger about all of these, whatever was asked for."""
    locks: Locks | None
    planned: Study | None
    """The whole study that the lock is about; None outside of a project."""
    folders: tuple[Path, ...]
    """Those that were named instead of the study's runs."""
    folder: Path | None
    """Where its files go; None where it is only shown (a selection, or folders without one)."""
    summary: Path | None
    target_loss: float | None
    choice: Choice | None
    """What was chosen by tuning; None where nothing was."""
    made_at: float
    """Unix seconds."""
    origin: Path | None = None
    """Where the project was that these files were bundled in: paths are told as they were there."""
    _drawn: dict[object, Drawn] = field(default_factory=dict, init=False, repr=False)
    """Its figures by language and style."""

    @cached_property
    def report(self) -> Report:
        """Findings of the audit, verdicts on the hypotheses, and tables."""
        trials, remarks = loading.load_trials(self.project, self.study, self.runs)
        made = build(
            self.study,
            [*self.counting, *self.strangers],
            trials=trials,
            remarks=[*remarks, *loading.left_out(self.folders), *self._settled.remarks, *self._changed_sources()],
            disputes=self._settled.disputes,
            compute=compute.table(self.study, self.runs, self.past),
            target_loss=self.target_loss or self.study.target_loss,
            locks=self.locks,
            planned=self.planned,
            choice=self.choice,
            ledger=self.thrown_away,
            alike=self.alike,
        )
        return replace(made, lineage=self._needed())

    @cached_property
    def alike(self) -> list[Alike]:
        """Other runs of the project with the settings of those that decide; none where nothing is locked."""
        if self.project is None or self.planned is None or self.locks is None or not self.counting:
            return []
        if self.origin is not None:
            return elsewhere.in_bundle(self.project, self.planned)
        return elsewhere.find(self.project, self.planned, self.counting, self.locks, _stored(self.project))

    def _needed(self) -> tuple[came_from.Edge, ...]:
        """Return what the study's groups need of others, whose studies may not be here any more."""
        whole = self.planned or self.study
        if self.project is None or not lineage.is_used(whole):
            return ()
        try:
            others = lineage.others(self.project, whole, load_study)
        except OelmError:
            others = {}
        return came_from.edges(whole, others)

    def _changed_sources(self) -> list[Sentence]:
        """Return remarks on runs that began with what is another file by now."""
        return [] if self.project is None else came_from.changes(self.runs, self._home)

    def _home(self, study: str, name: str) -> Path | None:
        """Return where a run of the project lies here; None where it doesn't."""
        assert self.project is not None
        folder = self.project / "models" / "checkpoints"
        places = [run_directory(folder / study, name), run_directory(folder, name)]
        return next((place for place in places if sync.study_in(place) == study), None)

    @cached_property
    def _settled(self) -> Settled:
        return earlier.settle(self.past, self.study, self.runs, self.locks)

    @property
    def counting(self) -> list[LoadedRun]:
        """The runs that count: in a locked study the first result of a seed in place of what ran later."""
        return self._settled.runs

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """What the data say about each hypothesis."""
        return self.report.verdicts

    @property
    def findings(self) -> tuple[AuditFinding, ...]:
        """What limits the comparison, by severity."""
        return self.report.findings

    @property
    def is_over(self) -> bool:
        """Whether there are runs, and none of them goes on."""
        return bool(self.runs) and all(run.status not in GOING_ON for run in self.runs)

    @property
    def signature(self) -> tuple[object, ...]:
        """Changes with the files that the report rests on."""
        return loading.signature(self.runs)

    def show(
        self, form: str = "text", *, language: str = "en", style: Path | None = None, width: int | None = None
    ) -> str:
        """Return the report as ``text``, ``markdown``, ``json``, ``html``, ``latex`` or ``csv``.

        Args:
            style: A matplotlib style for the figures of a page; else the project's own.
            width: The columns of the terminal that text is for; without it tables are as wide as they are.
        """
        style = style or self._own_style()
        figures = self._draw(language, style)[0] if form == "html" else ()
        with self._told():
            return writing.show(self.report, form, language, self.made_at, figures, width, style)

    def verdict_files(self, language: str) -> dict[str, bytes]:
        """Return those files of the report that a bundle holds, by their names."""
        with self._told():
            return writing.verdict_files(self.report, language, self.made_at)

    def _told(self) -> AbstractContextManager[None]:
        """Tell paths as they were where the files come from."""
        if self.origin is None or self.project is None:
            return nullcontext()
        return printed.moved(str(self.project), str(self.origin))

    def show_power(self, form: str = "text", *, language: str = "en", width: int | None = None) -> str:
        """Return how many seeds each hypothesis needs; ``width`` as for ``show``."""
        return writing.show_table(power.table(self.report), form, language, width)

    def show_checklist(self, which: str) -> str:
        """Return a conference's checklist (``neurips``, ``arr``) as Markdown, filled where records say it."""
        lost = [(one.entry.event, one.gpu_hours) for one in self.past]
        known = checklist.Known(report=self.report, runs=self.runs, lost=lost)
        with self._told():
            return checklist.as_markdown(known, which, self.made_at)

    def write_checklist(self, which: str, folder: Path) -> Path:
        """Write the same as a file; return it."""
        path = folder / f"checklist_{which}.md"
        writing.put(path, visible.text(self.show_checklist(which)).encode())
        return path

    def write(
        self, *, plot: bool = False, language: str = "en", style: Path | None = None, refresh_s: int = 0
    ) -> tuple[list[Path], Sequence[str]]:
        """Write the report's files; return them, and remarks about what could not be drawn.

        Args:
            plot: Draw the figures, too.
            style: A matplotlib style for them; else the project's own.
            refresh_s: After so many seconds a browser loads the page again; 0 for never.

        Raises:
            UsageError: It has no folder.
        """
        if self.folder is None:
            raise UsageError(_("this report has no folder for its files"), hint=_("give --output DIR"))
        style = style or self._own_style()
        figures, remarks = self._draw(language, style) if plot else ([], [])
        with self._told():
            files = writing.write(
                self.report, self.folder, figures,
                summary=self.summary, made_at=self.made_at, language=language, style=style, refresh_s=refresh_s,
            )  # fmt: skip
        return files, remarks

    def _own_style(self) -> Path | None:
        return loading.user_style(self.project) if self.project is not None else None

    def _draw(self, language: str, style: Path | None) -> Drawn:
        """Return the figures, which are drawn once, and remarks about what could not be."""
        if (language, style) not in self._drawn:
            self._drawn[language, style] = draw(self.report, language, self.folder or Path(), style)
        return self._drawn[language, style]


def report_on(
    project: Path | None,
    study: Study | str | None = None,
    *,
    only: Sequence[str] = (),
    folders: Sequence[Path | str] = (),
    mapping: Sequence[str] = (),
    columns: Sequence[str] = (),
    goals: Mapping[str, str] | None = None,
    output: Path | str | None = None,
    target_loss: float | None = None,
    warn: Callable[[str], None] = lambda message: None,
    bundled: Bundled | None = None,
) -> StudyReport:
    """Read a study's runs.

    Args:
        project: None outside of any, where folders are named.
        study: It, or its name; else the default study.
        only: Names of groups or runs.
        folders: Read these instead of the study's runs; old results or a log alone will do.
        mapping: ``GROUP=DIR``: read that folder as a run of the group.
        columns: ``METRIC=COLUMN``: the folders hold tables with these columns (``step`` among the metrics, where no
            usual name tells it).
        goals: Of metrics there, which way they are better: ``minimize`` or ``maximize``, the main one first; of others
            the names decide.
        output: Where the files go; else the study's folder in ``experiments``, or nowhere for a selection.
        target_loss: Count steps, tokens and GPU-hours to this validation loss.
        warn: Is told which study files are invalid.
        bundled: The project is a bundle's folder, and this says how its report was made.

    Raises:
        UsageError: There is no such study, group or folder.
    """
    is_named = bool(folders or mapping)
    if project is None and not is_named:
        raise UsageError(_("a report needs a project, or folders to read"))
    places = tuple(Path(folder) for folder in folders)
    asked: Study | None = None
    strangers: list[LoadedRun] = []
    past: list[Earlier] = []
    if project is not None and (study or not is_named):
        asked = study if isinstance(study, Study) else load_study(project, study, warn=warn)
    if goals and (not is_named or (asked is not None and asked.program is not None)):
        raise UsageError(
            _("--goal is about folders without a study of a program"), hint=_("a study says it: goal in its [metrics]")
        )
    if is_named:
        chosen, runs = loading.load_folders(places, mapping, asked, columns=columns, goals=goals)
    else:
        assert project is not None and asked is not None
        chosen = asked
        at = bundled.made_at if bundled is not None else None
        runs, strangers = loading.study_runs(asked, project / "models" / "checkpoints", at=at)
        seen = _last_seen(project, asked) if bundled is None else {}
        runs = _as_last_seen(project, asked, runs, seen)
        tokens = {name: run.token for name, run in seen.items()}
        past = earlier.load(project, asked, tokens, runs, now=loading.now(at), is_bundled=bundled is not None)
        if not runs and bundled is None:
            _say_of_others(project, asked, warn)
    locked = locks.load(project, asked) if project is not None and asked is not None else None
    known = choice.read(loading.choice_path(project, asked)) if project is not None and asked is not None else None
    thrown_away = [one.entry for one in past]
    if only:
        chosen, runs = loading.selection(chosen, runs, only)
        past = earlier.selection(past, chosen, runs, only)
    folder, summary = Path(output) if output is not None else None, None
    if folder is not None:
        summary = folder / f"{chosen.name}_summary.json"
    elif project is not None and asked is not None and not only and not is_named and bundled is None:
        folder, summary = loading.output_folder(project, asked), loading.summary_path(project, asked)
    return StudyReport(
        project=project, study=chosen, runs=runs, strangers=strangers, past=past, thrown_away=thrown_away, locks=locked,
        planned=asked, folders=() if columns else places, folder=folder, summary=summary, target_loss=target_loss,
        choice=known, made_at=bundled.made_at if bundled is not None else loading.now(),
        origin=bundled.origin if bundled is not None else None,
    )  # fmt: skip


def _say_of_others(project: Path, study: Study, warn: Callable[[str], None]) -> None:
    """Say which studies have runs and no file any more: one without runs may be one of them, renamed."""
    if not index_path().exists():
        return
    with Store() as store:
        others = dict.fromkeys(run.study for run in renamed.without_file(project, store.runs(project)))
    for other in others:
        warn(
            _(
                'If {path} is study {study} renamed, write name = "{name}" into it: its runs stay its own.',
                str(study.path),
                other,
                other,
            )
        )


def _last_seen(project: Path, study: Study) -> dict[str, StoredRun]:
    """Return each run of a study that the index knows, by name."""
    return {run.name: run for run in _stored(project, study.name)}


def _stored(project: Path, study: str | None = None) -> list[StoredRun]:
    """Return the runs of a project, or of one of its studies, that the index knows."""
    if not index_path().exists():
        return []
    with Store() as store:
        return store.runs(project, study)


def _as_last_seen(
    project: Path, study: Study, runs: list[LoadedRun], known: Mapping[str, StoredRun]
) -> list[LoadedRun]:
    """Return the runs, and those that exist only elsewhere. A run whose files here show no end, or are from before it
    was extended, gets the state in which its target was last seen to have it: fetched files are out of date. Only a
    run's own files show that it is DONE.
    """
    if not known:
        return runs
    found = []
    for run in runs:
        seen = known.get(run.name)
        if seen is not None:
            if run.started_at is not None:  # locks go by our clock
                run = replace(run, started_at=run.started_at - seen.progress.get("clock_ahead_s", 0.0))
            is_elsewhere = seen.run_dir != str(run.path)
            is_older = bool(run.fingerprint and seen.fingerprint and run.fingerprint != seen.fingerprint)
            if run.status in WITHOUT_END or (is_elsewhere and is_older):
                run = _as_seen(run, seen, is_elsewhere=is_elsewhere)
        found.append(run)
    here = {run.name for run in runs}
    read = project / "models" / "checkpoints"
    for seen in known.values():
        is_there = seen.progress or seen.state in GOING_ON  # not one that was never submitted
        place = Path(seen.run_dir)  # a server's may be seen here, too: through a home folder that both have
        is_elsewhere = not place.exists() or not place.is_relative_to(read)
        if seen.name not in here and seen.group in study.groups and is_there and is_elsewhere:
            run = LoadedRun(
                name=seen.name, group=seen.group, label=study.groups[seen.group].label, seed=seen.seed,
                path=Path(seen.run_dir), study=study.name, tag=seen.tag, last_step=seen.progress.get("step"),
            )  # fmt: skip
            found.append(_as_seen(run, seen, is_elsewhere=True))
    return sorted(found, key=lambda run: str(run.path.name))


def _as_seen(run: LoadedRun, seen: StoredRun, *, is_elsewhere: bool) -> LoadedRun:
    """Return a run in the state in which its target was last seen to have it."""
    if seen.state is State.DONE and is_elsewhere:
        there = _("DONE on {target}: oelm-fetch brings it", seen.target)
        return replace(run, status=State.UNKNOWN, reason=there)
    # What waits its turn has no record here before it begins.
    waits = seen.state is State.QUEUED and run.reason == NO_RECORD
    if seen.state in (State.FAILED, State.CANCELLED) or (seen.state in GOING_ON and is_elsewhere) or waits:
        return replace(run, status=seen.state.value, reason=seen.reason)
    return run

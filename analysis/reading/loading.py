"""Find and read the runs of a report: a study's run directories, or folders that the user names."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from oelm_jobs.agent import rundir
from oelm_jobs.agent.sentences import Sentence, _
from oelm_jobs.errors import UsageError, valid_choices
from oelm_jobs.ledger import lock_path
from oelm_jobs.names import SPEED_TRIAL
from oelm_jobs.spec.program import GOALS
from oelm_jobs.spec.study import Study
from oelm_jobs.study.blocks import of_tag

from . import files, folders, foreign, naming, reference, replicates, run_directory, run_files, tabular, trials
from .loaded_run import LoadedRun, told_apart

TRIAL = "speed_trial.json"
"""Name of the interleaved speed trial's file."""
_TRIAL_FOLDER = rundir.TRAIN_PREFIX + SPEED_TRIAL
"""Name of its run directory, before a seed or a tag."""


def study_runs(study: Study, folder: Path, *, at: float | None = None) -> tuple[list[LoadedRun], list[LoadedRun]]:
    """Read a study's run directories below ``models/checkpoints``: in its own folder there, and directly in it, where
    the runs of what was the default study when they were submitted lie.

    Whose a run is, its record says, not which study is the default today; what has no record is of the study in whose
    folder it lies. The second list holds runs of other studies that lie where this one's do.
    """
    moment = now(at)
    groups, first = tuple(study.groups), study.seeds[0] if study.seeds else None
    own, strangers = [], []
    for place in (folder, folder / study.name):
        if not place.is_dir():
            continue
        named = sorted(place.glob(f"{rundir.TRAIN_PREFIX}*"))
        paths = [path for path in named if path.is_dir() and not path.name.startswith(_TRIAL_FOLDER)]
        is_its_own = place.name == study.name or study.is_default
        found = [run_directory.load(path, now=moment, groups=groups, first_seed=first) for path in paths]
        of_study, others = replicates.divide(study, found)
        own += [run for run in of_study if run.study or is_its_own]
        strangers += others if is_its_own else []
    return sorted(own, key=lambda run: (run.path.name, str(run.path))), strangers


def load_folders(
    paths: Sequence[Path],
    mapping: Sequence[str],
    study: Study | None,
    *,
    columns: Sequence[str] = (),
    goals: Mapping[str, str] | None = None,
    at: float | None = None,
) -> tuple[Study, list[LoadedRun]]:
    """Read folders that the user names, the toolkit's or old ones, and return the study to report on with the runs.

    ``mapping`` holds ``group=DIR`` words; such folders need not be among ``paths``. Where ``columns`` are named
    (``metric=column``), the runs are tables. ``goals`` says of metrics which way they are better. Without a study the
    reference hypotheses H1 to H4 are asked about as many of their groups as there are.

    Raises:
        UsageError: A folder isn't there, holds no run, a mapping is off, or no run tells a metric that has a goal.
    """
    moment, said = now(at), goals or {}
    named = tabular.columns_of(columns) if columns else {}
    find = partial(tabular.find_runs, columns=named) if named else folders.find_runs
    mapped: dict[Path, str] = {}
    for word in mapping:
        group, sign, folder = word.partition("=")
        if not sign or not group or not folder:
            raise UsageError(_("--map {word}: give GROUP=DIR", word), hint=_("for example: --map gpt_base=old/run1"))
        if study is not None and group not in study.groups:
            choices = valid_choices(group, study.groups)
            raise UsageError(
                _("--map {word}: study {study} has no group {group!r}; {choices}", word, study.name, group, choices)
            )
        mapped |= dict.fromkeys(find([Path(folder)]), group)
    found = list(dict.fromkeys([*(find(paths) if paths else ()), *mapped]))
    known = tuple(study.groups if study is not None else reference.GROUPS)
    first = study.seeds[0] if study is not None else None
    is_reference = any(
        naming.group_of(path, known) in reference.GROUPS or mapped.get(path) in reference.GROUPS for path in found
    )
    runs: list[LoadedRun] = []
    for path in found:
        group = mapped.get(path, "")
        if named:
            runs += tabular.load(path, named, known, said, group)
        elif _is_foreign(path, study, is_reference=is_reference):
            root = next((root for root in paths if path.resolve().is_relative_to(root.resolve())), path)
            run = foreign.load(path, root, known, said)
            runs.append(replace(run, group=group) if group else run)
        else:
            runs.append(folders.load(path, now=moment, groups=known, first_seed=first, group=group))
    runs = told_apart(runs)
    runs = _with_goals(runs, said)
    if study is None and not is_reference and any(map(foreign.is_one, runs)) and not named:
        runs, keys = foreign.grouped(runs, fixed=tuple(mapped))
        return foreign.study_of(reference.NAME, runs, keys), runs
    return study or reference.study_of(runs), runs


def _with_goals(runs: list[LoadedRun], goals: Mapping[str, str]) -> list[LoadedRun]:
    """Return the runs, of whose metrics the user says which way they are better, the main one first."""
    told = {name for run in runs for name in run.series}
    for metric, goal in goals.items():
        if metric not in told:
            raise UsageError(
                _("--goal {metric}: no run there tells it; {choices}", metric, valid_choices(metric, told))
            )
        if goal not in GOALS:
            raise UsageError(_("--goal {metric}={goal}: {choices}", metric, goal, valid_choices(goal, GOALS)))
    return [replace(run, goals={**goals, **run.goals, **goals}) for run in runs] if goals else runs


def _is_foreign(path: Path, study: Study | None, *, is_reference: bool) -> bool:
    """Tell whether a run is read by its tables and settings: not the toolkit's own, nor one of the reference experiment
    or of a study that left a log, which tells more of those.
    """
    if path.is_file():
        return foreign.is_table(path)
    is_known = is_reference or study is not None
    has_log = bool(folders.log_files(path)) or (path / rundir.RESULT).is_file()
    marks = (rundir.CONTROL, rundir.HEARTBEAT, rundir.TREATMENT, rundir.RESULT, rundir.LOG)
    # Others call their metrics metrics.jsonl, too: the toolkit's own never lie there alone.
    is_own = run_files.exists(path) and (is_known or any((path / mark).exists() for mark in marks))
    return foreign.is_run(path) and not is_own and not (has_log and is_known)


def left_out(paths: Sequence[Path]) -> list[Sentence]:
    """Return which folders below the ones that the user named are not in the report, and why; and which logs of several
    in a folder were taken for parts of one run.
    """
    found = []
    for path in filter(Path.is_dir, paths):
        is_read = folders.is_run(path) and not folders.files_that_are_runs(path)
        logs = folders.log_files(path) if is_read and not foreign.is_run(path) else []
        if len({log.stem for log in logs}) > 1:
            parts = replicates.few([log.name for log in logs])
            said = _(
                "the logs in {folder} were read as parts of one run: {names}; {option} takes each for one of its own",
                str(path),
                parts,
                f"--from {logs[0].parent}/*{logs[0].suffix}",
            )
            found.append(said)
        below = [child for child in sorted(path.iterdir()) if child.is_dir() and not child.name.startswith(".")]
        # Below a run, which is read without what lies there, other runs are worth a word; else what is no run.
        names = [child.name for child in below if _is_left_out(child, is_read=is_read)]
        shown = replicates.few(names)
        said = (
            _(
                "{folder} holds a log and was read as one run; these folders of it hold runs, too, and were left out: "
                "{names}",
                str(path),
                shown,
            )
            if is_read
            else _(
                "these folders of {folder} hold no run (no log, no table of metrics by step) and were left out: "
                "{names}",
                str(path),
                shown,
            )
        )
        found += [said] if shown else []
    return found


def _is_left_out(folder: Path, *, is_read: bool) -> bool:
    """Tell whether a folder below one that was named is not in the report, though it holds runs below a run, or because
    it holds none.
    """
    if is_read:
        return folders.is_run(folder) and not foreign.PART.fullmatch(folder.name)
    return not folders.is_run(folder) and next(folders.runs_below(folder, folders.DEPTH - 1), None) is None


def selection(study: Study, runs: Sequence[LoadedRun], names: Sequence[str]) -> tuple[Study, list[LoadedRun]]:
    """Return the runs whose name, group or folder is among ``names``, and the study as far as it is about their groups,
    or about one that is named and has no run yet. Where blocks are named, all else is about these.

    Raises:
        UsageError: A name fits no run, no group and no block.
    """
    if asked_blocks := {name: block for name, block in study.blocks.items() if name in names}:
        study = replace(study, blocks=asked_blocks)
        runs = [run for run in runs if of_tag(study, run.tag)[0]]
        names = [name for name in names if name not in asked_blocks]
        if not names:
            return study, [*runs]
    wanted = {name: {name, str(Path(name).resolve())} for name in names}
    known_by = [(run, {run.name, run.group, run.path.name, str(run.path.resolve())}) for run in runs]
    for name, words in wanted.items():
        if name not in study.groups and not any(words & own for _run, own in known_by):
            known = {*study.groups, *study.blocks, *(known for run in runs for known in (run.name, run.group))}
            raise UsageError(
                _("{name!r} names no group or run that is here; {choices}", name, valid_choices(name, known))
            )
    kept = [run for run, own in known_by if any(words & own for words in wanted.values())]
    meant = {*wanted, *(run.group for run in kept)}
    groups = {name: group for name, group in study.groups.items() if name in meant}
    asked = tuple(h for h in study.hypotheses if h.group in groups and h.against in groups)
    return replace(study, groups=groups, hypotheses=asked), kept


def load_trials(
    project: Path | None, study: Study, runs: Sequence[LoadedRun]
) -> tuple[list[trials.Trial], list[Sentence]]:
    """Read the speed trials of a study: beside its summary, beside its run directories, and inside them."""
    places: list[Path] = []
    if project is not None:
        base = project / "models" / "checkpoints"
        places += [summary_path(project, study).parent, base / _TRIAL_FOLDER, base / study.name / _TRIAL_FOLDER]
    for run in runs:
        places += [run.path.parent, run.path.parent / _TRIAL_FOLDER, run.path]
    kept: list[Path] = []
    foreign: list[Path] = []
    for place in dict.fromkeys(places):
        record, _note = files.read(rundir.control(place, rundir.RUN), files.Planned)
        is_own = record is None or record.study in ("", study.name) or reference.is_made_up(study)
        (kept if is_own else foreign).append(place / TRIAL)
    found, notes = trials.load_trials(kept)
    others = tuple(str(path) for path in foreign if path.exists())
    said = _("{files} belongs to another study than {wanted} by its record and doesn't count here", others, study.name)
    return found, [*notes, *([said] if others else [])]


def signature(runs: Sequence[LoadedRun]) -> tuple[object, ...]:
    """Return something that changes when there is something new to report on."""
    seen: list[object] = []
    for run in runs:
        names = (rundir.METRICS, rundir.RESULT, rundir.LOG) if run.path.is_dir() else ("",)
        for path in map(run.path.joinpath, names):
            with suppress(OSError):
                stat = path.stat()
                seen.append((str(path), stat.st_size, stat.st_mtime_ns))
        seen.append((run.name, run.status))
    return tuple(seen)


def choice_path(project: Path, study: Study) -> Path:
    """Return where the record of a study's choice lies: beside its lock."""
    return lock_path(project, study).with_name(f"{study.name}_choice.json")


def output_folder(project: Path, study: Study) -> Path:
    """Return where a study's report goes: ``experiments/analysis`` for the default one,
    ``experiments/<study>/analysis`` for others.
    """
    folder = project / "experiments"
    return (folder if study.is_default else folder / study.name) / "analysis"


def summary_path(project: Path, study: Study) -> Path:
    """Return where a study's summary goes."""
    return output_folder(project, study).with_name(f"{study.name}_summary.json")


def user_style(project: Path) -> Path | None:
    """Return the project's own style file, where it has one."""
    path = project / "templates" / "report.mplstyle"
    return path if path.is_file() else None


def now(fixed: float | None = None) -> float:
    """Return the time that staleness is judged by; SOURCE_DATE_EPOCH fixes it (reproducible-builds.org)."""
    if fixed is not None:
        return fixed
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    return float(given) if given.isdigit() else time.time()

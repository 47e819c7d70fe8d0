"""Choose the runs that count as results: the study's, and one for each group, tag and seed.

A folder that was copied, or a seed that was run twice, is no replication: counted as one it makes a spread smaller and
a verdict surer than it is.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from oelm_jobs.agent import rundir
from oelm_jobs.agent.sentences import Sentence, _
from oelm_jobs.spec.study import Study

from ..findings import AuditFinding, warning
from . import reference
from .loaded_run import LoadedRun, Records

if TYPE_CHECKING:
    from .loaded_run import Floats, Ints

LEAST_RECORDS = 6
"""Losses that agree to the last digit between two seeds only where one is a copy of the other; a validation, which is
over many more tokens than a training record, counts as two.
"""


@dataclass(frozen=True, kw_only=True)
class Dispute:
    """A seed of a group with more than one result, none of which was chosen, or which may be another than it should."""

    group: str
    """The group."""
    tag: str
    """Tag of the runs; empty for the study's own."""
    seed: int | None
    """The seed; None where nothing tells it of one of them, so that it may be that of any other."""
    statement: Sentence
    """The report's statement about it, with what to do."""
    reason: Sentence
    """The same, for a verdict."""
    is_alarm: bool = False
    """Whether a result was chosen all the same: a verdict's line says it, and there is a verdict."""


@dataclass(frozen=True, kw_only=True)
class Settled:
    """The runs that count, and what was left out."""

    runs: tuple[LoadedRun, ...]
    """Those of the study, copies left out, in the order in which they came."""
    findings: tuple[AuditFinding, ...]
    """What was left out, and seeds with several results."""
    disputes: tuple[Dispute, ...]
    """Seeds with several results."""


def settle(study: Study, runs: Sequence[LoadedRun]) -> Settled:
    """Return the runs that count for a study: its own, and of what was copied one."""
    own, strangers = divide(study, runs)
    findings = [warning(said) for said in passed_over(study, strangers)]
    copies: set[int] = set()
    disputes: list[Dispute] = []
    arms: dict[tuple[str, str], list[LoadedRun]] = {}
    for run in own:
        arms.setdefault((run.group, run.tag), []).append(run)
    for (group, tag), members in arms.items():
        chosen: list[LoadedRun] = []
        for run in sorted(members, key=_preference):
            other = next((other for other in chosen if _is_copy(other, run)), None)
            if other is None:
                chosen.append(run)
                continue
            copies.add(id(run))
            said = _(
                "{copy} holds nothing that {run} doesn't hold (group {group}, seed {seed}): a copy, left out",
                str(run.path),
                str(other.path),
                group,
                "–" if other.seed is None else str(other.seed),
            )
            if None not in (run.seed, other.seed) and run.seed != other.seed:
                said = _(
                    "{run} tells the same as {other} to the last digit (group {group}, seeds {seeds}): a copy, or the "
                    "seed changes nothing; left out",
                    str(run.path), str(other.path), group, [str(run.seed), str(other.seed)],
                )  # fmt: skip
            findings.append(warning(said, group, key="copy_left_out"))
        disputes += _disputes(group, tag, chosen)
    findings += [warning(d.statement, d.group, key="two_results") for d in disputes]
    kept = tuple(run for run in own if id(run) not in copies)
    return Settled(runs=kept, findings=tuple(findings), disputes=tuple(disputes))


def divide(study: Study, runs: Sequence[LoadedRun]) -> tuple[list[LoadedRun], list[LoadedRun]]:
    """Return the study's runs and those whose records name another; a study made up for folders takes all."""
    if reference.is_made_up(study):
        return list(runs), []
    own = [run for run in runs if run.study in ("", study.name)]
    return own, [run for run in runs if run.study not in ("", study.name)]


def passed_over(study: Study, strangers: Sequence[LoadedRun]) -> list[Sentence]:
    """Return what is said of runs of other studies."""
    return [
        _(
            "passed over, since the record of each says that it belongs to study {study}, not {wanted}: {runs}",
            other, study.name, few([run.name for run in strangers if run.study == other]),
        )
        for other in dict.fromkeys(run.study for run in strangers)
    ]  # fmt: skip


def few(names: Sequence[str]) -> tuple[str, ...]:
    """Return eight names at most, of more the first seven and how many there are besides."""
    return tuple(names) if len(names) <= 8 else (*names[:7], f"+ {len(names) - 7}")


def _preference(run: LoadedRun) -> tuple[bool, int, int, int, str]:
    """Order the runs of one seed: the one that went furthest first, of those the one with most records; a backup has a
    longer name, or lies deeper.
    """
    is_over = run.finished or run.diverged
    return not is_over, -(run.last_step or 0), -_count(run), len(str(run.path)), str(run.path)


def _count(run: LoadedRun) -> int:
    """Return how many losses or other metrics a run recorded, a validation as two."""
    validations = 0 if run.validations is None else len(run.validations.step)
    told = sum(len(series.step) for series in run.series.values())
    return 2 * validations + (0 if run.curve is None else len(run.curve.step)) + told


def _is_copy(whole: LoadedRun, part: LoadedRun) -> bool:
    """Tell whether a run holds nothing that another of its group doesn't: a copy, an older state of it, an empty
    folder; of another seed only where what was recorded is enough to tell.
    """
    is_told = whole.seed == part.seed or (_count(part) >= LEAST_RECORDS and _agree(whole.curve, part.curve))
    return is_told and _holds(whole, part) and _tell_the_same(whole, part)


def _holds(whole: LoadedRun, part: LoadedRun) -> bool:
    if part.diverged and not whole.diverged:
        return False
    if part.final is None and part.validations is None:
        return part.curve is None or _agree(whole.curve, part.curve)
    if part.final is not None and whole.final is not None and part.final.step == whole.final.step:
        if part.final.loss != whole.final.loss:
            return False
    elif part.validations is None:
        return False
    return part.validations is None or _agree(whole.validations, part.validations)


def _tell_the_same(whole: LoadedRun, part: LoadedRun) -> bool:
    """Tell whether all that a script's run told of itself another one told, too."""
    return all(
        (other := whole.series.get(name)) is not None and _stand_in(other.step, other.value, series.step, series.value)
        for name, series in part.series.items()
    )


def _agree(whole: Records | None, part: Records | None) -> bool:
    """Tell whether all losses of one table stand in the other one, at the same steps."""
    if whole is None or part is None:
        return whole is part
    return _stand_in(whole.step, whole.loss, part.step, part.loss)


def _stand_in(steps: Ints, values: Floats, part_steps: Ints, part_values: Floats) -> bool:
    """Tell whether all values of one table stand in another one, at the same steps."""
    at = np.searchsorted(steps, part_steps)
    if at[-1] >= len(steps) or not np.array_equal(steps[at], part_steps):
        return False
    return bool(np.array_equal(values[at], part_values, equal_nan=True))


def _disputes(group: str, tag: str, runs: Sequence[LoadedRun]) -> list[Dispute]:
    # A run without a validation still has a speed and a cost; a log has no other sign of its end than its records.
    with_result = [
        run
        for run in runs
        if run.final is not None or run.diverged or run.finished or (run.source == "log" and run.curve is not None)
    ]
    if len(with_result) < 2:
        return []
    unknown = [run.path for run in with_result if run.seed is None]
    if unknown:
        paths = tuple(str(run.path) for run in with_result)
        named = unknown[0].with_name(f"{unknown[0].stem}-s42{unknown[0].suffix}")
        command = shlex.join(["mv", str(unknown[0]), str(named)])
        statement = _(
            "group {group} has several results ({runs}) and not all tell their seed: they may be one seed, run again; "
            "what rests on the group is undecidable; put the seed into the folder's name: {command}",
            group,
            paths,
            command,
        )
        reason = _("group {group} has several results and not all tell their seed", group)
        return [Dispute(group=group, tag=tag, seed=None, statement=statement, reason=reason)]
    found = []
    for seed in dict.fromkeys(run.seed for run in with_result):
        same = [run for run in with_result if run.seed == seed]
        if len(same) > 1:
            paths, archive = tuple(str(run.path) for run in same), str(same[-1].path.parent / rundir.ARCHIVE)
            command = f"{shlex.join(['mkdir', '-p', archive])} && {shlex.join(['mv', paths[-1], archive])}"
            statement = _(
                "group {group} has several results of seed {seed} ({runs}) and nothing says which one counts: what "
                "rests on the group is undecidable; name the folders that count (oelm-report DIR...), or take one "
                "away: {command}",
                group, str(seed), paths, command,
            )  # fmt: skip
            reason = _("group {group} has several results of seed {seed}", group, str(seed))
            found.append(Dispute(group=group, tag=tag, seed=seed, statement=statement, reason=reason))
    return found

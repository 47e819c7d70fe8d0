"""Build the report of a study with blocks: that of each block, and verdicts and tables over all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from oelm_jobs.agent.sentences import Sentence, _
from oelm_jobs.ledger import Entry
from oelm_jobs.spec.study import Study
from oelm_jobs.study import blocks

from . import elsewhere, findings, report, tables
from .audit.choice import Choice
from .audit.lock import Lock
from .audit.locked import account
from .audit.locks import Locks
from .audit.plan import changes, plan_of
from .elsewhere import Alike
from .findings import AuditFinding, warning
from .judging import blocks as judging
from .judging.blocks import Within
from .reading import replicates
from .reading.loaded_run import LoadedRun
from .reading.trials import Trial
from .report import Report
from .tables import Cell, Column, Table, column

T = TypeVar("T")

REST = ""
"""In place of a block's name: runs that are in none."""


def build(
    study: Study,
    runs: Sequence[LoadedRun],
    *,
    trials: Sequence[Trial] = (),
    remarks: Sequence[Sentence] = (),
    target_loss: float | None = None,
    lock: Lock | None = None,
    locks: Locks | None = None,
    planned: Study | None = None,
    choice: Choice | None = None,
    ledger: Sequence[Entry] = (),
    disputes: Sequence[replicates.Dispute] = (),
    compute: Table | None = None,
    alike: Sequence[Alike] = (),
) -> Report:
    """Build the report of a study from loaded runs, as ``report.build``; of one with blocks over all of them."""
    if not study.blocks:
        return report.build(
            study, runs, trials=trials, remarks=remarks, target_loss=target_loss, lock=lock, locks=locks,
            planned=planned, choice=choice, ledger=ledger, disputes=disputes, compute=compute,
            alike=alike,
        )  # fmt: skip
    own, strangers = replicates.divide(study, runs)
    divided = _divided(study, own)
    locked = account(locks, planned or study, own) if locks is not None else None
    lock = locked.binding if locked is not None else lock
    parts = {
        name: report.build(
            within,
            divided[name],
            target_loss=target_loss,
            lock=lock,
            disputes=_within(study, name, disputes),
        )
        for name, within in blocks.each(study).items()
    }
    found = [warning(said) for said in (*replicates.passed_over(study, strangers), *remarks)]
    alarms = _same_data(parts)
    found += [AuditFinding(severity=findings.UNFAIR, text=said, key="data") for said in alarms]
    if left := [name for name in (planned or study).blocks if name not in study.blocks]:
        alarms.append(_("without {blocks}, which this report leaves out as asked: no verdict of the study", left))
        found.append(warning(alarms[-1]))
    if lock is not None:
        alarms += _unlocked(lock, planned or study)
    for name, part in parts.items():
        found += _named(name, part)
    every = dict(parts)
    if rest := divided[REST]:
        every[REST] = report.build(replace(study, blocks={}, hypotheses=(), groups={}), rest)
        names = tuple(run.name for run in rest)
        found.append(
            warning(_("{runs} are in no block of the study: shown in the tables, compared in no verdict", names))
        )
        found += [one for one in every[REST].findings if one.severity == findings.NOTE]
    seen = _seen(alike, parts.values(), lock) if lock is not None else []
    found += seen
    within = {name: Within(runs=part.deciding, around=part.around) for name, part in parts.items()}
    first = next(iter(parts.values()))
    return Report(
        study=study,
        groups={
            _group(group, name): tuple(replace(run, tag=blocks.tag(name, run.tag)) for run in members)
            for name, part in every.items()
            for group, members in part.groups.items()
        },
        labels={**first.labels, **_labels(every)},
        findings=tuple(sorted(dict.fromkeys(found), key=lambda one: findings.SEVERITIES.index(one.severity))),
        verdicts=tuple(
            replace(one, alarms=(*alarms, *one.alarms, *elsewhere.alarms(one.hypothesis, seen)))
            for one in judging.judge(study.hypotheses, within)
        ),
        tables=(*_tables(every), _of_blocks(study, parts), *([compute] if compute is not None else [])),
        differences=tuple(_once([each for part in parts.values() for each in part.differences])),
        deviations=report.from_lock(lock, locked, planned or study, own),
        locked_at=lock.locked_at if lock is not None else None,
        locked=locked,
        goals=first.goals,
        parts=parts,
    )


def _divided(study: Study, runs: Sequence[LoadedRun]) -> dict[str, list[LoadedRun]]:
    """Return runs by block, tagged as if there were no other."""
    found: dict[str, list[LoadedRun]] = {name: [] for name in (*study.blocks, REST)}
    for run in runs:
        name, tag = blocks.of_tag(study, run.tag)
        found[name].append(replace(run, tag=tag))
    return found


def _within(study: Study, block: str, disputes: Sequence[replicates.Dispute]) -> list[replicates.Dispute]:
    """Return the disputes about runs of a block, tagged as if there were no other."""
    found = [(*blocks.of_tag(study, one.tag), one) for one in disputes]
    return [replace(one, tag=tag) for name, tag, one in found if name == block]


def _group(group: str, block: str) -> str:
    return f"{group}-{block}" if block else group


def _labels(parts: Mapping[str, Report]) -> dict[str, str]:
    return {
        _group(group, name): _("{group}, {block}", part.labels[group], name) if name else part.labels[group]
        for name, part in parts.items()
        for group in part.groups
    }


# Findings -------------------------------------------------------------------------------------------------------------


def _named(block: str, part: Report) -> list[AuditFinding]:
    """Return what was found in a block, which is named where no run of it is."""
    notes = [one for one in part.findings if one.severity == findings.NOTE]
    names = [run.name for run in part.runs]
    return [
        one
        if any(name in one.text for name in names)
        else replace(one, text=_("block {block}: {finding}", block, one.text))
        for one in (*part.limits, *notes)
    ]


def _seen(alike: Sequence[Alike], parts: Iterable[Report], lock: Lock) -> list[AuditFinding]:
    """Return what is said of runs of all blocks whose settings were run before: a claim rests on all of them."""
    deciding: dict[str, list[LoadedRun]] = {}
    for part in parts:
        for group, members in part.deciding.items():
            deciding.setdefault(group, []).extend(members)
    return elsewhere.findings(alike, deciding, lock.locked_at, is_confirming=False)


def _unlocked(lock: Lock, study: Study) -> list[Sentence]:
    """Return a remark for verdicts where the blocks are not those of the lock: every claim is about them."""
    before, now = (plan.get("blocks", {}) for plan in (lock.plan, plan_of(study)))
    differing = tuple(change.said for change in changes(before, now, "blocks"))
    return [_("DEVIATION: the blocks are not the locked ones: {changes}", differing)] if differing else []


def _same_data(parts: Mapping[str, Report]) -> list[Sentence]:
    """Return where two blocks were run on the same data, which are then no two."""
    seen: dict[str, str] = {}
    found = []
    for name, part in parts.items():
        for digest in dict.fromkeys(_data_of(part)):
            if seen.setdefault(digest, name) != name:
                said = _("blocks {one} and {other} were run on the same data: they are no two", seen[digest], name)
                found.append(said)
    return found


def _data_of(part: Report) -> list[str]:
    return [str(run.data["train_sha256"]) for run in part.runs if run.data.get("train_sha256")]


def _once(several: Sequence[T]) -> list[T]:
    return [one for place, one in enumerate(several) if one not in several[:place]]


# Tables ---------------------------------------------------------------------------------------------------------------


def _tables(parts: Mapping[str, Report]) -> list[Table]:
    """Return each table over all blocks, one that is the same in all once."""
    by_key: dict[str, dict[str, Table]] = {}
    for name, part in parts.items():
        for table in part.tables:
            by_key.setdefault(table.key, {})[name] = table
    return [_joined(of_blocks) for of_blocks in by_key.values()]


def _joined(parts: Mapping[str, Table]) -> Table:
    """Return the rows of all blocks in one table, each with its block in its name. The comparison has a row for each
    group and block in any case, as the report has groups.
    """
    first, *others = parts.values()
    if (
        others
        and first.key != "comparison"
        and all((other.columns, other.rows) == (first.columns, first.rows) for other in others)
    ):
        return first
    columns = {each.key: each for table in parts.values() for each in table.columns}
    name, *rest = columns.values()
    rows = []
    for block, table in parts.items():
        for row in table.rows:
            cells = dict(zip((each.key for each in table.columns), row, strict=True))
            rows.append(
                (
                    _in(block, cells[name.key], name),
                    Cell(block or None),
                    *(cells.get(each.key, tables.EMPTY) for each in rest),
                )
            )
    said = {block: table.remarks for block, table in parts.items()}
    return replace(
        first,
        columns=(name, column("block", is_plain=True), *rest),
        rows=tuple(rows),
        is_turned=any(table.is_turned for table in parts.values()) and len(rows) <= 6,
        remarks=tuple(_remarks(said)),
    )


def _in(block: str, cell: Cell, name: Column) -> Cell:
    """Return the name of a row with its block; runs are called by it."""
    if not block or name.key == "run":
        return cell
    return replace(cell, value=_("{group}, {block}", str(cell.value), block))


def _remarks(said: Mapping[str, Sequence[Sentence]]) -> list[Sentence]:
    """Return remarks on tables of blocks, each once, and of which block where it is not of all."""
    found = []
    for remark in dict.fromkeys(remark for several in said.values() for remark in several):
        blocks_of_it = [block for block, several in said.items() if remark in several and block]
        is_of_all = len(blocks_of_it) == len([block for block in said if block]) or not blocks_of_it
        found.append(remark if is_of_all else _("{blocks}: {remark}", blocks_of_it, remark))
    return found


def _of_blocks(study: Study, parts: Mapping[str, Report]) -> Table:
    """Return what the blocks are: their data, and the settings that are their own."""
    keys = dict.fromkeys(key for block in study.blocks.values() for key in block.settings)
    rows = []
    for name, block in study.blocks.items():
        own = {**study.settings, **block.settings}
        digests = [digest[:12] for digest in dict.fromkeys(_data_of(parts[name]))] or [*(block.data or ())]
        shown = (None if own.get(key) is None else str(own[key]) for key in keys)
        rows.append((Cell(name), Cell(" / ".join(digests) or None), *map(Cell, shown)))
    settings = (Column(key, tables.TEXT, key) for key in keys)
    return Table("blocks", (column("block"), column("data"), *settings), tuple(rows))

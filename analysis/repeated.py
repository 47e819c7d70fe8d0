"""Say once what an audit found of many runs, and name many runs briefly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from oelm_jobs.agent.sentences import Sentence, _, shown

from .findings import AuditFinding
from .reading.loaded_run import LoadedRun

MOST = 6
"""Runs that are named one by one."""


def named(names: Sequence[str], groups: Mapping[str, Sequence[LoadedRun]]) -> tuple[str, ...]:
    """Return what stands for runs (or whole groups) in a sentence: their names, or where those are many, groups with
    the seeds.
    """
    if len(names) <= MOST:
        return tuple(names)
    wanted = set(names)
    found: list[str] = []
    for group, runs in groups.items():
        here = [run for run in runs if run.name in wanted]
        seeds = [run.seed for run in here if run.seed is not None]
        if len(here) == len(runs) > 1:
            found.append(_("all {count} of {group}", len(here), group))
        elif len(here) > 2 and len(seeds) == len(here):
            found.append(_("{group} of seeds {seeds}", group, _ranges(seeds)))
        else:
            found += [run.name for run in here]
        wanted -= {run.name for run in here}
    return (*found, *(name for name in names if name in wanted))


def _ranges(numbers: Sequence[int]) -> tuple[str, ...]:
    """Return 1, 2, 3, 5 as 1–3 and 5."""
    rows = [list(row) for _key, row in groupby(enumerate(sorted(numbers)), key=lambda pair: pair[1] - pair[0])]
    ends = [(row[0][1], row[-1][1]) for row in rows]
    return tuple(f"{first}" if first == last else f"{first}–{last}" for first, last in ends)


def once(found: Sequence[AuditFinding], groups: Mapping[str, Sequence[LoadedRun]]) -> tuple[AuditFinding, ...]:
    """Return findings with those made one that say the same of different runs, where the first of them stood."""
    names = {run.name for runs in groups.values() for run in runs}
    alike: dict[object, dict[str, AuditFinding]] = {}
    for finding in found:
        slots = _slots(finding.text, names)
        rest = {name: str(shown(value)) for name, value in finding.text.values.items() if name not in slots}
        key = (finding.severity, finding.text.template, slots, *sorted(rest.items())) if slots else finding.text
        alike.setdefault(key, {}).setdefault(finding.text, finding)
    return tuple(_merged(list(members.values()), names, groups) for members in alike.values())


def _slots(text: Sentence, names: set[str]) -> tuple[str, ...]:
    """Return which of a sentence's values are names of runs."""
    return tuple(name for name, value in text.values.items() if isinstance(value, str) and value in names)


def _merged(
    members: Sequence[AuditFinding], names: set[str], groups: Mapping[str, Sequence[LoadedRun]]
) -> AuditFinding:
    first = members[0]
    if len(members) == 1:
        return first
    slots = _slots(first.text, names)
    if len(slots) == 1:
        runs = [str(member.text.values[slots[0]]) for member in members]
        values, template = {**first.text.values, slots[0]: named(runs, groups)}, first.text.template
        english = template.format(**{name: shown(value) for name, value in values.items()})
        text = Sentence.made(english, template, values)
    else:
        text = _("{finding}; {count} more are like that", first.text, len(members) - 1)
    about = dict.fromkeys(group for member in members for group in member.groups)
    return replace(first, text=text, groups=tuple(about))

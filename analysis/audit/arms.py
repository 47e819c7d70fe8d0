"""Audit runs of other programs, whose groups follow from their settings, by what they told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

import numpy as np

from oelm_jobs.agent.sentences import _
from oelm_jobs.spec.study import Study

from ..findings import UNFAIR, AuditFinding, warning
from ..reading import foreign
from ..reading.loaded_run import LoadedRun

RATE_TOLERANCE = 0.1
"""Learning rates at the end that differ by a smaller part of the larger one are the same."""


def of_settings(groups: Mapping[str, Sequence[LoadedRun]], study: Study) -> Iterator[AuditFinding]:
    """Return what keeps such arms from being compared, a line each."""
    runs = [run for members in groups.values() for run in members if foreign.is_one(run)]
    if not runs:
        return
    for keys in foreign.together(runs, study.factors):
        said = _("{settings} change together: nothing tells which of them makes the difference", keys)
        yield AuditFinding(severity=UNFAIR, text=said, key="settings")
    yield from _rates_at_the_end(runs, study)
    silent = [run.name for run in runs if not run.train]
    if silent and len(groups) > 1:
        yield warning(_("no settings were found for {runs}: the name alone tells the group", silent), key="no_settings")


def _rates_at_the_end(runs: Sequence[LoadedRun], study: Study) -> Iterator[AuditFinding]:
    """Return that arms ended at different learning rates; where the rate is what is asked about, parts of its peak."""
    is_asked = any(foreign.RATE.fullmatch(key) for key in study.factors)
    found: dict[str, list[tuple[float, int]]] = {}
    for run in runs:
        if run.curve is None:
            continue
        rates = run.curve.lr[np.isfinite(run.curve.lr)].tolist()
        if len(rates) > 1:
            last = rates[-1] / (max(rates) or 1.0) if is_asked else rates[-1]
            found.setdefault(run.group, []).append((last, int(run.curve.step[-1])))
    ends = {group: fmean(last for last, _step in members) for group, members in found.items()}
    if len(ends) > 1 and max(ends.values()) - min(ends.values()) > RATE_TOLERANCE * max(ends.values()):
        shown = [
            _("{group} {rate} at step {step}", group, f"{end:.3g}", f"{max(step for _last, step in found[group]):,}")
            for group, end in ends.items()
        ]
        said = _("your arms ended at different learning rates: {rates}", shown)
        if is_asked:
            said = _("your arms ended at different parts of their highest learning rate: {rates}", shown)
        yield AuditFinding(severity=UNFAIR, text=said, groups=tuple(ends), key="learning_rate_at_end")

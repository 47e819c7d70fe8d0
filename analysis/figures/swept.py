"""The figure of a sweep: what each value of each swept setting gave."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from oelm_jobs import fitting
from oelm_jobs.agent.sentences import _

from .. import sweeps
from ..report import Report
from ..statistics import mean_sd
from ..told import Goals
from . import drawing
from .drawing import DrawnArm, Say

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_PANELS = 8
"""So many settings are shown."""
DECADE = 10
"""Numbers whose largest is so many times the smallest, or more, stand on a logarithmic axis."""
APART = 0.08
"""So far groups lie from each other where a value has no place on a scale, as a part of the way to the next one."""
RING = 13
"""Points of the ring around the best value."""
SMALL = 3.5
"""Points of the marker of a combination that isn't the best of its value."""

LEGEND = _(
    "Lines go through the best combination with each value (± standard deviation over seeds); a ring marks the best of "
    "a group, small points are other combinations."
)


def sweep(report: Report, arms: Sequence[DrawnArm], say_: Say) -> Figure:
    """Draw the main metric over the values of each swept setting, a panel for each: of each group a line through the
    best combination with each value, with the standard deviation over seeds; the others are points.
    """
    figure = drawing.new(8.6, 4.4)
    keys = [*report.swept[0].values][:MOST_PANELS] if report.swept else []
    panels = list(figure.subplots(max(len(keys), 1), squeeze=False)[:, 0])
    if not any(math.isfinite(one.mean) for one in report.swept):
        return drawing.nothing(figure, panels[0], say_)
    best = sweeps.best(report.swept, report.goals)
    looks = {
        name: replace(arm, label=drawing.cut(report.labels[name]))
        for name, arm in zip(report.study.groups, arms, strict=False)
    }
    drawing.place_panels(figure, panels, [arm.label for arm in looks.values()])
    lacking = dict.fromkeys(looks[one.group].label for one in report.swept if not math.isfinite(one.mean))
    for key, axes in zip(keys, panels, strict=True):
        axes.set_title(drawing.cut(key, 48))
        places = _Places(report, key)
        ends = []
        for number, (name, arm) in enumerate(looks.items()):
            places.shift = APART * (number - (len(looks) - 1) / 2)
            own = [one for one in report.swept if one.group == name and math.isfinite(one.mean)]
            if own:
                ends.append((*_draw(axes, arm, own, places, best[name], report.goals), arm.label, arm.colour))
        places.finish(axes)
        axes.set_ylabel(say_(sweeps.metric(report.goals).header))
        axes.margins(y=0.12)
        axes.autoscale_view(scalex=False)
        drawing.label_ends(axes, ends)
    said = [LEGEND]
    if lacking:
        said.append(_("not shown, since runs diverged or have no result: combinations of {groups}", [*lacking]))
    wide = int(figure.get_size_inches()[0] * 15)
    drawing.remark(figure, "\n".join(line for one in said for line in fitting.wrap(say_(one), wide)))
    return figure


def _draw(
    axes: Axes, arm: DrawnArm, own: Sequence[sweeps.Combination], places: _Places, best: sweeps.Combination,
    goals: Goals | None,
) -> tuple[float, float]:  # fmt: skip
    """Draw what the values of a setting gave a group; return where its line ends."""
    by_place: dict[float, list[sweeps.Combination]] = {}
    for one in own:
        by_place.setdefault(places.of(one), []).append(one)
    chosen = {at: sweeps.best(found, goals)[best.group] for at, found in sorted(by_place.items())}
    look: dict[str, Any] = {"color": arm.colour, "linestyle": ""}
    others = [(at, one.mean) for at, found in by_place.items() for one in found if one is not chosen[at]]
    if others:
        axes.plot(*zip(*others, strict=True), marker=arm.marker, markersize=SMALL, alpha=0.45, zorder=2, **look)
    means = [one.mean for one in chosen.values()]
    spreads = [mean_sd(one.results)[1] or 0.0 for one in chosen.values()]
    look = {"color": arm.colour, "linestyle": arm.dashes if places.is_ordered else "", "zorder": 3}
    axes.errorbar([*chosen], means, yerr=spreads, marker=arm.marker, markersize=6, capsize=3, markeredgecolor="white",
                  **look)  # fmt: skip
    ring: dict[str, Any] = {"marker": "o", "markersize": RING, "fillstyle": "none", "markeredgewidth": 1.4}
    axes.plot(places.of(best), best.mean, color=arm.colour, zorder=4, **ring)
    end = max(chosen)
    return end, chosen[end].mean


class _Places:
    """Where the values of a setting stand on the axis: numbers where they are, others in the order of the table."""

    def __init__(self, report: Report, key: str) -> None:
        values = [one.values[key] for one in report.swept]
        self._key = key
        self.shift = 0.0
        self.is_ordered = all(map(sweeps.is_number, values))
        self._shown = [shown for _order, shown in sorted({sweeps.order(value) for value in values})]
        numbers = [float(value) for value in values] if self.is_ordered else []
        declared = report.study.sweep.parameters.get(key) if report.study.sweep else None
        is_log = declared is not None and declared.distribution == "log_uniform_values"
        is_log = is_log or (bool(numbers) and min(numbers) > 0 and max(numbers) >= DECADE * min(numbers))
        self._is_log = is_log and bool(numbers) and min(numbers) > 0
        self._low, self._high = (min(numbers), max(numbers)) if numbers else (0.0, float(len(self._shown) - 1))

    def of(self, one: sweeps.Combination) -> float:
        value = one.values[self._key]
        return float(value) if self.is_ordered else self._shown.index(sweeps.order(value)[1]) + self.shift

    def finish(self, axes: Axes) -> None:
        """Set limits and ticks."""
        low, high = self._low, self._high
        if self._is_log:
            axes.set_xscale("log")
            room = (high / low) ** 0.06 if high > low else 2.0
            axes.set_xlim(low / room, high * room)
            drawing.plain_ticks(axes.xaxis, low, high)
            return
        room = 0.06 * (high - low) or 0.5
        room = room if self.is_ordered else 0.5
        axes.set_xlim(low - room, high + room)
        if not self.is_ordered:
            axes.set_xticks(range(len(self._shown)), [drawing.cut(shown, 18) for shown in self._shown])

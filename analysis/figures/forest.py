"""Forest plot of the verdicts: the rule's region, interval, estimate and every pair."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from oelm_jobs.agent.sentences import _
from oelm_jobs.spec.study import Hypothesis

from .. import wording
from ..judging.verdicts import EXACT, MET, NOT_MET, PAIRED, REFUTED, SUPPORTED, Verdict
from ..report import Report
from . import drawing
from .drawing import DrawnArm, Say

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_TINTS = {SUPPORTED: "#0072B2", MET: "#0072B2", REFUTED: "#D55E00", NOT_MET: "#D55E00"}


def forest(report: Report, arms: Sequence[DrawnArm], say_: Say) -> Figure:
    """Draw one row per hypothesis, each on its own scale: the rule's region, interval, estimate, every pair's ratio."""
    verdicts = report.verdicts
    figure, grid = drawing.new(8.6, 0.6 + 1.15 * max(len(verdicts), 1), rows=max(len(verdicts), 1))
    figure.subplots_adjust(
        left=0.3, right=0.97, hspace=1.1, top=1 - 0.45 / (0.6 + 1.15 * max(len(verdicts), 1)), bottom=0.12
    )
    if not verdicts:
        drawing.nothing(grid[0][0], say_)
        return figure
    for row, verdict in enumerate(verdicts):
        _forest_row(grid[row][0], verdict, report, say_)
    grid[0][0].set_title(say_(drawing.TITLES["verdicts"]), x=-0.42)
    legend = say_(_("shaded: satisfies the rule; short lines: pairs; dashed: no difference"))
    figure.text(0.02, 0.0, legend, fontsize=8, color="#555555", va="top")
    return figure


def _forest_row(axes: Axes, verdict: Verdict, report: Report, say_: Say) -> None:
    from matplotlib import ticker

    h = verdict.hypothesis
    tint = _TINTS.get(verdict.outcome, "#666666")
    scale = _scale(h)
    ratios = (
        [scale(a.raw / b.raw) for a, b in zip(verdict.group, verdict.against, strict=True)]
        if verdict.method == PAIRED
        else []
    )
    ratios = [ratio for ratio in ratios if math.isfinite(ratio)]
    estimate = scale(verdict.ratio) if verdict.ratio is not None and math.isfinite(verdict.ratio) else None
    edges = [scale(edge) for edge in verdict.region if 0 < edge < math.inf]
    bounds = sorted(map(scale, verdict.interval)) if verdict.interval else []
    equal = scale(1.0)
    shown = [equal, *edges, *ratios, *([estimate] if estimate is not None else [])]
    low, high = _limits(shown, bounds, 0.02 if h.relation == "ratio_at_least" else 2.0)
    axes.set_xlim(low, high)
    axes.set_ylim(-1, 1)
    region = sorted(scale(edge) for edge in verdict.region)
    axes.axvspan(max(region[0], low), min(region[1], high), color="#009E73", alpha=0.15, linewidth=0)
    for edge in edges:
        axes.axvline(edge, color="#009E73", linewidth=1.2)
    axes.axvline(equal, color="#444444", linewidth=0.8, linestyle=(0, (2, 2)))
    if ratios:
        axes.plot(ratios, [-0.5] * len(ratios), linestyle="", marker="|", markersize=8, color="#555555")
    if bounds:
        axes.plot(
            [max(bounds[0], low), min(bounds[1], high)], [0.1, 0.1], color=tint, linewidth=2.5, solid_capstyle="butt"
        )
        # An interval that exceeds the axis ends in an arrow; the report has its numbers.
        for beyond, edge, marker in ((bounds[0] < low, low, "<"), (bounds[1] > high, high, ">")):
            if beyond:
                axes.plot(edge, 0.1, marker=marker, markersize=8, color=tint, clip_on=False)
    if estimate is not None and verdict.ratio is not None:
        hollow = verdict.interval is None and verdict.method != EXACT
        inner = "white" if hollow else tint
        axes.plot(estimate, 0.1, marker="o", markersize=8, color=tint, markerfacecolor=inner, markeredgewidth=1.8)
        axes.annotate(
            wording.in_rule_units(h, verdict.ratio),
            (estimate, 0.1),
            xytext=(0, 8),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=9,
            color=tint,
            annotation_clip=False,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.8},
        )
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: _tick(h, value)))
    axes.xaxis.set_major_locator(ticker.MaxNLocator(6))
    name = f"{h.id}  {say_(wording.OUTCOME_WORDS[verdict.outcome])}"
    axes.text(-0.42, 0.72, name, transform=axes.transAxes, fontsize=10, fontweight="bold", color=tint, va="center")
    axes.text(-0.42, 0.36, say_(wording.metric(h)), transform=axes.transAxes, fontsize=8, color="#333333", va="center")
    axes.text(
        -0.42, 0.04, f"{h.group} / {h.against}", transform=axes.transAxes, fontsize=8, color="#333333", va="center"
    )


def _limits(shown: Sequence[float], bounds: Sequence[float], smallest: float) -> tuple[float, float]:
    """Return the axis: everything that is shown, and the interval as far as it leaves the rest readable."""
    low, high = min(shown), max(shown)
    span = max(high - low, smallest)
    if bounds:
        low, high = min(low, max(bounds[0], low - span)), max(high, min(bounds[1], high + span))
    room = 0.2 * max(high - low, smallest)
    return low - room, high + room


def _scale(h: Hypothesis) -> Callable[[float], float]:
    """Return the map from a ratio to the axis that the rule is read on: percent reduced, percent above, or the ratio
    itself.
    """
    if h.relation == "ratio_at_least":
        return lambda ratio: ratio
    return (lambda ratio: 100 * (1 - ratio)) if h.relation == "reduction" else (lambda ratio: 100 * (ratio - 1))


def _tick(h: Hypothesis, value: float) -> str:
    if h.relation == "ratio_at_least":
        return f"{value:g}"
    sign = "+" if value > 0 and h.relation != "reduction" else ""
    return f"{value:{sign},.4g} %".replace("-", "−")

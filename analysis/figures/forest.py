"""Forest plot of the verdicts: the rule's region, interval, estimate and every pair."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from oelm_jobs.agent.sentences import _
from oelm_jobs.spec.study import Hypothesis

from .. import wording
from ..judging.scales import RATIO, scale_of
from ..judging.verdicts import EXACT, MET, NOT_MET, OUTCOMES, PAIRED, REFUTED, SUPPORTED, Verdict
from ..report import Report
from . import drawing
from .drawing import DrawnArm, Say

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_TINTS = {SUPPORTED: "#0072B2", MET: "#0072B2", REFUTED: "#D55E00", NOT_MET: "#D55E00"}


def forest(report: Report, arms: Sequence[DrawnArm], say_: Say) -> Figure:
    """Draw one row per hypothesis, each on its own scale: the rule's region, interval, estimate, every pair."""
    verdicts = [each for verdict in report.verdicts for each in (verdict, *verdict.blocks)]
    height = 0.6 + 1.15 * max(len(verdicts), 1)
    figure = drawing.new(8.6, height)
    rows = figure.subplots(max(len(verdicts), 1), squeeze=False)[:, 0]
    figure.subplots_adjust(left=0.3, right=0.97, hspace=1.1, top=1 - 0.45 / height, bottom=0.12)
    if not verdicts:
        return drawing.nothing(figure, rows[0], say_)
    for axes, verdict in zip(rows, verdicts, strict=True):
        _forest_row(axes, verdict, say_)
    rows[0].set_title(say_(drawing.TITLES["verdicts"]), x=-0.42)
    drawing.remark(figure, say_(_("shaded: satisfies the rule; short lines: pairs; dashed: no difference")))
    return figure


def _forest_row(axes: Axes, verdict: Verdict, say_: Say) -> None:
    from matplotlib import ticker

    h = verdict.hypothesis
    tint = _TINTS.get(verdict.outcome, "#666666")
    scale = _axis(h)
    compare = scale_of(h).compare
    pairs = zip(verdict.group, verdict.against, strict=True) if verdict.method == PAIRED else ()
    ratios = [scale(compare(a.raw, b.raw)) for a, b in pairs]
    estimate = scale(verdict.estimate) if verdict.estimate is not None and math.isfinite(verdict.estimate) else None
    edges = [scale(edge) for edge in verdict.region if math.isfinite(scale_of(h).linear(edge))]
    bounds = sorted(map(scale, verdict.interval)) if verdict.interval else []
    equal = scale(scale_of(h).equal)
    shown = [equal, *edges, *ratios, *([estimate] if estimate is not None else [])]
    smallest = 0.02 if h.relation == "ratio_at_least" else 2.0
    if scale_of(h) is not RATIO:
        sizes = [abs(value.raw) for value in (*verdict.group, *verdict.against)]
        smallest = 0.001 * max(filter(math.isfinite, sizes), default=0.0) or 1e-9
    low, high = _limits(shown, bounds, smallest)
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
    if estimate is not None and verdict.estimate is not None:
        hollow = verdict.interval is None and verdict.method != EXACT
        inner = "white" if hollow else tint
        axes.plot(estimate, 0.1, marker="o", markersize=8, color=tint, markerfacecolor=inner, markeredgewidth=1.8)
        axes.annotate(
            wording.in_rule_units(h, verdict.estimate),
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
    if verdict.blocks and estimate is None:
        axes.text(
            0.5, 0.5, say_(_("in each block, as below")), transform=axes.transAxes, ha="center", va="center", color=tint
        )
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: _tick(h, value)))
    axes.xaxis.set_major_locator(ticker.MaxNLocator(6))
    grey: dict[str, Any] = {"fontsize": 8, "color": "#333333"}
    for y, said, look in (
        (
            0.72,
            f"{verdict.block or h.id}  {say_(OUTCOMES[verdict.outcome])}",
            {"fontsize": 10, "fontweight": "bold", "color": tint},
        ),
        (0.36, say_(wording.metric(h)), grey),
        (0.04, f"{h.group} {'/' if scale_of(h) is RATIO else '−'} {h.against}", grey),
    ):
        axes.text(-0.42, y, said, transform=axes.transAxes, va="center", **look)


def _limits(shown: Sequence[float], bounds: Sequence[float], smallest: float) -> tuple[float, float]:
    """Return the axis: everything that is shown, and the interval as far as it leaves the rest readable."""
    low, high = min(shown), max(shown)
    span = max(high - low, smallest)
    if bounds:
        low, high = min(low, max(bounds[0], low - span)), max(high, min(bounds[1], high + span))
    room = 0.2 * max(high - low, smallest)
    return low - room, high + room


def _axis(h: Hypothesis) -> Callable[[float], float]:
    """Return the map from a ratio or difference to the axis that the rule is read on: percent reduced, percent above,
    the ratio itself, or the metric's own units.
    """
    if h.relation == "ratio_at_least":
        return lambda ratio: ratio
    sign, unit, equal = -1 if h.relation == "reduction" else 1, 100 if scale_of(h) is RATIO else 1, scale_of(h).equal
    return lambda estimate: sign * unit * (estimate - equal)


def _tick(h: Hypothesis, value: float) -> str:
    if h.relation == "ratio_at_least":
        return f"{value:g}"
    sign = "+" if value > 0 and h.relation != "reduction" else ""
    unit = " %" if scale_of(h) is RATIO else ""
    return f"{value:{sign},.4g}{unit}".replace("-", "−")

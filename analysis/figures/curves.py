"""Figures over steps and tokens: validation PPL, training loss, learning rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from oelm_jobs.agent.sentences import Sentence, _

from .. import tables
from ..judging.evidence import LARGEST
from ..reading.loaded_run import LoadedRun
from ..report import Report
from . import drawing
from .drawing import DrawnArm, Say

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LARGEST_LOSS = 650.0
"""A loss that is larger, or infinite, has no perplexity that an axis can hold, and is not drawn."""
MOST_PANELS = 8
"""Metrics of scripts that are drawn."""
FEW = 100
"""A curve of more points is smoothed where it is of a metric that nothing is judged by."""
BOTH_KINDS = _("lines: validations on a part of the file; markers: the final one on the whole file")
SMOOTHED = _("metrics without a goal: a running mean over 2 % of the points")
STEEP = 4.0
"""The first quarter of curves is cut off where it makes the axis longer by more than this factor."""


def val_ppl(report: Report, arms: Sequence[DrawnArm], say_: Say) -> Figure:
    """Draw validation PPL over steps, and over tokens where a step isn't the same number of tokens for all: geometric
    mean, range over seeds, every seed's end point.
    """
    columns = [("step", _("Step"), _("Validation perplexity over steps"))]
    per_step = _tokens_per_step(report.runs)
    if len(per_step) > 1:
        columns.append(("tokens", _("Tokens"), _("Validation perplexity over tokens")))
    elif per_step:
        columns = [
            ("step", _("Step (of {count} tokens)", f"{per_step.pop():,.0f}"), drawing.TITLES["val_ppl_comparison"])
        ]
    figure = drawing.new(12.5, 4.6)
    panels = []
    for axes, (column, label, title) in zip(figure.subplots(1, len(columns), squeeze=False)[0], columns, strict=True):
        axes.set_title(say_(title))
        drawn = [(arm, found, _end_label(arm, found, say_)) for arm in arms if (found := _curves(arm, column))]
        panels.append((axes, label, drawn))
    left = panels[0][0]
    drawing.place_panels(
        figure, [panel[0] for panel in panels], [name for *_panel, drawn in panels for *_arm, name in drawn]
    )
    remarks: list[Sentence] = []
    for axes, label, drawn in panels:
        if not drawn:
            drawing.nothing(figure, axes, say_)
            continue
        curves = [curve for _arm, found, _name in drawn for curve in found]
        low, high = _window(curves)
        if axes is left:
            remarks += [BOTH_KINDS] if any(curve.is_apart for curve in curves) else []
            remarks += _left_out([(curve.x, curve.y) for curve in curves], high)
        axes.set_yscale("log")
        axes.set_ylim(low, high)
        ends = []
        for arm, found, name in drawn:
            points = [curve.end for curve in found if not curve.is_diverged]
            _draw(axes, arm, *_over_seeds([(curve.x, np.log(curve.y)) for curve in found]), points, np.exp)
            ends.append((max(curve.end[0] for curve in found), _end(found), name, arm.colour))
        axes.set_xlim(left=0)
        axes.set_xlabel(say_(label))
        axes.set_ylabel(say_(_("Validation PPL")))
        axes.xaxis.set_major_formatter(drawing.short_count)
        drawing.plain_ticks(axes.yaxis, low, high)
        drawing.label_ends(axes, ends)
    _remark(figure, left, arms, remarks, say_)
    return figure


def _tokens_per_step(runs: Sequence[LoadedRun]) -> set[float]:
    """Return how many tokens a step is, to a thousandth, in all runs that tell it."""
    found: set[float] = set()
    for run in runs:
        if run.validations is not None:
            step, tokens = drawing.known(run.validations.step.astype(float), run.validations.tokens)
            found.update(np.round(tokens[step > 0] / step[step > 0], 3).tolist())
    return found


def _left_out(curves: Sequence[tuple[Any, Any]], high: float) -> list[Sentence]:
    """Return a remark where the starts of curves lie above the axis."""
    above = [float(x[y > high].max()) for x, y in curves if (y > high).any()]
    return (
        [_("values above {limit} (up to step {step}) are not shown", f"{high:,.3g}", f"{max(above):,.0f}")]
        if above
        else []
    )


def _draw(
    axes: Any,
    arm: DrawnArm,
    x: Any,
    rows: Any,
    points: Sequence[tuple[float, float]],
    scale: Callable[[Any], Any] = lambda values: values,
) -> None:
    """Draw an arm: the mean of rows, of which there is one for each seed, their range, and a marker at each point.

    Args:
        scale: Makes of rows what the axis shows.
    """
    axes.plot(x, scale(np.nanmean(rows, axis=0)), color=arm.colour, linestyle=arm.dashes, zorder=3)
    if len(rows) > 1:
        low, high = scale(np.nanmin(rows, axis=0)), scale(np.nanmax(rows, axis=0))
        axes.fill_between(x, low, high, color=arm.colour, alpha=0.18, linewidth=0, zorder=2)
    for point in points:
        axes.plot(*point, marker=arm.marker, color=arm.colour, markersize=5, linestyle="", zorder=4,
                  markeredgecolor="white", markeredgewidth=0.5)  # fmt: skip


def _remark(figure: Figure, panel: Any, arms: Sequence[DrawnArm], more: Sequence[Sentence], say_: Say) -> None:
    """Say below a panel what bands are, where there are some, and more."""
    said = [_("band: range over seeds")] if any(len(arm.runs) > 1 for arm in arms) else []
    said += more
    drawing.remark(figure, "\n".join(map(say_, said)), x=panel.get_position().x0)


@dataclass(frozen=True)
class _Curve:
    """The validations of one run."""

    x: Any
    """Steps or tokens."""
    y: Any
    """PPL."""
    end: tuple[float, float]
    """The last validation, which is on the whole file where the others are on a part of it."""
    is_diverged: bool
    """True where what the run would have ended with is not a number."""

    @property
    def is_apart(self) -> bool:
        """True where the end isn't a point of the curve."""
        return bool(self.end != (self.x[-1], self.y[-1]))


def _curves(arm: DrawnArm, column: str) -> list[_Curve]:
    """Return x and PPL of every run's validations."""
    curves = []
    for run in arm.runs:
        if run.validations is None:
            continue
        (all_x, all_y), (x, y) = (
            drawing.known(
                getattr(table, column).astype(float),
                np.exp(np.where(np.abs(table.loss) < LARGEST_LOSS, table.loss, np.nan)),
            )
            for table in (run.validations, run.validations.curve)
        )
        if len(all_x):
            x, y = (x, y) if len(x) else (all_x, all_y)
            curves.append(_Curve(x, y, (float(all_x[-1]), float(all_y[-1])), run.diverged))
    return curves


def _end(curves: Sequence[_Curve]) -> float:
    """Return the geometric mean of the ends that lie furthest: those of unfinished runs don't count."""
    last = max(curve.end[0] for curve in curves)
    return float(np.exp(np.mean([np.log(curve.end[1]) for curve in curves if curve.end[0] == last])))


def _end_label(arm: DrawnArm, curves: Sequence[_Curve], say_: Say) -> str:
    """Return the arm's name with its final PPL; a mean that leaves out a diverged seed would flatter the arm."""
    if diverged := sum(run.diverged for run in arm.runs):
        said = say_(_("{count} of {runs} diverged", diverged, len(arm.runs)))
    else:
        said = tables.show(tables.Cell(_end(curves)), tables.PPL, "en")
    return f"{arm.label}  {said}"


def _over_seeds(curves: Sequence[tuple[Any, Any]]) -> tuple[Any, Any]:
    """Return x, and a row of y for each seed; x beyond the shortest seed is only of those that got there."""
    grid = np.unique(np.concatenate([x for x, _y in curves]))
    if len(grid) > 4 * drawing.POINTS:
        grid = grid[:: len(grid) // drawing.POINTS]
    rows = np.array([np.interp(grid, x, y, left=np.nan, right=np.nan) for x, y in curves])
    known = ~np.all(np.isnan(rows), axis=0)
    return grid[known], rows[:, known]


def _window(curves: Sequence[_Curve]) -> tuple[float, float]:
    """Return limits that leave out the steep start, where nothing is compared, but keep every end in sight."""
    low = min(min(float(c.y.min()), c.end[1]) for c in curves)
    tops = [float(c.y[c.x >= 0.25 * c.x[-1]].max()) for c in curves]
    high = max([*tops, *(c.end[1] for c in curves)])
    room = max(high / low, 1.02) ** 0.06
    return low / room, high * room


def _lines(arms: Sequence[DrawnArm], say_: Say, column: str, title: Sentence, axis: Sentence) -> Figure:
    """Draw a column of the training records over steps; losses are smoothed."""
    is_loss = column == "loss"
    figure, axes = drawing.panel(8.6, 4.4, say_(title))
    figure.subplots_adjust(left=0.1, right=0.72, bottom=0.13, top=0.9)
    ends = []
    drawn: list[tuple[Any, Any]] = []
    for position, arm in enumerate(arms):
        own = []
        for curve in (run.curve for run in arm.runs if run.curve is not None):
            x, y = drawing.thin(curve.step, getattr(curve, column))
            if len(x):
                own.append((x, drawing.smooth(y) if is_loss else y))
        if not own:
            continue
        drawn += own
        for x, y in own if len(own) > 1 else ():
            axes.plot(x, y, color=arm.colour, linewidth=0.7, alpha=0.35)
        x, rows = _over_seeds(own)
        mean = np.nanmean(rows, axis=0)
        # Equal schedules coincide: later lines are thinner, so that earlier ones stay visible.
        width = 1.8 if is_loss else max(1.4, 5.0 - 1.6 * position)
        axes.plot(x, mean, color=arm.colour, linestyle=arm.dashes if is_loss else "-", linewidth=width, zorder=3)
        last = f"{mean[-1]:.3f}" if is_loss else f"{mean[-1]:.3g}"
        ends.append((float(x[-1]), float(mean[-1]), f"{arm.label}  {last}", arm.colour))
    if not drawn:
        return drawing.nothing(figure, axes, say_)
    axes.set_xlim(left=0)
    if is_loss:
        low = min(float(y.min()) for _x, y in drawn)
        high = max(float(y[x >= 0.05 * x[-1]].max()) for x, y in drawn)
        limit = high + 0.05 * (high - low) + 1e-3
        axes.set_ylim(low - 0.03 * (high - low) - 1e-3, limit)
        drawing.remark(figure, "".join(map(say_, _left_out(drawn, limit))), x=axes.get_position().x0)
    else:
        axes.set_ylim(bottom=0)
        axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    axes.set_xlabel(say_(_("Step")))
    axes.set_ylabel(say_(axis))
    axes.xaxis.set_major_formatter(drawing.short_count)
    drawing.label_ends(axes, ends)
    return figure


def training_loss(report: Report, arms: Sequence[DrawnArm], say_: Say) -> Figure:
    """Draw training loss, a running mean over 2 % of the points."""
    return _lines(arms, say_, "loss", drawing.TITLES["training_loss"], _("Loss (nats per token)"))


def learning_rate(report: Report, arms: Sequence[DrawnArm], say_: Say) -> Figure:
    """Draw the learning rates of all groups over steps."""
    return _lines(arms, say_, "lr", drawing.TITLES["learning_rate"], _("Learning rate"))


def metrics(report: Report, arms: Sequence[DrawnArm], say_: Say) -> Figure:
    """Draw what scripts tell over steps, a panel for each metric, those first that the study judges by: mean, range
    over seeds, every seed's end point.
    """
    goals, names = told(report)
    figure = drawing.new(8.6, 4.4)
    panels = list(figure.subplots(max(len(names), 1), squeeze=False)[:, 0])
    if not names:
        return drawing.nothing(figure, panels[0], say_)
    drawn = [[(arm, found) for arm in arms if (found := _told_curves(arm, name))] for name in names]
    labels = [
        [_told_label(arm, found, name, say_) for arm, found in panel] for name, panel in zip(names, drawn, strict=True)
    ]
    drawing.place_panels(figure, panels, [label for panel in labels for label in panel])
    remarks: dict[Sentence, None] = {}
    for axes, name, panel, ends_labels in zip(panels, names, drawn, labels, strict=True):
        axes.set_title(drawing.cut(say_(name), 48))
        if not panel:
            drawing.nothing(figure, axes, say_)
            continue
        ends = []
        shown: list[tuple[Any, Any]] = []
        for (arm, found), label in zip(panel, ends_labels, strict=True):
            is_rough = name not in goals and any(len(x) > FEW for x, _y in found)
            remarks |= {SMOOTHED: None} if is_rough else {}
            own = [(x, drawing.smooth(y)) for x, y in found] if is_rough else found
            shown += own
            x, rows = _over_seeds(own)
            end = float(x[-1]), float(np.nanmean(rows[:, -1]))
            _draw(axes, arm, x, rows, [end] if is_rough else [(x[-1], y[-1]) for x, y in found])
            ends.append((*end, label, arm.colour))
        low, high = _told_limits(shown)
        axes.set_ylim(low, high)
        remarks |= dict.fromkeys(_cut_off(name, shown, low, high))
        axes.set_xlim(left=0)
        axes.set_xlabel(say_(_("Value") if _is_counted(report, name) else _("Step")))
        axes.set_ylabel(drawing.cut(say_(name)))
        axes.xaxis.set_major_formatter(drawing.short_count)
        drawing.label_ends(axes, ends)
    _remark(figure, panels[0], arms, [*remarks], say_)
    return figure


def told(report: Report) -> tuple[list[str], list[str]]:
    """Return the metrics that have a goal or are judged, and those that are drawn, these first."""
    judged = {h.metric for h in report.study.hypotheses}
    goals = [name for name, goal in (report.goals or {}).items() if goal or name in judged]
    every = dict.fromkeys(name for run in report.runs for name in run.series)
    others = [name for name in every if name not in goals and not _is_counter(report.runs, name)]
    return goals, [*(name for name in goals if name in every), *others][:MOST_PANELS]


def _cut_off(name: str, curves: Sequence[tuple[Any, Any]], low: float, high: float) -> list[Sentence]:
    """Return a remark where the starts of a metric's curves lie outside of the axis."""
    outside = [float(x[(y < low) | (y > high)].max()) for x, y in curves if ((y < low) | (y > high)).any()]
    return [_("{metric} up to step {step} is not shown", name, f"{max(outside):,.0f}")] if outside else []


def _told_limits(curves: Sequence[tuple[Any, Any]]) -> tuple[float, float]:
    """Return limits that hold all of the curves; without a start that leaves too little room for the rest, which is
    compared.
    """
    values, late = np.concatenate([y for _x, y in curves]), np.concatenate([y[x >= 0.25 * x[-1]] for x, y in curves])
    kept = values if np.ptp(values) <= STEEP * np.ptp(late) else late
    room = 0.06 * float(np.ptp(kept)) or 0.01 * max(abs(float(kept[0])), 1e-9)
    return float(kept.min()) - room, float(kept.max()) + room


def _is_counter(runs: Sequence[LoadedRun], name: str) -> bool:
    """Tell whether a metric is the same for all runs that told it, step by step, as epochs are: it compares nothing."""
    tables = [run.series[name] for run in runs if name in run.series]
    first = tables[0]
    alike = [np.isin(table.step, first.step) for table in tables[1:]]
    return bool(alike) and all(
        same.any() and np.array_equal(table.value[same], first.value[np.isin(first.step, table.step)])
        for table, same in zip(tables[1:], alike, strict=True)
    )


def _told_curves(arm: DrawnArm, name: str) -> list[tuple[Any, Any]]:
    """Return steps and values of a metric of every run that told some, without those that count as infinite."""
    tables = [run.series[name] for run in arm.runs if name in run.series]
    values = [np.where(np.abs(table.value) <= LARGEST, table.value, np.nan) for table in tables]
    found = [drawing.thin(table.step.astype(float), value) for table, value in zip(tables, values, strict=True)]
    return [(x, y) for x, y in found if len(x)]


def _told_label(arm: DrawnArm, found: Sequence[tuple[Any, Any]], name: str, say_: Say) -> str:
    """Return the arm's name with the mean of its last values; a mean without what isn't finite would flatter it."""
    ends = [run.series[name].last.value for run in arm.runs if name in run.series]
    if odd := sum(not abs(end) <= LARGEST for end in ends):
        said = say_(_("{count} of {runs} not finite", odd, len(ends)))
        return f"{arm.label}  {said}"
    furthest = max(x[-1] for x, _y in found)
    return f"{arm.label}  {tables.number(float(np.mean([y[-1] for x, y in found if x[-1] == furthest])))}"


def _is_counted(report: Report, name: str) -> bool:
    return any(run.series[name].is_counted for run in report.runs if name in run.series)

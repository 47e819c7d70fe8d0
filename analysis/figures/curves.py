"""Figures over steps and tokens: validation PPL, training loss, learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from oelm_jobs.agent.sentences import Sentence, _

from .. import tables
from ..report import Report
from . import drawing
from .drawing import DrawnArm, Say

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def val_ppl(report: Report, arms: Sequence[DrawnArm], say_: Say) -> Figure:
    """Draw validation PPL over steps and over tokens: geometric mean, range over seeds, every seed's end point."""
    figure, grid = drawing.new(12.5, 4.6, columns=2)
    panels = []
    for axes, column, label, title in (
        (grid[0][0], "step", _("Step"), _("Validation perplexity over steps")),
        (grid[0][1], "tokens", _("Tokens"), _("Validation perplexity over tokens")),
    ):
        axes.set_title(say_(title))
        curves = [(arm, *_over_seeds(found), found) for arm in arms if (found := _curve(arm, column))]
        panels.append((axes, label, curves))
    labels = [_end_label(arm, found, say_) for *_panel, curves in panels for arm, *_range, found in curves]
    drawing.place_panels(figure, [panel[0] for panel in panels], labels)
    is_apart = False
    for axes, label, curves in panels:
        if not curves:
            drawing.nothing(axes, say_)
            continue
        low, high = _window([curve for *_, found in curves for curve in found])
        is_apart = is_apart or any(curve.is_apart for *_, found in curves for curve in found)
        axes.set_yscale("log")
        axes.set_ylim(low, high)
        ends = []
        for arm, x, mean, bottom, top, found in curves:
            axes.plot(x, mean, color=arm.colour, linestyle=arm.dashes, zorder=3)
            if len(found) > 1:
                axes.fill_between(x, bottom, top, color=arm.colour, alpha=0.18, linewidth=0, zorder=2)
            for curve in found:
                if not curve.is_diverged:
                    axes.plot(*curve.end, marker=arm.marker, color=arm.colour, markersize=5, linestyle="", zorder=4,
                              markeredgecolor="white", markeredgewidth=0.5)  # fmt: skip
            ends.append((max(curve.end[0] for curve in found), _end(found), _end_label(arm, found, say_), arm.colour))
        axes.set_xlim(left=0)
        axes.set_xlabel(say_(label))
        axes.set_ylabel(say_(_("Validation PPL")))
        axes.xaxis.set_major_formatter(drawing.short_count)
        drawing.plain_ticks(axes.yaxis, low, high)
        drawing.label_ends(axes, ends)
    said = [say_(_("band: range over seeds"))] if any(len(arm.runs) > 1 for arm in arms) else []
    if is_apart:
        said.append(say_(_("lines: validations on a part of the file; markers: the final one on the whole file")))
    figure.text(panels[0][0].get_position().x0, 0.0, "; ".join(said), fontsize=8, color="#555555")
    return figure


@dataclass(frozen=True)
class _Curve:
    """The validations of one run."""

    x: Any
    """Steps or tokens."""
    y: Any
    """PPL."""
    end: tuple[float, float]
    """The last validation, which is on the whole file where the others are on a part of it."""
    is_apart: bool
    """True where the end isn't a point of the curve."""
    is_diverged: bool
    """True where what the run would have ended with is not a number."""


def _curve(arm: DrawnArm, column: str) -> list[_Curve]:
    """Return x and PPL of every run's validations."""
    curves = []
    for run in arm.runs:
        if run.validations is None:
            continue
        ends: list[tuple[Any, Any]] = []
        for table in (run.validations, run.validations.curve):
            x, y = getattr(table, column).astype(float), np.exp(np.minimum(table.loss, 700.0))
            known = np.isfinite(x) & np.isfinite(y)
            ends.append((x[known], y[known]))
        (all_x, all_y), (x, y) = ends
        if len(all_x):
            x, y = (x, y) if len(x) else (all_x, all_y)
            end = (float(all_x[-1]), float(all_y[-1]))
            curves.append(_Curve(x, y, end, end[0] != float(x[-1]), run.diverged))
    return curves


def _end(curves: Sequence[_Curve]) -> float:
    """Return the geometric mean of the ends that lie furthest: those of unfinished runs don't count."""
    last = max(curve.end[0] for curve in curves)
    return float(np.exp(np.mean([np.log(curve.end[1]) for curve in curves if curve.end[0] == last])))


def _end_label(arm: DrawnArm, curves: Sequence[_Curve], say_: Say) -> str:
    """Return the arm's name with its final PPL; a mean that leaves out a diverged seed would flatter the arm."""
    diverged = sum(run.diverged for run in arm.runs)
    if diverged:
        said = say_(_("{count} of {runs} diverged", diverged, len(arm.runs)))
        return f"{drawing.cut(arm.label)}  {said}"
    return f"{drawing.cut(arm.label)}  {tables.show(tables.Cell(_end(curves)), tables.PPL, 'en')}"


def _over_seeds(curves: Sequence[_Curve]) -> tuple[Any, Any, Any, Any]:
    """Return x, geometric mean, lowest and highest over the seeds; x beyond the shortest seed only from those that
    got there.
    """
    grid = np.unique(np.concatenate([curve.x for curve in curves]))
    if len(grid) > 4 * drawing.POINTS:
        grid = grid[:: len(grid) // drawing.POINTS]
    rows = np.array([np.interp(grid, c.x, np.log(c.y), left=np.nan, right=np.nan) for c in curves])
    known = ~np.all(np.isnan(rows), axis=0)
    rows, grid = rows[:, known], grid[known]
    return grid, np.exp(np.nanmean(rows, axis=0)), np.exp(np.nanmin(rows, axis=0)), np.exp(np.nanmax(rows, axis=0))


def _window(curves: Sequence[_Curve]) -> tuple[float, float]:
    """Return limits that leave out the steep start, where nothing is compared, but keep every end in sight."""
    low = min(min(float(c.y.min()), c.end[1]) for c in curves)
    tops = [float(c.y[c.x >= 0.25 * c.x[-1]].max()) for c in curves]
    high = max([*tops, *(c.end[1] for c in curves)])
    room = max(high / low, 1.02) ** 0.06
    return low / room, high * room


def _lines(
    arms: Sequence[DrawnArm], say_: Say, column: str, title: Sentence, axis: Sentence, *, is_smoothed: bool
) -> Figure:
    figure, grid = drawing.new(8.6, 4.4)
    figure.subplots_adjust(left=0.1, right=0.72, bottom=0.13, top=0.9)
    axes = grid[0][0]
    axes.set_title(say_(title))
    drawn = []
    for arm in arms:
        for run in arm.runs:
            if run.curve is None:
                continue
            x, y = drawing.thin(run.curve.step, getattr(run.curve, column))
            if len(x):
                drawn.append((arm, x, drawing.smooth(y) if is_smoothed else y))
    if not drawn:
        drawing.nothing(axes, say_)
        return figure
    ends = []
    for position, arm in enumerate(arms):
        own = [(x, y) for other, x, y in drawn if other is arm]
        if not own:
            continue
        for x, y in own if len(own) > 1 else ():
            axes.plot(x, y, color=arm.colour, linewidth=0.7, alpha=0.35)
        grid_x, mean = own[0] if len(own) == 1 else _mean_over_seeds(own)
        # Equal schedules coincide: later lines are thinner, so that earlier ones stay visible.
        width = 1.8 if is_smoothed else max(1.4, 5.0 - 1.6 * position)
        axes.plot(
            grid_x, mean, color=arm.colour, linestyle=arm.dashes if is_smoothed else "-", linewidth=width, zorder=3
        )
        ends.append(
            (float(grid_x[-1]), float(mean[-1]), f"{drawing.cut(arm.label)}  {_last(column, mean[-1])}", arm.colour)
        )
    axes.set_xlim(left=0)
    if is_smoothed:
        low = min(float(y.min()) for _, _, y in drawn)
        high = max(float(y[x >= 0.05 * x[-1]].max()) for _, x, y in drawn)
        axes.set_ylim(low - 0.03 * (high - low) - 1e-3, high + 0.05 * (high - low) + 1e-3)
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlabel(say_(_("Step")))
    axes.set_ylabel(say_(axis))
    axes.xaxis.set_major_formatter(drawing.short_count)
    if column == "lr":
        axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    drawing.label_ends(axes, ends)
    return figure


def _last(column: str, value: float) -> str:
    """Return a line's last value with the digits that tell arms apart."""
    return f"{value:.3f}" if column == "loss" else f"{value:.3g}"


def _mean_over_seeds(curves: Sequence[tuple[Any, Any]]) -> tuple[Any, Any]:
    grid = np.unique(np.concatenate([x for x, _ in curves]))
    rows = np.array([np.interp(grid, x, y, left=np.nan, right=np.nan) for x, y in curves])
    return grid, np.nanmean(rows, axis=0)


def training_loss(report: Report, arms: Sequence[DrawnArm], say_: Say) -> Figure:
    """Draw training loss, a running mean over 2 % of the points."""
    return _lines(arms, say_, "loss", drawing.TITLES["training_loss"], _("Loss (nats per token)"), is_smoothed=True)


def learning_rate(report: Report, arms: Sequence[DrawnArm], say_: Say) -> Figure:
    """Draw the learning rates of all groups over steps."""
    title = drawing.TITLES["learning_rate"]
    return _lines(arms, say_, "lr", title, _("Learning rate"), is_smoothed=False)

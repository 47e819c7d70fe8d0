"""Owns the figures over steps and tokens: validation PPL, training loss, learning rate; leaves style, labels and files
to ``drawing``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import drawing
from .drawing import Arm, Say
from .report import Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def val_ppl(report: Report, arms: Sequence[Arm], say_: Say) -> Figure:
    """Validation PPL over steps and over tokens: geometric mean, range over seeds, every seed's end point."""
    figure, grid = drawing.new(12.5, 4.6, columns=2)
    panels = []
    for axes, column in zip(grid[0], ("step", "tokens"), strict=True):
        curves = [(arm, *_over_seeds(found), found) for arm in arms if (found := _curve(arm, column))]
        panels.append((axes, column, curves))
    labels = [f"{drawing.cut(arm.label)}  {mean[-1]:.3g}" for _, _, curves in panels for arm, _, mean, *_ in curves]
    drawing.place_panels(figure, [panel[0] for panel in panels], labels)
    for axes, column, curves in panels:
        axes.set_title(say_(f"figure_val_ppl_over_{column}"))
        if not curves:
            drawing.nothing(axes, say_)
            continue
        low, high = _window([curve for *_, found in curves for curve in found])
        axes.set_yscale("log")
        axes.set_ylim(low, high)
        ends = []
        for arm, x, mean, bottom, top, found in curves:
            axes.plot(x, mean, color=arm.colour, linestyle=arm.dashes, zorder=3)
            if len(found) > 1:
                axes.fill_between(x, bottom, top, color=arm.colour, alpha=0.18, linewidth=0, zorder=2)
            for xs, ys in found:
                axes.plot(xs[-1], ys[-1], marker=arm.marker, color=arm.colour, markersize=4, linestyle="", zorder=4,
                          markeredgecolor="white", markeredgewidth=0.5)  # fmt: skip
            ends.append((float(x[-1]), float(mean[-1]), f"{drawing.cut(arm.label)}  {mean[-1]:.3g}", arm.colour))
        axes.set_xlim(left=0)
        axes.set_xlabel(say_(f"axis_{column}"))
        axes.set_ylabel(say_("axis_val_ppl"))
        axes.xaxis.set_major_formatter(drawing.short_count)
        drawing.plain_ticks(axes.yaxis, low, high)
        drawing.label_ends(axes, ends)
    if any(len(arm.runs) > 1 for arm in arms):
        figure.text(panels[0][0].get_position().x0, 0.0, say_("band_words"), fontsize=8, color="#555555")
    return figure


def _curve(arm: Arm, column: str) -> list[tuple[Any, Any]]:
    """Return x and PPL of every run's validations."""
    curves = []
    for run in arm.runs:
        if run.validations is None:
            continue
        x = getattr(run.validations, column).astype(float)
        y = np.exp(np.minimum(run.validations.loss, 700.0))
        known = np.isfinite(x) & np.isfinite(y)
        if known.any():
            curves.append((x[known], y[known]))
    return curves


def _over_seeds(curves: Sequence[tuple[Any, Any]]) -> tuple[Any, Any, Any, Any]:
    """Return x, geometric mean, lowest and highest over the seeds; x beyond the shortest seed only from those that
    got there.
    """
    grid = np.unique(np.concatenate([x for x, _ in curves]))
    if len(grid) > 4 * drawing.POINTS:
        grid = grid[:: len(grid) // drawing.POINTS]
    rows = np.array([np.interp(grid, x, np.log(y), left=np.nan, right=np.nan) for x, y in curves])
    known = ~np.all(np.isnan(rows), axis=0)
    rows, grid = rows[:, known], grid[known]
    return grid, np.exp(np.nanmean(rows, axis=0)), np.exp(np.nanmin(rows, axis=0)), np.exp(np.nanmax(rows, axis=0))


def _window(curves: Sequence[tuple[Any, Any]]) -> tuple[float, float]:
    """Return limits that leave out the steep start, where nothing is compared, but keep every end in sight."""
    low = min(float(y.min()) for _, y in curves)
    tops = []
    for x, y in curves:
        later = y[x >= 0.25 * x[-1]]
        tops.append(float(later.max()) if len(later) else float(y.max()))
    high = max([*tops, *(float(y[-1]) for _, y in curves)])
    room = max(high / low, 1.02) ** 0.06
    return low / room, high * room


def _lines(
    report: Report, arms: Sequence[Arm], say_: Say, column: str, title: str, axis: str, *, is_smoothed: bool
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
        # Equal schedules lie on each other: the later line is thinner, so that the earlier ones stay in sight.
        width = 1.8 if is_smoothed else max(1.4, 5.0 - 1.6 * position)
        axes.plot(
            grid_x, mean, color=arm.colour, linestyle=arm.dashes if is_smoothed else "-", linewidth=width, zorder=3
        )
        ends.append((float(grid_x[-1]), float(mean[-1]), f"{drawing.cut(arm.label)}  {mean[-1]:.3g}", arm.colour))
    axes.set_xlim(left=0)
    if is_smoothed:
        low = min(float(y.min()) for _, _, y in drawn)
        high = max(float(y[x >= 0.05 * x[-1]].max()) for _, x, y in drawn)
        axes.set_ylim(low - 0.03 * (high - low) - 1e-3, high + 0.05 * (high - low) + 1e-3)
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlabel(say_("axis_step"))
    axes.set_ylabel(say_(axis))
    axes.xaxis.set_major_formatter(drawing.short_count)
    if column == "lr":
        axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    drawing.label_ends(axes, ends)
    return figure


def _mean_over_seeds(curves: Sequence[tuple[Any, Any]]) -> tuple[Any, Any]:
    grid = np.unique(np.concatenate([x for x, _ in curves]))
    rows = np.array([np.interp(grid, x, y, left=np.nan, right=np.nan) for x, y in curves])
    return grid, np.nanmean(rows, axis=0)


def training_loss(report: Report, arms: Sequence[Arm], say_: Say) -> Figure:
    """Training loss, a running mean over 2 % of the points."""
    return _lines(report, arms, say_, "loss", "figure_training_loss", "axis_loss", is_smoothed=True)


def learning_rate(report: Report, arms: Sequence[Arm], say_: Say) -> Figure:
    """Learning rates of all groups: unequal schedules show at a glance."""
    return _lines(report, arms, say_, "lr", "figure_learning_rate", "axis_lr", is_smoothed=False)

"""Figures of one value per group: parameters, speed, loss against parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from oelm_jobs import table
from oelm_jobs.agent.sentences import Sentence, _

from .. import summaries
from ..reading.loaded_run import LoadedRun
from ..report import Report
from . import drawing
from .drawing import DrawnArm, Say

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class _Part:
    """A part of a model's parameters, as the figure shows it."""

    name: Sentence
    colour: str
    is_frozen: bool = False


EMBEDDING = _Part(_("embedding"), "#BBBBBB")
OTHER = _Part(_("other"), "#56B4E9")
OTHER_FROZEN = _Part(_("other frozen"), "#F0C97A", is_frozen=True)
QK = _Part(_("Q/K"), "#0072B2")
QK_FROZEN = _Part(_("Q/K, frozen"), "#E69F00", is_frozen=True)
TRAINABLE = _Part(_("trainable"), "#56B4E9")
FROZEN = _Part(_("frozen"), "#E69F00", is_frozen=True)


def parameters(report: Report, arms: Sequence[DrawnArm], say_: Say) -> Figure:
    """Draw stacked bars of the parameters of each group; frozen parts are hatched."""
    known = [(arm, next((run.parameters for run in arm.runs if run.parameters.total), None)) for arm in arms]
    shown = [(arm, counts) for arm, counts in known if counts is not None and counts.total]
    figure, grid = drawing.new(9.0, 1.5 + 0.62 * max(len(shown), 1))
    axes = grid[0][0]
    axes.set_title(say_(drawing.TITLES["parameter_distribution"]), pad=26)
    if not shown:
        drawing.nothing(axes, say_)
        return figure
    used: dict[_Part, Any] = {}
    size_of, unit = _unit([counts.total or 0 for _arm, counts in shown])
    longest = max(counts.total or 0 for _arm, counts in shown) / size_of
    for row, (_arm, counts) in enumerate(shown):
        left = 0.0
        for part, count in _parts(counts):
            size = count / size_of
            bar = axes.barh(
                row,
                size,
                left=left,
                height=0.6,
                color=part.colour,
                edgecolor="white",
                linewidth=0.8,
                hatch="////" if part.is_frozen else "",
            )
            used.setdefault(part, bar)
            if size > 0.07 * longest:
                axes.text(
                    left + size / 2,
                    row,
                    f"{size:.3g}",
                    ha="center",
                    va="center",
                    fontsize=9,
                    color="white" if part is QK else "black",
                    bbox={"facecolor": part.colour, "edgecolor": "none", "pad": 1.0} if part.is_frozen else None,
                )
            left += size
        note = f"{left:.4g}"
        if counts.trainable is not None:
            note += f"  ({say_(TRAINABLE.name)} {counts.trainable / size_of:.4g})"
        axes.text(
            left + 0.012 * longest,
            row,
            note,
            va="center",
            fontsize=9,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        )
    axes.set_yticks(range(len(shown)), [drawing.cut(arm.label) for arm, _ in shown])
    axes.invert_yaxis()
    axes.set_xlim(0, longest * 1.3)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(say_(_("Parameters ({unit})", unit)))
    axes.legend(
        list(used.values()),
        [say_(part.name) for part in used],
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=len(used),
        frameon=False,
        fontsize=9,
        borderaxespad=0.2,
        handlelength=1.4,
        columnspacing=1.4,
    )
    return figure


def _unit(counts: Sequence[int]) -> tuple[float, Sentence]:
    """Return what counts are divided by, and its name."""
    return (1e6, _("millions")) if max(counts, default=0) >= 1e6 else (1e3, _("thousands"))


def _parts(counts: Any) -> list[tuple[_Part, int]]:
    total, frozen = counts.total, counts.frozen or 0
    if counts.embedding is None or counts.qk is None:
        return [(part, n) for part, n in ((TRAINABLE, total - frozen), (FROZEN, frozen)) if n > 0]
    qk_frozen = min(frozen, counts.qk)
    rest = total - counts.embedding - counts.qk - (frozen - qk_frozen)
    parts = ((EMBEDDING, counts.embedding), (OTHER, rest), (OTHER_FROZEN, frozen - qk_frozen),
             (QK, counts.qk - qk_frozen), (QK_FROZEN, qk_frozen))  # fmt: skip
    return [(part, n) for part, n in parts if n > 0]


def speed(report: Report, arms: Sequence[DrawnArm], say_: Say) -> Figure:
    """Draw tokens per second and GPU: every run a point, the mean a bar; the label names the hardware, on which
    comparability depends.
    """
    shown = [(arm, [run for run in arm.runs if run.tokens_per_s_per_gpu]) for arm in arms]
    shown = [(arm, runs) for arm, runs in shown if runs]
    figure, grid = drawing.new(8.6, 1.4 + 0.6 * max(len(shown), 1))
    axes = grid[0][0]
    axes.set_title(say_(drawing.TITLES["speed"]))
    if not shown:
        drawing.nothing(axes, say_)
        return figure
    top = max(run.tokens_per_s_per_gpu or 0.0 for _, runs in shown for run in runs)
    for row, (arm, runs) in enumerate(shown):
        rates = [run.tokens_per_s_per_gpu or 0.0 for run in runs]
        mean = sum(rates) / len(rates)
        axes.barh(row, mean, height=0.5, color=arm.colour, alpha=0.35)
        axes.plot(
            rates,
            [row] * len(rates),
            linestyle="",
            marker=arm.marker,
            color=arm.colour,
            markersize=6,
            markeredgecolor="white",
        )
        axes.text(top * 1.03, row, f"{mean:,.0f}", va="center", fontsize=9)
    axes.set_yticks(range(len(shown)), [f"{drawing.cut(arm.label)}\n{_hardware(runs)}" for arm, runs in shown])
    axes.invert_yaxis()
    axes.set_xlim(0, top * 1.15)
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_formatter(drawing.short_count)
    axes.set_xlabel(say_(_("Tokens per second and GPU")))
    return figure


def _hardware(runs: Sequence[LoadedRun]) -> str:
    seen = sorted({f"{run.world_size or '–'} × {drawing.cut(run.hardware.get('name') or '–')}" for run in runs})
    return ", ".join(seen)


def efficiency(report: Report, arms: Sequence[DrawnArm], say_: Say) -> Figure:
    """Draw final validation loss against trainable parameters: every run a point, a dash at the mean of a group."""
    figure, grid = drawing.new(7.2, 4.4)
    figure.subplots_adjust(left=0.12, right=0.72, bottom=0.13, top=0.9)
    axes = grid[0][0]
    axes.set_title(say_(drawing.TITLES["loss_vs_parameters"]))
    ends = []
    size_of, unit = _unit([run.parameters.trainable or 0 for arm in arms for run in arm.runs])
    for arm in arms:
        points = [
            (run.parameters.trainable / size_of, run.final.loss)
            for run in summaries.finished(arm.runs)
            if run.parameters.trainable and run.final is not None and math.isfinite(run.final.loss)
        ]
        if points:
            look = {"linestyle": "", "color": arm.colour, "zorder": 3}
            axes.plot(
                *zip(*points, strict=True), marker=arm.marker, markersize=8, alpha=0.85, markeredgecolor="white", **look
            )
            mean = sum(p[1] for p in points) / len(points)
            if len(points) > 1:
                axes.plot(points[0][0], mean, marker="_", markersize=18, markeredgewidth=2, **look)
            ends.append((points[0][0], mean, f"{drawing.cut(arm.label)}  {mean:.4f}", arm.colour))
    failed = tuple(drawing.cut(arm.label) for arm in arms if any(run.diverged for run in arm.runs))
    if failed:
        said = say_(_("diverged and not shown: runs of {groups}", failed))
        figure.text(0.02, 0.0, said, fontsize=8, color="#555555", va="top")
    if not ends:
        drawing.nothing(axes, say_)
        return figure
    axes.margins(0.15)
    axes.set_xlabel(say_(_("Trainable parameters ({unit})", unit)))
    axes.set_ylabel(say_(_("Loss (nats per token)")))
    axes.autoscale_view()
    _label_columns(axes, ends)
    return figure


def _label_columns(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Write each label right of its own points where the columns of points leave room for it, else all of them right of
    the axes.
    """
    left, right = axes.get_xlim()
    width = axes.get_window_extent().width / axes.figure.dpi  # inches
    columns: dict[int, list[tuple[float, float, str, str]]] = {}
    for end in ends:
        columns.setdefault(round((end[0] - left) / (right - left) * 40), []).append(end)
    inner, outer = sorted(columns)[:-1], max(columns)
    room = {at: (following - at) / 40 * width for at, following in zip(inner, sorted(columns)[1:], strict=True)}
    if any(room[at] < 0.3 + 0.078 * max(table.width(end[2]) for end in columns[at]) for at in inner):
        drawing.label_ends(axes, ends)
        return
    drawing.label_ends(axes, columns[outer])
    for at in inner:
        drawing.label_ends(axes, columns[at], beside=(columns[at][0][0] - left) / (right - left) + 0.035)

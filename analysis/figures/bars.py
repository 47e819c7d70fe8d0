"""Figures of one value per group: parameters, speed, loss against parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from oelm_jobs import fitting
from oelm_jobs.agent.sentences import Sentence, _

from ..reading.loaded_run import LoadedRun, finished
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
MEAN = 18
"""Points of the dash at a mean."""


def parameters(report: Report, arms: Sequence[DrawnArm], say_: Say) -> Figure:
    """Draw stacked bars of the parameters of each group; frozen parts are hatched."""
    shown = []
    for arm in arms:
        counts = next((run.parameters for run in arm.runs if run.parameters.total), None)
        if counts is not None:
            shown.append((arm, counts, counts.total or 0))
    figure, axes = drawing.panel(
        9.0, 1.5 + 0.62 * max(len(shown), 1), say_(drawing.TITLES["parameter_distribution"]), pad=26
    )
    if not shown:
        return drawing.nothing(figure, axes, say_)
    used: dict[_Part, Any] = {}
    size_of, unit = _unit([total for *_arm, total in shown])
    longest = max(total for *_arm, total in shown) / size_of
    for row, (_arm, counts, _total) in enumerate(shown):
        left = 0.0
        for part, count in _parts(counts):
            size = count / size_of
            look: dict[str, Any] = {"color": part.colour, "hatch": "////" if part.is_frozen else ""}
            bar = axes.barh(row, size, left=left, height=0.6, edgecolor="white", linewidth=0.8, **look)
            used.setdefault(part, bar)
            if size > 0.07 * longest:
                look = {"ha": "center", "color": "white" if part is QK else "black"}
                ground = part.colour if part.is_frozen else ""
                drawing.value(axes, left + size / 2, row, f"{size:.3g}", on=ground, pad=1.0, **look)
            left += size
        note = f"{left:.4g}"
        if counts.trainable is not None:
            note += f"  ({say_(TRAINABLE.name)} {counts.trainable / size_of:.4g})"
        drawing.value(axes, left + 0.012 * longest, row, note, on="white")
    drawing.name_bars(axes, [arm.label for arm, *_counts in shown], longest * 1.3, say_(_("Parameters ({unit})", unit)))
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
    """Draw tokens per second and GPU, or process on CPUs: every run a point, the mean a bar; the label names the
    hardware, on which comparability depends.
    """
    shown = [(arm, runs) for arm in arms if (runs := [run for run in arm.runs if run.tokens_per_s_per_gpu])]
    figure, axes = drawing.panel(8.6, 1.4 + 0.6 * max(len(shown), 1), say_(drawing.TITLES["speed"]))
    if not shown:
        return drawing.nothing(figure, axes, say_)
    top = max(run.tokens_per_s_per_gpu or 0.0 for _, runs in shown for run in runs)
    for row, (arm, runs) in enumerate(shown):
        rates = [run.tokens_per_s_per_gpu or 0.0 for run in runs]
        mean = sum(rates) / len(rates)
        look: dict[str, Any] = {"color": arm.colour, "marker": arm.marker, "markersize": 6, "markeredgecolor": "white"}
        axes.barh(row, mean, height=0.5, color=arm.colour, alpha=0.35)
        axes.plot(rates, [row] * len(rates), linestyle="", **look)
        drawing.value(axes, top * 1.03, row, f"{mean:,.0f}")
    names = [f"{arm.label}\n{_hardware(runs)}" for arm, runs in shown]
    quantity = _("Tokens per second and GPU")
    if report.is_on_cpus:
        is_single = all(run.world_size == 1 for _arm, runs in shown for run in runs)
        quantity = _("Tokens per second") if is_single else _("Tokens per second and process")
    drawing.name_bars(axes, names, top * 1.15, say_(quantity))
    axes.xaxis.set_major_formatter(drawing.short_count)
    return figure


def _hardware(runs: Sequence[LoadedRun]) -> str:
    return ", ".join(sorted({_devices(run) for run in runs}))


def _devices(run: LoadedRun) -> str:
    name = drawing.cut(run.hardware.get("name") or "–")
    return name if run.is_on_cpus and run.world_size == 1 else f"{run.world_size or '–'} × {name}"


def efficiency(report: Report, arms: Sequence[DrawnArm], say_: Say) -> Figure:
    """Draw final validation loss against trainable parameters: every run a point, a dash at the mean of a group."""
    figure, axes = drawing.panel(7.2, 4.4, say_(drawing.TITLES["loss_vs_parameters"]))
    figure.subplots_adjust(left=0.12, right=0.72, bottom=0.13, top=0.9)
    ends = []
    size_of, unit = _unit([run.parameters.trainable or 0 for arm in arms for run in arm.runs])
    for arm in arms:
        points = [
            (run.parameters.trainable / size_of, run.final.loss)
            for run in finished(arm.runs)
            if run.parameters.trainable and run.final is not None and math.isfinite(run.final.loss)
        ]
        if points:
            look: dict[str, Any] = {"linestyle": "", "color": arm.colour, "zorder": 3}
            axes.plot(
                *zip(*points, strict=True), marker=arm.marker, markersize=8, alpha=0.85, markeredgecolor="white", **look
            )
            mean = sum(p[1] for p in points) / len(points)
            if len(points) > 1:
                axes.plot(points[0][0], mean, marker="_", markersize=MEAN, markeredgewidth=2, **look)
            ends.append((points[0][0], mean, f"{arm.label}  {mean:.4f}", arm.colour))
    if failed := [arm.label for arm in arms if any(run.diverged for run in arm.runs)]:
        drawing.remark(figure, say_(_("diverged and not shown: runs of {groups}", failed)))
    if not ends:
        return drawing.nothing(figure, axes, say_)
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
    clearance = MEAN / 2 + 1
    columns: dict[int, list[tuple[float, float, str, str]]] = {}
    for end in ends:
        columns.setdefault(round((end[0] - left) / (right - left) * 40), []).append(end)
    inner, outer = sorted(columns)[:-1], max(columns)
    room = {at: (following - at) / 40 * width for at, following in zip(inner, sorted(columns)[1:], strict=True)}
    if any(room[at] < 0.3 + 0.078 * max(fitting.width(end[2]) for end in columns[at]) for at in inner):
        drawing.label_ends(axes, ends, clearance=clearance)
        return
    drawing.label_ends(axes, columns[outer], clearance=clearance)
    for at in inner:
        beside = (columns[at][0][0] - left) / (right - left) + (clearance / 72 + 0.07) / width
        drawing.label_ends(axes, columns[at], beside=beside, clearance=clearance)

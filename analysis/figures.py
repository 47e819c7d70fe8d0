"""Owns the figures of a report, one function each; leaves style, labels and files to ``drawing``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from oelm_jobs.spec import Hypothesis

from . import drawing, wording
from .records import LoadedRun
from .report import Report
from .verdicts import Verdict
from .words import Text, say, text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class _Arm:
    """A group as the figures show it."""

    label: str
    runs: tuple[LoadedRun, ...]
    colour: str
    dashes: Any
    marker: str


def draw(report: Report, language: str, folder: Path, style: Path | None = None) -> tuple[list[tuple[Path, bytes]], list[Text]]:
    """Return the files of all figures (PNG and SVG) and remarks; a figure without values says so instead of being absent."""
    remarks = []
    if language == "zh":
        with drawing.style(style):
            font = drawing.cjk_font()
        if font is None:
            language = "en"
            remarks.append(text("no_cjk_font"))
    files: list[tuple[Path, bytes]] = []
    with drawing.style(style):
        import matplotlib

        if language == "zh" and (font := drawing.cjk_font()):
            matplotlib.rcParams["font.sans-serif"] = [font, *matplotlib.rcParams["font.sans-serif"]]
        arms = _arms(report)
        for name, make in FIGURES.items():
            figure = make(report, arms, lambda key, /, **values: say(text(key, **values), language))
            files += drawing.save(figure, folder / f"{name}.png")
    return files, remarks


Say = Callable[..., str]


def _arms(report: Report) -> list[_Arm]:
    labels = report.labels
    return [
        _Arm(
            labels[name], runs, drawing.colour(i), drawing.DASHES[i % len(drawing.DASHES)], drawing.MARKERS[i % len(drawing.MARKERS)]
        )
        for i, (name, runs) in enumerate(report.groups.items())
    ]


def _figure(width: float, height: float, columns: int = 1, rows: int = 1, **grid: Any) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure as MatplotlibFigure

    figure = MatplotlibFigure(figsize=(width, height))
    return figure, figure.subplots(rows, columns, squeeze=False, **grid)


def _nothing(axes: Axes, say_: Say) -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, say_("no_values"), ha="center", va="center", transform=axes.transAxes, color="#666666")


def _curve(arm: _Arm, column: str) -> list[tuple[Any, Any]]:
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


def val_ppl(report: Report, arms: Sequence[_Arm], say_: Say) -> Figure:
    """Validation PPL over steps and over tokens: geometric mean, range over seeds, every seed's end point."""
    figure, grid = _figure(12.5, 4.6, columns=2)
    figure.subplots_adjust(left=0.06, right=0.84, wspace=0.62, bottom=0.13, top=0.88)
    for axes, column, axis in zip(grid[0], ("step", "tokens"), ("axis_step", "axis_tokens")):
        curves = [(arm, found) for arm in arms if (found := _curve(arm, column))]
        axes.set_title(say_(f"figure_val_ppl_over_{column}"))
        if not curves:
            _nothing(axes, say_)
            continue
        low, high = _window([curve for _, found in curves for curve in found])
        axes.set_yscale("log")
        axes.set_ylim(low, high)
        ends = []
        for arm, found in curves:
            x, mean, bottom, top = _over_seeds(found)
            axes.plot(x, mean, color=arm.colour, linestyle=arm.dashes, zorder=3)
            if len(found) > 1:
                axes.fill_between(x, bottom, top, color=arm.colour, alpha=0.18, linewidth=0, zorder=2)
            for xs, ys in found:
                axes.plot(xs[-1], ys[-1], marker=arm.marker, color=arm.colour, markersize=4, linestyle="", zorder=4, markeredgecolor="white", markeredgewidth=0.5)
            ends.append((float(x[-1]), float(mean[-1]), f"{arm.label}  {mean[-1]:.3g}", arm.colour))
        axes.set_xlim(left=0)
        axes.set_xlabel(say_(axis))
        axes.set_ylabel(say_("axis_val_ppl"))
        axes.xaxis.set_major_formatter(drawing.short_count)
        drawing.plain_ticks(axes.yaxis, low, high)
        drawing.label_ends(axes, ends)
    if any(len(arm.runs) > 1 for arm in arms):
        figure.text(0.06, 0.005, say_("band_words"), fontsize=8, color="#555555")
    return figure


def _over_seeds(curves: Sequence[tuple[Any, Any]]) -> tuple[Any, Any, Any, Any]:
    """Return x, geometric mean, lowest and highest over the seeds; x beyond the shortest seed only from those that got there."""
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


def parameters(report: Report, arms: Sequence[_Arm], say_: Say) -> Figure:
    """Stacked bars of the parameters of each group; frozen parts are hatched."""
    known = [(arm, next((run.parameters for run in arm.runs if run.parameters.total), None)) for arm in arms]
    shown = [(arm, counts) for arm, counts in known if counts is not None and counts.total]
    figure, grid = _figure(9.0, 1.5 + 0.62 * max(len(shown), 1))
    axes = grid[0][0]
    axes.set_title(say_("figure_parameter_distribution"), pad=26)
    if not shown:
        _nothing(axes, say_)
        return figure
    parts = {"part_embedding": "#BBBBBB", "part_other": "#56B4E9", "part_qk": "#0072B2", "part_qk_frozen": "#E69F00", "part_frozen": "#F0C97A", "part_trainable": "#56B4E9"}  # fmt: skip
    used: dict[str, Any] = {}
    longest = max(counts.total or 0 for _, counts in shown) / 1e6
    for row, (arm, counts) in enumerate(shown):
        left = 0.0
        for part, count in _parts(counts):
            size = count / 1e6
            frozen = part.endswith("frozen")
            bar = axes.barh(row, size, left=left, height=0.6, color=parts[part], edgecolor="white", linewidth=0.8, hatch="////" if frozen else "")
            used.setdefault(part, bar)
            if size > 0.07 * longest:
                axes.text(left + size / 2, row, f"{size:.3g}", ha="center", va="center", fontsize=9,
                          color="white" if part == "part_qk" else "black",
                          bbox={"facecolor": parts[part], "edgecolor": "none", "pad": 1.0} if frozen else None)  # fmt: skip
            left += size
        trainable = counts.trainable if counts.trainable is not None else None
        note = f"{left:.4g}" + (f"  ({say_('part_trainable')} {trainable / 1e6:.4g})" if trainable is not None else "")
        axes.text(left + 0.012 * longest, row, note, va="center", fontsize=9, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})
    axes.set_yticks(range(len(shown)), [arm.label for arm, _ in shown])
    axes.invert_yaxis()
    axes.set_xlim(0, longest * 1.3)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(say_("axis_params"))
    axes.legend(list(used.values()), [say_(part) for part in used], loc="lower left", bbox_to_anchor=(0, 1.0), ncols=len(used), frameon=False,
                fontsize=9, borderaxespad=0.2, handlelength=1.4, columnspacing=1.4)  # fmt: skip
    return figure


def _parts(counts: Any) -> list[tuple[str, int]]:
    total, frozen = counts.total, counts.frozen or 0
    if counts.embedding is None or counts.qk is None:
        return [(part, n) for part, n in (("part_trainable", total - frozen), ("part_frozen", frozen)) if n > 0]
    qk_frozen = min(frozen, counts.qk)
    rest = total - counts.embedding - counts.qk - (frozen - qk_frozen)
    parts = (("part_embedding", counts.embedding), ("part_other", rest), ("part_frozen", frozen - qk_frozen),
             ("part_qk", counts.qk - qk_frozen), ("part_qk_frozen", qk_frozen))  # fmt: skip
    return [(part, n) for part, n in parts if n > 0]


def _lines(report: Report, arms: Sequence[_Arm], say_: Say, column: str, title: str, axis: str, *, is_smoothed: bool) -> Figure:
    figure, grid = _figure(8.6, 4.4)
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
        _nothing(axes, say_)
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
        axes.plot(grid_x, mean, color=arm.colour, linestyle=arm.dashes if is_smoothed else "-", linewidth=width, zorder=3)
        ends.append((float(grid_x[-1]), float(mean[-1]), f"{arm.label}  {mean[-1]:.3g}", arm.colour))
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


def training_loss(report: Report, arms: Sequence[_Arm], say_: Say) -> Figure:
    """Training loss, a running mean over 2 % of the points."""
    return _lines(report, arms, say_, "loss", "figure_training_loss", "axis_loss", is_smoothed=True)


def learning_rate(report: Report, arms: Sequence[_Arm], say_: Say) -> Figure:
    """Learning rates of all groups: unequal schedules show at a glance."""
    return _lines(report, arms, say_, "lr", "figure_learning_rate", "axis_lr", is_smoothed=False)


def speed(report: Report, arms: Sequence[_Arm], say_: Say) -> Figure:
    """Tokens per second and GPU: every run a point, the mean a bar; hardware in the label because it decides comparability."""
    shown = [(arm, [run for run in arm.runs if run.tokens_per_s_per_gpu]) for arm in arms]
    shown = [(arm, runs) for arm, runs in shown if runs]
    figure, grid = _figure(8.6, 1.4 + 0.6 * max(len(shown), 1))
    axes = grid[0][0]
    axes.set_title(say_("figure_speed"))
    if not shown:
        _nothing(axes, say_)
        return figure
    top = max(run.tokens_per_s_per_gpu or 0.0 for _, runs in shown for run in runs)
    for row, (arm, runs) in enumerate(shown):
        rates = [run.tokens_per_s_per_gpu or 0.0 for run in runs]
        mean = sum(rates) / len(rates)
        axes.barh(row, mean, height=0.5, color=arm.colour, alpha=0.35)
        axes.plot(rates, [row] * len(rates), linestyle="", marker=arm.marker, color=arm.colour, markersize=6, markeredgecolor="white")
        axes.text(top * 1.03, row, f"{mean:,.0f}", va="center", fontsize=9)
    axes.set_yticks(range(len(shown)), [f"{arm.label}\n{_hardware(runs)}" for arm, runs in shown])
    axes.invert_yaxis()
    axes.set_xlim(0, top * 1.15)
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_formatter(drawing.short_count)
    axes.set_xlabel(say_("axis_rate"))
    return figure


def _hardware(runs: Sequence[LoadedRun]) -> str:
    seen = sorted({f"{run.world_size or '–'} × {_cut(run.hardware.get('name') or '–')}" for run in runs})
    return ", ".join(seen)


def _cut(name: str) -> str:
    return name if len(name) <= 28 else name[:27] + "…"


def forest(report: Report, arms: Sequence[_Arm], say_: Say) -> Figure:
    """A row a hypothesis on its own scale: region of the rule shaded, interval, estimate, every pair's ratio."""
    verdicts = report.verdicts
    figure, grid = _figure(8.6, 0.6 + 1.15 * max(len(verdicts), 1), rows=max(len(verdicts), 1))
    figure.subplots_adjust(left=0.3, right=0.97, hspace=1.1, top=1 - 0.45 / (0.6 + 1.15 * max(len(verdicts), 1)), bottom=0.12)
    if not verdicts:
        _nothing(grid[0][0], say_)
        return figure
    for row, verdict in enumerate(verdicts):
        _forest_row(grid[row][0], verdict, report, say_)
    grid[0][0].set_title(say_("figure_verdicts"), x=-0.42)
    return figure


def _forest_row(axes: Axes, verdict: Verdict, report: Report, say_: Say) -> None:
    from matplotlib import ticker

    h = verdict.hypothesis
    tint = {"supported": "#0072B2", "refuted": "#D55E00", "met (one seed)": "#0072B2", "not met (one seed)": "#D55E00"}.get(verdict.outcome, "#666666")
    scale = _scale(h)
    ratios = [scale(a.raw / b.raw) for a, b in zip(verdict.group, verdict.against)] if verdict.method == "paired" else []
    ratios = [ratio for ratio in ratios if math.isfinite(ratio)]
    estimate = scale(verdict.ratio) if verdict.ratio is not None and math.isfinite(verdict.ratio) else None
    region = sorted(scale(edge) for edge in verdict.region)
    bounds = sorted(map(scale, verdict.interval)) if verdict.interval else []
    equal = scale(1.0)
    numbers = [n for n in (equal, *(scale(v) for v in verdict.region if 0 < v < math.inf), *ratios, *bounds) if math.isfinite(n)]
    numbers += [estimate] if estimate is not None else []
    low, high = min(numbers), max(numbers)
    room = 0.25 * max(high - low, 0.02 * (1 if h.relation == "ratio_at_least" else 100))
    low, high = low - room, high + room
    axes.set_xlim(low, high)
    axes.set_ylim(-1, 1)
    axes.axvspan(max(region[0], low), min(region[1], high), color="#009E73", alpha=0.15, linewidth=0)
    for edge in region:
        if low < edge < high:
            axes.axvline(edge, color="#009E73", linewidth=1.2)
    axes.axvline(equal, color="#444444", linewidth=0.8, linestyle=(0, (2, 2)))
    if ratios:
        axes.plot(ratios, [-0.5] * len(ratios), linestyle="", marker="|", markersize=8, color="#555555")
    if bounds:
        axes.plot(bounds, [0.1, 0.1], color=tint, linewidth=2.5, solid_capstyle="butt")
    if estimate is not None and verdict.ratio is not None:
        hollow = verdict.interval is None and verdict.method != "exact"
        axes.plot(estimate, 0.1, marker="o", markersize=8, color=tint, markerfacecolor="white" if hollow else tint, markeredgewidth=1.8)
        axes.annotate(
            wording.in_rule_units(h, verdict.ratio), (estimate, 0.1), xytext=(0, 7), textcoords="offset points", ha="center", va="bottom",
            fontsize=9, color=tint, annotation_clip=False,
        )  # fmt: skip
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", visible=False)
    if h.relation == "ratio_at_least":
        axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        sign = "" if h.relation == "reduction" else "+"
        axes.xaxis.set_major_formatter(
            ticker.FuncFormatter(lambda value, _: f"{value:{sign if value > 0 else ''}.3g} %".replace("-", "−"))
        )
    axes.xaxis.set_major_locator(ticker.MaxNLocator(6))
    name = f"{h.id}  {say_(f'outcome_{verdict.outcome}')}"
    axes.text(-0.42, 0.72, name, transform=axes.transAxes, fontsize=10, fontweight="bold", color=tint, va="center")
    axes.text(-0.42, 0.36, say_(f"metric_{h.metric}"), transform=axes.transAxes, fontsize=8, color="#333333", va="center")
    axes.text(-0.42, 0.04, f"{h.group} / {h.against}", transform=axes.transAxes, fontsize=8, color="#333333", va="center")


def _scale(h: Hypothesis) -> Callable[[float], float]:
    """Return the map from a ratio to the axis that the rule is read on: percent reduced, percent above, or the ratio itself."""
    if h.relation == "ratio_at_least":
        return lambda ratio: ratio
    return (lambda ratio: 100 * (1 - ratio)) if h.relation == "reduction" else (lambda ratio: 100 * (ratio - 1))


def efficiency(report: Report, arms: Sequence[_Arm], say_: Say) -> Figure:
    """Final validation loss against trainable parameters, every run a point."""
    figure, grid = _figure(7.2, 4.4)
    figure.subplots_adjust(left=0.12, right=0.72, bottom=0.13, top=0.9)
    axes = grid[0][0]
    axes.set_title(say_("figure_efficiency"))
    ends = []
    for arm in arms:
        points = [
            (run.parameters.trainable / 1e6, run.final.loss)
            for run in arm.runs
            if run.parameters.trainable and run.final is not None and math.isfinite(run.final.loss)
        ]
        if points:
            axes.plot(*zip(*points), linestyle="", marker=arm.marker, color=arm.colour, markersize=8, alpha=0.85, markeredgecolor="white")
            mean = sum(p[1] for p in points) / len(points)
            ends.append((points[0][0], mean, f"{arm.label}  {mean:.4f}", arm.colour))
    if not ends:
        _nothing(axes, say_)
        return figure
    axes.margins(0.15)
    axes.set_xlabel(say_("axis_trainable"))
    axes.set_ylabel(say_("axis_loss"))
    axes.autoscale_view()
    drawing.label_ends(axes, ends)
    return figure


FIGURES: dict[str, Callable[[Report, Sequence[_Arm], Say], Figure]] = {
    "val_ppl_comparison": val_ppl,
    "parameter_distribution": parameters,
    "training_loss": training_loss,
    "learning_rate": learning_rate,
    "speed": speed,
    "verdicts": forest,
    "loss_vs_parameters": efficiency,
}
"""File stem and maker of each figure, in the order of a report."""

"""Owns what all figures share: style, colours, direct labels without overlaps, thinning, files of fixed bytes; leaves the figures to
``figures``."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS = 1500
"""Points of a curve that are drawn; more than a page can show."""
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)))
"""Line styles by group: a second sign besides colour, for print."""
MARKERS = "osD^vPX*"
"""Markers by group."""
STYLE = Path(__file__).with_name("report.mplstyle")
"""The style that is used where the user gives none."""
CJK = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "PingFang SC",
       "Hiragino Sans GB", "Microsoft YaHei", "SimHei")  # fmt: skip
"""Fonts that have Chinese characters, the first that is installed is used."""


@contextmanager
def style(path: Path | None) -> Iterator[None]:
    """Use a style file while figures are made; without a display and without pyplot's global state."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import style as styles

    chosen = [str(STYLE)] + ([str(path)] if path is not None else [])
    with styles.context(chosen, after_reset=True):
        yield


def cjk_font() -> str | None:
    """Return the name of an installed font with Chinese characters."""
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    return next((name for name in CJK if name in installed), None)


def colour(position: int) -> str:
    """Return the colour of the group at a position."""
    import matplotlib

    colours = matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]
    chosen = colours[position % len(colours)]
    return chosen if str(chosen).startswith("#") else f"#{chosen}"


def save(figure: Figure, path: Path) -> list[tuple[Path, bytes]]:
    """Return PNG and SVG of a figure as bytes that depend on its content only (no date, no version, a fixed hash salt)."""
    made = []
    for suffix in (".png", ".svg"):
        out = io.BytesIO()
        metadata: dict[str, Any] = {"Software": None} if suffix == ".png" else {"Date": None, "Creator": None}
        figure.savefig(out, format=suffix[1:], metadata=metadata, bbox_inches="tight", pad_inches=0.12)
        made.append((path.with_suffix(suffix), out.getvalue()))
    return made


def thin(x: Any, y: Any, points: int = POINTS) -> tuple[Any, Any]:
    """Return means over equal numbers of neighbours so that about ``points`` remain; short curves unchanged."""
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    if len(x) <= points:
        return x, y
    size = -(-len(x) // points)
    starts = np.arange(0, len(x), size)
    counts = np.diff(np.append(starts, len(x)))
    return np.add.reduceat(x.astype(float), starts) / counts, np.add.reduceat(y, starts) / counts


def smooth(y: Any, share: float = 0.02) -> Any:
    """Return a centred running mean over a share of the points (five at least), narrower towards the ends so that nothing is
    invented there."""
    half = max(int(len(y) * share / 2), 2)
    sums = np.concatenate([[0.0], np.cumsum(y)])
    at = np.arange(len(y))
    reach = np.minimum(half, np.minimum(at, len(y) - 1 - at))
    return (sums[at + reach + 1] - sums[at - reach]) / (2 * reach + 1)


def label_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]], *, size: float = 9) -> None:
    """Write labels right of the axes at the height of (x, y), moved apart where they would overlap, with thin leaders.

    ``ends`` are x, y in data units, label, colour. Limits and scales of the axes must be final.
    """
    if not ends:
        return
    figure = axes.figure
    height = axes.get_position().height * figure.get_figheight() * 72  # points
    spacing = 1.35 * size * max(1 + label.count("\n") for _, _, label, _ in ends) / height
    to_axes = axes.transData + axes.transAxes.inverted()
    wanted = []
    for x, y, label, tint in ends:
        _, at = to_axes.transform((x, y))
        wanted.append((float(min(max(at, 0.0), 1.0)) if np.isfinite(at) else 1.0, x, y, label, tint))
    wanted.sort(key=lambda item: item[0])
    heights = spread([item[0] for item in wanted], spacing)
    for (_, x, y, label, tint), place in zip(wanted, heights):
        axes.annotate(
            label, xy=(x, y), xycoords="data", xytext=(1.025, place), textcoords="axes fraction", va="center", ha="left",
            fontsize=size, color=tint, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": tint, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 2, "alpha": 0.7, "relpos": (0, 0.5)},
        )  # fmt: skip


def spread(places: Sequence[float], spacing: float) -> list[float]:
    """Return rising places at least ``spacing`` apart, as near to the wanted ones as a pooled fit makes them (least squares)."""
    blocks: list[list[float]] = []  # sum of offsets-corrected places, count
    for i, place in enumerate(places):
        blocks.append([place - i * spacing, 1.0])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] >= blocks[-1][0] / blocks[-1][1]:
            total, count = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += count
    found: list[float] = []
    for total, count in blocks:
        found += [total / count] * int(count)
    return [place + i * spacing for i, place in enumerate(found)]


def plain_ticks(axis: Any, low: float, high: float) -> None:
    """Set ticks that are readable numbers on a logarithmic axis, also where it spans less than a decade."""
    from matplotlib import ticker

    if high / low < 8:
        axis.set_major_locator(ticker.MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    else:
        axis.set_major_locator(ticker.LogLocator(10, subs=(1, 2, 5)))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axis.set_minor_locator(ticker.NullLocator())


def short_count(value: float, _: object = None) -> str:
    """Return 12,000 as 12k, 3,400,000 as 3.4M."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"

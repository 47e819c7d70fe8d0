"""What all figures share: style, colours, labels that do not overlap, thinning, reproducible files."""

from __future__ import annotations

import io
import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from oelm_jobs import fitting
from oelm_jobs.agent.sentences import Sentence, _
from oelm_jobs.errors import UsageError

from ..reading.loaded_run import LoadedRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS = 1500
"""Points of a curve that are drawn; more than a page can show."""
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)))
"""Line styles by group: a second sign besides colour, for print."""
MARKERS = "osD^vPX*"
"""Markers by group."""
LABEL = 9
"""Points of the letters of a curve's label."""
CLEARANCE = 5
"""Points between the middle of a marker and the leader of a label."""
TITLES = {
    "val_ppl_comparison": _("Validation perplexity"),
    "parameter_distribution": _("Parameters of each group"),
    "training_loss": _("Training loss"),
    "learning_rate": _("Learning rate"),
    "speed": _("Training speed"),
    "verdicts": _("Verdicts"),
    "loss_vs_parameters": _("Loss against trainable parameters"),
    "metrics": _("Metrics"),
    "sweep": _("Sweep"),
}
"""Title of each figure, by its file's stem; behind that may stand a block."""
STYLE = Path(__file__).with_name("report.mplstyle")
"""The style that is used where the user gives none."""
CJK = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "PingFang SC",
    "Hiragino Sans GB",
    "Microsoft YaHei",
    "SimHei",
)
"""Fonts that have Chinese characters, the first that is installed is used."""

_CJK_FILE = re.compile(r"NotoSansCJK-Reg|SourceHanSansSC-Reg|wqy|PingFang|Hiragino Sans GB|msyh|simhei", re.IGNORECASE)


Say = Callable[[str], str]
"""Puts a sentence into the report's language."""


@dataclass(frozen=True)
class DrawnArm:
    """How the figures show a group."""

    label: str
    """Its label, cut to what there is room for."""
    runs: tuple[LoadedRun, ...]
    colour: str
    dashes: Any
    marker: str


@contextmanager
def style(path: Path | None) -> Iterator[None]:
    """Use our style, then the user's, while figures are made; without a display and without pyplot's global state.

    Raises:
        UsageError: The user's file isn't a style.
    """
    import matplotlib

    matplotlib.use("Agg")
    # It warns of every font that has one weight only.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    from matplotlib import style as styles

    chosen: list[str | Path | dict[str, Any]] = [STYLE]
    if path is not None:
        try:
            own = matplotlib.rc_params_from_file(path, use_default_template=False)
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                _("--style {path}: not a matplotlib style file: {error}", str(path), str(error)),
                hint=_("copy ours and change it: {name}", STYLE.name),
            ) from error
        chosen.append({str(key): value for key, value in own.items()})
    with styles.context(chosen, after_reset=True):
        yield


def cjk_font() -> str | None:
    """Return the name of an installed font with Chinese characters; fonts newer than matplotlib's own list are found,
    too.
    """
    from matplotlib import font_manager

    manager = font_manager.fontManager

    def installed() -> str | None:
        names = {font.name for font in manager.ttflist}
        return next((name for name in CJK if name in names), None)

    if found := installed():
        return found
    for path in sorted(font_manager.findSystemFonts()):
        if _CJK_FILE.search(Path(path).name):
            with suppress(OSError, RuntimeError):  # a font file that FreeType can't read
                manager.addfont(path)
    return installed()


def colour(position: int) -> str:
    """Return the colour of the group at a position."""
    import matplotlib

    colours = matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]
    return str(colours[position % len(colours)])


def line_width() -> float:
    """Return how wide curves are."""
    import matplotlib

    return float(matplotlib.rcParams["lines.linewidth"])


def arms(groups: Mapping[str, tuple[LoadedRun, ...]], labels: Mapping[str, str]) -> list[DrawnArm]:
    """Return how the groups are shown."""
    return [
        DrawnArm(cut(labels[name]), runs, colour(i), DASHES[i % len(DASHES)], MARKERS[i % len(MARKERS)])
        for i, (name, runs) in enumerate(groups.items())
    ]


def save(figure: Figure, path: Path) -> list[tuple[Path, bytes]]:
    """Return PNG and SVG of a figure as bytes that depend on its content only (no date, no version, a fixed hash
    salt).
    """
    made = []
    for suffix, metadata in ((".png", {"Software": None}), (".svg", {"Date": None, "Creator": None})):
        out = io.BytesIO()
        figure.savefig(out, format=suffix[1:], metadata=metadata, bbox_inches="tight", pad_inches=0.12)
        made.append((path.with_suffix(suffix), out.getvalue()))
    return made


def stem(name: str, block: str = "") -> str:
    """Return what the files of a figure are called, of one for each block with its name."""
    return f"{name}-{block}" if block else name


def title(stem: str) -> Sentence:
    """Return the title of the figure that files are called so for."""
    name, _sign, block = stem.partition("-")
    return _("{title}, {block}", TITLES[name], block) if block else TITLES[name]


def name_block(figure: Figure, block: str) -> None:
    """Write into a corner of a figure which block it is about, where there are some."""
    if block:
        figure.text(0.99, 0.985, block, ha="right", va="top", fontsize=10, fontweight="bold", color="#333333")


def new(width: float, height: float) -> Figure:
    """Return an empty figure (inches)."""
    from matplotlib.figure import Figure as MatplotlibFigure

    return MatplotlibFigure(figsize=(width, height))


def panel(width: float, height: float, title: str, **look: Any) -> tuple[Figure, Axes]:
    """Return a figure (inches) of a single panel, and its axes."""
    figure = new(width, height)
    axes = figure.subplots()
    axes.set_title(title, **look)
    return figure, axes


def nothing(figure: Figure, axes: Axes, say_: Say) -> Figure:
    """Write into the axes that there are no values yet; return their figure."""
    axes.set_axis_off()
    said = say_(_("nothing to show yet"))
    axes.text(0.5, 0.5, said, ha="center", va="center", transform=axes.transAxes, color="#666666")
    return figure


def value(axes: Axes, x: float, y: float, shown: str, *, on: str = "", pad: float = 1.5, **look: Any) -> None:
    """Write a value, on a ground of a colour where one is named."""
    ground = {"facecolor": on, "edgecolor": "none", "pad": pad} if on else None
    axes.text(x, y, shown, va="center", fontsize=9, bbox=ground, **look)


def remark(figure: Figure, said: str, *, x: float = 0.02) -> None:
    """Write a remark below a figure."""
    figure.text(x, 0.0, said, fontsize=8, color="#555555", va="top", linespacing=1.4)


def name_bars(axes: Axes, names: Sequence[str], right: float, quantity: str) -> None:
    """Finish axes of horizontal bars: their names, the first one on top, and what they measure from 0 to ``right``."""
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, right)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(quantity)


def known(x: Any, y: Any) -> tuple[Any, Any]:
    """Return the points of which both coordinates are finite."""
    kept = np.isfinite(x) & np.isfinite(y)
    return x[kept], y[kept]


def thin(x: Any, y: Any, points: int = POINTS) -> tuple[Any, Any]:
    """Return means over equal numbers of neighbours so that about so many points remain; short curves unchanged."""
    x, y = known(x, y)
    if len(x) <= points:
        return x, y
    size = -(-len(x) // points)
    starts = np.arange(0, len(x), size)
    counts = np.diff(np.append(starts, len(x)))
    return np.add.reduceat(x.astype(float), starts) / counts, np.add.reduceat(y, starts) / counts


def smooth(y: Any) -> Any:
    """Return a centred running mean over 2 % of the points (five at least), narrower towards the ends so that nothing
    is invented there.
    """
    half = max(int(len(y) * 0.02 / 2), 2)
    sums = np.concatenate([[0.0], np.cumsum(y)])
    at = np.arange(len(y))
    reach = np.minimum(half, np.minimum(at, len(y) - 1 - at))
    return (sums[at + reach + 1] - sums[at - reach]) / (2 * reach + 1)


def label_ends(
    axes: Axes, ends: Sequence[tuple[float, float, str, str]], *, beside: float = 1.025, clearance: float = CLEARANCE
) -> None:
    """Write labels at the height of (x, y), right of the axes or at another share of their width (``beside``), moved
    apart where they would overlap, with thin leaders that begin right of all markers of that place: a mean may lie on
    another group's marker.

    Args:
        ends: x, y in data units, label, colour. Limits and scales of the axes must be final.
        clearance: Points that a leader keeps from the middle of markers.
    """
    from matplotlib import transforms

    if not ends:
        return
    near = 0.03 * abs(axes.get_xlim()[1] - axes.get_xlim()[0])
    right_of = axes.transData + transforms.ScaledTranslation(clearance / 72, 0, axes.figure.dpi_scale_trans)
    height = axes.get_window_extent().height / axes.figure.dpi * 72  # points
    spacing = 1.35 * LABEL * max(1 + label.count("\n") for _, _, label, _ in ends) / height
    to_axes = axes.transData + axes.transAxes.inverted()

    def height_of(end: tuple[float, float, str, str]) -> float:
        at = float(to_axes.transform(end[:2])[1])
        return min(max(at, 0.0), 1.0) if math.isfinite(at) else 1.0

    rising = sorted(ends, key=height_of)
    for (x, y, label, tint), place in zip(rising, spread([*map(height_of, rising)], spacing), strict=True):
        axes.annotate(
            label,
            xy=(max(other[0] for other in ends if 0 <= other[0] - x <= near), y),
            xycoords=right_of,
            xytext=(beside, place),
            textcoords="axes fraction",
            va="center",
            ha="left",
            fontsize=LABEL,
            color=tint,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": tint,
                "linewidth": 0.6,
                "shrinkA": 0,
                "shrinkB": 0,
                "alpha": 0.7,
                "relpos": (0, 0.5),
            },
        )


def cut(label: str, longest: int = 32) -> str:
    """Return a label that leaves room for the figure: its middle left out, since names differ at their ends."""
    return label if len(label) <= longest else f"{label[: longest - 13]}…{label[-12:]}"


def place_panels(figure: Figure, panels: Sequence[Axes], labels: Sequence[str]) -> None:
    """Put panels of a fixed size (inches) in rows of two with room for the labels right of each, and size the figure to
    them.
    """
    columns = 2
    room = 0.35 + 0.078 * max((fitting.width(label) for label in labels), default=0)  # inches of a column at 9 points
    left, bottom, top, width, height = 0.75, 0.65, 0.4, 4.4, 3.5
    step, rise = left + width + room, bottom + height + top
    rows = -(-len(panels) // columns)
    wide, high = step * min(len(panels), columns), rise * rows
    figure.set_size_inches(wide, high)
    for i, axes in enumerate(panels):
        row, place = divmod(i, columns)
        low = (rows - 1 - row) * rise + bottom
        axes.set_position(((place * step + left) / wide, low / high, width / wide, height / high))


def spread(places: Sequence[float], spacing: float) -> list[float]:
    """Return rising places at least ``spacing`` apart, as near to the wanted ones as a pooled fit makes them (least
    squares).
    """
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
    """Label a logarithmic axis with plain numbers, also where it spans less than a decade."""
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

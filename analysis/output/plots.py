"""The curves of a report as data, which its page draws anew when a reader zooms in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from oelm_jobs.agent.sentences import _

from .. import sweeps
from ..figures import curves, drawing
from ..judging.evidence import LARGEST
from ..reading.loaded_run import LoadedRun
from ..report import Report

POINTS = 400
"""Points of a curve; enough for the width of a window, and a small page."""


class Line(TypedDict):
    """The curve of a run."""

    run: str
    group: str
    """Its label."""
    colour: str
    x: list[float]
    """Steps."""
    y: list[float]


class Plot(TypedDict):
    """Curves over steps."""

    name: str
    """What the vertical axis shows."""
    over: str
    """What the horizontal one does."""
    is_log: bool
    width: float
    """Of lines."""
    lines: list[Line]


def plots(report: Report, say: Callable[[str], str], style: Path | None = None) -> dict[str, list[Plot]]:
    """Return the plots that belong to figures, by the figure's stem: of validation PPL and training loss, of scripts
    of each metric that the figure shows.

    Args:
        style: As for the figures, whose colours the curves have.
    """
    if report.parts:
        return {
            drawing.stem(name, block): each
            for block, part in report.parts.items()
            for name, each in plots(part, say, style).items()
        }
    from matplotlib.colors import to_hex

    with drawing.style(style):
        arms = drawing.arms(sweeps.shown(report.groups, report.swept, report.goals), report.labels)
        width = drawing.line_width()

    def plot(name: str, values: Callable[[LoadedRun], tuple[Any, Any]], *, is_log: bool = False) -> Plot:
        lines = [
            # A browser knows neither "tab:blue" nor "0.5".
            Line(run=run.name, group=arm.label, colour=to_hex(arm.colour), x=_short(x), y=_short(y))
            for arm in arms
            for run in arm.runs
            for x, y in [drawing.thin(*values(run), POINTS)]
            if len(x)
        ]
        return Plot(name=name, over=say(_("Step")), is_log=is_log, width=width, lines=lines)

    if report.goals is not None:
        made = {"metrics": [plot(name, partial(_told, name)) for name in curves.told(report)[1]]}
    else:
        made = {
            "val_ppl_comparison": [plot(say(_("Validation PPL")), _val_ppl, is_log=True)],
            "training_loss": [plot(say(_("Loss (nats per token)")), _loss)],
        }
    return {stem: found for stem, each in made.items() if (found := [one for one in each if one["lines"]])}


NONE = np.zeros(0), np.zeros(0)


def _val_ppl(run: LoadedRun) -> tuple[Any, Any]:
    if run.validations is None:
        return NONE
    table = run.validations.curve
    return table.step.astype(float), np.exp(np.where(np.abs(table.loss) < curves.LARGEST_LOSS, table.loss, np.nan))


def _loss(run: LoadedRun) -> tuple[Any, Any]:
    return (run.curve.step.astype(float), run.curve.loss) if run.curve is not None else NONE


def _told(name: str, run: LoadedRun) -> tuple[Any, Any]:
    if name not in run.series:
        return NONE
    table = run.series[name]
    return table.step.astype(float), np.where(np.abs(table.value) <= LARGEST, table.value, np.nan)


def _short(values: Iterable[float]) -> list[float]:
    """Return numbers of six digits."""
    return [float(f"{value:.6g}") for value in values]

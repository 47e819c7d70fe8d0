"""The figures of a report, in their order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from oelm_jobs.agent.sentences import Sentence, _
from oelm_jobs.fitting import is_wide

from .. import sweeps
from ..printed import say
from ..report import Report
from . import bars, curves, drawing, forest, swept
from .drawing import DrawnArm, Say

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(
    report: Report, language: str, folder: Path, style: Path | None = None
) -> tuple[list[tuple[Path, bytes]], list[Sentence]]:
    """Return the files of all figures (PNG and SVG) and remarks; a figure without values says so instead of being
    absent.
    """
    remarks = []
    files: list[tuple[Path, bytes]] = []
    with drawing.style(style):
        import matplotlib

        labels = report.labels
        has_chinese = is_wide("".join(labels.values()))
        font = drawing.cjk_font() if language == "zh" or has_chinese else None
        if font and language == "zh":
            matplotlib.rcParams["font.sans-serif"] = [font, *matplotlib.rcParams["font.sans-serif"]]
        elif font:
            matplotlib.rcParams["font.family"] = [*matplotlib.rcParams["font.family"], font]
        elif language == "zh":
            language = "en"
            remarks.append(_("no font with Chinese characters is installed: the figures are in English"))
        if has_chinese and not font:
            labels = {name: name for name in labels}
            report = replace(report, labels=labels)
        makers = FIGURES if report.goals is None else OF_SCRIPTS
        for name, make in {**makers, **(OF_SWEEPS if report.swept else {})}.items():
            over_all = {"": report}
            for block, part in (over_all if name == "verdicts" else report.parts or over_all).items():
                arms = drawing.arms(sweeps.shown(part.groups, part.swept, part.goals), {**part.labels, **labels})
                figure = make(part, arms, lambda text: say(text, language))
                drawing.name_block(figure, block)
                files += drawing.save(figure, folder / f"{drawing.stem(name, block)}.png")
    return files, remarks


FIGURES: dict[str, Callable[[Report, Sequence[DrawnArm], Say], Figure]] = {
    "val_ppl_comparison": curves.val_ppl,
    "parameter_distribution": bars.parameters,
    "training_loss": curves.training_loss,
    "learning_rate": curves.learning_rate,
    "speed": bars.speed,
    "verdicts": forest.forest,
    "loss_vs_parameters": bars.efficiency,
}
"""File stem and maker of each figure, in the order of a report."""
OF_SCRIPTS: dict[str, Callable[[Report, Sequence[DrawnArm], Say], Figure]] = {
    "metrics": curves.metrics,
    "verdicts": forest.forest,
}
"""The same of reports on what scripts tell."""
OF_SWEEPS: dict[str, Callable[[Report, Sequence[DrawnArm], Say], Figure]] = {"sweep": swept.sweep}
"""What comes behind them where settings were swept; the others then show the best combination of each group."""

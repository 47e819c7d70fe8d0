"""The table of effect sizes: each hypothesis as a ratio and as a difference."""

from __future__ import annotations

from collections.abc import Sequence

from oelm_jobs.agent.sentences import _

from . import tables
from .judging.effects import effect
from .judging.scales import DIFFERENCE, RATIO
from .judging.verdicts import EXACT, Verdict
from .tables import Cell, Table, column


def table(verdicts: Sequence[Verdict]) -> Table | None:
    """Return the table; None where there is no effect."""
    keys = (
        "hypothesis",
        "ratio",
        "ratio_interval",
        "sd_log_ratio",
        "difference",
        "difference_interval",
        "sd_difference",
    )
    rows = []
    for verdict in (each for one in verdicts for each in (one, *one.blocks)):
        h = verdict.hypothesis
        ratio, difference = effect(verdict, RATIO), effect(verdict, DIFFERENCE)
        if ratio.estimate is None and difference.estimate is None:
            continue
        cells: list[str | float | None] = [_("{hypothesis}, {block}", h.id, verdict.block) if verdict.block else h.id]
        for found, digits in ((ratio, 4), (difference, 3)):
            bounds = None
            if found.interval is not None:
                bounds = " … ".join(tables.number(bound, digits=digits) for bound in found.interval)
            cells += [found.estimate, bounds, found.sd]
        level = None if verdict.level is None or verdict.interval is None else 2 * verdict.level - 1
        rows.append(tuple(map(Cell, (*cells, level, None if verdict.method == EXACT else verdict.count or None))))
    if not rows:
        return None
    remark = _(
        "Group against the one that it is compared with. Both intervals of a line are at its level; the rule's own "
        "scale decides. SD: of a pair, or of a difference of independent runs; of ratios that of the logarithm."
    )
    columns = (*map(column, keys), column("level"), column("pairs"))
    return Table("effects", columns, tuple(rows), remarks=(remark,))

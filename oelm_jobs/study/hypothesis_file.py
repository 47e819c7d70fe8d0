"""Read and check what a study file says of its hypotheses."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from .. import names, tomlfile
from ..agent.sentences import _
from ..spec.program import Metrics
from ..spec.study import BETTER_BY, METRICS, RELATIONS, SCALES, Group, Hypothesis
from . import block_file, taking


def read(
    section: tomlfile.Section, groups: Mapping[str, Group], metrics: Metrics | None, blocks: Collection[str] = ()
) -> tuple[Hypothesis, ...]:
    """Take the hypotheses.

    Args:
        metrics: What a script tells; None for the built-in trainer.
    """
    found = []
    told = () if metrics is None else (*metrics.goal, *metrics.names)
    choices = METRICS if metrics is None else dict.fromkeys([*told, "gpu_hours"])
    for name in section.keys_left():
        taking.check_name(section, _("a hypothesis' name"), name, names.why_not(name))
        table = section.take_section(name)
        arms = {key: table.take(key, str, choices=groups) for key in ("group", "against")}
        if arms["group"] == arms["against"]:
            table.wrong("against", _("a group can't be compared with itself"), value=arms["against"])
        relations = [key for key in table.keys_left() if key in RELATIONS]
        if len(relations) != 1:
            table.lacks("rule", _("give exactly one of {rules}", RELATIONS), instead=RELATIONS)
            for key in relations:
                table.take_any(key)
        metric = table.take("metric", str, choices=choices)
        if not metric and "at" in table:
            table.take_any("at")  # whether it has a place here depends on the metric
        is_told = metric in told
        scale = table.take("scale", str, "ratio", choices=SCALES)
        hypothesis = Hypothesis(
            id=name,
            metric=metric,
            relation=next(iter(relations), ""),
            bounds=_bounds(table, relations[0], scale) if len(relations) == 1 else (),
            margin=taking.from_zero(table, "margin", float),
            level=table.take("level", float, 0.95),
            claim=table.take("claim", str, ""),
            because=taking.line(table, "because", ""),
            scale=scale,
            is_told=is_told,
            at=table.take("at", str, "last", choices=("last", "best")) if is_told else "last",
            goal=metrics.goal.get(metric, "") if metrics is not None and is_told else "minimize",
            measured=metrics.measured.get(metric, "") if metrics is not None else "",
            holds=block_file.take_holds(table, blocks),
            **arms,
        )
        if not 0.5 < hypothesis.level < 1:
            table.wrong("level", _("valid: above 0.5 and below 1"), value=hypothesis.level)
        if scale == "difference" and hypothesis.metric == "speed" and not is_told:
            table.wrong("scale", _("speeds are compared as a ratio"), value=scale)
        is_of_direction = hypothesis.relation == BETTER_BY
        if not hypothesis.goal and (hypothesis.at == "best" or is_of_direction):
            why = _('needs to know what is better: [metrics] goal = {{ {metric} = "minimize" }} or "maximize"', metric)
            table.wrong("at" if hypothesis.at == "best" else BETTER_BY, why)
        if is_of_direction and scale == "ratio" and not hypothesis.is_higher_better and hypothesis.bounds >= (1.0,):
            table.wrong(BETTER_BY, _("must be below 1, which is a fraction"), value=hypothesis.bounds[0])
        table.finish(RELATIONS)
        found.append(hypothesis)
    return tuple(found)


def _bounds(table: tomlfile.Section, relation: str, scale: str) -> tuple[float, ...]:
    if relation in ("reduction", "increase"):
        bounds = table.take_list(relation, object)
        numbers = [b for b in bounds if isinstance(b, (int, float)) and not isinstance(b, bool)]
        if len(bounds) != 2 or len(numbers) != 2 or not numbers[0] < numbers[1]:
            units = _("fractions") if scale == "ratio" else _("differences in the metric's units")
            table.wrong(relation, _("give [low, high] as {units}, low below high", units), value=list(bounds))
        return tuple(map(float, numbers))
    bound = table.take(relation, float)
    if bound < 0 and relation == BETTER_BY:
        table.wrong(relation, _("must not be negative"), value=bound)
    if bound <= 0 and relation != BETTER_BY:
        table.wrong(relation, _("must be above zero"), value=bound)
    if relation == "at_most_below" and scale == "ratio" and bound >= 1:
        table.wrong(relation, _("must be below 1, which is a fraction"), value=bound)
    if relation == "ratio_at_least" and scale != "ratio":
        others = [name for name in RELATIONS if name != relation]
        table.wrong(relation, _("is about a ratio; for a difference give one of {rules}", others))
    return (bound,)

"""Tuning: what a study says of it, the combinations that are tried, and the study that confirms what was chosen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .. import names, tomlfile
from ..agent.sentences import _
from ..errors import valid_choices
from ..spec.program import Program
from ..spec.study import (
    BEST_VAL_LOSS,
    BEST_VAL_PPL,
    FINAL_TEST_LOSS,
    FINAL_TEST_PPL,
    FINAL_VAL_LOSS,
    FINAL_VAL_PPL,
    Study,
)
from .resolve import variants

TEST = "test"
"""What the built-in trainer's runs can be judged on besides validation data."""
TESTED = (FINAL_TEST_PPL, FINAL_TEST_LOSS)
"""Its metrics on that."""
VALIDATED = (FINAL_VAL_PPL, FINAL_VAL_LOSS, BEST_VAL_PPL, BEST_VAL_LOSS)
"""Its metrics on validation data."""


def take_seeds(top: tomlfile.Section, seeds: Sequence[int]) -> tuple[int, ...]:
    """Take the confirming seeds, of which none may have chosen anything."""
    given = top.take_list("confirm_seeds", int, ())
    if len(set(given)) != len(given) or not all(0 <= seed <= names.MAX_SEED for seed in given):
        top.wrong("confirm_seeds", _("give seeds, each once, from 0 to 2^63 - 1"), value=list(given))
    shared = [seed for seed in given if seed in seeds]
    why = _("is among seeds, too: what was chosen by a seed is not confirmed by it")
    top.wrong_items("confirm_seeds", ((seed, why) for seed in shared))
    return given


def take_judge_on(top: tomlfile.Section, program: Program | None) -> str:
    """Take what is judged on: of the trainer a split, of a program a metric that nothing is chosen by."""
    if program is None:
        return top.take("judge_on", str, "", choices=(TEST,))
    told = dict.fromkeys([*program.metrics.goal, *program.metrics.names])
    metric = top.take("judge_on", str, "", choices=told)
    if metric and metric == program.metrics.main:
        others = [name for name in told if name != metric]
        why = _("is the main metric, by which is chosen; {choices}", valid_choices("", others))
        top.wrong("judge_on", why, value=metric)
    return metric


def check_groups(top: tomlfile.Section, study: Study) -> None:
    """Note where groups of a study with a sweep set what is tuned."""
    for group in study.groups.values():
        for key in study.tuned:
            if key in group.declared:
                why = _("is tuned by the [sweep], which gives all groups the same values: leave it out here")
                top.beside("groups", group.name).wrong(key, why, value=group.declared[key])


def check(top: tomlfile.Section, study: Study) -> None:
    """Note where what is tuned, what is swept, what confirms and what judges it don't agree."""
    chosen_by: tuple[str, ...] = VALIDATED
    decides: tuple[str, ...] = TESTED
    if study.program is not None:
        chosen_by, decides = (study.program.metrics.main,), (study.judge_on,)
    for hypothesis in study.hypotheses:
        why = ""
        if study.judge_on and hypothesis.metric in chosen_by:
            why = _("settings are chosen by it, and judge_on says what decides: give {metric}", decides)
        elif study.program is None and not study.judge_on and hypothesis.metric in TESTED:
            why = _('needs judge_on = "{split}", which says what is measured', TEST)
        if why:
            top.beside("hypotheses", hypothesis.id).wrong("metric", why, value=hypothesis.metric)
    if not study.is_tuning:
        if study.confirm_seeds:
            why = _("confirm what a [sweep] of the settings in tuned has chosen: there is no such sweep")
            top.wrong("confirm_seeds", why, value=list(study.confirm_seeds))
        return
    assert study.sweep is not None
    swept = [*study.sweep.parameters]
    top.wrong_items(
        "tuned",
        (
            (key, _("is not swept: give [sweep] parameters.{key}; what was tuned elsewhere has no [sweep]", key))
            for key in study.tuned
            if key not in swept
        ),
    )
    for key in swept:
        if key not in study.tuned:
            why = _(
                "is swept beside what is tuned: name it in tuned, since what is chosen for a group has a value of it"
            )
            top.beside("sweep", "parameters").wrong(key, why)
    if study.blocks:
        why = _("is not tuned within blocks: tune on each data set in a study of its own, and set what was chosen")
        top.wrong("tuned", why, value=list(study.tuned))
    if study.program is not None:
        if not study.program.metrics.main:
            why = _('choosing needs to know what is better: [metrics] goal = {{ METRIC = "minimize" }} or "maximize"')
            top.wrong("tuned", why, value=list(study.tuned))
        if study.confirm_seeds and not study.program.takes_seed:
            why = _("its program takes no seed: give {{seed}} in its command, or seed = … in [program]")
            top.wrong("confirm_seeds", why, value=list(study.confirm_seeds))


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A combination of values that every group is tried with."""

    tag: str
    """Tag of its runs."""
    values: Mapping[str, Any]
    """By what is swept."""


def candidates(study: Study) -> list[Candidate]:
    """Return the combinations that a study tries, in the order in which they run; equal ones once."""
    assert study.sweep is not None
    found: dict[str, Candidate] = {}
    for tag, variant in variants(study):
        values = {key: variant.settings.get(key, variant.global_batch) for key in study.sweep.parameters}
        found.setdefault(json.dumps(values, sort_keys=True, default=str), Candidate(tag=tag, values=values))
    return [*found.values()]


def confirming(study: Study, chosen: Mapping[str, Mapping[str, Any]]) -> Study:
    """Return the study in which each group has the values that were chosen for it, and nothing is swept: its runs of
    the confirming seeds, tagged CONFIRM, decide.
    """
    groups = {
        name: replace(group, declared={**group.declared, **chosen[name]}) if name in chosen else group
        for name, group in study.groups.items()
    }
    return replace(study, groups=groups, sweep=None)


def as_judged(study: Study) -> Study:
    """Return the study as its verdicts see it: of one that tunes, its seeds are those that confirm, and its sweep is
    over.
    """
    return replace(study, seeds=study.judged_seeds, sweep=None) if study.is_tuning else study

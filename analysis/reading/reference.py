"""The study that is assumed for folders without one: the reference groups and hypotheses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from oelm_jobs.spec.study import Group, Hypothesis, Study

from .loaded_run import LoadedRun

NAME = "folders"
"""Name of the study that is made up for folders without one."""

GROUPS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt_base": ("Group A: GPT-Base", {"model_type": "gpt"}),
    "oelm_no_freeze": ("Group B: OELM-NoFreeze", {"model_type": "oelm", "freeze_qk": False}),
    "oelm_freeze": ("Group C: OELM-Freeze", {"model_type": "oelm", "freeze_qk": True}),
}
"""Label and factors of the reference groups."""

_RULES: tuple[tuple[str, str, str, str, tuple[float, ...], float], ...] = (
    ("H1", "trainable_params", "oelm_no_freeze", "reduction", (0.10, 0.20), 0.0),
    ("H2", "final_val_ppl", "oelm_no_freeze", "equivalent_within", (0.05,), 0.0),
    ("H3", "speed", "oelm_no_freeze", "ratio_at_least", (1.0,), 0.02),
    ("H4", "final_val_ppl", "gpt_base", "at_most_above", (0.10,), 0.0),
)
HYPOTHESES = tuple(
    Hypothesis(
        id=name, metric=metric, group="oelm_freeze", against=against, relation=relation, bounds=bounds, margin=margin
    )
    for name, metric, against, relation, bounds, margin in _RULES
)
"""The reference study's claims."""


def is_made_up(study: Study) -> bool:
    """Tell whether a study is the one that is assumed for folders without one."""
    return study.path == Path(NAME)


def study_of(runs: Sequence[LoadedRun]) -> Study:
    """Return a study of the runs' groups; with a reference group among them all three and their hypotheses belong to
    it.
    """
    names = list(dict.fromkeys(run.group for run in runs))
    wanted = [*GROUPS, *(name for name in names if name not in GROUPS)] if set(names) & set(GROUPS) else names
    groups = {
        name: Group(
            name=name,
            label=GROUPS[name][0] if name in GROUPS else name,
            factors=GROUPS[name][1] if name in GROUPS else {},
            gpus=1,
            port=None,
        )
        for name in wanted
    }
    seeds = tuple(sorted({run.seed for run in runs if run.seed is not None}))
    batches = {run.global_batch for run in runs if run.global_batch}
    return Study(
        name=NAME,
        path=Path(NAME),
        question="",
        is_default=False,
        factors=("model_type", "freeze_qk"),
        seeds=seeds,
        global_batch=batches.pop() if len(batches) == 1 else 0,
        train={},
        groups=groups,
        unequal={},
        hypotheses=HYPOTHESES if set(names) & set(GROUPS) else (),
        max_retries=0,
    )

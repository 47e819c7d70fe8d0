"""The study that is assumed for folders without one: the reference groups and hypotheses."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
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

_claim = partial(Hypothesis, group="oelm_freeze")
HYPOTHESES = (
    _claim(id="H1", metric="trainable_params", against="oelm_no_freeze", relation="reduction", bounds=(0.10, 0.20)),
    _claim(id="H2", metric="final_val_ppl", against="oelm_no_freeze", relation="equivalent_within", bounds=(0.05,)),
    _claim(id="H3", metric="speed", against="oelm_no_freeze", relation="ratio_at_least", bounds=(1.0,), margin=0.02),
    _claim(id="H4", metric="final_val_ppl", against="gpt_base", relation="at_most_above", bounds=(0.10,)),
)
"""The reference study's claims."""


def is_made_up(study: Study) -> bool:
    """Tell whether a study is the one that is assumed for folders without one."""
    return study.path == Path(NAME)


def study_of(runs: Sequence[LoadedRun]) -> Study:
    """Return a study of the runs' groups; with a reference group among them all three and their hypotheses belong to
    it.
    """
    is_reference = any(run.group in GROUPS for run in runs)
    groups = {}
    for name in dict.fromkeys([*(GROUPS if is_reference else ()), *(run.group for run in runs)]):
        label, factors = GROUPS.get(name, (name, {}))
        groups[name] = Group(name=name, label=label, factors=factors, gpus=1, port=None)
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
        settings={},
        groups=groups,
        unequal={},
        hypotheses=HYPOTHESES if is_reference else (),
        max_retries=0,
    )

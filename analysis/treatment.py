"""Owns the question whether the factor was what each group says; leaves what follows for verdicts to ``report``.

The proof is treatment.json (hashes at start and end, what the optimizer holds); without it parameter counts speak, and sizes of checkpoints
(a frozen parameter has no two AdamW moments: 8 bytes less).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .findings import VOID, WARNING, Finding
from .records import LoadedRun
from .words import Text, text


def contradictions(run: LoadedRun, factors: Mapping[str, Any]) -> list[Text]:
    """Return what in a run's records contradicts its group's factors; empty where nothing does, which isn't proof."""
    found: list[Text] = []
    frozen = factors.get("freeze_qk")
    wanted_model = factors.get("model_type")
    if wanted_model == "gpt":
        frozen = False
    for key, value in factors.items():
        stated = run.train.get(key, run.factors.get(key))
        if stated is not None and stated != value and not (key == "freeze_qk" and wanted_model == "gpt"):
            found.append(text("factor_is_other", run=run.name, key=key, value=str(stated), wanted=str(value)))
    proof = run.treatment
    if proof is not None:
        if wanted_model is not None and proof.model_type and proof.model_type != wanted_model:
            found.append(text("factor_is_other", run=run.name, key="model_type", value=proof.model_type, wanted=str(wanted_model)))
        found += _tensors(run, frozen)
    counts = run.parameters
    if isinstance(frozen, bool) and counts.frozen is not None:
        if frozen and counts.frozen == 0:
            found.append(text("nothing_frozen", run=run.name))
        if not frozen and counts.frozen > 0:
            found.append(text("something_frozen", run=run.name, count=f"{counts.frozen:,}"))
    return found


def _tensors(run: LoadedRun, frozen: object) -> list[Text]:
    assert run.treatment is not None
    found: list[Text] = []
    qk, other = run.treatment.groups.get("qk"), run.treatment.groups.get("other")
    if qk is not None and frozen is True:
        if qk.requires_grad or qk.in_optimizer:
            found.append(text("qk_in_optimizer", run=run.name))
        if qk.sha256_end and qk.sha256_end != qk.sha256_start:
            found.append(text("qk_changed", run=run.name))
    if qk is not None and frozen is False:
        if qk.requires_grad is False or qk.in_optimizer is False:
            found.append(text("qk_not_in_optimizer", run=run.name))
        if qk.sha256_end and qk.sha256_end == qk.sha256_start:
            found.append(text("qk_unchanged", run=run.name))
    if other is not None and other.sha256_end and other.sha256_end == other.sha256_start:
        found.append(text("other_unchanged", run=run.name))
    return found


def proven(run: LoadedRun) -> bool:
    """Tell whether treatment.json is there with hashes of start and end."""
    if run.treatment is None:
        return False
    qk = run.treatment.groups.get("qk")
    return qk is not None and bool(qk.sha256_start and qk.sha256_end)


def audit(runs: Mapping[str, Sequence[LoadedRun]], factors: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
    """Return a void finding for every run that contradicts its group, and a warning for groups whose factor nothing proves."""
    findings = []
    for group, members in runs.items():
        if group not in factors:
            continue
        for run in members:
            findings += [Finding(severity=VOID, text=what, groups=(group,)) for what in contradictions(run, factors[group])]
        unproven = [run.name for run in members if run.finished and not proven(run)]
        if unproven and "freeze_qk" in {key for table in factors.values() for key in table}:
            findings.append(Finding(severity=WARNING, text=text("treatment_unproven", runs=tuple(unproven)), groups=(group,)))
    return findings


def never_varied(a: Sequence[LoadedRun], b: Sequence[LoadedRun], freezing: tuple[object, object]) -> Text | None:
    """Return why two arms that should differ in freezing don't, judged by counts and checkpoints alone; None where nothing says so.

    ``freezing`` holds the two groups' ``freeze_qk``. Arms whose frozen and trainable counts are equal trained the same parameters:
    Q/K kept as buffers look so (they aren't parameters in either arm).
    """
    if not (isinstance(freezing[0], bool) and isinstance(freezing[1], bool)) or freezing[0] == freezing[1]:
        return None
    counts = [{(run.parameters.total, run.parameters.trainable) for run in arm if run.parameters.trainable is not None} for arm in (a, b)]
    if counts[0] and counts[0] == counts[1]:
        total, trainable = next(iter(counts[0]))
        return text("never_varied", total=_count(total), trainable=_count(trainable))
    sizes = [{run.checkpoint_bytes for run in arm if run.checkpoint_bytes} for arm in (a, b)]
    if not (counts[0] and counts[1]) and sizes[0] and sizes[1]:
        smallest, largest = min(sizes[0] | sizes[1]), max(sizes[0] | sizes[1])
        if largest - smallest < 0.005 * largest:
            return text("never_varied_sizes", size=f"{largest / 1e6:,.0f} MB")
    return None


def same_start(a: LoadedRun, b: LoadedRun) -> bool | None:
    """Tell whether all initial tensors but Q/K are identical in two runs; None where it isn't recorded."""
    if a.treatment is None or b.treatment is None:
        return None
    other = [run.treatment.groups.get("other") for run in (a, b) if run.treatment is not None]
    if other[0] is None or other[1] is None or not (other[0].sha256_start and other[1].sha256_start):
        return None
    return other[0].sha256_start == other[1].sha256_start


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"

"""Check that the factor was what each group says.

The proof is treatment.json (hashes at start and end, what the optimizer holds); without it parameter counts are
compared, and sizes of checkpoints (a frozen parameter has no two AdamW moments: 8 bytes less).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from oelm_jobs.agent.sentences import Sentence, _

from ..findings import VOID, AuditFinding, warning
from ..reading.loaded_run import LoadedRun, TensorGroup

OF_QK = ("freeze_qk", "freeze_q", "freeze_k")
"""Factors that freeze query or key projections."""
PARTS: tuple[tuple[str, str], ...] = (
    ("qk", "Q/K"), ("q", "Q"), ("k", "K"), ("qk_trained", _("Q/K of the other layers")),
    ("ffn", _("feed-forward layers")),
)  # fmt: skip
"""Entries of treatment.json that a group's factors speak of, with what they are called."""


def freezing(factors: Mapping[str, Any]) -> Any:
    """Return whether a group freezes Q or K from the start: False for GPT, which trains everything; None where the
    group doesn't say, or trains them for some steps first.
    """
    if factors.get("model_type") == "gpt":
        return False
    asked = [factors[key] for key in OF_QK if key in factors]
    if any(value is True for value in asked):
        return None if factors.get("freeze_from_step") else True
    return next((value for value in asked), None)


def contradictions(run: LoadedRun, factors: Mapping[str, Any]) -> list[Sentence]:
    """Return what in a run's records contradicts its group's factors; empty where nothing does, which isn't proof."""
    is_gpt = factors.get("model_type") == "gpt"
    frozen = freezing(factors)
    wanted = {key: value for key, value in factors.items() if not (is_gpt and key in (*OF_QK, "qk_init"))}
    ran_with = [(key, run.train.get(key, run.factors.get(key))) for key in wanted]
    if run.treatment is not None:
        ran_with += [(key, getattr(run.treatment, key)) for key in _TOLD if key in wanted]
    found = [
        _("{run} ran with {key} = {value}, the group says {wanted}", run.name, key, str(value), str(wanted[key]))
        for key, value in ran_with
        if value not in (None, "", wanted[key])
    ]
    found += _tensors(run, factors)
    count = run.parameters.frozen
    if not isinstance(frozen, bool) or count is None or run.train.get("freeze_ffn") or factors.get("freeze_ffn"):
        return found
    if frozen and count == 0:
        found.append(_("{run} should freeze Q/K, but no parameter is frozen", run.name))
    if not frozen and count > 0:
        found.append(_("{run} should train everything, but {count} parameters are frozen", run.name, f"{count:,}"))
    return found


_TOLD = (
    "model_type", "qk_init", "freeze_ffn", "freeze_q", "freeze_k", "freeze_layers", "freeze_from_step", "qk_norm",
    "position",
)  # fmt: skip
"""What treatment.json repeats of the configuration."""


def _tensors(run: LoadedRun, factors: Mapping[str, Any]) -> list[Sentence]:
    groups = run.treatment.groups if run.treatment is not None else {}
    after = factors.get("freeze_from_step", 0)
    found = []
    for name, what in PARTS:
        part, frozen = groups.get(name, TensorGroup()), _freezes(factors, name)
        if frozen is True and after:
            found += _late(run, part, what, after)
        elif frozen is True:
            if part.requires_grad or part.in_optimizer:
                found.append(_("{run} should freeze {what}, but the optimizer holds them", run.name, what))
            if part.changed:
                found.append(_("{run} should freeze {what}, but they changed between start and end", run.name, what))
        elif frozen is False:
            if part.requires_grad is False or part.in_optimizer is False:
                found.append(_("{run} should train {what}, but the optimizer doesn't hold them", run.name, what))
            if part.changed is False:
                found.append(_("{run} should train {what}, but they are the same at start and end", run.name, what))
    if groups.get("other", TensorGroup()).changed is False:
        found.append(_("{run} trained nothing: all other parameters are the same at start and end", run.name))
    return found


def _freezes(factors: Mapping[str, Any], part: str) -> Any:
    """Return whether a group freezes an entry of treatment.json, sooner or later; None where it doesn't say."""
    if part == "ffn":
        return factors.get("freeze_ffn")
    if part == "qk_trained" or factors.get("model_type") == "gpt":
        return False
    asked = [factors[key] for key in OF_QK if key in factors]
    own = [factors.get("freeze_qk"), factors.get(f"freeze_{part}")]
    return True if True in own else False if asked else None


def _late(run: LoadedRun, part: TensorGroup, what: str, after: int) -> list[Sentence]:
    """Return what contradicts that tensors were trained for some steps and frozen then."""
    if not part.sha256_end:
        return []
    if part.frozen_from_step != after or not part.sha256_frozen:
        return [_("{run} should freeze {what} after step {step}, but did not", run.name, what, after)]
    found = []
    if part.sha256_frozen == part.sha256_start:
        found.append(
            _("{run} should train {what} until step {step}, but they are as they began", run.name, what, after)
        )
    if part.sha256_frozen != part.sha256_end:
        found.append(_("{run} should freeze {what} after step {step}, but they changed since", run.name, what, after))
    return found


def proven(run: LoadedRun) -> bool:
    """Tell whether treatment.json is there with hashes of start and end, of all that was to be frozen or not."""
    groups = run.treatment.groups if run.treatment is not None else {}
    asked = [part for name, part in groups.items() if name != "other"]
    return bool(asked) and all(part.sha256_start and part.sha256_end for part in asked)


def audit(runs: Mapping[str, Sequence[LoadedRun]], factors: Mapping[str, Mapping[str, Any]]) -> list[AuditFinding]:
    """Return a void finding for every run that contradicts its group, and a warning for groups whose factor nothing
    proves.
    """
    findings = missing_parameters(runs, factors)
    freezing_is_asked = any(key in table for table in factors.values() for key in OF_QK)
    for group, members in runs.items():
        for run in members:
            findings += [
                AuditFinding(severity=VOID, text=what, groups=(group,)) for what in contradictions(run, factors[group])
            ]
        unproven = tuple(run.name for run in members if run.finished and not run.is_script and not proven(run))
        if unproven and freezing_is_asked:
            said = _(
                "whether Q/K were treated as the group says is not proven for {runs} (no hashes of start and end)",
                unproven,
            )
            findings.append(warning(said, group))
    return findings


def missing_parameters(
    runs: Mapping[str, Sequence[LoadedRun]], factors: Mapping[str, Mapping[str, Any]]
) -> list[AuditFinding]:
    """Return a void finding for every run that should train everything and has exactly so many parameters fewer as
    another arm freezes: Q/K that are kept as buffers count as none, and no optimizer moves them.
    """
    # With a frozen feed-forward counts differ, or agree, for another reason than Q/K.
    counted = [
        (factors[group], run)
        for group, members in runs.items()
        for run in members
        if run.parameters.total and not run.train.get("freeze_ffn")
    ]
    with_frozen = [run for own, run in counted if freezing(own) is True and run.parameters.frozen]
    findings = []
    for own, run in counted:
        for other in with_frozen if freezing(own) is False and not own.get("freeze_ffn") else ():
            frozen, total, mine = other.parameters.frozen, other.parameters.total, run.parameters.total
            assert frozen is not None and total is not None and mine is not None
            if mine == total - frozen and _shape(run) == _shape(other):
                what = _(
                    "{run} should train everything, but its {total} parameters lack exactly the {frozen} that "
                    "{other} freezes: they are no parameters in it (buffers, perhaps), and are not trained",
                    run.name,
                    f"{mine:,}",
                    f"{frozen:,}",
                    other.name,
                )
                findings.append(AuditFinding(severity=VOID, text=what, groups=(run.group,)))
                break
    return findings


def _shape(run: LoadedRun) -> list[object]:
    return [run.train.get(key) for key in ("vocab_size", "d_model", "num_layers", "d_ff", "seq_len", "position")]


def never_varied(a: Sequence[LoadedRun], b: Sequence[LoadedRun], frozen: tuple[object, object]) -> Sentence | None:
    """Return why two arms that should differ in freezing don't, judged by counts and checkpoints alone; None where
    nothing says so.

    ``frozen`` holds what ``freezing`` tells of the two groups. Arms whose frozen and trainable counts are equal trained
    the same parameters: Q/K kept as buffers look so (they aren't parameters in either arm).
    """
    if not (isinstance(frozen[0], bool) and isinstance(frozen[1], bool)) or frozen[0] == frozen[1]:
        return None
    counts = [
        {(run.parameters.total, run.parameters.trainable) for run in arm if run.parameters.trainable is not None}
        for arm in (a, b)
    ]
    if counts[0] and counts[0] == counts[1]:
        total, trainable = next(iter(counts[0]))
        return _(
            "the factor was never varied: both arms have {total} parameters, {trainable} of them trainable",
            "–" if total is None else f"{total:,}",
            f"{trainable:,}",
        )
    sizes = [{run.checkpoint_bytes for run in arm if run.checkpoint_bytes} for arm in (a, b)]
    if not (counts[0] and counts[1]) and sizes[0] and sizes[1]:
        smallest, largest = min(sizes[0] | sizes[1]), max(sizes[0] | sizes[1])
        if largest - smallest < 0.005 * largest:
            return _(
                "the factor was never varied: the checkpoints of both arms have the same size ({size})",
                f"{largest / 1e6:,.0f} MB",
            )
    return None


SHARED_START = frozenset(
    {*OF_QK, "model_type", "freeze_ffn", "freeze_layers", "freeze_from_step", "qk_init", "qk_norm", "data_seed"}
)
"""Factors that leave all initial tensors but Q/K as they are; groups that differ in others can't share them."""


def other_start(
    a: Sequence[LoadedRun], b: Sequence[LoadedRun], factors: tuple[Mapping[str, Any], Mapping[str, Any]]
) -> Sentence | None:
    """Return which seed's initial tensors besides Q/K differ between two arms that should share them; None where none
    is known to.
    """
    differing = {key for key in {*factors[0], *factors[1]} if factors[0].get(key) != factors[1].get(key)}
    if not differing <= SHARED_START:
        return None
    partners: dict[int | None, LoadedRun] = {run.seed: run for run in b if run.seed is not None}
    for run in a:
        partner = partners.get(run.seed)
        if partner is None or run.treatment is None or partner.treatment is None:
            continue
        groups, others = run.treatment.groups, partner.treatment.groups
        starts = {tensors.get("other", TensorGroup()).sha256_start for tensors in (groups, others)}
        # With a frozen feed-forward as an entry of its own, "other" stands for fewer tensors.
        frozen = ("ffn" in groups, "ffn" in others)
        are_same_tensors = not any(frozen) or (all(frozen) and "freeze_layers" not in differing)
        if len(starts) == 2 and all(starts) and are_same_tensors:
            return _(
                "{a} and {b} began with different weights besides Q/K: more than the factor was varied",
                run.name,
                partner.name,
            )
    return None

"""Check that the factor was what each group says.

The proof is treatment.json (hashes at start and end, what the optimizer holds); without it parameter counts are
compared, and sizes of checkpoints (a frozen parameter has no two AdamW moments: 8 bytes less).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from oelm_jobs.agent.sentences import Sentence, _

from ..findings import VOID, AuditFinding, warning
from ..reading.loaded_run import LoadedRun


def contradictions(run: LoadedRun, factors: Mapping[str, Any]) -> list[Sentence]:
    """Return what in a run's records contradicts its group's factors; empty where nothing does, which isn't proof."""
    found: list[Sentence] = []
    frozen = factors.get("freeze_qk")
    wanted_model = factors.get("model_type")
    if wanted_model == "gpt":
        frozen = False
    for key, value in factors.items():
        stated = run.train.get(key, run.factors.get(key))
        if stated is not None and stated != value and not (key == "freeze_qk" and wanted_model == "gpt"):
            found.append(_ran_with_another(run, key, stated, value))
    proof = run.treatment
    if proof is not None:
        for key in ("model_type", "qk_init", "freeze_ffn"):
            stated, wanted = getattr(proof, key), factors.get(key)
            if (
                wanted is not None
                and stated not in (None, "", wanted)
                and not (key == "qk_init" and wanted_model == "gpt")
            ):
                found.append(_ran_with_another(run, key, stated, wanted))
        found += _tensors(run, frozen)
    counts = run.parameters
    if (
        isinstance(frozen, bool)
        and counts.frozen is not None
        and not run.train.get("freeze_ffn")
        and not factors.get("freeze_ffn")
    ):
        if frozen and counts.frozen == 0:
            found.append(_("{run} should freeze Q/K, but no parameter is frozen", run.name))
        if not frozen and counts.frozen > 0:
            count = f"{counts.frozen:,}"
            found.append(_("{run} should train everything, but {count} parameters are frozen", run.name, count))
    return found


def _ran_with_another(run: LoadedRun, key: str, value: object, wanted: object) -> Sentence:
    return _("{run} ran with {key} = {value}, the group says {wanted}", run.name, key, str(value), str(wanted))


def _tensors(run: LoadedRun, frozen: object) -> list[Sentence]:
    assert run.treatment is not None
    found: list[Sentence] = []
    qk, other = run.treatment.groups.get("qk"), run.treatment.groups.get("other")
    if qk is not None and frozen is True:
        if qk.requires_grad or qk.in_optimizer:
            found.append(_("{run} should freeze Q/K, but the optimizer holds them", run.name))
        if qk.sha256_end and qk.sha256_end != qk.sha256_start:
            found.append(_("{run} should freeze Q/K, but they changed between start and end", run.name))
    if qk is not None and frozen is False:
        if qk.requires_grad is False or qk.in_optimizer is False:
            found.append(_("{run} should train Q/K, but the optimizer doesn't hold them", run.name))
        if qk.sha256_end and qk.sha256_end == qk.sha256_start:
            found.append(_("{run} should train Q/K, but they are the same at start and end", run.name))
    if other is not None and other.sha256_end and other.sha256_end == other.sha256_start:
        found.append(_("{run} trained nothing: all other parameters are the same at start and end", run.name))
    return found


def proven(run: LoadedRun) -> bool:
    """Tell whether treatment.json is there with hashes of start and end."""
    if run.treatment is None:
        return False
    qk = run.treatment.groups.get("qk")
    return qk is not None and bool(qk.sha256_start and qk.sha256_end)


def audit(runs: Mapping[str, Sequence[LoadedRun]], factors: Mapping[str, Mapping[str, Any]]) -> list[AuditFinding]:
    """Return a void finding for every run that contradicts its group, and a warning for groups whose factor nothing
    proves.
    """
    findings = missing_parameters(runs, factors)
    for group, members in runs.items():
        if group not in factors:
            continue
        for run in members:
            findings += [
                AuditFinding(severity=VOID, text=what, groups=(group,)) for what in contradictions(run, factors[group])
            ]
        unproven = [run.name for run in members if run.finished and not proven(run)]
        if unproven and "freeze_qk" in {key for table in factors.values() for key in table}:
            said = _(
                "whether Q/K were treated as the group says is not proven for {runs} (no hashes of start and end)",
                tuple(unproven),
            )
            findings.append(warning(said, group))
    return findings


def missing_parameters(
    runs: Mapping[str, Sequence[LoadedRun]], factors: Mapping[str, Mapping[str, Any]]
) -> list[AuditFinding]:
    """Return a void finding for every run that should train everything and has exactly so many parameters fewer as
    another arm freezes: Q/K that are kept as buffers count as none, and no optimizer moves them.
    """
    listed = [(factors[group], run) for group, members in runs.items() if group in factors for run in members]
    # With a frozen feed-forward counts differ, or agree, for another reason than Q/K.
    counted = [(own, run) for own, run in listed if run.parameters.total and not run.train.get("freeze_ffn")]
    freezing = [run for own, run in counted if own.get("freeze_qk") is True and run.parameters.frozen]
    findings = []
    for own, run in counted:
        trains_all = own.get("model_type") == "gpt" or own.get("freeze_qk") is False
        for other in freezing if trains_all and not own.get("freeze_ffn") else ():
            frozen, total = other.parameters.frozen, other.parameters.total
            assert frozen is not None and total is not None
            if run.parameters.total == total - frozen and _shape(run) == _shape(other):
                what = _(
                    "{run} should train everything, but its {total} parameters lack exactly the {frozen} that "
                    "{other} freezes: they are no parameters in it (buffers, perhaps), and are not trained",
                    run.name,
                    _count(run.parameters.total),
                    _count(frozen),
                    other.name,
                )
                findings.append(AuditFinding(severity=VOID, text=what, groups=(run.group,)))
                break
    return findings


def _shape(run: LoadedRun) -> list[object]:
    return [run.train.get(key) for key in ("vocab_size", "d_model", "num_layers", "d_ff", "seq_len")]


def never_varied(a: Sequence[LoadedRun], b: Sequence[LoadedRun], freezing: tuple[object, object]) -> Sentence | None:
    """Return why two arms that should differ in freezing don't, judged by counts and checkpoints alone; None where
    nothing says so.

    ``freezing`` holds the two groups' ``freeze_qk``. Arms whose frozen and trainable counts are equal trained the
    same parameters: Q/K kept as buffers look so (they aren't parameters in either arm).
    """
    if not (isinstance(freezing[0], bool) and isinstance(freezing[1], bool)) or freezing[0] == freezing[1]:
        return None
    counts = [
        {(run.parameters.total, run.parameters.trainable) for run in arm if run.parameters.trainable is not None}
        for arm in (a, b)
    ]
    if counts[0] and counts[0] == counts[1]:
        total, trainable = next(iter(counts[0]))
        return _(
            "the factor was never varied: both arms have {total} parameters, {trainable} of them trainable",
            _count(total),
            _count(trainable),
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


SHARED_START = frozenset({"model_type", "freeze_qk", "freeze_ffn", "qk_init"})
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
        tensors = [run.treatment.groups, partner.treatment.groups]
        starts = [groups["other"].sha256_start for groups in tensors if "other" in groups]
        # With a frozen feed-forward as an entry of its own, "other" stands for fewer tensors.
        if len(starts) == 2 and all(starts) and starts[0] != starts[1] and tensors[0].keys() == tensors[1].keys():
            return _(
                "{a} and {b} began with different weights besides Q/K: more than the factor was varied",
                run.name,
                partner.name,
            )
    return None


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"

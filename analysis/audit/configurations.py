"""Audit configurations and records for unequal conditions, missing runs and implausible values.

Learning rates, steps and losses as they were recorded are compared in ``observations``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from oelm_jobs.agent.sentences import _
from oelm_jobs.spec.study import Study
from oelm_jobs.study import fairness

from ..findings import DECLARED, NOTE, UNFAIR, WARNING, AuditFinding, warning
from ..reading import reference
from ..reading.loaded_run import LoadedRun


def arm(run: LoadedRun) -> fairness.Arm:
    """Return the run as the comparison sees it."""
    scientific, execution = fairness.split(run.train)
    if run.global_batch is not None:
        scientific["global_batch"] = run.global_batch
    hashes = [str(run.data[key]) for key in ("train_sha256", "val_sha256") if run.data.get(key)]
    if hashes:
        scientific["data"] = "+".join(hash_[:12] for hash_ in hashes)
    for key, value in (("torch_version", run.versions.get("torch")), ("train_code", run.provenance.get("train_code"))):
        if value:
            scientific[key] = value
    if run.precision:
        scientific["precision"] = run.precision
    if run.world_size is not None:
        execution["world_size"] = run.world_size
    for key, name in (("name", "gpu_model"), ("host", "host")):
        if run.hardware.get(key):
            execution[name] = run.hardware[key]
    return fairness.Arm(group=run.group, run=run.name, scientific=scientific, execution=execution)


def differences(runs: Sequence[LoadedRun], study: Study) -> list[fairness.Difference]:
    """Return what differs over the runs but the factors."""
    return fairness.differences([arm(run) for run in runs], factors=study.factors, unequal=study.declared)


def from_configurations(runs: Mapping[str, Sequence[LoadedRun]], study: Study) -> list[AuditFinding]:
    """Return findings on configurations, records and values of the study's runs."""
    listed = [run for members in runs.values() for run in members]
    findings = [_difference(d) for d in differences(listed, study) if d.is_unfair or d.reason or d.voids]
    findings += interim(runs, study)
    findings += implausible(listed)
    findings += uncompared(runs, study)
    findings += unchecked(runs)
    wanted = next((run.study for run in listed if run.study), "")
    for run in listed if reference.is_made_up(study) else ():
        if run.study and run.study != wanted:
            said = _("{run} says that it belongs to study {study}, not {wanted}", run.name, run.study, wanted)
            findings.append(warning(said, run.group))
    return findings


def beyond(groups: Mapping[str, Sequence[LoadedRun]], study: Study) -> list[AuditFinding]:
    """Return what is said of all runs, those of no group of the study included: how their files were read, and a
    warning that such runs are compared with nothing (another value that was tried has a tag, and is meant to be).
    """
    strangers = tuple(
        run.name for name, runs in groups.items() if name not in study.groups for run in runs if not run.tag
    )
    said = _("{runs} belong to no group of the study: shown in the tables, compared in no verdict", strangers)
    return ([warning(said)] if strangers else []) + [
        AuditFinding(severity=NOTE, text=_("{run}: {note}", run.name, note), groups=(run.group,))
        for runs in groups.values()
        for run in runs
        for note in run.notes
    ]


def _difference(d: fairness.Difference) -> AuditFinding:
    values = tuple(f"{name} {_short(value)}" for name, value in d.values.items())
    if d.is_unfair:
        return AuditFinding(severity=UNFAIR, text=_("{key} is not the same: {values}", d.key, values), key=d.key)
    if d.reason:
        return AuditFinding(
            severity=DECLARED,
            text=_("{key} is not the same ({values}), as declared: {reason}", d.key, values, d.reason),
            key=d.key,
            metrics=d.voids,
        )
    return AuditFinding(
        severity=WARNING,
        text=_("{key} is not the same ({values}): speed and hours can't be compared", d.key, values),
        key=d.key,
        metrics=d.voids,
    )


def interim(runs: Mapping[str, Sequence[LoadedRun]], study: Study) -> list[AuditFinding]:
    """Return warnings for groups without all of their seeds finished: the report is an interim one."""
    findings = []
    for group in study.groups:
        members = runs.get(group, ())
        if not members:
            findings.append(warning(_("interim: group {group} has no runs", group), group, key="interim"))
            continue
        unfinished = [run for run in members if not run.finished and not run.diverged and run.source != "log"]
        if unfinished:
            states = [_("{run} {status}{progress}", run.name, run.told_status, _progress(run)) for run in unfinished]
            findings.append(warning(_("interim: {runs}", states), group, key="interim"))
        seen = {run.seed for run in members}
        extra = tuple(str(run.seed) for run in members if run.seed is not None and run.seed not in study.seeds)
        if extra:
            said = _("group {group} has runs of seeds that the study does not plan ({seeds})", group, extra)
            findings.append(warning(said, group, key="seeds"))
        absent = tuple(str(seed) for seed in study.seeds if seed not in seen)
        if absent and None not in seen:
            findings.append(
                warning(
                    _("interim: group {group} has no run of seed {seeds}", group, absent),
                    group,
                    key="interim",
                )
            )
    return findings


def uncompared(runs: Mapping[str, Sequence[LoadedRun]], study: Study) -> list[AuditFinding]:
    """Return warnings for what takes part in no comparison: ended runs without a validation, a single group."""
    findings = []
    if len(study.groups) == 1:
        findings.append(warning(_("there is no group but {group}: nothing is compared", next(iter(study.groups)))))
    for group, members in runs.items():
        silent = tuple(
            run.name
            for run in members
            if run.final is None and not run.diverged and (run.finished or run.source == "log")
        )
        if silent:
            findings.append(warning(_("{runs} left no validation and takes part in no comparison", silent), group))
    return findings


def unchecked(runs: Mapping[str, Sequence[LoadedRun]]) -> list[AuditFinding]:
    """Return what the audit can't check for runs of which only a log is left: silence would look like equality."""
    logs = [run for members in runs.values() for run in members if run.source == "log" and run.final is not None]
    if not logs or sum(bool(members) for members in runs.values()) < 2:
        return []
    what = [_("data")]
    if any(run.global_batch is None for run in logs):
        what.append(_("sequences per step"))
    if any("max_lr" not in run.train and (run.curve is None or not np.isfinite(run.curve.lr).any()) for run in logs):
        what.append(_("learning rates"))
    names = tuple(run.name for run in logs)
    said = _("logs alone don't tell whether {what} were the same: {runs}", tuple(what), names)
    return [warning(said, key="unchecked")]


def _progress(run: LoadedRun) -> str:
    if run.last_step is None:
        return ""
    return f" {run.last_step:,}/{run.max_steps:,}" if run.max_steps else f" {run.last_step:,}"


def implausible(runs: Sequence[LoadedRun]) -> list[AuditFinding]:
    """Return warnings for values that a language model of this kind can't have, or that stand far off the others."""
    findings = []
    finals = sorted(run.final.loss for run in runs if run.final is not None and math.isfinite(run.final.loss))
    middle = finals[len(finals) // 2] if finals else math.nan
    for run in runs:
        if run.diverged:
            findings.append(warning(_("{run} diverged", run.name), run.group))
            continue
        if run.final is None:
            continue
        loss = run.final.loss
        vocabulary = run.train.get("vocab_size")
        chance = math.log(vocabulary) if isinstance(vocabulary, int) and vocabulary > 1 else math.log(50257)
        if loss < 0.1 or (len(finals) > 2 and loss < 0.5 * middle):
            said = _(
                "{run}: a validation PPL of {ppl} is implausible (the others are near {others})",
                run.name, f"{run.final.ppl:.3g}", f"{math.exp(middle):.3g}",
            )  # fmt: skip
            findings.append(warning(said, run.group, is_doubt=True))
        if loss > chance + 0.05:
            said = _(
                "{run}: a validation loss of {loss} is worse than chance ({chance})",
                run.name,
                f"{loss:.3f}",
                f"{chance:.3f}",
            )
            findings.append(warning(said, run.group, is_doubt=True))
    return findings


def _short(value: Any) -> str:
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    return shown if len(shown) <= 20 else shown[:12] + "…"

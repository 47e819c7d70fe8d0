"""Audit configurations and records for unequal conditions, missing runs and implausible values.

Learning rates, steps and losses as they were recorded are compared in ``observations``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from oelm_jobs.agent.reasons import codes
from oelm_jobs.agent.sentences import _, joined
from oelm_jobs.programs import built_in
from oelm_jobs.spec.study import Study
from oelm_jobs.study import fairness

from .. import repeated
from ..findings import DECLARED, NOTE, UNFAIR, WARNING, AuditFinding, warning
from ..reading import foreign, reference
from ..reading.loaded_run import LoadedRun, perplexity

DATA = ("train_sha256", "val_sha256", "test_sha256")
"""Hashes of what a run of the built-in trainer read."""
CHANGED = "changed_outside"
"""Code of the remark that code or data changed while a run went on."""


def arm(run: LoadedRun) -> fairness.Arm:
    """Return the run as the comparison sees it."""
    recorded = {
        "global_batch": run.global_batch,
        "data": "+".join(str(run.data[key])[:12] for key in DATA if run.data.get(key)),
        "torch_version": run.versions.get("torch"),
        "train_code": run.provenance.get("train_code"),
        "precision": run.precision,
        "world_size": run.world_size,
        "gpu_model": run.hardware.get("name"),
        "host": run.hardware.get("host"),
        "per_gpu": run.per_gpu,
        "compiled": None if run.compiled is None else str(run.compiled).lower(),
    }
    # Where only folders are named, nothing says which setting of a script takes its seed.
    is_seed = run.is_script and run.seed is not None
    train = {key: value for key, value in run.train.items() if not (is_seed and "seed" in key and value == run.seed)}
    if train and run.source == "rundir" and not run.is_script:
        train = built_in.in_full(train)
    keys = {**train, **{key: value for key, value in recorded.items() if value}}
    return fairness.Arm(group=run.group, run=run.name, keys=keys)


def differences(runs: Sequence[LoadedRun], study: Study) -> list[fairness.Difference]:
    """Return what differs over the runs but the factors."""
    kinds = fairness.kinds(study.program)
    return fairness.differences([arm(run) for run in runs], factors=study.factors, unequal=study.declared, kinds=kinds)


def from_configurations(
    runs: Mapping[str, Sequence[LoadedRun]], study: Study, found: Sequence[fairness.Difference]
) -> list[AuditFinding]:
    """Return findings on configurations, records and values of the study's runs, of which ``found`` are the
    differences.
    """
    listed = [run for members in runs.values() for run in members]
    findings = [
        *(_difference(d, runs) for d in found if d.is_unfair or d.reason or d.voids),
        *interim(runs, study),
        *implausible(listed),
        *uncompared(listed, study),
        *told_otherwise(listed, study),
        *resumed(listed),
        *unchecked(listed),
    ]
    wanted = next((run.study for run in listed if run.study), "")
    for run in listed if reference.is_made_up(study) else ():
        if run.study and run.study != wanted:
            said = _("{run} says that it belongs to study {study}, not {wanted}", run.name, run.study, wanted)
            findings.append(warning(said, run.group))
    return findings


def beyond(groups: Mapping[str, Sequence[LoadedRun]], study: Study) -> list[AuditFinding]:
    """Return what is said of all runs, those of no group of the study included: how their files were read, and warnings
    that code or data changed under a run, and that strange runs are compared with nothing (another value that was tried
    has a tag, and is meant to be).
    """
    strangers = tuple(
        run.name for name, runs in groups.items() if name not in study.groups for run in runs if not run.tag
    )
    said = _("{runs} belong to no group of the study: shown in the tables, compared in no verdict", strangers)
    return ([warning(said)] if strangers else []) + [
        AuditFinding(
            severity=WARNING if CHANGED in codes(note) else NOTE,
            text=_("{run}: {note}", run.name, note),
            groups=(run.group,),
        )
        for runs in groups.values()
        for run in runs
        for note in run.notes
    ]


def _difference(d: fairness.Difference, groups: Mapping[str, Sequence[LoadedRun]]) -> AuditFinding:
    values: str | tuple[str, ...] = tuple(f"{name} {_short(value)}" for name, value in d.values.items())
    if len(values) > repeated.MOST:
        by_value: dict[str, list[str]] = {}
        for name, value in d.values.items():
            by_value.setdefault(_short(value), []).append(name)
        common, *rare = sorted(by_value.items(), key=lambda pair: -len(pair[1]))
        listed = [_("{value}: {runs}", value, repeated.named(runs, groups)) for value, runs in rare]
        values = joined([*listed, _("{value}: all {count} others", common[0], len(common[1]))])
    if d.is_unfair:
        severity, text = UNFAIR, _("{key} is not the same: {values}", d.key, values)
    elif d.reason:
        text = _("{key} is not the same ({values}), as declared: {reason}", d.key, values, d.reason)
        severity = DECLARED
    else:
        text = _("{key} is not the same ({values}): speed and hours can't be compared", d.key, values)
        severity = WARNING
    return AuditFinding(severity=severity, text=text, key=d.key, metrics=d.voids)


def interim(runs: Mapping[str, Sequence[LoadedRun]], study: Study) -> Iterator[AuditFinding]:
    """Return warnings for groups without all of their seeds finished: the report is an interim one."""
    for group in study.groups:
        members = runs.get(group, ())
        if not members:
            said = _("interim: group {group} has no runs", group)
            if study.sweep is not None:
                said = _("interim: group {group} has runs of the sweep alone, on which no verdict rests", group)
            yield warning(said, group, key="interim")
            continue
        unfinished = [run for run in members if not run.finished and not run.diverged and run.source != "log"]
        if len(unfinished) > repeated.MOST:
            counts = Counter(run.status for run in unfinished)
            said = _(
                "interim: {count} of {runs} runs of group {group} have not finished: {states}",
                len(unfinished), len(members), group, [f"{count} {status}" for status, count in counts.items()],
            )  # fmt: skip
            yield warning(said, group, key="interim")
        elif unfinished:
            states = [_("{run} {status}{progress}", run.name, run.told_status, _progress(run)) for run in unfinished]
            yield warning(_("interim: {runs}", states), group, key="interim")
        seen = {run.seed for run in members}
        extra = tuple(str(run.seed) for run in members if run.seed is not None and run.seed not in study.seeds)
        if extra:
            said = _("group {group} has runs of seeds that the study does not plan ({seeds})", group, extra)
            yield warning(said, group, key="seeds")
        absent = tuple(str(seed) for seed in study.seeds if seed not in seen)
        if absent and None not in seen and all(map(foreign.is_one, members)):
            said = _("seeds are missing: group {group} has no run of seed {seeds}", group, absent)
            yield warning(said, group, key="seeds")
        elif absent and None not in seen:
            yield warning(_("interim: group {group} has no run of seed {seeds}", group, absent), group, key="interim")


def uncompared(runs: Sequence[LoadedRun], study: Study) -> Iterator[AuditFinding]:
    """Return warnings for what takes part in no comparison: ended runs without a validation, a single group."""
    if len(study.groups) == 1:
        yield warning(_("there is no group but {group}: nothing is compared", next(iter(study.groups))))
    silent: dict[tuple[str, str, bool], list[str]] = {}
    for run in runs:
        has_result = run.final is not None or run.diverged or (run.main in run.series if run.main else run.series)
        if not has_result and (run.finished or run.source == "log"):
            silent.setdefault((run.group, run.main, run.is_script and run.source != "log"), []).append(run.name)
    for (group, main, is_script), names in silent.items():
        if main:
            yield warning(_("{runs} told no {metric}, the main metric", tuple(names), main), group)
        elif is_script:
            said = _("{runs} told no metric: [metrics] of the study says where the program writes them", tuple(names))
            yield warning(said, group)
        else:
            yield warning(_("{runs} left no validation and takes part in no comparison", tuple(names)), group)


def told_otherwise(runs: Sequence[LoadedRun], study: Study) -> Iterator[AuditFinding]:
    """Return a warning for runs from before the study named patterns of metrics: theirs are read as it said then."""
    if study.program is None:
        return
    metrics = study.program.metrics
    now = {"lines": metrics.lines, "files": metrics.files}
    before = [run for run in runs if any({*now[key]} - {*told} for key, told in run.told_by.items())]
    if before:
        said = _(
            "[metrics] of the study came to name more since {runs} were submitted: what they told is read as it said "
            "then (oelm-submit --rerun starts them over)",
            tuple(run.name for run in before),
        )
        yield warning(said, *dict.fromkeys(run.group for run in before), key="metrics")


def resumed(runs: Sequence[LoadedRun]) -> Iterator[AuditFinding]:
    """Return a warning for runs of scripts that went on from a checkpoint: what they would have come to without a stop
    nobody knows.
    """
    found: dict[str, list[str]] = {}
    for run in runs:
        if run.is_inexact:
            found.setdefault(run.group, []).append(run.name)
    for group, names in found.items():
        said = _(
            "{runs} went on from a checkpoint, and nothing shows that the result is that of a run without a stop: "
            "seeds of group {group} are not paired",
            tuple(names),
            group,
        )
        yield warning(said, group, key="inexact_resume")


def unchecked(runs: Sequence[LoadedRun]) -> Iterator[AuditFinding]:
    """Return what the audit can't check for runs of which only a log is left: silence would look like equality."""
    logs = [run for run in runs if run.source == "log" and (run.final is not None or run.series)]
    if not logs or len({run.group for run in runs}) < 2:
        return
    told = {key for run in logs if foreign.is_one(run) for key in run.train}
    what = [] if any("data" in key for key in told) else [_("data")]
    if any(run.global_batch is None for run in logs) and not any("batch" in key for key in told):
        what.append(_("sequences per step"))
    if any("max_lr" not in run.train and (run.curve is None or not np.isfinite(run.curve.lr).any()) for run in logs):
        what += [] if any(map(foreign.RATE.fullmatch, told)) else [_("learning rates")]
    if not what:
        return
    names = tuple(run.name for run in logs)
    said = _("logs alone don't tell whether {what} were the same: {runs}", tuple(what), names)
    yield warning(said, key="unchecked")


def _progress(run: LoadedRun) -> str:
    if run.last_step is None:
        return ""
    return f" {run.last_step:,}/{run.max_steps:,}" if run.max_steps else f" {run.last_step:,}"


def implausible(runs: Sequence[LoadedRun]) -> Iterator[AuditFinding]:
    """Return warnings for values that a language model of this kind can't have, or that stand far off the others."""
    finals = sorted(run.final.loss for run in runs if run.final is not None and math.isfinite(run.final.loss))
    middle = finals[len(finals) // 2] if finals else math.nan
    for run in runs:
        if run.diverged:
            yield warning(_("{run} diverged", run.name), run.group)
            continue
        if run.final is None:
            continue
        loss = run.final.loss
        vocabulary = run.train.get("vocab_size")
        chance = math.log(vocabulary if isinstance(vocabulary, int) and vocabulary > 1 else 50257)
        if loss < 0.1 or (len(finals) > 2 and loss < 0.5 * middle):
            said = _(
                "{run}: a validation PPL of {ppl} is implausible (the others are near {others})",
                run.name, f"{run.final.ppl:.3g}", f"{perplexity(middle):.3g}",
            )  # fmt: skip
            yield warning(said, run.group, is_doubt=True)
        if loss > chance + 0.05:
            said = _(
                "{run}: a validation loss of {loss} is worse than chance ({chance})",
                run.name,
                f"{loss:.3f}",
                f"{chance:.3f}",
            )
            yield warning(said, run.group, is_doubt=True)


def _short(value: Any) -> str:
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    return shown if len(shown) <= 20 else shown[:12] + "…"

"""A report as JSON: ``analysis_results.json`` and the study's summary, both with a version.

Numbers that JSON can't say are the strings ``"inf"`` and ``"-inf"``; what isn't known is null.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from oelm_jobs import table as plain
from oelm_jobs import visible
from oelm_jobs.study.blocks import of_tag

from .. import wording
from ..audit.choice import RULE
from ..findings import UNFAIR, VOID, WARNING
from ..judging.effects import effect
from ..judging.scales import DIFFERENCE, RATIO, scale_of
from ..judging.verdicts import Verdict
from ..printed import date, say, where
from ..reading.loaded_run import LoadedRun, Point
from ..report import Report
from ..tables import records
from ..tuning import Tuning

VERSION = 1
"""Of both files; rises when a key changes its meaning or goes away."""


def results(report: Report, language: str, made_at: float) -> dict[str, Any]:
    """Return everything that the report knows."""
    return {
        **_head(report, made_at),
        "locked_at": date(report.locked_at) if report.locked_at is not None else None,
        "lock": _lock(report, language),
        "findings": [
            {**_named(f, "severity"), "text": say(f.text, language), **_named(f, "groups", "key", "metrics")}
            for f in report.findings
        ],
        "deviations": _said(report.deviations, language),
        "verdicts": [_verdict(verdict, report, language) for verdict in report.verdicts],
        **({"tuning": _tuning(report, report.tuning, language)} if report.tuning is not None else {}),
        "tables": {table.key: records(table) for table in report.all_tables},
        "differences": [
            {**_named(d, "key", "kind", "values", "reason"), "unfair": d.is_unfair} for d in report.differences
        ],
        **({"lineage": [vars(edge) for edge in report.lineage]} if report.lineage else {}),
        "runs": [
            {**_run(run, group, language), **_block(report, run)}
            for group, members in report.groups.items()
            for run in members
        ],
    }


def _tuning(report: Report, tuned: Tuning, language: str) -> dict[str, Any]:
    choice = tuned.choice
    return {
        "recorded_at": choice.chosen if choice is not None else None,
        "rule": RULE,
        "seeds": report.study.seeds,
        "confirm_seeds": report.study.confirm_seeds,
        "judge_on": report.study.judge_on,
        "sound": not tuned.findings,
        "limits": _said([found.text for found in tuned.findings], language),
        "groups": {
            effort.group: {
                "trials": [
                    {"run": one.name, "values": dict(one.candidate.values), "state": one.state, "result": one.result}
                    for one in effort.trials
                ],
                "extra": [run.name for run in effort.extra],
                **_named(effort, "steps", "gpu_hours"),
                "chosen": choice.groups[effort.group].values if choice and effort.group in choice.groups else None,
                "best_now": tuned.best[effort.group].values if effort.group in tuned.best else None,
                "confirming": [run.name for run in tuned.confirming.get(effort.group, ())],
                "strange": [run.name for run in tuned.strange if run.group == effort.group],
            }
            for effort in tuned.efforts
        },
    }


def _lock(report: Report, language: str) -> dict[str, Any] | None:
    if report.locked is None:
        return None
    lock = report.locked.binding
    return {
        "sha256": lock.sha256,
        "locked_at": date(lock.locked_at),
        "said": _said(report.locked.lines, language),
        "search_locked_first": report.locked.search_first,
        "rest_locked_first": report.locked.rest_first,
    }


def _head(report: Report, made_at: float) -> dict[str, Any]:
    return {
        "version": VERSION,
        "made_at": date(made_at),
        "study": report.study.name,
        "question": report.study.question,
        "interim": report.is_interim,
    }


def summary(report: Report, language: str, made_at: float) -> dict[str, Any]:
    """Return one short record of a study: a line a group, a verdict a hypothesis."""
    groups = zip(report.groups, records(report.tables[0]), strict=True)  # of a block with its name
    limits = [finding.text for finding in report.findings if finding.severity in (VOID, UNFAIR, WARNING)]
    return {
        **_head(report, made_at),
        "groups": {name: {"label": record.pop("group"), **record} for name, record in groups},
        "hypotheses": {verdict.hypothesis.id: _brief(verdict, report, language) for verdict in report.verdicts},
        "limits": _said(limits, language),
        "deviations": _said(report.deviations, language),
    }


def verdicts_csv(report: Report) -> str:
    """Return a line a hypothesis with plain numbers; what isn't known is empty."""
    records = [_clean(_verdict(verdict, report, "en")) for verdict in report.verdicts]
    results = [f"{name}{end}" for name in ("ratio", "difference") for end in ("", "_low", "_high")]
    keys = (
        "id", "verdict", "metric", "group", "against", *results, "one_sided_level", "method", "count", "p_supported",
        "p_refuted", "step", "rule", "sentence",
    )  # fmt: skip
    return plain.csv([[record.get(key) for key in keys] for record in records], keys)


def dumps(record: dict[str, Any]) -> str:
    """Return JSON that is the same for the same content: keys in their order, indented, one date line."""
    return visible.in_json(json.dumps(_clean(record), ensure_ascii=False, indent=1, allow_nan=False)) + "\n"


def _brief(verdict: Verdict, report: Report, language: str) -> dict[str, Any]:
    h = verdict.hypothesis
    words = wording.interval_words(verdict)
    return {
        "verdict": verdict.outcome,
        "claim": say(wording.claim(h, report.labels), language),
        "rule": say(wording.rule(h), language),
        "estimate": wording.in_rule_units(h, verdict.estimate) if verdict.estimate is not None else None,
        "interval": say(words, language) if words else None,
        "sentence": say(wording.sentence(verdict, report.labels), language),
        "reasons": _said(wording.reasons(verdict, report), language),
    }


def _verdict(verdict: Verdict, report: Report, language: str) -> dict[str, Any]:
    found = _alone(verdict, report, language)
    if not verdict.blocks:
        return found
    of_blocks = [
        {"block": each.block, **_alone(each, report.parts.get(each.block, report), language)} for each in verdict.blocks
    ]
    return {**found, **_named(verdict.hypothesis, "holds"), "blocks": of_blocks}


def _alone(verdict: Verdict, report: Report, language: str) -> dict[str, Any]:
    h = verdict.hypothesis
    return {
        "id": h.id,
        **_brief(verdict, report, language),
        **_named(h, "metric", "group", "against", "relation", "bounds", "margin", "because"),
        **(_named(h, "scale", "at", "goal") if h.is_told or scale_of(h) is not RATIO else {}),
        "declared_level": h.level,
        "method": verdict.method,
        **_effects(verdict),
        "region": verdict.region,
        "one_sided_level": verdict.level,
        "count": verdict.count,
        **_named(verdict, "p_supported", "p_refuted", "step"),
        "values": {
            arm: [{"seed": value.seed, "run": value.run, "value": value.raw} for value in values]
            for arm, values in (("group", verdict.group), ("against", verdict.against))
        },
    }


def _effects(verdict: Verdict) -> dict[str, Any]:
    """Return the effect as a ratio and as a difference."""
    found: dict[str, Any] = {}
    for name, spread, scale in (("ratio", "sd_log_ratio", RATIO), ("difference", "sd_difference", DIFFERENCE)):
        one = effect(verdict, scale)
        low, high = one.interval or (None, None)
        found |= {name: one.estimate, f"{name}_low": low, f"{name}_high": high, spread: one.sd}
    return found


def _run(run: LoadedRun, group: str, language: str) -> dict[str, Any]:
    steps = [] if run.validations is None else run.validations.step.tolist()
    return {
        "run": run.name,
        "group": group,
        **_named(run, "seed", "tag", "source", "status", "reason", "max_steps", "last_step"),
        "final": _point(run.final),
        "best": _point(run.best),
        **({"test": _test(run.test)} if run.test is not None else {}),
        "validations": {"count": len(steps), "first_step": steps[0], "last_step": steps[-1]} if steps else None,
        **({"metrics": {name: _series(run, name) for name in run.series}} if run.series else {}),
        "parameters": vars(run.parameters),
        **_named(run, "world_size", "global_batch", "tokens_per_s", "elapsed_hours", "gpu_hours", "peak_gpu_mem_gb",
                 "attempts", "fingerprint", "factors", "train", "hardware", "versions", "data", "precision",
                 "provenance"),
        "notes": _said(run.notes, language),
    }  # fmt: skip


def _block(report: Report, run: LoadedRun) -> dict[str, str]:
    """Return the block that a run is in, where the study has some."""
    return {"block": of_tag(report.study, run.tag)[0]} if report.study.blocks else {}


def _series(run: LoadedRun, name: str) -> dict[str, Any]:
    series, goal = run.series[name], run.goals.get(name, "")
    best = series.best(goal) if goal else None
    found = {"count": len(series.step), "last": vars(series.last)}
    return {**found, "goal": goal, "best": vars(best) if best is not None else None} if goal else found


def _point(point: Point | None) -> dict[str, Any] | None:
    if point is None:
        return None
    return {"step": point.step, "val_loss": point.loss, "val_ppl": point.ppl, "whole_file": point.full}


def _test(point: Point) -> dict[str, Any]:
    return {"step": point.step, "test_loss": point.loss, "test_ppl": point.ppl}


def _named(record: object, *names: str) -> dict[str, Any]:
    """Return those values of a record that have its names for them in JSON, too."""
    return {name: getattr(record, name) for name in names}


def _said(texts: Iterable[str], language: str) -> list[str]:
    return [say(text, language) for text in texts]


def _clean(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, (str, int, float, bool)) or value is None:
        return where(value) if isinstance(value, str) else value
    return where(str(value))

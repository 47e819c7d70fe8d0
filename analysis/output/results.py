"""A report as JSON: ``analysis_results.json`` and the study's summary, both with a version.

Numbers that JSON can't say are the strings ``"inf"`` and ``"-inf"``; what isn't known is null.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from oelm_jobs import table as plain

from .. import wording
from ..findings import UNFAIR, VOID, WARNING
from ..judging.verdicts import Verdict
from ..printed import date, say
from ..reading.loaded_run import LoadedRun, Point
from ..report import Report
from ..tables import raw

VERSION = 1
"""Of both files; rises when a key changes its meaning or goes away."""


def results(report: Report, language: str, made_at: float) -> dict[str, Any]:
    """Return everything that the report knows."""
    return {
        **_head(report, made_at),
        "locked_at": date(report.locked_at) if report.locked_at is not None else None,
        "findings": [
            {
                "severity": f.severity,
                "text": say(f.text, language),
                "groups": list(f.groups),
                "key": f.key,
                "metrics": list(f.metrics),
            }
            for f in report.findings
        ],
        "deviations": [say(deviation, language) for deviation in report.deviations],
        "verdicts": [_verdict(verdict, report, language) for verdict in report.verdicts],
        "tables": {table.key: _records(*raw(table)) for table in report.tables},
        "differences": [
            {"key": d.key, "kind": d.kind, "values": dict(d.values), "reason": d.reason, "unfair": d.is_unfair}
            for d in report.differences
        ],
        "runs": [_run(run, group, language) for group, members in report.groups.items() for run in members],
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
    heads, rows = raw(report.tables[0])
    records = _records(heads, rows)
    return {
        **_head(report, made_at),
        "groups": {
            name: {"label": record.pop("group"), **record} for name, record in zip(report.groups, records, strict=True)
        },
        "hypotheses": {verdict.hypothesis.id: _brief(verdict, report, language) for verdict in report.verdicts},
        "limits": [say(f.text, language) for f in report.findings if f.severity in (VOID, UNFAIR, WARNING)],
        "deviations": [say(deviation, language) for deviation in report.deviations],
    }


def verdicts_csv(report: Report) -> str:
    """Return a line a hypothesis with plain numbers; what isn't known is empty."""
    keys = (
        "id", "verdict", "metric", "group", "against", "ratio", "ratio_low", "ratio_high", "one_sided_level", "method",
        "count", "p_supported", "p_refuted", "step", "rule", "sentence",
    )  # fmt: skip
    records = [_clean(_verdict(verdict, report, "en")) for verdict in report.verdicts]
    return plain.csv([[record[key] for key in keys] for record in records], keys)


def dumps(record: dict[str, Any]) -> str:
    """Return JSON that is the same for the same content: keys in their order, indented, one date line."""
    made = json.dumps(_clean(record), ensure_ascii=False, indent=1, allow_nan=False)
    # JSON doesn't escape DEL and the C1 control characters, which terminals interpret.
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", made) + "\n"


_CONTROL = re.compile(r"[\x7f-\x9f]")


def _brief(verdict: Verdict, report: Report, language: str) -> dict[str, Any]:
    h = verdict.hypothesis
    words = wording.interval_words(verdict)
    return {
        "verdict": verdict.outcome,
        "claim": say(wording.claim(h, report.labels), language),
        "rule": say(wording.rule(h), language),
        "estimate": wording.in_rule_units(h, verdict.ratio) if verdict.ratio is not None else None,
        "interval": say(words, language) if words else None,
        "sentence": say(wording.sentence(verdict, report.labels), language),
        "reasons": [say(reason, language) for reason in wording.reasons(verdict, report)],
    }


def _verdict(verdict: Verdict, report: Report, language: str) -> dict[str, Any]:
    h = verdict.hypothesis
    return {
        "id": h.id,
        **_brief(verdict, report, language),
        "metric": h.metric,
        "group": h.group,
        "against": h.against,
        "relation": h.relation,
        "bounds": list(h.bounds),
        "margin": h.margin,
        "declared_level": h.level,
        "method": verdict.method,
        "ratio": verdict.ratio,
        "ratio_low": verdict.interval[0] if verdict.interval else None,
        "ratio_high": verdict.interval[1] if verdict.interval else None,
        "region": list(verdict.region),
        "one_sided_level": verdict.level,
        "count": verdict.count,
        "sd_log_ratio": verdict.sd,
        "p_supported": verdict.p_supported,
        "p_refuted": verdict.p_refuted,
        "step": verdict.step,
        "values": {
            "group": [{"seed": v.seed, "run": v.run, "value": v.raw} for v in verdict.group],
            "against": [{"seed": v.seed, "run": v.run, "value": v.raw} for v in verdict.against],
        },
    }


def _run(run: LoadedRun, group: str, language: str) -> dict[str, Any]:
    p = run.parameters
    return {
        "run": run.name,
        "group": group,
        "seed": run.seed,
        "tag": run.tag,
        "source": run.source,
        "status": run.status,
        "reason": run.reason,
        "max_steps": run.max_steps,
        "last_step": run.last_step,
        "final": _point(run.final),
        "best": _point(run.best),
        "validations": None
        if run.validations is None
        else {
            "count": len(run.validations.step),
            "first_step": int(run.validations.step[0]),
            "last_step": int(run.validations.step[-1]),
        },
        "parameters": {
            "total": p.total,
            "trainable": p.trainable,
            "frozen": p.frozen,
            "qk": p.qk,
            "embedding": p.embedding,
        },
        "world_size": run.world_size,
        "global_batch": run.global_batch,
        "tokens_per_s": run.tokens_per_s,
        "elapsed_hours": run.elapsed_hours,
        "gpu_hours": run.gpu_hours,
        "peak_gpu_mem_gb": run.peak_gpu_mem_gb,
        "attempts": run.attempts,
        "fingerprint": run.fingerprint,
        "factors": dict(run.factors),
        "train": dict(run.train),
        "hardware": dict(run.hardware),
        "versions": dict(run.versions),
        "data": dict(run.data),
        "precision": run.precision,
        "provenance": dict(run.provenance),
        "notes": [say(note, language) for note in run.notes],
    }


def _point(point: Point | None) -> dict[str, Any] | None:
    return (
        None
        if point is None
        else {"step": point.step, "val_loss": point.loss, "val_ppl": point.ppl, "whole_file": point.full}
    )


def _records(heads: list[str], rows: list[list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(heads, row, strict=True)) for row in rows]


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    return str(value)

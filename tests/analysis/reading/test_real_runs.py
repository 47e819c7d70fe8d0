"""The committed run directories of the real trainer and supervisor: what they write is what the report reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from oelm_jobs.analysis.audit import treatment
from oelm_jobs.analysis.output import writing
from oelm_jobs.analysis.report import build

from .. import synthetic

RUNS = Path(__file__).parents[2] / "fixtures" / "runs"
FOLDERS = sorted(RUNS.glob("exp_*"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_real_run_is_read_whole_and_without_a_note(folder: Path) -> None:
    run = synthetic.load(folder)
    result = json.loads((folder / "experiment_result.json").read_text())
    assert not run.notes
    assert (run.name, run.status, run.seed) == (result["run"], result["status"], result["seed"])
    assert run.curve is not None and run.validations is not None
    assert run.final is not None and run.final.full and run.final.step == result["outcome"]["final"]["step"]
    assert run.final.loss == pytest.approx(result["outcome"]["final"]["val_loss"])
    counts = run.parameters
    assert (
        counts.total is not None and counts.trainable is not None and counts.frozen == counts.total - counts.trainable
    )
    assert treatment.proven(run) and treatment.contradictions(run, run.factors) == []


def test_real_runs_make_a_report_that_finds_them_comparable() -> None:
    study = synthetic.study(
        seeds=(42, 43), name=json.loads((FOLDERS[0] / "experiment_result.json").read_text())["study"]
    )
    report = build(study, list(map(synthetic.load, FOLDERS)))
    assert [str(f.text) for f in report.findings if f.severity in ("void", "unfair")] == []
    verdicts = {v.hypothesis.id: v for v in report.verdicts}
    assert verdicts["H1"].method == "exact" and verdicts["H1"].outcome == "refuted"
    assert (verdicts["H2"].method, verdicts["H2"].count) == ("paired", 2)
    shown = writing.show(report, "text", "en", 0.0)
    assert "Group C: OELM-Freeze" in shown and "nan" not in shown.lower()

"""What became of a run, by the files of its directory: each rule of the table with a case of its own."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from oelm_jobs.analysis.reading import metrics, run_directory, run_state
from oelm_jobs.analysis.reading.files import Attempt, EndRecord, Heartbeat, Outcome, Planned, Result
from oelm_jobs.analysis.reading.run_files import STALE_S, RunFiles

from oelm_jobs.agent.sentences import Sentence

NOW = 1_700_000_000.0
FRESH, OLD = Heartbeat(step=3, time=NOW - STALE_S + 1), Heartbeat(step=3, time=NOW - STALE_S)
ONE_ENDED = EndRecord(state="FAILED", reason="error", attempts=[Attempt(number=1)])
PLANNED = Planned(run="gpt_base")


def files(**said: Any) -> RunFiles:
    return RunFiles(now=NOW, **said)


CASES: dict[str, list[tuple[RunFiles, str, str]]] = {
    "a newer attempt reports": [
        (files(end=ONE_ENDED, start=Attempt(number=2), heartbeat=FRESH), "RUNNING", ""),
        (
            files(result=Result(status="DONE", attempts=[Attempt(number=1)]), start=Attempt(number=2), heartbeat=FRESH),
            "RUNNING",
            "",
        ),
    ],
    "a newer attempt fell silent": [
        (files(end=ONE_ENDED, start=Attempt(number=2), heartbeat=OLD), "UNKNOWN", "no heartbeat"),
        (files(end=ONE_ENDED, start=Attempt(number=2)), "UNKNOWN", "no heartbeat"),
    ],
    "the trainer knows why it failed": [
        (files(end=ONE_ENDED, outcome=Outcome(status="diverged")), "FAILED", "diverged"),
        (files(outcome=Outcome(status="oom", reason="CUDA out of memory")), "FAILED", "oom"),
    ],
    "the end is recorded": [
        (files(end=ONE_ENDED, start=Attempt(number=1), heartbeat=FRESH), "FAILED", "error"),
        (files(end=ONE_ENDED, result=Result(status="DONE")), "DONE", "error"),
        (files(result=Result(status="CANCELLED"), outcome=Outcome(status="diverged")), "CANCELLED", ""),
        (files(result=Result(status="FAILED", reason="disk full"), outcome=Outcome(status="error")), "FAILED",
         "disk full"),
    ],
    "the trainer finished": [(files(outcome=Outcome(status="completed"), heartbeat=FRESH), "DONE", "")],
    "the trainer failed": [
        (files(outcome=Outcome(status="error"), heartbeat=FRESH), "FAILED", "error"),
        (files(outcome=Outcome(status="error", reason="KeyError")), "FAILED", "KeyError"),
    ],
    "the trainer stopped": [(files(outcome=Outcome(status="resumable"), heartbeat=FRESH), "UNKNOWN", "resumable")],
    "the trainer reports": [(files(heartbeat=FRESH, planned=PLANNED), "RUNNING", "")],
    "the trainer fell silent": [
        (files(heartbeat=OLD, planned=PLANNED), "UNKNOWN", "no heartbeat"),
        (files(start=Attempt(number=1), planned=PLANNED), "UNKNOWN", "no heartbeat"),
    ],
    "it was planned only": [(files(planned=PLANNED), "QUEUED", "")],
    "nothing is recorded": [(files(), "UNKNOWN", "no record")],
}  # fmt: skip


def test_every_rule_has_a_case_in_the_order_of_the_table() -> None:
    assert list(CASES) == [rule.name for rule in run_state.RULES]


@pytest.mark.parametrize(
    ("name", "run", "state", "reason"),
    [(name, *case) for name, cases in CASES.items() for case in cases],
)
def test_the_first_rule_that_holds_says_state_and_reason(name: str, run: RunFiles, state: str, reason: str) -> None:
    assert run_state.rule_of(run).name == name
    assert run_state.state_of(run) == (state, reason)


def test_a_run_that_ends_while_its_metrics_are_read_is_not_called_done_with_half_a_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = tmp_path / "exp_a-s1"
    (run_dir / ".oelm").mkdir(parents=True)
    rows = [json.dumps({"step": step, "loss": 3.0, "lr": 1e-3, "time": 1000.0 + step}) + "\n" for step in (1, 2)]
    (run_dir / "metrics.jsonl").write_text(rows[0])
    (run_dir / ".oelm" / "start.json").write_text('{"number": 1, "started_at": 1000.0}')
    (run_dir / "heartbeat.json").write_text(json.dumps({"attempt": "t:1", "step": 1, "time": time.time()}))
    real = metrics.read

    def ends_meanwhile(path: Path, notes: list[Sentence]) -> Any:
        read = real(path, notes)
        path.write_text("".join(rows))
        (run_dir / ".oelm" / "end.json").write_text('{"version": 1, "state": "DONE", "attempts": [{"number": 1}]}')
        return read

    monkeypatch.setattr(metrics, "read", ends_meanwhile)
    assert run_directory.load(run_dir, now=time.time()).status == "RUNNING"
    assert list(run_directory.load(run_dir, now=time.time()).curve.step) == [1, 2]

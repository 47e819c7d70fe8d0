"""Runs that started over or were forgotten: which of a ledger's lines are about one, and where it is read from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from oelm_jobs.analysis import earlier

from oelm_jobs import ledger

from . import synthetic
from .synthetic import load, make_run, record


def made(folder: Path, token: str) -> Path:
    """Return a run of gpt_base that was submitted under a token."""
    place = make_run(folder, "gpt_base")
    known = json.loads((place / ".oelm" / "run.json").read_text())
    record(place, ".oelm/run.json", {**known, "run": "gpt_base", "token": token, "run_dir": str(place)})
    return place


def told(project: Path, **more: Any) -> None:
    ledger.append(project, "demo", [ledger.Entry(**{
        "time": 1.7e9, "study": "demo", "run": "gpt_base", "group": "gpt_base", "seed": 42, "tag": "", "token": "t1",
        "fingerprint": "", "target": "far", "run_dir": "/r/exp_gpt_base", "state": "DONE", "reason": "", "step": 400,
        "metric": "loss", "value": 3.0, "has_result": True, "gpu_hours": 1.0, "why": "", "event": ledger.RERUN, **more,
    })])  # fmt: skip


def test_a_bundle_s_ledger_leads_nowhere_else_on_this_machine(tmp_path: Path) -> None:
    told(tmp_path / "p", files=ledger.ARCHIVED, place=str(made(tmp_path / "elsewhere", "t1")))
    for is_bundled in (False, True):
        (one,) = earlier.load(tmp_path / "p", synthetic.study(), {}, now=1.8e9, is_bundled=is_bundled)
        assert (one.run is None) is is_bundled


@pytest.mark.parametrize(("token", "count"), [("t1", 0), ("t2", 1)])
def test_without_an_index_a_run_s_own_record_says_whether_it_started_over(
    tmp_path: Path, token: str, count: int
) -> None:
    told(tmp_path, files=ledger.MOVING)
    run = load(made(tmp_path / "models" / "checkpoints" / "demo", token))
    assert len(earlier.load(tmp_path, synthetic.study(), {}, [run], now=1.8e9)) == count
    assert len(earlier.load(tmp_path, synthetic.study(), {"gpt_base": "t2"}, [run], now=1.8e9)) == 1

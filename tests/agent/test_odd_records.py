"""Whatever lies where a run's records belong: it is that run's trouble alone, and every answer is as agreed."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs.agent import __main__ as agent
from oelm_jobs.agent import processes, records, rundir, verbs
from oelm_jobs.agent.reasons import because, told
from tests.hostile import places, replaced, without
from tests.test_hostile import NONSENSE

ATTEMPT = {
    "number": 1, "token": "t", "devices": ["cpu:0"], "started_at": 1.0, "ended_at": 2.0, "wall_s": 1.0, "job": None,
    "state": "DONE", "reason": "",
}  # fmt: skip
REASON = told(because("details", what=because("killed", signal="SIGKILL"), details="its last line"))
KINDS = [each for each in vars(records).values() if isinstance(each, records.Kind)]
IN_SIGHT = (rundir.MANIFEST, rundir.HEARTBEAT)
"""Those that lie beside the control folder."""
BYTES = (b"", b"\0\0", b"{", b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe", b'{"number": NaN}', b"9" * 10_000)
"""What isn't even JSON."""


def sound(run_dir: Path) -> dict[str, dict[str, Any]]:
    """Return a run's records by the names of their files."""
    identity = processes.identify(os.getpid()).to_json()
    run = {
        "token": "t", "study": "s", "run": "a", "group": "a", "label": "", "tag": "", "seed": 1, "target": "box",
        "project": "/p", "run_dir": str(run_dir), "fingerprint": "f", "train": {"max_steps": 10, "seq_len": 8},
        "factors": {}, "global_batch": 8, "gpus": 1, "port": 1, "after": None, "max_retries": 1,
    }  # fmt: skip
    return {
        rundir.RUN: run,
        rundir.START: {**ATTEMPT, "boot_id": identity["boot_id"], "before": [ATTEMPT], "port": 1},
        rundir.END: {"state": "FAILED", "token": "t", **REASON, "ended_at": 2.0, "attempts": [ATTEMPT]},
        rundir.CLAIM: {**identity, "token": "t"},
        rundir.WAITING: {"token": "t", "time": 1.0, **REASON},
        rundir.HEARTBEAT: {
            "attempt": "t-1",
            "step": 1,
            "max_steps": 10,
            "loss": 1.0,
            "time": 2.0,
            "metrics": {"acc": 0.5, "val_loss": "nan"},
        },
        rundir.OUTCOME: {"attempt": "t-1", "status": "completed", "reason": ""},
        rundir.INPUTS: {
            "version": 1,
            "inputs": [
                {
                    "input": "init",
                    "study": "s",
                    "run": "a",
                    "artifact": "best",
                    "fingerprint": "f",
                    "path": "/p/a.pt",
                    "sha256": "0" * 64,
                    "size": 7,
                    "time": 1.0,
                }
            ],
        },
        rundir.MANIFEST: {"files": [{"name": "training.log", "size": 7, "sha256": "0" * 64}]},
    }


def odd(record: dict[str, Any]) -> Iterator[bytes]:
    """Yield what else may stand in a record's file."""
    for at in places(record):
        for value in (*NONSENSE[::3], *NONSENSE[1::3]):
            said = replaced(copy.deepcopy(record), at, lambda inner, value=value: value)
            yield json.dumps(said).encode("utf-8", "surrogatepass")
        if at:
            yield json.dumps(without(copy.deepcopy(record), at)).encode()
    yield from BYTES


@pytest.mark.slow
@pytest.mark.parametrize("is_over", [True, False], ids=["over", "cut off"])
@pytest.mark.parametrize("name", sorted({kind.name for kind in KINDS} - {rundir.FETCHED}))
def test_a_record_that_makes_no_sense_is_one_runs_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, is_over: bool
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no Slurm that a job's number could be asked about
    folder = tmp_path / "models" / "checkpoints" / "s"
    good, bad = folder / "exp_b", folder / "exp_a"
    for run_dir in (good, bad):
        rundir.control(run_dir, "").mkdir(parents=True)
        (run_dir / "training.log").write_text("step 1\n")
        for each, content in sound(run_dir).items():
            path = run_dir / each if each == rundir.MANIFEST else rundir.control(run_dir, each)
            if is_over or each != rundir.END or each == name:
                path.write_text(json.dumps(content))
    path = bad / name if name in IN_SIGHT else rundir.control(bad, name)
    dirs = [str(good), str(bad)]
    known = said("probe", {"run_dirs": dirs})["runs"][str(good)]
    for content in odd(sound(bad)[name]):
        path.write_bytes(content)
        assert said("probe", {"run_dirs": dirs})["runs"][str(good)] == known, content[:200]
        assert str(good) in [run["run_dir"] for run in said("find", {"root": str(tmp_path)})["runs"]], content[:200]
        said("log", {"run_dir": str(bad), "name": "training.log", "lines": 5})
        if name in (rundir.MANIFEST, rundir.END):
            runs = [{"run_dir": run_dir} for run_dir in dirs]
            said("inventory", {"runs": runs, "checkpoints": "all"})


def said(verb: str, request: dict[str, Any]) -> Any:
    """Return what the agent answers, as it arrives; it is what was agreed."""
    answer = json.loads(json.dumps(agent.answer(verb, copy.deepcopy(request))))
    assert verbs.wrong_answer(verb, request, answer) is None
    return answer

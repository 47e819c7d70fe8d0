"""The script that checks the trainer on GPUs, rehearsed without one."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import checks, speed, table
from benchmarks.gpu.__main__ import TINY, rows_of
from benchmarks.gpu.checks import difference
from benchmarks.gpu.place import TIME_UP, Ended, Job, Place, Row
from tests.train.support import ROOT, clean_environment, read_json
from train.config import TrainConfig

# Logs what nanoGPT's train.py does, with the flags that it is given.
STAND_IN = """
import sys, time
given = dict(word[2:].split("=") for word in sys.argv[1:])
assert (given["device"], given["n_layer"], given["block_size"], given["dataset"]) == ("cpu", "1", "32", "bench"), given
for number in range(int(given["max_iters"])):
    time.sleep(0.005)
    if number % int(given["log_interval"]) == 0:
        print(f"iter {number}: loss 5.0000, time 5.00ms, mfu -100.00%", flush=True)
"""
RECORD = {
    "version": 1,
    "date": "2026-01-02",
    "seconds": 400.0,
    "machine": {"gpu": "NVIDIA L4", "gpus": 2, "python": "3.11.7", "torch": "2.9", "cuda": "12.8", "revision": "abc"},
    "rows": [
        {"section": "right", "what": "bf16, eager: the same run again", "says": "the same bits", "ok": True},
        {"section": "right", "what": "two processes", "says": "a | b", "ok": False},
        {"section": "fast", "what": "a step", "says": "8.00 ms", "ok": None},
    ],
}


def check_gpu(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**clean_environment(), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *words], cwd=ROOT, env=environment, capture_output=True, text=True
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_check_is_rehearsed_on_the_cpu(tmp_path: Path) -> None:
    for name in ("train.py", "model.py", "configurator.py"):
        (tmp_path / name).write_text(STAND_IN if name == "train.py" else "")
    done = check_gpu("--rehearse", "--against", str(tmp_path), "--json", str(tmp_path / "found.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    record = read_json(tmp_path / "found.json")
    rows = {row["what"]: row for row in record["rows"]}
    for how in ("fp32, eager", "fp32, two processes"):
        for again in ("the same run again", "resumed from step 20"):
            assert (rows[f"{how}: {again}"]["says"], rows[f"{how}: {again}"]["ok"]) == (
                "the same bits after 40 steps",
                True,
            )
    assert rows["frozen Q/K after training"]["ok"] is True
    assert rows["a steady step waits for nothing, mixed precision"]["ok"] is None
    assert rows["memory of the reference configuration"]["says"] == "needs a GPU"
    measured = [what for what, row in rows.items() if row["section"] == "fast"]
    for begin in (
        "oelm-jobs: a step of 128 tokens, fp32",
        "nanoGPT: a step of 128 tokens, fp32",
        "cost of determinism",
        "steps per second",
        "head, fp32, this trainer's",
        "head, fp32, F.cross_entropy",
        "frozen beside trained Q/K",
        "trained beside itself (control)",
    ):
        assert any(what.startswith(begin) for what in measured), begin
    assert rows["head, fp32, this trainer's"]["ok"] is True
    for what in rows:
        assert what in done.stdout and what in table.section([record])


@pytest.mark.slow
def test_without_a_gpu_the_check_says_so_in_one_line() -> None:
    done = check_gpu()
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and line.endswith("sees no GPU; --rehearse runs on the CPU, at a tiny size")


def test_the_page_has_what_was_measured() -> None:
    page = table.PAGE.read_text(encoding="utf-8")
    measured = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(table.MEASURED.glob("*.json"))]
    assert page == table.with_section(page, table.section(measured)), "run python -m benchmarks.gpu --docs"
    assert "nothing of this was measured" in table.section([])
    made = table.with_section(page, table.section([RECORD]))
    assert "### 2 x NVIDIA L4\n\n2026-01-02, PyTorch 2.9, CUDA 12.8, revision abc, 400 s in all." in made
    assert "| bf16, eager: the same run again | the same bits | yes |\n| two processes | a \\| b | NO |\n" in made
    assert "| a step | 8.00 ms |  |" in made
    assert table.with_section(made, table.section(measured)) == page


def test_a_single_bit_between_two_checkpoints_is_found(tmp_path: Path) -> None:
    weights = torch.arange(4.0)
    content = {
        "model": {"w": weights},
        "optimizer": {"state": {0: {"step": torch.tensor(40.0)}}},
        "scaler": {"scale": 2.0},
    }
    torch.save(content, tmp_path / "a.pt")
    assert difference(tmp_path / "a.pt", tmp_path / "a.pt") == ""
    other = torch.nextafter(weights, torch.full((4,), 9.0))
    for changes, says in (
        ({"model": {"w": torch.cat((weights[:3], other[3:]))}}, "model.w differs by 2.4e-07"),
        ({"optimizer": {"state": {0: {"step": torch.tensor(39.0)}}}}, "optimizer.state.0.step differs by 1.0e+00"),
        ({"scaler": {"scale": 1.0}}, "scaler.scale differs by 1.0e+00"),
    ):
        torch.save({**content, **changes}, tmp_path / "b.pt")
        assert difference(tmp_path / "a.pt", tmp_path / "b.pt") == says


def on_a_card(tmp_path: Path, ends_at: float = math.inf) -> Place:
    tiny = TrainConfig(seq_len=16, batch_size=4)
    return Place("cuda", 1, tmp_path, ends_at, tiny, tiny, None, 1.0)


@pytest.mark.slow
def test_a_program_that_does_not_end_is_killed_and_takes_no_time_from_the_others(tmp_path: Path) -> None:
    place = on_a_card(tmp_path, time.monotonic() + 600)
    waits = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    ended = place.run([Job("waits", ["-c", waits]), Job("ends", ["-c", "print('done')"])], limit_s=15)
    assert (ended["ends"].code, ended["ends"].text) == (0, "done\n")
    assert ended["waits"].code == TIME_UP and ended["waits"].complaint == "not ended in time"
    with pytest.raises(ProcessLookupError):
        os.kill(int(ended["waits"].text), 0)


@pytest.mark.slow
def test_a_checkout_that_fails_is_told_and_the_trainer_measured_all_the_same(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in ("train.py", "model.py", "configurator.py"):
        (checkout / name).write_text("import tiktokenizer\n")
    tiny = replace(TINY, model_type="gpt", freeze_qk=False)
    place = Place("cpu", 0, tmp_path, time.monotonic() + 600, tiny, tiny, checkout, 0.05)
    rows = {row.what: row for row in speed.check_steps(place)}
    assert rows["nanoGPT: a step"].ok is False
    assert rows["nanoGPT: a step"].says == "ModuleNotFoundError: No module named 'tiktokenizer'"
    assert [row.ok for what, row in rows.items() if what.startswith("oelm-jobs: a step of")] == [None]


def test_a_part_that_fails_takes_no_other_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def part(place: Place) -> Iterator[Row]:
        yield Row("right", "a", "b", True)
        raise ValueError("nobody foresaw this")

    found = list(rows_of(part, on_a_card(tmp_path), "right"))
    assert found == [Row("right", "a", "b", True), Row("right", "part", "ValueError: nobody foresaw this", False)]
    assert "Traceback" in capsys.readouterr().err


def test_that_a_card_has_one_process_only_is_no_fault_of_the_trainer(tmp_path: Path) -> None:
    place = on_a_card(tmp_path)
    two = checks.Variant("two", place.small, processes=2, local_ranks=(0, 0))
    refusal = "torch.distributed.DistBackendError: ncclInvalidUsage: Duplicate GPU detected : rank 0 and rank 1"
    for text, says, ok in (
        (refusal, "NCCL refuses two processes on one card", None),
        ("RuntimeError: something else", "RuntimeError: something else", False),
    ):
        (row,) = checks._compared(place, two, [Ended(1, text), Ended(1, "")], {})
        assert (row.what, row.says, row.ok) == ("two processes", says, ok)


def test_of_a_failed_program_the_line_is_told_that_says_why() -> None:
    text = "Device: cuda\nTraceback (most recent call last):\n  ...\nRuntimeError: no kernel image\nexiting\n"
    assert Ended(1, text).complaint == "RuntimeError: no kernel image"
    assert Ended(1, "").complaint == "exit code 1"
    assert Ended(0, 'a\n{"b": 1}\nWarning: at exit\n').line("{") == '{"b": 1}'
    assert Ended(TIME_UP, text).complaint == "not ended in time"
    assert table.as_text([Row("right", "a", "b", True), Row("right", "long", "c", False)]) == "yes a     b\nNO  long  c"

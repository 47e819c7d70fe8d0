"""Reading logs of every dialect, whole and damaged, in constant memory."""

from __future__ import annotations

import math
import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oelm_jobs.analysis.reading import logs
from oelm_jobs.analysis.reading.logs import Log

from .. import synthetic


def read(tmp_path: Path, content: str | bytes) -> Log:
    path = tmp_path / "training.log"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    log = Log()
    log.read(path)
    return log


def rows(log: Log) -> list[tuple[int, float, float]]:
    columns = log.train.finish()
    if columns is None:
        return []
    return list(zip(columns["step"].tolist(), columns["loss"].tolist(), columns["lr"].tolist(), strict=True))


def validations(log: Log) -> list[tuple[int, float]]:
    columns = log.val.finish()
    return [] if columns is None else list(zip(columns["step"].tolist(), columns["loss"].tolist(), strict=True))


REFERENCE = """Total parameters: 44,896,768
Trainable parameters: 41,751,040 (93.0%)
Frozen parameters: 3,145,728 (7.0%)
Step    300 | Loss: 5.6583 | PPL: 286.66 | LR: 4.50e-05
  Validation | Loss: 1.4793 | PPL: 4.39
"""


def test_the_lines_of_the_reference_are_read(tmp_path: Path) -> None:
    log = read(tmp_path, REFERENCE)
    assert rows(log) == [(300, 5.6583, 4.5e-5)]
    assert validations(log) == [(300, 1.4793)]
    assert log.facts == {"total_params": 44_896_768, "trainable_params": 41_751_040, "frozen_params": 3_145_728}
    assert log.not_understood == 0


def test_the_speed_beneath_a_validation_is_no_record(tmp_path: Path) -> None:
    log = read(
        tmp_path,
        REFERENCE + "  Speed | 251,000 tokens/s | MFU: 43.1 %\nStep    400 | Loss: 5.5 | PPL: 244.69 | LR: 6e-05\n",
    )
    assert rows(log) == [(300, 5.6583, 4.5e-5), (400, 5.5, 6e-5)]
    assert validations(log) == [(300, 1.4793)]
    assert log.alike == 0


@pytest.mark.parametrize(
    ("line", "step", "loss"),
    [
        ("[Step 1000] Validation - Loss: 3.7200, PPL: 41.26", 1000, 3.72),
        ("Eval step 1000 | loss=3.72 | ppl=41.26", 1000, 3.72),
        ("Eval step 1000: val_loss=3.72, ppl=41.26", 1000, 3.72),
        ("2024-05-01 10:00:00,123 - INFO - [Step 1000] Validation - Loss: 3.7200, PPL: 41.26", 1000, 3.72),
        ("[rank0]: Step 1,000 | val_loss: 3.72 | ppl: 41.26", 1000, 3.72),
        ("\x1b[32mEval step 1000 | loss=3.72 | ppl=41.26\x1b[0m", 1000, 3.72),
    ],
)
def test_validations_of_every_dialect_are_read(tmp_path: Path, line: str, step: int, loss: float) -> None:
    assert validations(read(tmp_path, line + "\n")) == [(step, loss)]


@pytest.mark.parametrize(
    ("line", "row"),
    [
        ("Step 100 | loss=5.12 | ppl=167.3", (100, 5.12, math.nan)),
        ("Step 100 | Loss: 5.12 | PPL: 167.30", (100, 5.12, math.nan)),
        ("Step 100 | loss=5.12 | ppl=167.3 | lr=1.5e-05", (100, 5.12, 1.5e-5)),
        ("2024-05-01 10:00:00 - INFO - Step    100 | Loss: 5.1200 | PPL: 167.30 | LR: 1.50e-05", (100, 5.12, 1.5e-5)),
        ("step 100/5000: train loss 5.12, lr: 1.5e-05", (100, 5.12, 1.5e-5)),
        ("Step    100 | Loss: 9.9035 | PPL: 22026.47 | LR: 1.50e-05", (100, 9.9035, 1.5e-5)),
    ],
)
def test_training_lines_of_every_dialect_are_read(tmp_path: Path, line: str, row: tuple[int, float, float]) -> None:
    assert rows(read(tmp_path, line + "\n")) == [pytest.approx(row, nan_ok=True)]


def test_numbers_inside_progress_bars_are_never_metrics(tmp_path: Path) -> None:
    bars = "".join(
        f"\rTraining:  {i}%|███   | {i}/100 [00:01<00:09, 9.9it/s, loss=0.031, ppl=1.03]" for i in range(100)
    )
    log = read(
        tmp_path,
        f"{bars}\r{' ' * 60}\rStep    100 | Loss: 2.4000 | PPL: 11.02 | LR: 1.50e-05\n"
        "Step 200 | loss=0.03: 5%|▎  | 5/100\n",
    )
    assert rows(log) == [(100, 2.4, 1.5e-5)]
    assert log.overwritten == 103 and log.not_understood == 0


def test_a_status_line_that_was_overwritten_is_no_record(tmp_path: Path) -> None:
    assert rows(read(tmp_path, "Step 100 | loss=0.03 | ppl=1.03\rStep 200 | loss=2.40 | ppl=11.0\n")) == [
        (200, 2.4, pytest.approx(math.nan, nan_ok=True))
    ]


def test_windows_line_ends_are_line_ends(tmp_path: Path) -> None:
    assert rows(read(tmp_path, REFERENCE.replace("\n", "\r\n"))) == [(300, 5.6583, 4.5e-5)]


def test_after_a_resume_the_last_record_of_a_step_wins(tmp_path: Path) -> None:
    lines = [f"Step {s} | Loss: {9 - s / 1000:.4f} | PPL: 1.00 | LR: 1.00e-04" for s in range(100, 1001, 100)]
    again = [f"Step {s} | Loss: {5 - s / 1000:.4f} | PPL: 1.00 | LR: 1.00e-04" for s in range(600, 1501, 100)]
    log = read(tmp_path, "\n".join([*lines, "Resuming from checkpoint_500.pt", *again]) + "\n")
    found = rows(log)
    assert [step for step, _, _ in found] == list(range(100, 1501, 100))
    assert found[4][1] == 8.5 and found[5][1] == 4.4
    assert log.train.repeated == 5 and log.train.restarts == 1


def test_a_cut_off_last_line_is_left_out_and_said(tmp_path: Path) -> None:
    log = read(tmp_path, REFERENCE + "Step    400 | Loss: 5.1")
    assert rows(log) == [(300, 5.6583, 4.5e-5)] and log.is_truncated


@pytest.mark.parametrize(
    "line",
    [
        "Step -100 | Loss: 5.1 | PPL: 164.00 | LR: 1.00e-04",
        "Step 100 | Loss: -5.1 | PPL: 164.00 | LR: 1.00e-04",
        "Step 100 | Loss: 1.2.3 | PPL: 164.00 | LR: 1.00e-04",
        "Step 99999999999999999999999 | Loss: 5.1 | PPL: 164.00 | LR: 1.00e-04",
        "Step 300 | LosStep 100 | Loss: 5.3 | PPL: 200.34",
        "  Validation | Loss: 1.4793 | PPL: 4.39",
    ],
)
def test_what_looks_like_a_record_and_is_none_is_counted(tmp_path: Path, line: str) -> None:
    log = read(tmp_path, line + "\n")
    assert rows(log) == [] and validations(log) == []
    assert (log.not_understood, log.alike) == (1, 1)


def test_a_loss_that_is_not_a_number_is_kept_as_such(tmp_path: Path) -> None:
    log = read(
        tmp_path, "Step 100 | Loss: 2.0000 | PPL: 7.39 | LR: 1.00e-04\nStep 200 | Loss: nan | PPL: nan | LR: 1.00e-04\n"
    )
    assert math.isnan(rows(log)[1][1]) and log.is_nan_at_end


def test_a_validation_whose_ppl_is_not_that_of_its_loss_is_counted(tmp_path: Path) -> None:
    log = read(tmp_path, "Eval step 100 | loss=0.0300 | ppl=2.40\nEval step 200 | loss=0.8755 | ppl=2.40\n")
    assert log.disagreeing == 1 and len(validations(log)) == 2


def test_facts_of_the_configuration_are_read_from_chatter(tmp_path: Path) -> None:
    log = read(
        tmp_path,
        "World size: 4\nNamespace(batch_size=8, seq_len=512, freeze_qk=True, max_lr=0.0003)\nTraining complete!\n",
    )
    assert log.facts["world_size"] == 4 and log.facts["batch_size"] == 8 and log.facts["freeze_qk"] is True
    assert log.facts["max_lr"] == 0.0003 and log.facts["complete"] is True


@pytest.mark.parametrize(
    ("words", "rate"),
    [
        ("tok/s: 12,345", 12_345.0),
        ("tokens/s=45000.5", 45_000.5),
        ("tokens_per_sec: 800", 800.0),
        ("12,345 tok/s", 12_345.0),
        ("tok/s/gpu: 500", math.nan),
        ("500 tok/s/GPU", math.nan),
        ("45k tok/s", math.nan),
        ("tok/s: 45k", math.nan),
    ],
)
def test_tokens_per_second_are_read_where_a_line_tells_them(tmp_path: Path, words: str, rate: float) -> None:
    log = read(tmp_path, f"Step 100 | Loss: 5.0000 | LR: 1.00e-04 | {words}\nStep 200 | Loss: 4.0000 | LR: 1.00e-04\n")
    assert str(speeds(log)) == str([rate, math.nan])


def test_a_shape_of_line_that_is_known_is_read_like_the_first_one(tmp_path: Path) -> None:
    lines = [f"Step {s:5d}/99999 - train loss: {s / 7:.4f}, ppl 9, lr: {s}e-07, 5 tok/s" for s in range(100, 1000)]
    log = read(
        tmp_path, "\n".join([*lines, "Step 99999/99999 - train loss: 1__0.00, ppl 9, lr: 3e-07, 5 tok/s"]) + "\n"
    )
    assert rows(log) == [(s, round(s / 7, 4), float(f"{s}e-07")) for s in range(100, 1000)]
    assert len(log._shapes) < 20 and (log.not_understood, log.alike) == (1, 1)


def test_only_a_bounded_number_of_shapes_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "SHAPES", 16)
    log = read(tmp_path, "".join(f"{'ab' * i} 7\n{'x' * 600}\n" for i in range(1, 100)))
    assert len(log._shapes) <= 16 and log.not_understood == 198 and max(map(len, log._shapes)) < 512


def test_a_binary_file_gives_nothing_and_no_error(tmp_path: Path) -> None:
    log = read(tmp_path, random.Random(1).randbytes(300_000))
    assert rows(log) == [] and log.not_understood > 0


def test_an_empty_log_gives_nothing(tmp_path: Path) -> None:
    log = read(tmp_path, "")
    assert (rows(log), log.lines, log.is_truncated) == ([], 0, False)


def test_a_huge_line_is_passed_over_without_being_kept(tmp_path: Path) -> None:
    path = tmp_path / "training.log"
    with path.open("wb") as out:
        out.write(REFERENCE.encode())
        for _ in range(40):
            out.write(b"x" * (1 << 20))
        out.write(b"\nStep    400 | Loss: 5.5000 | PPL: 244.69 | LR: 6.00e-05\n")
    log = Log()
    tracemalloc.start()
    log.read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [step for step, _, _ in rows(log)] == [300, 400] and log.not_understood == 1
    assert peak < 12 << 20


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length_of_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oelm_jobs.analysis.reading.columns.LIMIT", 4096)
    peaks = []
    for size in (60_000, 240_000):
        path = tmp_path / f"{size}.log"
        with path.open("w") as out:
            for step in range(100, 100 * size + 1, 100):
                out.write(f"Step {step:6d} | Loss: 3.1234 | PPL: 22.72 | LR: 1.00e-04\n")
        log = Log(train=logs.Columns(limit=4096))
        tracemalloc.start()
        log.read(path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        columns = log.train.finish()
        assert columns is not None and len(columns["step"]) <= 4096 and int(columns["step"][-1]) == 100 * size
        assert log.train.added == size and log.train.stride > 1
    assert peaks[1] < 1.2 * peaks[0]


def test_thinning_keeps_the_lowest_validation_and_the_last(tmp_path: Path) -> None:
    lines = [f"Eval step {s} | loss={3 + (s % 7) / 10:.4f} | ppl=20.09" for s in range(1, 3000)]
    lines[1234] = "Eval step 1235 | loss=1.0000 | ppl=2.72"
    path = tmp_path / "a.log"
    path.write_text("\n".join(lines) + "\n")
    log = Log(val=logs.Columns(limit=64, keep_lowest="loss"))
    log.read(path)
    found = validations(log)
    assert len(found) <= 65 and min(found, key=lambda row: row[1]) == (1235, 1.0) and found[-1][0] == 2999


RECORD = st.tuples(
    st.integers(0, 99),
    st.sampled_from(
        ["plain", "bare", "equals", "stamped", "val", "bracket", "eval", "chatter", "odd", "bar", "foreign", "talk"]
    ),
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(RECORD, max_size=60), st.integers(40, 400))
def test_the_quick_pass_reads_what_the_careful_one_reads(
    tmp_path: Path, records: list[tuple[int, str]], block: int
) -> None:
    text = "".join(_line(i * 100, kind) for i, kind in records)
    path = tmp_path / "training.log"
    path.write_text(text)
    careful = Log()
    for raw in text.encode().replace(b"\r\n", b"\n").split(b"\n")[:-1]:
        careful.overwritten += raw.count(b"\r")
        careful._shapes.clear()
        careful._line(raw[raw.rfind(b"\r") + 1 :])
    careful._flush()
    quick = Log()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs, "BLOCK", block)
        quick.read(path)
    assert str(rows(quick)) == str(rows(careful)) and validations(quick) == validations(careful)
    assert (quick.not_understood, quick.alike, quick.overwritten) == (
        careful.not_understood,
        careful.alike,
        careful.overwritten,
    )
    assert str(speeds(quick)) == str(speeds(careful))
    assert quick.facts == careful.facts
    assert quick.lines == careful.lines and quick.train.restarts == careful.train.restarts


def speeds(log: Log) -> list[float]:
    columns = log.train.finish()
    return [] if columns is None else columns["tokens_per_s"].tolist()


def _line(step: int, kind: str) -> str:
    loss = 3 + (step % 900) / 1000
    return {
        "plain": f"Step {step:6d} | Loss: {loss:.4f} | PPL: 20.09 | LR: 1.00e-04\n",
        "bare": f"Step {step:6d} | Loss: {loss:.4f} | PPL: 20.09\n",
        "equals": f"Step {step} | loss={loss:.2f} | ppl=20.1\n",
        "stamped": f"2024-05-01 10:00:00,123 - INFO - Step {step:6d} | Loss: {loss:.4f} | PPL: 20.09 | LR: 1.00e-04\n",
        "val": f"  Validation | Loss: {loss:.4f} | PPL: {math.exp(loss):.2f}\n",
        "bracket": f"[Step {step}] Validation - Loss: {loss:.4f}, PPL: {math.exp(loss):.2f}\n",
        "eval": f"Eval step {step} | loss={loss:.4f} | ppl={math.exp(loss):.2f}\n",
        "chatter": "Saving checkpoint\n\n",
        "odd": f"Step -{step + 1} | Loss: {loss:.4f} | PPL: 20.09\n",
        "foreign": f"\t Step {step:,}/9,000 loss {loss:.3g} ({step % 7:.0e}) lr=3.{step % 89}e-04, {step} tok/s\n",
        "talk": f"worker {step}: {['heartbeat', 'loss at step', 'seed=' + str(step)][step // 100 % 3]} {step * 7}\n",
        "bar": f"\r 5%|▎ | {step}/100 [00:01<00:09, loss=0.03]\rStep {step} | loss=9.99: 7%|▎ | 7/100 [00:01<00:09]\n",
    }[kind]


@pytest.mark.parametrize("dialect", ["plain", "bracket", "equals", "bars"])
def test_whole_logs_of_every_dialect_give_the_same_curve(tmp_path: Path, dialect: str) -> None:
    log = read(tmp_path, synthetic.old_log(dialect=dialect))
    columns, val = log.train.finish(), log.val.finish()
    assert columns is not None and val is not None
    assert columns["step"].tolist() == list(range(100, 10_001, 100)) and val["step"].tolist() == list(
        range(1_000, 10_001, 1_000)
    )
    expected = [1.5 + 8 * math.exp(-s / 600) for s in range(1_000, 10_001, 1_000)]
    assert np.allclose(val["loss"], expected, atol=6e-5)
    assert log.not_understood == 0 and log.disagreeing == 0

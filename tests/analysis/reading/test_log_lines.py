"""Lines of logs as loggers, locales and editors change them: prefixes, commas, losses that aren't finite, encodings."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from oelm_jobs.analysis.reading import folders, numbers
from oelm_jobs.analysis.reading.logs import Log

from .test_logs import read, rows, speeds, validations

RECORDS = (
    "".join(f"Step {step} | Loss: 5.6583 | PPL: 286.66 | LR: 1.00e-04\n" for step in (100, 200, 300))
    + "[Step 300] Validation - Loss: 3.7200, PPL: 41.26\n"
)


def reason(tmp_path: Path) -> str:
    return folders.load(tmp_path, now=0.0, groups=("gpt_base",), first_seed=None).reason


@pytest.mark.parametrize(
    "prefix",
    [
        "2024-03-01 12:00:00,123 - INFO - ",
        "[default0]:",
        "INFO:root:",
        "[2024-03-01 12:00:00,123][__main__][INFO] - ",
        "2024-03-01 12:00:00.123 | INFO     | __main__:train:55 - ",
        "03/01/2024 12:00:00 - INFO - __main__ - ",
        "I0301 12:00:00.123456 12345 train.py:55] ",
        "[2024-03-01 12:00:00,123] [INFO] [train.py:96:log] [Rank 0] ",
        "0: ",
        "(RayTrainWorker pid=123, ip=10.0.0.1) ",
        "[12:00:00] ",
        "[1,0]<stdout>:",
        "Mar  1 12:00:00 node-3.cluster.local train[123]: ",
        "WARN  ",
        "Training ",
        "训练日志 2024年3月1日 | ",
        "\ufeff",
    ],
)
def test_records_are_read_behind_whatever_a_logger_puts_in_front(tmp_path: Path, prefix: str) -> None:
    log = read(tmp_path, "".join(prefix + line + "\n" for line in RECORDS.splitlines()))
    assert rows(log) == [(step, 5.6583, 1e-4) for step in (100, 200, 300)]
    assert validations(log) == [(300, 3.72)] and log.not_understood == 0


@pytest.mark.parametrize(
    "line",
    [
        "Resumed at step 100: loss 3.2",
        "Best: step 100 | loss 3.2",
        "Loaded checkpoint (step 500, loss 3.2)",
        "The lowest loss so far was that of step 100: loss 3.2",
        "Epoch 2 | Step 100 | Loss: 3.2",
        "Validation of step 99 failed, see step 100 | Loss: 3.2",
        "x" * 300 + " Step 100 | Loss: 3.2",
    ],
)
def test_a_loss_told_in_passing_is_no_record_and_is_counted_as_alike(tmp_path: Path, line: str) -> None:
    log = read(tmp_path, line + "\n")
    assert (rows(log), validations(log), log.alike) == ([], [], 1)


@pytest.mark.parametrize(
    ("word", "loss"),
    [
        ("3,7200", 3.72),
        ("3,72", 3.72),
        ("0,372", 0.372),
        ("1,234.56", 1234.56),
        ("1.234,56", 1234.56),
        ("1,234,567", 1_234_567.0),
        ("3.72,", 3.72),
        ("3.72.", 3.72),
        ("3,72,", 3.72),
        ("3,72e+00", 3.72),
    ],
)
def test_a_number_with_a_comma_is_read_whole(tmp_path: Path, word: str, loss: float) -> None:
    log = read(tmp_path, f"Step 100 | Loss: {word} | PPL: 1\n[Step 100] Validation - Loss: {word}, PPL: 1\n")
    assert [row[:2] for row in rows(log)] == [(100, loss)] and validations(log) == [(100, loss)]


@pytest.mark.parametrize(
    "word",
    [
        "3,720", "1 234,56", "1\u202f234,56", "1\u2009234", "1'234.56", "1.2.3", "3,72.00", "12,34,56", "3.72abc",
        "3\u00b772", "3\u201a72", "\u0663\u066b\u0667\u0662", "3\uff0c72", "1.#QNAN", "1.#IND", "1.#INF",
    ],
)  # fmt: skip
def test_a_number_that_is_not_clear_is_refused_and_never_cut(tmp_path: Path, word: str) -> None:
    log = read(tmp_path, f"Step 100 | Loss: {word} | PPL: 1\n")
    assert (rows(log), log.alike) == ([], 1)


def test_counts_and_rates_whose_thousands_are_divided_by_a_blank_are_not_cut(tmp_path: Path) -> None:
    text = "Total parameters: 44 896 768\nTrainable parameters: 41\u202f751\u202f040\nbatch_size: 1 024\nseed: 42\n"
    log = read(tmp_path, text + "Step 5 | Loss: 3.2 | 12 345 tok/s\nStep 6 | Loss: 3.2 | tok/s: 12 345\n")
    assert log.facts == {"seed": 42} and [math.isnan(rate) for rate in speeds(log)] == [True, True]
    assert [row[0] for row in rows(log)] == [5, 6]


def test_a_validation_is_of_the_step_that_stands_behind_it(tmp_path: Path) -> None:
    log = read(tmp_path, "Step 50 | Loss: 3.9\nval loss 3.1 at step 100\n")
    assert validations(log) == [(100, 3.1)]


def test_the_learning_rate_beside_a_decimal_comma_is_read_whole(tmp_path: Path) -> None:
    assert rows(read(tmp_path, "Step 100 | Loss: 3,0100 | PPL: 20,29 | LR: 4,5e-05\n")) == [(100, 3.01, 4.5e-5)]


def test_a_line_of_a_known_shape_is_judged_by_its_own_digits(tmp_path: Path) -> None:
    log = read(tmp_path, "".join(f"Step {i} | Loss: {word}\n" for i, word in enumerate(["0,372", "3,720", "0,371"])))
    assert [row[:2] for row in rows(log)] == [(0, 0.372), (2, 0.371)] and log.alike == 1


@given(st.floats(0.0001, 1e7), st.integers(0, 6), st.sampled_from([",", ".", ""]))
def test_a_number_means_what_was_printed_or_nothing(value: float, digits: int, group: str) -> None:
    plain = f"{value:,.{digits}f}"
    point = "," if group == "." else "."
    word = plain.translate({ord(","): group, ord("."): point})
    assume(group != "." or digits or word.count(".") != 1)  # 1.234 is no thousand to anybody but its writer
    assert numbers.real(word) in (None, float(plain.replace(",", "")))


def test_the_lines_of_nanogpt_are_read(tmp_path: Path) -> None:
    log = read(
        tmp_path,
        "tokens per iteration will be: 491,520\nnumber of parameters: 123.59M\n"
        "step 0: train loss 10.9859, val loss 10.9876\n"
        "iter 0: loss 10.9896, time 35392.33ms, mfu -100.00%\n"
        "iter 10: loss 9.8853, time 1096.65ms, mfu 15.34%\n"
        "step 2000: train loss 4.0390, val loss 4.0427\n"
        "saving checkpoint to out\n"
        "iter 2000: loss 4.2490, time 35392.33ms, mfu 13.85%\n",
    )
    assert [row[:2] for row in rows(log)] == [(0, 10.9896), (10, 9.8853), (2000, 4.249)]
    assert validations(log) == [(0, 10.9876), (2000, 4.0427)] and log.alike == 0


@pytest.mark.parametrize(
    "line",
    [
        "iter 2010: loss nan, time 1019.95ms, mfu 14.12%",
        "2024-03-22 09:32:52 iter 2010: loss nan, time 1019.95ms",
        "step 2500: train loss nan, val loss nan",
        "step 2500: train loss 3.9, val loss nan",
        "Step 2100 | Loss: inf | PPL: inf",
        "{'loss': nan, 'grad_norm': nan, 'learning_rate': 1e-4}",
        "Loss is nan, stopping training",
        "  Validation | Loss: nan | PPL: nan",
        "Step 2100 | Loss: tensor(nan, device='cuda:0')",
        "loss: [nan]",
        "{'loss': 'nan', 'grad_norm': 'nan'}",
        "loss/train: nan",
        "losses: -1.#IND",
        "Step 2100 | Loss: 3.9 | aux_loss: nan",
        "Training loss at step 2100 is nan",
        "NaN loss at step 2100",
        "Non-finite loss detected, stopping",
        "Loss is not finite",
        "Epoch 1: 100%|####| 10/10 [00:01<00:00, 9.1it/s, loss=nan, v_num=0]",
    ],
)
def test_a_last_loss_that_is_not_finite_is_divergence_in_whatever_line(tmp_path: Path, line: str) -> None:
    read(tmp_path, f"Step 2000 | Loss: 4.0000 | PPL: 54.60\n  Validation | Loss: 4.0427 | PPL: 56.98\n{line}\n")
    assert reason(tmp_path) == "diverged"


@pytest.mark.parametrize(
    "line",
    ["checking for nan loss", "no nan loss so far", "loss NaN or inf: False", "loss_nan: 0", "loss information: 3"],
)
def test_words_about_losses_that_are_not_finite_are_no_divergence(tmp_path: Path, line: str) -> None:
    assert read(tmp_path, f"Step 2000 | Loss: 4.0000 | PPL: 54.60\n{line}\n").not_finite == 0


@pytest.mark.parametrize(
    ("bad", "good"),
    [
        ("{'loss': nan, 'grad_norm': 1.0}", "{'loss': 4.0, 'grad_norm': 1.0}"),
        ("50%|##  | 5/10 [00:01<00:01, 5.0it/s, loss=nan]", "60%|### | 6/10 [00:01<00:01, 5.0it/s, loss=4.1]"),
        ("NaN loss at step 10", "Step 20 | Loss: 4.0"),
        ("Step 10 | Loss: 4.0 | aux_loss: nan", "Step 20 | Loss: 4.0 | aux_loss: 1.0"),
    ],
)
def test_a_loss_of_whatever_line_that_is_finite_again_is_no_divergence(tmp_path: Path, bad: str, good: str) -> None:
    log = read(tmp_path, f"{good}\n{good}\n{bad}\n")
    assert log.is_nan_at_end and log.not_finite == 1
    log = read(tmp_path, f"{good}\n{good}\n{bad}\n{good}\n")
    assert not log.is_nan_at_end and log.not_finite == 1
    log = read(tmp_path, f"{good}\n{bad}\n{good}\n{bad}\n")
    assert log.is_nan_at_end and log.not_finite == 2


def test_the_lowest_loss_of_before_does_not_undo_a_divergence(tmp_path: Path) -> None:
    log = read(tmp_path, "{'loss': 4.0}\n{'loss': nan}\nBest loss: 3.2\nlowest val_loss 3.2, loss 3.1\nmin loss: 3.0\n")
    assert log.is_nan_at_end


def test_a_loss_that_is_not_finite_and_was_overcome_is_said_and_no_divergence(tmp_path: Path) -> None:
    log = read(tmp_path, "iter 10: loss 4.0, time 1ms\niter 20: loss nan, time 1ms\niter 30: loss 3.9, time 1ms\n")
    assert log.not_finite == 1 and math.isnan(rows(log)[1][1])
    run = folders.load(tmp_path, now=0.0, groups=("gpt_base",), first_seed=None)
    assert not run.diverged and "1 lines of training.log tell a loss that isn't finite" in run.notes


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
def test_a_log_of_wide_characters_or_with_a_mark_is_read(tmp_path: Path, encoding: str) -> None:
    text = ("训练 über\n" + RECORDS).replace("\n", "\r\n")
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    log = read(tmp_path, (mark + text).encode(encoding))
    assert [row[0] for row in rows(log)] == [100, 200, 300] and validations(log) == [(300, 3.72)]
    assert (log.not_understood, log.overwritten, log.is_truncated) == (1, 0, False)
    assert log.encoding.startswith("UTF-") is (encoding != "utf-8-sig")


def test_characters_that_a_block_cuts_are_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oelm_jobs.analysis.reading.logs.BLOCK", 7)
    log = read(tmp_path, ("Step 100 | Loss: 5.6583 | 😀\n" * 3 + RECORDS).encode("utf-16"))
    assert [row[0] for row in rows(log)] == [100, 200, 300]


@pytest.mark.parametrize("block", [1 << 20, 7])
def test_lines_that_end_with_two_carriage_returns_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr("oelm_jobs.analysis.reading.logs.BLOCK", block)
    log = read(tmp_path, ("  5%|#  | 1/20\r" + RECORDS).replace("\n", "\r\r\n"))
    assert [row[0] for row in rows(log)] == [100, 200, 300] and validations(log) == [(300, 3.72)]
    assert (log.not_understood, log.overwritten) == (0, 1)


def test_zeros_in_a_log_of_bytes_are_passed_over(tmp_path: Path) -> None:
    log = read(tmp_path, b"\0" * 5000 + RECORDS.encode())
    assert log.encoding == "" and validations(log) == [(300, 3.72)]


def test_a_number_before_the_words_tokens_per_second_is_not_taken_where_one_stands_behind_them(tmp_path: Path) -> None:
    assert str(speeds(read(tmp_path, "Step 5 | loss 3.2 | norm 1.2 tok/s: 12345\n"))) == "[12345.0]"
    assert math.isnan(speeds(read(tmp_path, "Step 5 | loss 3.2 | norm 1.2 tok/s 12345\n"))[0])


def test_a_log_reads_as_before_after_one_of_another_encoding(tmp_path: Path) -> None:
    log = Log()
    for name, encoding in (("a.log", "utf-16"), ("b.log", "utf-8")):
        (tmp_path / name).write_bytes(RECORDS.encode(encoding))
        log.read(tmp_path / name)
    assert log.train.added == 6 and log.not_understood == 0

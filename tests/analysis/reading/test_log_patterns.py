"""The known dialects of logs: their patterns read what the general form reads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pytest
from oelm_jobs.analysis.reading import log_lines
from oelm_jobs.analysis.reading.log_patterns import TRAINING_LINES, VALIDATION_LINE
from oelm_jobs.analysis.reading.logs import Log


@dataclass(frozen=True)
class Dialect:
    """One form of log: a line of each kind."""

    training: str
    validation: str


EXACT = (
    Dialect(
        "Step    300 | Loss: 5.6583 | PPL: 286.66 | LR: 4.50e-05",
        "  Validation | Loss: 1.4793 | PPL: 4.39",
    ),
    Dialect(
        "Step    300 | Loss: 5.6583 | PPL: 286.66",
        "[Step 1000] Validation - Loss: 3.7200, PPL: 41.26",
    ),
    Dialect(
        "Step 100 | loss=5.12 | ppl=167.3",
        "Eval step 1000 | loss=3.9 | ppl=49.4",
    ),
)
NANO_GPT = Dialect("iter 1990: loss 3.8853, time 1096.65ms", "step 2000: train loss 4.0390, val loss 4.0427")
TIMES = ("", "2026-01-02 03:04:05,678 - INFO - ")


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("dialect", EXACT)
def test_a_known_line_is_matched_exactly_and_says_what_the_general_form_reads(dialect: Dialect, time: str) -> None:
    said = log_lines.read_line(time + dialect.training)
    line = (time + dialect.training + "\n").encode()
    found = [match.groups() for pattern in TRAINING_LINES if (match := pattern.fullmatch(line)) and match[1]]
    assert said is not None and said.train_loss is not None
    assert (str(said.step).encode(), said.train_loss) in [(step, float(loss)) for step, loss, _, _ in found]
    if "LR" in dialect.training:
        assert said.lr in [float(lr) for _, _, lr, _ in found if lr]
    said = log_lines.read_line(time + dialect.validation)
    match = VALIDATION_LINE.fullmatch((time + dialect.validation).encode())
    assert said is not None and match is not None
    bracketed, named, loss, ppl = match.groups()
    assert (said.val_loss, said.val_ppl) == (float(loss), float(ppl))
    assert said.step == (int(bracketed or named) if bracketed or named else None)


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("dialect", [*EXACT, NANO_GPT])
def test_a_log_of_each_dialect_is_read(tmp_path: Path, dialect: Dialect, time: str) -> None:
    path = tmp_path / "training.log"
    path.write_text(f"{time}{dialect.training}\n{time}{dialect.validation}\n")
    log = Log()
    log.read(path)
    train, val = log.train.finish(), log.val.finish()
    assert train is not None and val is not None and log.not_understood == 0
    trained, validated = log_lines.read_line(dialect.training), log_lines.read_line(dialect.validation)
    assert trained is not None and validated is not None
    assert (train["step"][0], train["loss"][0]) == (trained.step, trained.train_loss)
    assert same(train["lr"][0], trained.lr)
    assert (val["step"][0], val["loss"][0]) == (validated.step or trained.step, validated.val_loss)


def same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))

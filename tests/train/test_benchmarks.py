"""The benchmarks that need another project's checkout run without it, too."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.train.support import ROOT, clean_environment


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=clean_environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_small_text_is_learnt_by_its_characters() -> None:
    printed = run("benchmarks/characters.py", "--steps", "40", "--characters", "100000")
    guessing, (loss,) = re.findall(r"guessing: ([\d.]+)", printed)[0], re.findall(r"validation loss ([\d.]+)", printed)
    assert float(loss) < float(guessing) - 1.0


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_training_step_is_timed_with_flops_and_memory() -> None:
    printed = run("benchmarks/train_step.py", "--vocab", "512", "--rounds", "2", "--seconds", "0.1", "--device", "cpu")
    assert re.search(r"vocabulary 512: [\d.]+ GFLOP a step of 2,048 tokens", printed)
    line = r"oelm-jobs +[\d.]+ ms wall, +[\d.]+ ms CPU a step, +[\d,]+ tokens/s, .*peak memory +\d+ MB"
    assert re.search(line, printed)

"""What is shown while bytes are moved or made."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from oelm_jobs.cli import progress


def test_a_stage_tells_a_rate_once_there_is_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress.Meter() as meter:
        meter.go_on("reading", 8_000_000, 8_000_000)
        now += 60
        meter.go_on("encoding", 8_000_000, 1_000_000)
        assert capsys.readouterr().err.endswith("encoding: 1 of 8 MB (12 %)")
        now += 2
        meter.go_on("encoding", 8_000_000, 3_000_000)
        assert capsys.readouterr().err.endswith("encoding: 4 of 8 MB (50 %), 2.0 MB/s, 2 s left")

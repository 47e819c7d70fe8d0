"""Two hundred tiny runs on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny_runs import see_each_done_once

pytestmark = pytest.mark.slow


def test_two_hundred_runs_are_done_once_each(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    see_each_done_once(folder, "local", folder / "models" / "checkpoints")

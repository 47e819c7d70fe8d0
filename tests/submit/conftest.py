"""What tests of runs that need others share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def hold(tmp_path: Path) -> Path:
    """The folder of files that let runs wait or fail."""
    (tmp_path / "hold").mkdir()
    return tmp_path / "hold"

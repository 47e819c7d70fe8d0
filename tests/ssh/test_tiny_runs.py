"""Two hundred tiny runs on a host behind SSH."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ssh.testbed import Host
from tests.tiny_runs import see_each_done_once

pytestmark = pytest.mark.slow


def test_two_hundred_runs_are_done_once_each(own_box: Host, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    see_each_done_once(folder, "box", own_box.home() / "oelm" / "models" / "checkpoints")

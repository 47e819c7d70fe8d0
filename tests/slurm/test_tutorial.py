"""What docs/tutorial.md does on a cluster behind SSH, for both kinds of study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.slurm.login import Login
from tests.support import stand_in_for_python, write_tokens
from tests.tutorial import Reader

pytestmark = pytest.mark.slow


def test_every_command_of_the_tutorial_about_a_cluster_runs(laptop: Any, login: Login, tmp_path: Path) -> None:
    """In the page's order, with its files, on a cluster that has the page's modules; training is stood in for."""
    environment = tmp_path / "torch" / "bin"
    stand_in_for_python(environment / "python")
    profile = f'module() {{ :; }}\nconda() {{ PATH="{environment}:$PATH"; }}\n'
    (login.home() / ".bash_profile").write_text(profile)
    mine = tmp_path / "mine"
    for name in ("train.bin", "val.bin"):
        write_tokens(mine / "data" / "demo" / name, 4000, 1024)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    here = {"/scratch/me": str(scratch), 'partition = "gpu"': 'partition = "low"', '"16G"': '"1G"'}
    reader = Reader(mine, laptop, "cluster", instead=here)
    reader.read("On the laptop", may_give=lambda command: False)
    reader.read("On a cluster")
    reader.read("The other kind of study", may_give=lambda command: "cluster" in command or "fetch" in command)
    assert len(reader.given) > 4
    rows = reader.rows()
    assert len(rows) == 12
    for row in rows.values():
        assert row["state"] == "DONE" and "/gpu:" in row["progress"]["devices"][0]
    fetched = [*mine.glob("models/checkpoints/frozen/exp_*/experiment_result.json")]
    assert len(fetched) == 6

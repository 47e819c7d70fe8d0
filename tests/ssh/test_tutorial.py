"""What docs/tutorial.md does on a server, for both kinds of study."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.ssh.testbed import Client, Host
from tests.support import stand_in_for_python, write_tokens
from tests.tutorial import Reader

pytestmark = pytest.mark.slow


def test_every_command_of_the_tutorial_about_a_server_runs(
    new_host: Callable[..., Host], client: Client, oelm: Any, tmp_path: Path
) -> None:
    """In the page's order, with its files, on a host that has the page's environment; training is stood in for."""
    host = new_host("gpu1")
    client.knows(host)
    environment = host.home() / "venvs" / "torch" / "bin"
    stand_in_for_python(environment / "python")
    (environment / "activate").write_text(f'PATH="{environment}:$PATH"\n')
    mine = tmp_path / "mine"
    for name in ("train.bin", "val.bin"):
        write_tokens(mine / "data" / "demo" / name, 4000, 1024)
    reader = Reader(mine, oelm, "box")
    reader.read("On the laptop", may_give=lambda command: False)
    reader.read("On a server")
    reader.read("The other kind of study", may_give=lambda command: "box" in command or "fetch" in command)
    assert len(reader.given) > 8
    rows = reader.rows()
    assert sorted(rows) == sorted(
        f"{study}/{group}{seed}-server"
        for study, groups in {"rates": ("low", "high"), "frozen": ("trained", "frozen")}.items()
        for group in groups
        for seed in ("", "-s43", "-s44")
    )
    for row in rows.values():
        assert row["progress"]["devices"][0].startswith("cpu:")
        assert (mine / Path(row["run_dir"]).relative_to(host.home() / "oelm") / "experiment_result.json").exists()

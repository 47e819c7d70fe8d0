"""Runs that need others over SSH: what they take is sent to their host, and what waits there needs nobody here."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from oelm_jobs import connections
from oelm_jobs.agent.states import State
from oelm_jobs.errors import PreflightError
from oelm_jobs.project import Project
from tests.ssh.conftest import Rig, write_target
from tests.submit.test_lineage import SCRIPT, ended, runs, study, submit
from tests.support import read, wait_until

pytestmark = pytest.mark.slow


def test_what_a_run_takes_goes_to_its_host_by_way_of_this_machine(rig: Rig, tmp_path: Path) -> None:
    rig.restart(OELM_COPIED_S="0")
    hold = tmp_path / "hold"
    hold.mkdir()
    (rig.project / "step.py").write_text(SCRIPT)
    study(rig.project, "pre", hold, "none", "base = { lr = 0.5, gpus = 0 }\nbare = { lr = 0.75, gpus = 0 }")
    groups = 'tuned = { lr = 0.25, gpus = 0, inputs = { init = "pre/base:best" } }\n'
    groups += 'late = { lr = 0.125, gpus = 0, inputs = { init = "tuned:latest" } }\n'
    groups += 'plain = { lr = 0.5, gpus = 0, inputs = { init = "pre/bare:latest" } }'
    study(rig.project, "tune", hold, "{init}", groups)
    tune = rig.project / "jobs" / "tune.toml"
    tune.write_text(tune.read_text().replace('["lr"]', '["lr", "init"]'))
    write_target(rig.project, "far", host="box")
    (hold / "hold-base").touch()
    (hold / "hold-tuned").touch()
    with Project(rig.project, say=lambda text: None) as mine:
        submit(mine, "pre", seeds=[1])
        with pytest.raises(PreflightError, match="on target local; nothing was queued"):
            submit(mine, "tune", "far", seeds=[1])
        (hold / "hold-base").unlink()
        assert ended(mine, "pre")["base"].state is State.DONE
        bare = Path(ended(mine, "pre")["bare"].run_dir)
        (bare / "MANIFEST.json").unlink()  # its hashes are nowhere but in its files
        submit(mine, "tune", "far", seeds=[1])
        wait_until(lambda: (hold / "began-tuned").exists(), "the first one to begin there")
        connections.close_all(rig.project)  # nobody here is needed any more
        (hold / "hold-tuned").unlink()
        found = ended(mine, "tune")
        source = Path(runs(mine, "pre")["base"].run_dir, "work", "model.json")
    assert {run.state for run in found.values()} == {State.DONE}, [run.reason for run in found.values()]
    plain = Path(found["plain"].run_dir, "work", "model.json")
    assert json.loads(plain.read_text()) == [0.75, 1, 0.5, 1]
    there = Path(found["late"].run_dir)
    assert json.loads((there / "work" / "model.json").read_text()) == [0.5, 1, 0.25, 1, 0.125, 1]
    row = read(Path(found["tuned"].run_dir, ".oelm", "inputs.json"))["inputs"][0]
    assert "/.oelm/inputs/pre/base/" in row["path"] and Path(row["path"]).is_relative_to(rig.host.home())
    assert row["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    copy = Path(row["path"]).parents[1]
    said = rig.oelm("clean", "--study", "tune", "--dry-run").stdout
    assert "inputs on far: copies from other targets that no run takes: 2 (0.0 MB)" in said
    asked = rig.oelm("clean", "--study", "tune", check=False)
    assert asked.returncode == 2 and "0.0 MB of copies from other targets" in asked.stderr and copy.exists()
    cleaned = json.loads(rig.oelm("clean", "--study", "tune", "--yes", "--json").stdout)
    assert f"pre/base/{copy.name}" in cleaned["copies"][0]["removed"] and not copy.parents[1].exists()

"""A bundle of runs on another machine has the code that ran there, though that machine is out of reach by then."""

from __future__ import annotations

import json
import shutil

import pytest

from oelm_jobs.agent import trees
from tests.bundle.test_bundling import contents
from tests.ssh.conftest import Rig

pytestmark = pytest.mark.slow


def test_the_code_that_ran_on_a_host_is_packed_though_host_and_working_tree_have_it_no_more(rig: Rig) -> None:
    (rig.project / "train" / "version.py").write_text("VERSION = 'first'\n")
    (rig.project / ".env").write_text("TOKEN=abc\n")
    rig.submit("--group", "gpt_base", "--wait")
    (rig.project / "train" / "version.py").write_text("VERSION = 'second'\n")
    rig.submit("--group", "oelm_freeze", "--wait")
    rig.oelm("fetch")
    (rig.project / "train" / "version.py").write_text("VERSION = 'third'\n")
    shutil.rmtree(rig.host.home() / "oelm")
    rig.host.stop()
    made = rig.oelm("report", "--study", "tiny", "--bundle", "b.tar.gz")
    assert "code/" not in made.stderr
    packed = contents(rig.project / "b.tar.gz")
    for name, version in (("gpt_base", "first"), ("oelm_freeze", "second")):
        sent = json.loads((rig.home_dir(name) / ".oelm" / "run.json").read_text())["snapshot"]
        assert packed[f"code/{sent}/train/version.py"] == f"VERSION = '{version}'\n".encode()
        rows = json.loads(packed[f"code/{sent}.json"])["files"]
        assert trees.name_of((row["name"], row["executable"], row["sha256"]) for row in rows) == sent
        assert {f"code/{sent}/{row['name']}" for row in rows} == {n for n in packed if n.startswith(f"code/{sent}/")}
    assert not any(".env" in name for name in packed)
    assert "Reproduced byte for byte" in rig.oelm("report", "--from", "b.tar.gz").stderr

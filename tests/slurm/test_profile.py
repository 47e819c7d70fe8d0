"""What the user's login profile alone says of the cluster counts behind SSH as it does for a command typed there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.login import Login, write_target
from tests.slurm.testbed import Testbed

pytestmark = pytest.mark.slow

SUBMIT = ("submit", "--study", "tiny", "--target", "cluster", "--group", "gpt_base", "--send-data")


@pytest.fixture
def bare(login: Login, cluster: Testbed) -> Callable[..., None]:
    """Let the login node's profile say what it says: ``bare("export X=1")``, and nothing else that there is a cluster
    but, unless ``conf`` is false, where it is.
    """
    login.stop()
    login.environment = {}
    login.start(login.laptop.public_key)

    def write(*lines: str, conf: bool = True) -> None:
        named = [f"export SLURM_CONF={cluster.environment['SLURM_CONF']}"] if conf else []
        (login.home() / ".bash_profile").write_text("\n".join(["echo Welcome", *named, *lines]) + "\n")

    return write


def states(laptop: Callable[..., Any]) -> dict[str, str]:
    return {run["name"]: run["state"] for run in json.loads(laptop("status", "--json").stdout)["runs"]}


def test_a_configuration_that_the_profile_alone_names_serves_every_command(
    bare, laptop, login: Login, project: Path, stand_in: str
) -> None:
    write_target(project, login, python=stand_in)
    bare(conf=False)
    assert laptop(*SUBMIT, check=False).returncode == 3, "the node's own Slurm is none"
    bare()
    assert "submitted to cluster" in laptop(*SUBMIT, "--wait").stdout
    assert states(laptop) == {"gpt_base": "DONE"}
    assert "verified" in laptop("fetch").stdout
    target = project / "jobs" / "targets.toml"
    target.write_text(target.read_text().replace("time = 30", 'time = 30, begin = "now+1hour"'))
    laptop(*SUBMIT, "--rerun", "--yes")
    assert states(laptop) == {"gpt_base": "QUEUED"}
    assert laptop("cancel", "gpt_base").stdout == "gpt_base: cancelled\n"
    assert "low: 2 nodes" in laptop("doctor", "cluster", check=False).stdout
    write_target(project, login, python=stand_in, login_shell=False)
    assert "low" not in laptop("doctor", "cluster", check=False).stdout, "a target may do without the profile"


@pytest.mark.parametrize("variable", ["SLURM_CLUSTERS", "SBATCH_CLUSTERS"])
def test_a_cluster_that_the_profile_alone_chooses_is_the_one_that_is_asked(
    bare, laptop, login: Login, project: Path, stand_in: str, variable: str
) -> None:
    write_target(project, login, python=stand_in)
    bare(f"export {variable}=oelmtest")
    for command in ("sbatch", "squeue"):
        asked = login.place / "bin" / command
        asked.write_text(f'#!/bin/sh\necho "$SLURM_CLUSTERS" >> {login.place}/asked\nexec /usr/bin/{command} "$@"\n')
        asked.chmod(0o755)
    laptop(*SUBMIT, "--wait")
    assert states(laptop) == {"gpt_base": "DONE"}
    assert set((login.place / "asked").read_text().split("\n")) == {"oelmtest", ""}


def test_the_profile_is_read_for_a_submission_and_when_it_has_changed_and_not_for_every_look(
    bare, laptop, login: Login, project: Path, stand_in: str
) -> None:
    read = login.place / "read"
    counted = f'[ -n "$SLURM_JOB_ID" ] || echo >> {read}'
    write_target(project, login, python=stand_in)
    bare(counted)
    laptop(*SUBMIT, "--wait")
    before = len(read.read_text())
    for _ in range(2):
        laptop("status", "--gpus")
    assert len(read.read_text()) == before
    bare(counted, "export SBATCH_QOS=gone")
    laptop("status", "--gpus")
    assert len(read.read_text()) == before + 1
    refused = laptop(*SUBMIT, "--group", "oelm_freeze", check=False)
    assert refused.returncode == 2, refused.stderr
    assert "Invalid qos specification; in the environment: SBATCH_QOS=gone" in refused.stderr
    assert states(laptop).get("oelm_freeze") != "QUEUED"

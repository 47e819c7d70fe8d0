"""A run that goes from a cluster to another target, which may be the same place under another name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.slurm.testbed import Testbed
from tests.support import end_all, wait_until

pytestmark = pytest.mark.slow

SUBMIT = ("submit", "--study", "tiny", "--group", "gpt_base", "--target")


@pytest.mark.parametrize("is_shared", [True, False], ids=["the project is the root", "a root of its own"])
def test_a_run_goes_from_a_cluster_to_this_machine(
    oelm, project: Path, tmp_path: Path, target, cluster: Testbed, stand_in: str, wait_for, is_shared: bool
) -> None:
    target(python=stand_in, setup=["export TRAINER_STEP_S=0.02"], root=None if is_shared else str(tmp_path / "scratch"))
    with (project / "jobs" / "targets.toml").open("a") as file:
        file.write(f'[here]\nkind = "local"\npython = "{stand_in}"\n')
    study = project / "jobs" / "tiny.toml"
    study.write_text(study.read_text().replace("max_steps = 12", "max_steps = 3000"))
    top = project if is_shared else tmp_path / "scratch"
    there, here = (place / "models" / "checkpoints" / "tiny" / "exp_gpt_base" for place in (top, project))
    oelm(*SUBMIT, "cluster", "--send-data")
    wait_until((there / "heartbeat.json").exists, "a step", 120)
    oelm("cancel", "gpt_base")
    wait_for("gpt_base", "CANCELLED")
    done = oelm(*SUBMIT, "here")
    assert ("gpt_base was CANCELLED on target cluster and starts over on here" in done.stderr) is not is_shared
    wait_for("gpt_base", "DONE")
    assert ("Resumed from step" in (here / "training.log").read_text()) is is_shared
    assert (f"cluster still holds what 1 run left there when it started over elsewhere: tiny/gpt_base in {there}"
            in oelm("status").stderr) is not is_shared  # fmt: skip
    again = oelm("status", "--rebuild")
    assert (
        "DONE" in again.stdout and "here" in again.stdout and ("cluster still holds" in again.stderr) is not is_shared
    )
    end_all(tmp_path / "scratch")

"""An interpreter in a container that can't talk to Slurm is named before a night is lost to it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.login import Login, write_target
from tests.slurm.testbed import Testbed
from tests.support import stand_in_for_python

pytestmark = pytest.mark.slow

SUBMIT = ("submit", "--study", "tiny", "--target", "cluster", "--group", "gpt_base")
CAN_NOT = "can't talk to Slurm"


@pytest.fixture
def container(tmp_path: Path, cluster: Testbed) -> Callable[..., str]:
    """Make a ``python`` that runs in a mount namespace of its own: ``container("scontrol")`` lacks that command,
    ``container("conf")`` Slurm's configuration and munge's socket; ``container("")`` nothing.
    """
    hidden = {
        "scontrol": "mount --bind /dev/null /usr/bin/scontrol",
        "conf": f"mount -t tmpfs none {cluster.place} && unset SLURM_CONF",
        "": "true",
    }

    def make(lacks: str, real: str = sys.executable) -> str:
        path = tmp_path / "container"
        path.write_text(f"""#!/bin/sh\nexec unshare --mount sh -c '{hidden[lacks]} && exec {real} "$@"' sh "$@"\n""")
        path.chmod(0o755)
        return str(path)

    return make


def finding(run: Callable[..., Any]) -> dict[str, Any] | None:
    found = json.loads(run("doctor", "cluster", "--json", check=False).stdout)["findings"]
    return next((each for each in found if each["what"] == "slurm for runs"), None)


@pytest.mark.parametrize("lacks", ["scontrol", "conf"])
def test_an_interpreter_that_cant_talk_to_slurm_is_named_by_doctor_and_at_submit(
    oelm, target, container, project: Path, cluster: Testbed, lacks: str
) -> None:
    target(python=container(lacks))
    said = finding(oelm)
    assert said is not None and said["verdict"] == "bad" and "container" in said["mend"]
    assert CAN_NOT in said["found"] and "scontrol" in said["found"]
    done = oelm(*SUBMIT)
    assert CAN_NOT in done.stderr and "container" in done.stderr
    oelm("cancel", "gpt_base")
    target(python=container(""))
    assert finding(oelm) is None
    assert CAN_NOT not in oelm(*SUBMIT).stderr


@pytest.mark.parametrize("lacks", ["scontrol", "conf"])
def test_a_container_in_which_the_agent_itself_finds_no_slurm_is_named(
    laptop, login: Login, container, project: Path, lacks: str
) -> None:
    write_target(project, login, python=container(lacks))
    found = json.loads(laptop("doctor", "cluster", "--json", check=False).stdout)["findings"]
    said = next(each for each in found if each["what"] == "slurm")
    assert said["verdict"] == "bad" and "scontrol" in said["found"] and "is in a container" in said["mend"]
    done = laptop(*SUBMIT, "--send-data", check=False)
    assert done.returncode == 3 and "scontrol" in done.stderr and "is in a container" in done.stderr


def test_a_container_that_a_set_up_brings_is_named_behind_ssh_and_what_works_is_not_tried_each_time(
    laptop, login: Login, container, project: Path, tmp_path: Path
) -> None:
    real = stand_in_for_python(tmp_path / "python")
    tried, folder = login.place / "tried", tmp_path / "env"
    folder.mkdir()

    def bring(lacks: str) -> None:
        (folder / "python").unlink(missing_ok=True)
        (folder / "python").symlink_to(container(lacks, real))
        setup = [f"export PATH={folder}:$PATH", f'[ -n "$SLURM_JOB_ID" ] || echo {lacks} >> {tried}']
        write_target(project, login, setup=setup)
        target = project / "jobs" / "targets.toml"
        target.write_text("".join(line for line in target.read_text().splitlines(True) if "python" not in line[:6]))

    bring("scontrol")
    said = finding(laptop)
    assert said is not None and CAN_NOT in said["found"]
    assert CAN_NOT in laptop(*SUBMIT, "--send-data", "--tag", "a").stderr
    assert CAN_NOT in laptop(*SUBMIT, "--tag", "b").stderr, "what does not work is"
    bring("")
    tried.write_text("")
    for tag in ("c", "d"):
        assert CAN_NOT not in laptop(*SUBMIT, "--tag", tag).stderr
    assert len(tried.read_text()) == 1

"""Runs on a cluster: a job tells of its end, and the login node of what left nobody who could."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.notify.server import Receiver, receiving, secret_file
from tests.slurm.testbed import Testbed
from tests.support import holding, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def test_a_job_tells_of_its_end_and_the_login_node_of_one_that_was_cancelled_while_it_waited(
    cluster: Testbed,
    target: Callable[..., None],
    project: Path,
    oelm: Callable[..., Any],
    stand_in: str,
    receiver: Receiver,
    states: Callable[[], dict[str, Any]],
    tmp_path: Path,
) -> None:
    target(python=stand_in)
    secret = secret_file(tmp_path / "hook", receiver.url)
    study = project / "jobs" / "tiny.toml"
    table = f'on = ["end", "stalled"]\nstalled_after = "1h"\nwebhook = {{ form = "json", url_file = "{secret}" }}\n'
    study.write_text(f"{study.read_text()}[notify]\n{table}")
    oelm("submit", "--study", "tiny", "--target", "cluster", "--group", "gpt_base")
    wait_until(lambda: len(receiver.posts) == 2, "the job to tell of its end")
    assert receiver.events() == [("end", "gpt_base"), ("complete", "")]
    target({"begin": "now+1hour"}, python=stand_in)
    oelm("submit", "--study", "tiny", "--target", "cluster", "--group", "oelm_freeze")
    (job,) = (each for each in cluster.run("squeue", "-ho", "%i").split())
    cluster.run("scancel", job)
    wait_until(lambda: states()["oelm_freeze"]["state"] == "CANCELLED", "it to be seen")
    wait_until(lambda: len(receiver.posts) == 4, "the login node to tell of it")
    assert receiver.events()[2:] == [("end", "oelm_freeze"), ("complete", "")]
    assert receiver.posts[3].json["runs"] == {"DONE": 1, "CANCELLED": 1}
    assert not holding(project, b"SECRET-7f3a9c")

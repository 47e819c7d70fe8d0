"""What another version of the toolkit submitted to Slurm is shown, cancelled, resumed, fetched and taken over by this
one, and what runs is left alone by both; tests/test_versions.py says how to try another version.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.slurm.testbed import Testbed
from tests.support import wait_until
from tests.versions import SCENARIOS, Bench

pytestmark = pytest.mark.slow


@pytest.fixture
def bench(project: Path, tmp_path: Path, previous: Path, target, cluster: Testbed, stand_in: str) -> Bench:
    """The cluster, and a root that is not the project."""
    root, holds = tmp_path / "root", tmp_path / "holds"
    target(python=stand_in, root=str(root), setup=[f"export TRAINER_HOLD={holds}"])
    shutil.copytree(project / "data", root / "data")
    return Bench(previous=previous, project=project, target="cluster", root=root, holds=holds)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_of_the_other_version(bench: Bench, scenario: Callable[[Bench], None]) -> None:
    scenario(bench)


def test_a_job_of_a_client_that_was_killed_over_sbatch_does_nothing_once_the_run_was_submitted_again(
    bench: Bench, tmp_path: Path, cluster: Testbed, instead, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sbatch outlives the client and is served after the second one's."""
    monkeypatch.setenv("OELM_LOOK_FOR_S", "1")
    sent, go_on, accepted = (tmp_path / name for name in ("sent", "go-on", "accepted"))
    wait = f"echo $$ >> {sent}; until [ -e {go_on} ]; do sleep 0.1; done"
    instead("sbatch", f'{wait}; $real "$@"; code=$?; echo $code >> {accepted}; exit $code')

    def lines(path: Path) -> int:
        return len(path.read_text().splitlines()) if path.exists() else 0

    words = ("submit", "--study", "tiny", "--target", "cluster", "--group", "gpt_base")
    client = bench.start(bench.previous, *words)
    again = None
    try:
        wait_until(lambda: lines(sent) == 1, "sbatch to begin")
        client.kill()
        client.wait()
        again = bench.start(None, *words)
        wait_until(lambda: lines(sent) == 2, "this version to give the first submission up, and to make its own")
    finally:
        go_on.touch()
    assert again.wait(300) == 0
    wait_until(lambda: lines(accepted) == 2, "both jobs to be accepted")
    bench.wait_for(gpt_base="DONE")
    wait_until(lambda: not cluster.run("squeue", "-h").strip(), "both jobs to be over")
    assert bench.states() == {"gpt_base": "DONE"}
    assert len(bench.attempts("gpt_base")) == 1 and bench.log("gpt_base").count("Started") == 1

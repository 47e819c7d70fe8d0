"""What a target says of the devices of a plain host, from its file to the agent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from oelm_jobs.connections import Connection
from oelm_jobs.errors import ConfigurationError
from oelm_jobs.schedulers import LaunchScript
from oelm_jobs.schedulers.leases import LeaseScheduler
from oelm_jobs.spec.target import Target
from oelm_jobs.targets.files import load_targets


def read_target(project: Path, lines: str) -> Target:
    (project / "jobs").mkdir(exist_ok=True)
    (project / "jobs" / "targets.toml").write_text(f'[box]\nkind = "ssh"\nhost = "box"\n{lines}\n')
    return load_targets(project)["box"]


def sent(target: Target, *scripts: LaunchScript) -> dict[str, Any]:
    """Return the request that a submission sends."""
    requests: list[dict[str, Any]] = []

    def call(verb: str, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        requests.append(request)
        return {"answer": "accepted", "runs": {}}

    connection = SimpleNamespace(target=target, resolved=replace(target, root="/r"), call=call)
    LeaseScheduler(cast("Connection", connection)).submit(scripts, "t")
    return requests[0]


def test_what_a_target_says_of_devices_reaches_its_runs(tmp_path: Path) -> None:
    script = LaunchScript(run_dirs=("/r/exp_a",), script="", position=0, name="a")
    plain = sent(read_target(tmp_path, ""), script)["environment"]
    lines = "gpus = [3, 1, 2]\navoid = [0]\nprefer = [2]\nmax_parallel = 4\nper_gpu = 2"
    given = sent(read_target(tmp_path, lines), script)["environment"]
    assert {name: value for name, value in given.items() if name not in plain} == {
        "OELM_GPUS": "1,2,3",
        "OELM_AVOIDED_GPUS": "0",
        "OELM_PREFERRED_GPUS": "2",
        "OELM_MAX_PARALLEL": "4",
        "OELM_PER_GPU": "2",
    }


def test_a_launch_is_told_what_each_run_asks_for_and_its_lane(tmp_path: Path) -> None:
    first = LaunchScript(run_dirs=("/r/exp_a",), script="", position=0, name="a", gpus=2)
    second = LaunchScript(run_dirs=("/r/exp_b",), script="", position=1, name="b", after=0, gpus=(0, 3))
    runs = sent(read_target(tmp_path, ""), first, second)["runs"]
    assert [(run["gpus"], run["after"]) for run in runs] == [(2, None), ([0, 3], "/r/exp_a")]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("prefer = [1, 1]", "prefer = [1, 1]: give indices of GPUs, each once"),
        ("avoid = [-1]", "avoid = [-1]: give indices of GPUs"),
        ("gpus = [0, 1]\navoid = [1]", "avoid = [1]: gpus or prefer names 1, too"),
        ("per_gpu = 0", "per_gpu = 0: valid: 1 to 64"),
        ("max_parallel = 0", "max_parallel = 0: valid: 1 to"),
    ],
)
def test_what_can_not_be_is_named(tmp_path: Path, lines: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        read_target(tmp_path, lines)
    assert words in str(error.value)


def test_devices_that_are_avoided_are_not_counted_as_there(tmp_path: Path) -> None:
    target = read_target(tmp_path, "avoid = [1]")
    assert [label for label in ("gpu:0", "gpu:1", "cpu:1") if target.may_lease(label)] == ["gpu:0", "cpu:1"]

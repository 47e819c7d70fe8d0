"""What another version of the toolkit submitted to a host behind SSH is shown, cancelled, resumed, fetched and taken
over by this one, and what runs is left alone by both; tests/test_versions.py says how to try another version.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.ssh.conftest import stand_in, write_target
from tests.ssh.testbed import Client, Host
from tests.versions import ON_ONE_DEVICE, SCENARIOS, Bench

pytestmark = pytest.mark.slow


@pytest.fixture
def bench(new_host: Callable[..., Host], client: Client, project: Path, tmp_path: Path, previous: Path) -> Bench:
    """A host with one GPU."""
    host, holds = new_host("box", gpus=1), tmp_path / "holds"
    client.knows(host)
    write_target(project, python=stand_in(host), setup=[f"export TRAINER_HOLD={holds}"])
    root = host.home() / "oelm"
    shutil.copytree(project / "data", root / "data")
    leases = host.place / "leases"
    return Bench(previous=previous, project=project, target="box", root=root, holds=holds, leases=leases)


@pytest.mark.parametrize("scenario", SCENARIOS + ON_ONE_DEVICE, ids=lambda scenario: scenario.__name__)
def test_of_the_other_version(bench: Bench, scenario: Callable[[Bench], None]) -> None:
    scenario(bench)

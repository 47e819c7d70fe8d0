"""What another version of the toolkit submitted to Slurm is shown, cancelled, resumed, fetched and taken over by this
one, and what runs is left alone by both; tests/test_versions.py says how to try another version.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.slurm.testbed import Testbed
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

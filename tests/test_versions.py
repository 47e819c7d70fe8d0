"""What another version of the toolkit submitted on this machine is shown, cancelled, resumed, fetched and taken over by
this one, and what runs is left alone by both.

The other version is the commit that tests/versions.py names; ``OELM_PREVIOUS=HEAD~1 python -m pytest -k test_versions``
tries another one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import versions
from tests.support import end_all, stand_in_for_nvidia_smi, stand_in_for_python
from tests.versions import ON_ONE_DEVICE, SCENARIOS, Bench

pytestmark = pytest.mark.slow


@pytest.fixture
def bench(project: Path, tmp_path: Path, previous: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """This machine with one device, and a root that is not the project."""
    stand_in_for_nvidia_smi(tmp_path, monkeypatch, "echo '0, GPU-uuid-0, NVIDIA RTX A5000, 24564, 12, 0'")
    root, holds = tmp_path / "root", tmp_path / "holds"
    (project / "jobs" / "targets.toml").write_text(
        f'[here]\nkind = "local"\nroot = "{root}"\npython = "{stand_in_for_python(tmp_path / "python")}"\n'
        f'setup = ["export TRAINER_HOLD={holds}"]\n'
    )
    shutil.copytree(project / "data", root / "data")
    leases = Path(os.environ["OELM_LEASE_DIR"])
    yield Bench(previous=previous, project=project, target="here", root=root, holds=holds, leases=leases)
    end_all(root)


def test_the_other_version_is_run_whole_and_as_it_was(previous: Path) -> None:
    names = ("", ".cli", ".agent", ".analysis", ".templates", ".train")
    imports = f"import sys; sys.path.insert(0, {str(previous)!r}); import importlib\n"
    program = f"{imports}for name in {names!r}: print(importlib.import_module('oelm_jobs' + name).__file__)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd="/", check=True).stdout
    assert all(path.startswith(f"{previous}/oelm_jobs/") for path in found.split()), found
    kept = versions.git("show", f"{versions.PREVIOUS}:oelm_jobs/agent/__main__.py").stdout
    assert (previous / "oelm_jobs" / "agent" / "__main__.py").read_bytes() == kept


@pytest.mark.parametrize("scenario", SCENARIOS + ON_ONE_DEVICE, ids=lambda scenario: scenario.__name__)
def test_of_the_other_version(bench: Bench, scenario: Callable[[Bench], None]) -> None:
    scenario(bench)

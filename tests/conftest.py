"""Fixtures of all tests: isolation from the user's own files, a small project, real runs that end with the test."""

from __future__ import annotations

import gc
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from oelm_jobs.agent import reasons
from tests.objects import check_printed
from tests.support import REPOSITORY, TINY_STUDY, end_all, stand_in_for_python, write_tokens

pytest.register_assert_rewrite("tests.versions")

collect_ignore = ["programs"]
"""What is run by name alone, by `make test-programs`: it needs programs that others wrote, in their own environment."""

# A shell's background job ignores these, and so would all that is started here (sigaction(2)).
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)


SLOW_FIXTURES = {"oelm", "installed", "editable", "sdist", "trainers", "shared"}
"""What asks for one of these starts commands, servers, a cluster, a build or training: slow without its own mark."""

WAIT, COMPUTE = ("slurm", "ssh"), ("train", "tests")
"""Folders whose own files take the longest: begun first, no process is left alone with one of them at the end; what
waits for servers and clusters in turn with what computes, for which it leaves the processors.
"""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow by what it asks for, before ``-m`` chooses; put what takes longest first."""
    place: dict[Path, float] = {}
    for folders, first in ((WAIT, 0.0), (COMPUTE, 0.5)):
        files = dict.fromkeys(item.path for item in items if item.path.parent.name in folders)
        ordered = sorted(files, key=lambda path: folders.index(path.parent.name))
        place |= {path: first + number for number, path in enumerate(ordered)}
    items.sort(key=lambda item: place.get(item.path, math.inf))
    for item in items:
        if SLOW_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker("slow")


@pytest.fixture(autouse=True)
def isolated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep state, leases and configuration of a test to itself; one thread per process."""
    place = tmp_path_factory.mktemp("user")
    (place / "leases").mkdir()
    with pytest.MonkeyPatch.context() as patch:  # of its own: a test that undoes its changes stays apart from the user
        for variable in [name for name in os.environ if name.startswith(("OELM_", "SLURM_", "CUDA_VISIBLE_DEVICES"))]:
            patch.delenv(variable)
        patch.setenv("OELM_STATE_DIR", str(place / "state"))
        patch.setenv("OELM_LEASE_DIR", str(place / "leases"))
        patch.setenv("XDG_CONFIG_HOME", str(place / "config"))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """A project with the real trainer and a study called ``tiny``; what still runs in it at the end is ended."""
    root = tmp_path / "project"
    (root / "jobs").mkdir(parents=True)
    (root / "jobs" / "tiny.toml").write_text(TINY_STUDY)
    shutil.copytree(REPOSITORY / "train", root / "train", ignore=shutil.ignore_patterns("__pycache__"))
    write_tokens(root / "data" / "tiny" / "train.bin", 4000, 64)
    write_tokens(root / "data" / "tiny" / "val.bin", 800, 64)
    yield root
    end_all(root)


@pytest.fixture
def quick(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That project, where a stand-in for training takes TRAINER_STEP_S for a step: for tests of all but training."""
    python = stand_in_for_python(project.parent / "stand-in" / "python")
    (project / "jobs" / "targets.toml").write_text(f"[local]\nkind = 'local'\npython = '{python}'\n")
    monkeypatch.setenv("TRAINER_STEP_S", "0.01")
    return project


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A folder for runs, which end with the test."""
    yield tmp_path
    end_all(tmp_path)


@pytest.fixture
def other_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give reasons in other words: nothing but what is shown may depend on them."""
    for code, template in reasons.TEMPLATES.items():
        shown = " ".join([f"<{code.upper()}>", *re.findall(r"\{[^}]*\}", template)])
        monkeypatch.setitem(reasons.TEMPLATES, code, shown)


@pytest.fixture(scope="session")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what leads to another version of the toolkit in sys.path (tests/versions.py)."""
    from tests import versions

    return versions.previous_version(tmp_path_factory.mktemp("versions"))


@pytest.fixture
def oelm(project: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command of the toolkit in the project: ``oelm("status", "--json")``."""

    def run(name: str, *arguments: str, cwd: Path = project, check: bool = True) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-c", f"from oelm_jobs.cli.{name} import main; main()", *arguments]
        done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
        assert not check or done.returncode == 0, done.stderr + done.stdout
        check_printed(name, arguments, done.stdout)
        return done

    return run


def pytest_collection_finish() -> None:
    """Leave what was imported and collected out of every search for garbage to come."""
    gc.collect()
    gc.freeze()

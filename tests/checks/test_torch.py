"""The trainer needs torch, the toolkit does not: where it is missing here, that is said before anything is queued."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs import Project
from oelm_jobs.agent.checks import trial
from oelm_jobs.checks import doctor, needs, preflight
from oelm_jobs.checks.finding import Grade
from oelm_jobs.spec.options import Slurm
from oelm_jobs.spec.target import Target
from oelm_jobs.targets.files import LOCAL

CPU: Any = [{"label": "cpu:0"}]
GPU: Any = [{"label": "gpu:0"}]
INSTALL = "python -m pip install 'oelm-jobs[train]'"


def without_torch(path: Path) -> str:
    """Return an interpreter that finds no package."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\nexec '{sys.executable}' -S \"$@\"\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def bare(project: Path) -> Path:
    """A project whose targets on this machine run with an interpreter that has no torch."""
    python = without_torch(project.parent / "bare" / "python")
    (project / "jobs" / "targets.toml").write_text(
        f"[bare]\nkind = 'local'\npython = '{python}'\n"
        f"[set-up]\nkind = 'local'\npython = '{python}'\nsetup = ['export PYTHONPATH={project.parent}/module']\n"
    )
    return project


def test_a_trainer_study_is_refused_where_its_interpreter_has_no_torch(oelm, bare: Path) -> None:
    done = oelm("submit", "--study", "tiny", "--target", "bare", check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    said = " ".join(done.stderr.split())
    assert (
        f"target bare: {bare.parent}/bare/python has no torch, which the built-in trainer needs; nothing was queued"
        in said
    )
    assert "install torch there, or name the interpreter (python)" in said
    assert Project(bare).runs() == [] and not (bare / "models").exists()


@pytest.mark.slow
def test_the_demo_makes_no_data_where_torch_is_missing(oelm, bare: Path) -> None:
    done = oelm("demo", ".", "--target", "bare", check=False)
    assert done.returncode == 2 and "install torch there" in done.stderr and "novels" not in done.stderr
    assert not (bare / "data" / "demo").exists()


def test_torch_that_the_set_up_brings_is_found(oelm, bare: Path) -> None:
    (bare.parent / "module" / "torch").mkdir(parents=True)
    (bare.parent / "module" / "torch" / "__init__.py").touch()
    target = Project(bare).target("set-up")
    assert preflight.without_torch(bare, target, CPU) is None
    assert preflight.without_torch(bare, replace(target, setup=()), CPU) is not None


def test_a_study_of_programs_does_without(oelm, bare: Path) -> None:
    (bare / "jobs" / "mine.toml").write_text(
        'factors = ["x"]\nseeds = [1]\n[program]\ncommand = "python mine.py {settings}"\n[groups]\na = { x = 1 }\n'
    )
    (bare / "mine.py").write_text("print('step 1')\n")
    oelm("submit", "--study", "mine", "--target", "bare", "--wait")
    assert "DONE" in oelm("status", "--study", "mine").stdout


def test_the_toolkits_own_environment_is_told_how_to_get_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(trial, "attempt", lambda *_, **__: {"error": needs.NO_TORCH})
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(needs.shutil, "which", lambda name: sys.executable)
    found = [preflight.without_torch(project, LOCAL, devices) for devices in (GPU, CPU)]
    assert all(finding is not None and INSTALL in finding.mend for finding in found)
    assert ["--index-url https://download.pytorch.org/whl/cpu" in finding.mend for finding in found if finding] == [
        False,
        True,
    ]
    monkeypatch.setattr(needs.shutil, "which", lambda name: "/usr/bin/python")
    assert f"{sys.executable} -m pip install" in needs.how_to_have_torch(LOCAL, GPU), "not into another environment"


def test_what_can_not_be_asked_here_is_not_judged(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host's interpreter, and one that jobs on other nodes get from a set-up or by name."""
    monkeypatch.setattr(trial, "attempt", lambda *_, **__: {"error": needs.NO_TORCH})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    box = Target(name="box", kind="ssh", root="", python="", host="box")
    cluster = Target(name="c", kind="slurm", root="", python="", slurm=Slurm(), setup=("module load torch",))
    assert preflight.without_torch(project, box, CPU) is None
    assert preflight.without_torch(project, cluster, CPU) is None
    assert preflight.without_torch(project, replace(cluster, setup=()), CPU) is not None, "the toolkit's own"


def test_the_doctor_gives_the_same_command() -> None:
    answer: Any = {"trial": {"error": f"ModuleNotFoundError: {needs.NO_TORCH}"}, "devices": CPU}
    (finding,) = doctor._interpreter(answer, LOCAL, "", trains=True)
    assert finding.verdict is Grade.BAD and finding.mend == needs.how_to_have_torch(LOCAL, CPU)
    assert "oelm-jobs[train]" in finding.mend
    (elsewhere,) = doctor._interpreter(
        answer, Target(name="b", kind="ssh", root="", python="", host="b"), "", trains=True
    )
    assert "install torch there" in elsewhere.mend

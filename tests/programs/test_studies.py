"""The examples, and programs that others wrote, as studies of two groups and two seeds: killed in the middle, resumed,
fetched and judged.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs.agent import processes, rundir
from oelm_jobs.agent.run import saved
from oelm_jobs.spec.study import Study
from oelm_jobs.study.files import read_study
from tests.support import REPOSITORY, end_all, read, wait_until

Command = Callable[..., subprocess.CompletedProcess[str]]
EXAMPLES = sorted((REPOSITORY / "jobs" / "examples").glob("*.toml"))
KEPT = {
    "hydra_app": "work/.hydra/overrides.yaml",
    "lightning_app": "lightning_logs/version_0/hparams.yaml",
    "pipeline": "work/points.csv",
    "trainer": "checkpoint-120/trainer_state.json",
}
"""A file of each run that has to come home."""
OTHERS = sorted((REPOSITORY / "tests" / "programs" / "studies").glob("*.toml"))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project with the examples and the other programs, none of which knows where the toolkit is."""
    folder = tmp_path / "project"
    shutil.copytree(REPOSITORY / "jobs" / "examples", folder / "jobs" / "examples")
    for path in (REPOSITORY / "tests" / "programs" / "studies").iterdir():
        shutil.copy(path, folder / "jobs" if path.suffix == ".toml" else folder)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    monkeypatch.setenv("HOME", str(tmp_path))
    yield folder
    end_all(folder)


def lose(run_dir: Path) -> None:
    """Kill a run's supervisor and all its processes, as a power cut would."""
    supervisor = processes.Identity.from_json(read(rundir.control(run_dir, rundir.CLAIM)))
    for identity in (supervisor, *processes.of_run(str(run_dir))):
        if identity is not None and identity.is_alive():
            os.kill(identity.pid, signal.SIGKILL)


def attempts(run_dir: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read(run_dir / rundir.RESULT)["attempts"]
    return found


def told(run_dir: Path) -> str:
    """Return the log of a run, for a test that fails."""
    return (run_dir / rundir.LOG).read_text()[-3000:]


@pytest.mark.parametrize("path", [*EXAMPLES, *OTHERS], ids=lambda path: path.stem)
def test_a_study_is_killed_in_the_middle_resumed_fetched_and_judged(
    path: Path, oelm: Command, project: Path, tmp_path: Path
) -> None:
    study = read_study(path)
    name = str(path.relative_to(REPOSITORY)) if path in EXAMPLES else path.stem
    if (path.with_suffix("") / "prepare.py").exists() and study.program and study.program.data:
        prepared(project, path.stem)
    oelm("submit", "--study", name, "--mode", "parallel")
    runs = [project / "models" / "checkpoints" / study.name / f"exp_{run}" for run in run_names(study)]
    assert study.program is not None
    pattern = study.program.checkpoint

    def can_go_on(run: Path) -> bool:  # of folders two: what the first of them lacks nobody can tell
        return len(saved.files(run, pattern)) > ("*" in pattern) and bool(saved.newest(run, pattern))

    killed = wait_until(lambda: next(filter(can_go_on, runs), None), "a checkpoint")
    lose(killed)
    oelm("cancel", *(run.name[4:] for run in runs[2:]), "--yes", check=False)
    oelm("submit", "--study", name, "--mode", "parallel", "--wait", check=False)
    ended = {run.name: read(run / rundir.RESULT)["status"] for run in runs}
    assert set(ended.values()) == {"DONE"}, (ended, "\n".join(map(told, runs)))
    assert any(attempt.get("resumed_from") for attempt in attempts(killed)), attempts(killed)
    fetched = json.loads(oelm("fetch", "--study", study.name, "--json").stdout)["runs"]
    assert len(fetched) == len(runs) and all(run["verified"] and not run["damaged"] for run in fetched)
    for run in runs if study.name in KEPT else ():
        assert KEPT[study.name] in {file["name"] for file in read(run / rundir.MANIFEST)["files"]}
    main = next(iter(study.program.metrics.goal))
    for run in runs:
        beat = read(run / rundir.HEARTBEAT)
        assert beat["metrics"][main] is not None and beat["step"] > 0, beat
    report = json.loads(oelm("report", "--study", name, "--json").stdout)
    assert [verdict["id"] for verdict in report["verdicts"]] == [each.id for each in study.hypotheses]
    for verdict in report["verdicts"]:
        assert verdict["difference" if verdict.get("scale") == "difference" else "ratio"] is not None, verdict


def run_names(study: Study) -> list[str]:
    """Return the names of a study's runs, seed by seed."""
    return [group if seed == study.seeds[0] else f"{group}-s{seed}" for seed in study.seeds for group in study.groups]


def prepared(project: Path, example: str) -> None:
    """Let an example make its data."""
    text = project / "oelm_jobs" / "text" / "austen.txt.xz"
    text.parent.mkdir(parents=True)
    shutil.copy(REPOSITORY / "oelm_jobs" / "text" / text.name, text)
    subprocess.run([sys.executable, f"jobs/examples/{example}/prepare.py"], cwd=project, check=True)
    shutil.rmtree(project / "oelm_jobs")


def test_every_example_says_what_it_needs_and_how_it_is_submitted() -> None:
    assert len(EXAMPLES) == 5
    for path in EXAMPLES:
        first = path.read_text().partition("\nquestion")[0]
        assert f"oelm-submit --study jobs/examples/{path.name}" in first
        assert "pip install" in first or "Needs" in first

"""What a run that isn't over takes from another one is removed by nobody, whatever the moment."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs.agent.states import State
from oelm_jobs.errors import TargetError
from oelm_jobs.project import Project
from oelm_jobs.schedulers.leases import LeaseScheduler
from tests.submit.test_lineage import SCRIPT, ended, runs, study, submit
from tests.support import end_all, wait_until

pytestmark = pytest.mark.slow

TAKES = 'inputs = { init = "pre/base:best" }'


@pytest.fixture
def mine(tmp_path: Path, hold: Path) -> Iterator[Project]:
    """A project whose study ``pre`` is done on ``other`` and lies at home, too."""
    folder, other = tmp_path / "mine", tmp_path / "other"
    (folder / "jobs").mkdir(parents=True)
    (folder / "step.py").write_text(SCRIPT)
    study(folder, "pre", hold, "none", "base = { lr = 0.5, gpus = 0 }")
    waits = f'tuned = {{ lr = 0.25, gpus = 0, needs = ["gate"], {TAKES} }}'
    study(folder, "tune", hold, "{init}", f"gate = {{ lr = 0.1, gpus = 0, {TAKES} }}\n{waits}")
    target = f'kind = "local"\nroot = "{other}"\npython = "{sys.executable}"\n'
    (folder / "jobs" / "targets.toml").write_text(f"[other]\n{target}\n[here]\n{target.replace('other', 'here')}")
    with Project(folder, say=lambda text: None) as project:
        submit(project, "pre", "other", seeds=[1])
        assert ended(project, "pre")["base"].state is State.DONE
        project.fetch(checkpoints="all")
        yield project
    for path in hold.iterdir():
        path.unlink()
    end_all(other)
    end_all(tmp_path / "here")


def checkpoint(project: Project) -> Path:
    return Path(runs(project, "pre")["base"].run_dir, "work", "model.json")


@pytest.fixture
def clean(oelm: Callable[..., Any], mine: Project) -> Callable[..., str]:
    """Clean the study that others take from; return what was printed."""
    return lambda *words: oelm("clean", "--study", "pre", *words, cwd=mine.folder).stdout


def test_what_waiting_and_running_runs_take_stays_and_they_are_named(
    mine: Project, hold: Path, clean: Callable[..., str]
) -> None:
    (hold / "hold-gate").touch()
    submit(mine, "tune", "other", seeds=[1])
    wait_until(lambda: (hold / "began-gate").exists(), "the one that the other waits for")
    said = clean("--dry-run")
    assert "kept: work/model.json is taken by tune/tuned, QUEUED" in said, said
    assert "kept: work/model.json is taken by tune/gate, RUNNING" in said
    (row,) = json.loads(clean("--yes", "--json"))["runs"]
    assert (row["removable"], row["removed"]) == ([], [])
    assert {(it["file"], it["study"], it["run"], it["state"]) for it in row["taken"]} == {
        ("work/model.json", "tune", "gate", "RUNNING"), ("work/model.json", "tune", "tuned", "QUEUED")
    }  # fmt: skip
    assert checkpoint(mine).exists()
    (hold / "hold-gate").unlink()
    assert {run.state for run in ended(mine, "tune").values()} == {State.DONE}
    assert clean("--yes").splitlines()[-1].startswith("freed ") and not checkpoint(mine).exists()


def test_what_is_submitted_while_somebody_cleans_is_seen_when_it_is_removed(mine: Project, hold: Path) -> None:
    (hold / "hold-gate").touch()

    def submits(*found: Any) -> bool:
        assert [len(one.files) for one in found[0]] == [1]
        submit(mine, "tune", "other", seeds=[1])
        return True

    (done,) = mine.clean(study="pre", confirm=submits).removed
    assert done.names == () and list(done.kept) == ["work/model.json"]
    assert done.kept["work/model.json"].endswith(", takes it") and checkpoint(mine).exists()


def test_what_is_removed_while_somebody_submits_is_missed_before_anything_is_queued(
    mine: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = LeaseScheduler.submit

    def cleaned(self: LeaseScheduler, *given: Any) -> Any:
        assert mine.clean(study="pre").removed[0].names == ("work/model.json",)
        return send(self, *given)

    monkeypatch.setattr(LeaseScheduler, "submit", cleaned)
    with pytest.raises(TargetError, match="gate takes pre/base:best, which is not there any more; nothing was queued"):
        submit(mine, "tune", "other", seeds=[1])
    assert {run.state for run in runs(mine, "tune").values()} == {State.FAILED}
    assert not list(Path(mine.targets()["other"].root).glob("models/checkpoints/tune/*"))

"""Code that nobody needs any more is removed from targets, and none that somebody needs, whatever the moment."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs.agent import snapshots, trees
from oelm_jobs.agent.host import launch
from oelm_jobs.agent.transfer import clean
from oelm_jobs.code import snapshot
from tests.support import held, read, wait_until

Oelm = Callable[..., subprocess.CompletedProcess[str]]


def folder(project: Path) -> Path:
    return project / ".oelm" / "snapshots"


def names(project: Path) -> set[str]:
    return {path.name for path in folder(project).iterdir()}


def submit(oelm: Oelm, project: Path, group: str, *words: str) -> str:
    """Change the code and submit a group with it; return the name of its snapshot."""
    (project / "train" / "version.py").write_text(f"VERSION = {group!r}\n")
    before = names(project) if folder(project).exists() else set()
    oelm("submit", "--study", "tiny", "--group", group, *words)
    (made,) = names(project) - before
    return made


def unused(oelm: Oelm) -> list[str]:
    (row,) = json.loads(oelm("clean", "--all", "--dry-run", "--json").stdout)["snapshots"]
    return list(row["removable"])


def test_the_code_of_what_is_over_goes_and_that_of_a_run_that_is_not_stays(
    oelm: Oelm, quick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (quick / "large.txt").write_text("x" * 3_000_000)
    over = submit(oelm, quick, "gpt_base", "--wait")
    hold = held(quick.parent, "oelm_freeze")
    monkeypatch.setenv("TRAINER_HOLD", str(hold.parent))
    needed = submit(oelm, quick, "oelm_freeze")
    run_dir = quick / "models" / "checkpoints" / "exp_oelm_freeze"
    run_dir = run_dir if run_dir.exists() else quick / "models" / "checkpoints" / "tiny" / "exp_oelm_freeze"
    wait_until((run_dir / "training.log").exists, "the run to train")
    stored = quick / ".oelm" / "files" / str(os.geteuid())
    shutil.rmtree(quick / ".oelm" / "code")  # what bundles are made of: only the project's own machine has it
    of_old = [path for path in stored.rglob("*") if path.is_file() and path.read_text() == "VERSION = 'gpt_base'\n"]
    assert unused(oelm) == [over] and len(of_old) == 1
    asked = oelm("clean", "--all", check=False)
    assert asked.returncode == 2 and "--yes" in asked.stderr and over in names(quick)
    assert "code on local: snapshots that no run needs: 1" in asked.stdout
    assert "freed" in oelm("clean", "--all", "--yes").stdout
    assert names(quick) == {needed} and not of_old[0].exists()
    assert (folder(quick) / needed / "large.txt").read_text() == "x" * 3_000_000
    assert unused(oelm) == []
    oelm("cancel", "oelm_freeze")
    assert unused(oelm) == [needed]
    oelm("clean", "--all", "--yes")
    assert names(quick) == set()
    left = sum(path.stat().st_size for path in stored.rglob("*") if path.is_file())
    assert left < 1_000_000, "the large file is nobody's any more"
    hold.unlink()
    oelm("submit", "--study", "tiny", "--group", "oelm_freeze", "--wait")
    assert read(run_dir / "experiment_result.json")["status"] == "DONE", "the code is sent once more"


def test_the_code_of_runs_that_wait_in_line_or_were_started_by_hand_stays(
    oelm: Oelm, quick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINER_STEP_S", "3")
    made = submit(oelm, quick, "gpt_base", "--seeds", "42,43")
    assert unused(oelm) == []
    oelm("cancel", "gpt_base", "--yes")
    assert unused(oelm) == [made]
    script = next(quick.glob("models/checkpoints/**/exp_gpt_base/.oelm/launch.sh"))
    for path in quick.glob(".oelm/submissions/*"):
        path.unlink()
    by_hand = subprocess.Popen(["bash", str(script)], stdin=subprocess.DEVNULL, start_new_session=True)
    claim = script.with_name("claim")
    wait_until(lambda: snapshots.rundir.is_locked(claim), "the run to be claimed")
    assert unused(oelm) == []
    oelm("cancel", "gpt_base", "--yes")
    by_hand.wait(60)
    assert unused(oelm) == [made]


def gone_before(project: Path, times: int) -> subprocess.CompletedProcess[str]:
    """Submit a run while another command removes its code between sending and launching, so many times."""
    program = (
        "import shutil, sys; from oelm_jobs.schedulers import leases as m\n"
        "real, left = m.LeaseScheduler.submit, [int(sys.argv.pop(1))]\n"
        "def submit(self, jobs, *more):\n"
        "    if left[0]:\n"
        "        left[0] -= 1\n"
        "        shutil.rmtree(f'{self._connection.resolved.root}/.oelm/snapshots/{jobs[0].snapshot}')\n"
        "    return real(self, jobs, *more)\n"
        "m.LeaseScheduler.submit = submit\n"
        "from oelm_jobs.cli.submit import main; main(['--study', 'tiny', '--group', 'gpt_base', '--wait'])"
    )
    return subprocess.run(
        [sys.executable, "-c", program, str(times)], cwd=project, capture_output=True, text=True, timeout=120
    )


@pytest.mark.slow
def test_code_that_is_removed_before_its_launch_is_sent_again(quick: Path) -> None:
    done = gone_before(quick, 2)
    assert done.returncode == 0, done.stderr
    (result,) = quick.glob("models/checkpoints/**/experiment_result.json")
    assert read(result)["status"] == "DONE" and len(read(result)["attempts"]) == 1


def test_a_launch_whose_code_is_gone_is_refused_for_certain(oelm: Oelm, quick: Path) -> None:
    refused = gone_before(quick, 99)
    assert refused.returncode == 3 and "the code is not there any more" in refused.stderr
    (row,) = json.loads(oelm("status", "--json").stdout)["runs"]
    assert row["state"] == "FAILED" and row["reason"].startswith("not submitted")
    assert not list(quick.glob("models/checkpoints/**/.oelm")) and not list(quick.glob(".oelm/submissions/*"))


def test_what_an_unanswered_submission_of_another_project_may_name_stays(
    oelm: Oelm, quick: Path, tmp_path: Path
) -> None:
    shared = tmp_path / "root"
    text = (quick / "jobs" / "targets.toml").read_text()
    (quick / "jobs" / "targets.toml").write_text(text + f"root = '{shared}'\n")
    other = tmp_path / "other"
    subprocess.run(["cp", "-r", str(quick), str(other)], check=True)
    (shared / "data").mkdir(parents=True)
    subprocess.run(["cp", "-r", str(quick / "data" / "tiny"), str(shared / "data")], check=True)
    (other / "train" / "version.py").write_text("VERSION = 'other'\n")
    program = (
        "import os, signal; from oelm_jobs.schedulers import leases as m\n"
        "m.LeaseScheduler.submit = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from oelm_jobs.cli.submit import main; main(['--study', 'tiny', '--group', 'oelm_freeze'])"
    )
    subprocess.run([sys.executable, "-c", program], cwd=other, capture_output=True, timeout=60)
    kept = names(shared)
    assert len(kept) == 1
    oelm("submit", "--study", "tiny", "--group", "gpt_base", "--wait")
    for path in folder(shared).iterdir():
        old = time.time() - (7 * 24 * 3600 if path.name not in kept else 0)
        os.utime(path, (old, old))
    said = oelm("clean", "--all", "--yes").stdout
    assert f"a submission of {other}" in said and names(shared) == kept
    oelm("status", cwd=other)  # finds out that it never arrived
    oelm("clean", "--all", "--yes")
    assert names(shared) == set()


# At the same time -----------------------------------------------------------------------------------------------------


@pytest.fixture
def root(quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with a snapshot that nobody names."""
    monkeypatch.setattr(trees, "LOCK_PATIENCE_S", 0.2)
    made = tmp_path / "root"
    snapshot.keep(snapshot.take(quick), folder(made))
    return made


def discard(root: Path) -> dict[str, Any]:
    return clean.discard({"root": str(root), "names": sorted(names(root)), "copies": []})


@pytest.mark.slow
def test_nothing_is_removed_while_somebody_submits(root: Path) -> None:
    with trees.held(str(folder(root))), pytest.raises(trees.Busy, match="try again"):
        discard(root)
    assert len(names(root)) == 1
    assert len(discard(root)["removed"]) == 1 and names(root) == set()


@pytest.mark.slow
def test_nothing_is_launched_while_somebody_removes(root: Path) -> None:
    run_dir = root / "models" / "checkpoints" / "exp_a"
    (name,) = names(root)
    run = {"run_dir": str(run_dir), "token": "t", "script": "exit 0\n"}
    request = {"root": str(root), "token": "t", "runs": [run], "snapshot": name}
    with trees.held(str(folder(root)), alone=True), pytest.raises(trees.Busy) as refused:
        launch.launch(request)
    assert refused.value.is_refusal and not run_dir.exists()
    assert launch.launch(request)["answer"] == "accepted"


def test_a_repeated_launch_starts_nothing_whether_or_not_its_code_is_there(root: Path) -> None:
    run_dir = root / "models" / "checkpoints" / "exp_a"
    (name,) = names(root)
    run = {"run_dir": str(run_dir), "token": "t", "script": "exit 0\n"}
    request = {"root": str(root), "token": "t", "runs": [run], "snapshot": name}
    assert launch.launch(request)["runs"] == {str(run_dir): "started"}
    trees.remove(str(folder(root) / name))
    assert launch.launch(request) == {"answer": "repeated", "runs": {}}
    assert launch.launch({**request, "token": "u"}) == {"answer": "lacking", "runs": {}}


def test_where_no_file_can_be_locked_only_what_is_old_goes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(handle: int, kind: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert discard(root)["removed"] == []
    (path,) = folder(root).iterdir()
    old = time.time() - 2 * clean.BLIND_S
    os.utime(path, (old, old))
    assert discard(root)["removed"] == [path.name]


def test_what_a_killed_command_left_half_done_goes_too(root: Path) -> None:
    half = folder(root) / ".0123456789abcdef.box.1.2"
    (half / "deep").mkdir(parents=True)
    discard(root)
    assert list(folder(root).iterdir()) == []


def test_records_that_make_no_sense_keep_everything(root: Path) -> None:
    broken = root / ".oelm" / "submissions" / "oelm-1.json"
    broken.parent.mkdir()
    broken.write_text('{"token": [], "runs": 7}')
    found = clean.snapshots({"root": str(root)})
    assert found["unused"] == [] and found["note"] and len(names(root)) == 1

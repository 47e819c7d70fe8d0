"""What runs take from others is known before anybody may remove it, and what isn't known keeps everything."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from oelm_jobs.agent import inside, rundir, trees
from oelm_jobs.agent.host import launch
from oelm_jobs.agent.run import saved
from oelm_jobs.agent.slurm import submit as slurm_submit
from oelm_jobs.agent.states import State
from oelm_jobs.agent.transfer import clean, copies, inventory, taken
from oelm_jobs.transfer.clean import Taken, told
from tests.support import make_run, script_of

NO_ROOM = "sbatch: error: AssocMaxSubmitJobLimit\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root in which run ``a`` is over."""
    source = tmp_path / "models" / "checkpoints" / "exp_a"
    (source / ".oelm").mkdir(parents=True)
    (tmp_path / ".oelm").mkdir()
    (source / "best_model.pt").write_text("weights")
    rundir.write_json(rundir.control(source, rundir.END), {"version": 1, "token": "t0", "state": "DONE"})
    return tmp_path


def taking(root: Path, name: str, token: str, needs: bool = True) -> dict[str, Any]:
    """Return run directory and script of a run that takes from the one that is over, or needs none."""
    run = make_run(root / "models" / "checkpoints", name)
    need = {"study": "s", "run": "a", "when": "success", "input": "init", "artifact": "best"}
    need["run_dir"] = str(root / "models" / "checkpoints" / "exp_a")
    more = {"needs": [need]} if needs else {}
    return {"run_dir": run.run_dir, "script": script_of(root, run, ["true"], token, **more)}


def remove(root: Path) -> dict[str, Any]:
    run_dir = root / "models" / "checkpoints" / "exp_a"
    entry = (7, hashlib.sha256(b"weights").hexdigest())
    row = {"run_dir": str(run_dir), "files": {"best_model.pt": entry}}
    return inventory.remove({"root": str(root), "runs": [row]})["runs"][str(run_dir)]


def send(root: Path, token: str, *names: str, needs: bool = True) -> dict[str, Any]:
    """Send jobs to a cluster that has no room."""
    runs = [taking(root, name, token, needs) for name in names]
    jobs = [
        {"position": place, "name": f"{token}-{place}", "script": run["script"], "run_dirs": [run["run_dir"]]}
        for place, run in enumerate(runs)
    ]
    request = {"root": str(root), "token": token, "jobs": jobs}
    return slurm_submit.slurm_submit(request, lambda script, options: (1, "", NO_ROOM))["jobs"]


def test_what_waits_for_room_on_a_cluster_holds_what_it_takes(root: Path) -> None:
    assert [*send(root, "t1", "b", "c").values()][1] == {"limit": "waits for the ones before it"}
    slurm_submit._remember(str(root), "t1", 0, {"refused": "no"})
    assert remove(root)["kept"] == {"best_model.pt": "c, UNKNOWN, takes it"}
    slurm_submit._remember(str(root), "t1", 1, {"refused": "no"})
    assert remove(root)["removed"] == ["best_model.pt"]


def test_what_takes_nothing_and_waits_for_room_holds_nothing(root: Path) -> None:
    assert [*send(root, "t1", "b", "c", needs=False).values()][1] == {"limit": "waits for the ones before it"}
    assert remove(root)["removed"] == ["best_model.pt"]


def test_a_script_that_a_power_cut_left_empty_is_not_what_is_sent(root: Path) -> None:
    send(root, "t1", "b")
    script = slurm_submit.file_of(str(root), "t1", 0, ".sh")
    whole = script.read_text()
    script.write_text("")
    send(root, "t1", "b")
    assert script.read_text() == whole


# Copies from other targets --------------------------------------------------------------------------------------------


DAY_S = 86_400


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let the time for which copies lie there pass."""
    return lambda seconds: monkeypatch.setattr(copies, "time", SimpleNamespace(time=lambda: time.time() + seconds))


def brought(root: Path, token: str) -> Path:
    """Return a copy that was just brought and that a run of a submission takes."""
    copy = root / ".oelm" / "inputs" / "pre" / "base" / "0123456789abcdef"
    (copy / "work").mkdir(parents=True)
    (copy / "work" / "model.json").write_text("weights")
    need = {"study": "pre", "run": "base", "when": "success", "input": "init", "artifact": "best"}
    run = make_run(root / "models" / "checkpoints", "b")
    script = script_of(root, run, ["true"], token, needs=[{**need, "path": str(copy / "work" / "model.json")}])
    job = {"position": 0, "name": "job", "script": script, "run_dirs": [run.run_dir]}
    request = {"root": str(root), "token": token, "jobs": [job]}
    slurm_submit.slurm_submit(request, lambda script, options: (1, "", NO_ROOM))
    return copy


def test_a_copy_stays_until_no_run_that_is_not_over_takes_it(root: Path, later: Callable[[float], None]) -> None:
    copy, asked = brought(root, "t1"), {"root": str(root)}
    name = "pre/base/0123456789abcdef"
    later(DAY_S + 1)
    assert clean.snapshots(asked)["copies"] == {}
    assert clean.discard({**asked, "names": [], "copies": [name]})["copies"] == [] and copy.exists()
    slurm_submit._remember(str(root), "t1", 0, {"refused": "no"})
    assert clean.snapshots(asked)["copies"] == {name: 7}
    (copy.parent / ".0123456789abcdef.gone.1").mkdir()
    assert clean.discard({**asked, "names": [], "copies": [name, "../../x/0123456789abcdef"]}) == {
        "removed": [], "freed": 7, "copies": [name]
    }  # fmt: skip
    assert not copy.parent.parent.exists()


def test_a_copy_that_was_brought_today_or_still_arrives_stays(root: Path, later: Callable[[float], None]) -> None:
    """rsync gives files the times that they have where they come from, and goes on with one that is there in part."""
    copy, asked = brought(root, "t1"), {"root": str(root)}
    slurm_submit._remember(str(root), "t1", 0, {"refused": "no"})
    for path in (copy / "work" / "model.json", copy / "work", copy):
        os.utime(path, (0, 0))
    later(DAY_S - 60)
    assert clean.snapshots(asked)["copies"] == {}, "somebody is about to submit what takes it"
    later(DAY_S + 60)
    assert list(clean.snapshots(asked)["copies"]) == ["pre/base/0123456789abcdef"]
    os.utime(copy / "work" / "model.json", (time.time() + 120,) * 2)  # it grows
    assert clean.snapshots(asked)["copies"] == {}


def test_no_copy_goes_where_a_submission_can_not_be_understood(root: Path, later: Callable[[float], None]) -> None:
    copy = brought(root, "t1")
    later(DAY_S + 1)
    slurm_submit._remember(str(root), "t1", 0, {"refused": "no"})
    launch.submission_file(str(root), "t2").write_text('{"token": [], "runs": 7}')
    found = clean.snapshots({"root": str(root)})
    assert found["copies"] == {} and "t2.json" in found["doubt"] and copy.exists()


# What isn't known -----------------------------------------------------------------------------------------------------


def test_a_submission_whose_scripts_are_not_there_yet_may_take_anything(root: Path) -> None:
    send(root, "t1", "b")
    path = slurm_submit.file_of(str(root), "t1", 0, ".sh")
    path.unlink()
    why = "a submission there has no answer yet: what its runs may take stays (oelm-status)"
    assert remove(root)["kept"] == {"best_model.pt": why}


def test_a_submission_that_can_not_be_understood_may_take_anything(root: Path) -> None:
    broken = launch.submission_file(str(root), "t1")
    broken.parent.mkdir(parents=True)
    broken.write_text('{"token": [], "runs": 7}')
    why = remove(root)["kept"]["best_model.pt"]
    assert str(broken) in why and "move it away once none of its runs is alive (oelm-status)" in why
    broken.rename(root / "away")
    assert remove(root)["removed"] == ["best_model.pt"]


@pytest.mark.slow
def test_nothing_is_removed_while_somebody_submits(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "LOCK_PATIENCE_S", 0.2)
    with trees.held(str(root / ".oelm" / "snapshots")), pytest.raises(trees.Busy, match="try again"):
        remove(root)
    assert remove(root)["removed"] == ["best_model.pt"]


@pytest.mark.parametrize("cluster", [False, True])
def test_what_is_gone_before_the_submission_is_on_record_refuses_it(root: Path, cluster: bool) -> None:
    assert remove(root)["removed"] == ["best_model.pt"]
    with pytest.raises(launch.InputGone, match="b takes s/a:best, which is not there .*submit again") as refused:
        if cluster:
            send(root, "t1", "b")
        else:
            launch.launch({"root": str(root), "token": "t1", "runs": [{**taking(root, "b", "t1"), "token": "t1"}]})
    assert refused.value.is_refusal and not launch.submission_file(str(root), "t1").exists()
    assert not (root / "models" / "checkpoints" / "exp_b").exists()


def test_what_goes_on_from_its_own_checkpoint_does_not_miss_what_it_began_with(root: Path) -> None:
    run = taking(root, "b", "t1")
    (record,) = rundir.records_in(run["script"])
    row = {"input": "init", "study": "s", "run": "a", "artifact": "best", "path": "/x", "sha256": "0" * 64, "size": 7}
    rundir.control(run["run_dir"], "").mkdir(parents=True)
    rundir.write_json(rundir.control(run["run_dir"], rundir.INPUTS), {"version": 1, "inputs": [row]})
    rundir.write_json(rundir.control(run["run_dir"], rundir.RUN), record)
    assert remove(root)["removed"] == ["best_model.pt"], "nobody has submitted it since"
    with pytest.raises(launch.InputGone):
        launch._see_inputs([run["script"]])
    Path(run["run_dir"], "checkpoint_5.pt").write_text("its own")
    launch._see_inputs([run["script"]])


def test_a_repeated_launch_is_repeated_whether_or_not_what_it_takes_is_there(root: Path) -> None:
    run = {**taking(root, "b", "t1"), "token": "t1"}
    request = {"root": str(root), "token": "t1", "runs": [{**run, "script": run["script"].replace("exec", ": exec")}]}
    assert launch.launch(request)["answer"] == "accepted"
    (root / "models" / "checkpoints" / "exp_a" / "best_model.pt").unlink()
    assert launch.launch(request) == {"answer": "repeated", "runs": {}}


# Many of them ---------------------------------------------------------------------------------------------------------


def test_who_takes_a_file_is_looked_up_and_links_on_the_way_are_followed(tmp_path: Path) -> None:
    (tmp_path / "exp_a").mkdir()
    (tmp_path / "exp_link").symlink_to(tmp_path / "exp_a")
    rows = [taken.Taken(str(tmp_path / "exp_link"), name, "s", name, "QUEUED") for name in ("work", "best_model.pt")]
    takers = taken.Takers([*rows, taken.Taken("", str(tmp_path / "exp_a" / "copy"), "s", "c", "QUEUED")])
    for name, taker in (("work/a/b.pt", "work"), ("work", "work"), ("best_model.pt", "best_model.pt")):
        found = takers.of(str(tmp_path / "exp_a"), name)
        assert found is not None and found.run == taker
    assert [takers.of(str(tmp_path / "exp_a"), name) for name in ("work.pt", "wor", "a/best_model.pt", "copy")] == [
        None
    ] * 4


def test_of_many_that_take_one_file_a_few_are_told_and_the_others_counted(root: Path) -> None:
    send(root, "t1", *(f"b{number}" for number in range(12)))
    rows = clean.snapshots({"root": str(root)})["taken"]
    assert {row["name"] for row in rows} == {"best_model.pt"}
    assert [(row["run"], row.get("more")) for row in rows] == [("b0", None), ("b1", None), ("b2", 9)]


def test_of_a_file_that_thousands_take_a_few_are_named() -> None:
    rows = [Taken(name="a.pt", study="t", run=f"b{number}", state=State.QUEUED) for number in range(5)]
    rows += [Taken(name="b.pt", study="s", run="b0", state=State.RUNNING, more=4997)]
    assert told(rows, "s") == [
        "kept: a.pt is taken by t/b0, QUEUED", "kept: a.pt is taken by t/b1, QUEUED",
        "kept: a.pt is taken by t/b2, QUEUED", "kept: b.pt is taken by b0, RUNNING", "kept: a.pt is taken by 2 more",
        "kept: b.pt is taken by 4,997 more",
    ]  # fmt: skip


def test_where_run_directories_lie_is_found_out_once_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, real = list[str](), os.path.realpath

    def realpath(path: str) -> str:
        asked.append(path)
        return real(path)

    monkeypatch.setattr(os.path, "realpath", realpath)
    many = [f"/r/exp_{number}" for number in range(3000)]
    takers = taken.Takers([taken.Taken(run_dir, "best.pt", "s", "b", "QUEUED") for run_dir in many])
    assert all(takers.of(run_dir, "best.pt") for run_dir in many)
    assert not any(takers.of(run_dir, "last.pt") for run_dir in many)
    assert len(asked) == len(many)


def test_what_many_runs_take_is_looked_at_once_before_they_start(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks, newest = list[Path](), saved.newest

    def look(run_dir: Path, *more: Any) -> str:
        looks.append(run_dir)
        return newest(run_dir, *more)

    monkeypatch.setattr(saved, "newest", look)
    launch._see_inputs(taking(root, f"b{number}", "t1")["script"] for number in range(5))
    assert looks == [root / "models" / "checkpoints" / "exp_a"]


# Without locks --------------------------------------------------------------------------------------------------------


def test_where_no_file_can_be_locked_who_takes_what_is_looked_at_anew_before_each_runs_files_go(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = root / "models" / "checkpoints" / "exp_0"
    (other / ".oelm").mkdir(parents=True)
    (other / "best_model.pt").write_text("weights")
    removed = inside.remove

    def remove_and_submit(run_dir: Any, name: str) -> None:
        removed(run_dir, name)
        if str(run_dir) == str(other):
            send(root, "t1", "b")

    monkeypatch.setattr(inside, "remove", remove_and_submit)
    monkeypatch.setattr(trees, "_lock", lambda handle, kind: False)  # the root's disk; that of the runs may have them
    entry = (7, hashlib.sha256(b"weights").hexdigest())
    folders = [str(other), str(root / "models" / "checkpoints" / "exp_a")]
    rows = [{"run_dir": run_dir, "files": {"best_model.pt": entry}} for run_dir in folders]
    first, second = inventory.remove({"root": str(root), "runs": rows})["runs"].values()
    assert first["removed"] == ["best_model.pt"] and second["kept"] == {"best_model.pt": "b, UNKNOWN, takes it"}

"""A project that was moved, a second laptop, a root that projects share, a clock that is off, a default that changed:
what lies on a target is said, and is taken over by who asks for it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs.connections import connect, connect_for_transfer, sockets
from oelm_jobs.runs import terminal
from oelm_jobs.store import Store
from oelm_jobs.study.files import load_study
from oelm_jobs.targets.files import load_target
from tests.ssh.conftest import Rig, log_out, write_target
from tests.ssh.test_fetch import fetched, train
from tests.ssh.testbed import Host
from tests.support import TINY_STUDY, wait_until

Oelm = Callable[..., subprocess.CompletedProcess[str]]


def states(oelm: Oelm, project: Path, *words: str) -> dict[str, str]:
    """Return where a project's runs stand as its index and their targets say."""
    rows = json.loads(oelm("status", "--json", *words, cwd=project).stdout)["runs"]
    return {f"{row['study']}/{row['name']}": row["state"] for row in rows}


def another_project(rig: Rig, place: Path) -> Path:
    """Make a project with the same study and targets."""
    shutil.copytree(rig.project, place, ignore=shutil.ignore_patterns("models", "experiments"))
    return place


@pytest.mark.parametrize("target", ["box", "boxo"])
def test_a_moved_project_takes_over_its_runs_while_they_train(rig: Rig, target: str, tmp_path: Path) -> None:
    rig.target = target
    train(rig, pace="0.05", steps=100000)
    rig.wait_for("gpt_base", "RUNNING")
    moved = tmp_path / "moved"
    rig.project.rename(moved)
    looked = rig.oelm("status", cwd=moved)
    assert f"{target} holds 1 run of project {rig.project}: tiny/gpt_base RUNNING" in looked.stderr
    assert "take them over: oelm-status --adopt\n" in looked.stderr and "Submit some" not in looked.stderr
    assert states(rig.oelm, moved) == {}, "looking takes nothing over"
    (elsewhere,) = json.loads(rig.oelm("status", "--json", cwd=moved).stdout)["elsewhere"]
    assert elsewhere["project"] == str(rig.project) and not elsewhere["is_own"]
    assert [(run["name"], run["state"]) for run in elsewhere["runs"]] == [("gpt_base", "RUNNING")]
    assert "oelm-status" in rig.oelm("cancel", "gpt_base", cwd=moved, check=False).stderr, "where to look"
    adopted = rig.oelm("status", "--adopt", cwd=moved)
    assert f"took over 1 run of project {rig.project}: tiny/gpt_base" in adopted.stderr and "RUNNING" in adopted.stdout
    assert states(rig.oelm, moved, "--rebuild") == {"tiny/gpt_base": "RUNNING"}, "a rebuild does not give it back"
    assert "Started" in rig.oelm("logs", "gpt_base", "--lines", "99999", cwd=moved).stdout
    assert "cancelled" in rig.oelm("cancel", "gpt_base", cwd=moved).stdout
    assert states(rig.oelm, moved) == {"tiny/gpt_base": "CANCELLED"}
    done = json.loads(rig.oelm("fetch", "--json", cwd=moved).stdout)["runs"]
    assert done[0]["verified"] and (moved / "models" / "checkpoints" / "tiny" / "exp_gpt_base").is_dir()
    again = rig.oelm("submit", "--study", "tiny", "--group", "gpt_base", "--target", target, cwd=moved)
    assert "submitted" in again.stdout
    wait_until(lambda: "Resumed from step" in (rig.run_dir() / "training.log").read_text(), "it goes on")


def test_on_a_second_laptop_under_the_same_path_the_index_is_made_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    train(rig)
    rig.wait_for("gpt_base", "DONE")
    monkeypatch.setenv("OELM_STATE_DIR", str(tmp_path / "second laptop"))
    looked = rig.oelm("status")
    assert "box holds 1 run of this project: tiny/gpt_base DONE" in looked.stderr
    assert "oelm-status --rebuild" in looked.stderr
    assert states(rig.oelm, rig.project, "--rebuild") == {"tiny/gpt_base": "DONE"}


def test_what_another_project_on_the_same_root_owns_is_never_taken_over_unasked(rig: Rig, tmp_path: Path) -> None:
    train(rig, "gpt_base", "oelm_freeze")
    for name in ("gpt_base", "oelm_freeze"):
        rig.wait_for(name, "DONE")
    other = another_project(rig, tmp_path / "other")
    for words in ((), ("--rebuild",)):
        looked = rig.oelm("status", *words, cwd=other)
        assert f"box holds 2 runs of project {rig.project}: " in looked.stderr
        assert f"oelm-status --adopt {rig.project}" in looked.stderr
        assert states(rig.oelm, other) == {}
    refused = rig.oelm("status", "--adopt", cwd=other, check=False)
    assert refused.returncode == 2 and f"belongs to projects on this machine: {rig.project}" in refused.stderr
    unknown = rig.oelm("status", "--adopt", "/nowhere", cwd=other, check=False)
    assert unknown.returncode == 2 and f"valid: {rig.project}" in unknown.stderr
    assert states(rig.oelm, other) == {}
    rig.oelm("status", "--adopt", str(rig.project), cwd=other)
    assert states(rig.oelm, other) == {"tiny/gpt_base": "DONE", "tiny/oelm_freeze": "DONE"}
    assert states(rig.oelm, rig.project, "--rebuild") == states(rig.oelm, other), "its own project keeps it"


def test_of_several_projects_that_are_gone_one_has_to_be_named_and_own_runs_stay(rig: Rig, tmp_path: Path) -> None:
    write_target(rig.project, "side", host="box", root="side", python=load_target(rig.project, "box").python)
    shutil.copytree(rig.project / "data", rig.host.home() / "side" / "data")
    first = rig.project
    train(rig)
    second = another_project(rig, tmp_path / "second")
    rig.oelm("submit", "--study", "tiny", "--group", "gpt_base", "--target", "side", "--wait", cwd=second)
    third = another_project(rig, tmp_path / "third")
    rig.wait_for("gpt_base", "DONE")
    for project in (first, second):
        project.rename(project.with_name(project.name + "-gone"))
    refused = rig.oelm("status", "--adopt", cwd=third, check=False)
    assert refused.returncode == 2 and str(first) in refused.stderr and str(second) in refused.stderr
    assert states(rig.oelm, third) == {}
    rig.oelm("status", "--adopt", str(second), cwd=third)
    left = rig.oelm("status", "--adopt", str(first), cwd=third)
    assert "not taken over from box" in left.stderr and "tiny/gpt_base" in left.stderr
    rows = json.loads(rig.oelm("status", "--json", cwd=third).stdout)["runs"]
    assert [(row["name"], row["target"]) for row in rows] == [("gpt_base", "side")]


# Clocks ---------------------------------------------------------------------------------------------------------------

SHIFTED = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>
static int (*real)(clockid_t, struct timespec *);
extern "C" int clock_gettime(clockid_t clock, struct timespec *at) noexcept {
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(clock, at);
    if (!code && clock == CLOCK_REALTIME) at->tv_sec += SHIFT;
    return code;
}
extern "C" time_t time(time_t *at) noexcept {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"""
"""Puts the clock of every process that loads it off by SHIFT seconds."""


@pytest.mark.parametrize("shift_s", [-86400, 86400])
def test_a_servers_clock_that_is_off_by_a_day_makes_no_run_look_dead(rig: Rig, shift_s: int, tmp_path: Path) -> None:
    (tmp_path / "clock.cpp").write_text(SHIFTED)
    library = tmp_path / "clock.so"
    words = ["g++", "-shared", "-fPIC", f"-DSHIFT=({shift_s})", "-o", str(library), str(tmp_path / "clock.cpp"), "-ldl"]
    subprocess.run(words, check=True)
    rig.host.environment["LD_PRELOAD"] = str(library)
    train(rig, pace="0.05", steps=100000)
    rig.wait_for("gpt_base", "RUNNING")
    wait_until(lambda: rig.status()["gpt_base"]["progress"].get("step"), "a first step")
    row = rig.status()["gpt_base"]
    assert abs(row["progress"]["heartbeat_at"] - row["observed_at"]) > 80000, "the clock is off"
    assert abs(row["progress"]["clock_ahead_s"] - shift_s) <= 60
    assert "no sign of progress" not in rig.oelm("status").stdout


# The folder of master sockets -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["another user's", "a link", "open to others", "a file"])
def test_a_socket_folder_that_somebody_else_made_is_worked_around(
    rig: Rig, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "TEMPORARY", f"/tmp/o{os.getpid()}")
    usual = Path(sockets.TEMPORARY) / f"oelm-ssh-{os.getuid()}"
    usual.parent.mkdir()
    try:
        if kind == "another user's":
            usual.mkdir(mode=0o700)
            os.chown(usual, 12345, 12345)
        elif kind == "a link":
            (tmp_path / "theirs").mkdir(mode=0o700)
            usual.symlink_to(tmp_path / "theirs")
        elif kind == "open to others":
            usual.mkdir()
            usual.chmod(0o777)
        else:
            usual.touch()
        folder = sockets.control_folder()
        assert folder != usual and folder.stat().st_uid == os.getuid() and folder.stat().st_mode & 0o777 == 0o700
        assert sockets.control_folder() == folder, "the next command finds the same master"
        for name in ("box", "boxo"):
            target = load_target(rig.project, name)
            for connection in (connect(target, rig.project), connect_for_transfer(target, rig.project)):
                assert connection.call("probe", {"run_dirs": []})["runs"] == {}
                log_out(connection)
        if usual.is_dir():
            assert not list(usual.iterdir()), "nothing of ours lies where others can reach it"
        shutil.rmtree(folder)
        assert sockets.control_folder() == folder, "also after a reboot"
    finally:
        shutil.rmtree(usual.parent)


def test_a_runtime_folder_that_is_another_users_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nowhere/at/all")
    assert str(sockets.control_folder()).startswith("/tmp/oelm-ssh-")


# The default study ----------------------------------------------------------------------------------------------------


def default(project: Path, study: str) -> None:
    """Make a study the project's default, and no other."""
    for path in (project / "jobs").glob("*.toml"):
        if path.name != "targets.toml":
            text = path.read_text().replace("default = true\n", "")
            path.write_text(("default = true\n" if path.stem == study else "") + text.lstrip())


def test_moving_the_default_to_another_study_moves_no_run(rig: Rig, box: Host) -> None:
    (rig.project / "jobs" / "other.toml").write_text(TINY_STUDY)
    default(rig.project, "tiny")
    train(rig, pace="0.05", steps=100000)
    rig.wait_for("gpt_base", "RUNNING")
    there = box.home() / "oelm" / "models" / "checkpoints" / "exp_gpt_base"
    home = rig.project / "models" / "checkpoints" / "exp_gpt_base"
    wait_until(lambda: list(there.glob("checkpoint_*.pt")), "a checkpoint")
    fetched(rig)
    before = {path.name for path in home.iterdir()}
    default(rig.project, "other")
    assert states(rig.oelm, rig.project, "--rebuild") == {"tiny/gpt_base": "RUNNING"}
    assert fetched(rig)["gpt_base"]["run_dir"] == str(home)
    assert "cancelled" in rig.oelm("cancel", "gpt_base").stdout
    assert "Started" in rig.oelm("logs", "tiny/gpt_base", "--lines", "99999").stdout
    done: dict[str, Any] = fetched(rig, "--checkpoints", "all")["gpt_base"]
    assert done["verified"] and done["run_dir"] == str(home) and before <= {path.name for path in home.iterdir()}
    assert not (home.parent / "tiny").exists() and not (home.parent / "other").exists()
    tiny, other = (load_study(rig.project, name) for name in ("tiny", "other"))
    with Store() as store:
        known = store.runs(rig.project)
    assert [terminal.study_folder(study, "box", known) for study in (tiny, other)] == ["", ""]
    for study, folder in (("tiny", ""), ("other", "other/")):
        planned = rig.oelm("submit", "--study", study, "--group", "gpt_base", "--target", "box", "--dry-run", "--json")
        [run] = json.loads(planned.stdout)["runs"]
        assert run["run_dir"] == f"~/oelm/models/checkpoints/{folder}exp_gpt_base"
    rig.submit("--group", "gpt_base")
    wait_until(lambda: "Resumed from step" in (there / "training.log").read_text(), "it goes on where it lies")
    assert not (there.parent / "tiny").exists()
    assert rig.status()["gpt_base"]["state"] == "RUNNING"

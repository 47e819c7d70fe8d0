"""Bringing results home: nothing gets its name before it is whole and verified, whatever happens on the way."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs import Checkpoints, connections
from oelm_jobs.agent import registry
from oelm_jobs.connections.answers import believed
from oelm_jobs.errors import NotReached, TargetError
from oelm_jobs.store import Store
from oelm_jobs.transfer import fetch, rsync, sync
from oelm_jobs.transfer.staging import STAGING, Staging, place_arrival
from oelm_jobs.transfer.sync import Item
from tests.ssh.conftest import Rig, stand_in, write_target
from tests.ssh.testbed import Proxy
from tests.support import held, needs, read, wait_until


class Silent:
    """Wants to know nothing of a transfer."""

    def begin(self, files: int, size: int) -> None:
        pass

    def advance(self, size: int) -> None:
        pass

    def say(self, text: str) -> None:
        pass


def train(rig: Rig, *names: str, size: int = 1000, pace: str = "0", steps: int = 12) -> None:
    """Have runs trained on the host, with checkpoints of ``size`` bytes."""
    rig.restart(TRAINER_BYTES=str(size), TRAINER_STEP_S=pace)
    rig.edit(("max_steps = 12", f"max_steps = {steps}"))
    rig.submit("--groups", ",".join(names or ("gpt_base",)), "--mode", "parallel")


def same(rig: Rig, name: str = "gpt_base") -> list[str]:
    """Return the files at home, each of them equal to the host's; a checkpoint may be older than those kept there."""
    found = []
    for path in sorted(rig.home_dir(name).rglob("*")):
        relative = str(path.relative_to(rig.home_dir(name)))
        is_older = path.suffix == ".pt" and not (rig.run_dir(name) / relative).exists()
        if path.is_file() and relative != ".oelm/fetched.json" and not is_older:
            assert path.read_bytes() == (rig.run_dir(name) / relative).read_bytes(), relative
            found.append(relative)
    return found


def fetched(rig: Rig, *words: str, check: bool = True) -> dict[str, dict[str, Any]]:
    """Fetch and return what was said about each run."""
    done = rig.oelm("fetch", "--json", *words, check=check)
    return {run["run"]: run for run in json.loads(done.stdout)["runs"]}


def test_a_fetch_killed_fifty_times_ends_with_identical_files(rig: Rig) -> None:
    names = ("gpt_base", "oelm_no_freeze")
    train(rig, *names, size=12 << 20)
    for name in names:
        rig.wait_for(name, "DONE")
    with Store() as store:
        runs = store.runs(rig.project)
    luck, kills, whole_s = random.Random(0), 0, 0.6
    while kills < 50:
        # A fork saves what Python needs to start; the child is a client of its own all the same.
        pid = os.fork()
        if pid == 0:
            os.setsid()
            with contextlib.suppress(BaseException):
                fetch.fetch(rig.project, runs, Silent(), checkpoints=Checkpoints.ALL)
                os._exit(0)
            os._exit(1)
        time.sleep(luck.uniform(0.0, whole_s))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        kills += os.WIFSIGNALED(status)
        for name in names:
            same(rig, name)  # whatever has its final name is complete
        if not os.WIFSIGNALED(status):  # it was faster: some of what it brought is taken away again
            whole_s *= 0.9
            victim = luck.choice(list(rig.home_dir(luck.choice(names)).glob("*.pt")))
            victim.unlink()
    for run in fetched(rig, "--checkpoints", "all").values():
        assert run["verified"] and not run["damaged"] and not run["left"]
    for name in names:
        assert len(same(rig, name)) == len([p for p in rig.run_dir(name).rglob("*") if p.is_file()]) - len(OWN)
        assert sync.verify(rig.home_dir(name)).damaged == ()
    assert not list((rig.home_dir().parent / STAGING).rglob("*.pt")), "staging is empty again"


OWN = {"claim", "origin"}
"""Control files that stay on the host."""


def test_a_run_is_fetched_while_it_trains_and_again_when_it_is_done(rig: Rig) -> None:
    hold = held(rig.project.parent)
    rig.host.environment["TRAINER_HOLD"] = str(hold.parent)
    train(rig, pace="0.05", steps=200, size=200_000)
    wait_until(lambda: (rig.run_dir() / "best_model.pt").exists(), "a best checkpoint")
    first = fetched(rig)["gpt_base"]
    assert first["state"] == "RUNNING" and not first["verified"] and not first["damaged"]
    assert (rig.home_dir() / "best_model.pt").exists() and not (rig.home_dir() / "MANIFEST.json").exists()
    assert not (rig.run_dir() / ".oelm" / "held").exists(), "nothing is held longer than it takes"
    log = (rig.home_dir() / "training.log").read_bytes()
    assert log and (rig.run_dir() / "training.log").read_bytes().startswith(log), "a growing file is cut where it stood"
    assert "interim" in rig.oelm("report", "--study", "tiny").stdout.lower()
    newest = fetched(rig, "--checkpoints", "latest")["gpt_base"]
    assert len(list(rig.home_dir().glob("checkpoint_*.pt"))) == 1 and not newest["damaged"]
    hold.unlink()
    rig.wait_for("gpt_base", "DONE")
    last = fetched(rig, "--checkpoints", "all")["gpt_base"]
    assert last["verified"] and set(same(rig)) >= {"MANIFEST.json", "checkpoint_200.pt", ".oelm/end.json"}
    assert fetched(rig, "--checkpoints", "all")["gpt_base"]["new_files"] == 0
    assert fetched(rig, "--checkpoints", "none")["gpt_base"]["new_files"] == 0


def test_watching_fetches_checkpoints_as_they_are_made_until_all_is_done(rig: Rig, monkeypatch: Any) -> None:
    hold = held(rig.project.parent)
    rig.host.environment["TRAINER_HOLD"] = str(hold.parent)
    train(rig, pace="0.1", steps=120)
    program = "from oelm_jobs.cli import fetch; fetch.WATCH_S = 0.5; fetch.main()"
    words = [sys.executable, "-c", program, "--watch", "--checkpoints", "latest"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, cwd=rig.project, text=True, **pipes) as watching:
        assert watching.stdout is not None
        first = watching.stdout.readline()
        hold.unlink()
        rest, said = watching.communicate(timeout=300)
    assert watching.returncode == 0, said
    lines = [line for line in (first + rest).splitlines() if line.startswith("gpt_base")]
    assert len(lines) > 2 and "so far" in lines[0] and "so far" not in lines[-1], lines
    assert sync.verify(rig.home_dir()).damaged == ()


@pytest.fixture
def proxy(rig: Rig) -> Iterator[Proxy]:
    """A line to the host, by which it is target ``far``; steps take their time there."""
    made = Proxy(rig.host)
    rig.client.knows(rig.host, alias="far", HostName="127.0.0.1", Port=str(made.port))
    write_target(rig.project, "far", python=stand_in(rig.host))
    rig.restart(TRAINER_STEP_S="0.1")
    yield made
    made.close()


def test_watching_tells_once_of_what_is_over_and_survives_a_lost_connection_but_not_a_changed_key(
    rig: Rig, proxy: Proxy
) -> None:
    rig.target = "far"
    rig.submit("--group", "oelm_freeze", "--wait")
    rig.edit(("max_steps = 12", "max_steps = 100000"))
    rig.submit("--group", "gpt_base")
    rig.wait_for("gpt_base", "RUNNING")
    connections.close_all()
    program = "from oelm_jobs.cli import fetch; fetch.WATCH_S = 0.3; fetch.main()"
    words = [sys.executable, "-c", program, "--watch"]
    watching = subprocess.Popen(words, cwd=rig.project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert watching.stdout is not None and watching.stderr is not None
    told = [watching.stdout.readline() for _ in range(6)]
    assert sum(line.startswith("oelm_freeze") for line in told) == 1, told
    proxy.refuse = True
    proxy.cut()
    while "trying again" not in watching.stderr.readline():
        assert watching.poll() is None
    proxy.refuse = False
    told = [watching.stdout.readline() for _ in range(6)]
    assert told[-1].startswith("gpt_base"), "it came back by itself"
    lines = rig.client.known_hosts.read_text().splitlines()
    another = Path(f"{rig.client.key}.pub").read_text()
    rig.client.known_hosts.write_text("\n".join([lines[0], f"[127.0.0.1]:{proxy.port} {another}"]))
    proxy.cut()
    _, said = watching.communicate(timeout=300)
    assert watching.returncode == 3 and "HAS CHANGED" in said
    rig.client.known_hosts.write_text("\n".join(lines) + "\n")
    rig.oelm("cancel", "gpt_base")


def test_a_target_that_is_down_keeps_nobody_from_the_others(rig: Rig, proxy: Proxy) -> None:
    rig.edit(("max_steps = 12", "max_steps = 100000"))
    rig.oelm("submit", "--study", "tiny", "--target", "far", "--group", "gpt_base")
    rig.submit("--group", "oelm_freeze")
    for name in ("gpt_base", "oelm_freeze"):
        rig.wait_for(name, "RUNNING")
    connections.close_all()
    proxy.refuse = True
    proxy.cut()
    done = rig.oelm("fetch", "--json", check=False)
    answer = json.loads(done.stdout)
    assert done.returncode == 3 and [run["run"] for run in answer["runs"]] == ["oelm_freeze"]
    assert list(answer["unreachable"]) == ["far"] and "far" in done.stderr
    assert (rig.home_dir("oelm_freeze") / "training.log").exists()
    done = rig.oelm("cancel", "--all", "--yes", check=False)
    assert done.returncode == 3 and "oelm_freeze: cancelled" in done.stdout and "far" in done.stderr
    assert "gpt_base" not in done.stdout, "it was not asked"
    proxy.refuse = False
    assert rig.status()["gpt_base"]["state"] == "RUNNING" and rig.status()["oelm_freeze"]["state"] == "CANCELLED"
    assert "gpt_base: cancelled" in rig.oelm("cancel", "gpt_base").stdout


def test_what_is_damaged_is_named_and_never_gets_its_name(rig: Rig) -> None:
    train(rig)
    rig.wait_for("gpt_base", "DONE")
    victim = rig.run_dir() / "best_model.pt"
    content, times = bytearray(victim.read_bytes()), victim.stat()
    content[10] ^= 1
    victim.write_bytes(bytes(content))
    os.utime(victim, ns=(times.st_atime_ns, times.st_mtime_ns))  # same size, same time, other content
    run = fetched(rig, check=False)["gpt_base"]
    assert run["damaged"] == ["best_model.pt"] and not run["verified"]
    assert not (rig.home_dir() / "best_model.pt").exists()
    content[10] ^= 1
    victim.write_bytes(bytes(content))
    assert fetched(rig)["gpt_base"]["verified"]
    # Damage at home is found, too, and mended by fetching that file alone.
    (rig.home_dir() / "metrics.jsonl").write_text("{}\n")
    again = fetched(rig)["gpt_base"]
    assert again["verified"] and again["new_files"] == 1
    spoilt = rig.home_dir() / "best_model.pt"
    times = spoilt.stat()
    spoilt.write_bytes(bytes(content[:-1]) + b"?")
    os.utime(spoilt, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert fetched(rig)["gpt_base"]["new_files"] == 0, "it looks as it did"
    assert fetched(rig, "--verify")["gpt_base"]["new_files"] == 1, "hashed anew it does not"


def test_a_run_that_was_started_over_is_not_mixed_with_what_was_fetched_before(rig: Rig) -> None:
    train(rig, steps=20)
    rig.wait_for("gpt_base", "DONE")
    fetched(rig, "--checkpoints", "all")
    rig.edit(("max_steps = 20", "max_steps = 10"))
    rig.submit("--group", "gpt_base", "--rerun", "--yes", "--wait")
    done = rig.oelm("fetch", "--checkpoints", "all")
    assert "was started over" in done.stderr
    assert not list(rig.home_dir().glob("checkpoint_2*.pt")) and same(rig)
    assert len(list((rig.home_dir().parent / ".archive").iterdir())) == 1


def test_a_log_whose_beginning_has_changed_there_is_fetched_whole(rig: Rig) -> None:
    train(rig)
    rig.wait_for("gpt_base", "DONE")
    fetched(rig)
    log = rig.run_dir() / ".oelm" / "supervisor.log"
    log.write_text(f"cut off and written anew\n{log.read_text()}")
    assert fetched(rig)["gpt_base"]["damaged"] == []
    assert same(rig)


def test_a_run_that_was_trained_here_is_not_overwritten(rig: Rig) -> None:
    train(rig)
    rig.wait_for("gpt_base", "DONE")
    control = rig.home_dir() / ".oelm"
    control.mkdir(parents=True)
    (control / "run.json").write_text(json.dumps({"run_dir": str(rig.home_dir()), "fingerprint": "f" * 64}))
    refused = rig.oelm("fetch", check=False)
    assert refused.returncode == 3 and "was not fetched from box" in refused.stderr and "mv " in refused.stderr


def test_offline_folders_of_trackers_come_along(rig: Rig) -> None:
    train(rig, pace="0.05", steps=200)
    folder = rig.run_dir() / "wandb" / "offline-run-20240101_000000-abc"
    wait_until(lambda: rig.run_dir().exists(), "the run directory")
    folder.mkdir(parents=True)
    (folder / "run-abc.wandb").write_bytes(os.urandom(5000))
    (rig.run_dir() / "wandb" / "latest-run").symlink_to(folder.name)
    (rig.run_dir() / "wandb" / "debug.log").symlink_to("/etc/passwd")
    fetched(rig)
    home = rig.home_dir() / "wandb"
    assert (home / folder.name / "run-abc.wandb").stat().st_size == 5000
    assert not (home / "latest-run").exists() and not (home / "debug.log").exists(), "links are not followed"
    rig.wait_for("gpt_base", "DONE")
    assert fetched(rig)["gpt_base"]["verified"]


def test_a_folder_with_an_odd_name_is_fetched_into(rig: Rig, tmp_path: Path) -> None:
    train(rig)
    rig.wait_for("gpt_base", "DONE")
    odd = tmp_path / '云盘 it\'s "x": $(y)' / "project"
    odd.parent.mkdir()
    with Store() as store:
        (run,) = store.runs(rig.project)
    rig.project.rename(odd)
    (done,) = fetch.fetch(odd, [run], Silent(), checkpoints=Checkpoints.ALL)
    assert done.complete and (done.run_dir / "best_model.pt").exists() and odd in done.run_dir.parents
    connections.close_all()
    odd.rename(rig.project)


def test_a_full_disk_at_home_is_named_with_what_it_lacks_and_what_is_there_stays(rig: Rig) -> None:
    train(rig, size=3 << 20)
    rig.wait_for("gpt_base", "DONE")
    fetched(rig, "--checkpoints", "none")
    folder = rig.home_dir()
    elsewhere = folder.with_name("elsewhere")
    folder.rename(elsewhere)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder.parent)], check=True)
    try:
        full = rig.oelm("fetch", "--checkpoints", "all", check=False)
        assert full.returncode == 74 and "MB are to come" in full.stderr and "--checkpoints" in full.stderr
        assert not list(folder.rglob("*.pt"))
        assert fetched(rig, "--checkpoints", "best")["gpt_base"]["verified"], "this much has room"
    finally:
        subprocess.run(["umount", str(folder.parent)], check=True)
    elsewhere.rename(folder)
    assert fetched(rig, "--checkpoints", "all")["gpt_base"]["verified"]


def test_a_stopped_sender_is_given_up(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """rsync's own --timeout does not notice: the sender is there, it just does not move."""
    train(rig, size=1 << 20)
    rig.wait_for("gpt_base", "DONE")
    monkeypatch.setattr("oelm_jobs.transfer.rsync.IDLE_S", 1.5)
    monkeypatch.setattr(fetch, "TRIES", 1)
    stuck, real = rig.host.place / "stuck", rig.host.place / "real"
    shutil.copy("/usr/bin/rsync", real)
    # It greets, and is stuck before the first byte of a file: what has arrived would be gone on with.
    stuck.write_text(f'#!/bin/sh\n{real} "$@" | {{ head -c 40; sleep 600; }}\n')
    for path in (stuck, real):
        path.chmod(0o755)
    rig.host.inside("mount", "--bind", str(stuck), "/usr/bin/rsync")
    with Store() as store:
        runs = store.runs(rig.project)
    with pytest.raises(NotReached, match="nothing moved"):
        fetch.fetch(rig.project, runs, Silent(), checkpoints=Checkpoints.ALL)
    assert not list(rig.home_dir().glob("*.pt"))


# Servers that lie -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "../x", "/etc/passwd", "a/../../x", "", ".", "a//b", "./a", ".oelm/fetched.json", ".oelm/a/b", "a\0b", "a/..",
        ".git/config", "sub/.git/config", ".envrc", "sub/.envrc", "\u200c.git/config", ".g\u200cit/config",
        ".OELM/fetched.json", ".oelm/FETCHED.json", ".oelm/run.json/x", ".oelm/hashes.json",
    ],
)  # fmt: skip
def test_a_name_that_leads_out_of_the_run_directory_is_refused(name: str) -> None:
    with pytest.raises(TargetError, match="refused"):
        list(sync.items([{"name": name, "size": 1, "sha256": "0" * 64, "grows": False}]))


GOOD = {"name": "a", "size": 1, "sha256": "0" * 64, "grows": False}


def announced(row: dict[str, Any]) -> Any:
    """Return the answer of a target that announces a file, as far as it is believed."""
    held = {"state": "DONE", "reason": None, "files": [row], "left": [], "gone": [], "final": True, "origin": ""}
    request: Any = {"runs": [{"run_dir": "/r/exp_a", "have": {}}], "checkpoints": "none"}
    return believed("box", registry.INVENTORY, request, {"rsync": "", "runs": {"/r/exp_a": held}})


@pytest.mark.parametrize(
    "row",
    [{}, {"name": "a"}, {**GOOD, "size": "x"}, {**GOOD, "size": -1}, {**GOOD, "sha256": ""},
     {**GOOD, "content": "no base64!"}],
)  # fmt: skip
def test_a_file_that_is_not_described_as_agreed_is_refused(row: dict[str, Any]) -> None:
    assert [item.name for item in sync.items(announced(GOOD)["runs"]["/r/exp_a"]["files"])] == ["a"]
    with pytest.raises(TargetError):
        announced(row)


def test_a_file_that_is_announced_twice_is_refused() -> None:
    row = {"name": "a", "size": 1, "sha256": "0" * 64, "grows": False}
    with pytest.raises(TargetError, match="twice"):
        list(sync.items([row, {**row, "sha256": "1" * 64}]))


def test_a_source_outside_of_the_held_files_is_refused() -> None:
    for source in ("../x", "/etc/shadow", ".oelm/run.json", ".oelm/held/../../x"):
        with pytest.raises(TargetError, match="refused"):
            list(sync.items([{"name": "a.pt", "size": 1, "sha256": "0" * 64, "grows": False, "source": source}]))


def test_links_and_devices_are_not_taken_for_files(tmp_path: Path) -> None:
    needs("rsync", root=True)  # to make a device
    source, home = tmp_path / "there", tmp_path / "home" / "exp_a"
    source.mkdir()
    (source / "link.pt").symlink_to("/etc/passwd")
    os.mkfifo(source / "pipe.pt")
    os.mknod(source / "device.pt", 0o600 | 0o20000, os.makedev(1, 3))
    (source / "large.pt").write_bytes(b"x" * 1000)
    staging = Staging(tmp_path / "home", lambda text: None)
    arrivals = [
        staging.arrival(str(source), home, Item(name=name, size=5, sha256="0" * 64, grows=False))
        for name in ("link.pt", "pipe.pt", "device.pt", "large.pt")
    ]
    staging.transfer(arrivals, None, "", "", lambda size: None)
    assert not [arrival for arrival in arrivals if arrival.is_whole]
    assert not list((tmp_path / "home").rglob("link.pt")) and not list((tmp_path / "home").rglob("device.pt"))
    staged = arrivals[0].staged
    staged.symlink_to("/etc/passwd")
    with pytest.raises(TargetError, match="no plain file"):
        staging.arrival(str(source), home, arrivals[0].item)
    staging.close()


@pytest.mark.parametrize("grows", [False, True])
@pytest.mark.parametrize("name", ["n" * 255, "\u4e2d" * 85])
def test_a_file_of_the_longest_name_comes_home(tmp_path: Path, name: str, grows: bool) -> None:
    needs("rsync")
    source, home = tmp_path / "there", tmp_path / "home" / "exp_a"
    source.mkdir()
    (source / name).write_bytes(b"x" * 1000)
    digest = hashlib.sha256(b"x" * 1000).hexdigest()
    staging = Staging(tmp_path / "home", lambda text: None)
    if grows:
        home.mkdir()
        (home / name).write_bytes(b"x" * 500)
    arrival = staging.arrival(str(source), home, Item(name=name, size=1000, sha256=digest, grows=grows))
    staging.transfer([arrival], None, "", "", lambda size: None)
    place_arrival(arrival)
    staging.close()
    assert (home / name).read_bytes() == b"x" * 1000
    assert [path.name for path in staging.path.iterdir()] == ["lock"]


def test_what_grew_on_after_it_was_hashed_does_not_come_home(tmp_path: Path) -> None:
    needs("rsync")
    source, home = tmp_path / "there", tmp_path / "home" / "exp_a"
    source.mkdir()
    (source / "training.log").write_bytes(b"x" * 1000)
    staging = Staging(tmp_path / "home", lambda text: None)
    item = Item(name="training.log", size=1000, sha256=hashlib.sha256(b"x" * 1000).hexdigest(), grows=True)
    arrival = staging.arrival(str(source), home, item)
    staging.transfer([arrival], None, "", "", lambda size: None)
    assert arrival.is_whole
    with open(arrival.staged, "ab") as staged:
        staged.write(b"not looked at")
    place_arrival(arrival)
    staging.close()
    assert (home / "training.log").read_bytes() == b"x" * 1000


def test_a_name_that_no_disk_here_can_hold_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "exp_a").mkdir()
    staging = Staging(tmp_path, lambda text: None)
    item = Item(name="n" * 256, size=1, sha256="0" * 64, grows=False, content=b"x")
    with pytest.raises(TargetError, match="can't be a file's here"):
        staging.arrival("/there", tmp_path / "exp_a", item)
    named = replace(item, sha256=hashlib.sha256(b"x").hexdigest())
    with pytest.raises(TargetError, match="can't be a file's here"):
        sync.place_content(tmp_path / "exp_a", named)
    staging.close()


def test_a_remote_shell_is_handed_to_rsync_word_by_word() -> None:
    assert rsync.shell_argument(["ssh", "-o", "ControlPath=/a b/c"]) == 'ssh -o "ControlPath=/a b/c"'
    with pytest.raises(TargetError, match="double quote"):
        rsync.shell_argument(['a"b'])


# Making room ----------------------------------------------------------------------------------------------------------


def test_clean_removes_what_is_at_home_verified_and_says_how_much(rig: Rig) -> None:
    train(rig, "gpt_base", "oelm_freeze", size=500_000, steps=30)
    for name in ("gpt_base", "oelm_freeze"):
        rig.wait_for(name, "DONE")
    assert "was not fetched" in rig.oelm("clean", "--all", "--dry-run").stdout
    fetched(rig)
    assert "oelm-fetch --checkpoints all brings them" in rig.oelm("clean", "--all", "--dry-run").stdout
    fetched(rig, "--checkpoints", "all")
    spoilt = rig.home_dir("oelm_freeze") / "best_model.pt"
    spoilt.write_bytes(spoilt.read_bytes()[:-1] + b"?")
    unasked = rig.oelm("clean", "--all", check=False)
    assert unasked.returncode == 2 and "--yes" in unasked.stderr
    assert "gpt_base on box: best_model.pt, checkpoint_" in unasked.stdout, unasked.stdout
    assert len(list(rig.run_dir().glob("*.pt"))) == 3
    done = rig.oelm("clean", "--all", "--yes")
    assert "freed" in done.stdout and "best_model.pt" in done.stdout
    assert not list(rig.run_dir().glob("*.pt"))
    assert [path.name for path in rig.run_dir("oelm_freeze").glob("*.pt")] == ["best_model.pt"], "its copy is damaged"
    assert (rig.run_dir() / "training.log").exists() and rig.status()["gpt_base"]["state"] == "DONE"
    assert fetched(rig, "gpt_base", "--checkpoints", "all")["gpt_base"]["verified"], "nothing is missed"
    assert len(list(rig.home_dir().glob("*.pt"))) == 3
    assert "nothing to remove" in rig.oelm("clean", "gpt_base").stdout
    rig.edit(("max_steps = 30", "max_steps = 40"))
    refused = rig.oelm("submit", "--study", "tiny", "--group", "gpt_base", "--target", "box", "--extend", check=False)
    assert refused.returncode == 2 and "oelm-clean freed them" in refused.stderr
    assert (rig.run_dir() / "training.log").read_text().count("Started") == 1, "it does not start over in its folder"


def test_clean_leaves_what_a_run_needs_to_go_on(rig: Rig) -> None:
    train(rig, pace="0.05", steps=100000)
    wait_until(lambda: len(list(rig.run_dir().glob("checkpoint_*.pt"))) == 2, "two checkpoints")
    assert "is RUNNING" in rig.oelm("clean", "--all", "--yes").stdout
    rig.oelm("cancel", "gpt_base")
    fetched(rig, "--checkpoints", "all")
    newest = max(rig.run_dir().glob("checkpoint_*.pt"), key=lambda path: int(path.stem[11:]))
    rig.oelm("clean", "--all", "--yes")
    assert list(rig.run_dir().glob("*.pt")) == [newest]
    assert read(rig.run_dir() / "experiment_result.json")["status"] == "CANCELLED"


def test_a_disk_that_both_machines_see_holds_no_second_copy(rig: Rig) -> None:
    """A home folder of the laptop and the host alike: what was "fetched" is the run itself."""
    write_target(rig.project, "near", host="box", root=str(rig.project), python=stand_in(rig.host))
    rig.target = "near"
    rig.submit("--group", "gpt_base")
    rig.wait_for("gpt_base", "DONE")
    fetched(rig, "--checkpoints", "all")
    before = sorted(path.name for path in rig.home_dir().glob("*.pt"))
    done = rig.oelm("clean", "--all", "--yes")
    assert "it is the client's own copy" in done.stderr
    assert sorted(path.name for path in rig.home_dir().glob("*.pt")) == before != []

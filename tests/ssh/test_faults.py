"""What breaks between a laptop and its server: no run is lost, none is doubled, and the state says what happened."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs import connections
from oelm_jobs.cli import status
from oelm_jobs.cli import submit as command
from oelm_jobs.connections import fabric, process, wire
from tests.ssh.conftest import Rig, stand_in, stand_in_for_accounts, write_target
from tests.ssh.testbed import Account, Client, Host, Proxy
from tests.support import read, wait_until

REMOTE = {"fabric": fabric._FabricChannel, "openssh": process.SSHProcess}


def starts(rig: Rig, name: str = "gpt_base") -> int:
    """Return how often training was started in a run directory."""
    log = rig.run_dir(name) / "training.log"
    return log.read_text().count("devices") if log.exists() else 0


def slow(rig: Rig, steps: int = 100000, pace: str = "0.05") -> None:
    """Let training take long: a start of the host with another environment."""
    rig.edit(("max_steps = 12", f"max_steps = {steps}"))
    rig.restart(TRAINER_STEP_S=pace)


# The launch -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", REMOTE)
@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_a_line_cut_around_the_launch_neither_loses_nor_doubles_a_run(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], way: str, moment: str
) -> None:
    proxy = Proxy(rig.host)
    rig.client.knows(rig.host, alias="far", HostName="127.0.0.1", Port=str(proxy.port))
    write_target(rig.project, "far", python=stand_in(rig.host), connection=way)
    channel = REMOTE[way]
    real_converse, real_write = wire.converse, channel.write
    about = {"verb": ""}

    def converse(given: Any, verb: str, *words: Any, **more: Any) -> Any:
        about["verb"] = verb
        if verb == "launch" and moment == "before":
            proxy.refuse = True  # first: ssh without its master goes there by itself, at once
            proxy.cut()
        return real_converse(given, verb, *words, **more)

    def write(self: Any, data: bytes, idle_s: float) -> None:
        is_request = about["verb"] == "launch" and b'"token"' in data
        if is_request and moment == "during":
            real_write(self, data[: len(data) // 2], idle_s)
            time.sleep(0.5)
            proxy.cut()
            raise wire.Broken("cut in the middle")
        if is_request and moment == "after":
            proxy.held.clear()  # the answer never arrives
        real_write(self, data, idle_s)
        if is_request and moment == "after":
            wait_until(lambda: (rig.run_dir() / ".oelm" / "claim").exists(), "the launch to arrive")
            proxy.cut()
            proxy.held.set()

    monkeypatch.setattr("oelm_jobs.connections.remote.converse", converse)
    monkeypatch.setattr(channel, "write", write)
    monkeypatch.chdir(rig.project)
    with pytest.raises(SystemExit) as ended:
        command.main(["--study", "tiny", "--group", "gpt_base", "--target", "far"])
    assert ended.value.code == 3
    connections.close_all()
    proxy.refuse = False
    capsys.readouterr()
    with pytest.raises(SystemExit):  # in this process, which is the client whose answer is missing
        status.main(["--json"])
    (row,) = json.loads(capsys.readouterr().out)["runs"]
    if moment == "after":
        assert row["state"] in ("QUEUED", "RUNNING", "DONE")
    else:
        assert row["state"] == "FAILED" and row["reason"].startswith("not submitted")
        assert not rig.run_dir().exists()
    rig.oelm("submit", "--study", "tiny", "--group", "gpt_base", "--target", "far")
    rig.wait_for("gpt_base", "DONE")
    assert starts(rig) == 1 and len(read(rig.run_dir() / "experiment_result.json")["attempts"]) == 1
    proxy.close()


KILLED_AT = {
    "before the intent": "oelm_jobs.store.Store.intend",
    "before the code is sent": "oelm_jobs.connections.remote.RemoteConnection.keep_tree",
    "before the launch": "oelm_jobs.schedulers.leases.LeaseScheduler.submit",
    "before the answer is stored": "oelm_jobs.store.Store.answer",
}


def be_killed(rig: Rig, point: str) -> None:
    """Submit a run with a client that is killed at a point of KILLED_AT."""
    module, _, name = KILLED_AT[point].rpartition(".")
    module, _, owner = module.rpartition(".")
    program = (
        f"import os, signal, {module} as m\n"
        f"def die(*a, **k): os.kill(os.getpid(), signal.SIGKILL)\n"
        f"setattr(m.{owner}, {name!r}, die)\n"
        "from oelm_jobs.cli.submit import main\nmain(['--study', 'tiny', '--group', 'gpt_base', '--target', 'box'])"
    )
    killed = subprocess.run([sys.executable, "-c", program], cwd=rig.project, capture_output=True, timeout=300)
    assert killed.returncode == -signal.SIGKILL


@pytest.mark.parametrize("point", KILLED_AT)
def test_a_client_killed_at_any_point_neither_loses_nor_doubles_a_run(rig: Rig, point: str) -> None:
    be_killed(rig, point)
    rig.submit("--group", "gpt_base")
    rig.wait_for("gpt_base", "DONE")
    assert starts(rig) == 1 and len(read(rig.run_dir() / "experiment_result.json")["attempts"]) == 1


def test_a_launch_is_fenced_off_where_it_was_sent_even_if_the_targets_root_is_another_one_now(rig: Rig) -> None:
    be_killed(rig, "before the launch")
    targets_file = rig.project / "jobs" / "targets.toml"
    targets_file.write_text(targets_file.read_text().replace('root = "oelm"', 'root = "elsewhere"'))
    assert rig.wait_for("gpt_base", "FAILED")["reason"].startswith("not submitted")
    (fence,) = (rig.host.home() / "oelm" / ".oelm" / "submissions").iterdir()
    assert read(fence)["settled"], "should it arrive after all, it does nothing"
    assert not (rig.host.home() / "elsewhere" / ".oelm" / "submissions").exists()


def test_twenty_submissions_at_once_start_a_run_once(rig: Rig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ten commands of one laptop, ten of others that know nothing of each other."""
    rig.host.options = ["MaxStartups 100"]  # that some wait to be let in is another test's
    slow(rig)

    def submit(number: int) -> subprocess.CompletedProcess[str]:
        state = os.environ["OELM_STATE_DIR"] if number % 2 else str(tmp_path / f"laptop-{number}")
        words = [sys.executable, "-c", "from oelm_jobs.cli.submit import main; main()", "--study", "tiny"]
        return subprocess.run(
            [*words, "--group", "gpt_base", "--target", "box"], cwd=rig.project, capture_output=True, text=True,
            env={**os.environ, "OELM_STATE_DIR": state}, timeout=300, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    with ThreadPoolExecutor(20) as pool:
        done = list(pool.map(submit, range(20)))
    assert not [one.stderr for one in done if one.returncode], "everybody is told, nobody fails"
    assert sum("gpt_base: submitted to box" in one.stdout for one in done) == 1, [one.stdout for one in done]
    rig.wait_for("gpt_base", "RUNNING")
    wait_until(lambda: starts(rig), "training")
    assert starts(rig) == 1
    rig.oelm("cancel", "gpt_base")
    assert rig.host.inside("ps", "-ewwo", "args").count("trainer.py") == 0


# The server -----------------------------------------------------------------------------------------------------------


def test_a_reboot_is_named_and_submitting_again_resumes(rig: Rig) -> None:
    """The host is really switched off: every process is gone at once, and the boot id is another one."""
    slow(rig)
    rig.submit("--groups", "gpt_base,oelm_freeze")
    wait_until(lambda: list(rig.run_dir().glob("checkpoint_*.pt")), "a checkpoint")
    rig.host.stop()
    rig.host.set_boot_id()
    rig.host.start(rig.client.public_key)
    rows = rig.status()
    assert rows["gpt_base"]["state"] == "FAILED" and "reboot" in rows["gpt_base"]["reason"]
    assert rows["oelm_freeze"]["state"] == "FAILED" and "reboot" in rows["oelm_freeze"]["reason"], "it was waiting"
    rig.submit("--groups", "gpt_base,oelm_freeze")
    wait_until(lambda: "Resumed from" in (rig.run_dir() / "training.log").read_text(), "it to resume")
    assert rig.wait_for("gpt_base", "RUNNING")["progress"]["attempt"] == 2
    assert rig.status()["oelm_freeze"]["state"] == "QUEUED"
    waiting = read(rig.run_dir("oelm_freeze") / ".oelm" / "claim")["pid"]
    rig.host.inside("kill", "-KILL", str(waiting))
    assert "supervisor lost" in rig.wait_for("oelm_freeze", "FAILED")["reason"]
    assert "cancelled" in rig.oelm("cancel", "tiny", "--yes").stdout


def test_a_killed_supervisor_is_lost_its_survivors_are_ended_and_its_pid_protects_nobody(rig: Rig) -> None:
    slow(rig)
    rig.submit("--group", "gpt_base")
    wait_until(lambda: list(rig.run_dir().glob("checkpoint_*.pt")), "a checkpoint")
    pid = read(rig.run_dir() / ".oelm" / "claim")["pid"]
    rig.host.inside("kill", "-KILL", str(pid))
    row = rig.wait_for("gpt_base", "UNKNOWN")
    assert "processes live on" in row["reason"]
    # The kernel gives the pid to a process that has nothing to do with the run.
    impostor = (
        f"for i in 1 2 3 4 5; do echo {pid - 1} > /proc/sys/kernel/ns_last_pid; setsid sleep 601 >/dev/null 2>&1 &"
        f" [ $! = {pid} ] && exit 0; done; exit 1"
    )
    rig.host.inside("sh", "-c", impostor)
    wait_until(lambda: rig.host.inside("cat", f"/proc/{pid}/comm") == "sleep\n", "setsid to become sleep")
    assert rig.status()["gpt_base"]["state"] == "UNKNOWN"
    assert "cancelled" in rig.oelm("cancel", "gpt_base").stdout
    assert rig.host.inside("cat", f"/proc/{pid}/comm") == "sleep\n", "the impostor was not touched"
    assert rig.host.inside("ps", "-ewwo", "args").count("trainer.py") == 0
    rig.edit(("max_steps = 100000", "max_steps = 60"))
    rig.submit("--group", "gpt_base", check=False)
    assert rig.status()["gpt_base"]["state"] == "CANCELLED"


def test_cancel_frees_the_leases_and_ends_what_ignores_it(rig: Rig) -> None:
    rig.host.gpus = 2
    rig.host.show_gpus()
    slow(rig)
    stubborn = rig.host.place / "bin" / "python"
    trainer = stubborn.read_text()
    stubborn.write_text(trainer.replace("-S '", "-S -c 'import signal,time; signal.signal(signal.SIGTERM,"
                        " signal.SIG_IGN); time.sleep(600)' '"))  # fmt: skip
    rig.submit("--group", "gpt_base")
    wait_until(lambda: "SIG_IGN" in rig.host.inside("ps", "-ewwo", "args"), "a process that ignores SIGTERM")
    assert "cancelled" in rig.oelm("cancel", "gpt_base").stdout
    result = read(rig.run_dir() / "experiment_result.json")
    assert result["status"] == "CANCELLED"
    assert "SIG_IGN" not in rig.host.inside("ps", "-ewwo", "args")
    stubborn.write_text(trainer)
    rig.edit(("max_steps = 100000", "max_steps = 12"))
    rig.submit("--groups", "oelm_freeze", "--wait")
    assert not [name for name in os.listdir(rig.host.place / "leases") if name.startswith("lease-")]


def test_a_full_disk_is_refused_before_anything_is_queued(rig: Rig) -> None:
    rig.edit(("d_model = 16", "d_model = 512"))
    root = rig.host.home() / "oelm" / "models"
    root.mkdir()
    rig.host.inside("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(root))
    write_target(rig.project, "small", host="box", checkpoint_root=str(root), python=stand_in(rig.host))
    refused = rig.oelm("submit", "--study", "tiny", "--target", "small", check=False)
    assert refused.returncode == 2 and "GB free" in refused.stderr and "nothing was queued" in refused.stderr
    assert rig.status() == {}


# GPUs -----------------------------------------------------------------------------------------------------------------


def intervals(rig: Rig, names: list[str]) -> dict[str, list[tuple[float, float, str]]]:
    """Return by GPU when which run held it."""
    held: dict[str, list[tuple[float, float, str]]] = {}
    for name in names:
        for attempt in read(rig.run_dir(name) / "experiment_result.json")["attempts"]:
            for device in attempt["devices"]:
                held.setdefault(device, []).append((attempt["started_at"], attempt["ended_at"], name))
    return {device: sorted(rows) for device, rows in held.items()}


def test_a_run_for_four_gpus_is_not_starved_by_runs_for_two(rig: Rig) -> None:
    rig.host.gpus = 4
    rig.host.show_gpus()
    slow(rig, steps=20, pace="0.05")
    rig.edit(
        ('model_type = "gpt" }', 'model_type = "gpt", gpus = 2 }'),
        ("freeze_qk = true }", "freeze_qk = true, gpus = [0, 1, 2, 3] }"),
        ("[hypotheses]", '[unequal]\nworld_size = "the test"\n[hypotheses]'),
    )
    for seeds in ("42,43,44", "45,46"):
        rig.submit("--group", "gpt_base", "--seeds", seeds, "--mode", "parallel")
        if seeds == "42,43,44":
            rig.submit("--group", "oelm_freeze")
    names = ["gpt_base", *(f"gpt_base-s{seed}" for seed in (43, 44, 45, 46)), "oelm_freeze"]
    for name in names:
        rig.wait_for(name, "DONE")
    began = {name: read(rig.run_dir(name) / "experiment_result.json")["started_at"] for name in names}
    assert began["oelm_freeze"] < min(began["gpt_base-s45"], began["gpt_base-s46"]), "first come, first served"
    for rows in intervals(rig, names).values():
        assert all(earlier[1] <= later[0] for earlier, later in itertools.pairwise(rows)), rows
    log = (rig.run_dir("oelm_freeze") / "training.log").read_text()
    assert f"devices {','.join(f'GPU-box-{i}' for i in range(4))} ranks 4" in log


def test_gpus_that_others_compute_on_are_passed_over(rig: Rig) -> None:
    rig.host.gpus = 3
    rig.host.show_gpus(used_mb=[20000, 300, 3], percent=[0, 0, 90])
    rig.submit("--group", "gpt_base")
    rig.wait_for("gpt_base", "DONE")
    assert read(rig.run_dir() / "experiment_result.json")["attempts"][0]["devices"] == ["gpu:1"]
    rig.edit(("freeze_qk = true }", "freeze_qk = true, gpus = [0] }"))
    rig.submit("--group", "oelm_freeze")
    row = wait_until(
        lambda: row if "without a lease" in (row := rig.status()["oelm_freeze"])["reason"] else None, "why it waits"
    )
    assert row["state"] == "QUEUED" and row["progress"]["place"] == 1
    rig.oelm("cancel", "oelm_freeze")


def test_a_target_may_be_held_to_some_of_its_gpus(rig: Rig) -> None:
    rig.host.gpus = 4
    rig.host.show_gpus()
    write_target(rig.project, "half", host="box", python=stand_in(rig.host), gpus=[2, 3])
    rig.oelm("submit", "--study", "tiny", "--target", "half", "--mode", "parallel")
    for name in ("gpt_base", "oelm_no_freeze", "oelm_freeze"):
        rig.wait_for(name, "DONE")
    assert set(intervals(rig, ["gpt_base", "oelm_no_freeze", "oelm_freeze"])) <= {"gpu:2", "gpu:3"}
    rig.edit(("freeze_qk = true }", "freeze_qk = true, gpus = [0] }"))
    refused = rig.oelm("submit", "--study", "tiny", "--target", "half", "--rerun", "--yes", check=False)
    assert refused.returncode == 2 and "asks for GPU 0; half has GPUs 2, 3" in refused.stderr


def test_two_users_race_for_gpus_and_respect_each_other(
    client: Client, project: Path, oelm: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Two accounts with rights of their own on one host; neither can touch the other's files or processes."""
    with tempfile.TemporaryDirectory(prefix="oelm-two-users-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        host = Host(
            place=Path(folder) / "host", name="shared", gpus=4, environment={"TRAINER_STEP_S": "0.02"},
            accounts=[Account("alice", uid=21001), Account("bob", uid=21002)],
        )  # fmt: skip
        python = stand_in_for_accounts(host)
        host.start(client.public_key)
        try:
            text = (project / "jobs" / "tiny.toml").read_text()
            (project / "jobs" / "tiny.toml").write_text(
                text.replace("max_steps = 12", "max_steps = 20").replace('"gpt" }', '"gpt", gpus = 2 }')
            )
            client.knows(host, alias="shared")
            for user in ("alice", "bob"):
                write_target(project, user, host="shared", user=user, python=python)
                words = ("submit", "--study", "tiny", "--group", "gpt_base", "--mode", "parallel", "--target", user)
                oelm(*words, "--seeds", "42,43,44", "--tag", user, "--send-data")
            rig = Rig(host=host, client=client, project=project, oelm=oelm)
            wait_until(lambda: all(run["state"] == "DONE" for run in rig.status().values()), "all to be done")
            rows = list(rig.status().values())
            assert len(rows) == 6
            held: dict[str, list[tuple[float, float, str]]] = {}
            for run in rows:
                attempt = read(Path(run["run_dir"]) / "experiment_result.json")["attempts"][0]
                assert len(attempt["devices"]) == 2 and Path(run["run_dir"]).stat().st_uid in (21001, 21002)
                for device in attempt["devices"]:
                    held.setdefault(device, []).append((attempt["started_at"], attempt["ended_at"], run["name"]))
            for turns in held.values():
                turns.sort()
                assert all(a[1] <= b[0] for a, b in itertools.pairwise(turns)), turns
        finally:
            host.stop()

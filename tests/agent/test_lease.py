"""Devices of a plain host: first come first served, all or nothing, released by the kernel; processes race for real."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from oelm_jobs.agent.host import lease, lease_folder, tickets
from tests.support import end_all, launch_runs, make_run, needs, sleeping, stand_in_for_nvidia_smi, state, wait_until

HOLDER = """
import os, sys, time
from oelm_jobs.agent.host import lease, lease_folder, tickets
lease.FOREIGN_POLL_S = 0.5
request = eval(sys.argv[1])
held = lease.acquire(request, queued_at=float(sys.argv[2]), token=sys.argv[3], run=sys.argv[3],
                     run_dir=os.path.join(os.path.dirname(sys.argv[4]), sys.argv[3]),
                     tell=lambda text: print("says", text, flush=True))
print("has", ",".join(device.label for device in held.devices), flush=True)
with open(sys.argv[4], "a") as journal:
    for device in held.devices:
        journal.write(f"+{device.label} {sys.argv[3]}\\n")
    journal.flush()
    time.sleep(float(sys.argv[5]))
    for device in held.devices:
        journal.write(f"-{device.label} {sys.argv[3]}\\n")
    journal.flush()
held.release()
"""


@pytest.fixture
def four_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a stand-in nvidia-smi that answers from a file on PATH; return that file."""
    table = tmp_path / "gpus.csv"
    table.write_text("".join(f"{i}, GPU-uuid-{i}, NVIDIA RTX A5000, 24564, 12, 0\n" for i in range(4)))
    stand_in_for_nvidia_smi(tmp_path, monkeypatch, f"cat {table}")
    return table


class Holder:
    """A process that asks for devices and keeps them."""

    def __init__(self, tmp_path: Path, request: object, at: float, name: str, seconds: float = 600.0) -> None:
        self.output = tmp_path / f"{name}.out"
        with open(self.output, "wb") as out:
            at = at if at > 1e9 else time.time() - 600 + at
            argv = [sys.executable, "-c", HOLDER, repr(request), str(at), name, str(tmp_path / "journal"), str(seconds)]
            self.process = subprocess.Popen(argv, stdout=out, stderr=out)

    @property
    def devices(self) -> str:
        for line in self.output.read_text().splitlines():
            if line.startswith("has "):
                return line[4:]
        return ""

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def holders(tmp_path: Path):
    made: list[Holder] = []

    def make(*arguments: object, **options: float) -> Holder:
        made.append(Holder(tmp_path, *arguments, **options))
        return made[-1]

    yield make
    for holder in made:
        if holder.process.poll() is None:
            holder.kill()


@pytest.mark.slow
def test_exact_indices_and_counts_are_granted_all_or_nothing(four_gpus, holders) -> None:
    first = holders((1, 3), 1.0, "a")
    wait_until(lambda: first.devices, "a's GPUs")
    assert first.devices == "gpu:1,gpu:3"
    second = holders(3, 2.0, "b")
    wait_until(lambda: "waiting for 3 GPUs" in second.output.read_text(), "b to wait")
    third = holders(1, 3.0, "c")
    wait_until(lambda: "waiting behind b" in third.output.read_text(), "c to wait its turn")
    time.sleep(1.5)
    assert not second.devices and not third.devices, "two are free: too few for b, and c does not overtake it"
    first.kill()
    wait_until(lambda: len(second.devices.split(",")) == 3, "b's GPUs once the kernel released a's")
    wait_until(lambda: third.devices, "c's GPU")


def test_disjoint_exact_requests_do_not_wait_for_each_other(four_gpus, holders) -> None:
    first = holders((0, 1), 1.0, "a")
    wait_until(lambda: first.devices, "a's GPUs")
    holders((1, 2), 2.0, "b")
    last = holders((3,), 3.0, "c")
    wait_until(lambda: last.devices == "gpu:3", "c's GPU")


@pytest.mark.slow
def test_a_gpu_that_others_compute_on_is_passed_over(four_gpus, holders) -> None:
    lines = four_gpus.read_text().splitlines()
    lines[0] = "0, GPU-uuid-0, NVIDIA RTX A5000, 24564, 9000, 90"
    four_gpus.write_text("\n".join(lines) + "\n")
    holder = holders(2, 1.0, "a")
    wait_until(lambda: holder.devices == "gpu:1,gpu:2", "two that are free")
    pinned = holders((0,), 2.0, "b")
    wait_until(lambda: "in use without a lease: gpu:0" in pinned.output.read_text(), "b to say why it waits")


@pytest.mark.slow
def test_what_is_left_of_a_run_keeps_its_devices(four_gpus, holders, tmp_path: Path) -> None:
    lost = holders(4, 1.0, "a")
    wait_until(lambda: lost.devices, "a's GPUs")
    rank = subprocess.Popen(["sleep", "600"], env={"OELM_RUN_DIR": str(tmp_path / "a"), "PATH": os.environ["PATH"]})
    try:
        lost.kill()
        waiting = holders(1, 2.0, "b")
        wait_until(lambda: "gpu:0 is still used by what is left of a" in waiting.output.read_text(), "b to say why")
        again = holders(2, 3.0, "a")
        wait_until(lambda: "place 2" in again.output.read_text(), "a's new execution to stand behind b")
        assert not waiting.devices and not again.devices
        rank.kill()
        rank.wait()
        wait_until(lambda: waiting.devices and again.devices, "both")
    finally:
        rank.kill()


@pytest.mark.slow
def test_what_arrives_after_the_clock_was_set_back_stands_behind(four_gpus, holders, tmp_path: Path) -> None:
    in_an_hour = time.time() + 3600
    first = holders(4, in_an_hour, "a")
    wait_until(lambda: first.devices, "a's GPUs")
    holders(1, in_an_hour + 1, "b")
    wait_until(lambda: [ticket.run for ticket in tickets.waiting()] == ["b"], "b to wait")
    run = make_run(tmp_path, "c")
    try:
        launch_runs(tmp_path, [(run, sleeping())])
        wait_until(lambda: state(run)["reason"].startswith("waiting behind b of "), "c to stand behind b")
    finally:
        end_all(tmp_path)


def test_what_the_host_has_not_got_is_refused_at_once(four_gpus) -> None:
    with pytest.raises(lease.ImpossibleRequest, match="asks for GPU 7; this host has 0, 1, 2, 3"):
        lease.acquire((0, 7), queued_at=1.0, token="a", run="a", run_dir="/a")
    with pytest.raises(lease.ImpossibleRequest, match="asks for 5 GPUs; this host has 4"):
        lease.acquire(5, queued_at=1.0, token="a", run="a", run_dir="/a")


def test_the_table_shows_who_holds_what_and_who_waits(four_gpus, holders) -> None:
    first = holders((0, 1, 2, 3), 1.0, "a")
    wait_until(lambda: first.devices, "a's GPUs")
    second = holders(1, 2.0, "b")
    wait_until(lambda: "says" in second.output.read_text(), "b to wait")
    table = lease.table()
    assert [row["run"] for row in table["devices"]] == ["a"] * 4
    assert [ticket["run"] for ticket in table["queue"]] == ["b"]
    second.kill()
    assert lease.table()["queue"] == []


def test_a_lease_confines_a_process_to_its_devices(four_gpus) -> None:
    held = lease.acquire((1, 3), queued_at=1.0, token="a", run="a", run_dir="/a")
    assert held.environment() == {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "GPU-uuid-1,GPU-uuid-3",
        "OELM_LEASED_GPUS": "2",
    }
    held.release()
    held.release()
    assert lease.table()["devices"][1]["run"] == ""


def test_cpu_slots_are_leased_by_the_same_code() -> None:
    slots = len(os.sched_getaffinity(0))
    held = lease.acquire(tuple(range(slots)), queued_at=1.0, token="a", run="a", run_dir="/a")
    assert [device.label for device in held.devices] == [f"cpu:{i}" for i in range(slots)]
    assert held.environment()["OMP_NUM_THREADS"] == "1"
    held.release()


@pytest.mark.slow
def test_a_hundred_racing_processes_never_share_a_device(four_gpus, holders, tmp_path: Path) -> None:
    racers = [holders(1 + i % 3, 1.0 + i * 1e-3, f"r{i:03d}", seconds=0.01) for i in range(100)]
    for racer in racers:
        assert racer.process.wait(240) == 0, racer.output.read_text()
    owner: dict[str, str] = {}
    for line in (tmp_path / "journal").read_text().splitlines():
        device, name = line[1:].split()
        if line[0] == "+":
            assert device not in owner, f"{name} got {device} while {owner[device]} had it"
            owner[device] = name
        else:
            assert owner.pop(device) == name
    assert not owner


@pytest.mark.slow
def test_of_runs_that_start_at_the_same_moment_never_more_have_devices_than_max_parallel(
    four_gpus, holders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OELM_MAX_PARALLEL", "2")
    # Each asks for a GPU of its own kind, and who was queued last starts first.
    racers = [holders((i % 4,), 1.0 - i * 1e-3, f"r{i:03d}", seconds=0.05) for i in range(24)]
    for racer in racers:
        assert racer.process.wait(240) == 0, racer.output.read_text()
    having = 0
    lines = (tmp_path / "journal").read_text().splitlines()
    for line in lines:
        having += 1 if line[0] == "+" else -1
        assert having <= 2, lines
    assert len(lines) == 48


OTHER_USERS = """
import sys
sys.path.insert(0, sys.argv[1])
from agent.host import lease
held = lease.acquire((0, 1), queued_at=1.0, token="theirs", run="theirs", run_dir="/theirs")
print("has", [device.label for device in held.devices], flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_several_users_of_a_host_share_one_queue(four_gpus, monkeypatch: pytest.MonkeyPatch, holders) -> None:
    """Another user's locks hold for us, are seen by us, and are free when that user's process dies."""
    needs(root=True)  # to run a process as another user
    place = Path(tempfile.mkdtemp(dir="/tmp"))  # not below pytest's own folder, which is closed to others
    try:
        place.chmod(0o755)
        shutil.copytree(Path(lease.__file__).parents[1], place / "agent")
        (place / "bin").mkdir()
        (place / "bin" / "nvidia-smi").write_text(f"#!/bin/sh\ncat <<'X'\n{four_gpus.read_text()}X\n")
        (place / "bin" / "nvidia-smi").chmod(0o755)
        monkeypatch.setenv("OELM_LEASE_DIR", str(place / "leases"))
        lease_folder.folder()
        other = subprocess.Popen(
            ["/usr/bin/python3", "-c", OTHER_USERS, str(place)],
            user="nobody",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
            env={"OELM_LEASE_DIR": str(place / "leases"), "PATH": f"{place / 'bin'}:/usr/bin:/bin"},
        )
        assert other.stdout is not None and b"gpu:0" in other.stdout.readline()
        assert [(row["user"], row["run"]) for row in lease.table()["devices"]][:2] == [("nobody", "theirs")] * 2
        free = holders(2, 2.0, "ours")
        wait_until(lambda: free.devices == "gpu:2,gpu:3", "the two that are left")
        waiting = holders((1,), 3.0, "later")
        wait_until(lambda: "waiting for GPU 1" in waiting.output.read_text(), "the third to wait")
        other.kill()
        other.wait()
        wait_until(lambda: waiting.devices == "gpu:1", "what the kernel released")
    finally:
        shutil.rmtree(place)

"""A host that others use: whatever another user puts into the lease folder is passed over and named, and his locks,
tickets and full disks are told from one's own; with real other users.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from oelm_jobs.agent.host import lease, lease_folder, tickets
from tests.support import needs, wait_until

MALLORY, ALICE = "games", "daemon"
"""Two users that every system has: one who is in the way, one who wants to compute."""
PYTHON = "/usr/bin/python3"
"""The suite's own interpreter may lie where others can't go."""
RUN = """
import os, sys, time
sys.path.insert(0, os.environ["PLACE"])
from agent.host import devices, lease, lease_folder, tickets; from agent import rundir
lease.FOREIGN_POLL_S = 0.2
def say(text):
    print("says", text, flush=True)
def acquire(request, name="ours", at=None):
    held = lease.acquire(request, queued_at=time.time() if at is None else at, token=name, run=name,
                         run_dir="/" + name, say=say, tell=say)
    print("has", ",".join(device.label for device in held.devices), flush=True)
    return held
"""


class Shared:
    """A host with two GPUs, its lease folder, and what its users do."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.leases = place / "leases"
        self.processes: list[subprocess.Popen[str]] = []
        (place / "bin").mkdir()
        rows = "".join(f"{i}, GPU-uuid-{i}, NVIDIA RTX A5000, 24564, 12, 0\n" for i in range(2))
        (place / "bin" / "nvidia-smi").write_text(f"#!/bin/sh\ncat <<'X'\n{rows}X\n")
        (place / "bin" / "nvidia-smi").chmod(0o755)

    @property
    def environment(self) -> dict[str, str]:
        path = f"{self.place / 'bin'}:/usr/bin:/bin:/usr/sbin:/sbin"
        return {"OELM_LEASE_DIR": str(self.leases), "PLACE": str(self.place), "PATH": path}

    def start(self, user: str, program: str, *, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        """Let a user run a program that may use the agent."""
        output = open(self.place / f"output-{len(self.processes)}", "w+")  # noqa: SIM115
        process = subprocess.Popen(
            [*before, PYTHON, "-c", RUN + program],
            user=None if before else user,
            group=None if before else pwd.getpwnam(user).pw_gid,
            extra_groups=None if before else [],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            text=True,
            cwd="/",
            env=self.environment,
        )
        process.said = lambda: Path(output.name).read_text()
        self.processes.append(process)
        return process

    def by(self, user: str, program: str) -> str:
        """Let a user run a program to its end; return what it said."""
        process = self.start(user, program)
        process.communicate(timeout=300)
        return str(process.said())


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shared]:
    needs(root=True)  # to run processes as other users
    place = Path(tempfile.mkdtemp(dir="/tmp"))  # not below pytest's own folder, which is closed to others
    place.chmod(0o755)
    shutil.copytree(Path(lease.__file__).parents[1], place / "agent", ignore=shutil.ignore_patterns("__pycache__"))
    found = Shared(place)
    found.leases.mkdir()
    found.leases.chmod(0o1777)
    for name, value in found.environment.items():
        if name != "PATH":
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{place / 'bin'}:{os.environ['PATH']}")
    yield found
    for process in found.processes:
        process.kill()
        process.communicate()
    shutil.rmtree(place)


def said(process: subprocess.Popen[str]) -> str:
    return str(process.said())


# Junk -----------------------------------------------------------------------------------------------------------------

NAME = "ticket-TIME-junk-1.json"
"""TIME is when the test runs."""
GOOD = {
    "time": 987654321,
    "token": "junk",
    "request": 1,
    "user": "root",
    "run": "junk",
    "run_dir": "/junk",
    "devices": [],
}
JUNK: dict[str, str] = {
    "a FIFO": f"os.mkfifo({NAME!r})",
    "a link": f"os.symlink('/dev/zero', {NAME!r})",
    "a link to itself": f"os.symlink({NAME!r}, {NAME!r})",
    "a folder": f"os.mkdir({NAME!r})",
    "a socket": f"import socket; socket.socket(socket.AF_UNIX).bind({NAME!r})",
    "a closed file": f"open({NAME!r}, 'w').write('{{}}'); os.chmod({NAME!r}, 0o600)",
    "nothing": f"open({NAME!r}, 'w')",
    "a list": f"open({NAME!r}, 'w').write('[]')",
    "brackets": f"open({NAME!r}, 'w').write('[' * 60000)",
    "a large file": f"open({NAME!r}, 'w').truncate(1 << 40)",
    "no UTF-8": f"open({NAME!r}, 'wb').write(bytes([255, 254]) * 9)",
    **{
        f"{key} {value!r}"[:40]: f"open({NAME!r}, 'w').write({json.dumps({**GOOD, key: value})!r})"
        for key, value in (
            ("time", float("inf")),
            ("time", float("nan")),
            ("time", -float("inf")),
            ("time", "1.0"),
            ("time", None),
            ("request", float("inf")),
            ("request", [float("inf")]),
            ("request", 10**30),
            ("request", True),
            ("request", []),
            ("devices", {}),
            ("devices", [-1]),
            ("run", "a\x1b[2Jb"),
            ("run", 7),
            ("run_dir", "x" * 10000),
        )
    },
}
"""What can lie there under a ticket's name, and how it gets there."""


@pytest.mark.parametrize("what", JUNK)
def test_junk_called_like_a_ticket_stops_nobody_and_is_named_with_its_owner(shared: Shared, what: str) -> None:
    now = f"{time.time():.6f}"
    for kind in ("ticket", "lease"):
        make = JUNK[what].replace("ticket-", f"{kind}-").replace("TIME", now).replace("987654321", now)
        assert shared.by(MALLORY, f"os.chdir({str(shared.leases)!r})\n{make}") == ""
    words = shared.by(ALICE, "acquire(2)")
    assert "has gpu:0,gpu:1" in words, words
    for kind in ("ticket", "lease"):
        named = rf"passed over in {shared.leases}: {kind}-{now}-junk-1.json, a[ \w]+ of {MALLORY}"
        assert re.search(named, words, re.IGNORECASE), words
    assert len(lease.table()["junk"]) == 2 and "\x1b" not in str(lease.table())


def test_of_much_junk_some_is_named_and_the_rest_counted(shared: Shared) -> None:
    made = f"for i in range(70): open(os.path.join({str(shared.leases)!r}, 'ticket-%d.json' % i), 'w')"
    assert shared.by(MALLORY, made) == ""
    words = shared.by(ALICE, "acquire(1)")
    assert "has gpu:0" in words and words.count("passed over") == lease.MOST_JUNK + 1, words
    assert f"passed over in {shared.leases}: 50 files more" in words
    assert len(lease.table()["junk"]) == lease.MOST_JUNK + 1


@pytest.mark.parametrize(
    "make",
    ["os.symlink('/etc/passwd', name)", "open(name, 'w'); os.chmod(name, 0o600)", "os.mkdir(name, 0o700)"],
    ids=["link", "closed file", "closed folder"],
)
def test_a_lock_file_that_cant_be_locked_is_passed_over_with_its_device_and_named(shared: Shared, make: str) -> None:
    shared.by(MALLORY, f"name = {str(shared.leases / 'gpu-GPU-uuid-0.lock')!r}\n{make}")
    assert "has gpu:1" in shared.by(ALICE, "acquire(1)")
    exact = shared.start(ALICE, "acquire((0,))")
    wait_until(lambda: "waiting for GPU 0; gpu:0: " in said(exact), "why it waits")
    assert re.search(rf"gpu-GPU-uuid-0.lock, a (link|file|folder) of {MALLORY}", said(exact)), said(exact)
    shutil.rmtree(name) if (name := shared.leases / "gpu-GPU-uuid-0.lock").is_dir() else name.unlink()
    wait_until(lambda: "has gpu:0" in said(exact), "it to go on once that is gone")


@pytest.mark.parametrize("make", ["os.mkfifo(name, 0o644)", "os.mkdir(name, 0o755)"], ids=["FIFO", "folder"])
def test_a_lock_file_of_another_kind_locks_as_well(shared: Shared, make: str) -> None:
    shared.by(MALLORY, f"os.umask(0)\nname = {str(shared.leases / 'gpu-GPU-uuid-0.lock')!r}\n{make}")
    first = shared.start(ALICE, "acquire((0,), 'first'); sys.stdin.read()")
    wait_until(lambda: "has gpu:0" in said(first), "the first")
    second = shared.start(MALLORY, "acquire((0,), 'second')")
    wait_until(lambda: "waiting for GPU 0" in said(second), "the second to wait")
    assert "has" not in said(second).replace("has gpu:1", "")
    first.kill()
    wait_until(lambda: "has gpu:0" in said(second), "the second")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        ("os.symlink(PLACE + '/agent', path)", f"is a link that {MALLORY} made"),
        ("os.mkdir(path, 0o755)", f"belongs to {MALLORY} and is closed to you (mode 755)"),
        ("os.mkdir(path); os.chmod(path, 0o777)", f"of {MALLORY} is open to all and not sticky"),
        ("open(path, 'w')", f"is a file of {MALLORY}, not a folder"),
        ("os.mkfifo(path)", f"is a FIFO of {MALLORY}, not a folder"),
    ],
    ids=["link", "closed", "not sticky", "file", "FIFO"],
)
def test_a_folder_that_another_user_made_first_is_refused_with_his_name(shared: Shared, make: str, words: str) -> None:
    shared.leases.rmdir()
    shared.place.chmod(0o1777)
    shared.by(MALLORY, f"os.umask(0o022); PLACE = {str(shared.place)!r}; path = {str(shared.leases)!r}\n{make}")
    told = shared.by(ALICE, "acquire(1)")
    assert f"{shared.leases} {words}" in told and "let OELM_LEASE_DIR name another folder" in told, told


def test_a_folder_that_its_maker_keeps_looking_new_makes_nobody_wait_for_long(shared: Shared) -> None:
    shared.leases.chmod(0o755)
    os.chown(shared.leases, pwd.getpwnam(MALLORY).pw_uid, -1)
    touching = shared.start(MALLORY, f"while True: os.chmod({str(shared.leases)!r}, 0o755); time.sleep(0.1)")
    told = shared.by(ALICE, "acquire(1)")
    assert f"belongs to {MALLORY} and is closed to you" in told, told
    assert touching.poll() is None, "he was still at it"


def test_a_folder_that_another_user_made_well_is_used(shared: Shared) -> None:
    shared.leases.rmdir()
    shared.place.chmod(0o1777)
    shared.by(MALLORY, "os.umask(0o077)\nlease_folder.folder()")
    assert "has gpu:0" in shared.by(ALICE, "acquire(1)")


@pytest.mark.usefixtures("quick")
def test_a_lease_folder_that_cant_be_used_hides_no_runs(
    oelm, project: Path, shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OELM_STAND_IN_GPUS", "1")
    only = ("--study", "tiny", "--group", "gpt_base")
    oelm("submit", *only, "--wait")
    shutil.rmtree(shared.leases)
    shared.leases.write_text("")
    assert "DONE" in oelm("status").stdout
    shown = oelm("status", "--gpus").stdout
    assert "DONE" in shown and f"no devices: {shared.leases} is a file of root, not a folder" in shown, shown
    refused = oelm("submit", *only, "--tag", "again", check=False)
    assert refused.returncode != 0 and "is a file of root, not a folder" in refused.stderr, refused.stderr
    assert "is a file of root, not a folder" in oelm("doctor", check=False).stdout


# Tickets that claim too much ------------------------------------------------------------------------------------------

POSTS = """
handle, path = tickets.post(tickets.Ticket({time}, "m", {request}, "root", "m", {run_dir!r}, {devices}),
                            lease_folder.folder())
print("posted", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(
    "at", ["1.0", "0.0", "time.time() - 2 * tickets.EARLIEST_S", "time.time() + 2 * tickets.LATEST_S"]
)
def test_a_time_that_asking_could_not_give_makes_no_place_in_line(shared: Shared, at: str) -> None:
    false = shared.start(MALLORY, POSTS.format(time=at, request=1, run_dir="/m", devices=()))
    wait_until(lambda: "posted" in said(false), "the false ticket")
    assert "has gpu:0" in shared.by(ALICE, "acquire(1)")
    assert time.time() <= tickets.arrival(time.time()) < time.time() + 60, "nor does it push others back"


def test_a_ticket_that_asking_could_have_given_is_waited_for(shared: Shared) -> None:
    fair = shared.start(MALLORY, POSTS.format(time="time.time()", request=1, run_dir="/m", devices=()))
    wait_until(lambda: "posted" in said(fair), "the ticket")
    ours = shared.start(ALICE, "acquire(1)")
    wait_until(lambda: f"waiting behind m of {MALLORY} (place 2)" in said(ours), "us to queue, and his own name")
    fair.kill()
    wait_until(lambda: "has gpu:0" in said(ours), "our turn")


def test_names_alone_and_tickets_of_the_future_push_nobody_far_back(shared: Shared) -> None:
    soon = time.time() + tickets.LATEST_S - 60
    shared.by(MALLORY, f"open({str(shared.leases / f'ticket-{soon:.6f}-x-1.json')!r}, 'w')")
    assert tickets.arrival(time.time()) < time.time() + 60, "a name alone is no ticket"
    future = shared.start(MALLORY, POSTS.format(time=soon, request=1, run_dir="/m", devices=()))
    wait_until(lambda: "posted" in said(future), "the ticket")
    assert tickets.arrival(time.time()) <= time.time() + tickets.LATEST_S / 2
    assert "has gpu:0" in shared.by(ALICE, "acquire(1)")


def test_a_lease_counts_however_long_its_run_had_waited(shared: Shared) -> None:
    long_ago = f"time.time() - {10 * tickets.EARLIEST_S}"
    locks = f"device = lease_folder.lock(lease_folder.Path({str(shared.leases / 'gpu-GPU-uuid-0.lock')!r}))"
    served = shared.start(ALICE, locks + POSTS.format(time=long_ago, request=1, run_dir="/m", devices=(0,)))
    wait_until(lambda: "posted" in said(served), "the lease")
    table = lease.table()
    assert [(row["user"], row["run"]) for row in table["devices"]] == [(ALICE, "m"), ("", "")] and not table["junk"]


def test_a_lease_whose_lock_file_was_removed_keeps_its_device(shared: Shared) -> None:
    lock = shared.leases / "gpu-GPU-uuid-0.lock"
    shared.by(MALLORY, f"os.close(lease_folder.lock(lease_folder.Path({str(lock)!r})))")  # as the first to use it
    first = shared.start(ALICE, "acquire((0,), 'first'); sys.stdin.read()")
    wait_until(lambda: "has gpu:0" in said(first), "the first")
    shared.by(MALLORY, f"os.unlink({str(lock)!r})")
    assert "has gpu:1" in shared.by(ALICE, "acquire(1, 'other')")
    second = shared.start(MALLORY, "acquire((0,), 'second')")
    wait_until(lambda: f"gpu:0 is leased to first of {ALICE}, whose lock was removed" in said(second), "why it waits")
    assert [row["run"] for row in lease.table()["devices"]] == ["first", ""]
    first.kill()
    wait_until(lambda: "has gpu:0" in said(second), "the second once the first is over")


@pytest.mark.parametrize("sign", ["+", "-"])
def test_of_two_leases_that_of_who_has_the_lock_is_shown(shared: Shared, sign: str) -> None:
    true = shared.start(ALICE, "acquire(1, 'true'); sys.stdin.read()")
    wait_until(lambda: "has gpu:0" in said(true), "the true one")
    false = shared.start(MALLORY, POSTS.format(time=f"time.time() {sign} 60", request=1, run_dir="/m", devices=(0,)))
    wait_until(lambda: "posted" in said(false), "the false one")
    assert [(row["user"], row["run"]) for row in lease.table()["devices"]] == [(ALICE, "true"), ("", "")]


def test_a_lease_without_its_lock_is_waited_for_and_named_as_a_lock_is(shared: Shared) -> None:
    false = shared.start(MALLORY, POSTS.format(time="time.time()", request=1, run_dir="/m", devices=(0,)))
    wait_until(lambda: "posted" in said(false), "the false lease")
    exact = shared.start(ALICE, "acquire((0,))")
    wait_until(lambda: f"gpu:0 is leased to m of {MALLORY}, whose lock was removed" in said(exact), "his name")
    false.kill()
    wait_until(lambda: "has gpu:0" in said(exact), "it to go on")


def test_cpu_slots_and_gpus_of_one_host_have_leases_and_lines_of_their_own(shared: Shared) -> None:
    hidden = "os.environ['CUDA_VISIBLE_DEVICES'] = ''\n"
    slots = len(os.sched_getaffinity(0))
    on_cpu = shared.start(MALLORY, hidden + f"acquire({slots}, 'on-cpu'); sys.stdin.read()")
    wait_until(lambda: "has cpu:0" in said(on_cpu), "all slots")
    waiting = shared.start(MALLORY, hidden + "acquire(1, 'waits')")
    wait_until(lambda: "waiting for 1 CPU slot" in said(waiting), "one to wait for a slot")
    assert [row["run"] for row in lease.table()["devices"]] == ["", ""]
    assert "has gpu:0,gpu:1" in shared.by(ALICE, "acquire(2)")
    on_cpu.kill()
    wait_until(lambda: "has cpu:0" in said(waiting), "the slot")


def test_a_lease_of_an_older_version_counts(shared: Shared) -> None:
    """It does not say of which kind its devices are."""
    older = "asdict = tickets.asdict\ntickets.asdict = lambda of: {k: v for k, v in asdict(of).items() if k != 'of'}\n"
    held = shared.start(MALLORY, older + "acquire(1, 'older'); sys.stdin.read()")
    wait_until(lambda: "has gpu:0" in said(held), "the older version's")
    assert '"of"' not in next(shared.leases.glob("lease-*.json")).read_text()
    assert [(row["user"], row["run"]) for row in lease.table()["devices"]] == [(MALLORY, "older"), ("", "")]
    assert "has gpu:1" in shared.by(ALICE, "acquire(1)")


@pytest.mark.parametrize("devices", [(), (0,)], ids=["ticket", "lease"])
def test_a_dead_ticket_that_another_user_locks_stays_dead(shared: Shared, devices: tuple[int, ...]) -> None:
    ours = shared.start(ALICE, POSTS.format(time="time.time()", request=1, run_dir="/m", devices=devices))
    wait_until(lambda: "posted" in said(ours), "our ticket")
    (path,) = map(str, shared.leases.glob("*-m-*.json"))
    taking = f"import fcntl\nhandle = open({path!r})\nfcntl.flock(handle, fcntl.LOCK_EX)\nprint('taken', flush=True)\n"
    false = shared.start(MALLORY, taking + "sys.stdin.read()")
    ours.kill()
    wait_until(lambda: "taken" in said(false), "the lock of what is dead")
    assert not tickets.waiting() and [row["run"] for row in lease.table()["devices"]] == ["", ""]
    assert "has gpu:0,gpu:1" in shared.by(ALICE, "acquire(2)")


def test_a_dead_lease_in_the_name_of_somebody_elses_run_is_none(shared: Shared) -> None:
    environment = {**shared.environment, "OELM_RUN_DIR": "/ours"}
    ours = subprocess.Popen(
        ["sleep", "600"], user=ALICE, group=pwd.getpwnam(ALICE).pw_gid, extra_groups=[], env=environment
    )
    try:
        false = shared.start(MALLORY, POSTS.format(time="time.time()", request=2, run_dir="/ours", devices=(0, 1)))
        wait_until(lambda: "posted" in said(false), "the false lease")
        false.send_signal(signal.SIGKILL)
        false.wait()
        assert "has gpu:0,gpu:1" in shared.by(ALICE, "acquire(2, 'other')")
    finally:
        ours.kill()
        ours.wait()


def test_somebody_elses_ticket_for_ones_own_run_is_not_taken_for_its_place(shared: Shared) -> None:
    from oelm_jobs.agent import probe

    false = shared.start(MALLORY, POSTS.format(time="time.time()", request=1, run_dir="/ours", devices=()))
    wait_until(lambda: "posted" in said(false), "the false ticket")
    assert [ticket.user for ticket in tickets.waiting()] == [MALLORY]
    assert probe._line() == {}


# Who has it -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
def test_a_lock_held_without_a_ticket_is_shown_with_its_holder(
    oelm, project: Path, shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shared.leases / "gpu-GPU-uuid-0.lock"
    silent = shared.start(MALLORY, f"lease_folder.lock(lease_folder.Path({str(path)!r})); print('held', flush=True)\n"
                          "sys.stdin.read()")  # fmt: skip
    wait_until(lambda: "held" in said(silent), "the lock")
    holder = lease.table()["devices"][0]["holder"]
    assert holder.startswith(f"process {silent.pid} of {MALLORY} ({PYTHON} -c"), holder
    waiting = shared.start(ALICE, "acquire((0,))")
    wait_until(
        lambda: f"gpu:0 is locked without a ticket by process {silent.pid} of {MALLORY}" in said(waiting), "the name"
    )
    waiting.kill()  # the next one would stand behind it
    monkeypatch.setenv("OELM_STAND_IN_GPUS", "1")
    oelm("submit", "--study", "tiny", "--group", "gpt_base", "--wait")
    assert f"without a ticket: process {silent.pid} of {MALLORY}" in oelm("status", "--gpus").stdout
    assert f"gpu:0 without a ticket by process {silent.pid}" in oelm("doctor", check=False).stdout


def test_a_shared_lock_is_not_free_either(shared: Shared) -> None:
    path = shared.leases / "gpu-GPU-uuid-0.lock"
    shares = f"import fcntl\nhandle = open({str(path)!r}, 'w')\nfcntl.flock(handle, fcntl.LOCK_SH)\n"
    silent = shared.start(MALLORY, shares + "print('held', flush=True)\nsys.stdin.read()")
    wait_until(lambda: "held" in said(silent), "the lock")
    assert lease.table()["devices"][0]["holder"].startswith(f"process {silent.pid} of {MALLORY}")
    waiting = shared.start(ALICE, "acquire((0,))")
    wait_until(lambda: f"locked without a ticket by process {silent.pid} of {MALLORY}" in said(waiting), "the name")


# The disk under it ----------------------------------------------------------------------------------------------------


def in_a_namespace(shared: Shared, mounts: str, program: str, user: str = "root") -> subprocess.Popen[str]:
    """Start a program that uses the agent where other things are mounted."""
    lowered = f"exec setpriv --reuid={user} --regid={user} --clear-groups -- " if user != "root" else "exec "
    words = ("unshare", "--mount", "sh", "-c", f'{mounts} && {lowered}"$@"', "sh")
    return shared.start("root", program, before=words)


@pytest.mark.parametrize("limit", ["size=16k", "size=1m,nr_inodes=9"], ids=["bytes", "inodes"])
def test_a_full_disk_under_the_folder_is_named_and_waited_out(shared: Shared, limit: str) -> None:
    folder = shared.leases
    fill = f"i=0; while touch {folder}/x$i 2>/dev/null && head -c 4096 /dev/zero > {folder}/x$i; do i=$((i+1)); done"
    full = f"mount -t tmpfs -o mode=1777,{limit} none {folder} && {{ {fill}; true; }} 2>/dev/null"
    go = shared.place / "go"
    clear = f"""
import threading
def clear():
    while not os.path.exists({str(go)!r}):
        time.sleep(0.05)
    for name in os.listdir({str(folder)!r}):
        if name.startswith("x"):
            os.unlink(os.path.join({str(folder)!r}, name))
threading.Thread(target=clear).start()
acquire(1)
"""
    process = in_a_namespace(shared, full, clear)
    wait_until(lambda: f"{folder} can't be written: No space left on device" in said(process), said(process) or "words")
    assert "has" not in said(process)
    go.touch()
    wait_until(lambda: "has gpu:0" in said(process), "the lease once there is room")


PRIVACY = "print(lease_folder.privacy(lease_folder.folder()))"


@pytest.mark.parametrize("user", ["root", ALICE])
@pytest.mark.parametrize("instance", ["tmp-inst/daemon", "systemd-private-0123-x.service-9/tmp"])
def test_a_tmp_of_ones_own_is_found_out(shared: Shared, user: str, instance: str) -> None:
    own = shared.place / instance
    own.mkdir(parents=True)
    own.chmod(0o1777)
    place = shared.place / "tmp"
    place.mkdir()
    shared.leases = place / "oelm-leases"
    process = in_a_namespace(shared, f"mount --bind {own} {place}", PRIVACY, user)
    process.communicate(timeout=300)
    assert f"{place} is mounted for you alone" in said(process)


@pytest.mark.parametrize("user", ["root", ALICE])
def test_a_tmpfs_that_a_session_mounts_for_itself_is_found_out(shared: Shared, user: str) -> None:
    place = shared.place / "tmp"
    place.mkdir()
    shared.leases = place / "oelm-leases"
    process = in_a_namespace(shared, f"mount -t tmpfs -o mode=1777 none {place}", PRIVACY, user)
    process.communicate(timeout=300)
    assert f"{place} is mounted for you alone (tmpfs)" in said(process)


USER = pwd.getpwuid(os.geteuid()).pw_name
ROOT = "25 1 8:1 / / rw - ext4 /dev/sda rw\n"
SLAVE = "25 1 8:1 / / rw master:1 - ext4 /dev/sda rw\n"


@pytest.mark.parametrize(
    ("table", "is_private"),
    [
        (ROOT, False),
        (ROOT + "30 25 8:2 / /tmp rw shared:5 - ext4 /dev/sdb rw\n", False),  # a disk of its own, for all
        (ROOT + "30 25 8:1 /scratch/tmp /tmp rw shared:5 - ext4 /dev/sda rw\n", False),
        (SLAVE + "30 25 0:40 / /tmp rw master:5 - tmpfs none rw\n", False),  # a service that sees everybody's
        (SLAVE + "30 25 0:40 / /tmp rw - tmpfs none rw\n", True),
        (SLAVE + "30 25 8:1 /tmp/systemd-private-01-x.service-9/tmp /tmp rw - ext4 /dev/sda rw\n", True),
        (ROOT + "30 25 8:1 /tmp-inst/root /tmp rw - ext4 /dev/sda rw\n", True),
        (ROOT + f"30 25 8:1 /scratch/my\\040tmp/{USER} /tmp rw - ext4 /dev/sda rw\n", True),
        (ROOT + "short\n", False),
    ],
    ids=["no mount", "disk", "bind", "slave", "tmpfs", "PrivateTmp", "pam_namespace", "by user", "nonsense"],
)
def test_where_everybodys_mounts_cant_be_read_ones_own_tell(tmp_path: Path, table: str, is_private: bool) -> None:
    (tmp_path / "mountinfo").write_text(table)
    found = lease_folder.privacy(Path("/tmp/oelm-leases"), str(tmp_path / "mountinfo"), "/nowhere")
    assert found.startswith("/tmp is mounted for you alone" if is_private else "") and bool(found) == is_private


@pytest.mark.parametrize("user", ["root", ALICE])
def test_a_tmp_that_all_share_is_none_of_ones_own(shared: Shared, user: str) -> None:
    assert shared.by(user, PRIVACY).strip() == ""


def test_doctor_says_what_is_wrong_with_the_folder(
    oelm, project: Path, shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared.by(MALLORY, f"os.mkfifo({str(shared.leases / NAME)!r})")
    assert f"passed over in {shared.leases}: {NAME}, a FIFO of {MALLORY}" in oelm("doctor", check=False).stdout
    own = shared.place / "tmp-inst"
    own.mkdir(mode=0o1777)
    program = "from oelm_jobs.cli.doctor import main; main()"
    mounts = f"mount -t tmpfs -o size=64k,mode=1777 none {own} && mount --bind {own} {shared.leases}"
    words = ["unshare", "--mount", "sh", "-c", f'{mounts} && exec "$@"', "sh", sys.executable, "-c", program]
    done = subprocess.run(words, cwd=project, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    assert f"other users' leases are not seen: {shared.leases} is mounted for you alone" in done.stdout, done.stdout
    assert re.search(rf"{shared.leases}: 0\.\d MB and \d+ files are left", done.stdout), done.stdout

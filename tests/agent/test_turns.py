"""Users of a host take turns; limits, preferences and shared GPUs of a target; with real other users."""

from __future__ import annotations

import itertools
import os
import pwd
import subprocess

from oelm_jobs.agent.host import lease, tickets
from tests.agent import test_shared_host
from tests.agent.test_shared_host import ALICE, MALLORY, Shared, said
from tests.support import wait_until

shared = test_shared_host.shared


ASK = """
os.environ.update({environment!r})
held = lease.acquire({request!r}, queued_at=time.time() - {ago}, token={name!r}, run={name!r}, run_dir="/" + {name!r},
                     is_late={late}, say=say, tell=say)
print("has", ",".join(device.label for device in held.devices), flush=True)
sys.stdin.readline()
"""


def asks(
    shared: Shared, user: str, name: str, request: object = 2, *, ago: float = 0, late: bool = False, **environment: str
) -> subprocess.Popen[str]:
    """Let a user ask for devices and keep them until ``ends``; return the process once it has them or says why not."""
    process = shared.start(user, ASK.format(environment=environment, request=request, name=name, ago=ago, late=late))
    wait_until(lambda: "has " in said(process) or "says " in said(process), f"{name} to have devices or wait")
    return process


def ends(process: subprocess.Popen[str]) -> None:
    process.communicate("\n", timeout=60)


def has(process: subprocess.Popen[str]) -> str:
    return said(process).rpartition("has ")[2].strip() if "has " in said(process) else ""


def test_users_who_wait_take_turns(shared: Shared) -> None:
    alices = [asks(shared, ALICE, f"a{number}") for number in range(4)]
    mallorys = [asks(shared, MALLORY, f"m{number}") for number in range(2)]
    assert [ticket.run for ticket in tickets.waiting()] == ["a1", "m0"], "of each user's runs one stands in line"
    assert "waiting behind a1 of daemon (place 2)" in said(alices[2])
    assert "waiting behind m0 of games (place 2)" in said(mallorys[1])
    order = [alices[0], alices[1], mallorys[0], alices[2], mallorys[1], alices[3]]
    for served, after in itertools.pairwise(order):
        assert has(served) and not has(after)
        ends(served)
        wait_until(lambda after=after: has(after), "the next one in turn")
    assert os.listdir(shared.leases / f"own-{pwd.getpwnam(ALICE).pw_uid}") == []


def test_among_ones_own_runs_the_one_that_was_queued_first_goes_first_however_long_ago(shared: Shared) -> None:
    first = asks(shared, MALLORY, "m0")
    standing = asks(shared, ALICE, "standing", ago=10)
    behind = asks(shared, ALICE, "behind", ago=5)
    early = asks(shared, ALICE, "early", ago=86400, late=True)  # its keeper has only just started it
    for served, after in itertools.pairwise([first, standing, early, behind]):
        assert has(served) and not has(after)
        ends(served)
        wait_until(lambda after=after: has(after), "the next one in turn")


def test_a_folder_that_another_user_made_in_the_way_keeps_nobody_from_devices(shared: Shared) -> None:
    uid = pwd.getpwnam(ALICE).pw_uid
    shared.by(MALLORY, f"os.mkdir({str(shared.leases / f'own-{uid}')!r}, 0o777)")
    assert has(asks(shared, ALICE, "a0")) == "gpu:0,gpu:1"


def test_max_parallel_leaves_devices_to_others(shared: Shared) -> None:
    limit = {"OELM_MAX_PARALLEL": "1"}
    first = asks(shared, ALICE, "a0", 1, **limit)
    second = asks(shared, ALICE, "a1", 1, **limit)
    assert "waiting until fewer than 1 runs of yours have devices here (max_parallel)" in said(second)
    others = asks(shared, MALLORY, "m0", 1, **limit)
    assert (has(first), has(others), has(second)) == ("gpu:0", "gpu:1", "")
    ends(first)
    wait_until(lambda: has(second) == "gpu:0", "the second run once the first is over")


def test_max_parallel_holds_where_two_own_runs_come_first_at_the_same_moment(shared: Shared) -> None:
    smi, go = shared.place / "bin" / "nvidia-smi", shared.place / "go"
    # The first one is at the devices, and has counted no lease, for as long as nvidia-smi takes.
    in_line = f'[ "$SLOW" ] && ls {shared.leases}/ticket-* >/dev/null 2>&1'
    wait = f"while {in_line} && ! [ -e {go} ]; do sleep .05; done"
    smi.write_text(smi.read_text().replace("cat", wait + "\ncat", 1))
    limit = {"OELM_MAX_PARALLEL": "1"}
    slow = {**limit, "SLOW": "1"}
    late = shared.start(ALICE, ASK.format(environment=slow, request=(0,), name="late", ago=0, late=False))
    wait_until(tickets.waiting, "it to be first")
    early = asks(shared, ALICE, "early", (1,), ago=60, **limit)
    assert has(early) == "gpu:1"
    go.touch()
    words = "says waiting until fewer than 1 runs of yours have devices here (max_parallel)"
    wait_until(lambda: words in said(late) or has(late), "the limit to count")
    assert not has(late)
    assert [row["run"] for row in lease.table()["devices"]] == ["", "early"]
    ends(early)
    wait_until(lambda: has(late) == "gpu:0", "the second once the first is over")


def test_a_target_prefers_gpus_and_avoids_some(shared: Shared) -> None:
    preferred = asks(shared, ALICE, "a0", 1, OELM_PREFERRED_GPUS="1")
    assert has(preferred) == "gpu:1"
    ends(preferred)
    assert has(asks(shared, ALICE, "a1", 2, OELM_PREFERRED_GPUS="1")) == "gpu:0,gpu:1"
    refused = shared.by(ALICE, "os.environ['OELM_AVOIDED_GPUS'] = '0'\nacquire(2)")
    assert "asks for 2 GPUs; this host has 1 (held to avoid of the target=0)" in refused


def test_as_many_runs_share_a_gpu_as_the_target_says(shared: Shared) -> None:
    two = {"OELM_PER_GPU": "2"}
    sharing = [asks(shared, ALICE, f"a{number}", 1, **two) for number in range(2)]
    # What the first ones use of them is no stranger's.
    smi = shared.place / "bin" / "nvidia-smi"
    smi.write_text(smi.read_text().replace(" 12, 0", " 9000, 90"))
    sharing += [asks(shared, (ALICE, MALLORY)[number % 2], f"a{number}", 1, **two) for number in range(2, 5)]
    assert [has(process) for process in sharing] == ["gpu:0", "gpu:1", "gpu:0", "gpu:1", ""]
    rows = lease.table()["devices"]
    assert [sorted(row["run"].split(", ")) for row in rows] == [["a0", "a2"], ["a1", "a3"]]
    assert sorted(rows[1]["user"].split(", ")) == [ALICE, MALLORY]
    ends(sharing[0])
    wait_until(lambda: has(sharing[4]) == "gpu:0", "the fifth in the place of the first")


def test_who_wants_a_gpu_alone_and_who_shares_one_keep_each_other_away(shared: Shared) -> None:
    first = asks(shared, ALICE, "shares", 1, OELM_PER_GPU="2")
    alone = asks(shared, MALLORY, "alone", 2)
    assert has(first) == "gpu:0" and not has(alone)
    ends(first)
    wait_until(lambda: has(alone) == "gpu:0,gpu:1", "both GPUs")
    later = asks(shared, ALICE, "later", 1, OELM_PER_GPU="2")
    assert not has(later)
    ends(alone)
    wait_until(lambda: has(later), "a GPU to share")


def test_what_is_left_of_a_run_shares_its_gpu_with_nobody(shared: Shared) -> None:
    lost = asks(shared, ALICE, "lost", (0,), OELM_PER_GPU="2")
    left = "import subprocess\nsubprocess.Popen(['sleep', '600'], env={'OELM_RUN_DIR': '/lost'})"
    shared.by(ALICE, left)
    lost.kill()
    lost.wait()
    other = asks(shared, ALICE, "other", (0,), OELM_PER_GPU="2")
    try:
        assert "gpu:0 is still used by what is left of lost of daemon" in said(other)
    finally:
        shared.by(ALICE, "from agent import processes\nprocesses.send(processes.of_run('/lost'), 9)")

"""Faults of real training: a rank, torchrun and the client are killed, the disk is full, the set-up is broken."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs.agent import processes
from tests.support import after_each_step, end_all, random_moment, read, stand_in_for_python, wait_until

pytestmark = pytest.mark.slow

TWO_RANKS = [('label = "Group A: GPT-Base", ', 'label = "Group A: GPT-Base", gpus = 2, ')]


def lengthen(project: Path, *changes: tuple[str, str]) -> None:
    """Let runs go on for long, without a hurry that takes the processors from others; change more of the study."""
    path = project / "jobs" / "tiny.toml"
    for old, new in (("max_steps = 12", "max_steps = 100000"), *changes):
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
    after_each_step(project, "time.sleep(0.02)")


def run_dir(project: Path) -> Path:
    return project / "models" / "checkpoints" / "tiny" / "exp_gpt_base"


def status(oelm) -> dict:
    return json.loads(oelm("status", "--json").stdout)["runs"][0]


def pids_of(project: Path, word: str) -> list[int]:
    """Return the run's processes whose command line has ``word``, trainers before others."""
    found = []
    for identity in processes.of_run(run_dir(project)):
        argv: list[bytes] = []
        with contextlib.suppress(OSError):  # it has gone
            argv = Path(f"/proc/{identity.pid}/cmdline").read_bytes().split(b"\0")
        if (b"torch.distributed.run" in argv) == (word == "torchrun") and b"train" in argv:
            found.append(identity.pid)
    return found


@pytest.fixture(autouse=True)
def two_cores() -> None:
    assert len(os.sched_getaffinity(0)) >= 2, "runs of two ranks need two CPU slots: give these tests two cores"


def started(oelm, project: Path) -> None:
    oelm("submit", "--study", "tiny", "--group", "gpt_base")
    wait_until(lambda: list(run_dir(project).glob("checkpoint_*.pt")), "a first checkpoint", 180)


def test_a_process_alone_that_is_killed_is_told_by_its_signal(oelm, project: Path) -> None:
    lengthen(project)
    started(oelm, project)
    (rank,) = pids_of(project, "rank")
    os.kill(rank, signal.SIGKILL)
    row = wait_until(lambda: row if (row := status(oelm))["state"] == "FAILED" else None, "its end")
    assert "SIGKILL" in row["reason"]


@pytest.mark.parametrize("victim", ["rank", "torchrun"])
def test_a_killed_process_fails_its_attempt_and_the_next_one_resumes(oelm, project: Path, victim: str) -> None:
    lengthen(project, *TWO_RANKS, ("max_retries = 0", "max_retries = 1"))
    started(oelm, project)
    ranks = pids_of(project, "rank")
    assert len(ranks) == 2
    random_moment()
    os.kill(ranks[1] if victim == "rank" else pids_of(project, "torchrun")[0], signal.SIGKILL)
    wait_until(lambda: status(oelm)["progress"].get("attempt") == 2, "the second attempt")
    assert all(processes.start_time_of(pid) == "" for pid in ranks), "no rank of the first attempt is left"
    wait_until(lambda: "Resum" in (run_dir(project) / "training.log").read_text(), "it to resume")
    os.kill(pids_of(project, "rank")[0], signal.SIGKILL)
    row = wait_until(lambda: row if (row := status(oelm))["state"] == "FAILED" else None, "the end of the budget")
    attempts = read(run_dir(project) / "experiment_result.json")["attempts"]
    assert [a["state"] for a in attempts] == ["FAILED", "FAILED"] and all(a["reason"] for a in attempts)
    assert row["reason"] == attempts[-1]["reason"]


def test_a_killed_supervisor_frees_the_devices_and_submitting_again_resumes(oelm, project: Path) -> None:
    lengthen(project)
    started(oelm, project)
    ranks = pids_of(project, "rank")
    claim = processes.Identity.from_json(read(run_dir(project) / ".oelm" / "claim"))
    assert claim is not None
    random_moment()
    os.kill(claim.pid, signal.SIGKILL)
    assert status(oelm)["state"] == "UNKNOWN"
    for pid in [*pids_of(project, "torchrun"), *ranks]:
        os.kill(pid, signal.SIGKILL)
    row = wait_until(lambda: row if (row := status(oelm))["state"] == "FAILED" else None, "the truth")
    assert "supervisor lost" in row["reason"]
    oelm("submit", "--study", "tiny", "--group", "gpt_base")
    wait_until(lambda: status(oelm)["progress"].get("attempt") == 2, "the second attempt")


def test_a_run_of_which_nobody_knows_is_not_submitted_again(oelm, project: Path) -> None:
    lengthen(project)
    oelm("submit", "--study", "tiny", "--group", "gpt_base")
    ranks = wait_until(lambda: pids_of(project, "rank"), "its rank")
    claim = processes.Identity.from_json(read(run_dir(project) / ".oelm" / "claim"))
    assert claim is not None
    os.kill(claim.pid, signal.SIGKILL)
    for arguments in ((), ("--rerun",)):
        done = oelm("submit", "--study", "tiny", "--group", "gpt_base", *arguments, check=False)
        assert "is UNKNOWN: supervisor lost, its processes live on" in done.stdout + done.stderr
    assert pids_of(project, "rank") == ranks and status(oelm)["state"] == "UNKNOWN"
    assert len(list((project / ".oelm" / "submissions").glob("*.json"))) == 1


@pytest.mark.parametrize("left", [64 << 10, 0])
def test_a_full_disk_keeps_the_old_checkpoint_and_is_named(oelm, project: Path, left: int) -> None:
    lengthen(project, ("d_model = 16", "d_model = 128"))
    models = project / "models"
    models.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(models)], check=True)
    try:
        started(oelm, project)
        filler = models / "somebody elses"
        room = os.statvfs(models)
        with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:  # the trainer writes meanwhile
            if left:
                file.write(b"\0" * max(0, room.f_bavail * room.f_frsize - left))
            else:  # to the last byte
                while True:
                    file.write(b"\0" * 4096)
        row = wait_until(lambda: row if (row := status(oelm))["state"] == "FAILED" else None, "it to fail", 180)
        assert "disk full" in row["reason"], row["reason"]
        kept = list(run_dir(project).glob("checkpoint_*.pt"))
        assert kept, "the checkpoint before is still there"
        filler.unlink()
        oelm("submit", "--study", "tiny", "--group", "gpt_base")
        wait_until(lambda: "Resum" in (run_dir(project) / "training.log").read_text(), "it to resume")
    finally:
        end_all(project)
        subprocess.run(["umount", "-l", str(models)], check=True)


def target(project: Path, **values: object) -> None:
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    (project / "jobs" / "targets.toml").write_text('[odd]\nkind = "local"\n' + "\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"python": "/nowhere/bin/python", "setup": ["true"]}, "/nowhere/bin/python"),
        ({"setup": ["conda activate nothing"]}, "set-up failed"),
        ({"python": sys.executable, "setup": ["exit 3"]}, "ended before training started"),
    ],
)
def test_a_broken_target_is_named_in_the_runs_reason(oelm, project: Path, values: dict, expected: str) -> None:
    target(project, **values)
    oelm("submit", "--study", "tiny", "--group", "gpt_base", "--target", "odd")
    row = wait_until(lambda: row if (row := status(oelm))["state"] == "FAILED" else None, "it to fail")
    assert expected in row["reason"] + oelm("logs", "--supervisor", "gpt_base").stdout


def test_a_set_up_may_use_variables_that_are_not_set(oelm, project: Path) -> None:
    python = stand_in_for_python(project.parent / "python")
    target(project, python=python, setup=['echo "prompt is $PS1 and $CONDA_THING"', "export OELM_TEST=1"])
    oelm("submit", "--study", "tiny", "--group", "gpt_base", "--target", "odd", "--wait")
    assert status(oelm)["state"] == "DONE"


def test_unreadable_data_is_named_before_anything_is_queued(oelm, project: Path) -> None:
    path = project / "data" / "tiny" / "train.bin"
    path.unlink()
    path.mkdir()
    done = oelm("submit", "--study", "tiny", check=False)
    assert done.returncode == 2 and "train.bin" in done.stderr and "nothing was queued" in done.stderr
    path.rmdir()
    path.write_bytes(b"\xff\xff" * 1000)
    done = oelm("submit", "--study", "tiny", check=False)
    assert done.returncode == 2 and "65535" in done.stderr and "nothing was queued" in done.stderr


def test_a_heartbeat_from_the_future_breaks_nothing(oelm, quick: Path) -> None:
    oelm("submit", "--study", "tiny", "--group", "gpt_base", "--wait")
    heartbeat = run_dir(quick) / "heartbeat.json"
    heartbeat.write_text(json.dumps({**read(heartbeat), "time": time.time() + 3600}))
    assert "DONE" in oelm("status", "--rebuild").stdout


KILLED_AT = {
    "before the intent": "oelm_jobs.store.Store.intend",
    "before the code is sent": "oelm_jobs.connections.local.LocalConnection.keep_tree",
    "before the launch": "oelm_jobs.schedulers.leases.LeaseScheduler.submit",
    "before the answer is stored": "oelm_jobs.store.Store.answer",
}


@pytest.mark.parametrize("point", KILLED_AT)
def test_a_client_killed_at_any_point_neither_loses_nor_doubles_a_run(oelm, quick: Path, point: str) -> None:
    module, _, name = KILLED_AT[point].rpartition(".")
    module, _, owner = module.rpartition(".")
    program = (
        f"import os, signal, {module} as m\n"
        f"def die(*a, **k): os.kill(os.getpid(), signal.SIGKILL)\n"
        f"setattr(m.{owner}, {name!r}, die)\n"
        "from oelm_jobs.cli.submit import main\nmain(['--study', 'tiny', '--group', 'gpt_base'])"
    )
    killed = subprocess.run([sys.executable, "-c", program], cwd=quick, capture_output=True, timeout=300)
    assert killed.returncode == -signal.SIGKILL
    oelm("submit", "--study", "tiny", "--group", "gpt_base", "--wait")
    assert status(oelm)["state"] == "DONE"
    assert len(read(run_dir(quick) / "experiment_result.json")["attempts"]) == 1
    assert (run_dir(quick) / "training.log").read_text().count("Started") == 1


@pytest.mark.parametrize("started_runs", [0, 1])
def test_a_launcher_killed_half_way_loses_nothing(oelm, quick: Path, started_runs: int) -> None:
    program = (
        "import os, signal, sys\n"
        "from oelm_jobs.agent.host import launch\n"
        "real, count = launch._claim, 0\n"
        "def claim(run):\n"
        "    global count\n"
        f"    if count == {started_runs}: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    count += 1\n"
        "    return real(run)\n"
        "launch._claim = claim\n"
        "from oelm_jobs.agent.__main__ import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    (quick.parent / "launcher.py").write_text(program)
    client = (
        "import sys\n"
        "from oelm_jobs.connections import local\n"
        f"local.AGENT = [sys.executable, {str(quick.parent / 'launcher.py')!r}]\n"
        "from oelm_jobs.cli.submit import main\nmain(['--study', 'tiny'])"
    )
    cut = subprocess.run([sys.executable, "-c", client], cwd=quick, capture_output=True, text=True, timeout=300)
    assert cut.returncode == 3 and "oelm-status" in cut.stderr, cut.stderr
    oelm("submit", "--study", "tiny", "--wait")
    results = [read(path) for path in quick.glob("models/checkpoints/tiny/*/experiment_result.json")]
    assert [result["status"] for result in results] == ["DONE"] * 3
    assert [len(result["attempts"]) for result in results] == [1] * 3


# A user whom nothing gives a home -------------------------------------------------------------------------------------


def without_a_home(tmp_path: Path, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command where HOME is not set and the user database is empty, as in a container of a foreign uid."""
    (tmp_path / "passwd").write_text("")
    (tmp_path / "nsswitch.conf").write_text("passwd: files\n")
    mounts = 'for name in passwd nsswitch.conf; do mount --bind "$0/$name" "/etc/$name" || exit; done; exec "$@"'
    namespace = ["unshare", "--mount", "sh", "-c", mounts, str(tmp_path)]
    nowhere = ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "OELM_STATE_DIR", "USER", "LOGNAME")
    environment = {name: value for name, value in os.environ.items() if name not in nowhere}
    return subprocess.run([*namespace, *words], env=environment, capture_output=True, text=True, timeout=120, **options)


@pytest.mark.parametrize("command", ["status", "submit --study tiny", "doctor"])
def test_a_client_without_a_home_says_what_to_set(project: Path, tmp_path: Path, command: str) -> None:
    name, *options = command.split()
    program = f"from oelm_jobs.cli.{name} import main; main()"
    done = without_a_home(tmp_path, sys.executable, "-c", program, *options, cwd=project, stdin=subprocess.DEVNULL)
    assert done.returncode == 74 and "HOME is not set" in done.stderr and "export HOME=" in done.stderr, done.stderr
    assert not list(project.glob("~*")), "nothing is written into a folder that is called like the sign for home"


def test_data_in_an_unknown_home_are_asked_for_by_what_to_set(project: Path, tmp_path: Path) -> None:
    """Where all folders of the toolkit's own are named, nothing but the study needs a home."""
    study = project / "jobs" / "tiny.toml"
    study.write_text(study.read_text().replace('"data/tiny/train.bin"', '"~/data/tiny/train.bin"'))
    folders = [f"{name}={tmp_path}/own" for name in ("XDG_CONFIG_HOME", "OELM_STATE_DIR", "OELM_LEASE_DIR")]
    program = "from oelm_jobs.cli.submit import main; main()"
    words = ["env", *folders, sys.executable, "-c", program, "--study", "tiny"]
    done = without_a_home(tmp_path, *words, cwd=project, stdin=subprocess.DEVNULL)
    assert done.returncode == 74 and "export HOME=" in done.stderr, done.stderr


@pytest.mark.parametrize("words", [("data", "demo", "--output=~no-one/x"), ("status", "--adopt", "~no-one/x")])
def test_the_home_folder_of_a_user_whom_nobody_knows_is_named(oelm, project: Path, words: tuple[str, ...]) -> None:
    refused = oelm(*words, check=False)
    assert refused.returncode == 74 and "~no-one/x: no such user" in refused.stderr, refused.stderr


def test_an_agent_without_a_home_refuses_and_says_what_to_set(tmp_path: Path) -> None:
    from oelm_jobs.connections import wire

    header = json.dumps({"nonce": "n0", "trees": [], "verb": "probe", "reads": True})
    request = json.dumps({"run_dirs": []})
    words = "".join(f"{len(frame)}\n{frame}" for frame in (header, request))
    done = without_a_home(tmp_path, sys.executable, "-S", "-c", wire._program().decode(), input=words, cwd=tmp_path)
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert "HOME is not set" in said[-1]["error"] and said[-1]["refused"], done.stderr
    assert not list(tmp_path.glob("~*"))


@pytest.mark.parametrize(
    ("error", "said", "is_refused"),
    [("SlurmError", "no", True), ("HalfDone", "no", False), ("ValueError", "ValueError: no", False)],
)
def test_only_what_certainly_did_nothing_is_told_as_refused(error: str, said: str, is_refused: bool) -> None:
    program = f"""
from oelm_jobs.agent import bootstrap
from oelm_jobs.agent.slurm.commands import HalfDone, SlurmError
def work(*request):
    raise {error}("no")
bootstrap.work = work
bootstrap.main()
"""
    header = json.dumps({"nonce": "n0"})
    done = subprocess.run(
        [sys.executable, "-c", program], input=f"{len(header)}\n{header}", capture_output=True, text=True
    )
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert (told[-1]["error"], told[-1]["refused"]) == (said, is_refused), done.stderr

"""What the agent is asked and answers, verb by verb, and the bytes in which it travels.

Each request is one of a client of today, and is to be understood by every later agent; each answer may get keys called
``code`` and ``values``, and otherwise stays as it is. ``UPDATE_GOLDEN=1 pytest tests/test_golden_wire.py`` writes the
answers anew; read the difference before committing it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.golden import ADDED, ask_agent, compare_json, replaced
from tests.golden.slurm import stand_in_for_slurm
from tests.support import REPOSITORY, TRAINER, end_all, stand_in_for_nvidia_smi, stand_in_for_python, wait_until

VARYING = {
    "time": 1.0, "started_at": 2.0, "ended_at": 3.0, "heartbeat_at": 4.0, "starts_at": 5.0, "at": 6, "disk_free": 7,
    "free": 8, "lease_room": 9, "lease_files": 10, "queue_age_s": 0.5, "freed": 11, "host": "HOST", "user": "USER",
    "agent_python": "3.0", "python": "3.0", "lease_folder": "LEASES",
}  # fmt: skip
"""What stands in the place of values that differ from time to time and from host to host; null stays."""
GPU = "{0}, GPU-{0}, NVIDIA A100, 81920, {1}, 0\n"
LISTING = "GPU 0: NVIDIA A100 (UUID: GPU-0)\nGPU 1: NVIDIA A100 (UUID: GPU-1)\n"


def script(run: str, run_dir: str, token: str, steps: int, *, after: str | None = None, **environment: str) -> str:
    """Return a launch script that a client sent, with a stand-in for training; only its way to the supervisor is the
    test's own.
    """
    record = {
        "version": 1, "token": token, "study": "s", "run": run, "group": run, "label": f"Group {run}", "seed": 42,
        "tag": "", "target": "there", "project": "/home/me/project", "run_dir": run_dir, "fingerprint": "f" * 64,
        "snapshot": "0123456789abcdef", "revision": "", "diff": "", "train_code": "c" * 16, "factors": {},
        "train": {"max_steps": steps, "seq_len": 16, "model_type": "gpt", "out_dir": run_dir}, "world_size": 1,
        "global_batch": 4, "gpus": 1, "port": None, "after": after, "stop_on_failure": False, "max_retries": 0,
        "extended_from": None,
    }  # fmt: skip
    words = " ".join(f"export {name}={value};" for name, value in environment.items())
    command = f"{sys.executable} -S {TRAINER} --nproc_per_node 1 --out_dir {run_dir} --max_steps {steps}"
    return (
        f"#!/usr/bin/env bash\n{words}\nexec {sys.executable} -m oelm_jobs.agent supervise -- {command}"
        f" <<'OELM_RECORD'\n{json.dumps(record)}\nOELM_RECORD\n"
    )


class Agent:
    """The agent of a root, which notes what it is asked and answers."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.notes: list[dict[str, Any]] = []

    def ask(self, verb: str, request: dict[str, Any], *, note: bool = True) -> Any:
        """Ask, and return the answer."""
        done = ask_agent(verb, request)
        answer = json.loads(done.stdout) if done.returncode == 0 else None
        if note:
            said = {"answer": answer} if done.returncode == 0 else {"exit": done.returncode, "said": done.stderr}
            self.notes.append({"verb": verb, "request": request, **said})
        else:
            assert answer is not None, done.stderr
        return answer

    def noted(self) -> str:
        """Return the notes as JSON, without what differs from time to time."""
        notes = [{**note, "answer": _without(note["answer"])} if "answer" in note else note for note in self.notes]
        places = [(sys.executable, "PYTHON"), (str(self.root), "ROOT"), (str(REPOSITORY), "REPOSITORY")]
        text = replaced(json.dumps(notes, indent=1, ensure_ascii=False), places)
        text = re.sub(r"(?<=\.archive/exp_)(\w+)-\d{8}-\d{6}-\d+", r"\1-WHEN", text)
        text = re.sub(r"(?<=\d{4}-\d\d-\d\d )\d\d:\d\d:\d\d|\d{4}-\d\d-\d\d(?= )", "WHEN", text)
        return re.sub(r"/tmp/oelm-trial-\w+", "TRIAL", text) + "\n"


def _without(value: Any) -> Any:
    """Return a value with VARYING in it."""
    if isinstance(value, dict):
        return {
            key: VARYING[key] if key in VARYING and isinstance(each, (int, float, str)) else _without(each)
            for key, each in value.items()
        }
    return [_without(each) for each in value] if isinstance(value, list) else value


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    """The agent of a host with two GPUs."""
    table, listing = tmp_path / "gpus.csv", tmp_path / "listing"
    table.write_text(GPU.format(0, 3) + GPU.format(1, 0))
    listing.write_text(LISTING)
    stand_in_for_nvidia_smi(tmp_path, monkeypatch, f'[ "$1" = -L ] && exec cat {listing}\nexec cat {table}')
    (tmp_path / "root").mkdir()
    made = Agent(tmp_path / "root")
    yield made
    end_all(made.root)


@pytest.fixture
def host(agent: Agent) -> Callable[..., dict[str, Any]]:
    """Launch runs and wait until each stands where it is to stand: ``host("t1", a=(3, "DONE"))``."""

    def launch(token: str, *, note: bool = False, **runs: tuple[int, str]) -> dict[str, Any]:
        rows = []
        for name, (steps, _) in runs.items():
            run_dir = str(agent.root / f"exp_{name}")
            pace = "1" if steps > 100 else "0"
            rows.append({"run_dir": run_dir, "token": token, "script": script(name, run_dir, token, steps,
                                                                              TRAINER_STEP_S=pace)})  # fmt: skip
        request = {"root": str(agent.root), "token": token, "runs": rows, "snapshot": None, "environment": {}}
        answer: dict[str, Any] = agent.ask("launch", request, note=note)
        for row, (steps, state) in zip(rows, runs.values(), strict=True):
            wait_for(agent, row["run_dir"], state, steps)
        return {"request": request, "answer": answer}

    return launch


def wait_for(agent: Agent, run_dir: str, state: str, steps: int = 0) -> None:
    """Wait until a run is in a state; one that trains has made a step, and then makes none for long."""

    def is_there() -> bool:
        row = agent.ask("probe", {"run_dirs": [run_dir]}, note=False)["runs"][run_dir]
        return row["state"] == state and (state != "RUNNING" or row.get("step") is not None)

    wait_until(is_there, f"{run_dir} to be {state}")


# Plain hosts ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_submissions_are_asked_for_and_answered_as_they_were(agent: Agent, host: Callable[..., Any]) -> None:
    root = str(agent.root)
    first = host("oelm-1", note=True, a=(3, "DONE"))["request"]
    agent.ask("launch", first)  # repeated
    agent.ask("launch", {**first, "token": "oelm-2", "snapshot": "0123456789abcdef"})  # lacking
    agent.ask("settle", {"root": root, "token": "oelm-1"})
    agent.ask("settle", {"root": root, "token": "oelm-3"})
    agent.ask("launch", {**first, "token": "oelm-3"})  # came too late
    outside = [{"run_dir": "/", "token": "oelm-4", "script": "exit 1"}]
    agent.ask("launch", {**first, "token": "oelm-4", "runs": outside})
    compare_json("wire/launch_settle.json", json.loads(agent.noted()))


@pytest.mark.slow
def test_runs_are_looked_at_ended_and_archived_as_they_were(agent: Agent, host: Callable[..., Any]) -> None:
    root, run_dirs = str(agent.root), [str(agent.root / f"exp_{name}") for name in "abcd"]
    host("oelm-1", a=(3, "DONE"))
    host("oelm-2", b=(1000, "RUNNING"))
    crash = script("c", run_dirs[2], "oelm-3", 3).replace(
        str(TRAINER), "-c 'print(\"no such thing\"); raise SystemExit(3)'"
    )
    agent.ask("launch", {"root": root, "token": "oelm-3", "runs": [
        {"run_dir": run_dirs[2], "token": "oelm-3", "script": crash}]}, note=False)  # fmt: skip
    wait_for(agent, run_dirs[2], "FAILED")
    agent.ask("probe", {"run_dirs": run_dirs})
    [last] = agent.notes
    for key in ("step", "val_loss", "loss", "tokens_per_s"):  # it goes on
        last["answer"]["runs"][run_dirs[1]].pop(key, None)
    assert Path(run_dirs[1], "heartbeat.json").exists()
    agent.ask("archive", {"run_dirs": run_dirs})  # busy
    agent.ask("cancel", {"run_dirs": run_dirs})
    agent.ask("probe", {"run_dirs": [run_dirs[1]], "root": ""})
    agent.notes[-1]["answer"]["runs"][run_dirs[1]].pop("step", None)
    for name in ("training.log", ".oelm/supervisor.log"):
        agent.ask("log", {"run_dir": run_dirs[0], "name": name, "offset": None, "lines": 2, "wait_s": 0.0})
        content = base64.b64decode(agent.notes[-1]["answer"]["content"]).decode()
        agent.notes[-1]["answer"].update(
            content=re.sub(r"\d+:\d+:\d+|(?<=process )\d+", "WHEN", content), offset=0, size=1
        )
    agent.ask("log", {"run_dir": run_dirs[3], "name": "training.log", "offset": 5, "lines": 0, "wait_s": 0.0})
    agent.ask("find", {"root": root, "checkpoint_root": ""})
    agent.notes[-1]["answer"]["runs"].sort(key=lambda record: str(record["run"]))
    for record in agent.notes[-1]["answer"]["runs"]:
        record.pop("queued_at", None)
    agent.ask("archive", {"run_dirs": run_dirs})
    agent.ask("probe", {"run_dirs": run_dirs[:1]})
    compare_json("wire/probe_cancel_archive_log_find.json", json.loads(agent.noted()))


@pytest.mark.slow
def test_results_are_listed_and_freed_as_they_were(agent: Agent, host: Callable[..., Any]) -> None:
    host("oelm-1", a=(3, "DONE"))
    run_dir = str(agent.root / "exp_a")
    runs = [{"run_dir": run_dir, "have": {}}, {"run_dir": str(agent.root / "exp_none"), "have": {}}]
    agent.ask("inventory", {"runs": runs, "checkpoints": "all"})
    answer = agent.notes[-1]["answer"]
    files = {each["name"]: each for each in answer["runs"][run_dir]["files"] + answer["runs"][run_dir]["left"]}
    have = {name: each["sha256"] for name, each in files.items() if name.endswith(".pt")}
    agent.ask("inventory", {"runs": [{"run_dir": run_dir, "have": have}], "checkpoints": "latest"})
    for note in agent.notes:
        _forget_content(note)
    agent.ask("release", {"runs": {run_dir: []}})
    rows = {name: [files[name]["size"], files[name]["sha256"]] for name in have}
    rows["best_model.pt"][1] = "0" * 64  # not what was fetched
    agent.ask("remove", {"root": str(agent.root), "runs": [{"run_dir": run_dir, "files": rows}]})
    compare_json("wire/inventory_release_remove.json", json.loads(agent.noted()))


def _forget_content(note: dict[str, Any]) -> None:
    """Take sizes, hashes and contents of files with times in them out of an inventory, and out of what follows."""
    for held in note["answer"]["runs"].values():
        held["origin"] = held.get("origin") and "ORIGIN"
        for each in held["files"] + held["left"]:
            if not each["name"].endswith(".pt"):
                each.update(size=1, sha256="HASH")
                each.update({key: "CONTENT" for key in ("content",) if key in each})


@pytest.mark.slow
def test_token_files_are_looked_at_and_taken_as_they_were(agent: Agent) -> None:
    root, data = str(agent.root), agent.root / "data"
    data.mkdir()
    (data / "train.bin").write_bytes(b"\1\0\2\0" * 50)
    (data / "manifest.json").write_text('{"version": 1, "tokenizer": "t", "files": {"train.bin": {"tokens": 100}}}')
    files = [str(data / "train.bin"), str(data / "none.bin")]
    agent.ask("data", {"root": root, "files": files, "whole": True})
    agent.ask("data", {"root": root, "files": files[:1], "whole": False})
    agent.ask("expect", {"folder": str(data), "name": "oelm-5", "link": False})
    staging = Path(agent.notes[-1]["answer"]["staging"])
    content = b"\3\0" * 10
    (staging / "val.bin").write_bytes(content)
    (staging / "bad.bin").write_bytes(b"cut")
    (staging / "train.bin").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    agent.ask("accept", {"staging": str(staging), "folder": str(data),
                         "files": dict.fromkeys(("val.bin", "bad.bin", "train.bin"), digest)})  # fmt: skip
    agent.ask("expect", {"folder": "/dev/null/x", "name": "oelm-5", "link": False})
    for note in agent.notes:
        if note["verb"] == "expect" and "rsync" in (note.get("answer") or {}):
            note["answer"]["rsync"] = "RSYNC"
    compare_json("wire/data_expect_accept.json", json.loads(agent.noted()))


@pytest.mark.slow
def test_code_is_cleaned_up_as_it_was(agent: Agent, host: Callable[..., Any]) -> None:
    host("oelm-1", a=(3, "DONE"))
    for name in ("0123456789abcdef", "fedcba9876543210"):
        (agent.root / ".oelm" / "snapshots" / name).mkdir(parents=True)
        (agent.root / ".oelm" / "snapshots" / name / "x.py").write_text("x\n")
    request = {"root": str(agent.root), "checkpoint_root": "", "young_s": 0.0}
    agent.ask("snapshots", request)
    agent.ask("discard", {**request, "names": ["fedcba9876543210"], "copies": []})
    agent.ask("snapshots", request)
    compare_json("wire/snapshots_discard.json", json.loads(agent.noted()))


TRIAL = """#!/bin/bash
echo "$OELM_TRIAL_REACHED" >&2
cd -- "$OELM_TRIAL_FOLDER" && exec "$OELM_TRIAL_PYTHON" -c "$OELM_TRIAL"
"""


def test_a_host_is_examined_as_it_was(agent: Agent, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'no module named torch' >&2; exit 1\n")
    python.chmod(0o755)
    request = {
        "root": str(agent.root), "checkpoint_root": "", "python": str(python), "setup": ["true"], "trial": TRIAL,
        "ports": [1], "code": "", "environment": {}, "files": [str(agent.root / "none.bin")], "slurm": False,
    }  # fmt: skip
    agent.ask("examine", request)
    answer = agent.notes[-1]["answer"]
    answer.update(bash="BASH", rsync="RSYNC", ends_processes=False, wandb_login=False, quotas=[], lease_privacy="")
    answer.update(ports_taken=[], junk=[])
    agent.notes[-1]["request"]["python"] = "/none"
    compare_json("wire/examine.json", json.loads(agent.noted()))


# Slurm ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def slurm(agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of stand-ins for Slurm's commands, first on PATH."""
    monkeypatch.setenv("OELM_LOOK_FOR_S", "0")
    return stand_in_for_slurm(tmp_path, monkeypatch)


def queue_row(job: str, state: str, reason: str, name: str, task: str = "N/A", start: str = "N/A") -> str:
    return f"{job}|{task}|{state}|{start}|{time.time():.0f}|n1|low|normal|{reason}|(null)|oelm|{name}"


def account_row(job: str, state: str, code: str, name: str) -> str:
    now = int(time.time())
    return f"{job}|{state}|{code}|{now}|{now + 1}|{now + 2}|n1|{name}"


REASONS = ("Priority", "AssocGrpGRES", "QOSMaxJobsPerUserLimit", "JobHeldUser", "PartitionTimeLimit", "launch_failed")
ENDS = (("COMPLETED", "0:0"), ("FAILED", "1:0"), ("TIMEOUT", "0:0"), ("OUT_OF_MEMORY", "0:125"), ("NODE_FAIL", "0:0"),
        ("CANCELLED by 0", "0:0"), ("PREEMPTED", "0:0"), ("BOOT_FAIL", "0:0"), ("DEADLINE", "0:0"),
        ("FAILED", "0:9"))  # fmt: skip


@pytest.mark.slow
def test_jobs_are_submitted_settled_polled_and_ended_as_they_were(agent: Agent, slurm: Path) -> None:
    root = str(agent.root)
    run_dirs = [f"{root}/exp_{name}" for name in "abcde"]

    def job(position: int, *members: int, words: str = "", after: int | None = None) -> dict[str, Any]:
        name = f"{'s' if len(members) > 1 else 'abcde'[members[0]]}.oelm-1.{position}"
        return {"position": position, "name": name, "script": f"#!/bin/bash\n{words}\n", "after": after,
                "run_dirs": [run_dirs[member] for member in members]}  # fmt: skip

    jobs = [job(0, 0), job(1, 1, after=0), job(2, 2, words="# no such account"), job(3, 3, 4)]
    request = {"root": root, "token": "oelm-1", "jobs": jobs, "snapshot": None, "environment": {}}
    agent.ask("slurm_submit", request)
    agent.ask("slurm_submit", request)
    agent.ask("slurm_submit", {**request, "token": "oelm-2", "snapshot": "0123456789abcdef"})
    agent.ask("slurm_settle", {"root": root, "token": "oelm-1"})
    agent.ask("slurm_settle", {"root": root, "token": "oelm-3"})
    agent.ask("slurm_submit", {**request, "token": "oelm-3"})
    runs = [[run_dir, "oelm-1"] for run_dir in run_dirs]
    rows = [
        queue_row("1", "PENDING", "Priority", "a.oelm-1.0"),
        queue_row("2", "PENDING", "Dependency", "b.oelm-1.1"),
        queue_row("3", "RUNNING", "None", "s.oelm-1.3", "0", str(int(time.time()))),
        queue_row("3", "CONFIGURING", "None", "s.oelm-1.3", "1"),
    ]
    (slurm / "squeue.says").write_text("\n".join(rows) + "\n")
    poll = {"root": root, "checkpoint_root": "", "runs": runs, "ended": [], "interval_s": 0, "host": True}
    agent.ask("slurm_poll", poll)
    agent.ask("slurm_cancel", {"root": root, "runs": runs})
    agent.ask("slurm_archive", {"run_dirs": run_dirs})
    compare_json("wire/slurm_submit_settle_poll_cancel_archive.json", json.loads(agent.noted()))


@pytest.mark.slow
def test_what_slurm_says_of_jobs_is_told_as_it_was(agent: Agent, slurm: Path) -> None:
    root, numbers = str(agent.root), range(max(len(REASONS), len(ENDS)))
    jobs = [{"position": i, "name": f"r{i}.oelm-1.{i}", "script": "#!/bin/bash\n", "run_dirs": [f"{root}/exp_{i}"],
             "after": None} for i in numbers]  # fmt: skip
    agent.ask("slurm_submit", {"root": root, "token": "oelm-1", "jobs": jobs}, note=False)
    runs = [[f"{root}/exp_{i}", "oelm-1"] for i in numbers]
    poll = {"root": root, "checkpoint_root": "", "ended": [], "interval_s": 0, "host": False}
    rows = [queue_row(str(i + 1), "PENDING", reason, f"r{i}.oelm-1.{i}") for i, reason in enumerate(REASONS)]
    (slurm / "squeue.says").write_text("\n".join(rows) + "\n")
    agent.ask("slurm_poll", {**poll, "runs": runs[: len(REASONS)]})
    (slurm / "squeue.says").write_text("")
    ends = [account_row(str(i + 1), state, code, f"r{i}.oelm-1.{i}") for i, (state, code) in enumerate(ENDS)]
    (slurm / "sacct.says").write_text("\n".join(ends) + "\n")
    agent.ask("slurm_poll", {**poll, "runs": runs})
    (slurm / "sacct").write_text("#!/bin/sh\necho 'sacct: error: slurmdbd: Connection refused' >&2; exit 1\n")
    agent.ask("slurm_poll", {**poll, "runs": runs[:1]})
    (slurm / "squeue").write_text("#!/bin/sh\necho 'squeue: error: Unable to contact slurm controller' >&2; exit 1\n")
    agent.ask("slurm_poll", {**poll, "runs": runs[:1]})
    compare_json("wire/slurm_poll.json", json.loads(agent.noted()))


@pytest.mark.slow
def test_a_cluster_is_examined_and_tried_as_it_was(agent: Agent, slurm: Path) -> None:
    trial = {"python": sys.executable, "setup": [], "trial": TRIAL, "environment": {}}
    agent.ask("slurm_trial", trial)
    request = {"root": str(agent.root), **trial, "python": "/none", "ports": [], "slurm": True,
               "jobs": {"1": "#!/bin/bash\n", "2": "#!/bin/bash\n# no such account\n"}}  # fmt: skip
    agent.ask("examine", request)
    answer = agent.notes[-1]["answer"]
    answer.update(bash="BASH", rsync="RSYNC", ends_processes=False, wandb_login=False, quotas=[])
    compare_json("wire/slurm_trial_examine.json", json.loads(agent.noted()))


# Bytes ----------------------------------------------------------------------------------------------------------------

SSH = """\
#!{python} -S
import os, subprocess, sys, threading
argv, folder = sys.argv[1:], {folder!r}
if "-G" in argv:
    sys.exit(print("hostname gpu1\\nuser me\\nport 22\\nuserknownhostsfile /none\\nglobalknownhostsfile /none"))
if "-N" in argv or "-O" in argv:
    sys.exit(0)
line = " ".join(argv[argv.index("gpu1") + 1 :])
environment = dict(os.environ, HOME={home!r})
os.chdir({home!r})
if "--server" in line:
    os.execve("/bin/sh", ["sh", "-c", line], environment)
number = len([name for name in os.listdir(folder) if name.endswith(".line")])
open("%s/%03d.line" % (folder, number), "w").write(line)
child = subprocess.Popen(["sh", "-c", line], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
def copy(source, sink, name):
    with open("%s/%03d.%s" % (folder, number, name), "wb", 0) as note:
        for piece in iter(lambda: os.read(source, 65536), b""):
            note.write(piece)
            while piece:
                piece = piece[os.write(sink, piece) :]
threading.Thread(target=copy, args=(0, child.stdin.fileno(), "in"), daemon=True).start()
copy(child.stdout.fileno(), 1, "out")
os._exit(child.wait())
"""
"""In the place of ``ssh``: runs the line here, with another home folder, and notes what goes in and out."""


def frames(data: bytes) -> list[bytes]:
    """Return the frames that a client sent: a length, a newline, so many bytes."""
    found = []
    while data:
        size, _, rest = data.partition(b"\n")
        assert size.isdigit() and len(rest) >= int(size)
        found.append(rest[: int(size)])
        data = rest[int(size) :]
    return found


def messages(data: bytes, nonce: str) -> list[dict[str, Any]]:
    """Return what the agent said in frames: a newline, the nonce, a space, a length, a newline, so many bytes."""
    found = []
    while data:
        head = re.match(rb"\n%s (\d+)\n" % nonce.encode(), data)
        assert head, data[:100]
        end = head.end() + int(head[1])
        found.append(json.loads(data[head.end() : end]))
        data = data[end:]
    return found


def conversation(folder: Path, number: int) -> dict[str, Any]:
    """Return what a client and an agent said, frame by frame; what differs each time is named."""
    went, came = ((folder / f"{number:03}.{name}").read_bytes() for name in ("in", "out"))
    first, _, sent = went.partition(b"\n")
    program, header, *others = frames(sent)
    assert program.startswith(b"import binascii,zlib;exec(")
    opened = json.loads(header)
    begin, said = came[: came.index(b"1\n") + 2], came[came.index(b"1\n") + 2 :]
    nonce = opened.pop("nonce")
    assert re.fullmatch("[0-9a-f]{32}", nonce)
    replies = [message for message in messages(said, nonce) if not {"alive", "lacks"} & message.keys()]
    for message in replies:
        message.pop("home", None)
        if "answer" in message:
            message["answer"] = sorted(message["answer"].keys() - ADDED)
    requests: list[Any] = []
    for each in others:
        try:
            requests.append(sorted(json.loads(each)))
        except ValueError:
            if requests[-1:] != ["TREE"]:  # as a whole or what is lacking of it: that depends on its size
                requests.append("TREE")
    return {
        "first": first.decode(), "header": opened, "frames": requests, "greeting": begin.decode(), "messages": replies,
    }  # fmt: skip


@pytest.mark.slow
def test_what_travels_to_another_machine_travels_as_it_did(
    oelm: Any, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A submission and a look at it, by their verbs: which trees are sent when, what is asked, how it is framed."""
    folder, home = tmp_path / "said", tmp_path / "home"
    folder.mkdir()
    home.mkdir()
    (tmp_path / "bin").mkdir()
    ssh = tmp_path / "bin" / "ssh"
    ssh.write_text(SSH.format(python=sys.executable, folder=str(folder), home=str(home)))
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    python = stand_in_for_python(tmp_path / "python")
    (project / "jobs" / "targets.toml").write_text(
        f'[there]\nkind = "ssh"\nhost = "gpu1"\nconnection = "openssh"\npython = "{python}"\n'
    )
    words = ("--study", "tiny", "--target", "there", "--group", "gpt_base")
    oelm("submit", *words, "--send-data")
    end = home / "oelm/models/checkpoints/tiny/exp_gpt_base/.oelm/end.json"
    wait_until(end.exists, "the run to end")
    oelm("status", "--json")
    said = [conversation(folder, number) for number in range(len(list(folder.glob("*.line"))))]
    lines = {path.read_text() for path in folder.glob("*.line")}
    assert len(lines) == 1
    text = json.dumps({"command": lines.pop(), "conversations": said}, indent=1, ensure_ascii=False)
    text = replaced(text, [(str(home), "HOME"), (python, "PYTHON"), (str(project), "PROJECT")])
    hashes = list(dict.fromkeys(re.findall(r'(?<=hash": ")[0-9a-f]{16}', text)))
    for place, each in enumerate(hashes, start=1):
        text = text.replace(each, f"HASH{place}")
    compare_json("wire/bytes.json", json.loads(text))
    end_all(home)

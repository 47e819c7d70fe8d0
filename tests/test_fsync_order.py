"""Names, bytes and the order of fsync of what claims, submissions, fates, origins and ends are made of.

A file that carries a promise is synced before it gets its name, and its folder after that (fsync(2)): a power cut
leaves all of it or nothing. What is not synced is listed, too: it is made up for after a power cut, or found out anew.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs.agent import processes, rundir
from oelm_jobs.agent.host import cancel, launch
from oelm_jobs.agent.run_record import RunRecord
from oelm_jobs.agent.slurm import claim as slurm_claim
from oelm_jobs.agent.slurm import job as slurm_job
from oelm_jobs.agent.slurm import submit as slurm_submit
from tests import journal
from tests.support import launch_runs, make_run, outcome_of, read, script_of, sleeping, wait_for_state

VARYING = (
    "time", "started_at", "ended_at", "queued_at", "pid", "start_time", "boot_id", "host", "wall_s", "elapsed_hours",
    "gpu_hours", "port",
)  # fmt: skip
"""Keys whose values differ from one time to the next."""


def plain(content: bytes, folder: Path) -> str:
    """Return a record's text with a star for each value that differs from one time to the next."""
    text = content.decode().replace(str(folder), "ROOT")
    return re.sub(rf'("(?:{"|".join(VARYING)})": )("[^"]*"|[-\d.e]+)', r"\1*", text)


IDENTITY = '{"pid": *, "start_time": *, "boot_id": *, "host": *'


def test_a_file_that_is_made_exclusively_is_synced_before_and_after_it_gets_its_name(tmp_path: Path) -> None:
    with journal.kept(tmp_path) as kept:
        assert rundir.create(tmp_path / "x", {"a": 1, "b": "é"})
    assert kept.lines() == ["sync x", "link x", "sync ./"]
    assert kept.contents == {"x": b'{"a": 1, "b": "\\u00e9"}'}
    with journal.kept(tmp_path) as kept:
        assert rundir.create(tmp_path / "y", {}, durable=False)
    assert kept.lines() == ["link y"]
    assert sorted(os.listdir(tmp_path)) == ["x", "y"]


def test_a_file_that_is_replaced_is_synced_before_and_after_it_gets_its_name(tmp_path: Path) -> None:
    with journal.kept(tmp_path) as kept:
        rundir.write_json(tmp_path / "x", {"a": 1, "b": "é"})
        rundir.write_text(tmp_path / "y", "text", durable=False)
    assert kept.lines() == ["sync x", "name x", "sync ./", "name y"]
    assert kept.contents == {"x": '{\n "a": 1,\n "b": "é"\n}\n'.encode(), "y": b"text"}
    assert sorted(os.listdir(tmp_path)) == ["x", "y"]


# A plain host ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_launch_makes_its_submission_durable_before_anything_is_started(root: Path) -> None:
    run = make_run(root, "a")
    with journal.kept(root) as kept:
        launch_runs(root, [(run, sleeping())])
        claim = rundir.control(run.run_dir, rundir.CLAIM).read_bytes()
    assert kept.lines() == [
        "sync .oelm/submissions/t1.json",
        "link .oelm/submissions/t1.json",
        "sync .oelm/submissions/",
        "name exp_a/.oelm/launch.sh",
    ]
    submission = kept.contents[".oelm/submissions/t1.json"]
    assert plain(submission, root) == '{"version": 1, "token": "t1", "time": *, "runs": ["ROOT/exp_a"]}'
    assert kept.contents["exp_a/.oelm/launch.sh"].decode() == script_of(root, run, sleeping(), "t1", after=None)
    assert plain(claim, root) == IDENTITY + ', "token": "t1"}\n'
    assert rundir.control(run.run_dir, rundir.ORIGIN).read_bytes() == b"t1\n"

    wait_for_state(run, "RUNNING")
    with journal.kept(root) as kept:
        cancel.cancel({"run_dirs": [run.run_dir]})
    name = "exp_a/.oelm/cancel.json"
    assert kept.lines() == [f"sync {name}", f"name {name}", "sync exp_a/.oelm/"]
    assert plain(kept.contents[name], root) == '{\n "by": "oelm-cancel",\n "time": *\n}\n'


def test_a_submission_is_given_up_by_a_file_that_is_durable(root: Path) -> None:
    with journal.kept(root) as kept:
        launch.settle({"root": str(root), "token": "t1"})
    name = ".oelm/submissions/t1.json"
    assert kept.lines() == [f"sync {name}", f"link {name}", "sync .oelm/submissions/"]
    words = '{"version": 1, "token": "t1", "time": *, "settled": true, "runs": []}'
    assert plain(kept.contents[name], root) == words


SUPERVISE = """
import json, sys
from pathlib import Path
from oelm_jobs.agent import supervise
from oelm_jobs.agent.run_record import RunRecord
from tests import journal

record, command = json.load(sys.stdin)
with journal.kept(Path(record["run_dir"])) as kept:
    code = supervise.Supervisor(RunRecord.of(record), command).run()
contents = {name: content.decode() for name, content in kept.contents.items()}
print(json.dumps([code, kept.lines(), contents]))
"""


def supervised(folder: Path, command: list[str]) -> tuple[int, list[str], dict[str, str]]:
    """See a run through in a process of its own; return its exit code, what it did on the disk, and the files."""
    run_dir = folder / "exp_a"
    record = {"run": "a", "run_dir": str(run_dir), "token": "t1", "gpus": 1, "max_retries": 0, "fingerprint": "f"}
    done = subprocess.run(
        [sys.executable, "-c", SUPERVISE],
        input=json.dumps([record, command]),
        capture_output=True,
        text=True,
        timeout=300,
    )
    code, lines, contents = json.loads(done.stdout or done.stderr)
    return code, lines, {name: plain(content.encode(), folder) for name, content in contents.items()}


def replaced(name: str) -> list[str]:
    """Return how a durable file of a run directory gets its name."""
    return [f"sync {name}", f"name {name}", f"sync {os.path.dirname(name) or '.'}/"]


BEGINS = [*replaced(".oelm/run.json"), *replaced(".oelm/start.json"), "remove .oelm/reserve"]
ENDS = [*replaced("experiment_result.json"), *replaced("MANIFEST.json"), *replaced(".oelm/end.json")]


def test_the_end_record_comes_last_after_result_and_manifest_are_durable(root: Path) -> None:
    code, lines, contents = supervised(root, outcome_of("completed"))
    assert code == 0 and lines == [*BEGINS, *ENDS]
    assert contents[".oelm/start.json"] == (
        '{\n "pid": *,\n "start_time": *,\n "boot_id": *,\n "host": *,\n "number": 1,\n "token": "t1",\n'
        ' "port": null,\n "started_at": *,\n "devices": [\n  "cpu:0"\n ]\n}\n'
    )
    assert (root / "exp_a" / ".oelm" / "origin").read_bytes() == b"t1\n"
    attempt = {
        "number": 1, "token": "t1", "started_at": "*", "devices": ["cpu:0"], "host": "*", "port": None, "steps": 0,
        "state": "DONE", "reason": "", "cause": "", "ended_at": "*", "wall_s": "*", "exit_code": 0,
    }  # fmt: skip
    end = {
        "version": 1, "token": "t1", "state": "DONE", "reason": "", "ended_at": "*", "fingerprint": "f",
        "attempts": [attempt],
    }  # fmt: skip
    assert contents[".oelm/end.json"] == json.dumps(end, indent=1).replace('"*"', "*") + "\n"
    result = contents["experiment_result.json"]
    assert json.loads(result.replace(": *", ': "*"'))["attempts"] == [attempt]
    manifest = json.loads(contents["MANIFEST.json"])
    names = ["experiment_result.json", "training.log"]
    assert [list(file) for file in manifest["files"]] == [["name", "size", "sha256"]] * 2
    assert [file["name"] for file in manifest["files"]] == names and manifest["version"] == 1


def test_the_end_of_a_stopped_run_is_said_first_and_last_and_never_beside_an_older_manifest(root: Path) -> None:
    program = "import os, signal, time; os.kill(os.getppid(), signal.SIGTERM); time.sleep(600)"
    (root / "exp_a").mkdir()
    (root / "exp_a" / "MANIFEST.json").write_text("{}")
    code, lines, contents = supervised(root, [sys.executable, "-S", "-c", program])
    assert code == 1 and lines == [
        *BEGINS[:-1],
        "remove MANIFEST.json",
        "sync ./",
        *replaced(".oelm/end.json"),
        "remove .oelm/reserve",
        *ENDS,
    ]
    end = json.loads(re.sub(r": \*", ": 0", contents[".oelm/end.json"]))
    assert (end["state"], end["reason"]) == ("CANCELLED", "stopped by SIGTERM, without a checkpoint")


# Slurm ----------------------------------------------------------------------------------------------------------------


def owner(**changes: Any) -> slurm_claim.Owner:
    values: dict[str, Any] = {"job": "7", "restart": 0, "name": "a.t1.0", "token": "t1", "time": 1.0}
    return slurm_claim.Owner(identity=processes.identify(os.getpid()), **{**values, **changes})


def test_a_claim_on_a_cluster_is_durable_when_it_is_taken_and_when_it_is_given_back(tmp_path: Path) -> None:
    (tmp_path / "exp_a" / ".oelm").mkdir(parents=True)
    with journal.kept(tmp_path) as kept:
        claim = slurm_claim.take(str(tmp_path / "exp_a"), owner(), lambda words: None)
        taken = dict(kept.contents)
        claim.release()
    name = "exp_a/.oelm/slurm-claim.1"
    folder = "sync exp_a/.oelm/"
    assert kept.lines() == [f"sync {name}", f"link {name}", folder, f"sync {name}", f"name {name}", folder]
    told = '"job": "7", "restart": 0, "name": "a.t1.0", "token": "t1", "identity": ' + IDENTITY
    text = "{" + told + '}, "time": *, "cluster": "", "released": false}'
    assert plain(taken[name], tmp_path) == text
    released = json.loads(kept.contents[name])
    assert released == {**json.loads(taken[name]), "released": True}
    assert kept.contents[name].decode() == json.dumps(released, indent=1) + "\n"


def job(root: Path) -> dict[str, Any]:
    """Return a submission of one job."""
    run_dir = str(root / "exp_a")
    one = {"position": 0, "name": "a.t1.0", "script": "#!/bin/bash\n", "run_dirs": [run_dir], "after": None}
    return {"root": str(root), "token": "t1", "jobs": [one]}


SUBMISSION = ".oelm/submissions/t1.json"


def test_a_submission_to_slurm_is_durable_before_sbatch_is_called(tmp_path: Path) -> None:
    before: list[str] = []

    def send(script: str, options: Any) -> tuple[int, str, str]:
        before.extend(kept.lines())
        return 0, "Submitted batch job 7\n", ""

    with journal.kept(tmp_path) as kept:
        slurm_submit.slurm_submit(job(tmp_path), send)
    made = [f"sync {SUBMISSION}", f"link {SUBMISSION}", "sync .oelm/submissions/"]
    assert before == [*made, "name .oelm/slurm/t1.0.sh", "link .oelm/slurm/t1.0.sent.1"]
    assert kept.lines() == [*before, "name .oelm/slurm/t1.0.answer.json"]
    contents = {name: plain(content, tmp_path) for name, content in kept.contents.items()}
    jobs = '[{"position": 0, "name": "a.t1.0", "run_dirs": ["ROOT/exp_a"]}]'
    assert contents == {
        SUBMISSION: '{"version": 1, "token": "t1", "time": *, "scheduler": "slurm", "jobs": ' + jobs + "}",
        ".oelm/slurm/t1.0.sent.1": '{"time": *, "maker": ' + IDENTITY + "}}",
        ".oelm/slurm/t1.0.sh": "#!/bin/bash\n",
        ".oelm/slurm/t1.0.answer.json": '{\n "id": "7",\n "time": *\n}\n',
    }


FATE = ".oelm/slurm/t1.0.fate.json"
FATE_LINES = [f"sync {FATE}", f"link {FATE}", "sync .oelm/slurm/"]


def test_the_fate_of_a_job_is_durable_whoever_makes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given_up, fenced, started = (tmp_path / name for name in ("given-up", "fenced", "started"))
    (started / "exp_a" / ".oelm").mkdir(parents=True)
    for folder in (given_up, started):
        slurm_submit.folder(str(folder))
    with journal.kept(given_up) as kept:
        assert slurm_submit.give_up(str(given_up), "t1", 0)
    assert kept.lines() == [*FATE_LINES, "name .oelm/slurm/t1.0.answer.json"]
    assert plain(kept.contents[FATE], given_up) == '{"fate": "settled", "time": *}'

    def refuse(*_: Any) -> tuple[int, str, str]:
        return 1, "", "not today, says the site"  # a wrapper's word, behind which sbatch may have taken the job

    with journal.kept(fenced) as kept:
        slurm_submit.slurm_submit(job(fenced), refuse)
    assert kept.lines()[-4:] == [*FATE_LINES, "name .oelm/slurm/t1.0.answer.json"]
    assert plain(kept.contents[FATE], fenced) == '{"fate": "settled", "time": *}'

    for name, value in {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "a.t1.0", "SLURMD_NODENAME": "n1"}.items():
        monkeypatch.setenv(name, value)
    record = RunRecord(run_dir=str(started / "exp_a"), token="t1", world_size=1, fate=str(started / FATE))
    with journal.kept(started) as kept:
        slurm_job.SlurmJob(record, lambda words: None).claim()
    assert kept.lines()[:3] == FATE_LINES and len(kept.lines()) == 6, "before it takes the run's claim"
    assert plain(kept.contents[FATE], started) == '{"fate": "started", "job": "7", "time": *}'
    assert read(started / "exp_a" / ".oelm" / "slurm-claim.1")["job"] == "7"

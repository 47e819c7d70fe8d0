"""What sbatch's words mean, who sends a script, and what is settled: with stand-ins for Slurm's commands."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs.agent import rundir
from oelm_jobs.agent.host import launch
from oelm_jobs.agent.slurm import submit as submission
from oelm_jobs.agent.slurm.commands import SlurmError
from oelm_jobs.connections.local import LocalConnection
from oelm_jobs.errors import UnknownAnswer
from oelm_jobs.schedulers import LaunchScript, scheduler
from oelm_jobs.spec.options import Slurm
from oelm_jobs.spec.target import Target
from tests.slurm.recorded import NAME, NO_CONTROLLER, TOKEN, prints, queue_line
from tests.support import wait_until

pytestmark = pytest.mark.usefixtures("no_cluster")

Put = Callable[[str, str], None]


@pytest.mark.parametrize(
    ("code", "out", "err", "answer"),
    [
        (0, "Submitted batch job 12\n", "", {"id": "12"}),
        (0, "Welcome 2 all\nSubmitted batch job 12 on cluster c\n", "", {"id": "12"}),
        (0, "", "", "unknown"),
        (1, "", "sbatch: error: Unable to contact slurm controller (connect failure)", "refused"),
        (1, "", "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
         "refused"),
        (1, "", "sbatch: error: Batch job submission failed: Invalid account or account/partition combination",
         "refused"),
        (1, "", "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy", "refused"),
        (1, "", "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", "unknown"),
        (1, "", "sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received", "unknown"),
        (1, "", "sbatch: error: Batch job submission failed: Message receive failure", "unknown"),
        (1, "", "", "unknown"),
        (-9, "", "sbatch: error: Unable to contact slurm controller (connect failure)", "unknown"),
        (1, "", "sbatch: error: AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed", "limit"),
        (1, "", "sbatch: error: QOSMaxSubmitJobPerUserLimit", "limit"),
        (1, "", "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying", "limit"),
        (1, "", "sbatch: error: Slurm temporarily unable to accept job\nsbatch: error: Socket timed out", "unknown"),
    ],
)  # fmt: skip
def test_sbatchs_words_are_an_id_a_certain_no_no_room_or_not_known(
    code: int, out: str, err: str, answer: dict[str, str] | str
) -> None:
    said = submission.read_answer(code, out, err)
    assert said == answer if isinstance(answer, dict) else list(said) == [answer]


def request(root: Path) -> dict[str, Any]:
    """Return a submission of one job."""
    run_dir = root / "exp_a"
    (run_dir / ".oelm").mkdir(parents=True, exist_ok=True)
    job = {"position": 0, "name": NAME, "script": "#!/bin/bash\n", "run_dirs": [str(run_dir)], "after": None}
    return {"root": str(root), "token": TOKEN, "jobs": [job]}


def fate(root: Path) -> Path:
    return submission.file_of(str(root), TOKEN, 0, submission.FATE)


@pytest.mark.slow
def test_of_two_commands_that_send_the_same_script_at_once_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submission, "PATIENCE_S", 0.0)
    sent, both, answers = list[str](), threading.Barrier(2), list[dict[str, Any]]()

    def send(script: str, options: Sequence[str]) -> tuple[int, str, str]:
        sent.append(script)
        time.sleep(0.5)
        return 0, "Submitted batch job 7\n", ""

    def command() -> None:
        both.wait()
        answers.append(submission.slurm_submit(request(tmp_path), send)["jobs"]["0"])

    threads = [threading.Thread(target=command) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sent) == 1
    assert sorted(next(iter(answer)) for answer in answers) == ["id", "unknown"], "who comes second does not know"
    assert "7" in [answer.get("id") for answer in answers]
    assert submission.slurm_submit(request(tmp_path), send)["jobs"]["0"]["id"] == "7" and len(sent) == 1


def test_where_scripts_can_not_be_written_no_submission_has_begun(tmp_path: Path) -> None:
    (tmp_path / ".oelm").mkdir()
    (tmp_path / ".oelm" / "slurm").touch()
    with pytest.raises(launch.NotWritable, match="nothing can be written below"):
        submission.slurm_submit(request(tmp_path))
    assert not launch.submission_file(str(tmp_path), TOKEN).exists()


def test_an_answer_that_can_not_be_kept_on_this_machine_leaves_it_unknown_what_was_sent(
    tmp_path: Path, instead: Put
) -> None:
    """As on a full disk: sbatch has the job."""
    instead("srun", "exit 0")
    instead("sbatch", f"touch {tmp_path}/sent; echo Submitted batch job 7")
    root = tmp_path / "root"
    (run,) = request(root)["jobs"]
    submission.file_of(str(root), TOKEN, 0, ".answer.json").mkdir(parents=True)  # nothing replaces a folder
    there = Target(name="here", kind="slurm", root=str(root), python="python", slurm=Slurm())
    script = LaunchScript(run_dirs=tuple(run["run_dirs"]), script=run["script"], position=0, name=NAME)
    with pytest.raises(UnknownAnswer):
        scheduler(LocalConnection(there, tmp_path)).submit([script], TOKEN)
    assert (tmp_path / "sent").exists()


@pytest.mark.parametrize(
    ("stated", "wanted"),
    [
        ("", "afterany:7"),
        ("#SBATCH --dependency=afterok:204\n", "afterany:7,afterok:204"),
        ('#SBATCH --dependency="afterok:204,singleton"\n', "afterany:7,afterok:204,singleton"),
    ],
)
def test_what_a_target_makes_jobs_wait_for_holds_for_all_of_a_chain(tmp_path: Path, stated: str, wanted: str) -> None:
    sent: list[list[str]] = []

    def send(_: str, options: Any) -> Any:
        sent.append(list(options))
        return 0, "Submitted batch job 7\n", ""

    [job] = request(tmp_path)["jobs"]
    job["script"] = "#!/bin/bash\n" + stated
    next_one = {**job, "position": 1, "after": 0, "run_dirs": [str(tmp_path / "exp_b")]}
    submission.slurm_submit({**request(tmp_path), "jobs": [job, next_one]}, send)
    assert sent == [[], [f"--dependency={wanted}"]]


def test_a_submission_that_is_being_sent_is_not_settled(tmp_path: Path, instead: Put) -> None:
    """Another process sends it and lives; once it is dead, its job is looked for and then given up for good."""
    instead("squeue", prints(""))
    instead("sacct", prints(""))
    begun = tmp_path / "begun"
    program = (
        "import json, pathlib, sys, time\nfrom oelm_jobs.agent.slurm import submit as slurm_submit\n"
        f"def send(*_): pathlib.Path({str(begun)!r}).touch(); time.sleep(600)\n"
        "slurm_submit.slurm_submit(json.load(sys.stdin), send)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) as sender:
        assert sender.stdin is not None
        sender.stdin.write(json.dumps(request(tmp_path)).encode())
        sender.stdin.close()
        try:
            wait_until(begun.exists, "it to send")
            with pytest.raises(SlurmError, match="is being sent"):
                submission.slurm_settle({"root": str(tmp_path), "token": TOKEN})
            assert not fate(tmp_path).exists()
        finally:
            sender.kill()
    sent = submission.file_of(str(tmp_path), TOKEN, 0, ".sent.1")
    sent.write_text(json.dumps({**json.loads(sent.read_text()), "time": time.time() - 100}))
    settled = submission.slurm_settle({"root": str(tmp_path), "token": TOKEN})
    assert settled["answer"] == "settled" and json.loads(fate(tmp_path).read_text())["fate"] == "settled"


def test_a_job_that_is_found_later_counts_from_its_sending(tmp_path: Path, instead: Put) -> None:
    """Accounting is asked for what was submitted since then."""

    def lost(*_: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        submission.slurm_submit(request(tmp_path), lost)
    sent = submission.file_of(str(tmp_path), TOKEN, 0, ".sent.1")
    sent.write_text(json.dumps({**json.loads(sent.read_text()), "time": 1000.0}))
    instead("squeue", prints(queue_line("PENDING")))
    assert submission.slurm_settle({"root": str(tmp_path), "token": TOKEN})["answer"] == "accepted"
    assert (submission.answer_of(str(tmp_path), TOKEN, 0) or {})["time"] == 1000.0


def test_a_sending_that_has_been_overtaken_gives_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it was held up, and although only the newest tries' files are kept."""
    sent = list[str]()

    def no_room(script: str, options: Sequence[str]) -> tuple[int, str, str]:
        sent.append(script)
        return 1, "", "sbatch: error: AssocMaxSubmitJobLimit"

    for _ in range(4):
        submission.slurm_submit(request(tmp_path), no_room)
    assert len(sent) == 4
    numbers = [path.suffix for path in submission.folder(str(tmp_path)).glob("*.sent.*")]
    assert sorted(numbers) == [".3", ".4"], "a night of waiting leaves no night of files"
    known = [{"limit": "x", "try": 1, "time": 1.0}]  # what it read before it was held up
    real = submission.answer_of
    monkeypatch.setattr(submission, "answer_of", lambda *place: known.pop() if known else real(*place))
    answer = submission.slurm_submit(request(tmp_path), no_room)["jobs"]["0"]
    assert answer == {"limit": "another command is sending it"} and len(sent) == 4


def test_sbatch_hands_on_the_environment_as_it_is(
    tmp_path: Path, instead: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setenv("OELM_JOB_NAME", "the job in which this runs")
    instead("sbatch", f'echo "$LC_ALL,$SLURM_TIME_FORMAT,$OELM_JOB_NAME" > {tmp_path}/said; echo Submitted batch job 7')
    submission.slurm_submit(request(tmp_path))
    assert (tmp_path / "said").read_text() == "C.UTF-8,,\n"


@pytest.mark.parametrize("was_sent", [True, False])
def test_nothing_is_settled_while_slurm_can_not_be_asked(tmp_path: Path, instead: Put, was_sent: bool) -> None:
    def lost(*_: Any) -> Any:
        raise KeyboardInterrupt  # the client dies while sbatch works

    if was_sent:
        with pytest.raises(KeyboardInterrupt):
            submission.slurm_submit(request(tmp_path), lost)
    else:
        content = {"token": TOKEN, "time": 1.0, "jobs": request(tmp_path)["jobs"]}
        launch.submission_file(str(tmp_path), TOKEN).parent.mkdir(parents=True)
        rundir.write_json(launch.submission_file(str(tmp_path), TOKEN), content)
    instead("squeue", NO_CONTROLLER)
    with pytest.raises(SlurmError, match="connect failure"):
        submission.slurm_settle({"root": str(tmp_path), "token": TOKEN})
    assert not fate(tmp_path).exists(), "the job may be there: it must be allowed to start"
    instead("squeue", prints(queue_line("PENDING") if was_sent else ""))
    settled = submission.slurm_settle({"root": str(tmp_path), "token": TOKEN})
    assert settled["answer"] == ("accepted" if was_sent else "settled")
    assert fate(tmp_path).exists() != was_sent


def test_a_job_that_has_started_is_accepted_although_slurm_shows_nothing_of_it(tmp_path: Path, instead: Put) -> None:
    def lost(*_: Any) -> Any:
        raise KeyboardInterrupt  # the client dies while sbatch works

    with pytest.raises(KeyboardInterrupt):
        submission.slurm_submit(request(tmp_path), lost)
    sent = submission.file_of(str(tmp_path), TOKEN, 0, ".sent.1")
    sent.write_text(json.dumps({**json.loads(sent.read_text()), "time": 1.0}))
    assert rundir.create(fate(tmp_path), {"fate": "started", "job": "7", "time": time.time()})
    instead("squeue", prints(""))
    instead("sacct", prints(""))
    settled = submission.slurm_settle({"root": str(tmp_path), "token": TOKEN})
    assert settled == {"answer": "accepted", "runs": [str(tmp_path / "exp_a")], "refused": {}}
    assert submission.answer_of(str(tmp_path), TOKEN, 0) is None, "nobody says that it was not submitted"

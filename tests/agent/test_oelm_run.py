"""What a program that imports oelm_run leaves in its run directory, and how it hears of a stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import oelm_jobs.agent.importable
from tests.support import needs

FOLDER = Path(str(oelm_jobs.agent.importable.__file__)).parent
NOT_OURS = ("OELM_", "RANK", "LOCAL_RANK", "NODE_RANK", "OMPI_", "PMI", "SLURM_", "PYTHONPATH")


def start(text: str, run_dir: Path | None, **variables: str) -> subprocess.Popen[str]:
    """Start a program of these lines as a run's, or by hand where there is no run directory."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(NOT_OURS)}
    environment.update(variables, PYTHONPATH=str(FOLDER))
    if run_dir is not None:
        run_dir.mkdir(exist_ok=True)
        environment.update(OELM_RUN_DIR=str(run_dir), OELM_ATTEMPT="t1:1")
    return subprocess.Popen(
        [sys.executable, "-S", "-c", text],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(text: str, run_dir: Path | None, **variables: str) -> str:
    """Let a program of these lines end by itself; return what it said on stderr."""
    said = (process := start(text, run_dir, **variables)).communicate()[1]
    assert process.returncode == 0, said
    return said


def lines(run_dir: Path) -> list[dict[str, Any]]:
    """Return the records of metrics.jsonl without their time."""
    found = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines() if line]
    assert all(record.pop("time") > 1e9 for record in found)
    return found


def test_what_is_logged_is_in_the_metrics(tmp_path: Path) -> None:
    said = run(
        """if True:
        import oelm_run
        class Tensor:
            def __float__(self):
                raise ValueError("it warns")
            def item(self):
                return 0.25
        oelm_run.log(step=10, loss=Tensor(), lr=1e-3)
        oelm_run.log(step=20, loss=float("nan"), name="adam", time=3)
        oelm_run.log(step=20, name="adam")
        oelm_run.log(val_loss=float("-inf"))
        oelm_run.log(step=30, loss=2)
        """,
        tmp_path,
    )
    assert lines(tmp_path) == [
        {"step": 10, "loss": 0.25, "lr": 1e-3},
        {"step": 20, "loss": "nan"},
        {"step": 20},
        {"step": 20, "val_loss": "-inf"},
        {"step": 30, "loss": 2},
    ]
    assert said.splitlines() == [
        "oelm_run: name is left out: str is no number",
        "oelm_run: a metric can't be called time: every line has its own",
    ]


def test_outside_a_run_nothing_is_written_and_a_signal_ends_the_program(tmp_path: Path) -> None:
    text = """if True:
        import os, signal, oelm_run
        oelm_run.log(step=1, loss=1.0)
        assert not oelm_run.should_stop()
        os.kill(os.getpid(), signal.SIGTERM)
        """
    process = start(f"import os; os.chdir({str(tmp_path)!r})\n{text}", None)
    assert process.communicate() == ("", "") and process.returncode == -signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("variables", "writes"),
    [
        ({"RANK": "0", "LOCAL_RANK": "0", "SLURM_PROCID": "1"}, True),
        ({"RANK": "1", "LOCAL_RANK": "0"}, False),
        ({"OMPI_COMM_WORLD_RANK": "1", "SLURM_PROCID": "0"}, False),
        ({"SLURM_PROCID": "3"}, False),
        ({"SLURM_PROCID": "0", "LOCAL_RANK": "1"}, False),
        ({"NODE_RANK": "1", "LOCAL_RANK": "0"}, False),
    ],
)
def test_only_the_first_of_several_processes_writes(variables: dict[str, str], writes: bool, tmp_path: Path) -> None:
    assert run("import oelm_run; oelm_run.log(step=1, loss=1.0)", tmp_path, **variables) == ""
    assert [path.name for path in tmp_path.iterdir()] == (["metrics.jsonl"] if writes else [])


def test_a_line_that_a_killed_attempt_left_half_stands_alone(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n{"step": 2, "lo')
    run("import oelm_run; oelm_run.log(step=2, loss=0.5)", tmp_path)
    written = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert written[:2] == ['{"step": 1, "loss": 1.0}', '{"step": 2, "lo'] and json.loads(written[2])["loss"] == 0.5


def test_a_full_disk_is_said_once_and_the_program_goes_on(tmp_path: Path) -> None:
    needs(linux=True)
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    said = run("import oelm_run\nfor step in range(9): oelm_run.log(step=step, loss=1.0)", tmp_path)
    assert said == "oelm_run: metrics can't be written: [Errno 28] No space left on device\n"


def test_a_run_directory_that_is_gone_is_said_once_and_the_program_goes_on(tmp_path: Path) -> None:
    text = "import oelm_run\nfor step in range(9): oelm_run.log(step=step, loss=1.0)\nassert not oelm_run.should_stop()"
    said = run(text, None, OELM_RUN_DIR=str(tmp_path / "gone"))
    assert said.startswith("oelm_run: metrics can't be written: ") and said.count("\n") == 1


WAITS = """if True:
    import os, signal, sys, time, oelm_run
    {before}
    while not oelm_run.should_stop():
        print("waits", flush=True)
        time.sleep(0.01)
    oelm_run.log(step=7, loss=1.0)
    """


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("", ""),
        ("signal.signal(signal.SIGTERM, signal.SIG_IGN)", ""),
        ("signal.signal(signal.SIGTERM, lambda *_: sys.stderr.write('its own\\n'))", "its own\n"),
    ],
)
def test_a_program_that_asks_hears_of_a_stop_and_goes_on_to_its_end(before: str, said: str, tmp_path: Path) -> None:
    process = start(WAITS.format(before=before), tmp_path)
    assert process.stdout is not None and process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert process.communicate()[1] == said and process.returncode == 0
    assert lines(tmp_path) == [{"step": 7, "loss": 1.0}]


def test_processes_that_a_program_forks_are_ended_by_a_signal_as_ever(tmp_path: Path) -> None:
    text = """if True:
        import os, signal, time, oelm_run
        oelm_run.should_stop()
        here, there = os.pipe()
        pid = os.fork()
        if not pid:
            os.write(there, b"lives")
            time.sleep(20)
            os._exit(0)
        os.read(here, 5)
        os.kill(pid, signal.SIGTERM)
        assert os.waitpid(pid, 0)[1] == signal.SIGTERM
        assert not oelm_run.should_stop()
        """
    run(text, tmp_path)


def test_a_thread_that_asks_first_is_told_that_it_will_not_hear(tmp_path: Path) -> None:
    text = """if True:
        import threading, oelm_run
        thread = threading.Thread(target=oelm_run.should_stop)
        thread.start()
        thread.join()
        """
    assert run(text, tmp_path).startswith("oelm_run: should_stop() does not hear of a stop: signal only works in main")


def test_lines_of_several_threads_stay_whole(tmp_path: Path) -> None:
    text = """if True:
        import threading, oelm_run
        def work(number):
            for step in range(200):
                oelm_run.log(step=step, **{"loss_%d" % number: 1.0})
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        """
    run(text, tmp_path)
    assert len(lines(tmp_path)) == 800

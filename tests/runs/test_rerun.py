"""Runs that start over: a line of each in the ledger before anything is moved, and what reports make of it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs import Project, ledger
from oelm_jobs.errors import LocalError
from oelm_jobs.schedulers import Scheduler
from tests.support import read

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick")]

Oelm = Callable[..., subprocess.CompletedProcess[str]]
GPT = ("--study", "tiny", "--group", "gpt_base")


def run_dir(project: Path, name: str = "gpt_base") -> Path:
    return project / "models" / "checkpoints" / "tiny" / f"exp_{name}"


def archived(project: Path) -> list[Path]:
    return sorted((run_dir(project).parent / ".archive").glob("exp_gpt_base-2*"))


def lines(project: Path) -> list[dict[str, Any]]:
    path = ledger.path_of(project, "tiny")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def report(oelm: Oelm) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(oelm("report", "--study", "tiny", "--json").stdout)
    return shown


def told(shown: dict[str, Any]) -> str:
    return "\n".join([finding["text"] for finding in shown["findings"]] + shown["deviations"])


def losses(shown: dict[str, Any]) -> list[tuple[int, float]]:
    """Return seed and loss of the runs of gpt_base that count."""
    runs = [run for run in shown["runs"] if run["group"] == "gpt_base"]
    return [(run["seed"], run["final"]["val_loss"]) for run in runs]


def compute(shown: dict[str, Any]) -> dict[str, int]:
    return {row["kind"]: row["run_count"] for row in shown["tables"]["compute"]}


@pytest.fixture
def run(oelm: Oelm, project: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run groups to a loss, and return what was said."""

    def submit(loss: float, *words: str) -> str:
        monkeypatch.setenv("TRAINER_LOSS", str(loss))
        done = oelm("submit", *(words or GPT), "--yes", "--wait")
        return done.stdout + done.stderr

    return submit


Run = Callable[..., str]


def test_a_run_that_starts_over_leaves_a_line_of_what_it_was(oelm: Oelm, project: Path, run: Run) -> None:
    run(4.0)
    before = read(run_dir(project) / "experiment_result.json")
    run(3.0, *GPT, "--rerun", "--why", "a better idea")
    (place,) = archived(project)
    (entry,) = ledger.read(project, "tiny")
    assert (entry.event, entry.run, entry.seed, entry.state, entry.why) == (
        ledger.RERUN, "gpt_base", 42, "DONE", "a better idea",
    )  # fmt: skip
    assert (entry.metric, entry.value, entry.step, entry.has_result) == ("val_loss", 4.0, 12, True)
    assert entry.fingerprint == before["fingerprint"] and entry.token == before["attempts"][0]["token"]
    assert (entry.files, entry.place, entry.gpu_hours) == (ledger.ARCHIVED, str(place), 0.0)
    assert [line["files"] for line in lines(project)] == ["moving", "archived"]
    shown = report(oelm)
    text = "gpt_base: seed 42 ran twice (a better idea); the first result was val_loss 4, the newest one counts"
    assert text in told(shown)
    assert losses(shown) == [(42, 3.0)] and compute(shown) == {"finished, judged": 1, "started over": 1, "all": 2}


def test_the_line_is_on_the_disk_before_anything_is_moved(
    project: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(4.0)
    seen: list[str] = []

    def archive(self: Scheduler, run_dirs: Any, **more: Any) -> Any:
        seen.extend(line["files"] for line in lines(project))
        assert run_dir(project).exists()
        raise KeyboardInterrupt  # and nothing is moved

    monkeypatch.setattr(Scheduler, "archive", archive)
    with Project(project, say=lambda text: None) as mine, pytest.raises(KeyboardInterrupt):
        mine.submit(mine.plan("tiny", groups=["gpt_base"]), "rerun")
    assert seen == ["moving"]


def test_what_was_to_start_over_and_did_not_is_no_earlier_run(
    oelm: Oelm, project: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(4.0)

    def archive(self: Scheduler, run_dirs: Any, **more: Any) -> Any:
        raise LocalError("no")

    monkeypatch.setattr(Scheduler, "archive", archive)
    with Project(project, say=lambda text: None) as mine, pytest.raises(LocalError):
        mine.submit(mine.plan("tiny", groups=["gpt_base"]), "rerun")
    shown = report(oelm)
    assert "ran twice" not in told(shown) and compute(shown) == {"finished, judged": 1, "all": 1}
    checklist = oelm("report", "--study", "tiny", "--checklist", "neurips").stdout
    assert "Runs: 1 (1 DONE)" in checklist and "in the ledger" not in checklist


def test_a_ledger_that_cannot_be_written_keeps_the_run_from_starting_over(oelm: Oelm, project: Path, run: Run) -> None:
    run(4.0)
    ledger.path_of(project, "tiny").mkdir(parents=True)
    refused = oelm("submit", *GPT, "--rerun", "--yes", check=False)
    assert refused.returncode != 0 and "ledger.jsonl: can't be written" in refused.stderr
    assert run_dir(project).exists() and archived(project) == []


def test_in_a_locked_study_the_first_result_decides_however_often_it_runs_again(
    oelm: Oelm, project: Path, run: Run
) -> None:
    """Running until it fits."""
    oelm("report", "--study", "tiny", "--lock")
    run(4.0)
    for loss in (3.5, 3.0):
        run(loss, *GPT, "--rerun")
    shown = report(oelm)
    first = archived(project)[0]
    text = "gpt_base: seed 42 ran 3 times; the first result was val_loss 4 and decides, since the study is locked"
    assert f"{text} ({first})" in told(shown)
    assert losses(shown) == [(42, 4.0)]
    assert compute(shown) == {"finished, judged": 1, "started over": 2, "all": 3}
    assert shown["lock"]["rest_locked_first"] is True and shown["deviations"] == []


def test_a_first_attempt_that_crashed_is_no_result(oelm: Oelm, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    oelm("report", "--study", "tiny", "--lock")
    monkeypatch.setenv("TRAINER_LOSS", "no number")
    assert oelm("submit", *GPT, "--wait", check=False).returncode == 1
    run(3.0, *GPT, "--rerun")
    shown = report(oelm)
    assert losses(shown) == [(42, 3.0)] and "decides" not in told(shown)
    assert "gpt_base: seed 42 ran twice; before, it had no result: gpt_base (FAILED" in told(shown)


def test_a_seed_that_was_forgotten_after_the_lock_decides_all_the_same(oelm: Oelm, project: Path, run: Run) -> None:
    """Dropping a seed."""
    oelm("report", "--study", "tiny", "--lock")
    run(4.0)
    oelm("forget", "gpt_base", "--yes", "--why", "an outlier")
    shown = report(oelm)
    assert "gpt_base: seed 42 was forgotten (an outlier); the first result was val_loss 4 and decides" in told(shown)
    assert losses(shown) == [(42, 4.0)] and compute(shown)["forgotten"] == 1
    run(3.0)
    assert losses(report(oelm)) == [(42, 4.0)], "nor does another one take its place"


def test_a_first_result_whose_files_were_removed_is_told_to_decide_all_the_same(
    oelm: Oelm, project: Path, run: Run
) -> None:
    oelm("report", "--study", "tiny", "--lock")
    run(4.0)
    shutil.rmtree(run_dir(project))
    assert "its files are gone: it starts over" in run(3.0)
    assert "the first result was val_loss 4 and decides, since the study is locked; its files are gone" in told(
        report(oelm)
    )


def test_a_result_from_before_the_lock_may_be_replaced_until_then(oelm: Oelm, project: Path, run: Run) -> None:
    run(4.0)
    run(3.5, *GPT, "--rerun")
    oelm("report", "--study", "tiny", "--lock")
    assert losses(report(oelm)) == [(42, 3.5)]
    run(3.0, *GPT, "--rerun")
    assert losses(report(oelm)) == [(42, 3.5)]

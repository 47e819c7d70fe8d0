"""Runs that are forgotten: what is over alone, once the ledger has a line, and so that nothing of it comes back."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs import Project, State, ledger
from oelm_jobs.errors import LocalError, TargetError, UsageError
from oelm_jobs.runs import forget
from oelm_jobs.store import Store
from tests.support import held, read, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick")]

Oelm = Callable[..., subprocess.CompletedProcess[str]]
GPT = ("submit", "--study", "tiny", "--group", "gpt_base")


def run_dir(project: Path, name: str = "gpt_base") -> Path:
    return project / "models" / "checkpoints" / "tiny" / f"exp_{name}"


def archived(project: Path, name: str = "gpt_base") -> list[Path]:
    return sorted((run_dir(project).parent / ".archive").glob(f"exp_{name}-2*"))


def states(oelm: Oelm, *words: str) -> dict[str, str]:
    return {run["name"]: run["state"] for run in json.loads(oelm("status", "--json", *words).stdout)["runs"]}


def lines(project: Path) -> list[dict[str, Any]]:
    path = ledger.path_of(project, "tiny")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def hold(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the run wait after its first checkpoint."""
    monkeypatch.setenv("TRAINER_HOLD", str(held(project.parent).parent))


@pytest.fixture
def done(oelm: Oelm, project: Path) -> Path:
    """A run that is done."""
    oelm(*GPT, "--wait")
    return run_dir(project)


def test_a_forgotten_run_is_in_the_ledger_and_nowhere_else(oelm: Oelm, project: Path, done: Path) -> None:
    result = read(done / "experiment_result.json")
    before = {path.name: path.read_bytes() for path in done.glob("[!.]*.*")}
    said = oelm("forget", "gpt_base", "--yes", "--why", "wrong data")
    (place,) = archived(project)
    assert f"gpt_base: forgotten; its files are in {place} on local" in said.stdout
    assert {path.name: path.read_bytes() for path in place.glob("[!.]*.*")} == before and not done.exists()
    (line,) = lines(project)
    assert {key: line[key] for key in ("run", "seed", "state", "why", "files", "place")} == {
        "run": "gpt_base", "seed": 42, "state": "DONE", "why": "wrong data", "files": "archived", "place": str(place),
    }  # fmt: skip
    assert line["fingerprint"] == result["fingerprint"] and line["token"] == result["attempts"][0]["token"]
    assert line["metric"] == "val_loss" and line["step"] == 12 and line["gpu_hours"] == 0.0
    assert states(oelm) == {}
    assert states(oelm, "--rebuild") == {}, "an index that is made again does not bring it back"
    report = json.loads(oelm("report", "--study", "tiny", "--json").stdout)
    assert [run for run in report["runs"] if run["status"] == "DONE"] == []
    assert "1 run of this study was forgotten" in json.dumps(report) and "wrong data" in json.dumps(report)


def test_a_forgotten_run_is_submitted_anew_from_its_beginning(oelm: Oelm, project: Path, done: Path) -> None:
    oelm("forget", "tiny/gpt_base", "--yes")
    assert "gpt_base: submitted to local" in oelm(*GPT, "--wait").stdout
    result = read(done / "experiment_result.json")
    assert [attempt["number"] for attempt in result["attempts"]] == [1] and len(archived(project)) == 1
    assert states(oelm, "--rebuild") == {"gpt_base": "DONE"}, "the new one is no forgotten one"
    oelm("forget", "gpt_base", "--yes")
    assert len(archived(project)) == len(lines(project)) == 2 and states(oelm, "--rebuild") == {}


def test_what_a_forgotten_run_made_is_removed_where_that_is_asked_for(oelm: Oelm, project: Path, done: Path) -> None:
    said = oelm("forget", "gpt_base", "--delete", "--yes")
    assert "gpt_base: forgotten; its files on local are removed" in said.stdout
    assert not done.exists() and archived(project) == []
    assert [line["files"] for line in lines(project)] == ["removed"] and states(oelm, "--rebuild") == {}


def test_a_result_of_a_locked_study_is_not_removed_with_its_only_copy(oelm: Oelm, project: Path) -> None:
    oelm("report", "--study", "tiny", "--lock")
    oelm(*GPT, "--wait")
    refused = oelm("forget", "gpt_base", "--delete", "--yes", check=False)
    assert refused.returncode == 2 and "no copy here" in refused.stderr and "tiny/gpt_base" in refused.stderr
    assert run_dir(project).exists() and lines(project)[1:] == []
    oelm("forget", "gpt_base", "--yes")
    assert len(archived(project)) == 1


def test_a_run_is_forgotten_only_once_it_is_over(oelm: Oelm, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hold(project, monkeypatch)
    oelm("submit", "--study", "tiny")
    wait_until(lambda: states(oelm)["gpt_base"] == "RUNNING", "the first run")
    for words in (("tiny",), ("tiny", "--delete"), ("gpt_base",)):
        refused = oelm("forget", *words, "--yes", check=False)
        assert refused.returncode == 2 and "tiny/gpt_base is RUNNING" in refused.stderr
        assert "end it first: oelm-cancel tiny/gpt_base" in refused.stderr
    assert len(states(oelm)) == 3 and run_dir(project).exists() and lines(project) == []
    oelm("cancel", "tiny", "--yes")
    said = oelm("forget", "--state", "CANCELLED", "--yes")
    assert "3 of 3 runs: gpt_base, oelm_no_freeze, oelm_freeze" in said.stderr
    assert states(oelm, "--rebuild") == {} and len(lines(project)) == 3


def test_a_run_that_a_script_started_again_is_alive_whatever_the_index_says(
    oelm: Oelm, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index has it as cancelled; its target, or else its claim, knows better."""
    hold(project, monkeypatch)
    oelm(*GPT)
    wait_until(lambda: states(oelm) == {"gpt_base": "RUNNING"}, "the run")
    with Store() as store, Project(project, say=lambda text: None) as mine:
        (alive,) = store.runs(project)
        store.observe([alive._replace(state=State.CANCELLED)])
        with pytest.raises(UsageError, match="tiny/gpt_base is RUNNING"):
            mine.forget("gpt_base")
        stale = mine.refresh()
        over = alive._replace(state=State.CANCELLED)
        object.__setattr__(stale, "runs", (over,))  # it was started between the look and now
        for delete in (False, True):
            found = forget.forget(
                store, project, stale, why="", delete=delete, confirm=lambda runs: None, say=lambda text: None
            )
            assert not found.done and "still in use" in str(found.unreachable["local"])
    assert states(oelm) == {"gpt_base": "RUNNING"} and lines(project) == [] and run_dir(project).exists()
    oelm("cancel", "gpt_base")


def test_a_run_that_is_submitted_again_meanwhile_stays(project: Path, done: Path) -> None:
    said: list[str] = []

    def submit_again(runs: Any) -> None:
        with Project(project, say=lambda text: None) as other:
            other.submit(other.plan("tiny", groups=["gpt_base"]), "rerun")
            other.wait()

    with Project(project, say=said.append) as mine:
        found = mine.forget("gpt_base", confirm=submit_again)
        assert not found.done and [run.state for run in mine.runs()] == [State.DONE]
        assert any("gpt_base was submitted again meanwhile; what it had made is in" in text for text in said)
    assert [line["event"] for line in lines(project)] == ["rerun", "rerun"], (
        "it started over, and nothing was forgotten"
    )


def test_a_run_whose_submission_has_no_answer_is_not_forgotten(project: Path, done: Path) -> None:
    with Store() as store, Project(project, say=lambda text: None) as mine:
        plan = mine.plan("tiny", groups=["gpt_base"])
        alive = json.dumps({"pid": 1, "start_time": "0", "boot_id": "b", "host": "another"})
        store.intend(project, "local", str(project), "oelm-open", alive, plan.runs, lambda known: plan.runs[0])
        with pytest.raises(UsageError, match="tiny/gpt_base is PLANNED") as refused:
            mine.forget("gpt_base")
        assert "try again" in refused.value.hint
        assert [run.token for run in store.runs(project)] == ["oelm-open"]


def test_without_a_line_in_the_ledger_nothing_is_forgotten(project: Path, done: Path) -> None:
    (project / "experiments").write_text("no folder")
    with Project(project, say=lambda text: None) as mine:
        with pytest.raises(LocalError, match=r"ledger\.jsonl: can't be written"):
            mine.forget("gpt_base")
        assert [run.name for run in mine.runs()] == ["gpt_base"] and done.exists()


def test_the_line_is_there_before_the_index_forgets(project: Path, done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append = ledger.append

    def fail(project: Path, study: str, entries: Any) -> None:
        if entries:
            raise LocalError("the disk is full")
        append(project, study, entries)

    with Project(project, say=lambda text: None) as mine:
        monkeypatch.setattr(ledger, "append", fail)
        with pytest.raises(LocalError, match="full"):
            mine.forget("gpt_base")
        assert [run.name for run in mine.runs()] == ["gpt_base"]
        monkeypatch.setattr(ledger, "append", append)
        assert [one.run.name for one in mine.forget("gpt_base").done] == ["gpt_base"]


def test_of_a_target_that_is_gone_only_what_is_known_to_be_over_is_forgotten(oelm: Oelm, project: Path) -> None:
    targets = project / "jobs" / "targets.toml"
    with_both = targets.read_text() + targets.read_text().replace("[local]", "[other]")
    targets.write_text(with_both)
    oelm(*GPT, "--target", "other", "--wait")
    targets.write_text(with_both.partition("[other]")[0])
    with Project(project, say=lambda text: None) as mine:
        with pytest.raises(TargetError, match="nothing can be removed there"):
            mine.forget("gpt_base", delete=True)
        with Store() as store:
            (over,) = store.runs(project)
            store.observe([over._replace(state=State.RUNNING)])
            with pytest.raises(TargetError, match="can't be asked whether tiny/gpt_base is over"):
                mine.forget("gpt_base")
            store.observe([over])
        (one,) = mine.forget("gpt_base").done
        assert one.entry.files == ledger.STAYS and mine.runs() == [] and run_dir(project).exists()
    targets.write_text(with_both)
    assert states(oelm, "--rebuild") == {}, "it stays forgotten when the target is back"
    assert "gpt_base: submitted to other" in oelm(*GPT, "--target", "other", "--wait").stdout
    assert len(archived(project)) == 1, "what stayed is no new run's"
    assert read(run_dir(project) / "experiment_result.json")["attempts"][0]["number"] == 1
    assert states(oelm, "--rebuild") == {"gpt_base": "DONE"}


def test_nobody_forgets_without_being_asked(oelm: Oelm, project: Path, done: Path) -> None:
    nothing = oelm("forget", check=False)
    assert nothing.returncode == 2 and "name a study, a group or a run" in nothing.stderr
    unasked = oelm("forget", "gpt_base", check=False)
    assert unasked.returncode == 2 and "give --yes to confirm" in unasked.stderr
    assert "Forget gpt_base (DONE)?" in unasked.stderr
    leader, follower = pty.openpty()
    program = "from oelm_jobs.cli.forget import main; main()"
    asked = subprocess.Popen([sys.executable, "-c", program, "gpt_base", "--delete"], cwd=project, stdin=follower,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    os.write(leader, b"n\n")
    _, said = asked.communicate(timeout=120)
    assert (
        asked.returncode == 2
        and "and remove for good what is on local" in said
        and "not confirmed; nothing was done" in said
    )
    assert states(oelm) == {"gpt_base": "DONE"} and done.exists() and lines(project) == []


def test_a_run_of_which_nothing_is_left_is_forgotten(oelm: Oelm, project: Path, done: Path) -> None:
    import shutil

    shutil.rmtree(done)
    said = oelm("forget", "gpt_base", "--json", "--yes")
    (row,) = json.loads(said.stdout)["runs"]
    assert (row["run"], row["files"], row["place"], row["value"]) == ("gpt_base", "none", "", row["value"])
    assert states(oelm) == {}

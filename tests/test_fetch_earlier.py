"""What of runs that were started over or forgotten is fetched, from where, and when it is here."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from oelm_jobs import Project, State, connections, ledger
from oelm_jobs.cli import fetch as cli_fetch
from oelm_jobs.errors import LocalError, UsageError
from oelm_jobs.ledger import Entry
from oelm_jobs.runs import forget
from oelm_jobs.transfer import earlier, fetch, sync

PROGRAM = {"stages": [], "metrics": {"files": ["out/*.csv"], "goal": {"loss": "minimize"}}, "checkpoint": "ck-*"}
WORK = ("work/out/log.csv", "work/out/other.bin", "work/ck-5/w.json", "training.log", "ck-1.json")


@pytest.fixture
def far(tmp_path: Path, project: Path) -> Path:
    """A target's folder of run directories, elsewhere on this machine, in a project whose study is locked."""
    (project / "jobs" / "targets.toml").write_text(f"[far]\nkind = 'local'\nroot = '{tmp_path / 'far'}'\n")
    (project / "experiments" / "tiny").mkdir(parents=True)
    (project / "experiments" / "tiny" / "tiny_lock.json").write_text("{}")
    return tmp_path / "far" / "models" / "checkpoints" / "tiny"


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def make(place: Path, token: str = "oelm-1", program: dict[str, Any] | None = None) -> Path:
    """Write what a run leaves that is over; it trained in another folder than this."""
    record = {"token": token, "study": "tiny", "run": "a", "run_dir": "/r/exp_a", "seed": 42, "train": {}}
    put(place / ".oelm" / "run.json", json.dumps({**record, "program": program} if program else record))
    names = WORK if program else ("training.log", "best_model.pt", "treatment.json")
    for name in (*names, "metrics.jsonl", "experiment_result.json"):
        put(place / name, "{}\n")
    files = [path for path in sorted(place.rglob("*")) if path.is_file() and ".oelm" not in path.parts]
    listed = [
        {"name": str(path.relative_to(place)), "size": 3, "sha256": hashlib.sha256(b"{}\n").hexdigest()}
        for path in files
    ]
    put(place / "MANIFEST.json", json.dumps({"version": 1, "files": listed}))
    start = {"number": 1, "token": token, "started_at": 1.0, "pid": 1, "start_time": "1", "boot_id": "x"}
    end = {"version": 1, "token": token, "state": "DONE", "ended_at": 2.0, "attempts": [{"number": 1, "token": token}]}
    put(place / ".oelm" / "start.json", json.dumps(start))
    put(place / ".oelm" / "end.json", json.dumps(end))
    return place


@pytest.fixture
def told(project: Path, far: Path) -> Callable[..., Entry]:
    """Write a line into the ledger."""

    def write(**more: Any) -> Entry:
        entry = Entry(**{
            "event": ledger.RERUN, "time": 1.7e9, "study": "tiny", "run": "a", "group": "a", "seed": 42, "tag": "",
            "fingerprint": "", "token": "oelm-1", "target": "far", "run_dir": str(far / "exp_a"), "state": "DONE",
            "reason": "", "metric": None, "value": None, "step": None, "has_result": True, "gpu_hours": None, "why": "",
            "files": ledger.ARCHIVED, "place": str(far / ".archive" / "exp_a-1"), **more,
        })  # fmt: skip
        ledger.append(project, "tiny", [entry])
        return entry

    return write


def home(project: Path, name: str = "exp_a-oelm-1") -> Path:
    return project / "models" / "checkpoints" / "tiny" / ".archive" / name


def brought(project: Path, **options: Any) -> list[earlier.Earlier]:
    with Project(project, say=lambda text: None) as mine:
        return list(mine.fetch(**options).earlier)


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {".oelm/fetched.json"}


RECORDS = {"metrics.jsonl", "experiment_result.json", "MANIFEST.json", ".oelm/run.json", ".oelm/start.json",
           ".oelm/end.json"}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "more"),
    [(None, {"treatment.json"}), (PROGRAM, {"training.log", "work/out/log.csv"})],
    ids=["trainer", "script"],
)
def test_what_a_report_reads_comes_home_once_and_nothing_else(
    project: Path, far: Path, told: Callable[..., Entry], program: dict[str, Any] | None, more: set[str]
) -> None:
    entry = told()
    make(Path(entry.place), program=program)
    (one,) = brought(project)
    assert names(home(project)) == RECORDS | more and one.run_dir == home(project)
    assert one.complete and not one.damaged and one.new_files == len(RECORDS | more)
    assert sync.verify(home(project)).damaged == () and sync.record(home(project))["run_dir"] == entry.place
    assert list(ledger.kept(project, "tiny", entry)) == [home(project)]
    connections.close_all()
    shutil.rmtree(far)
    assert brought(project) == [], "it isn't looked for again"


@pytest.mark.slow
def test_what_a_lost_supervisor_has_left_comes_home_once_too(project: Path, told: Callable[..., Entry]) -> None:
    place = Path(told(has_result=False).place)
    make(place, program=PROGRAM)
    for name in ("MANIFEST.json", "experiment_result.json", ".oelm/end.json"):
        (place / name).unlink()
    (one,) = brought(project)
    assert one.complete and names(home(project)) == {
        "metrics.jsonl", "training.log", "work/out/log.csv", ".oelm/run.json", ".oelm/start.json"
    }  # fmt: skip
    assert brought(project) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "place", "lies"),
    [(ledger.MOVING, "", ".archive/exp_a-1"), (ledger.STAYS, "", "exp_a"), (ledger.STAYS, "", ".archive/exp_a-1"),
     (ledger.ARCHIVED, "gone", ".archive/exp_a-2")],
)  # fmt: skip
def test_what_lies_elsewhere_than_the_ledger_says_is_found_by_its_submission(
    project: Path, far: Path, told: Callable[..., Entry], files: str, place: str, lies: str
) -> None:
    told(files=files, place=place and str(far / ".archive" / place))
    make(far / lies)
    make(far / ".archive" / "exp_a-0", "oelm-0")
    make(far / ".archive" / "exp_ab-1", "oelm-1")
    (one,) = brought(project)
    assert one.complete and sync.record(home(project))["run_dir"] == str(far / lies)
    assert brought(project) == []


def test_another_run_in_its_place_is_not_it_and_the_ledger_says_that_it_is_gone(
    project: Path, far: Path, told: Callable[..., Entry]
) -> None:
    told(files=ledger.STAYS, place="")
    make(far / "exp_a", "oelm-2")
    for verify in (False, True):
        (one,) = brought(project, verify=verify)
        assert "is not on far any more" in one.note and not home(project).exists()
        assert [json.loads(line)["files"] for line in ledger.path_of(project, "tiny").open()] == ["stays", "gone"]
    assert brought(project) == [], "only --verify looks again"


def test_only_locked_studies_are_asked_for_and_only_runs_that_are_meant(
    project: Path, told: Callable[..., Entry]
) -> None:
    def lacking(studies: set[str] | None = None, *current: tuple[str, str, str]) -> list[str]:
        return [entry.run for entry in earlier.lacking(project, studies, current)]

    told()
    told(run="../a")
    told(run="b", token="../1")
    told(run="c", files=ledger.REMOVED)
    told(run="d", study="other")
    assert lacking() == lacking({"tiny"}) == ["a"]
    assert lacking({"other"}) == lacking(None, ("tiny", "a", "oelm-1")) == []
    assert lacking(None, ("tiny", "a", "oelm-2")) == ["a"]
    (project / "experiments" / "tiny" / "tiny_lock.json").unlink()
    assert lacking() == []
    ledger.append_lock(project, "tiny", {"version": 1})
    assert lacking() == ["a"], "a lock file that is away was there"


@pytest.mark.slow
def test_a_fetch_that_was_killed_goes_on_and_what_was_changed_here_comes_anew(
    project: Path, told: Callable[..., Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    make(Path(told().place))

    def killed(*_: Any) -> None:
        raise LocalError("killed")

    with monkeypatch.context() as patch, pytest.raises(LocalError):
        patch.setattr(fetch._Fetch, "_settle", killed)
        brought(project)
    (home(project) / ".oelm" / "end.json").unlink()
    (one,) = brought(project)
    assert one.complete and (home(project) / ".oelm" / "end.json").exists()
    (home(project) / "metrics.jsonl").write_text("{}{}")
    (one,) = brought(project)
    assert one.new_files == 1 and one.complete
    assert [each.new_files for each in brought(project, verify=True)] == [0]


@pytest.mark.slow
def test_a_target_that_is_no_more_keeps_nothing_else_from_coming(project: Path, told: Callable[..., Entry]) -> None:
    make(Path(told().place))
    told(run="b", target="sold")
    found = {one.entry.run: one for one in brought(project)}
    assert found["a"].complete and "sold" in found["b"].note


@pytest.mark.slow
def test_the_ledger_s_place_says_what_it_is_where_a_later_submission_began_nothing(
    project: Path, told: Callable[..., Entry]
) -> None:
    """Submitting a run again and cancelling it before it starts, so that its record isn't of that submission."""
    entry = told(token="oelm-2", state="CANCELLED", has_result=False)
    make(Path(entry.place), "oelm-1")
    (one,) = brought(project)
    assert one.complete and list(ledger.kept(project, "tiny", entry)) == [home(project, "exp_a-oelm-2")]
    shutil.copytree(home(project, "exp_a-oelm-2"), home(project, "exp_a-9"))
    assert list(ledger.kept(project, "tiny", replace(entry, place=""))) == [home(project, "exp_a-oelm-2")]
    assert list(ledger.kept(project, "tiny", replace(entry, token="oelm-3"))) == []
    assert list(ledger.kept(project, "tiny", entry, {"oelm-1"})) == [], "it is known to be another submission's"


def test_a_copy_of_a_younger_run_under_a_first_result_s_name_is_not_it_and_keeps_nothing_from_coming(
    project: Path, told: Callable[..., Entry]
) -> None:
    entry = told()
    make(Path(entry.place))
    for name in ("exp_a-oelm-1", "exp_a-1"):  # as it would be called that was fetched, and as it is there
        control = make(home(project, name), "oelm-2") / ".oelm" / "run.json"
        put(control, json.dumps({**json.loads(control.read_text()), "queued_at": entry.time + 60}))
    assert list(ledger.kept(project, "tiny", entry)) == []
    (one,) = brought(project)
    assert one.complete and list(ledger.kept(project, "tiny", entry)) == [home(project)]
    assert json.loads((home(project) / ".oelm" / "run.json").read_text())["token"] == "oelm-1"
    assert brought(project) == []


@pytest.fixture
def forgotten(project: Path, told: Callable[..., Entry]) -> Entry:
    """A run that was forgotten, of a study of which the index knows none."""
    entry = told(event=ledger.FORGOTTEN, run="a-s43", seed=43, tag="lr1", place="")
    return told(**{**vars(entry), "files": ledger.MOVING, "run_dir": str(Path(entry.run_dir).with_name("exp_a-s43"))})


def put_away(entry: Entry) -> None:
    place = make(Path(entry.run_dir).parent / ".archive" / "exp_a-s43-1")
    control = place / ".oelm" / "run.json"
    put(control, json.dumps({**json.loads(control.read_text()), "run": "a-s43"}))


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [("tiny",), ("a",), ("a-s43",), ("tiny/a-s43",), ("tiny/a-*",), ("--study", "tiny"), ("--seed", "43"),
     ("--study", "tiny", "--seed", "42-43", "a"), ("--tag", "lr*"), ("--state", "done")],
    ids=" ".join,
)  # fmt: skip
def test_what_was_forgotten_comes_home_by_each_of_its_names(
    project: Path, forgotten: Entry, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    put_away(forgotten)
    monkeypatch.chdir(project)
    for count in (1, 0):
        done = CliRunner().invoke(cli_fetch.main, [*words, "--json"])
        shown = json.loads(done.stdout)
        assert done.exit_code == 0 and [run["run"] for run in shown["earlier"]] == ["a-s43"] * count, done.output
    said = CliRunner().invoke(cli_fetch.main, list(words))
    assert said.exit_code == 0 and "There is nothing more to fetch of runs that were" in said.stderr
    assert home(project, "exp_a-s43-oelm-1").is_dir()


@pytest.mark.parametrize(
    ("words", "said"),
    [(("tiny/a-s34",), "did you mean 'tiny/a-s43'?"), (("--study", "tinyy"), "did you mean 'tiny'?"),
     (("a", "--seed", "42"), "--seed 42: no such run; valid: 43")],
    ids=["run", "study", "seed"],
)  # fmt: skip
def test_a_misspelt_name_of_what_was_forgotten_is_refused_with_the_right_one(
    project: Path, forgotten: Entry, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(project)
    done = CliRunner().invoke(cli_fetch.main, list(words))
    assert done.exit_code == 2 and said in done.stderr, done.output


@pytest.mark.slow
def test_of_what_is_named_nothing_else_comes(project: Path, told: Callable[..., Entry], forgotten: Entry) -> None:
    make(Path(told().place))
    put_away(forgotten)
    with Project(project, say=lambda text: None) as mine:
        assert [one.entry.run for one in mine.fetch("a-s43").earlier] == ["a-s43"]
        assert [one.entry.run for one in mine.fetch().earlier] == ["a"]
        with pytest.raises(UsageError, match="a-s43"):
            mine.cancel("a-s43")


def test_a_result_of_a_locked_study_is_removed_once_a_copy_of_it_is_here(
    project: Path, told: Callable[..., Entry]
) -> None:
    run = earlier.run_of(project, told())
    for over in (run, run._replace(state=State.FAILED, reason="diverged: loss is not finite at step 7")):
        with pytest.raises(UsageError, match="no copy here, nothing was done: tiny/a") as refused:
            forget.check_copies(project, [over])
        assert "oelm-fetch brings them" in refused.value.hint
    forget.check_copies(project, [run._replace(state=State.FAILED, reason="oom"), run._replace(study="other")])
    here = make(home(project).parents[1] / "exp_a")
    put(here / ".oelm" / "fetched.json", json.dumps({"run_dir": run.run_dir, "files": {}}))
    forget.check_copies(project, [run])
    (here / "MANIFEST.json").unlink()
    with pytest.raises(UsageError):
        forget.check_copies(project, [run])

"""The client's index: migrations, concurrent writers, and who gets a run."""

from __future__ import annotations

import copy
import dataclasses
import json
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import ANY

import pytest

from oelm_jobs import folders, language
from oelm_jobs import store as stores
from oelm_jobs.agent.reasons import because, codes, told
from oelm_jobs.agent.run_record import RunRecord
from oelm_jobs.agent.states import State
from oelm_jobs.cli import view
from oelm_jobs.errors import StoreError, UsageError
from oelm_jobs.programs import script
from oelm_jobs.runs import locations, observe
from oelm_jobs.runs.select import select, select_one
from oelm_jobs.spec.program import Metrics, Program
from oelm_jobs.store import ACCEPTED, REFUSED, SAME, Store
from tests.support import make_run

WRITER = """
import sys
from pathlib import Path
from oelm_jobs.store import Store
from tests.support import make_run
with Store() as store:
    for i in range(20):
        run = make_run(Path("/p"), f"r{sys.argv[1]}-{i}")
        store.intend(Path("/p"), "local", "/p", f"t{sys.argv[1]}-{i}", "{}", [run], lambda known: None)
        store.answer(f"t{sys.argv[1]}-{i}", "accepted", states={run.run_dir: ("QUEUED", "")})
"""


def intend(store: Store, *runs, token: str = "t", again: bool = False) -> list[str]:
    by_name = {run.name: run for run in runs}
    taken = store.intend(
        Path("/p"), "local", "/p", token, "{}", runs, lambda known: by_name[known.name] if again else None
    )
    return [run.name for run in taken]


def test_a_test_that_undoes_its_changes_still_has_no_part_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    own = folders.state_folder()
    monkeypatch.setenv("OELM_STATE_DIR", "/elsewhere")
    monkeypatch.undo()
    assert folders.state_folder() == own


@pytest.mark.slow
def test_concurrent_writers_lose_nothing() -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(i)]) for i in range(8)]
    assert [writer.wait(120) for writer in writers] == [0] * 8
    with Store() as store:
        runs = store.runs(Path("/p"))
    assert len(runs) == 160 and {run.state for run in runs} == {State.QUEUED}


def test_a_run_is_given_to_one_submission(tmp_path: Path) -> None:
    with Store(tmp_path / "s") as store:
        runs = [make_run(tmp_path, name) for name in "ab"]
        assert intend(store, runs[0], token="t1") == ["a"]
        assert intend(store, *runs, token="t2") == ["b"]
        assert {run.name: run.token for run in store.runs(Path("/p"))} == {"a": "t1", "b": "t2"}
        assert intend(store, runs[0], token="t3", again=True) == ["a"]
        assert [one.token for one in store.open_submissions(Path("/p"))] == ["t1", "t2", "t3"]


def test_others_wait_for_the_index_while_no_record_of_a_script_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = Metrics(lines=("{loss}",), goal={"loss": "minimize", "lr": "maximize"})
    program = Program(stages=(), length="steps", metrics=metrics)
    run = dataclasses.replace(make_run(tmp_path, "a"), program=program, settings={"lr": 1.0, "steps": 9}, code="c")
    record = RunRecord.of(
        {**{key: getattr(run, key) for key in SAME}, "program": script.record(run), "train_code": "c"}
    )
    monkeypatch.setattr(script, "record", lambda run: pytest.fail("a record was made"))
    with Store(tmp_path / "s") as store:
        assert intend(store, run) == ["a"]
        (sent,) = store.runs(Path("/p"))
        store.add_runs(Path("/q"), "box", [record])
        (found,) = store.runs(Path("/q"))
    for one in (sent, found):
        assert (one.is_script, one.settings, one.max_steps, one.code) == (True, {"lr": 1.0, "steps": 9}, 9, "c")
        assert view.columns([one])[view.METRIC] == "loss"


def test_an_observation_of_an_older_submission_changes_nothing(tmp_path: Path) -> None:
    with Store(tmp_path / "s") as store:
        run = make_run(tmp_path, "a")
        intend(store, run, token="t1")
        before = store.runs(Path("/p"))[0]
        intend(store, run, token="t2", again=True)
        news = before._replace(state=State.FAILED, reason="old news", observed_at=1.0)
        store.observe([news], unchanged=[news])
        (run,) = store.runs(Path("/p"))
        assert (run.state, run.observed_at) == (State.PLANNED, None)


def test_an_answer_that_says_nothing_new_is_news_of_now(tmp_path: Path) -> None:
    """The age that is shown of a silent target is that of its last answer, by the clock here."""
    with Store(tmp_path / "s") as store:
        intend(store, make_run(tmp_path, "a"), token="t1")
        (run,) = store.runs(Path("/p"))
        store.observe([run._replace(state=State.QUEUED, reason="waiting", progress={"place": 1}, observed_at=1000.0)])
        (run,) = store.runs(Path("/p"))
        assert run.progress == {"place": 1}
        answer = {"time": 5.0, "runs": {run.run_dir: {"state": "QUEUED", "reason": "waiting", "place": 1}}}
        begun = time.time()
        (seen,) = observe._remember(store, [run], answer)
        (stored,) = store.runs(Path("/p"))
        assert stored.observed_at == seen.observed_at and (stored.observed_at or 0) >= begun


@pytest.mark.parametrize(
    ("kept", "is_news"),
    [('{"place": 1, "code": "waits"}', False), ('{"place": 2}', True), ("{", True), ("[]", True), ("[" * 2000, True)],
    ids=["the same", "another", "cut off", "no object", "too deep"],
)  # fmt: skip
def test_an_answer_is_stored_where_the_index_says_something_else(tmp_path: Path, kept: str, is_news: bool) -> None:
    with Store(tmp_path / "s") as store:
        intend(store, make_run(tmp_path, "a"), token="t1")
        store._db.execute("UPDATE run SET state = 'QUEUED', reason = 'waiting', progress = ?, observed_at = ?",
                          (kept, time.time()))  # fmt: skip
        (run,) = store.runs(Path("/p"))
        row = {"state": "QUEUED", "reason": "waiting", "code": "waits", "place": 1}
        (seen,) = observe._remember(store, [run], {"time": time.time(), "runs": {run.run_dir: row}})
        assert seen == run._replace(progress={"place": 1}, observed_at=ANY)
        (stored,) = store.runs(Path("/p"))
        assert (stored.observed_at != run.observed_at) == is_news


def test_an_end_that_was_known_is_not_forgotten(tmp_path: Path) -> None:
    """A disk that is away, or a cluster that has forgotten the job, has nothing new to say of it."""
    with Store(tmp_path / "s") as store:
        intend(store, make_run(tmp_path, "a"), token="t1")
        (run,) = store.runs(Path("/p"))
        store.observe([run._replace(state=State.DONE, reason="", progress={"step": 9}, observed_at=1000.0)])
        (run,) = store.runs(Path("/p"))
        answer = {"time": 5.0, "runs": {run.run_dir: {"state": "UNKNOWN", "reason": "no trace of it", "absent": True}}}
        assert observe._remember(store, [run], answer) == [run]
        (stored,) = store.runs(Path("/p"))
        assert (stored.state, stored.progress) == (State.DONE, {"step": 9})


def test_a_reason_is_kept_with_its_code_and_values(tmp_path: Path) -> None:
    said = because("submit_again", why=because("with_exit_code", what=because("no_end_record"), code="0:9"))
    with Store(tmp_path / "s") as store:
        intend(store, make_run(tmp_path, "a"), token="t1")
        store.answer("t1", ACCEPTED, states={str(tmp_path / "exp_a"): (State.QUEUED, "")})
        (run,) = store.runs(Path("/p"))
        store.observe([run._replace(state=State.FAILED, reason=said, progress={"step": 9}, observed_at=1000.0)])
        (run,) = store.runs(Path("/p"))
        assert run.reason == "its job ended without an end record (exit code 0:9): submit again to resume"
        assert codes(run.reason) == codes(said) and run.progress == {"step": 9}
        store.observe(
            [
                run._replace(
                    state=State.FAILED, reason="as an earlier version said it", progress={"step": 9}, observed_at=1000.0
                )
            ]
        )
        (run,) = store.runs(Path("/p"))
        assert type(run.reason) is str and run.reason == "as an earlier version said it"
        row = {"state": "FAILED", "step": 9, **told(because("reboot"))}
        (run,) = observe._remember(store, [run], {"time": 5.0, "runs": {run.run_dir: row}})
        assert codes(run.reason) == {"reboot"} and store.runs(Path("/p")) == [run]
        (kept,) = store.runs(Path("/p"))
        assert (language.translated(kept.reason, "en"), copy.copy(kept.reason)) == ("reboot", "reboot")
        store._db.execute("UPDATE run SET progress = '{\"code\": 3}', reason = 'as it came'")
        (run,) = store.runs(Path("/p"))
        assert language.translated(run.reason, "zh") == "as it came" and not codes(run.reason) - {""}


@pytest.mark.usefixtures("other_words")
@pytest.mark.parametrize("words", ["", "not submitted: nobody is there"], ids=["now", "an earlier version"])
def test_a_run_that_was_never_submitted_is_known_by_the_code_of_its_reason(tmp_path: Path, words: str) -> None:
    why = words or because("not_submitted", why="nobody is there")
    with Store(tmp_path / "s") as store:
        intend(store, make_run(tmp_path, "a"), token="t1")
        store.answer("t1", REFUSED, states={str(tmp_path / "exp_a"): (State.FAILED, why)})
        (run,) = store.runs(Path("/p"))
        assert run.state is State.FAILED and locations.never_was(run) and not observe._may_be_started_by_hand(run)
        answer = {"time": 5.0, "runs": {run.run_dir: {"state": "UNKNOWN", "reason": "no trace of it", "absent": True}}}
        assert observe._remember(store, [run], answer) == [run]
        other = run._replace(reason=because("reboot"))
        assert not locations.never_was(other) and observe._may_be_started_by_hand(other)


def test_a_store_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite3"
    old = sqlite3.connect(path)
    old.executescript(stores.MIGRATIONS[0])
    old.execute("PRAGMA user_version = 1")
    values = ("/p", "s", "a", "g", "l", 42, "", "local", "/d", "f", 1, "t", json.dumps({}), "DONE")
    columns = (
        'project, study, name, "group", label, seed, tag, target, run_dir, fingerprint, position, token, spec, state'
    )
    old.execute(f"INSERT INTO run ({columns}) VALUES ({', '.join('?' * 14)})", values)
    old.commit()
    old.close()
    with Store(path) as store:
        assert [(run.name, run.state) for run in store.runs(Path("/p"))] == [("a", State.DONE)]
        assert store._db.execute("PRAGMA user_version").fetchone()[0] == len(stores.MIGRATIONS)


def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    newer = sqlite3.connect(tmp_path / "s")
    newer.execute("PRAGMA user_version = 999")
    newer.close()
    with pytest.raises(StoreError, match="written by a newer oelm-jobs"):
        Store(tmp_path / "s")


def test_a_state_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="can't be used"):
        Store(tmp_path / "file" / "runs.sqlite3")


def test_the_users_folders_are_those_of_platformdirs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checked against the library, which is too slow to import at start."""
    import platformdirs

    from oelm_jobs import folders

    for config, state in ((None, None), ("/x/config", "/x/state"), ("relative", "relative")):
        for variable, value in (("XDG_CONFIG_HOME", config), ("XDG_STATE_HOME", state)):
            monkeypatch.setenv(variable, value) if value else monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv("OELM_STATE_DIR", raising=False)
        if config != "relative":
            assert folders.config_folder() == platformdirs.user_config_path("oelm-jobs")
            assert folders.state_folder() == platformdirs.user_state_path("oelm-jobs")
        else:
            assert folders.state_folder().is_absolute()


def test_a_word_names_a_group_with_all_its_seeds_and_study_with_run_one_of_them(tmp_path: Path) -> None:
    def record(name: str, group: str, seed: int) -> dict[str, object]:
        words = {"label": "", "tag": "", "fingerprint": "", "token": "t", "run_dir": f"/r/{name}"}
        return {"study": "tiny", "run": name, "group": group, "seed": seed, **words}

    with Store(tmp_path / "runs.sqlite3") as store:
        rows = [record("gpt", "gpt", 42), record("gpt-s43", "gpt", 43), record("oelm", "oelm", 42)]
        store.replace_runs(tmp_path, "box", list(map(RunRecord.of, rows)))

        def named(*words: str) -> list[str]:
            return [run.name for run in select(store, tmp_path, words)]

        assert named("gpt") == ["gpt", "gpt-s43"] and named("tiny/gpt") == ["gpt"] and named("gpt-s43") == ["gpt-s43"]
        assert named("tiny") == named() == ["gpt", "gpt-s43", "oelm"] and named("oelm", "tiny/gpt") == ["gpt", "oelm"]
        assert select_one(store, tmp_path, "gpt").name == "gpt", "what takes one run takes the group's first"
        with pytest.raises(UsageError, match="'gtp' names no study, group or run .*did you mean 'gpt'"):
            named("gtp")

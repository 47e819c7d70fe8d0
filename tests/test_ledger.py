"""The ledger of a study: lines that stay, whoever writes beside them and whatever else lies in the file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from oelm_jobs import ledger
from oelm_jobs.agent.states import State
from oelm_jobs.errors import LocalError
from oelm_jobs.stored_run import StoredRun
from tests.support import REPOSITORY


def a_run(name: str = "gpt_base", **changes: object) -> StoredRun:
    values = {
        "project": "/p", "study": "tiny", "name": name, "group": "gpt_base", "label": "GPT", "seed": 42, "tag": "",
        "target": "local", "run_dir": f"/r/exp_{name}", "fingerprint": "f", "token": "oelm-1",
        "spec": {"train": {"max_steps": 12, "seq_len": 16}, "global_batch": 4}, "state": State.DONE, "reason": "",
        "queued_at": 1.0, "observed_at": 2.0, "progress": {"step": 12, "val_loss": 3.5, "loss": 3.25},
    }  # fmt: skip
    return StoredRun(**{**values, **changes})  # type: ignore[arg-type]


def entry(run: StoredRun, **more: object) -> ledger.Entry:
    return ledger.entry_of(run, why="mistaken", files=ledger.ARCHIVED, **more)


def test_a_line_says_what_the_run_was_and_what_it_had_reached(tmp_path: Path) -> None:
    ledger.append(tmp_path, "tiny", [entry(a_run(), gpu_hours=0.5, place="/r/.archive/exp_gpt_base-1")])
    (line,) = (tmp_path / "experiments" / "tiny" / "ledger.jsonl").read_text().splitlines()
    content = json.loads(line)
    assert content["event"] == "forgotten" and content["why"] == "mistaken" and content["files"] == "archived"
    assert (content["run"], content["seed"], content["fingerprint"]) == ("gpt_base", 42, "f")
    assert (content["metric"], content["value"], content["step"], content["gpu_hours"]) == ("val_loss", 3.5, 12, 0.5)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    left = ({"target": "box", "run_dir": "/x/exp_a", "token": "oelm-0"},)
    spec = {"train": {"max_steps": 1, "seq_len": 1}, "global_batch": 1, "left": left}
    written = [entry(a_run()), entry(a_run("b", spec=spec, reason="it's \udcff off"), gpu_hours=0.25)]
    ledger.append(tmp_path, "tiny", written[:1])
    ledger.append(tmp_path, "tiny", written[1:])
    found = ledger.read(tmp_path, "tiny")
    assert [one.run for one in found] == ["gpt_base", "b"] and found[0] == written[0]
    assert found[1].left == left and ledger.read_all(tmp_path) == found
    assert ledger.tokens(found) == {("tiny", "gpt_base", "oelm-1"), ("tiny", "b", "oelm-1"), ("tiny", "b", "oelm-0")}


def test_a_line_has_what_makes_the_run_another_than_others(tmp_path: Path) -> None:
    before = {"max_steps": 6, "fingerprint": "e"}
    run = a_run(spec={"train": {"max_steps": 12, "seq_len": 16}, "global_batch": 4, "extended_from": before})
    ledger.append(tmp_path, "tiny", [entry(run)])
    (one,) = ledger.read(tmp_path, "tiny")
    assert (one.settings, one.global_batch, one.extended_from) == ({"max_steps": 12, "seq_len": 16}, 4, before)
    path = ledger.path_of(tmp_path, "tiny")
    older = {**json.loads(path.read_text())}
    for key in ("settings", "global_batch", "extended_from"):
        del older[key]
    path.write_text(json.dumps(older) + "\n")
    (one,) = ledger.read(tmp_path, "tiny")
    assert (one.settings, one.global_batch, one.extended_from) == ({}, 0, None)


@pytest.mark.parametrize("odd", [float("inf"), "\udcff", "x" * 100_000])
def test_settings_that_no_line_may_have_hide_no_line(tmp_path: Path, odd: object) -> None:
    ledger.append(tmp_path, "tiny", [entry(a_run(spec={"program": {"settings": {"a": odd}}}))])
    (one,) = ledger.read(tmp_path, "tiny")
    assert one.run == "gpt_base" and one.settings == {}


def test_a_scripts_line_has_the_metric_that_it_is_judged_by() -> None:
    program = {"settings": {}, "metrics": {"goal": {"accuracy": "maximize"}}}
    run = a_run(spec={"program": program, "global_batch": 0}, progress={"metrics": {"loss": 1.0, "accuracy": "nan"}})
    one = entry(run)
    assert (one.metric, one.value, one.step) == ("accuracy", "nan", None)
    assert entry(a_run(progress={})).metric is None


def test_of_two_lines_about_one_submission_the_later_counts(tmp_path: Path) -> None:
    ledger.append(tmp_path, "tiny", [entry(a_run()), entry(a_run(token="oelm-2"))])
    again = ledger.entry_of(a_run(), why="really", files=ledger.NONE)
    ledger.append(tmp_path, "tiny", [again])
    assert [(one.token, one.why) for one in ledger.read(tmp_path, "tiny")] == [
        ("oelm-1", "really"),
        ("oelm-2", "mistaken"),
    ]


@pytest.mark.parametrize(
    "odd", [b"{", b"[]", b'{"event": "forgotten"}', b"\xff\xfe", b"", b'{"event": 7, "time": 1, "study": "t"}']
)
def test_a_line_that_is_none_hides_no_other(tmp_path: Path, odd: bytes) -> None:
    ledger.append(tmp_path, "tiny", [entry(a_run())])
    path = ledger.path_of(tmp_path, "tiny")
    with path.open("ab") as file:
        file.write(odd)  # of a writer that was killed: without a newline
    ledger.append(tmp_path, "tiny", [entry(a_run("b"))])
    assert [one.run for one in ledger.read(tmp_path, "tiny")] == ["gpt_base", "b"]


def test_lines_of_a_newer_version_are_read(tmp_path: Path) -> None:
    path = ledger.path_of(tmp_path, "tiny")
    path.parent.mkdir(parents=True)
    known = {"event": "restarted", "time": 1.0, "study": "tiny", "run": "a", "token": "t", "mood": "good", "version": 9}
    path.write_text(json.dumps(known) + "\n")
    (one,) = ledger.read(tmp_path, "tiny")
    assert one.event == "restarted" and ledger.tokens([one]) == set()


WRITER = """
import sys
from pathlib import Path
from tests.test_ledger import a_run, entry
from oelm_jobs import ledger
for number in range(50):
    ledger.append(Path(sys.argv[1]), "tiny", [entry(a_run(f"{sys.argv[2]}-{number}"))])
"""


@pytest.mark.slow
def test_two_processes_lose_no_line(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name], cwd=REPOSITORY) for name in ("a", "b")
    ]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
    assert len(ledger.path_of(tmp_path, "tiny").read_text().splitlines()) == 100
    assert len(ledger.read(tmp_path, "tiny")) == 100


def test_a_ledger_that_cant_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "experiments").write_text("no folder")
    with pytest.raises(LocalError, match=r"ledger\.jsonl: can't be written"):
        ledger.append(tmp_path, "tiny", [])

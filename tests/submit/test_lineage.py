"""Runs that need others, on a plain host: they wait on it without a device, take what they need, or never start."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs.agent.reasons import codes
from oelm_jobs.agent.states import State
from oelm_jobs.connections.local import LocalConnection
from oelm_jobs.errors import PreflightError
from oelm_jobs.project import Project
from oelm_jobs.schedulers.leases import LeaseScheduler
from oelm_jobs.store import Store
from oelm_jobs.stored_run import StoredRun
from tests.support import TINY_STUDY, end_all, read, wait_until

pytestmark = pytest.mark.slow

SCRIPT = """
import json, os, sys, time
lr, seed, hold, init = sys.argv[1:5]
open(os.path.join(hold, "began-" + os.environ["OELM_RUN"]), "w").close()
while os.path.exists(os.path.join(hold, "hold-" + os.environ["OELM_RUN"])):
    time.sleep(0.05)
if os.path.exists(os.path.join(hold, "fail-" + os.environ["OELM_RUN"])):
    sys.exit("it fails")
before = json.load(open(init)) if init != "none" else []
json.dump([*before, float(lr), int(seed)], open("model.json", "w"))
"""
PRE = """
factors = ["lr"]
seeds = [1, 2]
[program]
command = "python step.py {{lr}} {{seed}} {hold} {init}"
checkpoint = "model.json"
best = "model.json"
[settings]
[groups]
"""


@pytest.fixture
def mine(tmp_path: Path, hold: Path) -> Iterator[Project]:
    folder = tmp_path / "mine"
    (folder / "jobs").mkdir(parents=True)
    (folder / "step.py").write_text(SCRIPT)
    study(folder, "pre", hold, "none", "base = { lr = 0.5, gpus = 0 }")
    taken = 'inputs = { init = "pre/base:best" }'
    study(folder, "tune", hold, "{init}", f"tuned = {{ lr = 0.25, gpus = 0, {taken} }}")
    other = tmp_path / "other"
    (folder / "jobs" / "targets.toml").write_text(
        f'[local]\nkind = "local"\npython = "{sys.executable}"\n'
        f'[other]\nkind = "local"\nroot = "{other}"\npython = "{sys.executable}"\n'
    )
    yield Project(folder, say=lambda text: None)
    for path in hold.iterdir():
        path.unlink()
    end_all(folder)
    end_all(other)


def study(folder: Path, name: str, hold: Path, init: str, groups: str) -> None:
    (folder / "jobs" / f"{name}.toml").write_text(PRE.format(hold=hold, init=init) + groups + "\n")


def submit(project: Project, study: str, target: str = "local", **more: object) -> None:
    project.submit(project.plan(study, target, mode="parallel", **more))


def runs(project: Project, study: str) -> dict[str, StoredRun]:
    return {run.name: run for run in project.refresh().runs if run.study == study}


def ended(project: Project, study: str) -> dict[str, StoredRun]:
    def all_over() -> dict[str, StoredRun] | None:
        found = runs(project, study)
        return found if all(run.state.is_final for run in found.values()) else None

    return wait_until(all_over, f"the end of {study}")


def test_a_run_waits_on_the_target_and_takes_what_was_made(mine: Project, hold: Path) -> None:
    (hold / "hold-base").touch()
    submit(mine, "pre")
    submit(mine, "tune")
    waiting = wait_until(lambda: _waits(mine), "a wait that is told")
    assert waiting.reason == "waiting for base, which it needs" and not waiting.progress.get("devices")
    assert ended_one(mine, "tune", "tuned-s2").state is State.DONE  # its own base is over
    assert not (hold / "began-tuned").exists()
    (hold / "hold-base").unlink()
    assert {run.state for run in ended(mine, "tune").values()} == {State.DONE}
    known = runs(mine, "tune")["tuned-s2"]
    assert json.loads(Path(known.run_dir, "work", "model.json").read_text()) == [0.5, 2, 0.25, 2]
    row = read(Path(known.run_dir, ".oelm", "inputs.json"))["inputs"][0]
    source = Path(row["path"])
    assert source == Path(runs(mine, "pre")["base-s2"].run_dir, "work", "model.json")
    assert row["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert (row["input"], row["run"], row["artifact"]) == ("init", "base-s2", "best")


def _waits(project: Project) -> StoredRun | None:
    run = runs(project, "tune")["tuned"]
    return run if run.state is State.QUEUED and "waiting_for_needed" in codes(run.reason) else None


def ended_one(project: Project, study: str, name: str) -> StoredRun:
    return wait_until(lambda: run if (run := runs(project, study)[name]).state.is_final else None, f"the end of {name}")


def test_what_needs_a_run_that_fails_never_starts_and_says_why(mine: Project, hold: Path) -> None:
    (hold / "hold-base").touch()
    (hold / "fail-base").touch()
    groups = (
        'a = { lr = 1.0, gpus = 0, needs = ["pre/base-s1"] }',
        'b = { lr = 2.0, gpus = 0, needs = ["a"] }',
        'c = { lr = 3.0, gpus = 0, needs = ["a"], when = "always" }',
    )
    study(mine.folder, "tune", hold, "none", "\n".join(groups))
    submit(mine, "pre")
    submit(mine, "tune", seeds=[1])
    wait_until(lambda: (hold / "began-base").exists(), "the start of what is needed")
    (hold / "hold-base").unlink()
    found = ended(mine, "tune")
    assert found["a"].state is State.CANCELLED and "needed_failed" in codes(found["a"].reason)
    assert found["a"].reason.startswith("not started: base, which it needs, failed: ")
    assert found["b"].state is State.CANCELLED and "needed_cancelled" in codes(found["b"].reason)
    assert found["c"].state is State.DONE
    assert not (hold / "began-a").exists() and not (hold / "began-b").exists()
    with pytest.raises(PreflightError, match=r"a needs pre/base: it is FAILED: .*; nothing was queued"):
        submit(mine, "tune", seeds=[1])


def test_runs_that_wait_for_others_hold_up_none_of_those_behind_them(mine: Project, hold: Path) -> None:
    (hold / "hold-base").touch()
    groups = (
        'waits = { lr = 1.0, gpus = 0, needs = ["pre/base-s1"] }',
        'other = { lr = 2.0, gpus = 0, needs = ["pre/base-s1"] }',
        "free = { lr = 3.0, gpus = 0 }",
    )
    study(mine.folder, "tune", hold, "none", "\n".join(groups))
    submit(mine, "pre", seeds=[1])
    submit(mine, "tune", seeds=[1, 2, 3, 4])
    names = ["free", "free-s2", "free-s3", "free-s4"]
    wait_until(lambda: all(runs(mine, "tune")[name].state is State.DONE for name in names), "those that need nothing")
    waiting = [run for run in runs(mine, "tune").values() if run.name not in names]
    assert len(waiting) == 8 and all("waiting_for_needed" in codes(run.reason) for run in waiting)
    (hold / "hold-base").unlink()
    assert {run.state for run in ended(mine, "tune").values()} == {State.DONE}


def test_a_waiting_run_is_cancelled_at_once_and_what_it_waits_for_goes_on(mine: Project, hold: Path) -> None:
    (hold / "hold-base").touch()
    submit(mine, "pre", seeds=[1])
    wait_until(lambda: (hold / "began-base").exists(), "what is needed to train")
    submit(mine, "tune", seeds=[1])
    wait_until(lambda: _waits(mine), "a wait that is told")
    mine.cancel(runs(mine, "tune")["tuned"])
    assert ended_one(mine, "tune", "tuned").state is State.CANCELLED
    assert runs(mine, "pre")["base"].state is State.RUNNING


def test_what_was_never_submitted_is_refused_by_name(mine: Project) -> None:
    with pytest.raises(PreflightError, match="tuned needs pre/base: it was not submitted; nothing") as error:
        submit(mine, "tune")
    assert "oelm-submit --study pre --target local --group base" in error.value.hint
    assert not runs(mine, "tune")


def test_what_another_command_is_sending_is_not_waited_for_yet(mine: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    send, refused = LeaseScheduler.submit, []

    def sending(self: LeaseScheduler, *given: Any) -> Any:
        monkeypatch.undo()
        with pytest.raises(PreflightError, match="tuned needs pre/base: it is PLANNED on target local; ") as error:
            submit(mine, "tune")
        refused.append(error.value.hint)
        return send(self, *given)

    monkeypatch.setattr(LeaseScheduler, "submit", sending)
    submit(mine, "pre")
    assert refused == ["look again: oelm-status"] and not runs(mine, "tune")
    submit(mine, "tune")


def cancel_meanwhile(project: Project, study: str, name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let a run that trains be cancelled once the next submission has looked at it; return its token."""
    intend = Store.intend

    def cancelled(self: Store, *given: Any) -> Any:
        monkeypatch.undo()
        project.cancel(runs(project, study)[name])
        assert ended_one(project, study, name).state is State.CANCELLED
        return intend(self, *given)

    monkeypatch.setattr(Store, "intend", cancelled)
    return runs(project, study)[name].token


def test_what_ends_while_it_is_submitted_again_is_left_alone_since_nobody_has_looked_for_what_it_needs(
    mine: Project, hold: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (hold / "hold-tuned").touch()
    submit(mine, "pre", seeds=[1])
    submit(mine, "tune", seeds=[1])
    wait_until(lambda: (hold / "began-tuned").exists(), "the run to train")
    token = cancel_meanwhile(mine, "tune", "tuned", monkeypatch)
    (left,) = mine.submit(mine.plan("tune", "local", mode="parallel", seeds=[1]))
    assert (left.state, left.note) == (State.CANCELLED, "is RUNNING")
    assert runs(mine, "tune")["tuned"].token == token
    (hold / "hold-tuned").unlink()
    submit(mine, "tune", seeds=[1])
    assert ended_one(mine, "tune", "tuned").state is State.DONE


def test_what_ends_while_a_run_that_needs_it_is_submitted_is_left_alone_too(
    mine: Project, hold: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = "a = { lr = 1.0, gpus = 0 }", 'b = { lr = 2.0, gpus = 0, needs = ["a"] }'
    study(hold.parent / "mine", "chain", hold, "none", "\n".join(groups))
    (hold / "hold-a").touch()
    submit(mine, "chain", seeds=[1], groups=["a"])
    wait_until(lambda: (hold / "began-a").exists(), "the run to train")
    token = cancel_meanwhile(mine, "chain", "a", monkeypatch)
    submit(mine, "chain", seeds=[1])
    assert runs(mine, "chain")["a"].token == token, "the other one asks how that execution ended"
    found = ended_one(mine, "chain", "b")
    assert found.state is State.CANCELLED and "a, which it needs" in found.reason


def test_what_is_gone_or_was_made_anew_is_named(mine: Project, hold: Path) -> None:
    submit(mine, "pre")
    sources = ended(mine, "pre")
    Path(sources["base-s2"].run_dir, "work", "model.json").unlink()
    with pytest.raises(PreflightError, match="pre/base-s2:best is not there any more on target local"):
        submit(mine, "tune")
    (hold / "fail-tuned").touch()
    submit(mine, "tune", seeds=[1])
    assert ended(mine, "tune")["tuned"].state is State.FAILED
    (hold / "fail-tuned").unlink()
    Path(sources["base"].run_dir, "work", "model.json").write_text("[0.9, 1]")
    submit(mine, "tune", seeds=[1])
    found = ended(mine, "tune")["tuned"]
    assert found.state is State.FAILED and "input_changed" in codes(found.reason)


def test_a_target_is_asked_once_for_all_that_is_taken(mine: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    submit(mine, "pre")
    ended(mine, "pre")
    call, asked = LocalConnection.call, []

    def counted(self: LocalConnection, verb: str, *given: Any, **more: Any) -> Any:
        asked.append(str(verb))
        return call(self, verb, *given, **more)

    monkeypatch.setattr(LocalConnection, "call", counted)
    submit(mine, "tune")
    assert asked.count("inventory") == 1
    assert {run.state for run in ended(mine, "tune").values()} == {State.DONE}


def test_what_lies_on_another_target_has_to_be_done_and_is_brought(mine: Project, hold: Path) -> None:
    (hold / "hold-base").touch()
    submit(mine, "pre", "other", seeds=[1])
    with pytest.raises(PreflightError, match="it is (RUNNING|QUEUED) on target other; nothing was queued"):
        submit(mine, "tune", seeds=[1])
    (hold / "hold-base").unlink()
    ended(mine, "pre")
    submit(mine, "tune", seeds=[1])
    found = ended(mine, "tune")["tuned"]
    assert json.loads(Path(found.run_dir, "work", "model.json").read_text()) == [0.5, 1, 0.25, 1]
    row = read(Path(found.run_dir, ".oelm", "inputs.json"))["inputs"][0]
    assert row["path"].startswith(str(mine.folder))


def test_the_trainer_begins_with_the_weights_of_the_run_of_its_own_seed(project: Path) -> None:
    tune = TINY_STUDY.replace(
        'factors = ["model_type", "freeze_qk"]', 'factors = ["model_type", "freeze_qk", "init_from"]'
    )
    head = tune.partition("[groups]")[0]
    groups = (
        'tuned = { model_type = "oelm", freeze_qk = false, init_from = "tiny/gpt_base:best" }',
        'late = { model_type = "oelm", freeze_qk = true, init_from = "tuned:latest" }',
    )
    (project / "jobs" / "tune.toml").write_text(head + "[groups]\n" + "\n".join(groups) + "\n")
    with Project(project, say=lambda text: None) as mine:
        submit(mine, "tiny", groups=["gpt_base"], seeds=[42])
        submit(mine, "tune", seeds=[42])
        found = ended(mine, "tune")
        assert {run.state for run in found.values()} == {State.DONE}, [run.reason for run in found.values()]
        report = mine.report("tune")
        base = Path(runs(mine, "tiny")["gpt_base"].run_dir)
    row = read(Path(found["tuned"].run_dir, ".oelm", "inputs.json"))["inputs"][0]
    assert row["path"] == str(base / "best_model.pt")
    assert row["sha256"] == hashlib.sha256((base / "best_model.pt").read_bytes()).hexdigest()
    parts = [read(Path(found[name].run_dir, "treatment.json"))["groups"]["qk"] for name in ("tuned", "late")]
    assert parts[0]["sha256_end"] == parts[1]["sha256_start"]
    assert found["tuned"].fingerprint != found["late"].fingerprint
    assert not [one.text for one in report.findings if one.severity in ("void", "unfair")]
    assert {edge.source for edge in report.report.lineage} >= {"tiny/gpt_base", "tuned"}

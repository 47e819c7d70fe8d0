"""The rules by which a submission takes a run that was submitted before, or leaves it alone; each by itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from oelm_jobs.agent.states import State
from oelm_jobs.errors import ConfigurationError
from oelm_jobs.programs import script
from oelm_jobs.spec.program import Program, Stage
from oelm_jobs.spec.study import Run
from oelm_jobs.stored_run import StoredRun
from oelm_jobs.submit.decide import Again, Facts, Leave, Take, decide
from tests.support import make_run

TRAIN = {"max_steps": 10, "max_lr": 0.1, "batch_size": 2, "out_dir": "/r/a"}


@dataclass(frozen=True)
class Found:
    """What a look at the run's files would find."""

    known: StoredRun
    run: Run
    is_gone: bool = False
    lies_here: bool = False
    has_checkpoint: bool = True
    is_same_data: bool = True


def planned(**changes: Any) -> Run:
    return make_run(Path("/r"), "a", **{"settings": TRAIN, "fingerprint": "f1", **changes})


def stored(state: State, **changes: Any) -> StoredRun:
    run = planned()
    values: dict[str, Any] = {
        "project": "/p", "study": run.study, "name": run.name, "group": run.group, "label": run.label,
        "seed": run.seed, "tag": run.tag, "target": run.target, "run_dir": run.run_dir, "fingerprint": run.fingerprint,
        "token": "t1", "spec": {"train": TRAIN, "global_batch": run.global_batch}, "state": state, "reason": "",
        "queued_at": 1.0, "observed_at": 2.0, "progress": {"step": 1},
    }  # fmt: skip
    return StoredRun(**{**values, **changes})


def decided(known: StoredRun, again: Again = Again.RESUME, run: Run | None = None, **found: bool) -> Take | Leave:
    facts: Any = Found(
        known=known, run=run or planned(), **found
    )  # its facts are told, where those of decide.Facts are looked up on the disk
    return decide(facts, again)


def reason(decision: Take | Leave) -> str:
    assert isinstance(decision, Leave), decision
    return decision.reason


def taken(decision: Take | Leave) -> Take:
    assert isinstance(decision, Take), decision
    return decision


@pytest.mark.parametrize("again", Again)
def test_a_run_under_way_is_left_alone_whatever_is_asked(again: Again) -> None:
    for state in (State.QUEUED, State.RUNNING, State.UNKNOWN):
        assert reason(decided(stored(state), again)).startswith(f"is {state}")
    assert reason(decided(stored(State.PLANNED), again)) == "is being submitted by another command"


def test_why_nobody_knows_of_a_run_is_said() -> None:
    assert reason(decided(stored(State.UNKNOWN, reason="no answer"))) == "is UNKNOWN: no answer"
    assert reason(decided(stored(State.RUNNING, target="b"))) == "is RUNNING on target b"


def test_a_done_run_is_left_alone_unless_it_is_to_start_over() -> None:
    assert reason(decided(stored(State.DONE))) == "is done"
    assert reason(decided(stored(State.DONE, target="b"))) == "is done on target b"
    assert reason(decided(stored(State.DONE, target="b"), lies_here=True)) == "is done on target b"
    again = taken(decided(stored(State.DONE), Again.RERUN))
    assert again.archives and again.moved_from is None


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED])
def test_a_run_that_ended_early_goes_on_where_it_lies(state: State) -> None:
    take = taken(decided(stored(state)))
    assert take == Take(run=planned())


def test_a_run_that_never_came_to_be_is_submitted_as_if_it_were_new() -> None:
    known = stored(State.FAILED, reason="not submitted: no room", progress={}, fingerprint="another")
    assert taken(decided(known)) == Take(run=planned())
    assert taken(decided(stored(State.UNKNOWN, progress={"absent": True}))) == Take(run=planned())


def test_a_run_whose_files_were_removed_starts_over_without_a_word_about_its_configuration() -> None:
    assert taken(decided(stored(State.DONE, fingerprint="another"), is_gone=True)).gone is State.DONE


def test_elsewhere_a_run_starts_over_and_remembers_what_it_leaves() -> None:
    known = stored(State.FAILED, target="b", run_dir="/b/a")
    take = taken(decided(known))
    assert take.archives and take.moved_from is known
    assert take.run.left == ({"target": "b", "run_dir": "/b/a", "token": "t1"},)


def test_what_lies_in_the_same_place_goes_on_there_from_another_target() -> None:
    take = taken(decided(stored(State.FAILED, target="b"), lies_here=True))
    assert not take.archives and take.moved_from is None and take.run.left == ()


def test_what_a_run_has_left_before_is_not_forgotten_when_it_goes_on() -> None:
    before = {"target": "b", "run_dir": "/b/a", "token": "t0"}
    known = stored(State.FAILED, spec={"train": TRAIN, "global_batch": planned().global_batch, "left": [before]})
    assert taken(decided(known)).run.left == (before,)


@pytest.mark.parametrize("target", ["local", "b"])
def test_another_configuration_is_refused_unless_it_starts_over(target: str) -> None:
    known = stored(State.FAILED, target=target)
    run = planned(settings={**TRAIN, "max_lr": 0.2}, fingerprint="f2")
    with pytest.raises(ConfigurationError, match=r"max_lr was 0\.1, is 0\.2"):
        decided(known, run=run)
    assert taken(decided(known, Again.RERUN, run)).archives


def test_other_data_are_refused_though_the_configuration_is_the_same() -> None:
    with pytest.raises(ConfigurationError, match="other data"):
        decided(stored(State.FAILED), run=planned(fingerprint="f2"))


def test_a_run_from_before_a_key_existed_is_told_so() -> None:
    with pytest.raises(ConfigurationError, match="another configuration: dropout did not exist then"):
        decided(stored(State.FAILED), run=planned(settings={**TRAIN, "dropout": 0.1}, fingerprint="f2"))


def test_a_younger_key_was_at_its_default_where_a_run_does_not_record_it() -> None:
    normed = {**TRAIN, "qk_norm": True}
    with pytest.raises(ConfigurationError, match="another configuration: qk_norm was False, is True$"):
        decided(stored(State.FAILED), run=planned(settings=normed, fingerprint="f2"))
    known = stored(State.FAILED, spec={"train": normed, "global_batch": planned().global_batch})
    with pytest.raises(ConfigurationError, match="another configuration: qk_norm was True, is False$"):
        decided(known, run=planned(fingerprint="f2"))
    longer = planned(settings={**normed, "max_steps": 20}, fingerprint="f2")
    with pytest.raises(ConfigurationError, match="qk_norm was False, is True"):
        decided(stored(State.DONE), Again.EXTEND, longer)


def test_another_group_of_that_name_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="would name two runs"):
        decided(stored(State.DONE, seed=7))


LONGER = {"settings": {**TRAIN, "max_steps": 20}, "fingerprint": "f2"}


def test_a_finished_run_is_extended_when_that_is_asked_for() -> None:
    run = planned(**LONGER)
    with pytest.raises(ConfigurationError) as error:
        decided(stored(State.DONE), run=run)
    assert "--extend" in str(error.value.hint)
    take = taken(decided(stored(State.DONE), Again.EXTEND, run))
    assert take.run.extended_from == {"max_steps": 10, "fingerprint": "f1", "before": None} and not take.archives


@pytest.mark.parametrize(
    ("found", "message"), [({"has_checkpoint": False}, "has no checkpoint"), ({"is_same_data": False}, "other data")]
)
def test_a_run_that_can_not_go_on_is_not_extended(found: dict[str, bool], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        decided(stored(State.DONE), Again.EXTEND, planned(**LONGER), **found)


def test_fewer_steps_or_another_key_besides_are_no_extension() -> None:
    for train in ({**TRAIN, "max_steps": 5}, {**TRAIN, "max_steps": 20, "max_lr": 0.2}):
        with pytest.raises(ConfigurationError, match="another configuration"):
            decided(stored(State.DONE), Again.EXTEND, planned(settings=train, fingerprint="f2"))


def test_a_script_whose_length_is_no_whole_number_is_extended_by_what_its_study_says() -> None:
    program = Program(stages=(Stage(name="", words=("train",)),), length="epochs")
    shorter, longer = (planned(program=program, settings={"epochs": epochs}) for epochs in (2.5, 2.75))
    spec = {"program": {"settings": dict(shorter.settings), "max_steps": 2.5}, "global_batch": shorter.global_batch}
    known = stored(State.DONE, spec=spec, fingerprint=script.fingerprint(shorter, "data"))
    plan: Any = SimpleNamespace(data_hash="data")
    assert Facts(plan, known, longer, ()).is_same_data
    assert taken(decided(known, Again.EXTEND, longer)).run.extended_from is not None
    with pytest.raises(ConfigurationError, match=r"epochs was 2\.5, is 2\.25"):
        decided(known, Again.EXTEND, planned(program=program, settings={"epochs": 2.25}))


def test_an_extension_that_was_cancelled_goes_on_as_one() -> None:
    before = {"max_steps": 5, "fingerprint": "f0", "before": None}
    known = stored(
        State.CANCELLED, spec={"train": TRAIN, "global_batch": planned().global_batch, "extended_from": before}
    )
    assert taken(decided(known)).run.extended_from == before


def test_what_is_not_decided_by_a_runs_specification_is_decided_without_reading_it() -> None:
    for state in (State.PLANNED, State.QUEUED, State.RUNNING, State.UNKNOWN):
        assert isinstance(decided(stored(state, spec=None)), Leave)

"""Each rule for where a run on a plain host stands, with facts to which it is the first to apply."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from oelm_jobs.agent.host import rules
from oelm_jobs.agent.host.rules import Facts, Row, Traces
from tests.support import rules_on_the_page

Rule = Callable[[Facts], "Row | None"]
START = {"token": "t", "number": 1, "boot_id": "now", "devices": ["cpu:0"], "started_at": 2.0}
CLAIM = {"token": "t", "boot_id": "now"}


class Left(Traces):
    """What can be found of a run, as told."""

    def __init__(self, *, said: str = "", is_cancelled: bool = False, lives_on: bool = False) -> None:
        super().__init__("/root/exp_a", lambda: {"/root/exp_a": 3})
        self._said, self._is_cancelled, self._lives_on = said, is_cancelled, lives_on

    def said(self) -> str:
        return self._said

    def boot_id(self) -> str:
        return "now"

    def is_cancelled(self) -> bool:
        return self._is_cancelled

    def lives_on(self) -> bool:
        return self._lives_on


def facts(is_held: bool = False, **known: Any) -> Facts:
    """Return facts about a run of which little is known."""
    return Facts(**{"is_held": is_held, "claim": CLAIM, "start": {}, "end": {}, "traces": Left(), **known})


def end(state: str, reason: str = "", token: str = "t") -> dict[str, Any]:
    """Return an end record of the run's first attempt."""
    return {"token": token, "state": state, "reason": reason, "ended_at": 3.0, "attempts": [{"number": 1}]}


CASES: list[tuple[Rule, Facts, str, str]] = [
    # (the rule that decides, facts, state, reason)
    (rules.training, facts(True, start=START), "RUNNING", ""),
    (rules.waiting, facts(True, start=START, end=end("FAILED"), traces=Left(said="waiting 5 s to try again")), "QUEUED",
     "waiting 5 s to try again"),
    (rules.waiting, facts(True, start={**START, "token": "old"}), "QUEUED", ""),
    (rules.own_end, facts(start={**START, "boot_id": "before"}, end=end("FAILED", "NaN")), "FAILED", "NaN"),
    (rules.own_end, facts(start={**START, "token": "old"}, end=end("CANCELLED")), "CANCELLED", ""),
    (rules.rebooted, facts(start={**START, "number": 2, "boot_id": "before"}, end=end("FAILED"),
                           traces=Left(lives_on=True)), "FAILED", "reboot: submit again to resume"),
    (rules.living_on, facts(start=START, traces=Left(lives_on=True, is_cancelled=True)), "UNKNOWN",
     "supervisor lost, its processes live on: oelm-cancel ends them"),
    (rules.lost, facts(start=START, traces=Left(is_cancelled=True)), "FAILED",
     "supervisor lost: submit again to resume"),
    (rules.cancelled, facts(start={**START, "token": "old"}, claim={**CLAIM, "boot_id": "before"},
                            traces=Left(is_cancelled=True)), "CANCELLED", "cancelled before it started"),
    (rules.rebooted_before, facts(claim={**CLAIM, "boot_id": "before"}, traces=Left(said="waiting for 1 GPU")),
     "FAILED", "reboot before training started: submit again"),
    (rules.lost_waiting, facts(traces=Left(said="waiting for 1 GPU")), "FAILED",
     "supervisor lost while it was waiting: submit again"),
    (rules.ended_before_training, facts(traces=Left(said="set-up failed"), end=end("DONE", token="old")), "FAILED",
     "ended before training started: set-up failed"),
    (rules.no_trace, facts(claim={}), "UNKNOWN", "no trace of it on this host"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "known", "state", "reason"), CASES, ids=[case[0].__name__ for case in CASES])
def test_a_rule_is_the_first_that_applies_and_says_so(rule: Rule, known: Facts, state: str, reason: str) -> None:
    decided, row = next((each, answer) for each in rules.ON_HOST for answer in [each(known)] if answer is not None)
    assert decided is rule
    assert (row["state"], row["reason"]) == (state, reason)
    if rule is rules.waiting:
        assert row["place"] == 3


def test_each_rule_has_a_case_and_is_on_the_page_in_its_order() -> None:
    assert {rule for rule, *_ in CASES} == set(rules.ON_HOST)
    assert rules_on_the_page("ON_HOST") == [rule.__name__ for rule in rules.ON_HOST]

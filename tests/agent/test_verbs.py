"""Each verb has a module that answers it, and types that say what its shapes check."""

from __future__ import annotations

import importlib
from typing import Any, get_args, get_type_hints

import pytest

from oelm_jobs.agent import messages, registry, verbs
from oelm_jobs.agent.schema import Either, Table

HINTS = get_type_hints(registry, localns={"m": messages})
TYPES = {verb: get_args(HINTS[verb.upper()]) for verb in registry.VERBS}


@pytest.mark.parametrize("name", registry.VERBS)
def test_a_verb_is_answered_by_a_function_of_its_name(name: str) -> None:
    module = importlib.import_module(f"oelm_jobs.agent.{registry.VERBS[name].module}")
    request, answer = TYPES[name]
    hints = get_type_hints(getattr(module, name), localns={"messages": messages})
    assert (hints["request"], hints["return"]) == (request, answer)


def test_every_verb_has_its_shapes() -> None:
    assert registry.VERBS.keys() == verbs.REQUESTS.keys() == verbs.ANSWERS.keys() - {""}


@pytest.mark.parametrize("name", registry.VERBS)
def test_the_types_of_a_verb_say_what_its_shapes_check(name: str) -> None:
    request, answer = TYPES[name]
    asked, said = verbs.REQUESTS[name], verbs.ANSWERS[name]
    assert (request.__required_keys__, request.__optional_keys__) == (asked.must.keys(), asked.may.keys())
    agrees(answer, said)


@pytest.mark.parametrize(
    ("typed", "shape"),
    [
        (messages.RunRow, verbs.STANDS), (messages.DeviceRow, verbs.DEVICE), (messages.TicketRow, verbs.TICKET),
        (messages.LeaseTable, Table(verbs.LEASES)), (messages.TokenFile, verbs.TOKEN_FILE),
        (messages.Announced, verbs.ANNOUNCED), (messages.Held, verbs.HELD), (messages.QuotaRow, verbs.QUOTA),
        (messages.Sent, verbs.ANSWERS["slurm_submit"].must["jobs"].shape),
        (messages.Removed, verbs.ANSWERS["remove"].must["runs"].shape),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)  # fmt: skip
def test_the_types_of_parts_say_what_their_shapes_check(typed: Any, shape: Any) -> None:
    agrees(typed, shape)


def agrees(typed: Any, shape: Any) -> None:
    """See to it that a type has the keys of a shape, and that those which it takes for granted are checked."""
    for each in shape.shapes if isinstance(shape, Either) else [shape]:
        assert typed.__required_keys__ <= each.must.keys()
        assert {*each.must, *each.may} <= {*typed.__required_keys__, *typed.__optional_keys__}
        if not isinstance(shape, Either):
            assert typed.__required_keys__ == each.must.keys()

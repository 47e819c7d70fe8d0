"""Check what an agent answers against what its verb may answer, before anything else reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from ..agent import schema, verbs
from ..agent.registry import Answers, Verb, may_repeat
from ..errors import Nonsense, TargetError, UnknownAnswer

MAX_ANSWER_BYTES = 64 << 20
"""A larger answer is none of ours."""


def read(target: str, verb: str, content: bytes) -> Any:
    """Parse an answer's JSON.

    Raises:
        Nonsense: It is none.
        UnknownAnswer: It is none, and the request may have been carried out.
    """
    if len(content) > MAX_ANSWER_BYTES:
        raise nonsense(target, verb, f"{verb}: {len(content):,} bytes are more than an answer has")
    try:
        return schema.loads(content)
    except schema.Misfit as error:
        raise nonsense(target, verb, f"{verb}{error}") from error


def believed(target: str, verb: Verb[Any, Answers], request: Mapping[str, Any], answer: Any) -> Answers:
    """Check an answer against its verb's schema and return it.

    Raises:
        Nonsense: It isn't; nothing of it counts.
        UnknownAnswer: It isn't, and the request may have been carried out.
    """
    wrong = verbs.wrong_answer(verb, request, answer)
    if wrong is not None:
        raise nonsense(target, verb, wrong)
    return cast("Answers", dict(answer))


def nonsense(target: str, verb: str, wrong: str) -> TargetError:
    """Return the error about an answer that breaks the schema; what an acting verb has done is then unknown."""
    kind = Nonsense if may_repeat(verb) else UnknownAnswer
    return kind(f"{target}: answers nonsense: {wrong}")

"""Check what an agent answers against what its verb may answer, before anything else reads it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, cast

from ..agent import schema, verbs
from ..agent.reasons import TEMPLATES
from ..agent.registry import Answers, Verb, may_repeat
from ..agent.sentences import _, decoded
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
        size = len(content)
        raise nonsense(target, verb, _("{verb}: {size:,} bytes are more than an answer has", verb, size))
    try:
        return schema.loads(content)
    except schema.Misfit as error:
        raise nonsense(target, verb, _("{verb}{where}", verb, str(error))) from error


def believed(target: str, verb: Verb[Any, Answers], request: Mapping[str, object], answer: Any) -> Answers:
    """Check an answer against its verb's schema and return it, with the sentences in it as such.

    Raises:
        Nonsense: It isn't; nothing of it counts.
        UnknownAnswer: It isn't, and the request may have been carried out.
    """
    said = answer.pop("values", None) if isinstance(answer, dict) else None
    wrong = verbs.wrong_answer(verb, request, answer)
    if wrong is not None:
        raise nonsense(target, verb, wrong)
    for sentence in said if isinstance(said, list) else ():
        if verbs.SENTENCES.wrong([sentence]) is None:
            _retell(answer, *sentence)
    return cast("Answers", dict(answer))


def _retell(answer: Any, place: Sequence[Any], code: str, values: Any) -> None:
    """Put a sentence in the place of its text in an answer, where there is such a text."""
    try:
        *above, last = place
        part = functools.reduce(lambda part, key: part[key], above, answer)
        if isinstance(part[last], str):
            part[last] = decoded(part[last], code, values, TEMPLATES)
    except (LookupError, TypeError, ValueError):
        pass


def nonsense(target: str, verb: str, wrong: str) -> TargetError:
    """Return the error about an answer that breaks the schema; what an acting verb has done is then unknown."""
    kind = Nonsense if may_repeat(verb) else UnknownAnswer
    return kind(_("{target}: answers nonsense: {where}", target, wrong))

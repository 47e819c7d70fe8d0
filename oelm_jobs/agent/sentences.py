"""Sentences that know the template and the values they were made of, so that whoever prints them can translate them.

Text is written in English where it arises, on servers too: ``_("{path}: no such file", path)`` is an ordinary string
that can be raised, compared and stored. Where it is printed, ``language.translated`` looks up its template.
Values are names, numbers, foreign text and the user's own words, which no translation touches, or sentences in turn.

Sent down the channel before bootstrap, so it parses on Python 3.6 and imports nothing of the agent.
"""

import functools
import re
from typing import Any, Dict, Iterable, Mapping, Optional, Tuple

Encoded = Dict[str, object]
"""``code`` and ``values`` of a sentence as JSON."""


class Sentence(str):
    """English text, with the template (str.format's) and the values that it was made of."""

    template: str
    values: Mapping[str, object]
    """A sequence among them is listed with commas."""
    code: str
    """What stands for the template in records and answers: the template itself, unless it has a name there."""

    def __new__(cls, template: str, *inserted: Any, **values: Any) -> "Sentence":
        """Return a sentence.

        Args:
            template: English, with names in braces.
            inserted: Values in the order in which their names first stand there.
            values: Values by name, instead.
        """
        if inserted:
            values = dict(zip(names(template), inserted), **values)
        return cls.made(template.format(**{name: shown(value) for name, value in values.items()}), template, values)

    @classmethod
    def made(cls, english: str, template: str, values: Mapping[str, object], code: str = "") -> "Sentence":
        """Return a sentence whose English is known already."""
        sentence = super().__new__(cls, english)
        sentence.template, sentence.values, sentence.code = template, values, code or template
        return sentence

    def __str__(self) -> str:
        """Return itself, so that ``str`` of an exception gives the sentence that it was raised with."""
        return self

    def __reduce__(self) -> Tuple[Any, ...]:
        """Let a copy be made of its parts: what a target sent need not fit its template."""
        return Sentence.made, (self[:], self.template, self.values, self.code)


_ = Sentence
"""Marks a sentence for translation: what stands in its parentheses is found by the tools that collect them."""


_NAME = re.compile(r"\{\{|\{(\w+)")


@functools.lru_cache(maxsize=None)
def names(template: str) -> Tuple[str, ...]:
    """Return the names in a template's braces, each once, in order."""
    return tuple(dict.fromkeys(name for name in _NAME.findall(template) if name))


def shown(value: Any) -> Any:
    """Return a value as a template shows it: a sequence as ``a, b, c``."""
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value


def joined(parts: Iterable[str]) -> str:
    """Return those parts that aren't empty, with semicolons between them."""
    left = [part for part in parts if part]
    if len(left) < 2:
        return left[0] if left else ""
    middle = len(left) // 2  # in halves, so that many parts do not lie deep within each other
    return _("{first}; {rest}", joined(left[:middle]), joined(left[middle:]))


def encoded(text: str) -> Encoded:
    """Return what stands beside a sentence where it is written or sent: ``code`` and ``values``, sentences among them
    as objects with their ``text``. Empty for other text.
    """
    found = _as_sentence(text)
    if found is None:
        return {}
    return {"code": found.code, "values": {name: _encoded_value(value) for name, value in found.values.items()}}


def _as_sentence(value: Any) -> Optional[Sentence]:
    """Return a value that is a sentence; None for another one. Where bootstrap runs there are two classes of them: its
    own, and that of the agent which it has imported.
    """
    return value if hasattr(value, "template") else None


def _encoded_value(value: Any) -> Any:
    if _as_sentence(value) is not None:
        return dict(encoded(value), text=value[:])
    return [_encoded_value(part) for part in value] if isinstance(value, (list, tuple)) else value


def decoded(text: str, code: Any, values: Any, templates: Mapping[str, str]) -> str:
    """Return the sentence that was written or sent as ``text``, ``code`` and ``values``; plain text without a code.

    Its English is the text as it came. Nothing that came is used as a template: it is looked up as one.

    Args:
        templates: The template of each code that isn't its own.
    """
    if not isinstance(code, str) or not code or not isinstance(values, dict):
        return text
    known = {str(name): _decoded_value(value, templates) for name, value in values.items()}
    return Sentence.made(text, templates.get(code, code), known, code)


def _decoded_value(value: Any, templates: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return decoded(str(value.get("text", "")), value.get("code"), value.get("values"), templates)
    if isinstance(value, list):
        return [_decoded_value(part, templates) for part in value]
    return value

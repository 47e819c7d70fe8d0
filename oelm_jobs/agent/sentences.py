"""Sentences that know the template and the values they were made of, so that whoever prints them can translate them.

Text is written in English where it arises, on servers too: ``_("{path}: no such file", path=path)`` is an ordinary
string that can be raised, compared and stored. Where it is printed, ``language.translated`` looks up its template.
Values are names, numbers, foreign text and the user's own words, which no translation touches, or sentences in turn.
"""

from __future__ import annotations

import functools
from typing import Any, Dict, Iterable, Mapping, Tuple


class Sentence(str):
    """English text, with the template (str.format's) and the values that it was made of."""

    template: str
    values: Mapping[str, Any]
    """A sequence among them is listed with commas."""
    code: str
    """What stands for the template in records and answers: the template itself, unless it has a name there."""

    def __new__(cls, template: str, /, **values: Any) -> Sentence:
        return cls.made(template.format(**{name: shown(value) for name, value in values.items()}), template, values)

    @classmethod
    def made(cls, english: str, template: str, values: Mapping[str, Any], code: str = "") -> Sentence:
        """Return a sentence whose English is known already."""
        sentence = super().__new__(cls, english)
        sentence.template, sentence.values, sentence.code = template, values, code or template
        return sentence

    def __str__(self) -> str:
        """Return itself, so that ``str`` of an exception gives the sentence that it was raised with."""
        return self

    def __getnewargs_ex__(self) -> Tuple[Tuple[str], Dict[str, Any]]:
        return (self.template,), dict(self.values)


_ = Sentence
"""Marks a sentence for translation: what stands in its parentheses is found by the tools that collect them."""


def shown(value: Any) -> Any:
    """Return a value as a template shows it: a sequence as ``a, b, c``."""
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value


def joined(parts: Iterable[str]) -> str:
    """Return those parts that aren't empty, with semicolons between them."""
    left = [part for part in parts if part]
    if not left:
        return ""
    return functools.reduce(lambda rest, first: _("{first}; {rest}", first=first, rest=rest), reversed(left))

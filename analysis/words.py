"""Translate a report's statements.

Everything that a report says is a ``Text`` (a key and its values) until it is printed, so that one report can be
printed in any language.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cache
from typing import Any

LANGUAGES = ("en", "zh")
"""Languages of a report; English is the default."""


@dataclass(frozen=True)
class Text:
    """A sentence that isn't printed yet: its key in the catalogue and the values of its fields."""

    key: str
    """Key in the catalogue."""
    values: tuple[tuple[str, Any], ...] = ()
    """Field and value; a value may be a Text, or a tuple of values to be listed."""

    def __str__(self) -> str:
        return say(self, "en")


def text(key: str, /, **values: Any) -> Text:
    """Return a Text; unknown keys raise KeyError at once, so that a missing sentence is found by the test that makes
    it.
    """
    catalogue("en")[key]
    return Text(key, tuple(values.items()))


def say(statement: Text | str, language: str) -> str:
    """Return the sentence; plain strings are returned as they are (labels, user's words)."""
    if isinstance(statement, str):
        return _harmless(statement)
    fields = {name: _value(value, language) for name, value in statement.values}
    return catalogue(language)[statement.key].format(**fields)


@cache
def catalogue(language: str) -> Mapping[str, str]:
    """Return the sentences of a language by key."""
    module = importlib.import_module(f".words_{language}", __package__)
    sentences: Mapping[str, str] = module.SENTENCES
    return sentences


def date(at: float) -> str:
    """Return a time as UTC to the second."""
    return datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def _value(value: Any, language: str) -> Any:
    if isinstance(value, Text):
        return say(value, language)
    if isinstance(value, tuple):
        return ("、" if language == "zh" else ", ").join(str(_value(item, language)) for item in value)
    return _harmless(value) if isinstance(value, str) else value


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def _harmless(words: str) -> str:
    """Return text from files with control characters replaced."""
    return _CONTROL.sub("?", words) if _CONTROL.search(words) else words

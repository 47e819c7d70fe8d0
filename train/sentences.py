"""Sentences that know the template and the values they were made of, so that the toolkit can translate them.

The trainer speaks English; what it leaves for others is written in the form that the toolkit reads. Standard library
only and quick to import, because the toolkit reads ``config`` at submit time.
"""

from __future__ import annotations

import re
from typing import Any, Dict, Tuple

_NAME = re.compile(r"\{\{|\{(\w+)")


class Sentence(str):
    """English text, with the template (str.format's) and the values that it was made of."""

    template: str
    values: Dict[str, Any]
    """Names, numbers, text of others and sentences; a list is shown with commas."""

    def __new__(cls, template: str, /, *inserted: Any, **values: Any) -> Sentence:
        """Return a sentence.

        Args:
            template: English, with names in braces.
            inserted: Values in the order in which their names first stand there.
            values: Values by name, instead.
        """
        if inserted:
            values.update(zip(dict.fromkeys(filter(None, _NAME.findall(template))), inserted))
        shown = {name: ", ".join(value) if isinstance(value, list) else value for name, value in values.items()}
        sentence = super().__new__(cls, template.format(**shown))
        sentence.template, sentence.values = template, values
        return sentence

    def __str__(self) -> str:
        """Return itself, so that ``str`` of an exception gives the sentence that it was raised with."""
        return self

    def __getnewargs_ex__(self) -> Tuple[Tuple[str], Dict[str, Any]]:
        return (self.template,), self.values


_ = Sentence
"""Marks a sentence for translation."""


def encoded(text: str) -> Dict[str, Any]:
    """Return what stands beside a sentence where it is written: its template as ``code``, and its ``values``, sentences
    among them as objects with their ``text``. Empty for other text.
    """
    if not isinstance(text, Sentence):
        return {}
    return {"code": text.template, "values": {name: _encoded_value(value) for name, value in text.values.items()}}


def _encoded_value(value: Any) -> Any:
    if isinstance(value, list):
        return [_encoded_value(item) for item in value]
    return dict(encoded(value), text=value) if isinstance(value, Sentence) else value

"""What is known at a place of a shell script, and how what isn't known stays in a text: between MARK and END, with its
source inside.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field

from ..agent.sentences import _

MARK, END = "\ue000", "\ue001"
"""Characters of private use, around the source of what isn't known."""
Value = str | list[str] | dict[str, str]
MOST_WORDS = 10_000
"""Words that one word of a script may stand for."""
TOO_MANY = _("a word of it stands for more than {n:,} others", MOST_WORDS)


class TooMany(ValueError):
    """A word stands for too many others."""


def unknown(source: str) -> str:
    """Return the mark of something that isn't known, written so in the script."""
    return MARK + source.replace(MARK, "").replace(END, "") + END


def is_known(text: str) -> bool:
    """Tell whether all of a text is known."""
    return MARK not in text


def as_written(text: str) -> str:
    """Return a text with what isn't known as the script has it."""
    return text.replace(MARK, "").replace(END, "")


@dataclass
class Scope:
    """What is known at a place of a script."""

    variables: MutableMapping[str, Value]
    arguments: list[str] | None
    """Of the script or function, from the first; None where the script may have any."""
    called: str
    """What ``$0`` is: the script's path."""
    substitute: Callable[[str], str] = field(default=lambda text: unknown(f"$({text})"))
    """Returns the output of the text of a command."""
    match: Callable[[str], list[str]] = field(default=lambda pattern: [])
    """Returns the files that a pattern fits."""

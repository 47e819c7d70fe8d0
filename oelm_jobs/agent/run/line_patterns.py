"""Patterns of the lines in which a program tells its metrics: text with names in braces, or a regular expression."""

from __future__ import annotations

import re
from typing import Dict, List, NamedTuple, Optional, Pattern, Tuple

from ..sentences import _

LONGEST_LINE = 4096
"""Characters of a line that are looked at."""

NUMERAL = r"(?:\d{1,3}(?:[,_']\d{3})+(?:\.\d*)?|\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
NUMBER = r"[-+]?(?:%s|(?:[nN][aA][nN]|[iI][nN][fF](?:[iI][nN][iI][tT][yY])?)(?!\w))" % NUMERAL
"""A number as programs print it, thousands divided or not."""
BLANK = r"[^\S\n]"
"""One between words: a regular expression that is made of text fits within a line, also where there are several."""
_AT_END = r"(?![\d_'.,]*\d|[eE][-+]?\d|%s?[kKMGT](?!\w))" % BLANK
"""Behind a number that ends a pattern: it is never cut, and 1.2k is no 1.2."""
_NAME = re.compile(r"[A-Za-z_][\w./@-]*")
_PLACEHOLDER = re.compile(r"(\{\{|\}\}|\{[^{}]*\}|[{}])")
_ESCAPES = re.compile(rb"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


class BadPattern(ValueError):
    """A pattern can't be meant; the message says why."""


class LinePattern(NamedTuple):
    """A pattern, ready to be used."""

    text: str
    """As the study has it."""
    names: Tuple[str, ...]
    """Of its numbers, in their order; ``step`` is that of the others."""
    regex: Pattern[str]
    """It has a group for each name, in the same order."""
    groups: Tuple[int, ...]
    needle: bytes
    """Stands in every line that fits; empty where that isn't known."""

    def read(self, line: str) -> Optional[Dict[str, float]]:
        """Return the numbers of a line by name; None where it doesn't fit."""
        match = self.regex.search(line[:LONGEST_LINE])
        if match is None:
            return None
        found = {}
        for name, group in zip(self.names, self.groups):
            value = number(match[group])
            if value is not None:
                found[name] = value
        return found


def compile_line(text: str) -> LinePattern:
    """Return a pattern: a regular expression where it has named groups, else text with names in braces.

    Blanks of the text stand for any number of blanks, and there may be some around a number.

    Raises:
        BadPattern: It has no names, one of them twice, or is no regular expression.
    """
    if "(?P<" in text:
        try:
            regex = re.compile(text)
        except (re.error, RecursionError, OverflowError) as error:
            raise BadPattern(_("{pattern!r} is no regular expression: {why}", text, str(error))) from None
        by_group = sorted((group, name) for name, group in regex.groupindex.items())
        names = tuple(name for _group, name in by_group)
        return LinePattern(text, names, regex, tuple(group for group, _name in by_group), b"")
    parts = split(text.strip())
    names = tuple(parts[1::2])
    if not names:
        raise BadPattern(_("{pattern!r} names no number: write one as {{loss}}, say", text))
    for name in names:
        if not _NAME.fullmatch(name):
            raise BadPattern(_("{pattern!r}: {name!r} can't be a metric's name", text, name))
        if names.count(name) > 1:
            raise BadPattern(_("{pattern!r} names {name} twice", text, name))
    if "" in parts[2:-1:2]:
        raise BadPattern(_("{pattern!r}: nothing tells two numbers apart that stand side by side", text))
    needle = max((word for part in parts[::2] for word in part.split()), key=len, default="")
    regex = re.compile("".join(regex_parts(parts)))
    return LinePattern(text, names, regex, tuple(range(1, len(names) + 1)), needle.encode())


def split(text: str) -> List[str]:
    """Return a pattern's text, name, text, name, …, text.

    Raises:
        BadPattern: A brace is alone.
    """
    parts = [""]
    for piece in _PLACEHOLDER.split(text):
        if piece in ("{{", "}}"):
            parts[-1] += piece[0]
        elif piece in ("{", "}"):
            raise BadPattern(_("{pattern!r}: a brace that is meant as one is written twice", text))
        elif piece[:1] == "{":
            parts += [piece[1:-1], ""]
        else:
            parts[-1] += piece
    return parts


def regex_parts(parts: List[str]) -> List[str]:
    """Return a regular expression in as many parts as the text, name, text, … of a pattern."""
    found = []
    for place, part in enumerate(parts):
        if place % 2:
            found.append("(%s)%s" % (NUMBER, _AT_END if not any(parts[place + 1 :]) else ""))
            continue
        words = [re.escape(word) for word in part.split()]
        text = (BLANK + "+").join(words)
        if place == 0:  # a word's end, or that of a number, is not what a line begins with
            begins = (r"(?<!\w)" if words and re.match(r"\w", part.split()[0]) else "") if words else r"(?<![\w.,+-])"
            text = begins + text
        else:
            text = (BLANK + ("+" if part[0].isspace() else "*") if part else "") + text
        if words and place + 1 < len(parts):
            text += BLANK + ("+" if part[-1].isspace() else "*")
        found.append(text)
    return found


def number(word: Optional[str]) -> Optional[float]:
    """Return the number that a program printed; None where it is none."""
    if word is None:
        return None
    try:
        return float(word)
    except ValueError:
        word = word.strip().rstrip(",;:")
    return float(word.translate(_DIVIDERS)) if _WHOLE.fullmatch(word) else None


_WHOLE = re.compile(NUMBER)
_DIVIDERS = {ord(sign): None for sign in ",_'"}


def clean(text: bytes) -> bytes:
    """Return output with line ends alone between lines, and without colours: a carriage return ends a line."""
    if b"\r" in text:
        text = text.replace(b"\r", b"\n")
    return _ESCAPES.sub(b"", text) if b"\x1b" in text else text

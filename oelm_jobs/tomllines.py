"""Find the line of a TOML file in which a key stands; tomllib doesn't tell."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_PART = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_NAME = rf"{_PART}(?:\s*\.\s*{_PART})*"
_TABLE = re.compile(rf"\s*(\[\[?)\s*({_NAME})\s*\]")
_KEY = re.compile(rf"\s*({_NAME})\s*=")
_MULTI_LINE = re.compile(r"'''|\"\"\"")


def line_of(text: str, place: Sequence[str]) -> int:
    """Return the number of the line where a key stands, or the nearest table above it that has a line of its own (an
    inline table, say); 0 where none of them does, or there are several.

    Args:
        place: Tables, then the key.
    """
    lines: dict[tuple[str, ...], list[int]] = {}
    for name, number in _names(text):
        lines.setdefault(name, []).append(number)
    for depth in range(len(place), 0, -1):
        if found := lines.get(tuple(place[:depth])):
            return found[0] if len(found) == 1 else 0
    return 0


def _names(text: str) -> Iterator[tuple[tuple[str, ...], int]]:
    """Yield the full name of each table and key that begins a line, with the line's number."""
    table: tuple[str, ...] = ()
    within = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if not within:
            if header := _TABLE.match(line):
                table = _parts(header[2])
                yield table, number
            elif key := _KEY.match(line):
                yield (*table, *_parts(key[1])), number
        for quotes in _MULTI_LINE.findall(line):  # a string over several lines begins or ends
            within = "" if within == quotes else within or quotes


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in re.findall(_PART, name))

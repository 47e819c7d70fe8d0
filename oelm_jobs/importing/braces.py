"""Say which words one with {a,b} or {1..3} stands for."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .scope import MOST_WORDS, TooMany
from .tokens import closing, closing_or

_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(-?\d+))?|([A-Za-z])\.\.([A-Za-z])")


def expanded(raw: str) -> Iterator[str]:
    """Yield the words that a word with {a,b} or {1..3} stands for."""
    place = 0
    while place < len(raw):
        sign = raw[place]
        if sign in "\\'\"`" or raw[place : place + 2] in ("$(", "${", "$'"):
            place = closing(raw, place)
            continue
        end = closing_or(raw, place) if sign == "{" else 0
        if end:
            items = _items(raw[place + 1 : end - 1])
            if items is not None:
                count = 0
                for item in items:
                    for inner in expanded(item) if "{" in item else (item,):
                        for rest in expanded(raw[end:]):
                            count += 1
                            if count > MOST_WORDS:
                                raise TooMany
                            yield raw[:place] + inner + rest
                return
        place += 1
    yield raw


def _items(inner: str) -> list[str] | None:
    if found := _RANGE.fullmatch(inner):
        if found[4]:
            first, last, step = ord(found[4]), ord(found[5]), 1
        else:
            first, last, step = int(found[1]), int(found[2]), abs(int(found[3] or 1)) or 1
        if abs(last - first) // step > MOST_WORDS:
            raise TooMany
        numbers = range(first, last + 1, step) if last >= first else range(first, last - 1, -step)
        if found[4]:
            return [chr(number) for number in numbers]
        is_padded = any(re.match(r"-?0\d", end) for end in found.group(1, 2))
        width = max(len(found[1]), len(found[2])) if is_padded else 0
        return [f"{number:0{width}d}" for number in numbers]
    items, start, place = list[str](), 0, 0
    while place < len(inner):
        if inner[place] == ",":
            items.append(inner[start:place])
            start = place + 1
        opens = inner[place] in "\\'\"`{" or inner[place : place + 2] in ("$(", "${")
        place = (closing_or(inner, place) or place + 1) if opens else place + 1
    return [*items, inner[start:]] if items else None

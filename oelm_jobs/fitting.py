"""How many columns text takes on a terminal, and cutting and wrapping it so that it fits.

Chinese characters take two columns, and a line may break between any two of them; other text breaks at blanks alone:
half a command or path can't be copied.
"""

from __future__ import annotations

import itertools
import re
import unicodedata

_ANY_WIDE = re.compile(r"[^\x20-\x7e]")
_WIDE = "\u2e80-\u303e\u3041-\u33ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\uff01-\uff60\uffe0-\uffe6"
"""Characters between which a line may break (Unicode Standard Annex 14, class ID)."""
_CLOSING, _OPENING = "，。；：？！、）”’》】…%,.;:?!)]", "（“‘《【(["
"""What begins no line, and what ends none."""
# Not compiled here: a look at the status imports this module, and wraps nothing.
_PIECES = rf"[{re.escape(_OPENING)}]*(?:[{_WIDE}]|[^\s{_WIDE}]+)[{re.escape(_CLOSING)}]*"


def is_wide(text: str) -> bool:
    """Tell whether a line may break between characters of a text."""
    return re.search(f"[{_WIDE}]", text) is not None


def width(text: str) -> int:
    """Return how many terminal columns a string takes: two for wide and full-width characters, none for combining
    ones.
    """
    if not _ANY_WIDE.search(text):
        return len(text)
    columns = 0
    for character in text:
        if unicodedata.combining(character) or unicodedata.category(character) in ("Cf", "Cc", "Mn", "Me"):
            continue
        columns += 2 if unicodedata.east_asian_width(character) in "WF" else 1
    return columns


def cut(content: str, columns: int) -> str:
    """Cut text to a number of terminal columns, with an ellipsis for what is cut off."""
    if width(content) <= columns:
        return content
    up_to_each = itertools.accumulate(map(width, content))
    return content[: sum(taken < columns for taken in up_to_each)] + "…"


def cut_within(text: str, columns: int) -> str:
    """Return text cut to columns in its middle, with an ellipsis where something is left out."""
    if width(text) <= columns:
        return text
    end = text[len(text) - (columns - 1) // 2 :]
    return cut(text, columns - len(end)) + end


def wrap(text: str, columns: float, first: str = "", then: str = "") -> list[str]:
    """Return text in lines of at most so many columns; a longer word has a line of its own.

    Args:
        first: What the first line begins with.
        then: What the others begin with.
    """
    lines: list[str] = []
    line, is_empty = first, True
    for blank, piece in re.findall(rf"(\s*)({_PIECES})", text):
        gap = re.sub(r"\s", " ", blank)
        if not is_empty and width(line) + len(gap) + width(piece) > columns:
            lines.append(line)
            line, gap = then, ""
        line, is_empty = line + gap + piece, False
    return [*lines, line]

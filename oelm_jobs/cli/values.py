"""Values of settings as command lines give them, one or several."""

from __future__ import annotations

import math
import re
from decimal import Decimal

from ..agent.sentences import _

MOST = 10_000
"""So many values a range may have."""
FAR = Decimal("1e100")
"""Numbers of ranges are smaller than that, and their steps greater than its inverse."""


def several(text: str) -> list[str]:
    """Return the values that a text after ``KEY=`` stands for: those between commas, of ``choice(…)`` or of
    ``range(START,STOP,STEP)`` (STOP is not among them). A comma in quotes or brackets divides nothing.

    Raises:
        ValueError: It is no list of values; says why.
    """
    called = re.fullmatch(r"\s*(choice|range)\((.*)\)\s*", text)
    if called is None or called[1] == "choice":
        return _divided(called[2] if called else text)
    try:
        numbers = [Decimal(part) for part in called[2].split(",")]
        is_right = 1 <= len(numbers) <= 3 and all(abs(number) < FAR and number.is_finite() for number in numbers)
    except ArithmeticError:
        is_right = False
    if not is_right:
        raise ValueError(_("give range(STOP), range(START,STOP) or range(START,STOP,STEP), with numbers"))
    start, stop, step = [Decimal(0), *numbers, Decimal(1)] if len(numbers) == 1 else [*numbers, Decimal(1)][:3]
    count = math.ceil((stop - start) / step) if abs(step) > 1 / FAR else 0
    if count < 1:
        raise ValueError(_("the range is empty"))
    if count > MOST:
        raise ValueError(_("the range has {count} values; at most {most} are made", count, MOST))
    return [format((start + number * step).normalize(), "f") for number in range(count)]


def _divided(text: str) -> list[str]:
    """Return the parts between commas that stand in no quotes or brackets; the whole where these don't close."""
    parts, depth, quote, begin = [], 0, "", 0
    for place, sign in enumerate(text):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'" and not text[begin:place].strip():  # one in a word is a letter
            quote = sign
        elif sign in "[{(":
            depth += 1
        elif sign in "]})":
            depth -= 1
        elif sign == "," and depth == 0:
            parts.append(text[begin:place].strip())
            begin = place + 1
    return [text] if quote or depth else [*parts, text[begin:].strip()]


def unquoted(text: str) -> str:
    """Return a value without the quotes around it."""
    is_quoted = len(text) > 1 and text[0] in "\"'" and text[-1] == text[0] and text.count(text[0]) == 2
    return text[1:-1] if is_quoted else text

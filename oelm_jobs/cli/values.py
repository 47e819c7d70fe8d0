"""Values of settings as command lines give them, one or several."""

from __future__ import annotations

import math
import re
from decimal import Decimal, InvalidOperation

from ..agent.sentences import _

MOST = 10_000
"""So many values a range may have."""


def several(text: str) -> list[str]:
    """Return the values that a text after ``KEY=`` stands for: those between commas, of ``choice(…)`` or of
    ``range(START,STOP,STEP)`` (STOP is not among them); one in quotes or brackets is one.

    Raises:
        ValueError: It is no list of values; says why.
    """
    called = re.fullmatch(r"\s*(choice|range)\((.*)\)\s*", text)
    if called is None and text.startswith(('"', "'")):
        return [text[1:-1] if len(text) > 1 and text[-1] == text[0] else text]
    if called is None:
        return [text] if text.startswith(("[", "{")) else [part.strip() for part in text.split(",")]
    parts = [part.strip() for part in called[2].split(",")]
    if called[1] == "choice":
        return parts
    try:
        numbers = [Decimal(part) for part in parts]
    except InvalidOperation:
        numbers = []
    if not 1 <= len(numbers) <= 3 or not all(number.is_finite() for number in numbers):
        raise ValueError(_("give range(STOP), range(START,STOP) or range(START,STOP,STEP), with numbers"))
    start, stop, step = [Decimal(0), *numbers, Decimal(1)] if len(numbers) == 1 else [*numbers, Decimal(1)][:3]
    count = math.ceil((stop - start) / step) if step else 0
    if count < 1:
        raise ValueError(_("the range is empty"))
    if count > MOST:
        raise ValueError(_("the range has {count} values; at most {most} are made", count, MOST))
    return [format((start + number * step).normalize(), "f") for number in range(count)]

"""Parse numbers as people, programs and locales print them, or refuse them: a number is never cut at a comma."""

from __future__ import annotations

import math
import re
from typing import Any

NUMERAL = (
    r"(?![-+]?\d{1,3}[ '\u2019\u00a0\u2009\u202f]\d{3}(?!\d))"
    r"[-+]?[.,]?\d(?:[\d_.,]{0,38}\d)?(?:\.?e[-+]?\d{1,4})?"
    r"(?!\w|[.,_]+\d|\.?#|['\u2019\u00a0\u2009\u202f\u00b7\u02d9\u066b\u066c\u201a\uff0c\uff0e]\d)"
)
"""A regular expression (case ignored, no groups) for all of a number; a comma or full stop behind it is punctuation.

It ends at a boundary and is of bounded length, so that no part of a longer number matches, whatever mark its writer's
locale divides it by (three digits or fewer, a blank and three more are the beginning of one); ``1.#QNAN`` of old C
libraries is none.
"""
NUMBER = rf"(?:{NUMERAL}|[-+]?(?:nan|inf(?:inity)?)\b)"
"""The same, or what a float that isn't finite prints as."""

_COMMA_GROUPS = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+")
_POINT_GROUPS = re.compile(r"[-+]?\d{1,3}(?:\.\d{3})+")
_DECIMAL = re.compile(r"[-+]?(\d*),(\d+)")


def real(word: str, *, grouped: bool = False) -> float | None:
    """Return what a number means: ``3.72``, ``3,7200``, ``1,234.56``, ``1.234,56``; None where it isn't clear.

    ``3,720`` may be 3.72 or 3720 and is refused, but where ``grouped`` says that commas divide thousands.
    """
    if "," not in word:
        try:
            return float(word)
        except ValueError:
            return float(word.replace(".", "")) if word.count(".") > 1 and _POINT_GROUPS.fullmatch(word) else None
    mantissa, e, exponent = word.lower().partition("e")
    whole, point, fraction = mantissa.partition(".")
    if _COMMA_GROUPS.fullmatch(whole) and (point or grouped or whole.count(",") > 1) and "," not in fraction:
        plain = mantissa.replace(",", "")
    elif match := _DECIMAL.fullmatch(mantissa):
        before, after = match.groups()
        if len(after) == 3 and 0 < len(before) < 4 and not before.startswith("0") and not e:
            return None
        plain = mantissa.replace(",", ".")
    else:
        whole, _, fraction = mantissa.partition(",")
        if not _POINT_GROUPS.fullmatch(whole):
            return None
        plain = whole.replace(".", "") + "." + fraction
    try:
        return float(plain + e + exponent)
    except ValueError:
        return None


def integer(word: str) -> int | None:
    """Return a whole number, thousands divided or not: ``44896768``, ``44,896,768``, ``44.896.768``; else None."""
    if "," in word and _COMMA_GROUPS.fullmatch(word):
        word = word.replace(",", "")
    elif word.count(".") > 1 and _POINT_GROUPS.fullmatch(word):
        word = word.replace(".", "")
    try:
        return int(word)
    except ValueError:
        return None


def is_finite(value: Any) -> bool:
    """Tell whether a record's value is a number that a float can hold, infinities and truth values not among them."""
    try:
        return not isinstance(value, bool) and isinstance(value, (int, float)) and math.isfinite(value)
    except OverflowError:
        return False


def positive(value: Any) -> float | None:
    """Return a record's value as a float where it is a finite number above zero, else None."""
    return float(value) if is_finite(value) and value > 0 else None

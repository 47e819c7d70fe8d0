"""Take values of a study file that several of its tables have."""

from __future__ import annotations

from typing import TypeVar

from .. import names, tomlfile
from ..agent.sentences import _

Number = TypeVar("Number", int, float)


def line(section: tomlfile.Section, key: str, default: str) -> str:
    """Take text that is printed and written into scripts: one line without control characters."""
    text = section.take(key, str, default)
    if reason := names.why_not_line(text):
        section.wrong(key, reason, value=text)
    return text


def from_zero(section: tomlfile.Section, key: str, kind: type[Number]) -> Number:
    """Take a number that is not negative; zero where it is absent."""
    number = section.take(key, kind, kind(0))
    if number < 0:
        section.wrong(key, _("must not be negative"), value=number)
    return number


def check_name(section: tomlfile.Section, what: str, name: str, reason: str) -> None:
    """Note why a name of a study, or in one, won't do; ``what`` says whose it is."""
    if reason:
        section.wrong(what, reason, value=name, at=name)

"""Sentences and dates of a report as they are printed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timezone

from oelm_jobs.language import translated

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_MOVED: ContextVar[tuple[str, str] | None] = ContextVar("moved", default=None)


@contextmanager
def moved(here: str, origin: str) -> Iterator[None]:
    """While this is open, what lies in one folder is told as being in another: a bundle's files, where they were."""
    token = _MOVED.set((here, origin))
    try:
        yield
    finally:
        _MOVED.reset(token)


def where(text: str) -> str:
    """Return text with the paths that are told in place of others."""
    paths = _MOVED.get()
    return text.replace(*paths) if paths is not None else text


def say(text: str, language: str) -> str:
    """Return a sentence in a language, other text (labels, the user's own words) as it is; control characters, which
    names from files may hold, are replaced.
    """
    return _CONTROL.sub("?", where(translated(text, language)))


def date(at: float) -> str:
    """Return a time as UTC to the second."""
    return datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")

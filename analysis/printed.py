"""Sentences and dates of a report as they are printed."""

from __future__ import annotations

import re
from datetime import datetime, timezone

from oelm_jobs.language import translated

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def say(text: str, language: str) -> str:
    """Return a sentence in a language, other text (labels, the user's own words) as it is; control characters, which
    names from files may hold, are replaced.
    """
    return _CONTROL.sub("?", translated(text, language))


def date(at: float) -> str:
    """Return a time as UTC to the second."""
    return datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")

"""Find the line that comes closest to a pattern that fits none, and what it lacks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from oelm_jobs.agent.run.line_patterns import BLANK, LONGEST_LINE, LinePattern, regex_parts, split
from oelm_jobs.agent.run.metrics import TooSlow, bounded
from oelm_jobs.agent.sentences import Sentence, _

MOST_LINES = 100_000
"""Lines that are looked at."""
CPU_S = 10.0
"""Processor time that the search may take."""
SHOWN = 160
"""Characters of a line that are shown."""


def nearest(patterns: Sequence[LinePattern], log: str, lines: Iterable[bytes]) -> list[Sentence]:
    """Return what is said of each pattern that fits none of a log's lines, which are read once."""
    found = [_Closest(pattern) for pattern in patterns]
    try:
        with bounded(CPU_S):
            for raw in islice(lines, MOST_LINES):
                line = raw[:LONGEST_LINE].decode("utf-8", errors="replace").strip()
                for each in found:
                    each.look(line)
    except TooSlow:
        pass  # the closest lines until then are told
    return [each.told(log) for each in found]


class _Closest:
    """The line that fits the longest beginning of a pattern, else has most of its words."""

    def __init__(self, pattern: LinePattern) -> None:
        self._text = pattern.text
        self._beginnings = list(_beginnings(pattern))
        self._words = {word.casefold() for word in re.findall(r"[^\W\d_]{2,}", pattern.text)}
        self._fits = self._common = 0
        self._line = self._match = ""

    def look(self, line: str) -> None:
        """Look at a line, which may be closer than those before it."""
        while self._fits < len(self._beginnings) and (found := self._beginnings[self._fits][0].search(line)):
            self._fits, self._line, self._match = self._fits + 1, line, found[0].strip()
        if not self._fits and (count := sum(word in line.casefold() for word in self._words)) > self._common:
            self._common, self._line = count, line

    def told(self, log: str) -> Sentence:
        """Return what is said of it, and of what the line lacks."""
        shown = self._line if len(self._line) <= SHOWN else self._line[:SHOWN] + "…"
        if self._fits == len(self._beginnings):
            return _("{line!r} in {log} fits {pattern!r}, but no number stands there", shown, log, self._text)
        lacking = self._beginnings[self._fits][1]
        if self._fits:
            return _(
                "no line of {log} fits {pattern!r}; {line!r} comes close, but behind {match!r} it lacks {lacking!r}",
                log, self._text, shown, self._match, lacking,
            )  # fmt: skip
        if self._line:
            return _(
                "no line of {log} fits {pattern!r}; {line!r} comes close, but lacks {lacking!r}",
                log, self._text, shown, lacking,
            )  # fmt: skip
        return _("no line of {log} fits {pattern!r}, nor has words of it", log, self._text)


def _beginnings(pattern: LinePattern) -> Iterator[tuple[re.Pattern[str], str]]:
    """Yield ever longer beginnings of a pattern, each with the part of its text that it adds."""
    if "(?P<" in pattern.text:
        known = 0
        for end in range(1, len(pattern.text) + 1):
            try:
                yield re.compile(pattern.text[:end]), pattern.text[known:end]
            except (re.error, RecursionError, OverflowError):
                continue
            known = end
        return
    parts = split(pattern.text.strip())
    regexes = regex_parts(parts)
    begin = regexes[0]
    if parts[0]:
        # Blanks before a number belong to it.
        yield (
            re.compile(begin[: -len(BLANK) - 1] if begin.endswith((BLANK + "+", BLANK + "*")) else begin),
            parts[0].strip(),
        )
    for place, (part, regex) in enumerate(zip(parts[1:], regexes[1:], strict=True), 1):
        begin += regex
        if part:
            yield re.compile(begin), f"{{{part}}}" if place % 2 else part.strip() or part

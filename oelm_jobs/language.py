"""Owns the language that people read: English, or Chinese from ``text/zh.json``; leaves saying things in English to
everybody else.

Text is written in English where it arises, on servers too, and translated where it is printed: the catalogue's
    templates
(``{name} is RUNNING``) are matched against whole sentences, and what their placeholders hold is translated in turn.
So no module carries keys about, and text that the catalogue does not know stays English instead of failing.
"""

from __future__ import annotations

import functools
import re

LANGUAGES = ("en", "zh")
_chosen = "en"


def choose(language: str) -> None:
    """Set the language of this process; one of LANGUAGES."""
    global _chosen
    assert language in LANGUAGES, language
    _chosen = language


def chosen() -> str:
    """Return the language of this process."""
    return _chosen


def tr(text: str) -> str:
    """Return ``text`` in the chosen language; line by line, unchanged where the catalogue has no match."""
    if _chosen == "en" or not text:
        return text
    return "\n".join(_translate(line, 0) for line in text.split("\n"))


@functools.lru_cache(maxsize=4096)
def _translate(line: str, depth: int) -> str:
    stripped = line.strip()
    if not stripped or depth > 4:
        return line
    exact, patterns = _catalogue()
    body = exact.get(stripped)
    if body is None:
        for pattern, translation in patterns:
            match = pattern.fullmatch(stripped)
            if match:
                parts = {name: _translate(part, depth + 1) for name, part in match.groupdict().items()}
                body = re.sub(r"\{(\w+)\}", lambda found, parts=parts: parts[found.group(1)], translation)  # type: ignore[misc]
                break
    if body is None and "; " in stripped:
        body = "；".join(_translate(part, depth + 1) for part in stripped.split("; "))
    return line if body is None else line.replace(stripped, body, 1)


@functools.lru_cache(maxsize=1)
def _catalogue() -> tuple[dict[str, str], list[tuple[re.Pattern[str], str]]]:
    """Return (exact sentences, templates), the templates with the most words of their own first."""
    import json
    from importlib import resources

    content: dict[str, str] = json.loads(
        (resources.files("oelm_jobs") / "text" / "zh.json").read_text(encoding="utf-8")
    )
    exact = {english: chinese for english, chinese in content.items() if "{" not in english}
    templates = sorted((english for english in content if "{" in english), key=_own_letters, reverse=True)
    return exact, [(_pattern(english), content[english]) for english in templates]


def _own_letters(template: str) -> int:
    return len(re.sub(r"\{\w+\}", "", template))


def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", template)
    names: set[str] = set()
    pattern = ""
    for position, part in enumerate(parts):
        if position % 2 == 0:
            pattern += re.escape(part)
        elif part in names:
            pattern += f"(?P={part})"
        else:
            names.add(part)
            pattern += f"(?P<{part}>.*?)"
    return re.compile(pattern)

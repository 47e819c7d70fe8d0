"""The language of messages: English, or Chinese from ``text/zh.json``.

Text is written in English where it arises, on servers too, and translated where it is printed: the catalogue's
templates (``{name} is RUNNING``) are matched against whole sentences, and what their placeholders hold is translated
in turn. So no module carries keys about, and text that the catalogue does not know stays English instead of failing.

A placeholder in capitals (``{PATH}``) holds names, numbers or the user's own words, which stay as they are; at a
sentence's beginning it holds no colon, since what stands before one is a sentence or a name of its own.
"""

from __future__ import annotations

import contextlib
import functools
import gettext
import os
import re
from collections.abc import Iterator
from pathlib import Path

from .agent.sentences import Sentence, _

LANGUAGES = ("en", "zh")
DOMAIN = "oelm_jobs"
"""What gettext calls the catalogues of this project."""
LOCALE = Path(__file__).with_name("locale")
"""Where they lie."""
MAX_DEPTH = 10
"""How deep sentences lie in placeholders of others at most."""
MAX_PARTS = 6
"""How many parts with semicolons between them a template may have."""
_chosen = "en"


def choose(language: str) -> None:
    """Set the language of this process; one of LANGUAGES."""
    global _chosen
    assert language in LANGUAGES, language
    _chosen = language


def chosen() -> str:
    """Return the language of this process."""
    return _chosen


def translated(text: str, language: str = "") -> str:
    """Return a sentence in the chosen language, or another one, where its catalogue has it; other text unchanged."""
    wanted = language or _chosen
    if wanted == "en" or not text:
        return text
    if isinstance(text, Sentence):
        template = _gettext(wanted).gettext(text.template)
        if template != text.template:
            values = {name: _value(value, wanted) for name, value in text.values.items()}
            with contextlib.suppress(LookupError, TypeError, ValueError):  # values that a target made up
                return template.format(**values)
    return "\n".join(_translate(line, 0) for line in text.split("\n"))


def _value(value: object, language: str) -> object:
    if isinstance(value, str):
        return translated(value, language) if isinstance(value, Sentence) else value
    if isinstance(value, (list, tuple)):
        return translated(_(", "), language).join(str(_value(part, language)) for part in value)
    return value


@functools.lru_cache(maxsize=2)
def _gettext(language: str) -> gettext.NullTranslations:
    return gettext.translation(DOMAIN, LOCALE, [language], fallback=True)


tr = translated


def translated_help(text: str) -> str:
    """Return what an option or a paragraph of a command's docstring says, in the chosen language."""
    return translated(Sentence.made(text, text, {}))


@contextlib.contextmanager
def of_click() -> Iterator[None]:
    """Let click speak the chosen language meanwhile.

    Its own words go through gettext, which takes the language from the environment. It is as before afterwards: what
    the command starts (a shell, a job) keeps the user's.
    """
    if _chosen == "en":
        yield
        return
    domain, language = gettext.textdomain(), os.environ.get("LANGUAGE")
    gettext.bindtextdomain(DOMAIN, str(LOCALE))
    gettext.textdomain(DOMAIN)
    os.environ["LANGUAGE"] = _chosen
    try:
        yield
    finally:
        gettext.textdomain(domain)
        del os.environ["LANGUAGE"]
        if language is not None:
            os.environ["LANGUAGE"] = language


@functools.lru_cache(maxsize=4096)
def _translate(line: str, depth: int) -> str:
    stripped = line.strip()
    if not stripped or depth > MAX_DEPTH:
        return line
    return line.replace(stripped, _sentence(stripped, depth), 1)


def _sentence(text: str, depth: int) -> str:
    """Return text with what is known of it translated: as one sentence, sentence by sentence where semicolons are
    between them, or what comes behind a path or a name and a colon.
    """
    parts, translated = text.split("; "), []
    while parts:
        count, known = _longest(parts, depth)
        if not known:
            rest = "; ".join(parts)
            head, colon, tail = rest.partition(": ")
            whole = _known(rest, depth, also_swallowing=True)
            if whole is not None:
                known, count = whole, len(parts)
            elif colon and "; " not in head:
                # A single word before a colon is a name, even where it is a word of the tables, too.
                pair = (_translate(head, depth + 1) if " " in head else head, _translate(tail, depth + 1))
                known, count = rest if pair == (head, tail) else "：".join(pair), len(parts)
        translated.append(known or parts[0])
        del parts[:count]
    return text if "; ".join(translated) == text else "；".join(translated)


def _longest(parts: list[str], depth: int) -> tuple[int, str]:
    """Return how many of the first parts make the longest sentence that is known, and its translation; where there is
    none, one and an empty text.
    """
    for count in range(min(len(parts), MAX_PARTS), 0, -1):
        found = _known("; ".join(parts[:count]), depth)
        if found is not None:
            return count, found
    return 1, ""


def _known(text: str, depth: int, *, also_swallowing: bool = False) -> str | None:
    """Return the translation of a sentence that the catalogue has; None where it has none.

    Args:
        also_swallowing: Let any placeholder hold semicolons.
    """
    exact, templates = _catalogue()
    if text in exact:
        return exact[text]
    is_parted = "; " in text and not also_swallowing
    for template in templates:
        if template.is_parted or not is_parted:
            found = template.translate(text, depth, also_swallowing)
            if found is not None:
                return found
    return None


class _Template:
    """A sentence with placeholders, and its translation; compiled when something looks like it."""

    def __init__(self, english: str, chinese: str) -> None:
        parts = re.split(r"\{(\w+)\}", english)
        self._literals, self._names = parts[::2], parts[1::2]
        self._chinese = chinese
        self._patterns: dict[bool, re.Pattern[str]] = {}
        self.weight = sum(map(len, self._literals))
        """How many characters are its own."""
        has_own = any("; " in literal for literal in self._literals)
        self.is_parted = has_own or (not self._literals[-1] and self._names[-1].islower())
        """Whether it may have semicolons: its own, or those of a sentence at its end."""

    def translate(self, text: str, depth: int, also_swallowing: bool) -> str | None:
        """Return the translation of a sentence; None where it is another one."""
        if not self._looks_like(text):
            return None
        if also_swallowing not in self._patterns:
            self._patterns[also_swallowing] = self._compile(also_swallowing)
        match = self._patterns[also_swallowing].fullmatch(text)
        if match is None:
            return None
        parts = {
            name: part if name.isupper() else _translate(part, depth + 1) for name, part in match.groupdict().items()
        }
        return re.sub(r"\{(\w+)\}", lambda found: parts[found.group(1)], self._chinese)

    def _looks_like(self, text: str) -> bool:
        """Tell fast whether a sentence holds the template's own words in order: all but one template are another's."""
        if not text.startswith(self._literals[0]) or not text.endswith(self._literals[-1]):
            return False
        position = 0
        for literal in self._literals:
            position = text.find(literal, position)
            if position < 0:
                return False
            position += len(literal)
        return True

    def _compile(self, also_swallowing: bool) -> re.Pattern[str]:
        names: set[str] = set()
        pattern = re.escape(self._literals[0])
        for name, literal in zip(self._names, self._literals[1:], strict=True):
            piece = ".*?"
            if name.isupper() and not names and not self._literals[0]:
                piece = "(?:(?!; |: ).)*?(?<!:)"
            elif name.isupper() and not also_swallowing:
                piece = "(?:(?!; ).)*?"
            pattern += f"(?P={name})" if name in names else f"(?P<{name}>{piece})"
            pattern += re.escape(literal)
            names.add(name)
        return re.compile(pattern)


@functools.lru_cache(maxsize=1)
def _catalogue() -> tuple[dict[str, str], list[_Template]]:
    """Return (exact sentences, templates), the templates with the most words of their own first."""
    import json
    from importlib import resources

    content: dict[str, str] = json.loads(
        (resources.files("oelm_jobs") / "text" / "zh.json").read_text(encoding="utf-8")
    )
    exact = {english: chinese for english, chinese in content.items() if not re.search(r"\{\w+\}", english)}
    templates = [_Template(english, chinese) for english, chinese in content.items() if english not in exact]
    return exact, sorted(templates, key=lambda template: template.weight, reverse=True)

"""The language of what is printed: English, or another one by a gettext catalogue in ``locale/``.

Sentences know the template that they were made of (agent/sentences.py); it is looked up where they are printed. What
the catalogue does not have is English, and text that is no sentence stays as it is: names, what other programs say,
the user's own words. ``tools/translations.py`` brings the catalogues up to date with the code.
"""

from __future__ import annotations

import contextlib
import functools
import gettext
import os
import re
from collections.abc import Iterator, Mapping

from .agent.sentences import Sentence, _

NAMES = {"en": "English", "zh": "中文"}
"""What each language is called in itself."""
LANGUAGES = tuple(NAMES)
DOMAIN = "oelm_jobs"
"""What gettext calls the catalogues of this project."""
LOCALE = os.path.join(os.path.dirname(__file__), "locale")
"""Where they lie; no Path, whose module takes a tenth of the time of ``--help``."""
MAX_LENGTH = 20_000
"""Characters of a translation: what a target nests in sentences that name it twice would grow without end."""
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
    if wanted == "en" or not text or not isinstance(text, Sentence):
        return text
    template = _catalogue(wanted).gettext(text.template)
    if not template:
        return text
    values = {name: _value(value, wanted) for name, value in text.values.items()}
    try:
        told = _filled(template, values)
    except (LookupError, TypeError, ValueError):  # values that a target made up
        return text
    return told if len(told) <= MAX_LENGTH else text


def translated_help(text: str) -> str:
    """Return what an option or a paragraph of a command's docstring says, in the chosen language."""
    return translated(Sentence.made(text, text, {}))


def click_says(text: str) -> str:
    """Return what click has put together of its own sentences, punctuated as the chosen language is."""
    return text if _chosen == "en" else re.sub("([。？！：；]) +", r"\1", re.sub(r"\.(?=\s|$)", "。", text))


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
    gettext.bindtextdomain(DOMAIN, LOCALE)
    gettext.textdomain(DOMAIN)
    os.environ["LANGUAGE"] = _chosen
    try:
        yield
    finally:
        gettext.textdomain(domain)
        del os.environ["LANGUAGE"]
        if language is not None:
            os.environ["LANGUAGE"] = language


def _filled(template: str, values: Mapping[str, object]) -> str:
    """Return a template with its values: a blank where one of them makes Chinese touch Latin letters or digits, and
    none where Chinese follows Chinese.
    """
    import string  # here: English does without

    told = ""
    for text, name, form, conversion in string.Formatter().parse(template):
        field = "" if name is None else f"{{{name}{'!' + conversion if conversion else ''}:{form}}}"
        for part in filter(None, (text, field.format(**values))):
            if re.fullmatch("[一-鿿][A-Za-z0-9]|[A-Za-z0-9][一-鿿]", told[-1:] + part[0]):
                told += " "
            elif re.search("[一-鿿] [一-鿿]", told[-2:] + part[:2]):
                told, part = told.rstrip(), part.lstrip()
            told += part
    return told


def _value(value: object, language: str) -> object:
    if isinstance(value, str):
        return translated(value, language)
    if isinstance(value, (list, tuple)):
        return translated(_(", "), language).join(str(_value(part, language)) for part in value)
    return value


class _Nothing(gettext.NullTranslations):
    """What a catalogue says of a template that it does not have: a target may have made it up."""

    def gettext(self, message: str) -> str:
        return ""


@functools.cache
def _catalogue(language: str) -> gettext.NullTranslations:
    found = gettext.translation(DOMAIN, LOCALE, [language], fallback=True)
    found.add_fallback(_Nothing())
    return found

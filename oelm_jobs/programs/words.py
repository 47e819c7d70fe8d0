"""Words of commands: split once, their placeholders filled in by position."""

from __future__ import annotations

import itertools
import json
import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from ..agent.run import line_patterns
from ..agent.sentences import _
from ..spec.program import Word

SHELLS = ("&&", "||", "|", "&", ";", ">", ">>", "<", "<<", "2>", "2>&1", "&>")
"""Words that only a shell understands."""
_QUOTED = re.compile(r"""'[^']*'|"(?:\\.|[^"\\])*"|\\.""", re.DOTALL)
"""Characters that a shell takes as they are."""
WHOLE = ("settings", "resume")
"""Placeholders that stand for several words, or none."""


class BadWords(ValueError):
    """A command can't be meant; the message says why."""


def read(command: str | Sequence[str]) -> tuple[Word, ...]:
    """Return the words of a command; a list is words.

    Raises:
        BadWords: It isn't closed, is a shell's, or has a brace that is none of a placeholder.
    """
    if isinstance(command, str):
        try:
            texts = shlex.split(command)
        except ValueError as error:
            raise BadWords(_("can't be split into words: {why}", str(error))) from None
        bare = _QUOTED.sub("quoted", command).split()
        if shell := [text for text in bare if text in SHELLS]:
            raise BadWords(_('{word!r} is a shell\'s: give [[stages]], or a list: ["sh", "-c", "…"]', shell[0]))
        if texts and re.match(r"[A-Za-z_]\w*=", texts[0]):
            raise BadWords(_("{word!r} is a shell's way to set a variable: begin with env", texts[0]))
    else:
        texts = list(command)
    return tuple(map(_word, texts))


def _word(text: str) -> Word:
    if not text.translate({10: " ", 9: " "}).isprintable():  # lines of a shell's script are words, too
        raise BadWords(_("{word!r} holds control characters", text))
    if "{" not in text and "}" not in text:
        return text
    try:
        parts = line_patterns.split(text)
    except line_patterns.BadPattern as error:
        raise BadWords(str(error)) from None
    if len(parts) == 1:
        return parts[0]
    if several := [name for name in parts[1::2] if name in WHOLE and parts != ["", name, ""]]:
        raise BadWords(_("{word!r}: {{{name}}} stands for several words, so it is a word of its own", text, several[0]))
    return tuple(parts)


def shown(words: Sequence[Word]) -> tuple[str, ...]:
    """Return words for a reader, placeholders as the study writes them."""
    return tuple(
        word
        if isinstance(word, str)
        else "".join(f"{{{part}}}" if place % 2 else part for place, part in enumerate(word))
        for word in words
    )


def fill(words: Sequence[Word], values: Mapping[str, str], settings: Sequence[str]) -> Iterator[Word]:
    """Yield words with the placeholders filled in whose values are given; others stay, and nothing is looked for in
    values.

    Args:
        settings: What {settings} stands for.
    """
    for word in words:
        if isinstance(word, str):
            yield word
        elif word[1] == "settings":
            yield from settings
        else:
            parts = [word[0]]
            for name, text in zip(word[1::2], word[2::2], strict=True):
                if name in values:
                    parts[-1] += values[name] + text
                else:
                    parts += [name, text]
            yield parts[0] if len(parts) == 1 else tuple(parts)


def spelled(value: Any, booleans: str) -> str:
    """Return a setting's value as a part of a word."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value) if booleans == "True" else str(value).lower()
    if isinstance(value, (list, tuple)):
        inner = (json.dumps(each) if isinstance(each, str) else spelled(each, booleans) for each in value)
        return f"[{','.join(inner)}]"
    return repr(value)


def options(settings: Mapping[str, Any], spelling: str, booleans: str) -> list[str]:
    """Return the words of {settings}."""
    found: list[str] = []
    dashes, sign = "" if spelling == "key=value" else "--", "" if spelling == "--key value" else "="
    for key, value in settings.items():
        if booleans == "flag" and isinstance(value, bool):
            found += [dashes + key] if value else []
        elif sign:
            found.append(f"{dashes}{key}={spelled(value, booleans)}")
        elif isinstance(value, (list, tuple)):
            found += [dashes + key, *(spelled(each, booleans) for each in value)]
        else:
            found += [dashes + key, spelled(value, booleans)]
    return found


def why_not_nested(names: Collection[str]) -> str:
    """Return why settings can't be written with a table for each dot in a name; empty where they can."""
    for name in sorted(names):
        for table in itertools.accumulate(name.split(".")[:-1], "{}.{}".format):
            if table in names:
                return _("{table} can't be both a value and the table that {name} belongs to", table, name)
    return ""


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with a table for each dot in a name."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        *tables, last = key.split(".")
        place = found
        for table in tables:
            place = place.setdefault(table, {})
        place[last] = value
    return found


def text_of(settings: Mapping[str, Any], kind: str) -> str:
    """Return the content of a file that {settings_file} names."""
    tables = nested(settings)
    if kind == "json":
        return json.dumps(tables, ensure_ascii=False, indent=2) + "\n"
    if kind == "yaml":
        return "".join(_yaml(tables, "")) or "{}\n"
    return "".join(_toml(tables, ()))


def _escaped(value: Any) -> str:
    """Return text, a number or a list as JSON that is YAML and TOML, too: these know no pairs of surrogates."""
    text = json.dumps(value, ensure_ascii=False)
    return re.sub("[^ -~]", lambda found: ("\\u%04x" if found[0] <= "\uffff" else "\\U%08x") % ord(found[0]), text)


def _yaml(tables: Mapping[str, Any], indent: str) -> Iterator[str]:
    """Yield lines of YAML 1.1, in which 1e-05 is text, and so is 1e5: a number has a dot."""
    for key, value in tables.items():
        if isinstance(value, dict):
            yield f"{indent}{_escaped(key)}:\n"
            yield from _yaml(value, indent + "  ")
        else:
            yield f"{indent}{_escaped(key)}: {_yaml_value(value)}\n"


def _yaml_value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml_value, value))}]"
    text = _escaped(value)
    return text.replace("e", ".0e", 1) if isinstance(value, float) and "." not in text else text


def _toml(tables: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[str]:
    values = {key: value for key, value in tables.items() if not isinstance(value, dict)}
    if above and values:
        yield f"[{'.'.join(map(_escaped, above))}]\n"
    for key, value in values.items():
        yield f"{_escaped(key)} = {_escaped(value)}\n"
    for key, value in tables.items():
        if isinstance(value, dict):
            yield from _toml(value, (*above, key))

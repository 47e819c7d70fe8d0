"""Read a program's arguments as options with values, as argparse, Hydra and others take them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..spec.program import SPELLINGS

SWITCH, SHORT, OVERRIDE, WORD = "--key", "-k", "+key=value", ""
"""How an argument may be written besides SPELLINGS: alone, with one dash, as Hydra's additions, a word by itself."""
_HYDRA = re.compile(r"([+~]{0,2})([A-Za-z_][\w./@-]*)=(.*)", re.DOTALL)
_ALONE = ("-m", "--multirun", "--resolve")
"""Hydra's flags, behind which its overrides may stand."""
_NUMBER = re.compile(r"-\.?\d[\d.eE+-]*")


@dataclass(frozen=True)
class Argument:
    """An option with its values, or a word by itself."""

    name: str
    """As a study calls it: without the dashes in front; ``#1`` for the first word by itself."""
    style: str
    """One of SPELLINGS, or of those above."""
    values: tuple[str, ...]

    def words(self, values: Sequence[str] | None = None) -> list[str]:
        """Return the argument's words, with other values where they are given."""
        several = list(self.values if values is None else values)
        if self.style == SPELLINGS[0]:
            return [f"--{self.name}={several[0]}"]
        if self.style == SPELLINGS[2] or self.style == OVERRIDE:
            return [f"{self.name}={several[0]}"]
        if self.style == WORD:
            return several
        return [("--" if self.style != SHORT else "") + self.name, *several]


def read(words: Sequence[str]) -> list[Argument]:
    """Return arguments in their order; of an option that is there twice, the second has another name."""
    found: list[Argument] = []
    names: dict[str, int] = {}
    place, count = 0, 0

    def add(name: str, style: str, values: Sequence[str]) -> None:
        names[name] = names.get(name, 0) + 1
        found.append(Argument(name if names[name] == 1 else f"{name}#{names[name]}", style, tuple(values)))

    while place < len(words):
        word = words[place]
        place += 1
        if word.startswith("--") and len(word) > 2:
            name, equals, value = word[2:].partition("=")
            if equals:
                add(name, SPELLINGS[0], [value])
                continue
            values, place = _values(words, place)
            add(name, SPELLINGS[1] if values else SWITCH, values)
        elif word.startswith("-") and len(word) > 1 and not _NUMBER.fullmatch(word) and word != "--":
            values, place = _values(words, place)
            add(word, SHORT, values)
        elif (hydra := _HYDRA.fullmatch(word)) and not word.endswith((".py", ".sh")):
            add(hydra[1] + hydra[2], OVERRIDE if hydra[1] else SPELLINGS[2], [hydra[3]])
        else:
            count += 1
            add(f"#{count}", WORD, [word])
    return found


def _values(words: Sequence[str], place: int) -> tuple[list[str], int]:
    values: list[str] = []
    while (
        place < len(words)
        and not (_HYDRA.fullmatch(words[place]) and (values or words[place - 1] in _ALONE))
        and (not words[place].startswith("-") or _NUMBER.fullmatch(words[place]) or words[place] == "-")
    ):
        values.append(words[place])
        place += 1
    return values, place

"""Recognise keys and tokens in scripts: they are neither written into a study nor shown."""

from __future__ import annotations

import re
from collections.abc import Sequence

_KEY = r"(?:api|access|secret|private|wandb|openai|hf|comet|neptune)[_-]?key(?:_id)?"
_TOKEN = r"(?:.*[_-])?(?:auth|access|hub|hf|api|github|gh|wandb|user)[_-]?token|token"
_SECRET = re.compile(rf"(?:.*[_.-])?(?:{_KEY}|secret|passw(?:or)?d|passphrase|credentials?)|{_TOKEN}", re.IGNORECASE)
_VARIABLE = re.compile(rf"[A-Z0-9_]*(?:_TOKEN|_SECRET)|{_SECRET.pattern}", re.I)
_GIVEN = re.compile(r"([\w.-]+)(=|\s+)(\"[^\"]*\"|'[^']*'|[^\s;&|\"']+)")
_LOGIN = re.compile(r"\b((?:wandb|huggingface-cli|hf|hf auth|comet|docker)\s+login)\s+\S.*")
_LOOKS = re.compile(r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|[0-9a-f]{40})\b")


def is_name(name: str) -> bool:
    """Tell whether an option's name says that its value is a secret."""
    return _SECRET.fullmatch(name.lstrip("-")) is not None


def is_variable(name: str) -> bool:
    """Tell whether an environment variable's name says that its value is a secret."""
    return _VARIABLE.fullmatch(name) is not None


def is_value(text: str) -> bool:
    """Tell whether a text looks like a key or token."""
    return _LOOKS.search(text) is not None


def without(words: Sequence[str]) -> tuple[str, ...]:
    """Return a command's words with dots in place of secrets."""
    found: list[str] = []
    is_next = False
    for word in words:
        name, equals, _value = word.partition("=")
        if is_next and not word.startswith("-"):
            word = "…"
        elif equals and (is_name(name) if name.startswith("-") else is_variable(name)):
            word = f"{name}=…"
        found.append(_LOOKS.sub("…", word))
        is_next = word.startswith("-") and not equals and is_name(word)
    return tuple(found)


def hidden(line: str) -> str:
    """Return a line of a script with dots in place of secrets."""

    def shown(found: re.Match[str]) -> str:
        name = found[1].lstrip("-")
        is_one = is_variable(name) if found[2] == "=" and not found[1].startswith("-") else is_name(name)
        is_one = is_one and (found[2] == "=" or found[1].startswith("-"))
        return f"{found[1]}{found[2]}…" if is_one else found[0]

    line = _LOGIN.sub(r"\1 …", line)
    previous = ""
    while previous != line:
        previous, line = line, _GIVEN.sub(shown, line)
    return _LOOKS.sub("…", line)

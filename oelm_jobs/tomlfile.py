"""Read users' TOML files, with errors that name the place and what would be right there."""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from .agent.sentences import _
from .encodings import conversion, name_encoding
from .errors import ConfigurationError, valid_choices

T = TypeVar("T")
_REQUIRED: Any = object()
KINDS = {
    bool: _("true or false"),
    int: _("a whole number"),
    float: _("a number"),
    str: _("text"),
    list: _("a list"),
    dict: _("a table"),
}
"""What a value of each type is called."""


def read(path: Path) -> Section:
    """Return the file's content.

    Raises:
        ConfigurationError: It can't be read or is not TOML (names the line).
    """
    return Section(path, "", tables(path))


def tables(path: Path) -> dict[str, Any]:
    """Return the file's content as it is.

    Raises:
        ConfigurationError: As ``read``.
    """
    if path.exists() and not path.is_file():  # reading a FIFO would wait for a writer for ever
        raise ConfigurationError(_("{path}: can't be read: it is no file", str(path)))
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors of Windows put a byte order mark in front
    except UnicodeDecodeError as error:
        encoding = name_encoding(error.object if error.object[:1] in b"\xff\xfe" else error.object[error.start :])
        if not encoding:
            raise ConfigurationError(_("{path}: not valid TOML: it is no text", str(path))) from error
        raise ConfigurationError(
            _("{path}: is {encoding} text, and TOML is UTF-8", str(path), encoding),
            hint=_("save it as UTF-8 in the editor, or convert it: {command}", conversion(path, encoding)),
        ) from error
    except OSError as error:
        raise ConfigurationError(_("{path}: can't be read: {why}", str(path), str(error))) from error
    try:
        return loads(text)
    except (ValueError, RecursionError) as error:  # what is no TOML is a ValueError
        raise ConfigurationError(_("{path}: not valid TOML: {why}", str(path), str(error))) from error


@contextmanager
def changing(path: Path) -> Iterator[dict[str, Any]]:
    """Let one command at a time change a file that the toolkit writes; yield its content, empty where there is none.

    Raises:
        ConfigurationError: It can't be read or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)  # of several commands at once none may lose what another adds
            yield tables(path) if path.exists() else {}
        finally:
            os.close(folder)
    except OSError as error:
        raise ConfigurationError(_("{path}: can't be written: {why}", str(path), str(error))) from error


def as_text(value: Any) -> str:
    """Return a value as TOML: a JSON string, number or list of them is one, but for DEL as it is."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{as_text(key)} = {as_text(each)}" for key, each in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def document(tables: Mapping[str, Any]) -> str:
    """Return a file's content: values, then a table for each that isn't empty."""
    lines = _lines({key: value for key, value in tables.items() if not isinstance(value, Mapping)})
    for name, table in tables.items():
        if isinstance(table, Mapping) and table:
            lines += ["", f"[{bare_key(name)}]", *_lines(table)]
    return "\n".join(lines) + "\n"


def _lines(table: Mapping[str, Any]) -> list[str]:
    return [f"{bare_key(key)} = {as_text(value)}" for key, value in table.items()]


def bare_key(name: str) -> str:
    """Return a name as TOML writes a key: in quotes where it needs them."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else as_text(name)


def value_of(text: str) -> Any:
    """Return the number, text, list or truth value that a text is in TOML; the text itself where it is none."""
    try:
        value = loads(f"value = {text}")["value"] if text.isprintable() and "#" not in text else text
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return text
    return text if isinstance(value, dict) else value


def loads(text: str) -> dict[str, Any]:
    """Return the content of a TOML text.

    Raises:
        ValueError: It is none.
    """
    if sys.version_info >= (3, 11):  # here: a status of a project without targets files reads none
        import tomllib
    else:
        import tomli as tomllib
    return dict(tomllib.loads(text))


class Section:
    """One table of a file; keys are taken one by one, and those left at the end are unknown."""

    def __init__(self, path: Path, name: str, values: Mapping[str, object]) -> None:
        self.path = path
        self.name = name
        self._values = dict(values)
        self._known: list[str] = []

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def keys_left(self) -> list[str]:
        """Return the keys not yet taken, in the file's order."""
        return list(self._values)

    def error(self, key: str, message: str, *, value: Any = _REQUIRED) -> ConfigurationError:
        """Return an error about ``key`` that names the file, the table and the value."""
        where = f"[{self.name}] " if self.name else ""
        shown = "" if value is _REQUIRED else f" = {value!r}"
        return ConfigurationError(_("{path}: {where}{key}{value}: {why}", str(self.path), where, key, shown, message))

    def take(self, key: str, kind: type[T], default: T = _REQUIRED, *, choices: Iterable[str] = ()) -> T:
        """Return the value of ``key`` (whole numbers count as numbers).

        Raises:
            ConfigurationError: It is missing without a default, of another type, or not among ``choices``.
        """
        self._known.append(key)
        if key not in self._values:
            if default is _REQUIRED:
                raise self.error(key, _("is missing; give {what}", KINDS[kind]))
            return default
        value = self._values.pop(key)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.error(key, _("must be {what}", KINDS[kind]), value=value)
        if isinstance(value, float) and not math.isfinite(value):
            raise self.error(key, _("must be finite"), value=value)
        allowed = list(choices)
        if allowed and value not in allowed:
            raise self.error(key, valid_choices(str(value), allowed), value=value)
        return value

    def take_any(self, key: str) -> Any:
        """Return the value of ``key`` of whatever type; the caller checks it."""
        self._known.append(key)
        return self._values.pop(key)

    def take_list(self, key: str, kind: type[T], default: Iterable[T] = _REQUIRED) -> tuple[T, ...]:
        """Return a list whose items are all of one type."""
        values = self.take(key, list, _REQUIRED if default is _REQUIRED else list(default))
        for item in values:
            if not isinstance(item, kind) or (kind is int and isinstance(item, bool)):
                raise self.error(key, _("every item must be {what}", KINDS[kind]), value=item)
        return tuple(values)

    def take_section(self, key: str, *, required: bool = False) -> Section:
        """Return the table ``key``; an empty one where it is absent."""
        values = self.take(key, dict, _REQUIRED if required else {})
        return Section(self.path, f"{self.name}.{key}" if self.name else key, values)

    def finish(self, also_known: Iterable[str] = ()) -> None:
        """Raise an error about keys that weren't taken.

        Raises:
            ConfigurationError: Names the first, with the nearest valid spelling.
        """
        for key, value in self._values.items():
            known = [*self._known, *also_known]
            raise self.error(key, _("unknown key; {choices}", valid_choices(key, known)), value=value)

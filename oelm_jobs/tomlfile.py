"""Read users' TOML files, with errors that name the place and what would be right there."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from .agent.sentences import _
from .encodings import conversion, name_encoding
from .errors import ConfigurationError, valid_choices

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

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
        return dict(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigurationError(_("{path}: not valid TOML: {why}", str(path), str(error))) from error


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

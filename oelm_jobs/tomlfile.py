"""Read users' TOML files, with errors that name the place and what would be right there."""

from __future__ import annotations

import fcntl
import functools
import json
import math
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from .agent.sentences import Sentence, _
from .encodings import conversion, name_encoding
from .errors import ConfigurationError, nearest, valid_choices

T = TypeVar("T")
REQUIRED: Any = object()
"""In place of a default: there is none."""
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
    text = _text(path)
    return Section(path, "", _tables(path, text), text=text)


def tables(path: Path) -> dict[str, Any]:
    """Return the file's content as it is.

    Raises:
        ConfigurationError: As ``read``.
    """
    return _tables(path, _text(path))


def _text(path: Path) -> str:
    if path.exists() and not path.is_file():  # reading a FIFO would wait for a writer for ever
        raise ConfigurationError(_("{path}: can't be read: it is no file", str(path)))
    try:
        return path.read_text(encoding="utf-8-sig")  # editors of Windows put a byte order mark in front
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


def _tables(path: Path, text: str) -> dict[str, Any]:
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
        inner = ", ".join(f"{bare_key(key)} = {as_text(each)}" for key, each in value.items())
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


@dataclass
class _File:
    """What the tables of a file have in common."""

    text: str
    errors: list[ConfigurationError] = field(default_factory=list)
    lacking: dict[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict)
    """What is missing, by its place, and the keys that would do."""

    def line_of(self, place: tuple[str, ...]) -> int:
        """Return the line of a key; 0 where that can't be told."""
        from .tomllines import line_of  # here: most files are right

        return line_of(self.text, place)


class Section:
    """One table of a file; keys are taken one by one, and those left at the end are unknown.

    What is wrong is noted, and reading goes on with a harmless value in its place: ``all_at_once`` says it all at the
    end. What is derived from such a value is not told as wrong itself.
    """

    def __init__(self, path: Path, name: str, values: Mapping[str, object], *, text: str = "") -> None:
        """Make the table.

        Args:
            text: The file's, in which errors find their lines.
        """
        self.path = path
        self.name = name
        self._values = dict(values)
        self._known: list[str] = []
        self._place: tuple[str, ...] = (name,) if name else ()
        self._file = _File(text)

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def keys_left(self) -> list[str]:
        """Return the keys not yet taken, in the file's order."""
        return list(self._values)

    def beside(self, *keys: str) -> Section:
        """Return a table of the same file, by the keys that lead to it from here, for errors about what it holds."""
        table = self
        for key in keys:
            table = table.below(key, {})
        return table

    def below(self, key: str, values: Mapping[str, object]) -> Section:
        """Return a table that stands in this one as ``key``."""
        table = type(self)(self.path, f"{self.name}.{key}" if self.name else key, values)
        table._place, table._file = (*self._place, key), self._file
        return table

    # What is wrong ----------------------------------------------------------------------------------------------------

    @property
    def is_right(self) -> bool:
        """Whether nothing is wrong in the file so far."""
        return not self._file.errors

    def is_wrong(self, key: str) -> bool:
        """Tell whether something is wrong with ``key`` so far."""
        return any(error.place == (*self._place, key) for error in self._file.errors)

    def error(self, key: str, message: str, *, value: Any = REQUIRED, at: str = "") -> ConfigurationError:
        """Return an error about ``key`` that names the file, the line, the table and the value.

        Args:
            at: The key in the file, where ``key`` is a description.
        """
        where = f"[{self.name}] " if self.name else ""
        shown = "" if value is REQUIRED or isinstance(value, Mapping) else f" = {value!r}"
        place = (*self._place, at or key)
        line = self._file.line_of(place)
        if line:
            what = _("{path}:{line}: {where}{key}{value}: {why}", str(self.path), line, where, key, shown, message)
        else:
            what = _("{path}: {where}{key}{value}: {why}", str(self.path), where, key, shown, message)
        error = ConfigurationError(what)
        error.place, error.line = place, line
        return error

    def wrong(self, key: str, message: str, *, value: Any = REQUIRED, at: str = "", hint: str = "") -> None:
        """Note an error about ``key``, unless one is noted already."""
        error = self.error(key, message, value=value, at=at)
        error.hint = hint
        self._note(error)

    def wrong_items(self, key: str, wrong: Iterable[tuple[Any, str]]) -> bool:
        """Note an error about each of these items of the list ``key``; return whether there is none."""
        errors = [self.error(key, message, value=item) for item, message in wrong]
        if errors and all(other.place != errors[0].place for other in self._file.errors):
            self._file.errors += errors
        return not errors

    def lacks(self, key: str, message: str, *, instead: Iterable[str] = ()) -> None:
        """Note that ``key`` is missing; where ``finish`` finds it misspelt, that alone is told.

        Args:
            instead: Keys that would do as well.
        """
        self.wrong(key, message)
        place = (*self._place, key)
        self._file.lacking[place] = (key, *instead)

    def _note(self, error: ConfigurationError) -> None:
        if not error.place or all(other.place != error.place for other in self._file.errors):
            self._file.errors.append(error)

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note the error that ends what is done within, and go on behind it."""
        try:
            yield
        except ConfigurationError as error:
            self._note(error)

    @contextmanager
    def all_at_once(self) -> Iterator[None]:
        """Read a file within.

        Raises:
            ConfigurationError: Says all that is wrong in it.
        """
        with self.noting():
            yield
        if len(self._file.errors) == 1:
            raise self._file.errors[0]
        if self._file.errors:
            found = sorted(self._file.errors, key=lambda error: error.line or sys.maxsize)
            begin = _("{path}: {count} errors", str(self.path), len(found))
            error = ConfigurationError(
                functools.reduce(lambda a, b: _("{a}\n{b}", a, b), map(_without_path, found), begin)
            )
            error.errors = tuple(found)
            error.hint = next((each.hint for each in found if each.hint), "")
            raise error

    # Taking keys ------------------------------------------------------------------------------------------------------

    def take(self, key: str, kind: type[T], default: T = REQUIRED, *, choices: Iterable[str] = ()) -> T:
        """Return the value of ``key`` (whole numbers count as numbers); the default, or an empty one, where it is
        missing without a default, of another type, or not among ``choices``, which is noted.
        """
        self._known.append(key)
        choices = list(choices)
        instead = kind() if default is REQUIRED else default
        if key not in self._values:
            if default is REQUIRED:
                valid = valid_choices("", choices)
                self.lacks(
                    key, _("is missing; {choices}", valid) if choices else _("is missing; give {what}", KINDS[kind])
                )
            return instead
        value = self._values.pop(key)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            self.wrong(key, _("must be {what}", KINDS[kind]), value=value)
            return instead
        if isinstance(value, float) and not math.isfinite(value):
            self.wrong(key, _("must be finite"), value=value)
            return instead
        if choices and value not in choices:
            self.wrong(key, valid_choices(str(value), choices), value=value)
            return instead
        return value

    def take_any(self, key: str) -> Any:
        """Return the value of ``key`` of whatever type; the caller checks it."""
        self._known.append(key)
        return self._values.pop(key)

    def take_list(self, key: str, kind: type[T], default: Iterable[T] = REQUIRED) -> tuple[T, ...]:
        """Return a list whose items are all of one type; those that aren't are left out, which is noted."""
        values = self.take(key, list, REQUIRED if default is REQUIRED else list(default))
        wrong = [item for item in values if not isinstance(item, kind) or (kind is int and isinstance(item, bool))]
        self.wrong_items(key, ((item, _("every item must be {what}", KINDS[kind])) for item in wrong))
        return tuple(item for item in values if not any(item is each for each in wrong))

    def take_section(self, key: str, *, required: bool = False) -> Section:
        """Return the table ``key``; an empty one where it is absent."""
        values = self.take(key, dict, REQUIRED if required else {})
        return self.below(key, values)

    def finish(self, also_known: Iterable[str] = (), *, are_secret: bool = False) -> None:
        """Note the keys that weren't taken, each with the nearest valid spelling; what is missing for being misspelt
        is no error of its own.

        Args:
            are_secret: Their values may be, and are not shown.
        """
        known = [*self._known, *also_known]
        for key, value in self._values.items():
            shown = REQUIRED if are_secret else value
            self.wrong(key, _("unknown key; {choices}", valid_choices(key, known)), value=shown)
            meant = nearest(key, known)
            for place, names in self._file.lacking.items():
                if meant in names and place[:-1] == self._place:
                    self._file.errors[:] = [error for error in self._file.errors if error.place != place]


def _without_path(error: ConfigurationError) -> str:
    """Return what one of several errors in a file says, which has been named before."""
    said = error.args[0]
    if not isinstance(said, Sentence) or not error.place:
        return str(said)
    where, key, shown, why = (said.values[name] for name in ("where", "key", "value", "why"))
    if not error.line:
        return _("{where}{key}{value}: {why}", where, key, shown, why)
    return _("line {line}: {where}{key}{value}: {why}", error.line, where, key, shown, why)

"""Shapes of data, and comparing a value with one, for the agent and for the client.

Everything that arrives is JSON from elsewhere: an answer, a request, a record on a disk that others write to. A shape's
``wrong`` returns None where a value fits; else where it does not and why, as ``.key[3] = "x": must be a number``. It
drops what a table does not know.
"""

from __future__ import annotations

import functools
import json
import re
from typing import TYPE_CHECKING, Any, Callable, List, Mapping, NamedTuple, Optional, Tuple, Union

from .sentences import _

if TYPE_CHECKING:
    from typing import Protocol

    class Shape(Protocol):
        """Any of the shapes below."""

        def wrong(self, value: Any) -> Optional[str]:
            """Return where a value does not fit and why; None where it fits."""


SHOWN = 60
"""So much of a value is shown."""


class Misfit(ValueError):
    """A value is not what was agreed; the message says where."""

    is_refusal = True


class Text(NamedTuple):
    """Text that can be encoded; without NUL, which no path or argument holds, unless it is prose or odd."""

    most: int = 4096
    """Characters."""
    pattern: str = ""
    """Regular expression for the whole; any text where it is empty."""
    among: Tuple[str, ...] = ()
    """The only values."""
    is_prose: bool = False
    """Whether people alone read it: whoever says it cuts it to ``most``."""
    unit: int = 1
    """Its length is a multiple of so many characters."""
    may_be_odd: bool = False
    """Whether it may hold halves of characters, as names of files may."""

    def wrong(self, value: Any) -> Optional[str]:
        """Return where a value does not fit and why; None where it fits."""
        most, pattern, among, is_prose, unit, may_be_odd = self
        if not isinstance(value, str):  # a state is a member of an enumeration before it is JSON
            return _wrong(value, _("must be text"))
        if len(value) > most:
            return _wrong(value, _("has {count} characters, at most {most} are meant", len(value), most))
        if among:
            return None if value in among else _wrong(value, _("valid: {choices}", among))
        if len(value) % unit or (pattern and not _matcher(pattern)(value)):
            return _wrong(value, _("does not look as agreed"))
        if "\0" in value and not is_prose and not may_be_odd:
            return _wrong(value, _("holds NUL"))
        if not value.isascii() and not may_be_odd and _has_half(value):
            return _wrong(value, _("holds half a character"))
        return None


@functools.lru_cache(maxsize=None)
def _matcher(pattern: str) -> Callable[[str], object]:
    return re.compile(pattern).fullmatch


class Number(NamedTuple):
    """A finite number."""

    least: float = -1e300
    most: float = 1e300
    whole: bool = False
    """Whether it is an integer."""

    def wrong(self, value: Any) -> Optional[str]:
        """As in Text."""
        least, most, whole = self
        kind = type(value)
        if kind is not int and (kind is not float or whole):
            return _wrong(value, _("must be a whole number") if whole else _("must be a number"))
        if least <= value <= most:  # of NaN neither holds
            return None
        return _wrong(value, _("must lie between {least:g} and {most:g}", least, most))


FINITE = Number()


class Flag(NamedTuple):
    """True or false."""

    def wrong(self, value: Any) -> Optional[str]:
        """As in Text."""
        return None if type(value) is bool else _wrong(value, _("must be true or false"))


class Maybe(NamedTuple):
    """What fits a shape, or null."""

    shape: Shape

    def wrong(self, value: Any) -> Optional[str]:
        """As in Text."""
        return None if value is None else self.shape.wrong(value)


class Each(NamedTuple):
    """A list of what fits a shape."""

    shape: Shape
    most: int = 100_000

    def wrong(self, value: Any) -> Optional[str]:
        """As in Text."""
        if type(value) is not list and type(value) is not tuple:  # JSON of our own process has not been written yet
            return _wrong(value, _("must be a list"))
        if len(value) > self.most:
            return _wrong(value, _("at most {most} are meant", self.most))
        for number, item in enumerate(value):
            found = self.shape.wrong(item)
            if found is not None:
                return _("[{number}]{wrong}", number, found)
        return None


class Row(NamedTuple):
    """A list of as many values as shapes, each of its own shape."""

    shapes: Tuple[Shape, ...]

    def wrong(self, value: Any) -> Optional[str]:
        """As in Text."""
        if type(value) not in (list, tuple) or len(value) != len(self.shapes):
            return _wrong(value, _("must be a list of {count}", len(self.shapes)))
        for number, (shape, item) in enumerate(zip(self.shapes, value)):
            found = shape.wrong(item)
            if found is not None:
                return _("[{number}]{wrong}", number, found)
        return None


class Map(NamedTuple):
    """An object of any keys, each with what fits a shape."""

    shape: Shape
    most: int = 100_000
    keys: Text = Text()

    def wrong(self, value: Any) -> Optional[str]:
        """As in Text."""
        if type(value) is not dict:
            return _wrong(value, _("must be an object"))
        if len(value) > self.most:
            return _wrong(value, _("at most {most} are meant", self.most))
        for key, item in value.items():
            found = self.keys.wrong(key)
            if found is not None:
                return _("'s key{wrong}", found)
            found = self.shape.wrong(item)
            if found is not None:
                return _(".{key}{wrong}", key[: 4 * SHOWN], found)
        return None


class Table(NamedTuple):
    """An object of known keys. What it has besides is a newer version's, and is dropped unless the table keeps it."""

    must: Mapping[str, Shape]
    may: Mapping[str, Shape] = {}
    keeps: bool = False

    def wrong(self, value: Any) -> Optional[str]:
        """As in Text."""
        if type(value) is not dict:
            return _wrong(value, _("must be an object"))
        must, may, keeps = self
        if not must.keys() <= value.keys():
            return _(".{key} is missing", min(must.keys() - value.keys()))
        newer = []
        for key, item in value.items():
            shape = may[key] if key in may else must.get(key)
            if shape is None:
                newer.append(key)
                continue
            found = shape.wrong(item)
            if found is not None:
                return _(".{key}{wrong}", key, found)
        for key in newer if not keeps else ():
            del value[key]
        return None


class Either(NamedTuple):
    """What fits one of several shapes."""

    shapes: Tuple[Shape, ...]

    def wrong(self, value: Any) -> Optional[str]:
        """As in Text."""
        found: Optional[str] = None
        for shape in self.shapes:
            found = shape.wrong(value)
            if found is None:
                break
        return found


class Anything(NamedTuple):
    """Any JSON, as far as it is bounded."""

    depth: int = 8
    values: int = 10_000
    """How many there may be in it."""
    text: Text = Text(most=65_536, is_prose=True)
    """What its texts and keys fit."""
    is_table: bool = False
    """Whether it has to be an object."""

    def wrong(self, value: Any) -> Optional[str]:
        """As in Text."""
        if self.is_table and type(value) is not dict:
            return _wrong(value, _("must be an object"))
        text, left, level = self.text, self.values, [value]
        for _level in range(self.depth + 1):
            below: List[Any] = []
            left -= len(level)
            if left < 0:
                return _wrong(value, _("holds more than {count} values", self.values))
            for item in level:
                kind, found = type(item), None
                if kind is dict:
                    below += [*item, *item.values()]
                elif kind is list or kind is tuple:
                    below += item
                elif kind is str:
                    found = text.wrong(item)
                elif item is not None and kind is not bool:
                    found = FINITE.wrong(item)
                if found is not None:
                    return found
            if not below:
                return None
            level = below
        return _wrong(value, _("is nested more than {count} deep", self.depth))


def loads(content: Union[str, bytes]) -> Any:
    """Return what a JSON document says.

    Raises:
        Misfit: It is none, is nested too deeply, or holds a number that is none.
    """
    try:
        return json.loads(content, parse_constant=_no_constant)
    except RecursionError:
        raise Misfit(_(": is nested too deeply")) from None
    except ValueError as error:
        raise Misfit(_(": is no JSON ({why})", str(error))) from None


def _no_constant(word: str) -> None:
    raise ValueError(_("{word} is no number", word))


def shortened(value: Any) -> str:
    """Return what of a value an error shows, whatever its size or depth."""
    if isinstance(value, str):
        return json.dumps(value[:SHOWN] + ("…" if len(value) > SHOWN else ""), ensure_ascii=False)
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 10**20 else _("a number of {count} bits", value.bit_length())
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, list):
        return _("a list of {count}", len(value))
    return _("an object of {count}", len(value)) if isinstance(value, dict) else type(value).__name__


def _has_half(text: str) -> bool:
    """True where text holds half of a pair, which no file, database or terminal takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _wrong(value: Any, problem: str) -> str:
    return _(" = {value}: {problem}", shortened(value), problem)


def cut(shape: Optional[Shape], value: Any) -> Any:
    """Return a value with the prose in it cut to what its shape allows, and without halves of characters there."""
    if isinstance(shape, Text) and shape.is_prose and isinstance(value, str):
        if _has_half(value):  # else it stays a sentence if it was one
            value = re.sub("[\ud800-\udfff]", "\ufffd", value)
        return value if len(value) <= shape.most else value[: shape.most - 1] + "…"
    if isinstance(shape, Maybe):
        return cut(shape.shape, value)
    if isinstance(shape, Table) and isinstance(value, dict):
        shapes = {**shape.must, **shape.may}
        return {key: cut(shapes.get(key), item) for key, item in value.items()}
    if isinstance(shape, Map) and isinstance(value, dict):
        return {key: cut(shape.shape, item) for key, item in value.items()}
    if isinstance(shape, Each) and isinstance(value, (list, tuple)):
        return [cut(shape.shape, item) for item in value]
    if isinstance(shape, Either):
        for each in shape.shapes:
            value = cut(each, value)
    return value

"""Shapes of data, and the checker that compares a value with one, for the agent and for the client.

Everything that arrives is JSON from elsewhere: an answer, a request, a record on a disk that others write to. A shape
is plain data; ``compiled`` makes a function of it, since a status checks ten thousand rows.
"""

from __future__ import annotations

import json
import re
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple, Union

from .sentences import _

Check = Callable[[Any], Optional[str]]
"""Returns None where a value fits; else where it does not and why, as ``.key[3] = "x": must be a number``."""


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


class Number(NamedTuple):
    """A finite number."""

    least: float = -1e300
    most: float = 1e300
    whole: bool = False
    """Whether it is an integer."""


class Flag(NamedTuple):
    """True or false."""


class Maybe(NamedTuple):
    """What fits a shape, or null."""

    shape: Any


class Each(NamedTuple):
    """A list of what fits a shape."""

    shape: Any
    most: int = 100_000


class Row(NamedTuple):
    """A list of as many values as shapes, each of its own shape."""

    shapes: Tuple[Any, ...]


class Map(NamedTuple):
    """An object of any keys, each with what fits a shape."""

    shape: Any
    most: int = 100_000
    keys: Text = Text()


class Table(NamedTuple):
    """An object of known keys. What it has besides is a newer version's, and is dropped unless the table keeps it."""

    must: Dict[str, Any]
    may: Dict[str, Any] = {}  # noqa: RUF012 - a tuple's field, which nobody changes
    keeps: bool = False


class Either(NamedTuple):
    """What fits one of several shapes."""

    shapes: Tuple[Any, ...]


class Anything(NamedTuple):
    """Any JSON, as far as it is bounded."""

    depth: int = 8
    values: int = 10_000
    """How many there may be in it."""
    text: int = 65_536
    """Characters of a text or key."""
    is_table: bool = False
    """Whether it has to be an object."""


_HALF = re.compile("[\ud800-\udfff]")
"""Halves of pairs, which no file, database or terminal takes."""
SHOWN = 60
"""So much of a value is shown."""


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


def _wrong(value: Any, problem: str) -> str:
    return _(" = {value}: {problem}", shortened(value), problem)


def compiled(shape: Any) -> Check:
    """Return the function that checks values of a shape; it drops what a table does not know."""
    return _MAKERS[type(shape)](shape)


def _text(shape: Text) -> Check:
    most, among, unit, may_be_odd = shape.most, frozenset(shape.among), shape.unit, shape.may_be_odd
    may_hold_nul = shape.is_prose or may_be_odd
    matches = re.compile(shape.pattern).fullmatch if shape.pattern else None

    def check(value: Any) -> Optional[str]:
        if not isinstance(value, str):  # a state is a member of an enumeration before it is JSON
            return _wrong(value, _("must be text"))
        if len(value) > most:
            return _wrong(value, _("has {count} characters, at most {most} are meant", len(value), most))
        if among:
            return None if value in among else _wrong(value, _("valid: {choices}", shape.among))
        if len(value) % unit or (matches is not None and not matches(value)):
            return _wrong(value, _("does not look as agreed"))
        if "\0" in value and not may_hold_nul:
            return _wrong(value, _("holds NUL"))
        if not value.isascii() and not may_be_odd and _HALF.search(value):
            return _wrong(value, _("holds half a character"))
        return None

    return check


def _number(shape: Number) -> Check:
    least, most, whole = shape

    def check(value: Any) -> Optional[str]:
        kind = type(value)
        if kind is not int and (kind is not float or whole):
            return _wrong(value, _("must be a whole number") if whole else _("must be a number"))
        if least <= value <= most:  # of NaN neither holds
            return None
        return _wrong(value, _("must lie between {least:g} and {most:g}", least, most))

    return check


def _flag(shape: Flag) -> Check:
    return lambda value: None if type(value) is bool else _wrong(value, _("must be true or false"))


def _maybe(shape: Maybe) -> Check:
    inner = compiled(shape.shape)
    return lambda value: None if value is None else inner(value)


def _each(shape: Each) -> Check:
    inner, most = compiled(shape.shape), shape.most

    def check(value: Any) -> Optional[str]:
        if type(value) is not list and type(value) is not tuple:  # JSON of our own process has not been written yet
            return _wrong(value, _("must be a list"))
        if len(value) > most:
            return _wrong(value, _("at most {most} are meant", most))
        for number, item in enumerate(value):
            wrong = inner(item)
            if wrong is not None:
                return _("[{number}]{wrong}", number, wrong)
        return None

    return check


def _row(shape: Row) -> Check:
    inner = [compiled(each) for each in shape.shapes]

    def check(value: Any) -> Optional[str]:
        if type(value) not in (list, tuple) or len(value) != len(inner):
            return _wrong(value, _("must be a list of {count}", len(inner)))
        for number, item in enumerate(value):
            wrong = inner[number](item)
            if wrong is not None:
                return _("[{number}]{wrong}", number, wrong)
        return None

    return check


def _map(shape: Map) -> Check:
    inner, key_is, most = compiled(shape.shape), compiled(shape.keys), shape.most

    def check(value: Any) -> Optional[str]:
        if type(value) is not dict:
            return _wrong(value, _("must be an object"))
        if len(value) > most:
            return _wrong(value, _("at most {most} are meant", most))
        for key, item in value.items():
            wrong = key_is(key)
            if wrong is None:
                wrong = inner(item)
                if wrong is None:
                    continue
                return _(".{key}{wrong}", key[: 4 * SHOWN], wrong)
            return _("'s key{wrong}", wrong)
        return None

    return check


def _table(shape: Table) -> Check:
    must, keeps = frozenset(shape.must), shape.keeps
    known = {key: compiled(each) for key, each in [*shape.must.items(), *shape.may.items()]}
    find = known.get

    def check(value: Any) -> Optional[str]:
        if type(value) is not dict:
            return _wrong(value, _("must be an object"))
        if not must <= value.keys():
            return _(".{key} is missing", sorted(must - value.keys())[0])
        is_newer = False
        for key, item in value.items():
            inner = find(key)
            if inner is None:
                is_newer = True
                continue
            wrong = inner(item)
            if wrong is not None:
                return _(".{key}{wrong}", key, wrong)
        if is_newer and not keeps:
            for key in [key for key in value if key not in known]:
                del value[key]
        return None

    return check


def _either(shape: Either) -> Check:
    inner = [compiled(each) for each in shape.shapes]

    def check(value: Any) -> Optional[str]:
        wrong: Optional[str] = None
        for each in inner:
            wrong = each(value)
            if wrong is None:
                return None
        return wrong

    return check


def _anything(shape: Anything) -> Check:
    number, text = _number(Number()), _text(Text(most=shape.text, is_prose=True))

    def check(value: Any) -> Optional[str]:
        if shape.is_table and type(value) is not dict:
            return _wrong(value, _("must be an object"))
        left, level = shape.values, [value]
        for _level in range(shape.depth + 1):
            below: List[Any] = []
            left -= len(level)
            if left < 0:
                return _wrong(value, _("holds more than {count} values", shape.values))
            for item in level:
                kind, wrong = type(item), None
                if kind is dict:
                    below += [*item, *item.values()]
                elif kind is list or kind is tuple:
                    below += item
                elif kind is str:
                    wrong = text(item)
                elif item is not None and kind is not bool:
                    wrong = number(item)
                if wrong is not None:
                    return wrong
            if not below:
                return None
            level = below
        return _wrong(value, _("is nested more than {count} deep", shape.depth))

    return check


_MAKERS: Dict[Any, Callable[[Any], Check]] = {
    Text: _text, Number: _number, Flag: _flag, Maybe: _maybe, Each: _each, Row: _row, Map: _map, Table: _table,
    Either: _either, Anything: _anything,
}  # fmt: skip


def cut(shape: Any, value: Any) -> Any:
    """Return a value with the prose in it cut to what its shape allows, and without halves of characters there."""
    if isinstance(shape, Text) and shape.is_prose and isinstance(value, str):
        value = _HALF.sub("\ufffd", value) if _HALF.search(value) else value  # which stays a sentence if it was one
        return value if len(value) <= shape.most else value[: shape.most - 1] + "…"
    if isinstance(shape, Maybe):
        return cut(shape.shape, value)
    if isinstance(shape, Table) and isinstance(value, dict):
        shapes = dict(shape.must, **shape.may)
        return {key: cut(shapes.get(key), item) for key, item in value.items()}
    if isinstance(shape, Map) and isinstance(value, dict):
        return {key: cut(shape.shape, item) for key, item in value.items()}
    if isinstance(shape, Each) and isinstance(value, (list, tuple)):
        return [cut(shape.shape, item) for item in value]
    if isinstance(shape, Either):
        for each in shape.shapes:
            value = cut(each, value)
    return value

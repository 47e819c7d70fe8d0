"""The page of the JSON objects that commands print: the fields of their types."""

from __future__ import annotations

import inspect
import typing
from types import NoneType, UnionType
from typing import Any

import msgspec

from oelm_jobs.cli import objects

from .words import NOTE, Meaningless, code, documented, prose, table

PLURALS = {"list of texts": "lists of texts", "null": "null", "anything": "anything"}
TYPES = {str: "text", int: "whole number", float: "number", bool: "true or false", NoneType: "null", Any: "anything"}


def page() -> str:
    """Return the page."""
    parts = [NOTE, HEAD]
    own = {kinds[0]: f"oelm-{command}" for command, kinds in objects.PRINTED.items()}
    for command, kinds in objects.PRINTED.items():
        called = f"oelm-{command}"
        parts.append(f"## {called}\n")
        for kind in kinds:
            if own.get(kind, called) != called:
                parts.append(f"Or what [{own[kind]}](#{own[kind]}) prints.\n")
            else:
                parts.append(f"{prose(inspect.getdoc(kind) or '')}\n\n{_table(kind)}{_inside(kind, '')}")
    return "\n".join(parts)


def fields(kind: type) -> dict[str, Any]:
    """Return the type of each field of an object, in their order."""
    found = typing.get_type_hints(kind)
    return dict(sorted(found.items(), key=lambda item: _may_lack(kind, item[0])))


def is_object(kind: Any) -> bool:
    """Tell whether a type is one of objects with fields of their own."""
    return typing.is_typeddict(kind) or (isinstance(kind, type) and issubclass(kind, msgspec.Struct))


def _table(kind: type) -> str:
    said, rows = documented(kind), []
    for name, hint in fields(kind).items():
        if not said.get(name):
            raise Meaningless(f"{kind.__module__}.{kind.__name__}.{name} has no docstring")
        rows.append((code(name), _words(hint, may_lack=_may_lack(kind, name)), said[name]))
    return table(("field", "type", "meaning"), rows)


def _may_lack(kind: type, name: str) -> bool:
    return typing.is_typeddict(kind) and name in kind.__optional_keys__


def _inside(kind: type, place: str) -> str:
    """Return the tables of the objects in an object."""
    parts = []
    for name, hint in fields(kind).items():
        for path, inner in _objects(hint, f"{place}{name}"):
            parts.append(f"\n`{path}`: {prose(inspect.getdoc(inner) or '')}\n\n{_table(inner)}")
            parts.append(_inside(inner, f"{path}."))
    return "".join(parts)


def _objects(hint: Any, path: str) -> list[tuple[str, type]]:
    """Return the objects in a type, each with the path to it."""
    if is_object(hint):
        return [(path, hint)]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is dict:
        return _objects(arguments[1], f"{path}.NAME")
    if origin in (typing.Union, UnionType):
        return [found for each in arguments for found in _objects(each, path)]
    return _objects(arguments[0], f"{path}[]") if arguments else []


def _words(hint: Any, *, may_lack: bool = False) -> str:
    """Return a type in words."""
    *others, last = [*map(_word, _each(hint)), *(["absent"] if may_lack else [])]
    return f"{', '.join(others)} or {last}" if others else last


def _each(hint: Any) -> tuple[Any, ...]:
    """Return the types of which a value may have one."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, UnionType) else (hint,)


def _word(hint: Any) -> str:
    if hint in TYPES:
        return TYPES[hint]
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is dict and arguments[1] is not Any:
        return f"object of {_plural(arguments[1])} by name"
    if is_object(hint) or typing.get_origin(hint) is dict:
        return "object"
    return f"list of {_plural(arguments[0])}"


def _plural(hint: Any) -> str:
    return " or ".join(PLURALS.get(word, f"{word}s") for word in map(_word, _each(hint)))


HEAD = """# JSON

`--json` prints one object on stdout. Messages for people go to stderr. Times are Unix seconds. `oelm-logs --json`
prints one object for each line of the log, then one with the run's state; `oelm-status --watch --json` prints one a
line. A path such as `runs[].progress` leads to the objects in an object.
"""

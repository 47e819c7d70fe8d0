"""Say what the words of a shell script stand for: variables, braces, arithmetic, quotes."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from . import arithmetic, braces
from .scope import END, MARK, MOST_WORDS, Scope, TooMany, Value, as_written, is_known, unknown
from .tokens import closing, closing_or

_NAME = re.compile(r"[A-Za-z_]\w*")
_PARAMETER = re.compile(r"[A-Za-z_]\w*|\d+|[@*#?$!-]")
_ALL = re.compile(r'"\$(@|\{@[^}]*\}|\{\w+\[@\][^}]*\})"')


@dataclass
class _Piece:
    """A part of a word that has been expanded."""

    text: str
    is_quoted: bool
    is_split: bool = False
    """Whether blanks in it end a word."""
    ends: bool = False
    """Whether a word ends behind it, as between the items of an array."""


def words(raw: str, scope: Scope) -> list[str]:
    """Return the words that a word of a script stands for.

    Raises:
        TooMany: There are more than MOST_WORDS.
    """
    found: list[str] = []
    for each in braces.expanded(raw):
        found += _fields(list(_pieces(each, scope)), scope)
        if len(found) > MOST_WORDS:
            raise TooMany
    return found


def text(raw: str, scope: Scope) -> str:
    """Return what a word stands for where it stays one, as in an assignment."""
    return "".join(piece.text + (" " if piece.ends else "") for piece in _pieces(raw, scope))


def document(raw: str, scope: Scope) -> str:
    """Return a heredoc's text, in which quotes mean nothing."""
    return "".join(piece.text + (" " if piece.ends else "") for piece in _inside(raw, scope))


def array_items(raw: str) -> list[str]:
    """Return the words between the brackets of ``NAME=(…)``, as they are written."""
    found: list[str] = []
    place, word = 0, ""
    while place < len(raw):
        sign = raw[place]
        if sign.isspace() or (sign == "#" and not word):
            found += [word] if word else []
            word = ""
            end = raw.find("\n", place)
            place = (place + 1) if sign != "#" else (len(raw) if end < 0 else end)
            continue
        end = closing(raw, place) if sign in "\\'\"`$" else place + 1
        word += raw[place:end]
        place = end
    return found + ([word] if word else [])


# Pieces ---------------------------------------------------------------------------------------------------------------


def _pieces(raw: str, scope: Scope) -> Iterator[_Piece]:
    place = 0
    while place < len(raw):
        sign = raw[place]
        if sign == "\\":
            yield _Piece(raw[place + 1 : place + 2].replace("\n", ""), is_quoted=True)
            place += 2
        elif sign == "'":
            end = closing(raw, place)
            yield _Piece(raw[place + 1 : end - 1], is_quoted=True)
            place = end
        elif sign == '"':
            end = closing(raw, place)
            if not _ALL.fullmatch(raw[place:end]):  # of no items it is no word
                yield _Piece("", is_quoted=True)
            yield from _inside(raw[place + 1 : end - 1], scope)
            place = end
        elif raw.startswith("$'", place):
            end = closing(raw, place)
            yield _Piece(raw[place + 2 : end - 1].replace("\\n", "\n").replace("\\t", "\t"), is_quoted=True)
            place = end
        elif sign in "$`":
            end, pieces = _expansion(raw, place, scope, is_quoted=False)
            yield from pieces
            place = end
        elif raw.startswith(("<(", ">("), place):
            yield _Piece(unknown(raw[place:]), is_quoted=True)
            return
        else:
            end = place + 1
            while end < len(raw) and raw[end] not in "\\'\"$`":
                end += 1
            yield _Piece(raw[place:end], is_quoted=False)
            place = end


def _inside(raw: str, scope: Scope) -> Iterator[_Piece]:
    """Yield the pieces of a text in double quotes."""
    place = 0
    while place < len(raw):
        sign = raw[place]
        if sign == "\\" and raw[place + 1 : place + 2] in ("$", "`", '"', "\\", "\n"):
            yield _Piece(raw[place + 1].replace("\n", ""), is_quoted=True)
            place += 2
        elif sign == "`" or (sign == "$" and raw[place + 1 : place + 2] not in ("'", '"', "")):
            end, pieces = _expansion(raw, place, scope, is_quoted=True)
            yield from pieces
            place = end
        else:
            yield _Piece(sign, is_quoted=True)
            place += 1


def _expansion(raw: str, place: int, scope: Scope, *, is_quoted: bool) -> tuple[int, list[_Piece]]:
    """Return the place behind what begins with a $ or `, and its pieces."""
    one = raw[place : place + 3]
    if one.startswith("`"):
        end = closing(raw, place)
        return end, _split(scope.substitute(raw[place + 1 : end - 1].replace("\\`", "`")), is_quoted)
    if one == "$((":
        end = closing_or(raw, place + 1)
        if end and raw[end - 2 : end] == "))":
            return end, _split(number(raw[place + 3 : end - 2], scope, raw[place:end]), is_quoted)
    if one.startswith("$("):
        end = closing(raw, place)
        return end, _split(scope.substitute(raw[place + 2 : end - 1]), is_quoted)
    if one.startswith("${"):
        end = closing(raw, place)
        return end, _parameter(raw[place + 2 : end - 1], raw[place:end], scope, is_quoted)
    found = re.compile(r"[A-Za-z_]\w*|\d|[@*#?$!-]").match(raw, place + 1)
    if not found:
        return place + 1, [_Piece("$", is_quoted)]
    return found.end(), _parameter(found[0], raw[place : found.end()], scope, is_quoted)


def _split(value: str, is_quoted: bool) -> list[_Piece]:
    return [_Piece(value, is_quoted, is_split=not is_quoted)]


def number(expression: str, scope: Scope, source: str) -> str:
    """Return the value of arithmetic as text, or its mark where it isn't known."""

    def read(name: str) -> str:
        value = scope.variables.get(name, "")
        return value if isinstance(value, str) else (value[0] if isinstance(value, list) and value else "")

    def write(name: str, value: str) -> None:
        scope.variables[name] = value

    if "$" in expression or "`" in expression:
        expression = text('"' + expression.replace('"', "") + '"', scope)
    elements = re.compile(r"([A-Za-z_]\w*)\[([^\]]+)\]")
    expression = elements.sub(lambda m: text(f"${{{m[0]}}}", scope), expression)
    try:
        return str(arithmetic.work_out(expression, read, write))
    except arithmetic.NotKnown:
        return unknown(source)


def _parameter(inner: str, source: str, scope: Scope, is_quoted: bool) -> list[_Piece]:
    """Return the pieces of ``${inner}``."""
    is_length = inner.startswith("#") and len(inner) > 1 and inner[1:2] not in "#%/:"
    is_other = inner.startswith("!") and len(inner) > 1
    found = _PARAMETER.match(inner, 1 if is_length or is_other else 0)
    if not found:
        return [_Piece(unknown(source), is_quoted=True)]
    name, key, operation = found[0], None, inner[found.end() :]
    if operation.startswith("["):
        end = _bracket(operation)
        key, operation = operation[1 : end - 1], operation[end:]
    if is_other and key is None and not operation and isinstance(pointed := scope.variables.get(name), str):
        name = pointed
    value = _value(name, scope)
    if is_other and key in ("@", "*") and value is not None:
        keys = list(value) if isinstance(value, Mapping) else [str(place) for place in range(len(value))]
        return _several(keys, is_quoted, key)
    if name in ("@", "*") or key in ("@", "*"):
        return _all(value, name, key, operation, source, scope, is_quoted=is_quoted, is_length=is_length)
    one = _one(value, key, scope)
    if is_length:
        return [_Piece(unknown(source) if one is None or not is_known(one) else str(len(one)), is_quoted=True)]
    return _split(_operated(one, operation, name, source, scope), is_quoted)


def _bracket(text: str) -> int:
    """Return the place behind the bracket that a text begins with."""
    place = 1
    while text[place : place + 1] != "]":
        if place >= len(text):
            raise ValueError(text)
        opens = text[place] in "\\'\"`" or text[place : place + 2] in ("$(", "${")
        place = closing(text, place) if opens else place + 1
    return place + 1


def _value(name: str, scope: Scope) -> Value | None:
    if name == "0":
        return scope.called
    if name in ("@", "*"):
        return scope.arguments
    if name == "#":
        return None if scope.arguments is None else str(len(scope.arguments))
    if name.isdigit():
        several = scope.arguments
        if several is None:
            return None
        return several[int(name) - 1] if int(name) <= len(several) else ""
    return scope.variables.get(name)


def _one(value: Value | None, key: str | None, scope: Scope) -> str | None:
    """Return a variable's text, or that of one of its items; None where it isn't set."""
    if value is None or isinstance(value, str):
        return value if key in (None, "0") or value is None else ""
    if isinstance(value, dict):
        return value.get(text(key, scope)) if key is not None else None
    place = number(key, scope, key) if key is not None else "0"
    if not re.fullmatch(r"-?\d+", place):
        return unknown(as_written(place))
    index = int(place)
    return value[index] if -len(value) <= index < len(value) else ""


def _all(
    value: Value | None,
    name: str,
    key: str | None,
    operation: str,
    source: str,
    scope: Scope,
    *,
    is_quoted: bool,
    is_length: bool,
) -> list[_Piece]:
    """Return the pieces of ``$@``, ``${array[@]}`` and parts of them."""
    if value is None:
        return [_Piece(unknown(source), is_quoted=True)]
    several = list(value.values()) if isinstance(value, dict) else [value] if isinstance(value, str) else list(value)
    if is_length:
        return [_Piece(str(len(several)), is_quoted=True)]
    part = re.fullmatch(r":\s*(\d+)(?:\s*:\s*(\d+))?", operation)
    if part:
        first = int(part[1]) - (1 if name in ("@", "*") else 0)
        several = several[max(first, 0) :][: int(part[2]) if part[2] else None]
    elif operation:
        several = [_operated(each, operation, name, source, scope) for each in several]
    return _several(several, is_quoted, key or name)


def _several(items: Sequence[str], is_quoted: bool, key: str) -> list[_Piece]:
    if key == "*" and is_quoted:
        return [_Piece(" ".join(items), is_quoted=True)]
    return [
        _Piece(each, is_quoted, is_split=not is_quoted, ends=place < len(items) - 1) for place, each in enumerate(items)
    ]


def _operated(one: str | None, operation: str, name: str, source: str, scope: Scope) -> str:
    """Return a text after what stands behind its name in the braces."""
    for sign in (":-", "-", ":=", "=", ":+", "+", ":?", "?"):
        if operation.startswith(sign):
            is_there = one is not None and (one != "" or not sign.startswith(":"))
            other = operation[len(sign) :]
            if sign.endswith("+"):
                return text(other, scope) if is_there else ""
            if is_there and one is not None:
                return one
            if sign.endswith("?"):
                return unknown(source)
            value = text(other, scope)
            if sign.endswith("=") and _NAME.fullmatch(name):
                scope.variables[name] = value
            return value
    if one is None:
        return unknown(source)
    if not operation:
        return one
    if not is_known(one):
        return unknown(source)
    if found := re.fullmatch(r":\s*(-?\d+|\(-\d+\)|\$?\w+)(?:\s*:\s*(-?\d+|\$?\w+))?", operation):
        first, length = (number(part.strip("()"), scope, source) if part else "" for part in found.groups())
        if not is_known(first + length):
            return unknown(source)
        rest = one[int(first) :]
        return rest if not length else rest[: int(length)]
    if operation in ("^^", ",,", "^", ","):
        changed = one.upper() if "^" in operation else one.lower()
        return changed if len(operation) == 2 else changed[:1] + one[1:]
    if operation[0] in "#%":
        return _trimmed(one, operation, scope)
    if operation[0] == "/":
        return _replaced(one, operation, scope)
    return unknown(source)


def _trimmed(one: str, operation: str, scope: Scope) -> str:
    sign = operation[0]
    is_longest = operation[1:2] == sign
    pattern = re.compile(fnmatch.translate(text(operation[2 if is_longest else 1 :], scope)))
    lengths = range(len(one) + 1)
    for length in reversed(lengths) if is_longest else lengths:
        if pattern.match(one[:length] if sign == "#" else one[len(one) - length :]):
            return one[length:] if sign == "#" else one[: len(one) - length]
    return one


def _replaced(one: str, operation: str, scope: Scope) -> str:
    is_all = operation.startswith("//")
    what, _slash, by = operation[2 if is_all else 1 :].partition("/")
    begins, ends = what.startswith("#"), what.startswith("%")
    shape = fnmatch.translate(text(what[1:] if begins or ends else what, scope))
    shape = shape.removeprefix("(?s:").removesuffix(")\\Z").removesuffix(")\\z")
    shape = ("^" if begins else "") + f"(?s:{shape})" + (r"\Z" if ends else "")
    other = text(by, scope)
    return re.sub(shape, lambda _found: other, one, count=0 if is_all else 1)


# Words ----------------------------------------------------------------------------------------------------------------


def _fields(pieces: list[_Piece], scope: Scope) -> list[str]:
    """Return the words that pieces make: blanks in what was expanded without quotes end them, patterns become files."""
    found: list[str] = []
    word, is_there, is_pattern = "", False, False

    def end() -> None:
        nonlocal word, is_there, is_pattern
        if is_there:
            files = scope.match(word) if is_pattern and is_known(word) else []
            found.extend(files or [word])
        word, is_there, is_pattern = "", False, False

    for piece in pieces:
        if not piece.is_split:
            word += piece.text
            is_there = is_there or piece.is_quoted or bool(piece.text)
            is_pattern = is_pattern or (not piece.is_quoted and any(sign in piece.text for sign in "*?["))
        else:
            for number_of, part in enumerate(_blanks(piece.text)):
                if number_of:
                    end()
                word += part
                is_there = is_there or bool(part)
                is_pattern = is_pattern or (is_known(part) and any(sign in part for sign in "*?["))
        if piece.ends:
            end()
    end()
    return found


def _blanks(value: str) -> list[str]:
    """Split a text at blanks, of which none in a mark counts."""
    parts, inside = [""], False
    was_blank = False
    for sign in value:
        inside = (inside or sign == MARK) and sign != END
        if sign.isspace() and not inside:
            was_blank = True
            continue
        if was_blank:
            parts.append("")
            was_blank = False
        parts[-1] += sign
    if was_blank:
        parts.append("")
    return parts

"""Work out a shell's arithmetic: whole numbers, variables, operators of C."""

from __future__ import annotations

import re
from collections.abc import Callable

_TOKEN = re.compile(
    r"\s*(0[xX][0-9a-fA-F]+|\d+|[A-Za-z_]\w*|\*\*|<<|>>|<=|>=|==|!=|&&|\|\||\+\+|--|[-+*/%]=|[-+*/%<>=!~&|^?:(),])"
)
_BINARY = {
    "||": 1, "&&": 2, "==": 6, "!=": 6, "<": 7, ">": 7, "<=": 7, ">=": 7, "<<": 8, ">>": 8,
    "+": 9, "-": 9, "*": 10, "/": 10, "%": 10, "**": 11,
}  # fmt: skip
_OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "||": lambda left, right: int(bool(left or right)), "&&": lambda left, right: int(bool(left and right)),
    "==": lambda left, right: int(left == right), "!=": lambda left, right: int(left != right),
    "<": lambda left, right: int(left < right), ">": lambda left, right: int(left > right),
    "<=": lambda left, right: int(left <= right), ">=": lambda left, right: int(left >= right),
    "<<": lambda left, right: left << right, ">>": lambda left, right: left >> right,
    "+": lambda left, right: left + right, "-": lambda left, right: left - right,
    "*": lambda left, right: left * right, "**": lambda left, right: int(left**right),
}  # fmt: skip
_MOST_BITS = 64


class NotKnown(ValueError):
    """It can't be worked out: a variable isn't known, or the text is no arithmetic."""


def work_out(text: str, read: Callable[[str], str], write: Callable[[str, str], None]) -> int:
    """Return the value of an expression.

    Args:
        read: Returns a variable's text; an unset one is empty.
        write: Sets a variable.

    Raises:
        NotKnown: It has none.
    """
    if not text.strip():
        return 0
    return _Expression(text, read, write).value()


class _Expression:
    def __init__(self, text: str, read: Callable[[str], str], write: Callable[[str, str], None]) -> None:
        self._read, self._write, self._depth = read, write, 0
        self._tokens: list[str] = []
        place = 0
        while text[place:].strip():
            found = _TOKEN.match(text, place)
            if not found:
                raise NotKnown(text)
            self._tokens.append(found[1])
            place = found.end()
        self._tokens.reverse()

    def value(self) -> int:
        value = self._condition()
        while self._take_if(","):
            value = self._condition()
        if self._tokens:
            raise NotKnown(self._tokens[-1])
        return value

    def _next(self) -> str:
        return self._tokens[-1] if self._tokens else ""

    def _take_if(self, *texts: str) -> str:
        return self._tokens.pop() if self._next() in texts and self._tokens else ""

    def _condition(self) -> int:
        value = self._binary(0)
        if self._take_if("?"):
            yes = self._condition()
            if not self._take_if(":"):
                raise NotKnown("?")
            no = self._condition()
            return yes if value else no
        return value

    def _binary(self, least: int) -> int:
        left = self._unary()
        while (level := _BINARY.get(self._next(), -1)) > least:
            operator = self._tokens.pop()
            right = self._binary(level - 1 if operator == "**" else level)
            left = _applied(operator, left, right)
        return left

    def _unary(self) -> int:
        self._depth += 1
        if not self._tokens or self._depth > 200:
            raise NotKnown("")
        token = self._tokens.pop()
        if token == "(":
            value = self._condition()
            if not self._take_if(")"):
                raise NotKnown("(")
            return value
        if token in ("-", "+", "!", "~"):
            value = self._unary()
            return {"-": -value, "+": value, "!": int(not value), "~": ~value}[token]
        if token in ("++", "--"):
            name = self._next()
            value = self._unary() + (1 if token == "++" else -1)
            self._write(name, str(value))
            return value
        if token[0].isdigit():
            return (
                int(token, 16) if token[:2] in ("0x", "0X") else int(token, 8 if re.fullmatch("0[0-7]+", token) else 10)
            )
        if not re.match(r"[A-Za-z_]", token):
            raise NotKnown(token)
        return self._variable(token)

    def _variable(self, name: str) -> int:
        if operator := self._take_if("=", "+=", "-=", "*=", "/=", "%="):
            value = self._condition()
            if operator != "=":
                value = _applied(operator[0], self._number(name), value)
            self._write(name, str(value))
            return value
        value = self._number(name)
        if operator := self._take_if("++", "--"):
            self._write(name, str(value + (1 if operator == "++" else -1)))
        return value

    def _number(self, name: str) -> int:
        text = self._read(name).strip()
        if not re.fullmatch(r"[-+]?\d{1,18}|", text):
            raise NotKnown(text)
        return int(text or 0)


def _applied(operator: str, left: int, right: int) -> int:
    if operator in ("/", "%"):
        if not right:
            raise NotKnown("/ 0")
        quotient = abs(left) // abs(right) * (1 if (left < 0) is (right < 0) else -1)
        return quotient if operator == "/" else left - quotient * right
    if operator in ("**", "<<", ">>") and not 0 <= right < _MOST_BITS:
        raise NotKnown(operator)
    value = _OPERATIONS[operator](left, right)
    if abs(value) >= 2 ** (_MOST_BITS - 1):
        raise NotKnown(operator)
    return value

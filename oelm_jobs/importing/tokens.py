"""Cut the text of a shell script into tokens: words as they are written, operators, ends of lines; heredocs apart."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..agent.sentences import _
from .nodes import Unreadable

_OPERATORS = ("&>>", "<<<", "<<-", "&&", "||", ";;&", ";;", ";&", "<<", ">>", ">&", "<&", "&>", ">|", "<>", "|&",
              "&", "|", ";", "<", ">", "(", ")")  # fmt: skip
REDIRECTIONS = frozenset({"<", ">", ">>", "<<", "<<-", "<<<", ">&", "<&", "&>", "&>>", ">|", "<>"})
_ENDS = " \t\n;&|<>()"
_OPENS_ARRAY = re.compile(r"[A-Za-z_]\w*(\[[^\]]*\])?\+?=")


@dataclass(frozen=True)
class Token:
    kind: str
    """``word``, ``operator``, ``newline`` or ``end``."""
    text: str
    line: int


def closing(text: str, start: int) -> int:
    """Return the place behind what begins at ``start``: a quoted text, ``$(…)``, ``${…}``, ``((…))`` or ``(…)``.

    Raises:
        ValueError: It isn't closed.
    """
    sign = text[start]
    if sign == "\\":
        return min(start + 2, len(text))
    if sign == "'":
        return text.index("'", start + 1) + 1
    if sign == "`":
        place = start + 1
        while text[place : place + 1] != "`":
            if place >= len(text):
                raise ValueError(start)
            place += 2 if text[place] == "\\" else 1
        return place + 1
    if sign == '"':
        place = start + 1
        while text[place : place + 1] != '"':
            if place >= len(text):
                raise ValueError(start)
            opens = text[place] in "\\`" or text[place : place + 2] in ("$(", "${")
            place = closing(text, place) if opens else place + 1
        return place + 1
    if sign == "$" and text[start + 1 : start + 2] == "'":
        place = start + 2
        while text[place : place + 1] != "'":
            if place >= len(text):
                raise ValueError(start)
            place += 2 if text[place] == "\\" else 1
        return place + 1
    if sign == "$":
        return closing(text, start + 1) if text[start + 1 : start + 2] in ("(", "{") else start + 1
    other = {"(": ")", "{": "}"}[sign]
    place = start + 1
    while text[place : place + 1] != other:
        if place >= len(text):
            raise ValueError(start)
        if text[place] == "#" and sign == "(" and text[place - 1] in " \t\n(;":
            place = (text.find("\n", place) + 1) or len(text)
            continue
        opens = text[place] in "\\'\"`" or text[place : place + 2] in ("$(", "${", "$'") or text[place] == sign
        place = closing(text, place) if opens else place + 1
    return place + 1


def closing_or(text: str, start: int) -> int:
    """Return the place behind a bracket that begins at ``start``; 0 where it isn't closed."""
    try:
        return closing(text, start)
    except ValueError:
        return 0


class Tokens:
    """The text, its place, and the next token."""

    def __init__(self, text: str, line: int) -> None:
        self._text = text
        self._place = 0
        self._line = line
        self._next: Token | None = None
        self._heredocs: list[tuple[str, bool, bool, int]] = []
        self._bodies: dict[int, str] = {}
        self._depth = 0

    def peek(self) -> Token:
        if self._next is None:
            self._next = self._read()
        return self._next

    def take(self) -> Token:
        token = self.peek()
        self._next = None
        return token

    def _read(self) -> Token:
        text = self._text
        while True:
            if text.startswith("\\\n", self._place):
                self._place += 2
                self._line += 1
            elif text[self._place : self._place + 1] in (" ", "\t", "\r"):
                self._place += 1
            elif text.startswith("#", self._place):
                end = text.find("\n", self._place)
                self._place = len(text) if end < 0 else end
            else:
                break
        line = self._line
        if self._place >= len(text):
            return Token("end", "", line)
        if text[self._place] == "\n":
            self._place += 1
            self._line += 1
            self._read_heredocs()
            return Token("newline", "\n", line)
        if not text.startswith(("<(", ">("), self._place):
            for operator in _OPERATORS:
                if text.startswith(operator, self._place):
                    self._place += len(operator)
                    return Token("operator", operator, line)
        return Token("word", self._word(), line)

    def _word(self) -> str:
        text, start = self._text, self._place
        place = start + (2 if text.startswith(("<(", ">("), start) else 0)
        try:
            if place > start:
                place = closing(text, start + 1)
            while place < len(text):
                sign = text[place]
                if sign in "\\'\"`$" or (sign == "(" and _OPENS_ARRAY.fullmatch(text[start:place])):
                    place = closing(text, place)
                elif sign in _ENDS:
                    break
                else:
                    place += 1
        except ValueError:
            raise Unreadable(self._line, _("a quote or bracket that is opened here is never closed")) from None
        self._place = place
        word = text[start:place]
        self._line += word.count("\n")
        return word.replace("\\\n", "") if "'" not in word else re.sub(r"('[^']*')|\\\n", lambda m: m[1] or "", word)

    def _read_heredocs(self) -> None:
        for end, strips, _quoted, number in self._heredocs:
            lines: list[str] = []
            while True:
                if self._place >= len(self._text):
                    break
                stop = self._text.find("\n", self._place)
                stop = len(self._text) if stop < 0 else stop
                line = self._text[self._place : stop]
                self._place = min(stop + 1, len(self._text))
                self._line += 1
                line = line.lstrip("\t") if strips else line
                if line == end:
                    break
                lines.append(line + "\n")
            self._bodies[number] = "".join(lines)
        self._heredocs.clear()

    def skip_ends(self) -> None:
        """Take newlines and what ends a command."""
        while self.peek().kind == "newline" or (self.peek().kind, self.peek().text) in (
            ("operator", ";"),
            ("operator", "&"),
        ):
            self.take()

    def _newlines(self) -> None:
        while self.peek().kind == "newline":
            self.take()

    def _is_word(self, *texts: str) -> bool:
        return self.peek().kind == "word" and self.peek().text in texts

    def _is_operator(self, *texts: str) -> bool:
        return self.peek().kind == "operator" and self.peek().text in texts

    def _expect(self, text: str) -> None:
        if self.peek().text != text or self.peek().kind == "end":
            raise self._unexpected(text)
        self.take()

    def _unexpected(self, wanted: str = "") -> Unreadable:
        token = self.peek()
        found = _("the end of the script") if token.kind == "end" else repr(token.text)
        if wanted:
            return Unreadable(token.line, _("{wanted!r} is missing before {found}", wanted, found))
        return Unreadable(token.line, _("{found} is not understood here", found))

"""Read the text of a shell script into commands, loops and conditions, each with its line.

Source: Shell Command Language (POSIX.1-2017, XCU 2) and bash(1), as far as scripts that start programs use them. Words
stay as they are written, quotes included; ``expansion`` says what they stand for.
"""

from __future__ import annotations

import re

from ..agent.sentences import _
from .nodes import (
    AndOr,
    Arithmetic,
    Body,
    Case,
    Counting,
    For,
    Function,
    Group,
    If,
    Node,
    Pipeline,
    Redirection,
    Simple,
    Unreadable,
    While,
)  # fmt: skip
from .tokens import REDIRECTIONS, Tokens, closing_or

MOST_NESTED = 50
"""Levels of commands within each other."""
_NAME = re.compile(r"[A-Za-z_][\w-]*")


def parse(text: str, line: int = 1) -> tuple[Body, Unreadable | None]:
    """Return a script's commands, as far as it can be read, and why not further.

    Args:
        line: Number of the text's first line.
    """
    reader = _Reader(text.replace("\r\n", "\n"), line)
    found: list[Node] = []
    try:
        while True:
            reader.skip_ends()
            if reader.peek().kind == "end":
                return tuple(found), None
            found.append(reader.and_or())
    except Unreadable as problem:
        return tuple(found), problem


class _Reader(Tokens):
    """The commands of a text."""

    def _body(self, *ends: str) -> Body:
        found: list[Node] = []
        self._depth += 1
        if self._depth > MOST_NESTED:
            raise Unreadable(self.peek().line, _("more than {n} levels within each other", MOST_NESTED))
        while True:
            self.skip_ends()
            if self.peek().text in ends and self.peek().kind in ("word", "operator"):
                break
            if self.peek().kind == "end":
                raise self._unexpected(ends[0])
            found.append(self.and_or())
        self._depth -= 1
        return tuple(found)

    def and_or(self) -> Node:
        """Read pipelines with && and || between them."""
        first = self._pipeline()
        rest: list[tuple[str, Pipeline]] = []
        while self._is_operator("&&", "||"):
            operator = self.take().text
            self._newlines()
            rest.append((operator, self._pipeline()))
        if rest:
            return AndOr(first.line, first, tuple(rest))
        return first.commands[0] if len(first.commands) == 1 and not first.is_negated else first

    def _pipeline(self) -> Pipeline:
        line, is_negated = self.peek().line, False
        while self._is_word("!", "time"):
            is_negated = (self.take().text == "!") is not is_negated
        commands = [self._command()]
        while self._is_operator("|", "|&"):
            self.take()
            self._newlines()
            commands.append(self._command())
        return Pipeline(line, tuple(commands), is_negated)

    def _command(self) -> Node:
        token = self.peek()
        if token.kind == "operator" and token.text == "(":
            return self._parenthesis()
        if token.kind != "word":
            if token.text in REDIRECTIONS:
                return self._simple()
            raise self._unexpected()
        read = {
            "for": self._for, "select": self._for, "while": self._while, "until": self._while, "if": self._if,
            "case": self._case, "function": self._function, "{": self._braces,
        }.get(token.text)  # fmt: skip
        if read is not None:
            return read()
        if token.text in ("do", "done", "then", "fi", "else", "elif", "esac", "}"):
            raise self._unexpected()
        return self._simple()

    def _parenthesis(self) -> Node:
        line, start = self.take().line, self._place - 1
        if self._text.startswith("((", start):
            end = closing_or(self._text, start)
            if end and self._text[end - 2] == ")":
                text = self._text[start + 2 : end - 2]
                self._place, self._line = end, self._line + text.count("\n")
                return Arithmetic(line, text)
        body = self._body(")")
        self._expect(")")
        return Group(line, body, is_subshell=True, redirections=self._redirections())

    def _braces(self) -> Node:
        line = self.take().line
        body = self._body("}")
        self._expect("}")
        return Group(line, body, is_subshell=False, redirections=self._redirections())

    def _redirections(self) -> tuple[Redirection, ...]:
        found: list[Redirection] = []
        while self.peek().text in REDIRECTIONS and self.peek().kind == "operator":
            found.append(self._redirection())
        return tuple(found)

    def _redirection(self) -> Redirection:
        operator = self.take().text
        if self.peek().kind != "word":
            raise self._unexpected()
        target = self.take().text
        if operator not in ("<<", "<<-"):
            return Redirection(operator, target)
        number = len(self._bodies) + len(self._heredocs)
        is_quoted = any(sign in target for sign in "'\"\\")
        self._heredocs.append((re.sub(r"['\"\\]", "", target), operator == "<<-", is_quoted, number))
        place, line = self._place, self._line
        end = self._text.find("\n", place)  # its text begins behind this line, whatever else stands on it
        held, self._heredocs = self._heredocs[:-1], self._heredocs[-1:]
        self._place, self._line = (len(self._text) if end < 0 else end + 1), line + 1
        self._read_heredocs()
        body, behind = self._bodies[number], self._place
        self._text = self._text[: end + 1] + self._text[behind:] if end >= 0 else self._text
        self._skipped(end + 1, body)
        self._place, self._line, self._heredocs = place, line, held
        return Redirection(operator, body, is_quoted)

    def _skipped(self, place: int, body: str) -> None:
        """Keep line numbers right behind a heredoc that was taken out of the text."""
        fill = "\\\n" * (body.count("\n") + 1)
        if place:
            self._text = self._text[:place] + fill + self._text[place:]

    def _for(self) -> Node:
        token = self.take()
        line = token.line
        if self._is_operator("("):
            inner = self._parenthesis()
            parts = inner.text.split(";") if isinstance(inner, Arithmetic) else []
            if len(parts) != 3:
                raise Unreadable(line, _("a loop of this form is not understood"))
            first, condition, then = (part.strip() for part in parts)
            return Counting(line, first, condition, then, self._loop_body())
        name = self.take().text
        if not _NAME.fullmatch(name):
            raise Unreadable(line, _("a loop of this form is not understood"))
        self._newlines()
        words: list[str] | None = None
        if self._is_word("in"):
            self.take()
            words = []
            while self.peek().kind == "word":
                words.append(self.take().text)
        return For(line, name, None if words is None else tuple(words), self._loop_body(), token.text == "select")

    def _loop_body(self) -> Body:
        self.skip_ends()
        if self._is_word("{"):
            self.take()
            body = self._body("}")
            self._expect("}")
            return body
        self._expect("do")
        body = self._body("done")
        self._expect("done")
        self._redirections()
        return body

    def _while(self) -> Node:
        token = self.take()
        condition = self._body("do")
        self._expect("do")
        body = self._body("done")
        self._expect("done")
        return While(token.line, condition, body, token.text == "until", self._redirections())

    def _if(self) -> Node:
        line = self.take().line
        branches: list[tuple[Body | None, Body]] = []
        condition = self._body("then")
        self._expect("then")
        branches.append((condition, self._body("elif", "else", "fi")))
        while self._is_word("elif"):
            self.take()
            condition = self._body("then")
            self._expect("then")
            branches.append((condition, self._body("elif", "else", "fi")))
        if self._is_word("else"):
            self.take()
            branches.append((None, self._body("fi")))
        self._expect("fi")
        self._redirections()
        return If(line, tuple(branches))

    def _case(self) -> Node:
        line = self.take().line
        word = self.take().text
        self._newlines()
        self._expect("in")
        clauses: list[tuple[tuple[str, ...], Body]] = []
        self._newlines()
        while not self._is_word("esac"):
            if self._is_operator("("):
                self.take()
            patterns = [self.take().text]
            while self._is_operator("|"):
                self.take()
                patterns.append(self.take().text)
            self._expect(")")
            body = self._body(";;", ";&", ";;&", "esac")
            clauses.append((tuple(patterns), body))
            if self._is_operator(";;", ";&", ";;&"):
                self.take()
            self._newlines()
        self._expect("esac")
        return Case(line, word, tuple(clauses))

    def _function(self) -> Node:
        line = self.take().line
        name = self.take().text
        if self._is_operator("("):
            self.take()
            self._expect(")")
        return self._definition(line, name)

    def _definition(self, line: int, name: str) -> Node:
        self._newlines()
        node = self._command()
        return Function(line, name, node.body if isinstance(node, Group) else (node,))

    def _simple(self) -> Node:
        line = self.peek().line
        words: list[str] = []
        redirections: list[Redirection] = []
        while True:
            token = self.peek()
            if token.kind == "operator" and token.text in REDIRECTIONS:
                if words and words[-1].isdigit() and self._text[: self._place - len(token.text)].endswith(words[-1]):
                    words.pop()  # 2> is no word and a >
                redirections.append(self._redirection())
            elif token.kind == "operator" and token.text == "(" and len(words) == 1 and _NAME.fullmatch(words[0]):
                self.take()
                self._expect(")")
                return self._definition(line, words[0])
            elif token.kind != "word":
                break
            elif not words and token.text == "[[":
                words = self._double_brackets()
            else:
                words.append(self.take().text)
        if not words and not redirections:
            raise self._unexpected()
        return Simple(line, tuple(words), tuple(redirections))

    def _double_brackets(self) -> list[str]:
        """Read [[ … ]], in which && || < > ( ) are words."""
        words = [self.take().text]
        while words[-1] != "]]":
            token = self.take()
            if token.kind == "end":
                raise Unreadable(
                    token.line, _("{wanted!r} is missing before {found}", "]]", _("the end of the script"))
                )
            if token.kind != "newline":
                words.append(token.text)
        return words

"""The parts of a shell script that has been read: commands, loops, conditions, functions, each with its line."""

from __future__ import annotations

from dataclasses import dataclass


class Unreadable(ValueError):
    """A script's text can't be read on from a line."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(why)
        self.line = line


@dataclass(frozen=True)
class Redirection:
    """Where a command's input or output goes."""

    operator: str
    target: str
    """A word, or of a heredoc its text."""
    is_quoted: bool = False
    """Of a heredoc: nothing in it is expanded."""


@dataclass(frozen=True)
class Simple:
    """A command of words, with the assignments in front of it."""

    line: int
    words: tuple[str, ...]
    redirections: tuple[Redirection, ...] = ()


@dataclass(frozen=True)
class Arithmetic:
    """``((…))`` as a command."""

    line: int
    text: str


@dataclass(frozen=True)
class Pipeline:
    """Commands whose outputs are inputs; of one that is negated, ``!`` is in front."""

    line: int
    commands: tuple[Node, ...]
    is_negated: bool = False


@dataclass(frozen=True)
class AndOr:
    """Pipelines with ``&&`` and ``||`` between them."""

    line: int
    first: Pipeline
    rest: tuple[tuple[str, Pipeline], ...]


@dataclass(frozen=True)
class For:
    """``for NAME in WORDS``; without words it goes over the arguments. ``select`` asks for one of them."""

    line: int
    name: str
    words: tuple[str, ...] | None
    body: Body
    is_asked: bool = False


@dataclass(frozen=True)
class Counting:
    """``for ((first; while; then))``."""

    line: int
    first: str
    condition: str
    then: str
    body: Body


@dataclass(frozen=True)
class While:
    """``while`` and ``until``."""

    line: int
    condition: Body
    body: Body
    is_until: bool
    redirections: tuple[Redirection, ...] = ()


@dataclass(frozen=True)
class If:
    """``if`` with its conditions in turn; the last has none where there is an ``else``."""

    line: int
    branches: tuple[tuple[Body | None, Body], ...]


@dataclass(frozen=True)
class Case:
    """``case WORD in``."""

    line: int
    word: str
    clauses: tuple[tuple[tuple[str, ...], Body], ...]


@dataclass(frozen=True)
class Function:
    """The definition of a function."""

    line: int
    name: str
    body: Body


@dataclass(frozen=True)
class Group:
    """``{ …; }``, or ``( … )``, which keeps its variables to itself."""

    line: int
    body: Body
    is_subshell: bool
    redirections: tuple[Redirection, ...] = ()


Node = Simple | Arithmetic | Pipeline | AndOr | For | Counting | While | If | Case | Function | Group
Body = tuple[Node, ...]

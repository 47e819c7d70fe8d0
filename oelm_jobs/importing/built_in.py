"""What a shell's own commands do: those that only change what a script has said so far, and those that do nothing."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

from ..agent.sentences import _
from . import expansion, nodes
from .scope import is_known
from .state import State

HARMLESS = frozenset(
    {
        ":", "[", "[[", "cat", "chmod", "clear", "column", "date", "df", "dirname", "disown", "du", "echo", "env",
        "false", "file", "find", "free", "grep", "head", "hostname", "id", "jobs", "ldd", "ls", "lscpu", "lsof",
        "mkdir", "nproc", "nvcc", "nvidia-smi", "od", "printenv", "printf", "ps", "pwd", "realpath", "sacct",
        "scontrol", "set", "shopt", "sinfo", "sleep", "sort", "squeue", "sstat", "stat", "stty", "tail", "tee",
        "test", "touch", "trap", "tree", "true", "tty", "type", "uname", "uniq", "uptime", "usage", "wait", "wc",
        "which", "who", "whoami",
    }
)  # fmt: skip
"""Commands that a run doesn't need: they show, wait or make folders."""
SETUP = frozenset({"module", "ml", "conda", "mamba", "micromamba", "spack", "ulimit", "umask", "workon", "pyenv"})
"""Commands that prepare the shell that a program starts in."""


class Leave(Exception):
    """``exit``, ``return``, ``break`` or ``continue``."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


def is_harmless(body: Sequence[nodes.Node]) -> bool:
    """Tell whether commands start, set and change nothing that a run needs."""
    for node in body:
        if isinstance(node, nodes.Simple):
            name = node.words[0] if node.words else ":"
            if name not in HARMLESS and name not in (
                "exit",
                "return",
                "break",
                "continue",
                "rm",
                "cd",
                "popd",
                "pushd",
            ):
                return False
        elif isinstance(node, nodes.AndOr):
            if not is_harmless((node.first, *(each for _operator, each in node.rest))):
                return False
        elif isinstance(node, nodes.Pipeline):
            if not is_harmless(node.commands):
                return False
        elif isinstance(node, nodes.Group):
            if not is_harmless(node.body):
                return False
        else:
            return False
    return True


class BuiltIns(State):
    """The commands by their names behind ``_do_``."""

    def _do_cd(self, words: list[str], node: nodes.Simple) -> bool:
        to = next((word for word in words[1:] if not word.startswith("-")), "~")
        if not is_known(to):
            self._leave(
                self._source(node), _("where it goes isn't known: paths behind it are taken as seen from the project")
            )
            return True
        folder = to if to.startswith(("/", "~")) else posixpath.normpath(posixpath.join(self._folder, to))
        self._folder = "" if folder == "." else folder
        self._variables["PWD"] = self._folder or "."
        return True

    _do_pushd = _do_cd

    def _do_popd(self, words: list[str], node: nodes.Simple) -> bool:
        self._folder = ""
        return True

    def _do_exit(self, words: list[str], node: nodes.Simple) -> bool:
        raise Leave("exit")

    def _do_return(self, words: list[str], node: nodes.Simple) -> bool:
        raise Leave("return")

    def _do_break(self, words: list[str], node: nodes.Simple) -> bool:
        raise Leave("break")

    def _do_continue(self, words: list[str], node: nodes.Simple) -> bool:
        raise Leave("continue")

    def _do_set(self, words: list[str], node: nodes.Simple) -> bool:
        if "--" in words:
            self._scope.arguments = words[words.index("--") + 1 :]
        elif words[1:2] and words[1][:1] not in "-+":
            self._scope.arguments = words[1:]
        return True

    def _do_shift(self, words: list[str], node: nodes.Simple) -> bool:
        if self._scope.arguments is not None:
            number = int(words[1]) if len(words) > 1 and words[1].isdigit() else 1
            self._scope.arguments = self._scope.arguments[number:]
        return True

    def _do_unset(self, words: list[str], node: nodes.Simple) -> bool:
        for name in words[1:]:
            self._variables.pop(name, None)
            self._exported.discard(name)
        return True

    def _do_let(self, words: list[str], node: nodes.Simple) -> bool:
        for each in words[1:]:
            expansion.number(each, self._scope, each)
        return True

    def _do_read(self, words: list[str], node: nodes.Simple) -> bool:
        names = [word for word in words[1:] if not word.startswith("-")]
        here = next((each for each in node.redirections if each.operator == "<<<"), None)
        parts = (
            expansion.text(here.target, self._scope).split(self._separator(), max(len(names) - 1, 0)) if here else []
        )
        for place, name in enumerate(names):
            if here:
                self._variables[name] = parts[place].strip() if place < len(parts) else ""
            else:
                self._variables.pop(name, None)
        return True

    def _source(self, node: nodes.Node) -> str:
        place = node.line - self._first_line
        lines = self._text.split("\n")
        return lines[place].strip() if 0 <= place < len(lines) else ""

    def _write(self, node: nodes.Simple) -> bool:
        """Keep what a heredoc, echo or printf writes into a file; return whether one does."""
        text = next((each for each in node.redirections if each.operator in ("<<", "<<-")), None)
        goal = next((each for each in node.redirections if each.operator in (">", ">|", ">>")), None)
        if goal is not None and node.words[:1] in (("echo",), ("printf",)):
            return self._keep_printed(node, expansion.text(goal.target, self._scope), adds=goal.operator == ">>")
        if text is None or node.words[:1] not in (("cat",), ("tee",)):
            return False
        target = (
            goal.target
            if goal is not None
            else (node.words[-1] if node.words[0] == "tee" and len(node.words) > 1 else "")
        )
        if target:
            content = text.target if text.is_quoted else expansion.document(text.target, self._scope)
            self._files[posixpath.normpath(expansion.text(target, self._scope))] = (content, node.line + 1)
        return True

    def _keep_printed(self, node: nodes.Simple, target: str, *, adds: bool) -> bool:
        text = self._printed_by(node)
        if text is None or not is_known(target):
            return False
        text += "\n" if node.words[0] == "echo" else ""
        path = posixpath.normpath(target)
        before = self._files[path][0] if adds and path in self._files else ""
        self._files[path] = (before + text, node.line)
        return True

"""Go through a shell script without executing anything, and find the commands that it would start."""

from __future__ import annotations

import fnmatch
import os
import posixpath
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..agent.sentences import _
from ..errors import DataError
from . import expansion, headers, syntax
from .built_in import HARMLESS, SETUP, BuiltIns, Leave, is_harmless
from .expansion import is_known, unknown
from .found import Found, Place, Started, read
from .state import ASSIGNMENT

MOST_STEPS = 100_000
"""Commands of a script that are looked at, those of loops each time."""
MOST_CALLS = 16
"""Scripts and functions that call each other."""
_ENVIRONMENT = {"PWD": ".", "SLURM_SUBMIT_DIR": ".", "BASH_SOURCE": "", "IFS": " \t\n", "OLDPWD": "."}


def explore(paths: Sequence[Path], project: Path) -> Found:
    """Return what scripts would start.

    Raises:
        DataError: One can't be read, or they start too much.
    """
    texts = {_shown(path, project): read(path) for path in paths}
    found = Found()
    for path, text in texts.items():
        Shell(found, project, path, text).run_file()
    if not found.called & texts.keys():
        return found
    called, found = found.called, Found()  # what others call is read as they call it
    for path, text in texts.items():
        if path not in called:
            Shell(found, project, path, text).run_file()
    return found


def _shown(path: Path, project: Path) -> str:
    """Return a path as seen from the project."""
    try:
        return path.resolve().relative_to(project.resolve()).as_posix()
    except ValueError:
        return str(path)


class Shell(BuiltIns):
    """A script on its way."""

    # Files ------------------------------------------------------------------------------------------------------------

    def run_file(self, given: Mapping[str, str] | None = None) -> None:
        """Go through the script, each time for an array of sbatch.

        Args:
            given: Options on sbatch's command line, which win.
        """
        header = headers.read(self._text)
        for line, source in header.strange:
            self._leave(source, _("no option of sbatch that is known"), line)
        is_job = bool(header.options) or given is not None
        options = {**header.options, **(given or {})} if is_job else None
        array = (options or {}).get("array", "")
        indices = headers.indices(array)
        if array and indices is None:
            self._leave(f"--array={array}", _("the array's indices can't be read"), header.line("array"))
        for index in indices if indices is not None else [None]:
            own = without_array(options)
            shell = self._child(
                self._path,
                self._text,
                options=own,
                arguments=self._scope.arguments,
                exported=None,
                line=self._first_line,
            )
            shell._variables.update(self._variables)
            shell._exported |= self._exported
            shell._calls = self._calls
            if index is not None and indices:
                numbers = {"ID": index, "COUNT": len(indices), "MIN": min(indices), "MAX": max(indices)}
                for name, value in numbers.items():
                    shell._variables[f"SLURM_ARRAY_TASK_{name}"] = str(value)
            for name, value_of in headers.variables(own or {}).items():
                shell._variables.setdefault(name, value_of)
            shell.run_text()

    def run_text(self) -> None:
        """Go through the script once."""
        for name, value in _ENVIRONMENT.items():
            self._variables.setdefault(name, self._path if name == "BASH_SOURCE" else value)
        body, problem = syntax.parse(self._text, self._first_line)
        try:
            self._run(body)
        except Leave:
            return
        except RecursionError:
            self._leave("", _("its parts call each other without end"))
        if problem is not None:
            lines = self._text.split("\n")
            place = problem.line - self._first_line
            source = lines[place].strip() if 0 <= place < len(lines) else ""
            self._leave(source, _("the rest from here isn't read: {why}", str(problem)), problem.line)

    def _child(
        self,
        path: str,
        text: str,
        *,
        arguments: list[str] | None,
        exported: Mapping[str, str] | None,
        options: Mapping[str, str] | None = None,
        host: str = "",
        line: int = 1,
        is_same: bool = False,
    ) -> Shell:
        """Return a shell for another script, which sees what is exported; the same one's text sees all variables."""
        variables = {name: self._variables[name] for name in self._exported if name in self._variables}
        return Shell(
            self._found,
            self._project,
            path,
            text,
            script=self._script,
            arguments=arguments,
            variables={**(self._variables if is_same else variables), **(exported or {})},
            exported={*self._exported, *(exported or ())},
            options=options if options is not None else self._options,
            host=host or self._host,
            setup=tuple(self._setup),
            calls=self._calls + 1,
            files=self._files,
            folder=self._folder,
            line=line,
            steps=self._steps,
        )

    # Nodes ------------------------------------------------------------------------------------------------------------

    def _run(self, body: syntax.Body) -> bool | None:
        """Go through commands; return whether the last succeeds, None where nobody knows."""
        status: bool | None = True
        for node in body:
            status = self._node(node)
        return status

    def _node(self, node: syntax.Node) -> bool | None:
        self._line = node.line
        self._steps[0] += 1
        if self._steps[0] > MOST_STEPS:
            raise DataError(
                _("{path}:{line}: its loops go on for more than {n:,} commands", self._path, node.line, MOST_STEPS),
                hint=_("nothing is executed here, so a loop that waits for something never ends: take it out"),
            )
        try:
            return self._known_node(node)
        except expansion.TooMany:
            raise DataError(
                _("{path}:{line}: {why}", self._path, node.line, expansion.TOO_MANY),
                hint=_("a study of so many runs helps nobody: give a smaller range"),
            ) from None
        except ValueError:
            self._leave(self._source(node), _("can't be read"))
            return None

    def _known_node(self, node: syntax.Node) -> bool | None:
        if isinstance(node, syntax.Simple):
            return self._simple(node)
        if isinstance(node, syntax.Pipeline):
            return self._pipeline(node)
        if isinstance(node, syntax.AndOr):
            return self._and_or(node)
        if isinstance(node, syntax.For):
            return self._for(node)
        if isinstance(node, syntax.If):
            return self._if(node)
        if isinstance(node, syntax.Case):
            return self._case(node)
        if isinstance(node, syntax.Function):
            self._functions[node.name] = node.body
            return True
        if isinstance(node, syntax.Group):
            if not node.is_subshell:
                return self._run(node.body)
            kept = dict(self._variables), set(self._exported), list(self._setup), self._folder
            try:
                status = self._run(node.body)
            except Leave:
                status = None
            self._variables.clear()
            self._variables.update(kept[0])
            self._exported, self._setup, self._folder = kept[1:]
            return status
        if isinstance(node, syntax.Arithmetic):
            value = expansion.number(node.text, self._scope, node.text)
            return value != "0" if is_known(value) else None
        return self._while(node)

    def _pipeline(self, node: syntax.Pipeline) -> bool | None:
        status: bool | None = True
        names = [each.words[0] if isinstance(each, syntax.Simple) and each.words else "" for each in node.commands]
        if names[0] in ("yes", "echo", "cat", "printf") and len(names) > 1 and names[1] not in HARMLESS:
            self._leave(self._source(node), _("what a pipe passes on isn't known"))
            return None
        for each in node.commands:
            status = self._node(each)
        return None if status is None else status is not node.is_negated

    def _and_or(self, node: syntax.AndOr) -> bool | None:
        status = self._node(node.first)
        for operator, each in node.rest:
            if status is None:
                if not is_harmless(each.commands):
                    self._leave(self._source(node), _("whether its condition holds isn't known before it runs"))
                status = None if operator == "&&" else True
            elif status is (operator == "&&"):
                status = self._node(each)
        return status

    def _for(self, node: syntax.For) -> bool | None:
        items = (
            [each for raw in node.words for each in expansion.words(raw, self._scope)]
            if node.words is not None
            else None
        )
        if items is None:
            items = self._scope.arguments if self._scope.arguments is not None else [unknown('"$@"')]
        if any(not is_known(each) for each in items):
            self._leave(self._source(node), _("what it goes over isn't known before it runs"))
            items = [each for each in items if is_known(each)] or items[:1]
        for each in items:
            self._variables[node.name] = each
            if not self._round(node.body):
                break
        return True

    def _round(self, body: syntax.Body) -> bool:
        """Go through a loop's body once; return whether the loop goes on."""
        try:
            self._run(body)
        except Leave as left:
            if left.what not in ("break", "continue"):
                raise
            return left.what == "continue"
        return True

    def _while(self, node: syntax.Node) -> bool | None:
        if isinstance(node, syntax.Counting):
            expansion.number(node.first, self._scope, "")
            while True:
                value = expansion.number(node.condition or "1", self._scope, node.condition)
                if not is_known(value):
                    self._leave(self._source(node), _("how often it goes round isn't known before it runs"))
                    return None
                self._steps[0] += 1
                if value == "0" or not self._round(node.body) or not self._goes_on():
                    return True
                expansion.number(node.then, self._scope, "")
        assert isinstance(node, syntax.While)
        condition = node.condition[0] if len(node.condition) == 1 else None
        if isinstance(condition, syntax.Simple) and condition.words[:1] and condition.words[0].startswith("IFS="):
            self._variables["IFS"] = expansion.text(condition.words[0][4:], self._scope)
            condition = syntax.Simple(condition.line, condition.words[1:], condition.redirections)
        if isinstance(condition, syntax.Simple) and condition.words[:1] == ("read",):
            return self._read_lines(node, condition)
        if isinstance(condition, syntax.Simple) and condition.words[:1] in (("true",), (":",), ("1",)):
            before = len(self._found.started)
            self._round(node.body)
            if len(self._found.started) > before:
                self._leave(self._source(node), _("a loop without end: its commands are taken once"))
            return None
        while True:
            status = self._run(node.condition)
            if status is None:
                if not is_harmless(node.body):
                    self._leave(self._source(node), _("how often it goes round isn't known before it runs"))
                return None
            if status is node.is_until or not self._round(node.body) or not self._goes_on():
                return True

    def _goes_on(self) -> bool:
        self._steps[0] += 1
        return self._steps[0] <= MOST_STEPS + 1

    def _read_lines(self, node: syntax.While, condition: syntax.Simple) -> bool | None:
        """Go through a loop over the lines of a heredoc or of a file that lies in the project."""
        lines: list[str] | None = None
        for redirection in node.redirections:
            if redirection.operator in ("<<", "<<-"):
                is_plain = redirection.is_quoted
                text = redirection.target if is_plain else expansion.document(redirection.target, self._scope)
                lines = text.splitlines()
            elif redirection.operator == "<":
                lines = self._lines_of(expansion.text(redirection.target, self._scope))
        if lines is None:
            self._leave(self._source(node), _("the lines that it reads aren't known before it runs"))
            return None
        names = [word for word in condition.words[1:] if not word.startswith("-")] or ["REPLY"]
        separator = self._separator()
        for line in lines:
            parts = line.split(separator, len(names) - 1)
            for place, name in enumerate(names):
                self._variables[name] = parts[place].strip() if place < len(parts) else ""
            if not self._round(node.body):
                break
        return True

    def _if(self, node: syntax.If) -> bool | None:
        for condition, body in node.branches:
            status = True if condition is None else self._run(condition)
            if status:
                return self._run(body)
            if status is None:
                if not all(is_harmless(each) for _condition, each in node.branches):
                    self._line = node.line
                    why = _("whether its condition holds isn't known before it runs: its lines are left out")
                    self._leave(self._source(node), why)
                return None
        return True

    def _case(self, node: syntax.Case) -> bool | None:
        value = expansion.text(node.word, self._scope)
        if not is_known(value):
            if not all(is_harmless(body) for _patterns, body in node.clauses):
                self._leave(self._source(node), _("which of its cases holds isn't known before it runs"))
            return None
        for patterns, body in node.clauses:
            if any(fnmatch.fnmatchcase(value, expansion.text(pattern, self._scope)) for pattern in patterns):
                return self._run(body)
        return True

    # Simple commands --------------------------------------------------------------------------------------------------

    def _simple(self, node: syntax.Simple) -> bool | None:
        raw = list(node.words)
        before: dict[str, str] = {}
        while raw and (found := ASSIGNMENT.fullmatch(raw[0])):
            raw.pop(0)
            if before or not all(ASSIGNMENT.fullmatch(each) for each in raw):
                before[found["name"]] = expansion.text(found["value"], self._scope)
            else:
                self._assign(found)
        if not raw:
            for name, value in before.items():
                self._variables[name] = value
            self._write(node)
            return True
        if raw[0] in ("[[", "["):
            return self._test([expansion.text(each, self._scope) for each in raw[1:-1]])
        if raw[0] in ("export", "declare", "typeset", "local", "readonly"):
            return self._declare(raw)
        words = [each for word in raw for each in expansion.words(word, self._scope)]
        if self._write(node):
            return True
        return self._command(words, before, node)

    def _command(self, words: list[str], before: dict[str, str], node: syntax.Simple) -> bool | None:
        from .starting import start  # it goes on with this module's shell

        if not words:
            return True
        name = words[0]
        if name in self._functions:
            return self._call(name, words[1:])
        built_in = getattr(self, f"_do_{name}", None) if name.isalpha() else None
        if name == ".":
            return self._do_source(words, node)
        if built_in is not None:
            done: bool | None = built_in(words, node)
            return done
        if name in SETUP:
            self._keep_setup(words)
            return True
        if name in HARMLESS and not (name == "env" and len(words) > 1):
            return True
        start(self, words, before, node)
        return True

    def _call(self, name: str, arguments: list[str]) -> bool | None:
        if self._calls >= MOST_CALLS:
            raise DataError(_("{path}:{line}: {name} calls itself without end", self._path, self._line, name))
        kept, self._scope.arguments = self._scope.arguments, arguments
        self._calls += 1
        try:
            return self._run(self._functions[name])
        except Leave as left:
            if left.what != "return":
                raise
            return True
        finally:
            self._scope.arguments = kept
            self._calls -= 1

    def _do_eval(self, words: list[str], node: syntax.Simple) -> bool:
        if all(map(is_known, words)):
            body, _problem = syntax.parse(" ".join(words[1:]), self._line)
            self._run(body)
        else:
            self._keep_setup(words)
        return True

    def _do_source(self, words: list[str], node: syntax.Simple) -> bool:
        path = words[1] if len(words) > 1 else ""
        text = (
            self.script_text(path)
            if not re.search(r"(activate|bashrc|\.profile|conda\.sh|modules\.sh|\.env)$", path)
            else None
        )
        if text is None:
            self._keep_setup(words)
            return True
        if self._calls >= MOST_CALLS:
            raise DataError(_("{path}:{line}: {name} calls itself without end", self._path, self._line, path))
        child = self._child(path, text[0], arguments=words[2:] or self._scope.arguments, exported=None, is_same=True)
        self._found.called.add(posixpath.normpath(path))
        child.run_text()
        self._variables.update(child._variables)
        self._exported |= child._exported
        self._functions.update(child._functions)
        self._setup = list(child._setup)
        return True

    # For what starts --------------------------------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """The script."""
        return self._path

    @property
    def is_deep(self) -> bool:
        """Whether so many scripts have called each other that they may do so for ever."""
        return self._calls >= MOST_CALLS

    def script_text(self, path: str) -> tuple[str, int] | None:
        """Return the text and first line of a script that another one names, if it lies in the project."""
        if not is_known(path):
            return None
        place = posixpath.normpath(posixpath.join(self._folder, path))
        for each in (path, place):
            if posixpath.normpath(each) in self._files:
                return self._files[posixpath.normpath(each)]
        beside = posixpath.join(posixpath.dirname(self._path), posixpath.basename(path))
        for each in (place, beside):
            file = self._project / each
            inside = os.path.realpath(file).startswith(os.path.realpath(self._project) + os.sep)
            if inside and file.is_file() and file.suffix != ".py":
                try:
                    return read(file), 1
                except DataError:
                    return None
        return None

    def real_path(self, path: str) -> str:
        """Return the path of a script that ``script_text`` has found, as seen from the project."""
        place = posixpath.normpath(posixpath.join(self._folder, path))
        beside = posixpath.join(posixpath.dirname(self._path), posixpath.basename(path))
        is_made = any(posixpath.normpath(each) in self._files for each in (path, place))
        return self._path if is_made else place if (self._project / place).is_file() else posixpath.normpath(beside)

    def leave(self, node: syntax.Simple, why: str) -> None:
        """Name a command that has no place in a study."""
        self._leave(self._source(node), why, node.line)

    def expanded(self, raw: str, *, is_quoted: bool) -> str:
        """Return a heredoc's text."""
        return raw if is_quoted else expansion.document(raw, self._scope)

    def environment(self, before: Mapping[str, str]) -> dict[str, str]:
        """Return what a command finds in its environment of the script's variables."""
        exported = {name: self._variables[name] for name in sorted(self._exported) if name in self._variables}
        return {**{name: value for name, value in exported.items() if isinstance(value, str)}, **before}

    def started(self, words: Sequence[str], before: Mapping[str, str], node: syntax.Simple, host: str = "") -> None:
        """Take down a command."""
        self._found.add(
            Started(
                place=Place(path=self._path, line=node.line),
                words=tuple(words),
                script=self._script,
                folder=self._folder,
                environment=self.environment(before),
                setup=tuple(self._setup),
                options=self._options,
                host=host or self._host,
            )
        )

    def inner(
        self, text: str, node: syntax.Simple, before: Mapping[str, str], *, host: str = "", pane: str = ""
    ) -> None:
        """Go through a text that another shell gets, as of ``bash -c`` and ssh; that of a pane gets several."""
        child = self._child(
            self._path, text, arguments=[], exported=before, host=host, line=node.line, is_same=not host
        )
        child._functions = dict(self._functions)
        if pane and pane in self._panes:
            child._folder, child._setup = self._panes[pane]._folder, self._panes[pane]._setup
        self._panes[pane] = child
        child.run_text()

    def other(
        self,
        path: str,
        text: tuple[str, int],
        arguments: list[str],
        before: Mapping[str, str],
        options: Mapping[str, str] | None,
    ) -> None:
        """Go through another script, which is called or, with options, submitted."""
        if path != self._path:
            self._found.called.add(path)
        child = self._child(path, text[0], arguments=arguments, exported=before, line=text[1])
        child.run_file(options) if options is not None else child.run_text()


def without_array(options: Mapping[str, str] | None) -> dict[str, str] | None:
    """Return sbatch's options without the array, which seeds and groups are now."""
    if options is None:
        return None
    limit = re.search(r"%(\d+)$", options.get("array", ""))
    rest = {key: value for key, value in options.items() if key != "array"}
    return {**rest, **({"max_parallel": limit[1]} if limit else {})}

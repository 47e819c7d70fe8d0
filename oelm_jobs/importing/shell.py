"""Go through a shell script without executing anything, and find the commands that it would start."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..agent.sentences import _
from ..errors import DataError
from . import expansion, headers, nodes, syntax
from .built_in import HARMLESS, SETUP, Leave
from .flow import Flow
from .found import Found, Place, Started, read
from .scope import is_known
from .state import ASSIGNMENT

MOST_CALLS = 16
"""Scripts and functions that call each other."""
_ENVIRONMENT = {"BASH_SOURCE": "", "IFS": " \t\n"} | dict.fromkeys(
    ("PWD", "OLDPWD", "SLURM_SUBMIT_DIR", "PBS_O_WORKDIR", "SGE_O_WORKDIR", "LS_SUBCWD"), "."
)


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


class Shell(Flow):
    """A script on its way."""

    # Files ------------------------------------------------------------------------------------------------------------

    def run_file(self, given: Mapping[str, str] | None = None) -> None:
        """Go through the script, each time for an array of sbatch.

        Args:
            given: Options on sbatch's command line, which win.
        """
        header = headers.read(self._text)
        for line, source, why in header.strange:
            self._leave(source, why, line)
        is_job = bool(header.options) or given is not None
        options = {**header.options, **(given or {})} if is_job else None
        array = (options or {}).get("array", "") or header.array
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
            shell._calls, shell._gpus = self._calls, header.gpus or self._gpus
            if index is not None and indices:
                numbers = {"ID": index, "COUNT": len(indices), "MIN": min(indices), "MAX": max(indices)}
                for name, value in numbers.items():
                    shell._variables[f"SLURM_ARRAY_TASK_{name}"] = str(value)
                shell._variables.update(dict.fromkeys(headers.INDEX_VARIABLES, str(index)))
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
        made = Shell(
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
        made._gpus = self._gpus
        return made

    # Simple commands --------------------------------------------------------------------------------------------------

    def _simple(self, node: nodes.Simple) -> bool | None:
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

    def _command(self, words: list[str], before: dict[str, str], node: nodes.Simple) -> bool | None:
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
        if name in SETUP and words[1:2] != ["run"]:
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

    def _start_within(self, node: nodes.Node) -> None:
        first = node.commands[0] if isinstance(node, nodes.Pipeline) else node
        words = list(first.words) if isinstance(first, nodes.Simple) else []
        if any(word.endswith(".py") or posixpath.basename(word) in ("sbatch", "torchrun") for word in words):
            self._node(first)

    def _do_eval(self, words: list[str], node: nodes.Simple) -> bool:
        if all(map(is_known, words)):
            body, _problem = syntax.parse(" ".join(words[1:]), self._line)
            self._run(body)
        else:
            self._keep_setup(words)
        return True

    def _do_source(self, words: list[str], node: nodes.Simple) -> bool:
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

    def lines_read(self, node: nodes.Simple) -> list[str] | None:
        """Return what a command reads: of a pipe, a heredoc or a file; None where nobody knows."""
        lines = self._piped
        for each in node.redirections:
            if each.operator in ("<<", "<<-", "<<<"):
                text = each.target if each.operator == "<<<" else self.expanded(each.target, is_quoted=each.is_quoted)
                lines = (expansion.text(text, self._scope) if each.operator == "<<<" else text).splitlines()
            elif each.operator == "<":
                lines = self._lines_from(each.target)
        return lines

    def lines_of(self, path: str) -> list[str] | None:
        """Return the lines of a file of the project; None where nobody knows them."""
        return self._lines_of(path)

    def leave(self, node: nodes.Simple, why: str) -> None:
        """Name a command that has no place in a study."""
        self._leave(self._source(node), why, node.line)

    def expanded(self, raw: str, *, is_quoted: bool) -> str:
        """Return a heredoc's text."""
        return raw if is_quoted else expansion.document(raw, self._scope)

    def environment(self, before: Mapping[str, str]) -> dict[str, str]:
        """Return what a command finds in its environment of the script's variables."""
        exported = {name: self._variables[name] for name in sorted(self._exported) if name in self._variables}
        return {**{name: value for name, value in exported.items() if isinstance(value, str)}, **before}

    def started(self, words: Sequence[str], before: Mapping[str, str], node: nodes.Simple, host: str = "") -> None:
        """Take down a command, and name what it reads that the script writes."""
        for path in sorted({part for word in words for part in (word, word.partition("=")[2])} & self._files.keys()):
            self.leave(node, _("it reads {path}, which the script writes: put that into the project", path))
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
                gpus=self._gpus,
            )
        )

    def inner(
        self, text: str, node: nodes.Simple, before: Mapping[str, str], *, host: str = "", pane: str = ""
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

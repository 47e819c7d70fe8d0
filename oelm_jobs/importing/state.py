"""What a shell script has said so far: variables, functions, set-up lines, where it is; and what conditions and outputs
follow from that."""

from __future__ import annotations

import fnmatch
import posixpath
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..agent.sentences import _
from ..errors import DataError
from . import expansion, nodes, syntax
from .found import MOST_BYTES, Found, Place
from .scope import END, MARK, MOST_WORDS, Scope, TooMany, Value, as_written, is_known, unknown

ASSIGNMENT = re.compile(r"(?P<name>[A-Za-z_]\w*)(\[(?P<key>[^\]]*)\])?(?P<adds>\+?)=(?P<value>.*)", re.DOTALL)


class State:
    """A script on its way."""

    def __init__(
        self,
        found: Found,
        project: Path,
        path: str,
        text: str,
        *,
        script: str = "",
        arguments: list[str] | None = None,
        variables: Mapping[str, Value] | None = None,
        exported: set[str] | None = None,
        options: Mapping[str, str] | None = None,
        host: str = "",
        setup: tuple[str, ...] = (),
        calls: int = 0,
        files: dict[str, tuple[str, int]] | None = None,
        folder: str = "",
        line: int = 1,
        steps: list[int] | None = None,
    ) -> None:
        self._found, self._project, self._path, self._text = found, project, path, text
        self._script = script or path
        self._variables: dict[str, Value] = dict(variables or {})
        self._exported = set(exported or ())
        self._functions: dict[str, nodes.Body] = {}
        self._options, self._host = options, host
        self._setup = list(setup)
        self._calls = calls
        self._files = files if files is not None else {}
        self._folder = folder
        self._first_line = line
        self._steps = steps if steps is not None else [0]
        self._piped: list[str] | None = None
        self._gpus: int | None = None
        self._panes: dict[str, State] = {}
        self._scope = Scope(
            variables=self._variables,
            arguments=arguments,
            called=path,
            substitute=self._substitute,
            match=self._match,
        )
        self._line = line

    def _leave(self, source: str, why: str, line: int = 0) -> None:
        self._found.leave(Place(path=self._path, line=line or self._line), source, why)

    def _match(self, pattern: str) -> list[str]:
        """Return files of the project that a pattern fits, as the script calls them."""
        if pattern.startswith(("/", "~", "..")) or "**" in pattern or pattern.startswith("-"):
            return []
        base = self._project / self._folder
        try:
            found = sorted(each.relative_to(base).as_posix() for each in base.glob(pattern))
        except (OSError, ValueError, NotImplementedError):
            return []
        return found[:MOST_WORDS]

    def _lines_of(self, path: str) -> list[str] | None:
        if path in self._files:
            return self._files[path][0].splitlines()
        if not is_known(path) or path.startswith(("/", "~")) or ".." in path.split("/"):
            return None
        try:
            file = self._project / self._folder / path
            if not file.is_file() or file.stat().st_size > MOST_BYTES:
                return None
            return file.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError):
            return None

    def _separator(self) -> str | None:
        value = self._variables.get("IFS")
        return value if isinstance(value, str) and len(value) == 1 and not value.isspace() else None

    def _assign(self, found: re.Match[str]) -> None:
        name, key, value = found["name"], found["key"], found["value"]
        if value.startswith("(") and value.endswith(")"):
            items = expansion.array_items(value[1:-1])
            pairs = [re.fullmatch(r"\[([^\]]+)\]=(.*)", item, re.DOTALL) for item in items]
            if items and all(pairs):
                table = {
                    expansion.text(pair[1], self._scope): expansion.text(pair[2], self._scope) for pair in pairs if pair
                }
                self._variables[name] = table
                return
            several = [each for item in items for each in expansion.words(item, self._scope)]
            old = self._variables.get(name, [])
            if found["adds"]:
                several = [*(old if isinstance(old, list) else [str(old)]), *several]
            self._variables[name] = several
            return
        text = expansion.text(value, self._scope)
        if len(text) > MOST_BYTES:
            raise DataError(
                _("{path}:{line}: a variable grows beyond {n:,} characters", self._path, self._line, MOST_BYTES)
            )
        if key is not None:
            self._assign_item(name, key, text)
        elif found["adds"]:
            old = self._variables.get(name, "")
            self._variables[name] = (old if isinstance(old, str) else " ".join(old)) + text
        else:
            self._variables[name] = text

    def _assign_item(self, name: str, key: str, text: str) -> None:
        old = self._variables.setdefault(name, {})
        if isinstance(old, dict):
            old[expansion.text(key, self._scope)] = text
        elif isinstance(old, list):
            place = expansion.number(key, self._scope, key)
            if place.isdigit() and int(place) <= MOST_WORDS:
                old.extend([""] * (int(place) + 1 - len(old)))
                old[int(place)] = text

    def _declare(self, raw: list[str]) -> bool:
        options = [word for word in raw[1:] if word.startswith("-")]
        is_export = raw[0] == "export" or any("x" in word for word in options)
        for word in raw[1:]:
            if word.startswith("-"):
                continue
            found = ASSIGNMENT.fullmatch(word)
            name = found["name"] if found else word
            if found:
                self._assign(found)
            elif any("A" in option for option in options):
                self._variables.setdefault(name, {})
            elif any("a" in option for option in options):
                self._variables.setdefault(name, [])
            if is_export and re.fullmatch(r"[A-Za-z_]\w*", name):
                self._exported.add(name)
        return True

    def _test(self, words: list[str]) -> bool | None:
        """Return whether a condition of [ … ] holds; None where it isn't known."""
        for joint in ("||", "-o", "&&", "-a"):
            if joint in words:
                place = words.index(joint)
                before, behind = (self._test(words[:place]), self._test(words[place + 1 :])) if place else (None, None)
                decides = joint in ("||", "-o")
                if before is decides or behind is decides:
                    return decides
                return None if None in (before, behind) else not decides
        if words[:1] == ["!"]:
            inner = self._test(words[1:])
            return None if inner is None else not inner
        if len(words) == 1:
            return bool(words[0]) if is_known(words[0]) else None
        if len(words) == 2 and words[0] in ("-z", "-n"):
            return (words[1] == "") is (words[0] == "-z") if is_known(words[1]) else None
        if len(words) != 3 or not all(map(is_known, words)):
            return None
        left, operator, right = words
        if operator in ("=", "=="):
            return fnmatch.fnmatchcase(left, right)
        if operator == "!=":
            return not fnmatch.fnmatchcase(left, right)
        if operator == "=~":
            try:
                return re.search(right, left) is not None
            except re.error:
                return None
        try:
            one, other = int(left), int(right)
        except ValueError:
            return None
        answers = {"-eq": one == other, "-ne": one != other, "-lt": one < other, "-le": one <= other,
                   "-gt": one > other, "-ge": one >= other}  # fmt: skip
        return answers.get(operator)

    def _keep_setup(self, words: Sequence[str]) -> None:
        line = shell_line(words)
        if line not in self._setup:
            self._setup.append(line)

    def _substitute(self, text: str) -> str:
        """Return the output of a command, where that is known without executing it."""
        body, problem = syntax.parse(text, self._line)
        if problem is None and len(body) == 1:
            node = body[0]
            if isinstance(node, nodes.AndOr) and [each for each, _p in node.rest] == ["&&"]:
                first, last = node.first.commands[0], node.rest[0][1].commands[0]
                if isinstance(first, nodes.Simple) and isinstance(last, nodes.Simple) and last.words[:1] == ("pwd",):
                    words = [each for raw in first.words for each in expansion.words(raw, self._scope)]
                    if words[:1] == ["cd"] and len(words) == 2 and is_known(words[1]):
                        return posixpath.normpath(posixpath.join(self._folder, words[1]))
            if isinstance(node, nodes.Simple) and (output := self._printed_by(node)) is not None:
                return output
            self._start_within(node)
        return unknown(f"$({text})")

    def _printed_by(self, node: nodes.Node) -> str | None:
        """Return what a command prints; None where nobody knows."""
        if not isinstance(node, nodes.Simple):
            return None
        words = [each for raw in node.words for each in expansion.words(raw, self._scope)]
        return self._output(words) if words and all(map(is_known, words)) else None

    def _start_within(self, node: nodes.Node) -> None:
        """Take down what a command starts whose output is taken, as in ``JOB=$(sbatch a.sbatch)``."""
        raise NotImplementedError

    def _output(self, words: list[str]) -> str | None:
        name, rest = words[0], words[1:]
        if name == "echo":
            return " ".join(rest)
        if name == "pwd":
            return self._folder or "."
        if name in ("basename", "dirname") and rest:
            path = rest[0].rstrip("/")
            if name == "dirname":
                return posixpath.dirname(path) or "."
            return posixpath.basename(path).removesuffix(rest[1] if len(rest) > 1 else "")
        if name in ("realpath", "readlink") and rest:
            return posixpath.normpath(rest[-1])
        if name == "expr":
            value = expansion.number(" ".join(rest), self._scope, "")
            return value if is_known(value) else None
        if name == "seq":
            return _sequence(rest)
        if name == "printf" and rest:
            return _printed(rest[0], rest[1:])
        return self._line_of(name, rest)

    def _line_of(self, name: str, rest: list[str]) -> str | None:
        """Return the line of a file that ``sed -n 3p FILE`` or ``awk NR==3 FILE`` prints."""
        if name == "cat" and len(rest) == 1:
            lines = self._lines_of(rest[0])
            return "\n".join(lines) if lines is not None else None
        shape = {"sed": r"(\d+)(?:p|\{p;q;?\})", "awk": r"NR\s*==\s*(\d+)"}.get(name)
        words = [word for word in rest if word not in ("-n", "-e")]
        found = re.fullmatch(shape, words[0].strip()) if shape and len(words) == 2 else None
        lines = self._lines_of(words[1]) if found else None
        if not found or lines is None:
            return None
        number = int(found[1])
        return lines[number - 1] if 0 < number <= len(lines) else ""


def _printed(shape: str, values: Sequence[str]) -> str | None:
    """Return what printf prints, which goes over its format until no value is left."""
    shape = shape.replace("\\n", "\n").replace("\\t", "\t")
    kinds = re.findall(r"%(?:0?\d*(d)|(s))", shape)
    if "\\" in shape or shape.count("%") != len(kinds):
        return None
    rows = [values[first : first + len(kinds)] for first in range(0, len(values), len(kinds) or 1)] if kinds else []
    try:
        texts = [
            shape % tuple(int(value) if kind[0] else value for kind, value in zip(kinds, row, strict=True))
            for row in rows
        ]
    except ValueError:
        return None
    return "".join(texts) if rows else shape if not kinds else None


def _sequence(words: list[str]) -> str | None:
    separator, width = "\n", False
    rest: list[str] = []
    place = 0
    while place < len(words):
        if words[place] == "-s" and place + 1 < len(words):
            separator = words[place + 1]
            place += 1
        elif words[place] == "-w":
            width = True
        else:
            rest.append(words[place])
        place += 1
    if not 1 <= len(rest) <= 3 or not all(re.fullmatch(r"-?\d+(\.\d+)?", word) for word in rest):
        return None
    places = max(len(word.partition(".")[2]) for word in rest)
    scale = 10**places
    numbers = [round(float(word) * scale) for word in rest]
    first, step, last = (
        (scale, scale, numbers[0]) if len(rest) == 1 else
        (numbers[0], scale, numbers[1]) if len(rest) == 2 else (numbers[0], numbers[1], numbers[2])
    )  # fmt: skip
    if not step:
        return None
    values = range(first, last + (1 if step > 0 else -1), step)
    if len(values) > MOST_WORDS:
        raise TooMany
    texts = [f"{value / scale:.{places}f}" if places else str(value // scale) for value in values]
    longest = max(map(len, texts), default=0) if width else 0
    return separator.join(text.zfill(longest) for text in texts)


def shell_line(words: Sequence[str]) -> str:
    """Return words as a line of a shell: quoted where they need it, what isn't known as the script has it."""
    found = []
    for word in words:
        if not is_known(word):
            inner = re.sub(r'(["\\`])', r"\\\1", re.sub(f"{MARK}.*?{END}", "", word))
            plain = re.fullmatch(r"[\w./:=@%+,~-]*", inner) and re.fullmatch(r"[^\s()`\"']*", as_written(word))
            found.append(as_written(word) if plain else '"' + as_written(word).replace('"', '\\"') + '"')
        elif re.fullmatch(r"[\w./:=@%+,~-]+", word):
            found.append(word)
        else:
            found.append(shlex.quote(word))
    return " ".join(found)

"""Go through the loops, conditions and pipelines of a shell script as far as what decides them is known."""

from __future__ import annotations

import fnmatch

from ..agent.sentences import _
from ..errors import DataError
from . import expansion, nodes
from .built_in import HARMLESS, BuiltIns, Leave, is_harmless
from .scope import TOO_MANY, TooMany, is_known, unknown

_READERS = frozenset({"xargs", "parallel", "bash", "sh"})
"""Commands that start what they read."""
MOST_STEPS = 100_000
"""Commands of a script that are looked at, those of loops each time."""


class Flow(BuiltIns):
    """The parts of a script that say which commands are executed, and how often."""

    def _simple(self, node: nodes.Simple) -> bool | None:
        """Go through a simple command; return whether it succeeds, None where nobody knows."""
        raise NotImplementedError

    def _run(self, body: nodes.Body) -> bool | None:
        """Go through commands; return whether the last succeeds, None where nobody knows."""
        status: bool | None = True
        for node in body:
            status = self._node(node)
        return status

    def _node(self, node: nodes.Node) -> bool | None:
        self._line = node.line
        self._steps[0] += 1
        if self._steps[0] > MOST_STEPS:
            raise DataError(
                _("{path}:{line}: its loops go on for more than {n:,} commands", self._path, node.line, MOST_STEPS),
                hint=_("nothing is executed here, so a loop that waits for something never ends: take it out"),
            )
        try:
            return self._known_node(node)
        except TooMany:
            raise DataError(
                _("{path}:{line}: {why}", self._path, node.line, TOO_MANY),
                hint=_("a study of so many runs helps nobody: give a smaller range"),
            ) from None
        except ValueError:
            self._leave(self._source(node), _("can't be read"))
            return None

    def _known_node(self, node: nodes.Node) -> bool | None:
        if isinstance(node, nodes.Simple):
            return self._simple(node)
        if isinstance(node, nodes.Pipeline):
            return self._pipeline(node)
        if isinstance(node, nodes.AndOr):
            return self._and_or(node)
        if isinstance(node, nodes.For):
            return self._for(node)
        if isinstance(node, nodes.If):
            return self._if(node)
        if isinstance(node, nodes.Case):
            return self._case(node)
        if isinstance(node, nodes.Function):
            self._functions[node.name] = node.body
            return True
        if isinstance(node, nodes.Group):
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
        if isinstance(node, nodes.Arithmetic):
            value = expansion.number(node.text, self._scope, node.text)
            return value != "0" if is_known(value) else None
        return self._while(node)

    def _pipeline(self, node: nodes.Pipeline) -> bool | None:
        status: bool | None = True
        names = [each.words[0] if isinstance(each, nodes.Simple) and each.words else "" for each in node.commands]
        if len(names) > 1 and (names[-1] in _READERS or isinstance(node.commands[-1], nodes.While)):
            text = self._printed_by(node.commands[0]) if len(names) == 2 else None
            if text is None:
                self._leave(self._source(node), _("what a pipe passes on isn't known"))
                return None
            self._piped = text.splitlines()
            try:
                return self._node(node.commands[1])
            finally:
                self._piped = None
        if names[0] in ("yes", "echo", "cat", "printf") and len(names) > 1 and names[1] not in HARMLESS:
            self._leave(self._source(node), _("what a pipe passes on isn't known"))
            return None
        for each in node.commands:
            status = self._node(each)
        return None if status is None else status is not node.is_negated

    def _and_or(self, node: nodes.AndOr) -> bool | None:
        before = len(self._found.started)
        status = self._node(node.first)
        for operator, each in node.rest:
            if status is None:
                if not is_harmless(each.commands):
                    self._leave(self._source(node), _("whether its condition holds isn't known before it runs"))
                status = None if operator == "&&" else True
            elif status is (operator == "&&"):
                status = self._node(each)
            elif operator == "||" and len(self._found.started) > before and not is_harmless(each.commands):
                self._leave(self._source(node), _("what stands behind || is for where the program fails: left out"))
        return status

    def _for(self, node: nodes.For) -> bool | None:
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
        if node.is_asked:
            self._leave(self._source(node), _("it asks which one: each is taken"))
        for each in items:
            self._variables[node.name] = each
            if not self._round(node.body):
                break
        return True

    def _round(self, body: nodes.Body) -> bool:
        """Go through a loop's body once; return whether the loop goes on."""
        try:
            self._run(body)
        except Leave as left:
            if left.what not in ("break", "continue"):
                raise
            return left.what == "continue"
        return True

    def _while(self, node: nodes.Node) -> bool | None:
        if isinstance(node, nodes.Counting):
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
        assert isinstance(node, nodes.While)
        condition = node.condition[0] if len(node.condition) == 1 else None
        if isinstance(condition, nodes.Simple) and condition.words[:1] and condition.words[0].startswith("IFS="):
            self._variables["IFS"] = expansion.text(condition.words[0][4:], self._scope)
            condition = nodes.Simple(condition.line, condition.words[1:], condition.redirections)
        if isinstance(condition, nodes.Simple) and condition.words[:1] == ("read",):
            return self._read_lines(node, condition)
        if isinstance(condition, nodes.Simple) and condition.words[:1] in (("true",), (":",), ("1",)):
            before = len(self._found.started)
            self._round(node.body)
            if len(self._found.started) > before:
                self._leave(self._source(node), _("a loop without end: its commands are taken once"))
            return None
        while True:
            before = len(self._found.started)
            status = self._run(node.condition)
            if len(self._found.started) > before:
                why = _("it starts again until it succeeds: max_retries of the study starts a run that failed again")
                self._leave(self._source(node), why)
                return None
            if status is None:
                if not is_harmless(node.body):
                    self._leave(self._source(node), _("how often it goes round isn't known before it runs"))
                return None
            if status is node.is_until or not self._round(node.body) or not self._goes_on():
                return True

    def _goes_on(self) -> bool:
        self._steps[0] += 1
        return self._steps[0] <= MOST_STEPS + 1

    def _read_lines(self, node: nodes.While, condition: nodes.Simple) -> bool | None:
        """Go through a loop over the lines of a heredoc or of a file that lies in the project."""
        lines = self._piped
        for redirection in node.redirections:
            if redirection.operator in ("<<", "<<-"):
                is_plain = redirection.is_quoted
                text = redirection.target if is_plain else expansion.document(redirection.target, self._scope)
                lines = text.splitlines()
            elif redirection.operator == "<":
                lines = self._lines_from(redirection.target)
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

    def _lines_from(self, word: str) -> list[str] | None:
        """Return the lines of a file, or of ``<(COMMAND)``; None where nobody knows them."""
        if word.startswith("<("):
            text = self._substitute(word[2:-1])
            return text.splitlines() if is_known(text) else None
        return self._lines_of(expansion.text(word, self._scope))

    def _if(self, node: nodes.If) -> bool | None:
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

    def _case(self, node: nodes.Case) -> bool | None:
        value = expansion.text(node.word, self._scope)
        if not is_known(value):
            if not all(is_harmless(body) for _patterns, body in node.clauses):
                self._leave(self._source(node), _("which of its cases holds isn't known before it runs"))
            return None
        for patterns, body in node.clauses:
            if any(fnmatch.fnmatchcase(value, expansion.text(pattern, self._scope)) for pattern in patterns):
                return self._run(body)
        return True

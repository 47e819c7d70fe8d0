"""docs/reference says what the code says: every command, option, key and exit code, each with a meaning."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from oelm_jobs import errors
from oelm_jobs.cli import objects
from oelm_jobs.cli.main import COMMANDS
from tests.objects import why_not
from tests.support import REPOSITORY
from tools import reference
from tools.reference import commands, keys, words

READERS = sorted(
    str(path.relative_to(REPOSITORY / "oelm_jobs"))
    for path in (REPOSITORY / "oelm_jobs").rglob("*.py")
    if re.search(r"\.take(_list|_section)?\(\"", path.read_text(encoding="utf-8"))
)
"""Modules of oelm_jobs that read files of users."""
REFUSED = {"token"}
"""Keys that they take so that they can say why not."""


def page(name: str) -> str:
    return (reference.FOLDER / name).read_text(encoding="utf-8")


def test_the_reference_is_what_the_code_says() -> None:
    written = {path.name: path.read_text(encoding="utf-8") for path in reference.FOLDER.glob("*.md")}
    assert written == reference.pages(), "write it anew: python -m tools.reference"


def test_how_help_is_asked_for_does_not_depend_on_what_ran_before() -> None:
    assert "| `--help`, `-h` |" in reference.pages()["commands.md"]


def literals(path: Path) -> set[str]:
    """Return the keys that a module takes from a table, where it names them."""
    return {
        argument.value
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call)
        for argument in call.args[1 if isinstance(call.func, ast.Name) else 0 :][:1]
        if re.fullmatch(r"_?(take|read|words|pattern).*", getattr(call.func, "attr", getattr(call.func, "id", "")))
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    }


@pytest.mark.parametrize("module", READERS)
def test_every_key_that_is_read_has_its_line(module: str) -> None:
    shown = page("study.md") + page("targets.md")
    taken = literals(REPOSITORY / "oelm_jobs" / module)
    assert taken
    lacking = [key for key in taken - REFUSED if f"| `{key}` |" not in shown]
    assert not lacking, "let an example in tools/reference/keys.py ask for them"


def test_every_exit_code_of_an_error_has_its_line() -> None:
    found = [errors.OelmError]
    for each in found:
        found += each.__subclasses__()
    assert len(found) > 10
    for code in {each.exit_code for each in found}:
        assert f"\n| {code} | " in page("commands.md").partition("## Exit codes")[2]


def test_an_option_without_help_is_noticed() -> None:
    @click.command()
    @click.option("--loud")
    def main(loud: str) -> None: ...

    with pytest.raises(words.Meaningless, match="--loud"):
        commands.section(main, "oelm-x", "##")


def test_a_key_whose_field_says_nothing_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(keys.FILLED, ("program",), Silent)
    with pytest.raises(words.Meaningless, match=r"\[program\].*Silent\.\w+ has no docstring"):
        keys.study_page()


@dataclass(frozen=True)
class Silent:
    """A class whose fields say nothing."""

    spelling: str = ""


def test_every_command_that_prints_json_has_its_objects() -> None:
    found = set()
    for name in COMMANDS:
        command = commands.command(name)
        for each in [command, *getattr(command, "commands", {}).values()]:
            found |= {name for param in each.params if "--json" in param.opts}
    assert found == set(objects.PRINTED)


def test_an_object_that_isnt_as_its_type_says_is_noticed() -> None:
    line = {"version": 1, "study": "s", "run": "r", "offset": 0, "line": ""}
    assert why_not(line, objects.LogLine) == ""
    assert "more" in why_not({**line, "more": 1}, objects.LogLine)
    assert "offset" in why_not({**line, "offset": "0"}, objects.LogLine)
    assert "line" in why_not({key: line[key] for key in line if key != "line"}, objects.LogLine)

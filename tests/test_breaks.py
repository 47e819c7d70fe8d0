"""The deliberate breaks of tests/breaks.toml still fit the code: ``python tools/breaks.py`` makes them."""

from __future__ import annotations

import ast
import collections
import functools

import pytest

from tests.support import REPOSITORY
from tools import breaks

KNOWN = breaks.read()


@functools.cache
def functions(path: str) -> set[str]:
    """Return the names of a file's functions, nested ones included."""
    tree = ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_each_break_has_a_name_of_its_own() -> None:
    assert [name for name, count in collections.Counter(change.name for change in KNOWN).items() if count > 1] == []


@pytest.mark.parametrize("change", KNOWN, ids=lambda change: change.name)
def test_a_break_fits_the_code_and_names_tests_that_exist(change: breaks.Break) -> None:
    text = (REPOSITORY / change.file).read_text(encoding="utf-8")
    broken = change.broken(text)
    assert broken != text
    if change.file.endswith(".py"):
        compile(broken, change.file, "exec")
    assert change.tests
    for test in change.tests:
        path, _, name = test.partition("::")
        assert name.partition("[")[0] in functions(path), test

"""What docstrings say, types in words, tables in Markdown."""

from __future__ import annotations

import ast
import functools
import inspect
import json
import re
import sys
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

NOTE = "<!-- Written from the code by `python -m tools.reference`: change what is said there, not this page. -->\n"
NONE = "–"


class Meaningless(Exception):
    """Something that users write or read has no meaning in the code."""


def documented(where: ModuleType | type) -> dict[str, str]:
    """Return what stands below each constant of a module, or each field of a class and of its bases."""
    if isinstance(where, ModuleType):
        return dict(_documented(_parsed(where)))
    module = sys.modules[where.__module__]
    classes = (node for node in ast.walk(_parsed(module)) if isinstance(node, ast.ClassDef))
    node = next(node for node in classes if node.name == where.__name__)
    # Of a TypedDict the bases are known to its source alone.
    bases = [getattr(module, base.id, None) for base in node.bases if isinstance(base, ast.Name)]
    found: dict[str, str] = {}
    for base in bases:
        if isinstance(base, type) and base.__module__.startswith(("oelm_jobs", "tests")):
            found |= documented(base)
    return found | dict(_documented(node))


@functools.cache
def _parsed(module: ModuleType) -> ast.Module:
    return ast.parse(inspect.getsource(module))


def documented_values(where: ModuleType, values: Iterable[str]) -> dict[str, str]:
    """Return what stands below the constants of a module that have these values."""
    said = {getattr(where, name): text for name, text in documented(where).items()}
    if lacking := [value for value in values if value not in said]:
        raise Meaningless(f"{where.__name__}: no constant with a docstring is {lacking[0]!r}")
    return {value: said[value] for value in values}


def _documented(node: ast.Module | ast.ClassDef) -> Iterable[tuple[str, str]]:
    for before, after in zip(node.body, node.body[1:], strict=False):
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
            targets = before.targets if isinstance(before, ast.Assign) else [getattr(before, "target", None)]
            for target in targets:
                if isinstance(target, ast.Name):
                    yield target.id, prose(after.value.value)


def prose(text: str) -> str:
    """Return a docstring as a line of Markdown."""
    return re.sub(r"``(.+?)``", r"`\1`", " ".join(text.split()))


def plain(text: str) -> str:
    """Return text of a terminal as a line of Markdown; options in it are code."""
    text = re.sub(r"[<*]", lambda found: {"<": "&lt;", "*": r"\*"}[found[0]], " ".join(text.split()))
    return re.sub(r'(?<![\w-])(--[a-z][a-z-]*(?: "[^"]*")?)', r"`\1`", text)


def code(text: str) -> str:
    """Return a word as code."""
    return f"`{text}`"


def toml(value: Any) -> str:
    """Return a value as TOML writes it, as code."""
    return code(json.dumps(value, ensure_ascii=False))


def choices(values: Iterable[str]) -> str:
    """Return ``"a"`` or ``"b"``, each as code."""
    return ", ".join(map(toml, values))


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; columns in which no row says anything are left out."""
    rows = [list(row) for row in rows]
    kept = [n for n in range(len(headers)) if any(row[n] not in ("", NONE) for row in rows)]
    lines = [[headers[n] for n in kept], ["---"] * len(kept), *([row[n] for n in kept] for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"

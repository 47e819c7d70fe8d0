"""What the trainer may use: Python 3.8's syntax and standard library, and nothing of the toolkit."""

from __future__ import annotations

import ast
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.train.support import ROOT, clean_environment

MODULES = sorted((ROOT / "train").glob("*.py"))
WITHOUT_TORCH = ("__init__", "__main__", "config", "errors", "estimate", "flops", "records", "vocabulary")

# Names that came to the standard library after 3.8, by the module or the kind of object that they belong to.
NEWER = {
    "modules": {"graphlib", "tomllib", "zoneinfo"},
    "functions": {
        ("functools", "cache"), ("math", "lcm"), ("math", "nextafter"), ("math", "ulp"), ("math", "cbrt"),
        ("random", "randbytes"), ("itertools", "pairwise"), ("itertools", "batched"), ("statistics", "correlation"),
        ("statistics", "linear_regression"), ("contextlib", "aclosing"), ("contextlib", "chdir"),
        ("asyncio", "to_thread"), ("asyncio", "timeout"), ("asyncio", "TaskGroup"), ("hashlib", "file_digest"),
        ("typing", "Annotated"), ("typing", "ParamSpec"), ("typing", "Self"), ("typing", "TypeAlias"),
        ("typing", "TypeGuard"), ("typing", "assert_never"), ("types", "NoneType"), ("datetime", "UTC"),
        ("enum", "StrEnum"), ("operator", "call"),
    },
    "methods": {"removeprefix", "removesuffix", "is_relative_to", "hardlink_to", "bit_count"},
    "keywords": {"strict", "kw_only", "slots", "root_dir", "process_group", "delete_on_close", "encoding_errors"},
}  # fmt: skip


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_keeps_to_python_3_8(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert any(node.module == "__future__" for node in imports), "annotations must not be evaluated"
    annotations = {id(part) for node in ast.walk(tree) for part in _annotations(node)}
    for node in ast.walk(tree):
        if id(node) in annotations:
            continue
        assert not isinstance(node, getattr(ast, "Match", ())), "match came with 3.10"
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
            assert node.value.id not in {"list", "dict", "tuple", "set", "type"}, (
                f"line {node.lineno}: {node.value.id}[]"
            )
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            assert not isinstance(node.left, ast.Dict), f"line {node.lineno}: | of dicts"
        if isinstance(node, ast.Attribute):
            assert node.attr not in NEWER["methods"], f"line {node.lineno}: {node.attr}"
            if isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) not in NEWER["functions"], f"line {node.lineno}: {node.attr}"
        if isinstance(node, ast.Call):
            keywords = {keyword.arg for keyword in node.keywords}
            assert not keywords & NEWER["keywords"], f"line {node.lineno}: {keywords}"
        if isinstance(node, ast.With):
            assert len(node.items) < 2, f"line {node.lineno}: several context managers are easily parenthesised"
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            assert not {name.split(".")[0] for name in names} & NEWER["modules"]
            if isinstance(node, ast.ImportFrom):
                assert not {(node.module, alias.name) for alias in node.names} & NEWER["functions"]


def _annotations(node: ast.AST) -> list[ast.AST]:
    """Every node inside an annotation of a function or a variable: never evaluated, thanks to __future__."""
    found = [getattr(node, "annotation", None), getattr(node, "returns", None)]
    return [part for annotation in found if annotation is not None for part in ast.walk(annotation)]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_imports_nothing_of_the_toolkit_and_its_own_by_relative_names(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        tops = {name.split(".")[0] for name in names}
        assert not tops & {"oelm_jobs", "train", "analysis", "templates"}, f"line {node.lineno}"  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_says_what_it_owns_and_ends_near_400_lines(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= 420


def python38() -> str | None:
    """A Python 3.8 that runs, if this machine has one."""
    candidates = [shutil.which("python3.8"), *map(str, Path.home().glob(".pyenv/versions/3.8.*/bin/python3.8"))]
    for candidate in filter(None, candidates):
        if subprocess.run([candidate, "-c", "pass"], capture_output=True).returncode == 0:
            return candidate
    return None


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_modules_of_the_standard_library_alone_run_on_python_3_8(name: str) -> None:
    interpreter = python38()
    if interpreter is None:
        pytest.skip("no Python 3.8 here")
    program = f"import sys; sys.argv = ['train', '--help']; import train.{name}; assert 'torch' not in sys.modules"
    done = subprocess.run(
        [interpreter, "-c", program], cwd=ROOT, env=clean_environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_command_line_answers_on_python_3_8() -> None:
    interpreter = python38()
    if interpreter is None:
        pytest.skip("no Python 3.8 here")
    for flags, code, words in ((["--help"], 0, "--freeze_qk"), (["--freze_qk"], 2, "did you mean --freeze_qk?")):
        done = subprocess.run(
            [interpreter, "-m", "train", *flags], cwd=ROOT, env=clean_environment(), capture_output=True, text=True
        )
        assert done.returncode == code and words in done.stdout + done.stderr

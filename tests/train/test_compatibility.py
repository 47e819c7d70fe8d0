"""What the trainer may use: Python 3.8's syntax and standard library, and nothing of the toolkit."""

from __future__ import annotations

import ast
import os
import shutil
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support import needs
from tests.train.support import ROOT, Ended, Trainers, clean_environment, metrics, outcome, wait_until
from tests.train.test_resume import LONG, assert_same_end
from train.config import TrainConfig

MODULES = sorted((ROOT / "train").glob("*.py"))
WITHOUT_TORCH = (
    "__init__",
    "__main__",
    "compiling",
    "config",
    "errors",
    "estimate",
    "flops",
    "freezing",
    "order_statistics",
    "peak_rates",
    "records",
    "vocabulary",
)

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
        # A keyword of PyTorch's may be called like one that came to the standard library.
        if isinstance(node, ast.Call) and "DistributedDataParallel" not in ast.unparse(node.func):
            keywords = {keyword.arg for keyword in node.keywords}
            if getattr(node.func, "attr", "") == "DistributedDataParallel":  # it has one of PyTorch's own
                keywords.discard("process_group")
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
        assert not tops & {"oelm_jobs", "train", "analysis", "templates"}, names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_says_what_it_owns_and_ends_near_400_lines(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= 420


def python38(needs: str = "sys") -> str:
    """A Python 3.8 of this machine that can import ``needs``; PYTHON38 may name one. Skips the test without one."""
    candidates = [os.environ.get("PYTHON38"), shutil.which("python3.8")]
    candidates += map(str, Path.home().glob(".pyenv/versions/3.8.*/bin/python3.8"))
    program = f"import sys, {needs}; print(sys.version_info[:2])"
    for candidate in filter(None, candidates):
        done = subprocess.run([candidate, "-c", program], capture_output=True, text=True)
        if done.stdout.strip() == "(3, 8)":
            return candidate
    pytest.skip(f"no Python 3.8 with {needs} here")


@pytest.mark.slow
@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_modules_of_the_standard_library_alone_run_on_python_3_8(name: str) -> None:
    program = f"import sys; sys.argv = ['train', '--help']; import train.{name}; assert 'torch' not in sys.modules"
    done = subprocess.run(
        [python38(), "-c", program], cwd=ROOT, env=clean_environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


NAMES_IN_USE = """
import ast, importlib, sys

def find(name):
    try:
        return importlib.import_module(name)
    except ImportError:
        return None

missing = []
for path in sys.argv[1:]:
    with open(path, encoding="utf-8") as stream:
        nodes = list(ast.walk(ast.parse(stream.read(), path)))
    modules = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            names = [alias for alias in node.names if alias.name.split(".")[0] not in ("torch", "numpy", "wandb")]
            modules.update((alias.asname or alias.name, find(alias.name)) for alias in names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module.split(".")[0] != "torch":
            owner = find(node.module)
            missing += [(path, node.module, alias.name) for alias in node.names if not hasattr(owner, alias.name)]
    missing += [(path, name) for name, module in modules.items() if module is None]
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = modules.get(node.value.id)
            if module is not None and not hasattr(module, node.attr):
                missing.append((path, node.value.id, node.attr))
sys.exit(repr(missing) if missing else 0)
"""
"""Parses modules and looks up every name of the standard library that they use; torch need not be there."""


@pytest.mark.slow
def test_python_3_8_parses_every_module_and_has_every_name_of_the_standard_library_in_it(tmp_path: Path) -> None:
    def check(*paths: Path) -> str:
        return subprocess.run([python38(), "-c", NAMES_IN_USE, *map(str, paths)], capture_output=True, text=True).stderr

    assert check(*MODULES) == ""
    newer = tmp_path / "newer.py"
    lines = ("import math\nmath.lcm(2)", "from functools import cache", "import tomllib", "match x:\n  case 1: pass")
    for line in lines:
        newer.write_text(line)
        assert check(newer) != "", line


@pytest.mark.slow
def test_the_command_line_answers_on_python_3_8() -> None:
    interpreter = python38()
    for flags, code, words in ((["--help"], 0, "--freeze_qk"), (["--freze_qk"], 2, "did you mean --freeze_qk?")):
        done = subprocess.run(
            [interpreter, "-m", "train", *flags], cwd=ROOT, env=clean_environment(), capture_output=True, text=True
        )
        assert done.returncode == code and words in done.stdout + done.stderr


@pytest.mark.parametrize("asked", [{}, {"position": "rope", "qk_norm": True, "freeze_from_step": 20}])
def test_python_3_8_with_the_pytorch_that_it_has_trains_and_resumes_to_the_bit(
    asked: dict[str, Any], tiny: TrainConfig, tmp_path: Path, trainers: Trainers
) -> None:
    interpreter = python38("torch, numpy")
    config = replace(tiny, **LONG, batch_size=2, gradient_accumulation_steps=2, **asked)
    whole = replace(config, out_dir=str(tmp_path / "whole"))
    for out_dir, step in ((whole.out_dir, None), (config.out_dir, 30), (config.out_dir, None)):
        processes = trainers.start(replace(config, out_dir=out_dir), 2, python=interpreter)
        if step is not None:
            wait_until(lambda: max(metrics(config), default=0) >= 30 or processes[0].poll() is not None, "step 30")  # noqa: B023 - called at once
            for process in processes:
                process.kill()
        ended = [Ended(process) for process in processes]
        assert [process.code for process in ended] == [0 if step is None else -signal.SIGKILL] * 2, ended[0].err
    assert outcome(config)["versions"]["python"].startswith("3.8.")
    assert outcome(config)["resumed_from"] > 0 and outcome(config)["exact"] is True
    assert_same_end(config, whole)


@pytest.mark.slow
def test_python_3_8_with_the_pytorch_that_it_has_compiles(tiny: TrainConfig, trainers: Trainers) -> None:
    needs("g++")  # for torch.compile
    config = replace(tiny, compile="true", max_steps=3, freeze_from_step=1)
    (process,) = trainers.start(config, python=python38("torch, numpy"))
    ended = Ended(process)
    assert ended.code == 0 and "Compiling the blocks" in ended.out, ended.err

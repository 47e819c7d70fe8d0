"""The layers of docs/architecture.md: imports point downward, heavy libraries are imported where they are used."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import REPOSITORY
from tools import layers

LAYERS = {
    "oelm_jobs": [
        ["cli"],
        ["submit"],
        ["checks"],
        ["runs", "scripts"],
        ["transfer", "analysis", "schedulers"],
        ["connections", "study", "targets"],
        ["data", "code", "store", "names"],
        ["project", "spec", "table", "tomlfile", "folders"],
        ["agent", "train", "templates", "text", "errors", "encodings", "language", "visible"],
    ],
    "oelm_jobs.agent": [
        ["checks"],
        ["__main__", "transfer"],
        ["supervise", "probe"],
        ["slurm"],
        ["host"],
        ["run"],
        ["records"],
        ["verbs", "inside", "snapshots"],
        ["rundir", "bootstrap"],
        ["schema", "processes", "privacy", "trees", "start", "rules"],
        ["registry"],
        ["messages"],
        ["states", "record_types", "run_record"],
    ],
    "oelm_jobs.analysis": [
        ["output"],
        ["figures", "power"],
        ["wording"],
        ["report"],
        ["summaries"],
        ["audit", "judging"],
        ["reading"],
        ["findings", "tables"],
        ["statistics", "words", "words_en", "words_zh"],
    ],
}
"""For each package its parts, from the top: one may import what lies in a lower row, and itself."""
SIDEWAYS = {
    ("oelm_jobs.folders", "oelm_jobs.errors"),
}


def files() -> Iterator[tuple[str, bool, Path]]:
    """Yield each module's name once installed, whether it is a package, and its file."""
    for folder, name in (("oelm_jobs", "oelm_jobs"), ("train", "oelm_jobs.train"), ("analysis", "oelm_jobs.analysis")):
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            parts = [name, *path.relative_to(REPOSITORY / folder).with_suffix("").parts]
            is_package = parts[-1] == "__init__"
            yield ".".join(parts[:-1] if is_package else parts), is_package, path


MODULES = {name: (is_package, path) for name, is_package, path in files()}


def imported(name: str, *, for_types: bool = True) -> set[str]:
    """Return the modules of the toolkit that one imports, at its top or anywhere in it.

    Args:
        for_types: Also what is imported for type checkers alone.
    """
    is_package, path = MODULES[name]
    package = name.split(".") if is_package else name.split(".")[:-1]
    found = set()
    tree = ast.parse(path.read_text())
    if not for_types:
        tree.body = [
            node for node in tree.body if not isinstance(node, ast.If) or "TYPE_CHECKING" not in ast.dump(node)
        ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1] if node.level else [])
            module = ".".join(part for part in (base, node.module or "") if part)
            several = {f"{module}.{alias.name}" for alias in node.names}
            found |= {each if each in MODULES else module for each in several}
    return {each for each in found if each in MODULES and each != name}


def part_of(name: str, package: str) -> str:
    """Return which part of a package a module belongs to; empty for the package itself and for what lies outside."""
    return name[len(package) + 1 :].split(".")[0] if name.startswith(package + ".") else ""


@pytest.mark.parametrize("package", LAYERS)
def test_every_part_of_a_package_has_its_layer(package: str) -> None:
    rows = LAYERS[package]
    listed = [part for row in rows for part in row]
    parts = {part_of(name, package) for name in MODULES} - {""}
    if package == "oelm_jobs":
        parts |= {"templates"}
    assert sorted(listed) == sorted(parts), "give it a layer in docs/architecture.md and here"


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_downward(name: str) -> None:
    for package, rows in LAYERS.items():
        layer = {part: number for number, row in enumerate(rows) for part in row}
        own = part_of(name, package)
        for each in imported(name):
            other = part_of(each, package)
            if own and other and own != other and (f"{package}.{own}", f"{package}.{other}") not in SIDEWAYS:
                assert layer[other] > layer[own], f"{name} imports {each}"


def test_no_modules_import_each_other() -> None:
    graph = {
        name: {each for each in imported(name, for_types=False) if not each.startswith(name + ".")}
        for name in MODULES  # a package names what is in it
    }
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " imports ".join([*above[above.index(name) :], name])
        if name not in done:
            for each in graph[name]:
                visit(each, (*above, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("package", ["oelm_jobs.train", "oelm_jobs.agent"])
def test_what_runs_on_the_server_imports_nothing_of_the_toolkit(package: str) -> None:
    for name in MODULES:
        if name.startswith(package):
            assert all(each.startswith(package) for each in imported(name)), name


def test_the_agent_uses_the_standard_library_only() -> None:
    for name, (_, path) in MODULES.items():
        if name.startswith("oelm_jobs.agent"):
            for node in ast.walk(ast.parse(path.read_text())):
                several = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                several += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
                for each in several:  # where it lies on a server it is a package of its own
                    assert each.split(".")[0] in (*sys.stdlib_module_names, "agent"), f"{path} imports {each}"


def test_the_picture_of_the_layers_is_that_of_the_code() -> None:
    assert layers.PICTURE.read_text(encoding="utf-8") == layers.picture(), "draw it anew: python tools/layers.py"


def test_all_of_the_agent_travels() -> None:
    from oelm_jobs.code import snapshot

    top = REPOSITORY / "oelm_jobs" / "agent"
    sent = {name for name, _ in snapshot.agent().files}
    assert sent == {f"agent/{path.relative_to(top).as_posix()}" for path in top.rglob("*.py")} | {"__main__.py"}


@pytest.mark.parametrize("arguments", [["status", "--help"], ["status"], ["submit", "--help"], ["report", "--help"]])
def test_heavy_libraries_are_not_imported_at_start(arguments: list[str], project: Path) -> None:
    program = (
        f"import sys; sys.argv = ['oelm-{arguments[0]}', *{arguments[1:]!r}]\n"
        f"from oelm_jobs.cli.{arguments[0]} import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'matplotlib', 'scipy', 'fabric', 'submitit', 'numpy', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=project, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr

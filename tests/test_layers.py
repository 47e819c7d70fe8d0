"""The layers of docs/architecture.md: imports point downward, heavy libraries are imported where they are used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import REPOSITORY

ROWS = [
    ["cli"],
    ["workflow"],
    ["send", "clean", "rebuild"],
    ["moving"],
    ["fetch", "terminal", "places"],
    ["observe", "preflight", "doctor"],
    ["plan", "sent"],
    ["analysis"],
    ["schedulers"],
    ["connections"],
    [
        "study",
        "runs",
        "targets",
        "fairness",
        "render",
        "store",
        "snapshot",
        "checkout",
        "contents",
        "sync",
        "table",
        "project",
        "data",
        "data_check",
        "data_maker",
        "corpus",
        "tokenizer",
        "site",
        "needs",
    ],
    ["sbatch", "rsync", "names"],
    ["spec", "tomlfile", "language", "train", "text"],
    ["credentials", "errors", "agent", "atomic", "encodings", "folders", "finding", "visible"],
]
"""From the top; a module may import what lies below it, and its own package."""
SIDEWAYS = {
    ("study", "project"),
    ("runs", "study"),
    ("data_maker", "data"),
    ("data_maker", "corpus"),
    ("data_maker", "tokenizer"),
    ("corpus", "data"),
    ("tokenizer", "data"),
    ("needs", "data"),
    ("needs", "data_check"),
    ("data_check", "data"),
    ("snapshot", "checkout"),
    ("snapshot", "contents"),
    ("folders", "errors"),
}
"""Within a row: making token folders builds on reading them, and an unknown home folder is an error."""


def layer(name: str) -> int:
    for number, row in enumerate(ROWS):
        if name in row:
            return number
    raise AssertionError(f"{name} has no layer: give it one in docs/architecture.md and here")


def imported(path: Path, package: list[str]) -> set[str]:
    """Return the absolute dotted names that a module imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1] if node.level else [])
            module = ".".join(part for part in (base, node.module or "") if part)
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return names


def modules() -> list[tuple[str, Path, list[str]]]:
    found = []
    for folder, name in (("oelm_jobs", "oelm_jobs"), ("train", "oelm_jobs.train"), ("analysis", "oelm_jobs.analysis")):
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            package = [*name.split("."), *path.relative_to(REPOSITORY / folder).parent.parts]
            unit = package[1] if len(package) > 1 else path.stem
            found.append((unit, path, package))
    return [entry for entry in found if entry[0] not in ("__init__", "templates")]


@pytest.mark.parametrize(
    ("unit", "path", "package"), modules(), ids=lambda value: value.name if isinstance(value, Path) else ""
)
def test_imports_point_downward(unit: str, path: Path, package: list[str]) -> None:
    for name in imported(path, package):
        parts = name.split(".")
        if parts[0] != "oelm_jobs" or len(parts) < 2 or parts[1] in ("__version__", unit, "templates"):
            continue
        if not ((REPOSITORY / "oelm_jobs" / parts[1]).exists() or (REPOSITORY / "oelm_jobs" / f"{parts[1]}.py").exists()
                or parts[1] in ("train", "analysis")):  # fmt: skip
            continue
        assert layer(parts[1]) > layer(unit) or (unit, parts[1]) in SIDEWAYS, f"{path}: {unit} imports {name}"


@pytest.mark.parametrize("folder", ["train", "oelm_jobs/agent"])
def test_what_runs_on_the_server_imports_nothing_of_the_toolkit(folder: str) -> None:
    for path in (REPOSITORY / folder).rglob("*.py"):
        package = ["x"] + (["agent"] if "agent" in folder else [])
        for name in imported(path, package):
            assert not name.startswith("oelm_jobs"), f"{path} imports {name}"


def test_the_agent_uses_the_standard_library_only() -> None:
    for path in (REPOSITORY / "oelm_jobs" / "agent").glob("*.py"):
        for name in imported(path, ["agent"]):
            top = name.split(".")[0]
            assert top in sys.stdlib_module_names or top in ("agent", "__future__"), f"{path} imports {name}"


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

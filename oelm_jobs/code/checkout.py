"""List the files of a project that are its code: what git tracks, with submodules; without git, all but plain data."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..agent import rundir

OUTPUTS = ("data", "experiments", "models")
"""Folders at the top of a project that hold what runs read and write. Code in them comes along, by its ending."""
CHECKPOINTS = "models/checkpoints/"
"""Where nothing is code."""
CODE_SUFFIXES = (
    ".c", ".cc", ".cfg", ".cpp", ".cu", ".cuh", ".h", ".hpp", ".ini", ".j2", ".py", ".pyi", ".pyx", ".sh", ".toml",
    ".yaml", ".yml",
)  # fmt: skip
NOT_CODE = frozenset(
    {".hg", ".svn", ".venv", "venv", "node_modules", "wandb", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
)
"""Folders that are left out where no git says what belongs to the project."""
ENVIRONMENT_MARKS = ("pyvenv.cfg", "conda-meta")
"""One of these is in every environment of Python's, whatever its name: left out where no git says."""
BUILT = ("build", "dist")
"""Folders of which only code comes along, by its ending, where no git says."""
NEVER = frozenset({".git", ".oelm", "__pycache__"})
"""Folders that are left out always."""
RUN_MARKS = (rundir.RUN, rundir.CLAIM, rundir.SCRIPT, rundir.ORIGIN)
"""One of these is among the control files of every run directory."""
GIT_TIMEOUT_S = 60.0
OF_HOOKS = ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE")
"""Variables that are about another checkout where a hook of git has started this process."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The files of a project."""

    names: tuple[str, ...]
    """Paths within the project."""
    tracked: frozenset[str]
    """Those that git keeps; empty without git."""
    empty_modules: tuple[str, ...] = ()
    """Submodules that are not checked out here."""
    outputs: frozenset[str] = frozenset()
    """Those that runs read or write."""


def git(project: Path, *arguments: str) -> bytes | None:
    """Return a git command's output; None where it fails, or there is no git or no checkout."""
    environment = {name: value for name, value in os.environ.items() if name not in OF_HOOKS}
    argv = ["git", "-C", str(project), *arguments]
    try:
        done = subprocess.run(argv, capture_output=True, timeout=GIT_TIMEOUT_S, env=environment)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def list_files(project: Path) -> Listing:
    """Return a project's code files: tracked, changed and untracked-unignored ones of a git checkout and of checkouts
    inside it; without git, everything that is not obviously something else.
    """
    found, tracked, empty = dict[str, None](), set[str](), list[str]()
    if not _add_checkout(project, "", found, tracked, empty):
        found = dict.fromkeys(name for name, _ in plain_files(project))
    names = tuple(name for name in found if not NEVER.intersection(name.split("/")))
    return Listing(names=names, tracked=frozenset(tracked), empty_modules=tuple(empty),
                   outputs=frozenset(_outputs(project, names)))  # fmt: skip


def _add_checkout(project: Path, below: str, found: dict[str, None], tracked: set[str], empty: list[str]) -> bool:
    """Add the files of the checkout in the folder ``below``, and of those in it; False where there is none."""
    folder = project / below
    kept = git(folder, "ls-files", "-z", "--stage")
    if kept is None:
        return False
    others = git(folder, "ls-files", "-z", "--others", "--exclude-standard")
    if others is None or not (kept or others):
        return False
    inner = []
    for row in kept.split(b"\0"):
        mode, _, name = row.partition(b"\t")
        if not name:
            continue
        path = below + os.fsdecode(name)
        if mode.startswith(b"160000"):
            inner.append(path + "/")
        else:
            found[path] = None
            tracked.add(path)
    for name in others.split(b"\0"):
        path = below + os.fsdecode(name)
        if name.endswith(b"/"):  # a repository that is no submodule
            inner.append(path)
        elif name:
            found[path] = None
    for path in inner:
        is_there = (project / path / ".git").exists() and not NEVER.intersection(path.split("/"))
        if not (is_there and _add_checkout(project, path, found, tracked, empty)):
            empty.append(path.rstrip("/"))
    return True


def is_output(name: str) -> bool:
    """Tell whether a file (path within the project) is input or output of runs, not code."""
    top = name.partition("/")[0]
    if name.startswith(CHECKPOINTS):
        return True
    return top in OUTPUTS and top != name and not name.lower().endswith(CODE_SUFFIXES)


def _outputs(project: Path, names: Iterable[str]) -> Iterable[str]:
    """Yield folders of runs' input and output, including roots and run directories of targets inside the project."""
    kinds: dict[str, str] = {"": ""}

    def kind(folder: str) -> str:
        if folder not in kinds:
            control = f"{project}/{folder}/{rundir.CONTROL}"
            found = "root" if os.path.isdir(control) else ""
            kinds[folder] = "run" if found and any(os.path.exists(f"{control}/{mark}") for mark in RUN_MARKS) else found
        return kinds[folder]

    for name in names:
        folder, is_code = name.rpartition("/")[0], not is_output(name)
        while folder and is_code:
            is_code = kind(folder) != "run" and not (kind(folder) == "root" and is_output(name[len(folder) + 1 :]))
            folder = folder.rpartition("/")[0]
        if not is_code:
            yield name


def plain_files(folder: Path) -> Iterable[tuple[str, Path]]:
    """Yield (path within the folder, file) of all files that are not obviously something else than code."""
    out = NOT_CODE | NEVER
    for place, folders, names in os.walk(folder):
        if Path(place) != folder and any(mark in names or mark in folders for mark in ENVIRONMENT_MARKS):
            folders.clear()
            continue
        folders[:] = [name for name in folders if name not in out and not name.endswith(".egg-info")]
        if Path(place) == folder / "models":
            folders[:] = [name for name in folders if name != "checkpoints"]
        for name in names:
            path = Path(place) / name
            inner = path.relative_to(folder).as_posix()
            if name.lower().endswith(CODE_SUFFIXES) or not set(BUILT).intersection(inner.split("/")[:-1]):
                yield inner, path

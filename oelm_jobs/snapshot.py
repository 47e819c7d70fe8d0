"""Owns the code as it was at submit time: which files belong to it, what it is called, where it is kept; leaves
sending it to connections.

A snapshot holds the tracked, changed and untracked-unignored files of a git checkout, or without git everything but
what is plainly not code. Its name is a hash of its content, so equal code is kept once, and it is never changed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .errors import ConfigurationError

NOT_CODE = frozenset(
    {".git", ".hg", ".svn", ".oelm", ".venv", "venv", "env", "node_modules", "__pycache__", "models", "experiments",
     "data", "wandb", ".mypy_cache", ".ruff_cache", ".pytest_cache", "build", "dist"}
)  # fmt: skip
"""Folders that are left out where no git says what belongs to the project."""
NEVER = frozenset({".git", ".oelm", "__pycache__"})
"""Folders that are left out always."""
TRAINER_MARKS = (b"outcome.json", b"oelm_jobs")
"""One of them stands in every trainer's code: docs/run-directory.md asks for the file."""
DATA_SUFFIXES = (".bin", ".npy", ".npz", ".parquet", ".pt", ".pyc", ".safetensors")
"""Files that are left out always: data and weights, whether or not git was told to ignore them."""
MAX_DIFF_CHARS = 16_000
"""A record is repeated for each run; a longer diff is cut."""
MAX_FILE_BYTES = 50 << 20
"""A larger file is data, not code."""


@dataclass(frozen=True, kw_only=True)
class Tree:
    """Files that are kept together under the hash of their content."""

    files: tuple[tuple[str, Path], ...]
    """(Path within the tree, file), sorted."""
    hash: str
    """Hash over paths, modes and contents, hexadecimal."""


@dataclass(frozen=True, kw_only=True)
class Snapshot(Tree):
    """The project's code as it is."""

    train_code: str
    """Hash over ``train/`` alone: the code that counts for a comparison."""
    passed_over: str = ""
    """Why a folder ``train/`` of the project is not in it; empty where it is, or there is none."""
    revision: str = ""
    """git's commit, with ``-dirty`` where files differ from it; empty without git."""
    diff: str = ""
    """How tracked files differ from that commit, cut where it is long: the snapshot itself holds them whole."""


def take(project: Path) -> Snapshot:
    """Look at the project's code as it is now.

    A project without a trainer in ``train/`` gets the installed one, in the place of what else it calls so. Links to
    files are followed, links to folders are not, except for a ``train`` that lies elsewhere.

    Raises:
        ConfigurationError: A file can't be read.
    """
    names = _git_files(project)
    paths = [(name, project / name) for name in names] if names is not None else list(_plain_files(project))
    if (project / "train" / "__main__.py").is_file() and (project / "train").is_symlink():
        paths += [(f"train/{name}", path) for name, path in _plain_files(project / "train")]
    passed_over = ""
    if not _has_trainer(paths):
        if any(name.startswith("train/") for name, _ in paths):
            passed_over = f"{project / 'train'} is not the trainer: runs use the installed one"
        paths = [(name, path) for name, path in paths if not name.startswith("train/")] + _installed_trainer()
    kept, entries = [], []
    for name, path in sorted(paths):
        try:
            if path.suffix in DATA_SUFFIXES or not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
                continue
            entries.append((name, _entry(name, path)))
        except FileNotFoundError:  # an editor's temporary file, gone since
            continue
        except OSError as error:
            raise ConfigurationError(f"{path}: can't be read for the snapshot: {error}") from error
        kept.append((name, path))
    return Snapshot(
        files=tuple(kept),
        hash=_hash(entry for _, entry in entries),
        passed_over=passed_over,
        train_code=_hash(entry for name, entry in entries if name.startswith("train/") and name.endswith(".py")),
        **(_version(project) if names is not None else {}),
    )


def agent() -> Tree:
    """Return the agent as a folder that ``python FOLDER VERB`` runs."""
    package = Path(__file__).parent / "agent"
    files = [(f"agent/{path.name}", path) for path in package.glob("*.py")] + [("__main__.py", package / "start.py")]
    return Tree(files=tuple(sorted(files)), hash=_hash(_entry(name, path) for name, path in sorted(files)))


def _entry(name: str, path: Path) -> bytes:
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{name}\0{os.access(path, os.X_OK):d}\0{content}\n".encode("utf-8", "surrogateescape")


def _hash(entries: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for entry in entries:
        digest.update(entry)
    return digest.hexdigest()[:16]


def keep(tree: Tree, folder: Path) -> Path:
    """Copy the tree to ``folder/<hash>`` unless it is there; return that path. Readers never see half of it."""
    place = folder / tree.hash
    if place.is_dir():
        return place
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{tree.hash}.", dir=folder))
    for name, path in tree.files:
        copy = temporary / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        copy.chmod(0o555 if os.access(path, os.X_OK) else 0o444)
    temporary.chmod(0o755)
    try:
        temporary.rename(place)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)  # another submission was faster with the same content
        if not place.is_dir():
            raise
    return place


def _git(project: Path, *arguments: str) -> bytes | None:
    try:
        done = subprocess.run(["git", "-C", str(project), *arguments], capture_output=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _git_files(project: Path) -> list[str] | None:
    listing = _git(project, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    if not listing:
        return None
    names = [os.fsdecode(name) for name in listing.split(b"\0") if name]
    return [name for name in dict.fromkeys(names) if not NEVER & set(Path(name).parts)]


def _plain_files(project: Path) -> Iterable[tuple[str, Path]]:
    for folder, folders, names in os.walk(project):
        folders[:] = [name for name in folders if name not in NOT_CODE and not name.endswith(".egg-info")]
        for name in names:
            path = Path(folder) / name
            yield path.relative_to(project).as_posix(), path


def _has_trainer(paths: Iterable[tuple[str, Path]]) -> bool:
    """Tell whether ``train/`` holds a trainer: it can be run, and knows of the file that says how a run ended, or of
    the toolkit. Others call their own packages and their data so, too.
    """
    code = {name: path for name, path in paths if name.startswith("train/") and name.endswith(".py")}
    return "train/__main__.py" in code and any(_mentions(path, TRAINER_MARKS) for path in code.values())


def _mentions(path: Path, words: Iterable[bytes]) -> bool:
    try:
        content = path.read_bytes()
    except OSError:
        return False
    return any(word in content for word in words)


def _installed_trainer() -> list[tuple[str, Path]]:
    import oelm_jobs.train as train

    package = Path(str(train.__file__)).parent
    return [(f"train/{path.name}", path) for path in package.glob("*.py")]


def _version(project: Path) -> dict[str, str]:
    """Return what git says of the checkout: ``revision`` and ``diff``."""
    commit = _git(project, "rev-parse", "HEAD")
    if not commit:
        return {}
    changed = _git(project, "diff", "--no-color", "--no-ext-diff", "HEAD", "--", ".") or b""
    diff = changed.decode("utf-8", "replace")
    if len(diff) > MAX_DIFF_CHARS:
        diff = diff[:MAX_DIFF_CHARS] + "\n… cut here; the snapshot holds the files themselves\n"
    return {"revision": commit.decode().strip() + ("-dirty" if changed else ""), "diff": diff}

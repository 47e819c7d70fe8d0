"""Take a snapshot of the project's code as it is at submit time.

A snapshot holds the tracked, changed and untracked-unignored files of a git checkout and of its submodules, or without
git everything but what is plainly not code. Files that hold keys or passwords never come along. Its name is a hash of
its content, so equal code is kept once, and it is never changed.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..agent import trees
from ..agent.sentences import _
from ..errors import ConfigurationError
from . import checkout, credentials
from .contents import Contents

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
    """Files that are stored together under a hash of their content."""

    files: tuple[tuple[str, Path], ...]
    """(Path within the tree, file), sorted."""
    rows: tuple[trees.Row, ...]
    """What the files are, in the same order."""
    hash: str
    """Hash over paths, modes and contents, hexadecimal."""
    size: int
    """Bytes of all files together."""
    held: Mapping[str, bytes] = field(default_factory=dict)
    """Contents of files that may have changed since."""

    def read(self, number: int) -> bytes:
        """Return a file's content.

        Raises:
            ConfigurationError: It can't be read any more.
        """
        name, path = self.files[number]
        content = self.held.get(name)
        try:
            return path.read_bytes() if content is None else content
        except OSError as error:
            raise _unreadable(path, error) from error


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A file that was left out although it belongs to the project."""

    name: str
    """Path within the project."""
    reason: str
    """Why, as what comes behind its name."""
    is_secret: bool
    """Whether it was left out so that nobody else gets to see it."""
    is_tracked: bool
    """Whether git keeps it: who clones the project has it."""


@dataclass(frozen=True, kw_only=True)
class Snapshot(Tree):
    """The project's code as it is."""

    train_code: str
    """Hash over the code that counts for a comparison: ``train/`` alone, or all that a script may read."""
    counting: Mapping[str, str] = field(default_factory=dict)
    """That code: name to hash of each file."""
    passed_over: str = ""
    """Why a folder ``train/`` of the project is not in it; empty where it is, or there is none."""
    revision: str = ""
    """git's commit, with ``-dirty`` where files differ from it; empty without git."""
    diff: str = ""
    """How tracked files differ from that commit, cut where it is long: the snapshot itself holds them whole."""
    left: tuple[LeftOut, ...] = ()
    """What was left out and should be known: secrets, tracked files, submodules that aren't there."""
    largest: tuple[str, int] = ("", 0)
    """Name and bytes of its largest file."""
    own_alone: tuple[str, ...] = ()
    """Files that nobody but their owner may read here."""


NOT_READ = ("jobs", "templates", "tests", "docs")
"""Folders of a project whose files change no run of a script."""


def take(project: Path, *, is_script: bool = False) -> Snapshot:
    """Take a snapshot of the project's code as it is now.

    A project without a trainer in ``train/`` gets the installed one, in the place of what else it calls so. Links to
    files are followed, links to folders are not, except for a ``train`` that lies elsewhere.

    Args:
        is_script: It is for a program of the user's own: no trainer is put in, and what git tracks comes along from
            folders of input and output, too.

    Raises:
        ConfigurationError: A file can't be read.
    """
    listing = checkout.list_files(project)
    if is_script:
        small = {name for name in listing.tracked & listing.outputs if not name.startswith(checkout.CHECKPOINTS)}
        listing = replace(listing, outputs=listing.outputs - small)
    top = f"{project}/"
    paths = [(name, top + name) for name in listing.names if name not in listing.outputs]
    if (project / "train" / "__main__.py").is_file() and (project / "train").is_symlink():
        paths += [(f"train/{name}", str(path)) for name, path in checkout.plain_files(project / "train")]
    passed_over = ""
    if not is_script and not _has_trainer(paths):
        if any(name.startswith("train/") for name, _ in paths):
            passed_over = _("{path} is not the trainer: runs use the installed one", f"{top}train")
        paths = [(name, path) for name, path in paths if not name.startswith("train/")] + _installed_trainer()
    contents = Contents(project)
    left = [
        _left(name, _("is what runs read or write"), listing)
        for name in sorted(listing.tracked & listing.outputs)
        if not credentials.why_by_name(name)
    ]
    left += [_left(name, _("is a submodule that is not checked out here"), listing) for name in listing.empty_modules]
    files, rows, looks = [], [], dict[str, os.stat_result]()
    held: dict[str, bytes] = {}
    for name, path in sorted(dict(paths).items()):
        secret = credentials.why_by_name(name)
        try:
            found = os.lstat(path)
            is_link = stat.S_ISLNK(found.st_mode)
            if is_link:
                found = os.stat(path)
                secret = secret or credentials.why_by_name(os.path.realpath(path))
            reason = secret or _unfit(name, found)
            if not reason:
                content = contents.read(path, found)
                reason = secret = content.secret
        except FileNotFoundError:  # an editor's temporary file, gone since
            continue
        except OSError as error:
            raise _unreadable(path, error) from error
        if reason:
            if secret or name in listing.tracked:
                left.append(_left(name, reason, listing, is_secret=bool(secret)))
            continue
        files.append((name, Path(path)))
        rows.append((name, bool(found.st_mode & 0o111), content.sha256))
        if content.held is not None:
            held[name] = content.held
        looks[name] = found
    contents.save()
    counting = [row for row in rows if _counts(row[0], is_script=is_script)]
    return Snapshot(
        files=tuple(files),
        rows=tuple(rows),
        hash=trees.name_of(rows),
        size=sum(found.st_size for found in looks.values()),
        held=held,
        passed_over=passed_over,
        train_code=trees.name_of(counting),
        counting={name: sha256 for name, _executable, sha256 in counting},
        left=tuple(left),
        largest=max(
            ((name, found.st_size) for name, found in looks.items()), key=lambda each: each[1], default=("", 0)
        ),
        own_alone=tuple(name for name, found in looks.items() if not found.st_mode & 0o077),
        **_version(project, {each.name for each in left if each.is_secret}),
    )


def _counts(name: str, *, is_script: bool) -> bool:
    """Tell whether a file counts for a comparison."""
    if not is_script:
        return name.startswith("train/") and name.endswith(".py")
    return name.endswith((*checkout.CODE_SUFFIXES, ".json")) and name.partition("/")[0] not in NOT_READ


def _unreadable(path: Path | str, error: OSError) -> ConfigurationError:
    return ConfigurationError(_("{path}: can't be read for the snapshot: {why}", str(path), str(error)))


def _unfit(name: str, found: os.stat_result) -> str:
    """Return why a file can't be code; empty where it can."""
    if stat.S_ISDIR(found.st_mode):
        return _("is a link to a folder")
    if not stat.S_ISREG(found.st_mode):
        return _("is no plain file")
    if os.path.splitext(name)[1] in DATA_SUFFIXES:
        return _("is data by its ending")
    return _("is larger than {size} MB", MAX_FILE_BYTES >> 20) if found.st_size > MAX_FILE_BYTES else ""


def _left(name: str, reason: str, listing: checkout.Listing, *, is_secret: bool = False) -> LeftOut:
    return LeftOut(name=name, reason=reason, is_secret=is_secret, is_tracked=name in listing.tracked)


@functools.cache
def agent() -> Tree:
    """Return the agent as a folder that ``python FOLDER VERB`` runs; read once, as this process's own code was."""
    from .. import agent as package

    top = Path(str(package.__file__)).parent
    files = [(f"agent/{path.relative_to(top).as_posix()}", path) for path in top.rglob("*.py")]
    return tree([*files, ("__main__.py", top / "start.py")])


def tree(files: Iterable[tuple[str, Path]]) -> Tree:
    """Return files as a tree that holds their contents.

    Raises:
        OSError: One can't be read.
    """
    found = sorted(files)
    contents = [path.read_bytes() for _, path in found]
    rows = [
        (name, os.access(path, os.X_OK), hashlib.sha256(content).hexdigest())
        for (name, path), content in zip(found, contents, strict=True)
    ]
    held = {name: content for (name, _), content in zip(found, contents, strict=True)}
    return Tree(files=tuple(found), rows=tuple(rows), hash=trees.name_of(rows), size=sum(map(len, contents)), held=held)


def keep(tree: Tree, folder: Path) -> Path:
    """Copy the tree to ``folder/<hash>`` unless it is there, atomically; return that path."""
    trees.keep(str(folder), tree.hash, tree.rows, lambda lacking: tree.read)
    return folder / tree.hash


def _has_trainer(paths: Iterable[tuple[str, str]]) -> bool:
    """Tell whether ``train/`` holds a trainer: it can be run, and knows of the file that says how a run ended, or of
    the toolkit. Others call their own packages and their data so, too.
    """
    code = {name: Path(path) for name, path in paths if name.startswith("train/") and name.endswith(".py")}
    for path in code.values() if "train/__main__.py" in code else ():
        with contextlib.suppress(OSError):
            content = path.read_bytes()
            if any(mark in content for mark in TRAINER_MARKS):
                return True
    return False


def _installed_trainer() -> list[tuple[str, str]]:
    import oelm_jobs.train as train

    package = Path(str(train.__file__)).parent
    return [(f"train/{path.relative_to(package).as_posix()}", str(path)) for path in package.rglob("*.py")]


def _version(project: Path, secret: set[str]) -> dict[str, str]:
    """Return what git says of the checkout: ``revision`` and ``diff``, in which no secret is shown."""
    commit = checkout.git(project, "rev-parse", "HEAD")
    if not commit:
        return {}
    listed = checkout.git(project, "diff", "--name-only", "--relative", "-z", "HEAD", "--", ".") or b""
    changed = [os.fsdecode(name) for name in listed.split(b"\0") if name]
    shown = [name for name in changed if name not in secret and not credentials.why_by_name(name)]
    diff = ""
    if shown:
        paths = [".", *(f":(exclude,literal){name}" for name in changed if name not in shown)]
        arguments = ("diff", "--no-color", "--no-ext-diff", "--relative", "HEAD", "--", *paths)
        content = checkout.git(project, *arguments) or b""
        if credentials.why_by_content(b"\n".join(line[1:] for line in content.splitlines())):
            content = b"not kept: there is a private key in it\n"
        diff = content.decode("utf-8", "replace")
    if len(diff) > MAX_DIFF_CHARS:
        diff = diff[:MAX_DIFF_CHARS] + "\n… cut here; the snapshot holds the files themselves\n"
    return {"revision": commit.decode().strip() + ("-dirty" if changed else ""), "diff": diff}

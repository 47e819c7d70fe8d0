"""Which of a run's files are checkpoints, which of them is the newest whole one, and which the best.

The built-in trainer's have names of their own; a program of the user's own says what its are called (``checkpoint``,
``best``: patterns for files or folders, looked for in the run directory and then in the working folder).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import re
import shutil
import stat
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Pattern, Set, Tuple, Union

from .. import rundir
from ..states import Checkpoints
from . import remarks, result, work

if TYPE_CHECKING:
    from ..run_record import RunRecord

LAST = {"training_args.bin": "trainer_state.json", ".distcp": ".metadata"}
"""How a file's name ends that transformers or torch.distributed.checkpoint write into a folder before another file."""
KEPT = "kept"
"""Control folder of the copy of a checkpoint from which the run last went on."""
LARGEST_JSON = 8 << 20
"""A larger file is not read to see whether it is whole."""


class Saved(NamedTuple):
    """How a run's checkpoints are called."""

    checkpoint: str = "checkpoint_*.pt"
    best: str = "best_model.pt"
    is_script: bool = False

    @classmethod
    def of(cls, record: Optional[RunRecord]) -> "Saved":
        """Return how those of a recorded run are called."""
        program = record.program if record else None
        return cls(program.get("checkpoint") or "", program.get("best") or "", True) if program else cls()

    def checkpoint_of(self, name: str) -> str:
        """Return the name of the checkpoint that a file is, or is a part of; empty where it is no checkpoint's."""
        if not self.is_script:
            return name if name.endswith(".pt") else ""
        return matching(self.checkpoint, name) or matching(self.best, name)

    def is_best(self, name: str) -> bool:
        """Tell whether a file is the best checkpoint, or a part of it."""
        return bool(matching(self.best, name)) if self.is_script else name == self.best

    def is_resumed(self, name: str) -> bool:
        """Tell whether a file is a checkpoint from which a run goes on, or a part of one."""
        return bool(matching(self.checkpoint, name)) if self.is_script else name.startswith("checkpoint_")

    def latest(self, names: Iterable[str]) -> List[str]:
        """Return the files of the newest checkpoint as far as names tell: all whose names hold no number to go by."""
        resumed = [name for name in names if self.is_resumed(name)]
        if not self.is_script:
            resumed = [name for name in resumed if re.fullmatch(r"checkpoint_\d+\.pt", name)]
        of = {name: matching(self.checkpoint, name) if self.is_script else name for name in resumed}
        order = {name: _numbers(name) for name in of.values()}
        if not all(order.values()) or len({len(numbers) for numbers in order.values()}) > 1:
            return resumed
        top = max(order, key=lambda name: order[name], default="")
        return [name for name in resumed if of[name] == top]

    def wanted(self, names: Iterable[str], which: Checkpoints) -> List[str]:
        """Return the files to fetch: all but checkpoints, and those of the checkpoints that are asked for."""
        names = list(names)
        checkpoints = [name for name in names if self.checkpoint_of(name)]
        left = set(checkpoints) if which is not Checkpoints.ALL else set()
        if which is Checkpoints.BEST:
            left = {name for name in left if not self.is_best(name)}
        elif which is Checkpoints.LATEST:
            left.difference_update(self.latest(checkpoints))
        return [name for name in names if name not in left]


def _numbers(name: str) -> Tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", name)))


def _any_of(signs: str) -> str:
    found = "[" + signs.replace("\\", "\\\\").replace("!", "^", signs[0] == "!") + "]"
    try:
        re.compile(found)
    except re.error:  # as [z-a]: a shell finds nothing by it
        return "(?!)"
    return found


@functools.lru_cache(maxsize=None)
def _compiled(pattern: str) -> Pattern[str]:
    """Compile a pattern as a shell has them (``*``, ``?``, ``[…]`` within a folder, ``**/`` for any folders)."""
    text, place = "", 0
    pattern = pattern.strip("/")
    while place < len(pattern):
        part = re.compile(r"\*\*/|\*+|\?|\[[^]/]+\]|.", re.DOTALL).match(pattern, place)
        assert part is not None
        word, place = part.group(), part.end()
        if word == "**/":
            text += "(?:[^/]+/)*"
        elif word[0] in "*?":
            text += "[^/]*" if word[0] == "*" else "[^/]"
        elif word[0] == "[" and len(word) > 1:
            text += _any_of(word[1:-1])
        else:
            text += re.escape(word)
    return re.compile("(?:%s/)?(%s)(?:/.*)?" % (work.FOLDER, text), re.DOTALL)


def matching(pattern: str, name: str) -> str:
    """Return the part of a file's name in the run directory that fits a pattern, which may be a folder above it, with
    the working folder in front where it lies there; empty where none does.
    """
    found = _compiled(pattern).fullmatch(name) if pattern else None
    return name[: found.end(1)] if found else ""


def files(run_dir: Path, pattern: str) -> Dict[str, List[Path]]:
    """Return by the name in the run directory the files and folders that fit a pattern, each with its files; those of
    the run directory itself, where there are any, else those of the working folder. Links count where nothing else
    fits, with the files that they lead to, if these are the run's own.
    """
    found: Dict[str, List[Path]] = {}
    there = dict(result.result_files(run_dir))
    for name, path in there.items():
        fitting = matching(pattern, name)
        if fitting:
            found.setdefault(fitting, []).append(path)
    found = found or _linked(run_dir, pattern, there)
    inner = {name: paths for name, paths in found.items() if not name.startswith(work.FOLDER + "/")}
    return inner or found


def _linked(run_dir: Path, pattern: str, there: Dict[str, Path]) -> Dict[str, List[Path]]:
    """Return by its name in the run directory each link that fits a pattern, with those of a run's files to which it
    leads.
    """
    top, found = os.path.realpath(str(run_dir)), {}
    for link in work.named(run_dir, pattern, Path.is_symlink):
        target = os.path.relpath(os.path.realpath(str(link)), top)
        paths = [path for name, path in there.items() if name == target or name.startswith(target + "/")]
        if paths:
            found[link.relative_to(run_dir).as_posix()] = paths
    return found


def times(run_dir: Path, pattern: str) -> Dict[str, int]:
    """Return when what fits a pattern was changed last, by its name in the run directory."""
    found = files(run_dir, pattern) if pattern else {}
    return {name: max(map(_changed, paths)) for name, paths in found.items()}


def newest(
    run_dir: Path,
    pattern: str,
    passed_over: Callable[[str], object] = lambda name: None,
    doubtful: Optional[Dict[str, int]] = None,
) -> str:
    """Return the name in the run directory of the newest whole checkpoint; empty where there is none.

    Args:
        passed_over: Called with the names of newer ones that are half written.
        doubtful: Those that count only where there is no other, by name, as ``times`` tells them.
    """
    otherwise = ""
    found = files(run_dir, pattern) if pattern else {}
    order = sorted(found, key=lambda name: (max(map(_changed, found[name])), _numbers(name)), reverse=True)
    for place, name in enumerate(order):
        within, before = (_kinds(found[other]) for other in (name, order[min(place + 1, len(order) - 1)]))
        is_half = before - within or (len(order) == 1 and any(map(_lacks_last, found[name])))
        if all(map(is_whole, found[name])) and not (is_half and (run_dir / name).is_dir()):
            if (doubtful or {}).get(name) != max(map(_changed, found[name])):
                return name
            otherwise = otherwise or name
        else:
            passed_over(name)
    return otherwise


def keep(run_dir: Path, pattern: str, name: str) -> None:
    """Keep a copy of a checkpoint that a run goes on from, in place of the one before, where it is the only one and a
    file: the program may write over it and be cut off.

    Raises:
        OSError: It can't be copied, or that would leave little room to the program.
    """
    folder, copy = rundir.control(run_dir, KEPT), rundir.control(run_dir, KEPT + ".new")
    if not stat.S_ISREG(os.lstat(str(run_dir / name)).st_mode) or len(files(run_dir, pattern)) > 1:
        return
    if rundir.disk_free(str(run_dir)) - os.path.getsize(str(run_dir / name)) < remarks.LITTLE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    try:
        shutil.copy2(str(run_dir / name), str(copy))
    except BaseException:
        with contextlib.suppress(OSError):
            copy.unlink()
        raise
    drop_kept(run_dir)
    (folder / name).parent.mkdir(parents=True)
    copy.rename(folder / name)


def kept(run_dir: Path, pattern: str) -> str:
    """Return the name of the checkpoint of which a copy is kept; empty where there is none."""
    folder = rundir.control(run_dir, KEPT)
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return next((name for name in names if matching(pattern, name) == name), "")


def drop_kept(run_dir: Path) -> None:
    """Remove the kept copy of a checkpoint, if there is one."""
    shutil.rmtree(str(rundir.control(run_dir, KEPT)), ignore_errors=True)


def put_back(run_dir: Path, pattern: str) -> str:
    """Have the kept copy of a checkpoint in its place where none is whole; return its name, empty where nothing was
    done.

    Raises:
        OSError: It can't be put there.
    """
    name = kept(run_dir, pattern) if pattern and not newest(run_dir, pattern) else ""
    if name:
        (run_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (rundir.control(run_dir, KEPT) / name).replace(run_dir / name)
    return name


def _kinds(paths: Iterable[Path]) -> Set[str]:
    """Return names without what tells processes or parts from each other (``rng_state_0.pth``)."""
    return {re.sub(r"[\d_-]", "", path.name) for path in paths}


def _lacks_last(path: Path) -> bool:
    """Tell whether what is written into a folder after one of its files isn't there. Where several folders lack it, the
    program is one that doesn't write it.
    """
    return any(path.name.endswith(end) and not (path.parent / last).exists() for end, last in LAST.items())


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def is_whole(path: Union[str, Path]) -> bool:
    """Tell whether a file is as its format says it must be at its end: PyTorch's (zip), safetensors, JSON; of others
    only that there is something in it.
    """
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            begin = file.read(8)
            if begin.startswith(b"PK\x03\x04"):
                return zipfile.is_zipfile(file)
            if str(path).endswith(".safetensors"):  # length of the header, the header, the tensors
                length = int.from_bytes(begin, "little")
                header: Dict[str, Any] = json.loads(file.read(length)) if length <= min(size, LARGEST_JSON) else {}
                ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
                return bool(size == 8 + length + max(ends, default=0))
            if str(path).endswith(".json") and size <= LARGEST_JSON:
                json.loads(begin + file.read())
        return size > 0
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return False

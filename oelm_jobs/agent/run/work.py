"""The working folder of a program of the user's own: the code, the data, and what the program makes there.

Its folders are real ones and the code in it is copied, so that what a program writes or rewrites there is the run's own
and no snapshot changes, wherever below it writes and whether or not it asks where its own file lies. Large files of the
code and the data are links. What was placed is on record with the look of it: all else is the program's.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Tuple, Union

from .. import inside, rundir, trees
from ..sentences import _

if TYPE_CHECKING:
    from ..run_record import RunRecord

FOLDER = "work"
"""The working folder's name in the run directory."""
PLACING = "placing"
"""Control file that becomes the next copy of a file of the code: what a kill leaves half copied is nobody's result."""
PLACED = "placed.json"
"""Control file that says what of the working folder is not the program's own."""
PLACED_BYTES = 1 << 30
"""It has a line's worth for each file of the code, of which there may be many."""
LARGE_BYTES = 1 << 20
"""A file of the code that is larger is linked instead of copied."""
MOST_ENTRIES = 1000
"""A folder of data with more entries than these is linked as a whole: what is written there meets."""
CACHE = "__pycache__"
"""Folders that are nobody's result."""

Look = Union[str, List[int]]
"""What was placed: where a link leads, or size and time of change of a copy."""


def prepare(record: RunRecord, code: str, say: Callable[[str], None]) -> str:
    """Have code and data in a run's working folder; what the program made or changed there stays. Return its path.

    Args:
        code: Folder of the code: a snapshot, or the project's own, whose entries are linked.

    Raises:
        OSError: It can't be written, the code is no longer what was sent, or has a file where data want a folder.
    """
    is_snapshot = os.path.basename(code) == record.snapshot
    names = trees.files_of(code) if is_snapshot else []
    if names is None:
        with contextlib.suppress(OSError):
            trees.condemn(code)
        raise OSError(_("its code in {folder} is no longer what was sent: submit again", code))
    top = os.path.realpath(os.path.join(record.run_dir, FOLDER))
    os.makedirs(top, exist_ok=True)
    wanted = dict(_code(code, names) if is_snapshot else _entries(code))
    assert record.program is not None
    for place, target in record.program.get("data") or ():
        if inside.is_plain(place):
            _add_data(wanted, place, target)
    folders = {os.path.dirname(name) for name in wanted}
    for name in list(folders):
        while name:
            name = os.path.dirname(name)
            folders.add(name)
    in_the_way = sorted(folders.intersection(wanted)) if is_snapshot else []
    if in_the_way:
        raise OSError(_("{file} is a file of the code, and its data want a folder there", in_the_way[0]))
    before = placed(record.run_dir)
    for name, look in before.items():
        if wanted.get(name, ("", None))[1] != look and is_as_placed(top, name, look):
            os.unlink(os.path.join(top, name))
    looks = {name: look for name, (_source, look) in wanted.items()}
    if looks != before:
        text = json.dumps({"version": 1, "files": looks}) + "\n"  # in one line, or that of much code were too large
        rundir.write_text(rundir.control(record.run_dir, PLACED), text)
    real: Dict[str, bool] = {"": True}
    for name, (source, look) in wanted.items():
        path = os.path.join(top, name)
        if not _is_real_folder(top, os.path.dirname(name), real):
            say("%s stays as the run made it" % os.path.dirname(name))
        elif not os.path.lexists(path):
            _place(source, path, look, str(rundir.control(record.run_dir, PLACING)))
        elif not is_as_placed(top, name, look):
            say("%s stays as the run made it" % name)
    return top


def placed(run_dir: Union[str, Path]) -> Dict[str, Look]:
    """Return what was placed in a run's working folder, by its name there; empty where there is none."""
    known: Any = (rundir.read_json(rundir.control(run_dir, PLACED), PLACED_BYTES) or {}).get("files")
    return known if isinstance(known, dict) else {}


def outside(record: RunRecord, code: str) -> Dict[str, Tuple[int, int]]:
    """Return size and time of change, by path, of what a run is not to write: the files of its snapshot, its data."""
    assert record.program is not None
    paths = [target for _place, target in record.program.get("data") or ()]
    links = [look for look in placed(record.run_dir).values() if isinstance(look, str)]
    paths += [look for look in links if not look.startswith(code + "/")]
    if os.path.basename(code) == record.snapshot:
        for folder, folders, names in os.walk(code):
            folders[:] = [name for name in folders if name != CACHE]
            paths += [os.path.join(folder, name) for name in names]
    found = {}
    for path in paths:
        with contextlib.suppress(OSError):
            look = os.stat(path)
            found[path] = look.st_size, look.st_mtime_ns
    return found


def named(run_dir: Path, pattern: str, is_one: Callable[[Path], bool] = Path.is_file) -> List[Path]:
    """Return the files, or what else is meant, that a pattern fits in a run directory, else in the working folder."""
    for folder in (run_dir, run_dir / FOLDER):
        try:
            found = [path for path in folder.glob(pattern) if is_one(path)]
        except (ValueError, NotImplementedError, OSError, re.error):  # an absolute pattern, or one that is none
            return []
        if found:
            return found
    return []


def is_as_placed(top: str, name: str, look: Look) -> bool:
    """Tell whether what was placed is there unchanged."""
    path = os.path.join(top, name)
    try:
        if isinstance(look, str):
            return os.readlink(path) == look
        found = os.lstat(path)
        return stat.S_ISREG(found.st_mode) and [found.st_size, found.st_mtime_ns] == look
    except OSError:
        return False


def _code(code: str, names: List[str]) -> Iterator[Tuple[str, Tuple[str, Look]]]:
    """Yield the files of a snapshot: name, and where it lies with the look that it will have."""
    for name in names:
        path = os.path.join(code, name)
        found = os.stat(path)
        is_large = found.st_size > LARGE_BYTES
        if CACHE not in name.split("/"):
            yield name, (path, path if is_large else [found.st_size, found.st_mtime_ns])


def _entries(code: str) -> Iterator[Tuple[str, Tuple[str, Look]]]:
    """Yield links to what is in a project's folder, as ``_code`` does: run by hand, the code is what it is there."""
    for name in sorted(os.listdir(code)):
        if name not in (rundir.CONTROL, ".git"):
            path = os.path.join(code, name)
            yield name, (path, path)


def _add_data(wanted: Dict[str, Tuple[str, Look]], place: str, target: str, is_top: bool = True) -> None:
    """Add links to data where the program looks for them: a real folder of links, where the code has that folder, too,
    or the program may write there.
    """
    above = place.split("/")[:-1]
    for parent in ("/".join(above[: count + 1]) for count in range(len(above) if is_top else 0)):
        if parent in wanted and os.path.isdir(wanted[parent][0]):  # a link of a project's own folder
            source, _look = wanted.pop(parent)
            for entry in os.listdir(source):
                path = os.path.join(source, entry)
                wanted["%s/%s" % (parent, entry)] = (path, path)
    has_code = any(name.startswith(place + "/") for name in wanted)
    entries: List[str] = []
    if has_code or is_top:
        with contextlib.suppress(OSError):  # a file, or nothing yet
            entries = sorted(os.listdir(target))
    if entries and (has_code or len(entries) <= MOST_ENTRIES):
        for entry in entries:
            _add_data(wanted, place + "/" + entry, target + "/" + entry, False)
    elif not has_code:
        wanted[place] = (target, target)


def _is_real_folder(top: str, name: str, known: Dict[str, bool]) -> bool:
    """Make a folder and those above it; return False where the program has put something else in the place of one."""
    if name not in known:
        path = os.path.join(top, name)
        known[name] = _is_real_folder(top, os.path.dirname(name), known)
        if known[name]:
            with contextlib.suppress(FileExistsError):  # perhaps no folder, which is looked at then
                os.mkdir(path)
            known[name] = stat.S_ISDIR(os.lstat(path).st_mode)
    return known[name]


def _place(source: str, path: str, look: Look, temporary: str) -> None:
    """Link or copy a file, the latter whole or not at all."""
    if isinstance(look, str):
        os.symlink(look, path)
        return
    shutil.copyfile(source, temporary)
    mode = os.stat(source).st_mode
    umask = os.umask(0o077)
    os.umask(umask)
    os.chmod(temporary, (0o777 if mode & 0o100 else 0o666) & ~umask)
    os.utime(temporary, ns=(look[1], look[1]))
    os.rename(temporary, path)

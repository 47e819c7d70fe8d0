"""Trees of files that are kept under the hash of their content (snapshots, agents); each file is stored once.

Stored files lie in ``files/`` beside the folder of trees, one store for each user (links to another's files are
refused where the kernel protects them), under the hash of their content. They are read-only. A run of root's could
write into one all the same: a stored file counts only while it has the time of change that it was stored with.

Sent down the channel before bootstrap, so it parses on Python 3.6 and imports nothing of the agent but sentences.
"""

import contextlib
import fcntl
import hashlib
import os
import stat
import time
from typing import Callable, Iterable, Iterator, List, Optional, Sequence, Tuple

if "_" not in globals():  # where it is sent, its text comes before this one's (connections/wire.py)
    from .sentences import _

Row = Tuple[str, bool, str]
"""A file: path within the tree, whether it is executable, SHA-256 of its content."""
Read = Callable[[int], bytes]
"""Returns the content of a file by its number in the list."""

STORE = "files"
LOCK = "files.lock"
STORED_NS = 946684800 * 10**9
"""Time of change of every stored file (the year 2000)."""
USED_S = 3600.0
"""How exact a tree's time of change tells when it was last asked for."""
LOCK_PATIENCE_S = 30.0


class Busy(Exception):
    """Somebody else is at work on the trees for too long: nothing was done."""

    is_refusal = True


class Damaged(Exception):
    """What arrived is not what was announced: nothing was kept."""

    is_refusal = True


def name_of(rows: Iterable[Row]) -> str:
    """Return the hash over a tree's files that is its name."""
    digest = hashlib.sha256()
    for name, executable, sha256 in rows:
        digest.update(("%s\0%d\0%s\n" % (name, executable, sha256)).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def is_kept(folder: str, name: str) -> bool:
    """Tell whether a tree is there, and mark it as in use."""
    place = os.path.join(folder, name)
    try:
        found = os.stat(place)
    except OSError:
        return False
    if os.path.exists(_mark(place)):
        return False
    if time.time() - found.st_mtime > USED_S:
        with contextlib.suppress(OSError), held(folder):
            os.utime(place)
    return os.path.isdir(place)


def files_of(place: str) -> Optional[List[str]]:
    """Return the names of a tree's files, whose content is read again; None where they are no longer what its name
    stands for. What something else has put there is passed over.

    On a disk that keeps no modes (WSL's of Windows, CIFS, FAT) nobody can tell what is executable, and of what is there
    only a single file can be judged.

    Raises:
        OSError: One can't be read.
    """
    paths = [os.path.join(folder, name) for folder, _, names in os.walk(place) for name in names]
    found = {}
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # a run's own, which it has just removed
            found[os.path.relpath(path, place)] = os.lstat(path)
    stored = sorted(name for name, look in found.items() if _is_stored(look))
    # CIFS shows what can only be read as executable, too, whatever it was made as.
    files = sorted(name for name, look in found.items() if stat.S_ISREG(look.st_mode) and not name.endswith(".pyc"))
    names = stored or files  # a disk may keep no times
    modes = {found[name].st_mode for name in names}
    are_alike = len(modes) == 1 and bool(max(modes) & stat.S_IWUSR)
    if stored and are_alike:
        return stored
    rows = []  # type: List[Row]
    for name in names:
        with open(os.path.join(place, name), "rb") as file:
            sha256 = hashlib.sha256(file.read()).hexdigest()
        rows.append((name, bool(found[name].st_mode & stat.S_IXUSR), sha256))
    are_executable = all(executable for _, executable, _ in rows)
    looks = [rows]
    if are_executable or not stored:
        looks += [[(name, guess, sha256) for name, _, sha256 in rows] for guess in (True, False)]
    if any(name_of(look) == os.path.basename(place) for look in looks):
        return names
    is_unknown = files == names and (are_executable or (are_alike and not stored))
    return names if is_unknown and len(names) > 1 else None


def _is_stored(found: os.stat_result) -> bool:
    """Tell by the look of a file in a tree whether it is one of the tree's, unchanged since."""
    return stat.S_ISREG(found.st_mode) and found.st_mtime_ns == STORED_NS


def condemn(place: str) -> None:
    """Have a damaged tree sent again when it is next asked for; until then it stays, since others may be at work in it.

    Raises:
        OSError: That can't be written.
    """
    with open(_mark(place), "w"):
        pass


def _mark(place: str) -> str:
    """Return the path of the file that says that a tree is damaged."""
    return "%s/.%s.damaged" % (os.path.dirname(place), os.path.basename(place))


@contextlib.contextmanager
def held(folder: str, *, alone: bool = False) -> Iterator[bool]:
    """Keep others from removing what is used (or, ``alone``, from using it) for a while; yield whether that is so: on
    a file system without locks it isn't, and the age of what is removed must do.

    Raises:
        Busy: Others take their time.
    """
    path = os.path.join(os.path.dirname(folder), LOCK)
    handle = None
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield handle is not None and _lock(handle, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
    finally:
        if handle is not None:
            os.close(handle)


def _lock(handle: int, kind: int) -> bool:
    """Take a lock; False where there are none."""
    deadline = time.monotonic() + LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise Busy(_("code is being sent or removed there by another command: try again")) from None
        except OSError:
            return False
        time.sleep(0.05)


def keep(folder: str, tree: str, rows: Sequence[Row], contents: Callable[[List[int]], Read]) -> None:
    """Have a tree in ``folder`` under its hash, whole or not at all; nobody ever sees half of it.

    Args:
        contents: Is told which rows are not stored here, and returns what reads them.

    Raises:
        Damaged: A content is not what its row says, or the rows are not what the tree's name says.
        OSError: It can't be written.
    """
    if is_kept(folder, tree):
        return
    for name, _executable, sha256 in rows:
        if name.startswith("/") or ".." in name.split("/") or len(sha256) != 64 or not sha256.isalnum():
            raise Damaged(_("{name!r} can't be part of a tree", name))
    if name_of(rows) != tree:
        raise Damaged(_("what arrived is not what was sent: a list of files that has another hash"))
    os.makedirs(folder, exist_ok=True)
    with held(folder):
        store = _Store(os.path.join(os.path.dirname(folder), STORE))
        sources = [store.find(executable, sha256) for _, executable, sha256 in rows]
        read = contents([number for number, source in enumerate(sources) if source is None])
        temporary = os.path.join(folder, ".%s.%s.%d.%.6f" % (tree, os.uname()[1], os.getpid(), time.time()))
        os.mkdir(temporary)
        try:
            made = {temporary}
            for number, ((name, executable, sha256), source) in enumerate(zip(rows, sources)):
                path = os.path.join(temporary, name)
                above = os.path.dirname(path)
                if above not in made:
                    os.makedirs(above, exist_ok=True)
                    made.add(above)
                # What was stored a moment ago may be gone: others may be at work where there are no locks.
                if source is None or not store.link(source, path, executable, sha256):
                    content = read(number)
                    if hashlib.sha256(content).hexdigest() != sha256:
                        raise Damaged(_("{name} changed while it was sent: submit again", name))
                    store.write(path, content, executable, sha256)
            place = os.path.join(folder, tree)
            if os.path.exists(_mark(place)):
                with contextlib.suppress(OSError):
                    os.rename(place, temporary + ".gone")
            os.rename(temporary, place)
            with contextlib.suppress(OSError):
                os.unlink(_mark(place))
        except BaseException:
            import shutil

            shutil.rmtree(temporary, ignore_errors=True)
            if not os.path.isdir(os.path.join(folder, tree)):  # else another client was faster with the same content
                raise


def remove(place: str) -> None:
    """Remove a tree; nobody sees half of it."""
    import shutil

    gone = os.path.join(os.path.dirname(place), ".%s.gone.%d" % (os.path.basename(place), os.getpid()))
    os.rename(place, gone)
    shutil.rmtree(gone, ignore_errors=True)


def sweep(folder: str, age_s: float) -> None:
    """Remove this user's stored files that no tree has any more, and what a command that was killed has left.

    Args:
        age_s: Only what has been so for so long: where there are no locks somebody may be at work.
    """
    import shutil

    now = time.time()
    store = os.path.join(os.path.dirname(folder), STORE, str(os.geteuid()))
    for place, _, names in os.walk(store):
        for name in names:
            path = os.path.join(place, name)
            with contextlib.suppress(OSError):
                found = os.lstat(path)
                if found.st_nlink == 1 and now - found.st_ctime >= age_s:
                    os.unlink(path)
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            found = os.lstat(path)
            if name.startswith(".") and found.st_uid == os.geteuid() and now - found.st_ctime >= age_s:
                shutil.rmtree(path, ignore_errors=True)


class _Store:
    """This user's stored files."""

    def __init__(self, place: str) -> None:
        self._folder = os.path.join(place, str(os.geteuid()))
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        with contextlib.suppress(OSError):
            os.makedirs(self._folder, exist_ok=True)

    def _path(self, executable: bool, sha256: str) -> str:
        return "%s/%s%s" % (self._folder, sha256, "x" if executable else "")

    def find(self, executable: bool, sha256: str) -> Optional[str]:
        """Return where a content is stored, unchanged since; None where it isn't."""
        path, mode = self._path(executable, sha256), (0o555 if executable else 0o444) & ~self._umask
        with contextlib.suppress(OSError):
            found = os.lstat(path)
            if _is_stored(found) and stat.S_IMODE(found.st_mode) == mode:
                return path
        return None

    def link(self, source: str, path: str, executable: bool, sha256: str) -> bool:
        """Make ``path`` of a stored file: a second name for it, or a copy; False where that can't be done now."""
        with contextlib.suppress(OSError):  # too many links, or a file system without them
            os.link(source, path)
            return True
        try:
            with open(source, "rb") as file:
                content = file.read()
        except OSError:
            return False
        if hashlib.sha256(content).hexdigest() != sha256:
            return False
        self.write(path, content, executable, sha256)
        return True

    def write(self, path: str, content: bytes, executable: bool, sha256: str) -> None:
        """Write a file that is never changed, and store it, in place of a damaged one; who may read it is the umask's
        to say.

        Raises:
            OSError: It can't be written. Where it can't be stored, that is done without.
        """
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o555 if executable else 0o444)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.utime(path, ns=(STORED_NS, STORED_NS))
        stored = self._path(executable, sha256)
        with contextlib.suppress(OSError):
            try:
                os.link(path, stored)
            except FileExistsError:
                if self.find(executable, sha256) is None:
                    os.unlink(stored)
                    os.link(path, stored)

"""The folder in which all users of a host keep lease locks and tickets: whether it can be trusted, and who holds a
lock.

Whatever lies there may be another user's, made to be in the way: nothing is followed, waited for or believed, and what
can't be used is named with its owner.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import time
from pathlib import Path
from typing import List, Optional, Union

from .. import rundir
from ..privacy import user_name
from ..sentences import _

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What a disk without room says: it may have some again."""
FRESH_S = 2.0
"""A folder that is younger may still be getting its mode from who made it."""
OPENING = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
"""How a file of the folder is opened: no link is followed, and a FIFO makes nobody wait."""


class Unusable(Exception):
    """A file of the folder can't be locked; the message says which one, and whose it is."""


def folder() -> Path:
    """Return (and make) the folder of locks and tickets that all users of this host share.

    ``OELM_LEASE_DIR`` names another one. There is no second choice by itself: locks hold because all look at the same.

    Raises:
        OSError: It can't be made or used; the message says whose it is.
    """
    path = Path(os.environ.get("OELM_LEASE_DIR") or "/tmp/oelm-leases")
    patience_ends = time.monotonic() + FRESH_S  # whose folder it is can make it look fresh for ever
    while True:
        try:
            path.mkdir(mode=0o1777)
            path.chmod(0o1777)  # mkdir's mode is cut by the umask; sticky, so that nobody removes another user's files
        except FileExistsError:
            pass
        except OSError as error:
            what = _("the lease folder can't be made: {why}", error.strerror)
            raise OSError(_("[Errno {number}] {what}: {path!r}", error.errno, what, str(path))) from error
        try:
            wrong = _wrong_with(path)
            is_fresh = 0 <= time.time() - os.lstat(str(path)).st_ctime < FRESH_S
        except FileNotFoundError:
            wrong, is_fresh = _("{path} is removed again and again", str(path)), True
        if not wrong:
            return path
        if not is_fresh or time.monotonic() >= patience_ends:
            raise OSError(_("{wrong}; have it removed, or let OELM_LEASE_DIR name another folder for all users", wrong))
        time.sleep(0.05)


def _wrong_with(path: Path) -> str:
    """Return why the folder can't be used; empty where it can."""
    found = os.lstat(str(path))
    whose = user_name(found.st_uid)
    if stat.S_ISLNK(found.st_mode):
        if found.st_uid not in (0, os.getuid()):
            return _("{path} is a link that {user} made", str(path), whose)
        try:
            found = os.stat(str(path))
        except OSError:
            return _("{path} is a link of {user} that leads nowhere", str(path), whose)
        whose = user_name(found.st_uid)
    if not stat.S_ISDIR(found.st_mode):
        kind = kind_of(found.st_mode)
        return _("{path} is {kind} of {user}, not a folder", str(path), kind, whose)
    if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
        if found.st_uid != os.getuid():
            return _("{path} of {user} is open to all and not sticky: locks could be taken away", str(path), whose)
        path.chmod(0o1777)
    if not os.access(str(path), os.R_OK | os.W_OK | os.X_OK):
        mode = format(stat.S_IMODE(found.st_mode), "o")
        return _("{path} belongs to {user} and is closed to you (mode {mode})", str(path), whose, mode)
    return ""


def kind_of(mode: int) -> str:
    """Return what kind a file is."""
    kinds = {
        stat.S_IFLNK: _("a link"), stat.S_IFDIR: _("a folder"), stat.S_IFIFO: _("a FIFO"), stat.S_IFREG: _("a file"),
    }  # fmt: skip
    return kinds.get(stat.S_IFMT(mode), _("a special file"))


def described(path: Union[str, Path]) -> str:
    """Return a file's description: name, kind, owner."""
    name = printable(os.path.basename(str(path)), 80)
    try:
        found = os.lstat(str(path))
    except OSError:
        return name
    kind, user = kind_of(found.st_mode), user_name(found.st_uid)
    if found.st_mode & stat.S_IROTH or stat.S_ISLNK(found.st_mode):
        return _("{name}, {kind} of {user}", name, kind, user)
    return _("{name}, {kind} of {user} that is closed to others", name, kind, user)


def printable(text: str, most: int) -> str:
    """Return foreign text as one short line without control characters."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= most else text[: most - 1] + "…"


# Locks ----------------------------------------------------------------------------------------------------------------


def lock(path: Path, kind: int = fcntl.LOCK_EX) -> int:
    """Lock a file of the folder, which may be another user's: flock(2) needs no right to write, and minds no kind of
    file. Return the descriptor.

    Args:
        kind: ``fcntl.LOCK_SH`` for a lock that others may have as well.

    Raises:
        rundir.Busy: Another process holds it.
        Unusable: It can't be opened or made.
    """
    while True:
        try:
            handle = os.open(str(path), OPENING)
        except FileNotFoundError:
            try:
                # Exclusively: in a sticky folder O_CREAT on another user's file is refused (protected_regular).
                handle = os.open(str(path), OPENING | os.O_CREAT | os.O_EXCL, 0o644)
            except FileExistsError:
                continue  # somebody was faster
            except OSError as error:
                raise Unusable(_("{path} can't be made: {why}", str(path), error.strerror)) from error
            os.fchmod(handle, 0o644)
        except OSError:
            raise _not_lockable(path) from None
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), os.lstat(str(path))):
                return handle
        except FileNotFoundError:
            pass
        except OSError:
            os.close(handle)
            raise rundir.Busy(str(path)) from None
        os.close(handle)  # it was removed meanwhile; a lock that nobody else can see keeps nobody away


def is_locked(path: Path) -> bool:
    """Tell whether a process holds a lock of a file of the folder; a shared one counts, since it keeps others away as
    well.

    Raises:
        Unusable: It can't be opened.
    """
    try:
        handle = os.open(str(path), OPENING)
    except FileNotFoundError:
        return False
    except OSError:
        raise _not_lockable(path) from None
    try:
        return _fails(handle, fcntl.LOCK_EX)
    finally:
        os.close(handle)


def _not_lockable(path: Path) -> Unusable:
    return Unusable(_("{folder} can't be locked: {file}", str(path.parent), described(path)))


def is_held(handle: int) -> bool:
    """Tell whether another open file holds the exclusive lock, as the file's maker does; shared locks don't count."""
    return _fails(handle, fcntl.LOCK_SH)


def _fails(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except OSError:
        return True
    fcntl.flock(handle, fcntl.LOCK_UN)
    return False


def wait_for_end(path: Path) -> None:
    """Sleep until the lock of a file is released."""
    try:
        handle = os.open(str(path), OPENING)
    except OSError:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
    finally:
        os.close(handle)


def holder_of(path: Path) -> str:
    """Return a description of who holds a lock, as far as that can be seen."""
    pids = holders_of(path)
    if pids is None:
        return _("somebody")
    return _process(pids[0]) if pids else _("somebody whose process can't be seen from here")


def holders_of(path: Path) -> Optional[List[int]]:
    """Return the processes that took a file's lock and have it, from proc(5)'s list of locks; those that can be seen
    from here, None where nobody lists them.
    """
    try:
        there = os.lstat(str(path))
        with open("/proc/locks", encoding="ascii", errors="replace") as file:
            # A keeper alone has thousands of locks: what is about other files is not looked at.
            lines = [line for line in file if ":%d " % there.st_ino in line]
        found = re.findall(r"^\d+: FLOCK +\S+ +\S+ +(-?\d+) +(\w+):(\w+):(\d+) ", "".join(lines), re.MULTILINE)
    except OSError:
        return None
    of_inode = [(pid, major, minor) for pid, major, minor, inode in found if int(inode) == there.st_ino]
    device = (os.major(there.st_dev), os.minor(there.st_dev))
    # Some file systems (overlayfs, btrfs) call their device otherwise here.
    exact = [entry for entry in of_inode if (int(entry[1], 16), int(entry[2], 16)) == device] or of_inode
    return [int(pid) for pid, _, _ in exact if int(pid) > 0]


def _process(pid: int) -> str:
    try:
        user = user_name(os.stat("/proc/%d" % pid).st_uid)
        with open("/proc/%d/cmdline" % pid, "rb") as file:
            command = file.read(4096).replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return _("process {pid}, which has ended and left the lock to another", pid)
    return _("process {pid} of {user} ({command})", pid, user, printable(command, 60))


# The disk, and who shares it ------------------------------------------------------------------------------------------


def privacy(path: Path, own_table: str = "/proc/self/mountinfo", first_table: str = "/proc/1/mountinfo") -> str:
    """Return why other users of this host don't see this user's folder of that name; empty where they seem to.
    pam_namespace(8) and systemd.exec(5) (PrivateTmp) give logins and services a /tmp of their own.

    Args:
        own_table: This process's mounts (proc(5)).
        first_table: Those of the host's first process, which root can read, and others seldom.
    """
    whole = os.path.realpath(str(path))
    own = mount_of(whole, own_table)
    if own is None or own.place == "/":
        return ""
    everybodys = mount_of(whole, first_table)
    if everybodys is not None:
        is_private = (everybodys.device, everybodys.root) != (own.device, own.root)
    else:
        root = mount_of("/", own_table)
        parts, me = own.root.split("/"), (str(os.getuid()), user_name(os.getuid()))
        is_private = (
            any(part.startswith("systemd-private-") or part in ("tmp-inst", "tmp.inst") for part in parts)
            or any(part in me for part in parts)
            # What a session mounts for itself gets no news from everybody's mounts, as its root does.
            or (root is not None and root.is_slave and not own.is_slave and not own.is_shared)
        )
    if not is_private:
        return ""
    source = own.root if own.root != "/" else own.kind
    return _("{folder} is mounted for you alone ({source})", own.place, source)


class Mount:
    """A line of mountinfo (proc(5))."""

    def __init__(self, line: str) -> None:
        # Blanks and the like stand there as octal numbers.
        before, after = (
            [re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field) for field in half.split(" ")]
            for half in line.split(" - ", 1)
        )
        self.device, self.root, self.place = before[2:5]
        self.is_shared = any(field.startswith("shared:") for field in before[6:])
        self.is_slave = any(field.startswith("master:") for field in before[6:])
        self.kind, self.source = after[:2]


def mount_of(path: str, table: str = "/proc/self/mountinfo") -> Optional[Mount]:
    """Return the mount of a path, which need not exist, by a process's mount table; None where that can't be read."""
    try:
        with open(table, encoding="utf-8", errors="surrogateescape") as file:
            mounts = [Mount(line) for line in file if " - " in line]
    except OSError:
        return None
    above = [m for m in mounts if path == m.place or path.startswith(m.place.rstrip("/") + "/")]
    # Of two at one place the later is seen.
    return max(reversed(above), key=lambda mount: len(mount.place), default=None)


def room(path: Path) -> "tuple[int, int]":
    """Return how many bytes and files this user can still make in the folder; -1 files where the file system does not
    count them.
    """
    there = os.statvfs(str(path))
    return there.f_bavail * there.f_frsize, there.f_favail if there.f_files else -1

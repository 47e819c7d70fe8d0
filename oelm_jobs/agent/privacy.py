"""Who may read what is written below a root: its owner, or its folder's group where the target has ``share = "group"``.

Sent down the channel before bootstrap, so it parses on Python 3.6 and imports nothing of the agent but sentences.
"""

import contextlib
import os
import stat
import threading
from typing import Any, Iterator, List, Sequence

if "_" not in globals():  # where it is sent, its text comes before this one's (connections/wire.py)
    from .sentences import _

CONTROL = ".oelm"
"""As in rundir, which isn't there yet."""
GROUP = "group"
"""What a target's ``share`` may say; else it is empty."""
GROUP_BITS = stat.S_ISGID | stat.S_IRWXG
"""Of a folder whose files belong to its group, whoever makes them."""
_LOCK = threading.RLock()


class NotOurs(Exception):
    """The root, or a run in it, is somebody else's: nothing was done."""

    is_refusal = True


def confine(share: str) -> int:
    """Let nobody but the owner (or the group) read what this process and its children write; return what was so
    before, as a umask.
    """
    return os.umask(0o007 if share == GROUP else 0o077)


@contextlib.contextmanager
def confined(share: str) -> Iterator[None]:
    """Do the same for a while; one thread at a time, since a process has one umask."""
    with _LOCK:
        before = confine(share)
        try:
            yield
        finally:
            os.umask(before)


def enter(root: str, share: str, also: Sequence[str] = (), *, make: bool = True) -> None:
    """Make the root's control folder, or see that it may be used, and give it and what lies there the right modes.

    Args:
        also: Folders of run directories that lie elsewhere.
        make: Make it where it isn't there.

    Raises:
        NotOurs: Somebody else's, and not shared with this user.
        OSError: It can't be made.
    """
    control = os.path.join(root, CONTROL)
    try:
        found = os.stat(control)
    except FileNotFoundError:
        if not make:
            return
        os.makedirs(root, exist_ok=True)
        if share:
            _share_folder(root, os.stat(root).st_gid)
        with contextlib.suppress(FileExistsError):
            os.mkdir(control)
        found = os.stat(control)
    except PermissionError:
        _refuse_stranger(root, share)
        raise NotOurs(_whose(root)) from None
    if not is_ours(found, control):
        if share != GROUP or found.st_mode & GROUP_BITS != GROUP_BITS:
            raise NotOurs(_whose(root))
        if not os.access(control, os.W_OK | os.X_OK):
            _refuse_stranger(control, share)
        for folder in also:
            _share_folder(folder, found.st_gid)
    elif share:
        _share(root, control, found, also)
    elif found.st_mode & 0o077:
        os.chmod(control, 0o700)
    ignore(control)


def _refuse_stranger(folder: str, share: str) -> None:
    """Say so where a folder is shared with a group that this user is not in.

    Raises:
        NotOurs: It is.
    """
    with contextlib.suppress(OSError):
        found = os.stat(folder)
        if share and found.st_mode & GROUP_BITS == GROUP_BITS and not os.access(folder, os.W_OK | os.X_OK):
            group = group_name(found.st_gid)
            raise NotOurs(_("{folder} is shared with group {group}, of which you are no member", folder, group))


def ignore(control: str) -> None:
    """Keep the control folder out of git, whatever the project's own .gitignore says."""
    with contextlib.suppress(OSError), open(os.path.join(control, ".gitignore"), "x", encoding="ascii") as file:
        file.write("*\n")


def _share(root: str, control: str, found: Any, also: Sequence[str]) -> None:
    """Open this user's root to its folder's group; done once, what lies there already included."""
    group = os.stat(root).st_gid
    for folder in also:
        _share_folder(folder, group)
    if stat.S_IMODE(found.st_mode) == stat.S_ISGID | 0o770 and found.st_gid == group:
        return
    _share_folder(root, group)
    # The control folder last: it tells that all is done.
    for top in [os.path.join(root, "data"), os.path.join(root, "models"), *also, control]:
        for folder, _folders, names in os.walk(top, topdown=False):
            for name in names:
                _give(os.path.join(folder, name), group)
            if folder != control:
                _give(folder, group)
    try:
        os.chown(control, -1, group)
    except PermissionError:
        name = group_name(group)
        raise NotOurs(_("{folder} belongs to group {group}, of which you are no member", root, name)) from None
    os.chmod(control, stat.S_ISGID | 0o770)


def _share_folder(folder: str, group: int) -> None:
    """Open a folder, made where there is none, to its group, and let what is made in it belong to that; another user's
    stays as it is.
    """
    os.makedirs(folder, exist_ok=True)
    found = os.stat(folder)
    if found.st_uid == os.geteuid() and (found.st_mode & GROUP_BITS != GROUP_BITS or found.st_gid != group):
        with contextlib.suppress(PermissionError):
            os.chown(folder, -1, group)
        os.chmod(folder, stat.S_IMODE(found.st_mode) | GROUP_BITS)


def _give(path: str, group: int) -> None:
    """Let the group do with a file or folder of this user's what the owner may."""
    with contextlib.suppress(OSError):
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode) or found.st_uid != os.geteuid():
            return
        os.chown(path, -1, group)
        mode = stat.S_IMODE(found.st_mode)
        os.chmod(path, mode | (mode & 0o700) >> 3 | (stat.S_ISGID if stat.S_ISDIR(found.st_mode) else 0))


def is_ours(found: Any, folder: str) -> bool:
    """Tell whether what a look at a file says means this user: on some file systems all files belong to one, whoever
    makes them.

    Args:
        folder: Where a file can be made to see whose it becomes.
    """
    if found.st_uid == os.geteuid():
        return True
    path = os.path.join(folder, ".whose-%d-%d" % (os.getpid(), threading.get_ident()))
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError:
        return False
    try:
        return bool(os.fstat(handle).st_uid == found.st_uid)
    finally:
        os.close(handle)
        os.unlink(path)


def user_name(uid: int) -> str:
    """Return a user's login name, or the number of one without."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _owner(path: str) -> str:
    """Return who a file belongs to."""
    uid = os.stat(path).st_uid
    name = user_name(uid)
    return name if name != str(uid) else _("user {number}", uid)


def group_name(gid: int) -> str:
    """Return a group's name, or the number of one without."""
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _whose(root: str) -> str:
    """Say whose a root is and what can be done."""
    path = os.path.join(root, CONTROL)
    while not os.path.exists(path):
        path = os.path.dirname(path) or "/"
    who = _owner(path)
    return _('{root} is {who}\'s: set share = "group" in the target, of both of you, or choose another root', root, who)


def another(run_dir: str) -> str:
    """Return which other user a run directory belongs to; empty where it is this one's, or isn't there."""
    try:
        found = os.stat(run_dir)
    except OSError:
        return ""  # what is wrong with it is said where it is used
    return "" if is_ours(found, os.path.dirname(run_dir)) else _owner(run_dir)


def not_anothers(run_dirs: Sequence[str]) -> None:
    """See that no run directory is another user's.

    Raises:
        NotOurs: One is; it says whose.
    """
    for run_dir in run_dirs:
        who = another(run_dir)
        if who:
            raise NotOurs(
                _(
                    "{run_dir} holds a run of {who}: give yours another name (--tag NAME), or choose another root",
                    run_dir,
                    who,
                )
            )


def settle(path: str) -> None:
    """Let a file that another program wrote be read by those who may read what is written here."""
    umask = os.umask(0o077)
    os.umask(umask)
    with contextlib.suppress(OSError):
        os.chmod(path, 0o666 & ~umask)
        if not umask & 0o070:
            os.chown(path, -1, os.stat(os.path.dirname(path)).st_gid)


def _is_shared(root: str) -> bool:
    try:
        return os.stat(os.path.join(root, CONTROL)).st_mode & GROUP_BITS == GROUP_BITS
    except OSError:
        return False


def take_run_dirs(root: str, run_dirs: Sequence[str]) -> List[str]:
    """Make run directories of a shared root, so that whose they are is decided before anything is queued; return those
    that were not there.

    Raises:
        NotOurs: One is another user's.
    """
    made: List[str] = []
    try:
        for run_dir in run_dirs if _is_shared(root) else ():
            os.makedirs(os.path.dirname(run_dir), exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.mkdir(run_dir)
                made.append(run_dir)
        not_anothers(run_dirs)
    except NotOurs:
        leave_run_dirs(made)
        raise
    return made


def leave_run_dirs(made: Sequence[str]) -> None:
    """Remove run directories that were made for nothing."""
    for run_dir in made:
        with contextlib.suppress(OSError):
            os.rmdir(run_dir)

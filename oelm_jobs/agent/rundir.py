"""The names of a run directory's files, and reading, writing and locking them.

docs/run-directory.md is the reader's version of this module. Standard library only, Python 3.8, Linux and macOS.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Dict, Iterable, List, Mapping, Optional, Sequence, Set, Union

from .sentences import _

if TYPE_CHECKING:
    from .processes import Identity

CONTROL = ".oelm"
"""Hidden folder of control files in a run directory, and of agents, snapshots and submissions in a target's root."""
RUN, SCRIPT, CLAIM, CANCEL = "run.json", "launch.sh", "claim", "cancel.json"
START, OUTCOME, END, SUPERVISOR_LOG = "start.json", "outcome.json", "end.json", "supervisor.log"
INPUTS = "inputs.json"
"""Control file that says what a run took from others when it began."""
BY_HAND = "by-hand"
"""Token of scripts that nobody submits."""
COPIES = "inputs"
"""Folder in a root's control folder of what was brought there from other targets for runs that take it."""
WAITING = "waiting.json"
"""Control file that says what a supervisor waits for, for as long as it does."""
LOG, METRICS, HEARTBEAT, TREATMENT = "training.log", "metrics.jsonl", "heartbeat.json", "treatment.json"
RESULT, MANIFEST = "experiment_result.json", "MANIFEST.json"
FETCHED = "fetched.json"
NEVER_SENT = _("the client ended before it was sent")
"""Why a run whose submission was settled was not accepted, where nobody knows better."""
LAUNCHED = "launched"
"""Line of the supervisor's log from which on it is about the newest launch."""
SPEED_TRIAL = "speed_trial"
"""Group of a study's run that trains nothing: it times arms in turn."""
TRAIN_PREFIX = "exp_"
"""What a run directory's name begins with; the run's name follows."""
NOTIFY = "notify"
"""Folder of what is to be told of runs, in the root's control folder."""
ARCHIVE = ".archive"
"""Folder beside run directories that holds those which were started over or forgotten."""
ORIGIN = "origin"
"""Control file that names the run directory's first submission: a run that was started over has another one."""

CLAIM_BYTES = 4096
"""A claim is written in place and read by others meanwhile: within a page they see it whole, as it was or as it is."""
CLAIM_FD = 99
"""File descriptor on which the launcher hands a held claim to the launch script and so to the supervisor."""
MANY = 20
"""From so many run directories on their folder is listed, which may be large."""
MAX_JSON_BYTES = 8 << 20
"""Control files are small; a larger one is not ours."""
PIECE_BYTES = 1 << 16
"""So much is read at once: making room for the largest takes longer than reading a small one."""


def control(run_dir: Union[str, Path], name: str) -> Path:
    """Return the path of a control file."""
    return Path("%s/%s/%s" % (run_dir, CONTROL, name))  # one look at the text instead of three


def that_may_exist(run_dirs: Iterable[str]) -> Set[str]:
    """Return those of run directories that may be there, by one look at their folder where many lie in one: of new runs
    none is.
    """
    by_folder: Dict[str, List[str]] = {}
    for run_dir in run_dirs:
        by_folder.setdefault(os.path.dirname(run_dir), []).append(run_dir)
    found: Set[str] = set()
    for folder, theirs in by_folder.items():
        names = None
        if len(theirs) >= MANY:
            try:
                # Small, since a disk of macOS takes a name in other letters for the same.
                names = {name.lower() for name in os.listdir(folder)}
            except FileNotFoundError:
                names = set()
            except OSError:  # what can't be listed may still be there
                pass
        found.update(each for each in theirs if names is None or os.path.basename(each).lower() in names)
    return found


def run_name(run_dir: str) -> str:
    """Return the name of the run that has a run directory."""
    name = os.path.basename(run_dir)
    return name[len(TRAIN_PREFIX) :] if name.startswith(TRAIN_PREFIX) else name


def attempt_mark(token: object, number: object) -> str:
    """Return what names an attempt: OELM_ATTEMPT of its processes, which its trainer writes into its records."""
    return "%s:%s" % (token, number)


def log_line(words: str) -> str:
    """Return words as the supervisor's log has them: with the time in front and a newline."""
    return "%s %s\n" % (time.strftime("%Y-%m-%d %H:%M:%S"), words)


def read_json(path: Union[str, Path], most_bytes: int = MAX_JSON_BYTES) -> Optional[Dict[str, Any]]:
    """Return the object in ``path``; None where it is absent, unreadable, too large or not an object."""
    try:
        # A FIFO in a folder that others write to must not make anybody wait (fifo(7)).
        handle = os.open(str(path), os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        pieces = [os.read(handle, PIECE_BYTES)]
        while len(pieces[-1]) == PIECE_BYTES and len(pieces) * PIECE_BYTES <= most_bytes:
            pieces.append(os.read(handle, PIECE_BYTES))
        content = b"".join(pieces)
        value = json.loads(content) if len(content) <= most_bytes else None
    except (OSError, ValueError, RecursionError):
        return None
    finally:
        os.close(handle)
    return value if isinstance(value, dict) else None


def write_bytes(path: Path, content: bytes, *, durable: bool = True, mode: int = 0o666) -> None:
    """Replace ``path`` atomically: a reader sees the old content or the new, and (durable) so does one after a power
    loss. Who may read it is the umask's to say.
    """
    temporary = path.with_name(".%s.%d.%d" % (path.name, os.getpid(), time.monotonic_ns()))
    handle = os.open(str(temporary), os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if durable:
        sync_folder(path.parent)


def write_text(path: Path, text: str, *, durable: bool = True, mode: int = 0o666) -> None:
    """Replace ``path`` atomically with text."""
    # What is half a character in a name (os.fsdecode) is an escape in JSON.
    write_bytes(path, text.encode("utf-8", "backslashreplace"), durable=durable, mode=mode)


def is_text(name: str) -> bool:
    """Tell whether a file's name is text, as records and answers hold it: names may be any bytes."""
    try:
        return bool(name.encode("utf-8"))
    except UnicodeEncodeError:
        return False


def write_json(path: Path, value: Mapping[str, object], *, durable: bool = True) -> None:
    """Replace ``path`` atomically with ``value`` as JSON."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n", durable=durable)


def create(path: Path, content: Mapping[str, object], *, durable: bool = True) -> bool:
    """Make ``path`` with ``content``, whole and (durable) for good, unless it exists; False where it does.

    link(2) fails where the name is taken, also between the clients of a network file system; where its answer was lost
    on the way, the number of links tells that it was made (open(2), O_EXCL).
    """
    temporary = path.with_name(".%s.%s.%d.%d" % (path.name, os.uname().nodename, os.getpid(), time.monotonic_ns()))
    try:
        with open(str(temporary), "w", encoding="utf-8") as file:
            file.write(json.dumps(content))  # json.dump takes many times as long
            file.flush()
            if durable:
                os.fsync(file.fileno())
        try:
            os.link(str(temporary), str(path))
        except FileExistsError:
            if os.stat(str(temporary)).st_nlink != 2:
                return False
    finally:
        with contextlib.suppress(OSError):
            os.unlink(str(temporary))
    if durable:
        sync_folder(path.parent)
    return True


def mark_origin(run_dir: Union[str, Path], token: str) -> None:
    """Name the submission that a run directory begins with, unless it has one: what was fetched of a run that was
    archived must not be taken for what another one in its place makes. The run's claim is held.
    """
    if os.path.exists(control(run_dir, RUN)):  # begun by a version that named none: it is the same run all the same
        return
    with contextlib.suppress(FileExistsError), open(str(control(run_dir, ORIGIN)), "x", encoding="ascii") as file:
        file.write(token + "\n")


def origin(run_dir: Union[str, Path]) -> str:
    """Return the submission that a run directory began with; empty where none is named."""
    return tail(control(run_dir, ORIGIN), 256).decode("utf-8", "replace").strip()


def merged(shared: Dict[str, object], own: Dict[str, object]) -> Dict[str, object]:
    """Return a record from what all of an array have in common and what one has besides.

    Tables are put together; a table for a list holds the list's own words by their place.
    """
    record = dict(shared)
    for name, value in own.items():
        known = record.get(name)
        if isinstance(known, dict) and isinstance(value, dict):
            record[name] = dict(known, **value)
        elif isinstance(known, list) and isinstance(value, dict):
            record[name] = [value.get(str(place), word) for place, word in enumerate(known)]
        else:
            record[name] = value
    return record


def records_of(script: Path, word: str = "") -> List[Dict[str, Any]]:
    """Return the records that a launch script holds, in the order of its tasks; none where it can't be read.

    Args:
        word: None are returned of a script without it: parsing takes longer than looking.
    """
    try:
        text = script.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return []
    return records_in(text) if word in text else []


def records_in(text: str) -> List[Dict[str, Any]]:
    """Return the records in a launch script's text; none where it holds none."""
    try:
        content = json.loads(text.partition("<<'OELM_RECORD'\n")[2].partition("\nOELM_RECORD\n")[0])
        return [merged(content["shared"], each) for each in content["runs"]] if "runs" in content else [content]
    except (ValueError, TypeError, KeyError, AttributeError):
        return []


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power loss."""
    handle = os.open(str(folder), os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# The claim ------------------------------------------------------------------------------------------------------------


class Busy(Exception):
    """Somebody else holds the lock."""


def lock(path: Path, *, patience_s: float = 0.0) -> int:
    """Open and flock ``path`` exclusively; return the descriptor, whose closing (by the kernel, too) releases the lock.

    Args:
        patience_s: How long a held lock is tried again: a probe takes a claim for an instant to see whether it is free.

    Raises:
        Busy: Another process holds it.
    """
    handle = os.open(str(path), os.O_RDWR | os.O_CREAT, 0o666)
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        except (BlockingIOError, PermissionError):
            if time.monotonic() >= deadline:
                os.close(handle)
                raise Busy(str(path)) from None
        except OSError:
            os.close(handle)
            raise
        time.sleep(0.02)


def is_locked(path: Union[str, Path]) -> bool:
    """True while a process holds the flock on ``path``."""
    try:
        handle = os.open(str(path), os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(handle)


def first_held(run_dirs: Iterable[str]) -> str:
    """Return the first of these run directories whose claim a process of this host holds; empty where none is held."""
    return next((run_dir for run_dir in run_dirs if is_locked(control(run_dir, CLAIM))), "")


def write_claim(handle: int, token: str, identity: Identity, needs: Sequence[str] = (), **more: object) -> None:
    """Write into a held claim who holds it; whoever reads it meanwhile finds the one before, or this one.

    Args:
        needs: Run directories of those that a run needs which was not started yet.
        more: ``keeper``, where that process holds it for such a run, and ``after``, the run directory of the one before
            it in its lane.
    """
    written = dict(identity.to_json(), token=token, **more)
    content = json.dumps(dict(written, needs=list(needs)) if needs else written).encode() + b"\n"
    if needs and len(content) > CLAIM_BYTES:
        content = json.dumps(dict(written, has_more_needs=True)).encode() + b"\n"
    os.pwrite(handle, content.ljust(os.fstat(handle).st_size), 0)
    os.ftruncate(handle, len(content))


# Append-only files ----------------------------------------------------------------------------------------------------


def end_line(log: BinaryIO) -> None:
    """End the last line of a log, open for reading and appending, that its writer was killed in; on a full disk the
    next writer goes on in it.
    """
    size = log.seek(0, os.SEEK_END)
    log.seek(max(0, size - 1))
    if log.read(1) not in (b"", b"\n"):
        with contextlib.suppress(OSError):
            os.write(log.fileno(), b"\n")
    log.seek(0, os.SEEK_END)


def _at_once(path: str, flags: int) -> int:
    """Open a file; a FIFO that a program has put in its place makes nobody wait (fifo(7))."""
    return os.open(path, flags | os.O_NONBLOCK)


def tail(path: Union[str, Path], max_bytes: int = 4096) -> bytes:
    """Return the last ``max_bytes`` of a file, from the first whole line on; empty where there is none."""
    try:
        with open(path, "rb", opener=_at_once) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - max_bytes))
            content = file.read(max_bytes)
    except OSError:
        return b""
    return content if size <= max_bytes else content.partition(b"\n")[2]


def last_lines(path: Union[str, Path], count: int, *, since: int = 0) -> List[str]:
    """Return the last non-empty lines of a log, without terminal escapes and carriage-return overwrites.

    Args:
        since: Bytes at its beginning that are not looked at.
    """
    try:
        room = max(0, os.stat(path).st_size - since)
    except OSError:
        room = 0
    # A byte more, the newline before: tail begins behind the first one that it sees.
    text = tail(path, min(room + 1, max(16384, 256 * count))).decode("utf-8", "replace") if room else ""
    lines = [line.rpartition("\r")[2].rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    printable = ["".join(c for c in line if c.isprintable()) for line in lines]
    return [line for line in printable if line.strip()][-count:]


def finite(value: Any) -> Optional[float]:
    """Return a number from a record; None where it isn't a finite one."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def disk_free(path: str) -> int:
    """Return the bytes that this user may still write at ``path``, which may not exist yet."""
    while not os.path.exists(path):
        path = os.path.dirname(path) or "/"
    stat = os.statvfs(path)
    return stat.f_bavail * stat.f_frsize

"""Write the records of a run that is over: result, manifest, end record."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Dict, Iterable, Iterator, List, Optional, Tuple, cast

from .. import reasons, records, rundir
from ..sentences import joined
from ..states import State
from . import remarks, work

if TYPE_CHECKING:
    from ..record_types import Attempt, OutcomeRecord, StartRecord
    from ..run_record import RunRecord
    from .place import Verdict

RECORD_KEYS = (
    "study", "run", "group", "label", "seed", "tag", "fingerprint", "snapshot", "revision", "train_code", "target",
    "world_size", "global_batch", "factors", "train", "extended_from",
)  # fmt: skip
"""What a result repeats of the run's record."""
STARTED = (
    "number", "token", "started_at", "devices", "per_gpu", "host", "port", "job", "restart", "nodes", "resumed_from",
    "inexact_resume",
)  # fmt: skip
"""What an attempt's record repeats of its start."""


RESERVE = "reserve"
"""Control file that keeps room on the disk, so that a run which filled it can still record its end."""
RESERVE_BYTES = 64 << 10
"""An end record with all its attempts, and what a file system needs to replace one file by another."""


UNSEEN = dict.fromkeys([0xAD, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0xFEFF])
"""Characters that can't be seen, for str.translate."""
ORDERS = (rundir.CONTROL, ".git", ".envrc", ".direnv", ".vscode", ".idea")
"""How hidden names begin that give orders to programs of whoever enters a folder."""


def reserve(run_dir: Path) -> None:
    """Keep room for the end record; harmless where there is none left."""
    with contextlib.suppress(OSError), open(str(rundir.control(run_dir, RESERVE)), "wb") as file:
        file.write(os.urandom(RESERVE_BYTES))  # not zeros, which some file systems don't store


def use_reserve(run_dir: Path) -> None:
    """Give the kept room back to the disk."""
    with contextlib.suppress(OSError):
        rundir.control(run_dir, RESERVE).unlink()


def attempts_so_far(
    run_dir: Path,
    why_lost: Callable[[StartRecord], str],
    *,
    end_state: State = State.FAILED,
    lived: bool = False,
) -> Tuple[List[Attempt], int]:
    """Return (a run's attempts so far, how many of them the end record has). One that has a start but no end lost its
    supervisor, to a reboot or to a kill; it lasted until its last sign of life.

    Args:
        why_lost: Says why, given the start record.
        end_state: State of such an attempt.
        lived: Whether its processes lived until just now.
    """
    start = records.START.read_if_sound(run_dir)
    end = records.END.read_if_sound(run_dir)
    attempts = list(end.get("attempts", [])) if end else []
    on_record = len(attempts)
    if start and all(attempt.get("number") != start.get("number") for attempt in attempts):
        attempts += start.get("before") or []
        attempts.append(lost_attempt(run_dir, start, why_lost(start), end_state=end_state, lived=lived))
    return attempts, on_record


def gpu_hours(attempts: Iterable[Attempt]) -> float:
    """Return the hours of GPUs that attempts took; slots of processors are none."""
    seconds = 0.0
    for attempt in attempts:
        gpus = [label for label in attempt.get("devices") or () if label.rpartition("/")[2].partition(":")[0] != "cpu"]
        seconds += len(gpus) * (rundir.finite(attempt.get("wall_s")) or 0.0)
    return round(seconds / 3600, 6)


def of_start(start: StartRecord) -> Attempt:
    """Return the record of an attempt as far as its start tells."""
    known: Dict[str, object] = dict(start)
    return cast("Attempt", {name: known[name] for name in STARTED if name in known})


def ended_attempt(
    start: StartRecord, outcome: OutcomeRecord, began: float, verdict: Verdict, code: Optional[int]
) -> Attempt:
    """Return the record of an attempt that is over.

    Args:
        outcome: What the program's records say of it.
        began: When it began (``time.monotonic()``).
        code: Its exit code; None where it was not started.
    """
    attempt = of_start(start)
    if outcome:
        attempt["steps"] = int(outcome.get("step") or 0) - int(outcome.get("resumed_from") or 0)
    attempt.update(cast("Attempt", {"state": verdict.state, **reasons.told(verdict.reason), "cause": verdict.cause}))
    attempt["ended_at"] = time.time()
    # The monotonic clock measures: a wall clock may be set back meanwhile.
    attempt.update({"wall_s": round(time.monotonic() - began, 3), "exit_code": code})
    return attempt


def lost_attempt(
    run_dir: Path, start: StartRecord, reason: str, *, end_state: State = State.FAILED, lived: bool = False
) -> Attempt:
    """Return the record of an attempt that started and left no end (arguments as in attempts_so_far)."""
    attempt = of_start(start)
    attempt.update(cast("Attempt", {"state": end_state, **reasons.told(reason)}))
    began_at, now = rundir.finite(start.get("started_at")), time.time()
    if began_at is not None:
        # Clocks differ between nodes and file servers, or were set back.
        ended_at = max(began_at, now if lived else min(_last_sign(run_dir, start), now))
        attempt.update({"ended_at": ended_at, "wall_s": round(ended_at - began_at, 3)})
    return attempt


def _last_sign(run_dir: Path, start: StartRecord) -> float:
    """Return when an attempt was last heard of, Unix seconds: by its heartbeat, or what it wrote last; 0 for never."""
    beat = records.HEARTBEAT.read_if_sound(run_dir) or {}
    is_its = beat.get("attempt") == rundir.attempt_mark(start.get("token"), start.get("number"))
    signs = [rundir.finite(beat.get("time")) or 0.0 if is_its else 0.0]
    written = [run_dir / rundir.LOG, run_dir / rundir.METRICS, rundir.control(run_dir, rundir.OUTCOME)]
    if (run_dir / work.FOLDER).is_dir():
        written += [path for _name, path in result_files(run_dir)]
    for path in (*written, *run_dir.glob("*.pt")):
        with contextlib.suppress(OSError):
            signs.append(path.stat().st_mtime)
    return max(signs)


def write(
    run_dir: Path, record: Optional[RunRecord], state: State, reason: str, attempts: List[Attempt], queued_at: float
) -> None:
    """Write result and manifest, then the end record, whose presence says that the other two are whole.

    Args:
        record: None where the run has none: it was ended before its supervisor began.

    Raises:
        OSError: The disk is full or gone.
    """
    use_reserve(run_dir)
    _drop_manifest(run_dir)
    unreadable: List[str] = []
    for name, path in result_files(run_dir, unreadable.append):
        if not os.access(str(path), os.R_OK):
            unreadable.append(name)
    reason = joined((reason, remarks.of_unreadable(unreadable)))
    now = time.time()
    hours = sum(float(attempt.get("wall_s") or 0.0) for attempt in attempts) / 3600
    known = record.to_json() if record else {}
    content: Dict[str, object] = {
        "version": 1,
        **{name: known.get(name) for name in RECORD_KEYS},
        "status": state,
        **reasons.told(reason),
        "attempts": attempts,
        "queued_at": queued_at,
        "started_at": attempts[0].get("started_at") if attempts else None,
        "ended_at": now,
        "elapsed_hours": round(hours, 6),
        "gpu_hours": gpu_hours(attempts),
        "outcome": rundir.read_json(rundir.control(run_dir, rundir.OUTCOME)) or {},
    }
    rundir.write_json(run_dir / rundir.RESULT, content)
    files = [
        {"name": name, "size": path.stat().st_size, "sha256": sha256(path)}
        for name, path in result_files(run_dir)
        if name not in unreadable
    ]
    rundir.write_json(run_dir / rundir.MANIFEST, {"version": 1, "files": files})
    _write_end(run_dir, record, state, reason, attempts)


def write_end(run_dir: Path, record: Optional[RunRecord], state: State, reason: str, attempts: List[Attempt]) -> None:
    """Write the end record alone: of a run that goes on later, or of one that may not have the time for more."""
    _drop_manifest(run_dir)
    _write_end(run_dir, record, state, reason, attempts)


def _drop_manifest(run_dir: Path) -> None:
    """Remove the manifest of an earlier end: beside a new end record it would be taken for that one's."""
    with contextlib.suppress(OSError):
        (run_dir / rundir.MANIFEST).unlink()
        rundir.sync_folder(run_dir)


def _write_end(run_dir: Path, record: Optional[RunRecord], state: State, reason: str, attempts: List[Attempt]) -> None:
    known = record.to_json() if record else {}
    end = {
        "version": 1,
        "token": known.get("token"),
        "state": state,
        **reasons.told(reason),
        "ended_at": time.time(),
        "fingerprint": known.get("fingerprint"),
        "attempts": attempts,
    }
    rundir.write_json(rundir.control(run_dir, rundir.END), end)


def result_files(run_dir: Path, refused: Callable[[str], object] = lambda name: None) -> "Iterator[tuple[str, Path]]":
    """Yield (name relative to the run directory, path) of every result file in sorted order; control and temporary
    files are none, nor is what no record can name.

    Args:
        refused: Called with the names of folders that can't be looked into.
    """
    placed = work.placed(run_dir)

    def skip(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            refused(os.path.relpath(error.filename, str(run_dir)))

    for folder, folders, names in os.walk(str(run_dir), onerror=skip):
        above = Path(folder).relative_to(run_dir).as_posix()
        prefix = "" if above == "." else above + "/"
        folders[:] = sorted(name for name in folders if name != work.CACHE and is_result(prefix + name + "/"))
        for name in sorted(names):
            relative = prefix + name
            if not is_result(relative) or relative == rundir.MANIFEST or not rundir.is_text(relative):
                continue
            path = Path(folder) / name
            within = relative[len(work.FOLDER) + 1 :] if prefix.startswith(work.FOLDER + "/") else ""
            if within in placed and work.is_as_placed(str(run_dir / work.FOLDER), within, placed[within]):
                continue
            try:
                if stat.S_ISREG(os.lstat(str(path)).st_mode):
                    yield relative, path
            except OSError as error:
                skip(error)


def is_result(name: str) -> bool:
    """Tell whether a file with this name in the run directory can be a result: no hidden one that gives orders to other
    programs (``.git``, ``.envrc``), nor one right in the run directory, where files are hidden while they are written.
    The name of a folder ends with a slash.
    """
    # Some disks (HFS+) take a name with characters that can't be seen for the one without them.
    parts = name.casefold().translate(UNSEEN).split("/")
    is_being_written = len(parts) == 1 and parts[0].startswith(".")
    return not is_being_written and not any(part.startswith(ORDERS) for part in parts)


def sha256(path: Path, length: Optional[int] = None) -> str:
    """Return the SHA-256 in hexadecimal of a file, or of so many bytes at its beginning, reading it in pieces.

    Raises:
        OSError: It can't be read, or is shorter.
    """
    digest, left = hashlib.sha256(), sys.maxsize if length is None else length
    with open(str(path), "rb") as file:
        while left:
            piece = file.read(min(1 << 20, left))
            if not piece:
                break
            digest.update(piece)
            left -= len(piece)
    if length is not None and left:
        raise OSError(errno.ENODATA, os.strerror(errno.ENODATA), str(path))
    return digest.hexdigest()

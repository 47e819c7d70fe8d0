"""Write the records of a run that is over: result, manifest, end record."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Dict, Iterator, List, Optional, Tuple, cast

from .. import reasons, records, rundir
from ..states import State

if TYPE_CHECKING:
    from ..record_types import Attempt, StartRecord
    from ..run_record import RunRecord

RECORD_KEYS = (
    "study", "run", "group", "label", "seed", "tag", "fingerprint", "snapshot", "revision", "train_code", "target",
    "world_size", "global_batch", "factors", "train", "extended_from",
)  # fmt: skip
"""What a result repeats of the run's record."""
STARTED = ("number", "token", "started_at", "devices", "host", "port", "job", "restart", "nodes")
"""What an attempt's record repeats of its start."""


RESERVE = "reserve"
"""Control file that keeps room on the disk, so that a run which filled it can still record its end."""
RESERVE_BYTES = 64 << 10
"""An end record with all its attempts, and what a file system needs to replace one file by another."""


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
        lost = lost_attempt(run_dir, start, why_lost(start), lived=lived)
        lost["state"] = end_state
        attempts.append(lost)
    return attempts, on_record


def of_start(start: StartRecord) -> Attempt:
    """Return the record of an attempt as far as its start tells."""
    known: Dict[str, object] = dict(start)
    return cast("Attempt", {name: known[name] for name in STARTED if name in known})


def lost_attempt(run_dir: Path, start: StartRecord, reason: str, *, lived: bool = False) -> Attempt:
    """Return the record of an attempt that started and left no end (arguments as in attempts_so_far)."""
    attempt = of_start(start)
    attempt.update(cast("Attempt", {"state": State.FAILED, **reasons.told(reason)}))
    began_at, now = rundir.finite(start.get("started_at")), time.time()
    if began_at is not None:
        # Clocks differ between nodes and file servers, or were set back.
        ended_at = max(began_at, now if lived else min(_last_sign(run_dir, start), now))
        attempt.update({"ended_at": ended_at, "wall_s": round(ended_at - began_at, 3)})
    return attempt


def _last_sign(run_dir: Path, start: StartRecord) -> float:
    """Return when an attempt was last heard of, Unix seconds: by its heartbeat, or what it wrote last; 0 for never."""
    beat = records.HEARTBEAT.read_if_sound(run_dir) or {}
    is_its = beat.get("attempt") == "%s:%s" % (start.get("token"), start.get("number"))
    signs = [rundir.finite(beat.get("time")) or 0.0 if is_its else 0.0]
    written = [run_dir / rundir.LOG, run_dir / rundir.METRICS, rundir.control(run_dir, rundir.OUTCOME)]
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
    now = time.time()
    hours = sum(float(attempt.get("wall_s") or 0.0) for attempt in attempts) / 3600
    gpu_hours = sum(float(a.get("wall_s") or 0.0) * len(a.get("devices") or ()) for a in attempts) / 3600
    known = record.to_json() if record else {}
    content: Dict[str, object] = {"version": 1}
    content.update({name: known.get(name) for name in RECORD_KEYS})
    content.update(
        status=state,
        **reasons.told(reason),
        attempts=attempts,
        queued_at=queued_at,
        started_at=attempts[0].get("started_at") if attempts else None,
        ended_at=now,
        elapsed_hours=round(hours, 6),
        gpu_hours=round(gpu_hours, 6),
        outcome=rundir.read_json(rundir.control(run_dir, rundir.OUTCOME)) or {},
    )
    rundir.write_json(run_dir / rundir.RESULT, content)
    files = [
        {"name": name, "size": path.stat().st_size, "sha256": sha256(path)} for name, path in result_files(run_dir)
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


def result_files(run_dir: Path) -> "Iterator[tuple[str, Path]]":
    """Yield (name relative to the run directory, path) of every result file in sorted order; control and temporary
    files are none, nor is what no record can name.
    """
    for folder, folders, names in os.walk(str(run_dir)):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder) / name
            relative = path.relative_to(run_dir).as_posix()
            if name.startswith(".") or relative == rundir.MANIFEST or not rundir.is_text(relative):
                continue
            if path.is_file() and not path.is_symlink():
                yield relative, path


def sha256(path: Path) -> str:
    """Return the file's SHA-256 in hexadecimal, reading it in pieces."""
    digest = hashlib.sha256()
    with open(str(path), "rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            digest.update(piece)
    return digest.hexdigest()

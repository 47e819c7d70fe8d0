"""The ledger of a study: a line for each run that was taken out of its results, and why, and one for each lock
(docs/run-directory.md).

It is written before the index forgets a run and never rewritten, so that what was tried and thrown away can be counted.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .agent import rundir, schema, verbs
from .agent.reasons import codes
from .agent.record_types import Left
from .agent.records import EXTENDED, FREE, LEFT, RUN
from .agent.schema import Flag, Maybe, Number, Table, Text
from .agent.sentences import _, joined
from .agent.states import State
from .errors import LocalError
from .stored_run import StoredRun

if TYPE_CHECKING:
    from .agent.record_types import Extended
    from .spec.study import Study

NAME = "ledger.jsonl"
FORGOTTEN, RERUN, LOCKED = "forgotten", "rerun", "locked"
"""What a line is about: a run that ``oelm-forget`` took out of the index, one that was started over, a lock."""
ARCHIVED, REMOVED, NONE, STAYS, MOVING, GONE = "archived", "removed", "none", "stays", "moving", "gone"
"""What was done with its files: moved beside where they were, or removed; there were none; they are where they were,
since the target could not be asked, or the run starts over on another; they were about to be moved; a fetch has not
found them on the target any more.
"""
TO_FETCH = (ARCHIVED, STAYS, MOVING)
"""Where its files may be on the target."""
DIVERGED = "diverged"
"""Code of the reason of a run whose loss is no longer finite."""
MOST_BYTES = 64 << 20
"""More than so much of a ledger is not read: whatever it is, no command has written it."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A line of a ledger."""

    version: int = 1
    event: str = FORGOTTEN
    time: float
    """When, Unix seconds, by the clock of the machine that wrote it."""
    study: str
    run: str
    """Its name."""
    group: str
    seed: int
    tag: str
    fingerprint: str
    token: str
    """Of its newest submission: of two lines about one the later counts."""
    target: str
    run_dir: str
    """Where it lay there."""
    state: str
    reason: str
    metric: str | None
    """Name of its main metric; None where it told none."""
    value: float | str | None
    """The last one; ``nan`` and the like are text."""
    step: int | None
    """The last that it told."""
    has_result: bool
    """Whether it came to its end, or its loss diverged."""
    gpu_hours: float | None
    """Over all attempts; None where the target could not be asked."""
    why: str
    """In the user's words."""
    files: str
    """What was done with them."""
    place: str = ""
    """Where they are on the target, if they were moved."""
    copy: str = ""
    """Where a copy that was fetched is on this machine, if it was moved."""
    queued_at: float | None = None
    """When it was last submitted, Unix seconds, by the clock of the machine that did; None where nobody knew, and in
    older lines.
    """
    left: tuple[Left, ...] = ()
    """What it had left on other targets, where it stays."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What its program was given; empty in older lines."""
    global_batch: int = 0
    """Its global batch size; 0 where there is none, and in older lines."""
    extended_from: Extended | None = None
    """The run that it continued."""

    def to_json(self) -> str:
        """Return the line."""
        return json.dumps(asdict(self), ensure_ascii=False)


_WORDS = Text(most=65_536, may_be_odd=True)
_PATH = Text(may_be_odd=True)
_SHAPE = Table(
    {"event": Text(most=64), "time": Number(), "study": Text(), "run": Text(), "token": Text(most=128)},
    {"version": verbs.COUNT, "group": Text(), "seed": Number(whole=True), "tag": Text(), "fingerprint": Text(most=128),
     "target": Text(), "run_dir": _PATH, "state": Text(), "reason": _WORDS,
     "has_result": Flag(), "metric": Maybe(verbs.METRIC_NAME), "value": Maybe(verbs.METRIC), "step": Maybe(Number()),
     "gpu_hours": Maybe(Number(0)), "why": _WORDS, "files": Text(most=64), "place": _PATH,
     "copy": _PATH, "queued_at": Maybe(Number()), "left": LEFT, "settings": FREE, "global_batch": verbs.COUNT,
     "extended_from": Maybe(EXTENDED)},
    keeps=True,
)  # fmt: skip
_DEFAULTS: dict[str, Any] = {
    "group": "", "seed": 0, "tag": "", "fingerprint": "", "target": "", "run_dir": "", "state": "", "reason": "",
    "metric": None, "value": None, "step": None, "gpu_hours": None, "why": "", "files": NONE,
}  # fmt: skip


def path_of(project: Path, study: str) -> Path:
    """Return the file of a study's ledger."""
    return project / "experiments" / study / NAME


def entry_of(run: StoredRun, *, why: str, files: str, **more: Any) -> Entry:
    """Return the line about a run as it was last seen.

    Args:
        more: Other fields.
    """
    name, value = _main_metric(run)
    settings = run.settings if FREE.wrong(run.settings) is None else {}  # else nobody could read the line
    return Entry(
        time=time.time(), study=run.study, run=run.name, group=run.group, seed=run.seed, tag=run.tag,
        fingerprint=run.fingerprint, token=run.token, target=run.target, run_dir=run.run_dir, state=str(run.state),
        reason=str(run.reason), metric=name, value=value, step=run.progress.get("step"),
        has_result=has_result(run),
        why=why, files=files, queued_at=run.queued_at, left=tuple(run.left), settings=settings,
        global_batch=int(run.spec.get("global_batch") or 0), extended_from=run.extended_from,
        **{"gpu_hours": None, **more},
    )  # fmt: skip


def has_result(run: StoredRun) -> bool:
    """Tell whether a run came to its end, or its loss diverged."""
    return run.state is State.DONE or DIVERGED in codes(run.reason)


def _main_metric(run: StoredRun) -> tuple[str | None, float | str | None]:
    """Return name and last value of what a run is judged by, else of its loss."""
    known: Mapping[str, Any] = run.progress
    if run.is_script:
        told = known.get("metrics") or {}
        goal = (run.spec["program"].get("metrics") or {}).get("goal") or {}
        return next(((name, told[name]) for name in (*goal, *told) if name in told), (None, None))
    return next(((name, known[name]) for name in ("val_loss", "loss") if known.get(name) is not None), (None, None))


def summary(entry: Entry) -> str:
    """Return what an entry says, in words: ``gpt_base (DONE, val_loss 3.5 at step 12, 0.4 GPU-hours; wrong data)``."""
    parts = [entry.state]
    if entry.metric is not None:
        shown = f"{entry.value:.4g}" if isinstance(entry.value, (int, float)) else str(entry.value)
        told = _("{metric} {value}", entry.metric, shown)
        parts.append(told if entry.step is None else _("{told} at step {step}", told, entry.step))
    if entry.gpu_hours:
        parts.append(_("{hours} GPU-hours", f"{entry.gpu_hours:.3g}"))
    facts = _("{names}", parts)
    return _("{run} ({facts})", entry.run, joined((facts, entry.why)))


def append(project: Path, study: str, entries: Sequence[Entry]) -> None:
    """Add lines to a study's ledger, which is made where there is none; they are on the disk when this returns.

    Raises:
        LocalError: They can't be written.
    """
    _append(path_of(project, study), [entry.to_json() for entry in entries])


def append_lock(project: Path, study: str, lock: Mapping[str, Any]) -> None:
    """Add a line with a lock, the object of its file, likewise."""
    record = {"version": 1, "event": LOCKED, "time": time.time(), "study": study, "lock": lock}
    _append(path_of(project, study), [json.dumps(record, ensure_ascii=False)])


def _append(path: Path, texts: Sequence[str]) -> None:
    lines = "".join(text + "\n" for text in texts).encode("utf-8", "backslashreplace")
    try:
        is_new = not path.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            with contextlib.suppress(OSError):  # on a file system without locks one write is mostly one piece, too
                fcntl.flock(file, fcntl.LOCK_EX)
            rundir.end_line(file)  # that of a writer that was killed
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
        for folder in path.parents[:3] if is_new else ():
            rundir.sync_folder(folder)
    except OSError as error:
        raise LocalError(_("{path}: can't be written: {why}", str(path), error.strerror or str(error))) from error


def read(project: Path, study: str) -> list[Entry]:
    """Return what a study's ledger says, of each submission the last; what is no line of a ledger is passed over."""
    found: dict[tuple[str, str], Entry] = {}
    for line in _lines(project, study):
        entry = _entry(line)
        if entry is not None:
            found[entry.run, entry.token] = entry
    return list(found.values())


def locks(project: Path, study: str) -> list[Mapping[str, Any]]:
    """Return the locks that a study's ledger has, each as the object of its file, in the order of the lines."""
    found = []
    for line in _lines(project, study):
        with contextlib.suppress(ValueError):
            record = json.loads(line) if b'"locked"' in line else None
            if isinstance(record, dict) and record.get("event") == LOCKED and isinstance(record.get("lock"), dict):
                found.append(record["lock"])
    return found


def _lines(project: Path, study: str) -> list[bytes]:
    try:
        with path_of(project, study).open("rb") as file:
            return file.read(MOST_BYTES).splitlines()
    except OSError:
        return []


def lock_path(project: Path, study: Study) -> Path:
    """Return where a study's lock lies: beside its summary, or where that was when another study was the default."""
    default, other = _lock_paths(project, study.name)
    here = default if study.is_default else other
    return next((path for path in (here, default, other) if path.exists()), here)


def _lock_paths(project: Path, study: str) -> tuple[Path, Path]:
    name, folder = f"{study}_lock.json", project / "experiments"
    return folder / name, folder / study / name


def is_locked(project: Path, study: str) -> bool:
    """Tell whether a study was ever locked."""
    return any(path.exists() for path in _lock_paths(project, study)) or bool(locks(project, study))


def kept(project: Path, study: str, entry: Entry, taken: Collection[str] = ()) -> Iterator[Path]:
    """Yield the folders in a project's archives that hold what an entry's run made, or a copy of it; what was fetched
    after it ended comes first.

    Args:
        taken: As for ``is_of``.
    """
    folder, name = project / "models" / "checkpoints", f"{rundir.TRAIN_PREFIX}{glob.escape(entry.run)}-*"
    found = sorted(path for beside in (folder, folder / study) for path in (beside / rundir.ARCHIVE).glob(name))
    for path in sorted(found, key=lambda path: not (path / rundir.MANIFEST).exists()):
        if is_of(path, entry, taken):
            yield path


def is_of(path: Path, entry: Entry, taken: Collection[str] = ()) -> bool:
    """Tell whether a folder holds what an entry's run made: by the submission on record, or, where that is an older one
    since the entry's began nothing, by the folder's name, under which it was moved or fetched.

    Args:
        taken: Tokens of submissions that are known by themselves: a folder of one is that one's, whatever it is called.
    """
    record = RUN.read_if_sound(path) if path.is_dir() else None
    if record is None or record.run != entry.run:
        return False
    if record.token == entry.token:
        return True
    is_older = (record.queued_at or 0) <= entry.time and record.token not in taken
    return is_older and path.name in (Path(entry.place).name, fetched_name(entry))


def fetched_name(entry: Entry) -> str:
    """Return what the folder is called into which an entry's run is fetched."""
    return f"{rundir.TRAIN_PREFIX}{entry.run}-{entry.token}"


def _entry(line: bytes) -> Entry | None:
    try:
        content = schema.loads(line)
    except (schema.Misfit, ValueError):
        return None
    if _SHAPE.wrong(content) is not None:
        return None
    older = {**_DEFAULTS, "has_result": content.get("state") == State.DONE}
    known = {name: value for name, value in {**older, **content}.items() if name in _FIELDS}
    entry = Entry(**known)
    return replace(entry, left=tuple(entry.left))


_FIELDS = {field.name for field in fields(Entry)}


def read_all(project: Path) -> list[Entry]:
    """Return what the ledgers of all studies of a project say."""
    studies = sorted(path.parent.name for path in (project / "experiments").glob(f"*/{NAME}"))
    return [entry for study in studies for entry in read(project, study)]


def tokens(entries: Iterable[Entry]) -> set[tuple[str, str, str]]:
    """Return study, run and token of what was forgotten, and of what it had left elsewhere."""
    return {
        (entry.study, entry.run, token)
        for entry in entries
        if entry.event == FORGOTTEN
        for token in (entry.token, *(place["token"] for place in entry.left))
    }

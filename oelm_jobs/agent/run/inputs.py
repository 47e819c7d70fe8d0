"""What a run takes from others when it begins: where it lies, that it is what it was, and the record of it."""

from __future__ import annotations

import functools
import hashlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Dict, List, Mapping, Tuple

from .. import records, rundir
from ..reasons import because
from ..states import State
from . import result, saved

if TYPE_CHECKING:
    from ..record_types import InputRecord, NeedRecord
    from ..run_record import RunRecord

BEST, LATEST = "best", "latest"


class Unmet(Exception):
    """A run doesn't begin, since what it needs isn't there; the reason is in the message."""

    def __init__(self, state: State, reason: str) -> None:
        self.state, self.reason = state, reason
        super().__init__(reason)


def take(record: RunRecord, *, goes_on: bool) -> Dict[str, str]:
    """Return the paths of what a run takes from others by the names that it has for them, and record their content.

    Args:
        goes_on: It goes on from a checkpoint of its own: what it has begun with needs not be there any more.

    Raises:
        Unmet: Something isn't there, or isn't what the run has begun with.
        OSError: It can't be read, or not recorded.
    """
    wanted = [need for need in record.needs or () if need.get("input")]
    if not wanted:
        return {}
    before = {row["input"]: row for row in read(record.run_dir)}
    found: List[InputRecord] = []
    for need in wanted:
        known = before.get(need["input"])
        if known is not None and goes_on:
            found.append(known)
            continue
        path = need.get("path") or find(need.get("run_dir", ""), need["artifact"])
        what = "%s:%s" % (need["run"], need["artifact"])
        if not path or not os.path.exists(path):
            raise Unmet(State.FAILED, because("input_gone", input=need["input"], what=what))
        sha256, size = content_of(Path(path))
        expected = known["sha256"] if known is not None else need.get("sha256") or sha256
        if sha256 != expected:
            raise Unmet(State.FAILED, because("input_changed", input=need["input"], what=what, path=path))
        found.append(known if known is not None else _row(need, path, sha256, size))
    if found != list(before.values()):
        rundir.write_json(rundir.control(record.run_dir, rundir.INPUTS), {"version": 1, "inputs": found})
    return {row["input"]: row["path"] for row in found}


def _row(need: NeedRecord, path: str, sha256: str, size: int) -> InputRecord:
    """Return what is recorded of an input."""
    return {
        "input": need["input"], "study": need["study"], "run": need["run"], "artifact": need["artifact"],
        "fingerprint": need.get("fingerprint", ""), "path": path, "sha256": sha256, "size": size, "time": time.time(),
    }  # fmt: skip


def read(run_dir: str) -> List[InputRecord]:
    """Return what is recorded of the inputs with which a run has begun."""
    content = records.INPUTS.read_if_sound(run_dir)
    return list(content["inputs"]) if content else []


def find(run_dir: str, artifact: str) -> str:
    """Return the path of an artifact of a run; empty where it isn't there."""
    if not run_dir:
        return ""
    names = saved.Saved.of(records.RUN.read_if_sound(run_dir))
    pattern = {BEST: names.best, LATEST: names.checkpoint}.get(artifact, artifact)
    name = saved.newest(Path(run_dir), pattern) if pattern else ""
    return str(Path(run_dir) / name) if name else ""


class Sources:
    """What runs that are to be submitted take from others; each is looked at once, however many take it."""

    def __init__(self) -> None:
        self._find = functools.lru_cache(maxsize=None)(find)
        self._is_there = functools.lru_cache(maxsize=None)(os.path.exists)
        self._is_made = functools.lru_cache(maxsize=None)(_is_made)

    def lacking(self, record: RunRecord) -> str:
        """Return what a run takes and what isn't there any more, as ``STUDY/RUN:ARTIFACT``; empty where all is there,
        or still to be made.
        """
        for need in record.needs or ():
            run_dir, token = need.get("run_dir") or "", need.get("token")
            if not need.get("input") or (token and not self._is_made(run_dir, token)):
                continue
            is_there = self._is_there(need.get("path") or self._find(run_dir, need["artifact"]))
            if not is_there and not _goes_on_without(record.run_dir, need["input"]):
                return "%s/%s:%s" % (need["study"], need["run"], need["artifact"])
        return ""


def _goes_on_without(run_dir: str, name: str) -> bool:
    """Tell whether a run has a checkpoint of its own, so that it needs what it began with no more."""
    return any(row["input"] == name for row in read(run_dir)) and bool(find(run_dir, LATEST))


def _is_made(run_dir: str, token: str) -> bool:
    """Tell whether a run that is waited for is done already."""
    end = records.END.read_if_sound(run_dir)
    return end is not None and end.get("token") == token and end["state"] == State.DONE


def content_of(path: Path) -> Tuple[str, int]:
    """Return SHA-256 and size of a file; of a folder a hash of the names and hashes of its files, and their size."""
    if not path.is_dir():
        return result.sha256(path), path.stat().st_size
    rows: Dict[str, str] = {}
    size = 0
    for folder, _folders, names in os.walk(str(path)):
        for name in names:
            each = Path(folder) / name
            rows[each.relative_to(path).as_posix()] = result.sha256(each)
            size += each.stat().st_size
    return hash_of_folder(rows), size


def hash_of_folder(rows: Mapping[str, str]) -> str:
    """Return the hash of a folder with files of these names and hashes."""
    lines = ("%s  %s\n" % (rows[name], name) for name in sorted(rows))
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()

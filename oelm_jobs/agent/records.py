"""The records in a run directory: their types, their limits, and reading them back, on servers and at home.

Others write to these files, too: trainers of a project's own, older and newer versions, and whoever owns the disk.
What a record has besides is kept. docs/run-directory.md is the reader's version of this module.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, Generic, Optional, TypeVar, Union

from . import rundir, schema
from .schema import Anything, Each, Either, Map, Maybe, Number, Table, Text
from .verbs import ABSOLUTE, COUNT, HASH, INDICES, MAYBE_HASH, NAME, OPTIONAL_PATH, SIZE, STATE

if TYPE_CHECKING:
    from .record_types import (
        ClaimRecord,
        EndRecord,
        FetchedRecord,
        HeartbeatRecord,
        ManifestRecord,
        OutcomeRecord,
        StartRecord,
        WaitingRecord,
    )
    from .run_record import RunRecord

POSITIVE = Number(1, 2**53, whole=True)
FREE = Anything(is_table=True)
WORDS = Text(most=65_536, may_be_odd=True)
LABELS = Each(WORDS, 4096)
WHEN = Maybe(Number())

EXTENDED = Table(
    {"max_steps": POSITIVE, "fingerprint": Text(most=128)},
    {"before": Maybe(Anything(depth=150, is_table=True))},  # once deeper for each extension
    keeps=True,
)
LEFT = Each(Table({"target": Text(most=256), "run_dir": ABSOLUTE, "token": Text(most=128)}), 100)
"""What a run that moved to another target has left on others."""
SPEC = Table(
    {"train": Table({"max_steps": POSITIVE, "seq_len": POSITIVE}, keeps=True), "global_batch": POSITIVE},
    {"extended_from": Maybe(EXTENDED), "left": Maybe(LEFT)},
    keeps=True,
)
"""What the client's index keeps of a run's record."""

ATTEMPT = Table(
    {},
    {"number": COUNT, "token": Maybe(Text(most=128)), "devices": Maybe(LABELS), "started_at": WHEN, "ended_at": WHEN,
     "wall_s": WHEN, "job": Maybe(Text(most=64)), "state": Maybe(STATE), "reason": Maybe(WORDS)},
    keeps=True,
)  # fmt: skip


Content = TypeVar("Content")


class Kind(Generic[Content]):
    """A kind of record: its file in a run directory, its shape, and what is made of what fits that."""

    def __init__(
        self,
        name: str,
        shape: Table,
        *,
        folder: str = rundir.CONTROL + "/",
        make: Optional[Callable[[Dict[str, Any]], Content]] = None,
    ) -> None:
        self.name = name
        """Of the file."""
        self._path = "/" + folder + name
        self.shape = shape
        self._make = make
        self._check: Optional[schema.Check] = None

    def why_not(self, content: Any) -> Optional[str]:
        """Return where content is no such record, and why; None where it is one."""
        if self._check is None:  # a command reads few of the kinds
            self._check = schema.compiled(self.shape)
        return self._check(content)

    def read(self, run_dir: Union[str, Path]) -> Optional[Content]:
        """Return a run's record; None where rundir.read_json finds nothing.

        Raises:
            schema.Misfit: It is another thing.
        """
        # Plain strings: a status asks for hundreds of runs, and building paths costs more than reading the files.
        content: Any = rundir.read_json(str(run_dir) + self._path)
        if content is None:
            return None
        wrong = self.why_not(content)
        if wrong is not None:
            raise schema.Misfit(self.name + wrong)
        return self._make(content) if self._make is not None else content

    def read_if_sound(self, run_dir: Union[str, Path]) -> Optional[Content]:
        """Return a run's record; None where there is none, or another thing."""
        try:
            return self.read(run_dir)
        except schema.Misfit:
            return None


def _run_record(content: Dict[str, Any]) -> RunRecord:
    from .run_record import RunRecord  # here, because a type of so many fields takes its time and a status needs none

    return RunRecord.of(content)


RUN: Kind[RunRecord] = Kind(
    rundir.RUN,
    Table(
        {},
        {"token": Text(most=128), "study": Text(), "run": Text(), "group": Text(), "label": Text(), "tag": Text(),
         "seed": Number(whole=True), "target": Text(), "project": Maybe(OPTIONAL_PATH), "run_dir": ABSOLUTE,
         "fingerprint": Text(most=128), "train": FREE, "factors": FREE, "global_batch": POSITIVE,
         "gpus": Either((COUNT, INDICES)), "port": Maybe(COUNT), "after": Maybe(ABSOLUTE), "max_retries": COUNT,
         "extended_from": Maybe(EXTENDED), "left": Maybe(LEFT), "fate": Maybe(OPTIONAL_PATH)},
        keeps=True,
    ),
    make=_run_record,
)  # fmt: skip
"""run.json"""
START: Kind[StartRecord] = Kind(
    rundir.START,
    Table(
        {},
        {"number": COUNT, "token": Maybe(Text(most=128)), "devices": Maybe(LABELS), "started_at": WHEN,
         "job": Maybe(Text(most=64)), "boot_id": Maybe(Text()), "before": Maybe(Each(ATTEMPT, 10_000)),
         "port": Maybe(COUNT)},
        keeps=True,
    ),
)  # fmt: skip
"""start.json"""
END: Kind[EndRecord] = Kind(
    rundir.END,
    Table(
        {"state": STATE},
        {"token": Maybe(Text(most=128)), "reason": Maybe(WORDS), "ended_at": WHEN, "attempts": Each(ATTEMPT, 10_000),
         "fingerprint": Maybe(Text(most=128))},
        keeps=True,
    ),
)  # fmt: skip
"""end.json"""
WAITING: Kind[WaitingRecord] = Kind(
    rundir.WAITING,
    Table({}, {"token": Maybe(Text(most=128)), "reason": Maybe(WORDS)}, keeps=True),
)
"""waiting.json"""
CLAIM: Kind[ClaimRecord] = Kind(
    rundir.CLAIM,
    Table({}, {"token": Maybe(Text(most=128)), "boot_id": Maybe(Text())}, keeps=True),
)
"""claim"""
HEARTBEAT: Kind[HeartbeatRecord] = Kind(
    rundir.HEARTBEAT,
    Table({}, {"attempt": Maybe(Text(most=256))}, keeps=True),
    folder="",
)
"""heartbeat.json; each number that makes no sense is one that is not known."""
OUTCOME: Kind[OutcomeRecord] = Kind(
    rundir.OUTCOME,
    Table({}, {"attempt": Maybe(Text(most=256)), "status": Maybe(Text()), "reason": Maybe(WORDS)}, keeps=True),
)
"""outcome.json, likewise."""
MANIFEST: Kind[ManifestRecord] = Kind(
    rundir.MANIFEST,
    Table({"files": Each(Table({"name": NAME, "size": SIZE, "sha256": HASH}, keeps=True))}, keeps=True),
    folder="",
)
"""MANIFEST.json"""
FETCHED: Kind[FetchedRecord] = Kind(
    rundir.FETCHED,
    Table(
        {},
        {"target": Text(), "host": Text(), "run_dir": Text(), "origin": Text(most=256),
         "files": Map(
             Table({"size": SIZE, "sha256": HASH}, {"seen": Each(Number(whole=True), 2)}, keeps=True), keys=NAME),
         "left": Each(Table({"name": NAME}, {"size": SIZE, "sha256": MAYBE_HASH})),
         "removed": Map(Text(most=128), keys=NAME)},
        keeps=True,
    ),
)  # fmt: skip
"""fetched.json, which the client writes beside what it has fetched."""

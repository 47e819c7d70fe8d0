"""The records in a run directory: their types, their limits, and reading them back, on servers and at home.

Others write to these files, too: trainers of a project's own, older and newer versions, and whoever owns the disk.
What a record has besides is kept. docs/run-directory.md is the reader's version of this module.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, Generic, Optional, TypeVar, Union

from . import rundir, schema
from .schema import Anything, Each, Either, Flag, Map, Maybe, Number, Row, Table, Text
from .verbs import ABSOLUTE, COUNT, HASH, INDICES, MAYBE_HASH, MOST_NEEDS, NAME, OPTIONAL_PATH, SCRIPT, SIZE, STATE

if TYPE_CHECKING:
    from . import record_types as types
    from .run_record import RunRecord
    from .verbs import Shapes

POSITIVE = Number(1, 2**53, whole=True)
FREE = Anything(is_table=True)
WORDS = Text(most=65_536, may_be_odd=True)
LABELS = Each(WORDS, 4096)
WHEN = Maybe(Number())
TOKEN = Maybe(Text(most=128))

EXTENDED = Table(
    {"max_steps": POSITIVE, "fingerprint": Text(most=128)},
    {"before": Maybe(Anything(depth=150, is_table=True))},  # once deeper for each extension
    keeps=True,
)
LEFT = Each(Table({"target": Text(most=256), "run_dir": ABSOLUTE, "token": Text(most=128)}), 100)
"""What a run that moved to another target has left on others."""
NEEDS = Each(
    Table(
        {"study": Text(), "run": Text()},
        {"run_dir": Maybe(ABSOLUTE), "token": TOKEN, "when": Maybe(Text(most=16)), "input": Maybe(Text()),
         "artifact": Maybe(WORDS), "fingerprint": Maybe(Text(most=128)), "path": Maybe(ABSOLUTE),
         "sha256": MAYBE_HASH},
        keeps=True,
    ),
    MOST_NEEDS,
)  # fmt: skip
"""The runs that one needs."""
LOCK = Table({"hash": Text(most=128)}, {"queued_at": WHEN}, keeps=True)
"""The lock that was in force when a run was queued."""
_SPEC = {"extended_from": Maybe(EXTENDED), "left": Maybe(LEFT), "study_file": Maybe(ABSOLUTE)}
_GOAL = Maybe(Table({}, {"goal": Maybe(FREE)}, keeps=True))
_OF_SCRIPT = Table({"settings": FREE}, {"max_steps": Maybe(Number(0)), "metrics": _GOAL}, keeps=True)
SPEC = Either(
    (
        Table({"program": _OF_SCRIPT}, _SPEC, keeps=True),
        Table(
            {"train": Table({"max_steps": POSITIVE, "seq_len": POSITIVE}, keeps=True), "global_batch": POSITIVE},
            _SPEC,
            keeps=True,
        ),
    )
)
"""What the client's index keeps of a run's record: of one with a script, or of the built-in trainer's."""

ATTEMPT = Table(
    {},
    {"number": COUNT, "token": TOKEN, "devices": Maybe(LABELS), "started_at": WHEN, "ended_at": WHEN, "wall_s": WHEN,
     "job": Maybe(Text(most=64)), "state": Maybe(STATE), "reason": Maybe(WORDS)},
    keeps=True,
)  # fmt: skip

WORD = Either((WORDS, Each(WORDS, 1000)))
PATTERN = Text(pattern=r"[^/\0][^\0]*|")
PATTERNS = Each(WORDS, 1000)
PROGRAM = Table(
    {"stages": Each(Table({"name": Text(), "words": Each(WORD, 100_000)}, keeps=True), 1000)},
    {"resume": Each(WORD, 10_000), "checkpoint": PATTERN, "best": PATTERN, "length": Maybe(Text()),
     "max_steps": Maybe(Number(0)), "stop_s": Number(0, 86_400), "cpus": COUNT,
     "data": Each(Row((Text(), ABSOLUTE)), 1000), "settings": FREE,
     "settings_file": Maybe(Text(most=16, pattern="[a-z]+")), "settings_text": Maybe(SCRIPT),
     "files": PATTERNS, "metrics": Table({}, {"lines": PATTERNS, "files": PATTERNS, "goal": FREE}, keeps=True)},
    keeps=True,
)  # fmt: skip
"""What a run executes in place of the built-in trainer."""


Content = TypeVar("Content")


class Kind(Generic[Content]):
    """A kind of record: its file in a run directory, its shape, and what is made of what fits that."""

    def __init__(
        self,
        name: str,
        may: Shapes,
        must: Optional[Shapes] = None,
        *,
        folder: str = rundir.CONTROL + "/",
        make: Optional[Callable[[Dict[str, Any]], Content]] = None,
    ) -> None:
        """Describe a kind of record.

        Args:
            name: Of the file.
            may: Shapes of what it may hold, by key; what it has besides is kept.
            must: Shapes of what it holds.
            make: Makes of the object what readers get.
        """
        self.name = name
        self._path = "/" + folder + name
        self.shape = Table(must or {}, may, keeps=True)
        self._make = make

    def read(self, run_dir: Union[str, Path]) -> Optional[Content]:
        """Return a run's record; None where rundir.read_json finds nothing.

        Raises:
            schema.Misfit: It is another thing.
        """
        # Plain strings: a status asks for hundreds of runs, and building paths costs more than reading the files.
        content: Any = rundir.read_json(str(run_dir) + self._path)
        if content is None:
            return None
        wrong = self.shape.wrong(content)
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
    {"token": Text(most=128), "study": Text(), "run": Text(), "group": Text(), "label": Text(), "tag": Text(),
     "seed": Number(whole=True), "target": Text(), "project": Maybe(OPTIONAL_PATH), "run_dir": ABSOLUTE,
     "fingerprint": Text(most=128), "train": FREE, "factors": FREE, "global_batch": COUNT,
     "gpus": Either((COUNT, INDICES)), "port": Maybe(COUNT), "after": Maybe(ABSOLUTE), "max_retries": COUNT,
     "extended_from": Maybe(EXTENDED), "left": Maybe(LEFT),
     "study_file": Maybe(ABSOLUTE), "fate": Maybe(OPTIONAL_PATH), "notify": Maybe(ABSOLUTE),
     "program": Maybe(PROGRAM), "needs": Maybe(NEEDS), "lock": Maybe(LOCK)},
    make=_run_record,
)  # fmt: skip
"""run.json"""
INPUTS: Kind[types.InputsRecord] = Kind(
    rundir.INPUTS,
    {},
    {"inputs": Each(Table(
        {"input": Text(), "study": Text(), "run": Text(), "artifact": WORDS, "path": ABSOLUTE, "sha256": HASH,
         "size": SIZE},
        {"fingerprint": Text(most=128), "time": WHEN}, keeps=True,
    ), MOST_NEEDS)},
)  # fmt: skip
"""inputs.json"""
START: Kind[types.StartRecord] = Kind(
    rundir.START,
    {"number": COUNT, "token": TOKEN, "devices": Maybe(LABELS), "started_at": WHEN, "job": Maybe(Text(most=64)),
     "boot_id": Maybe(Text()), "before": Maybe(Each(ATTEMPT, 10_000)), "port": Maybe(COUNT)},
)  # fmt: skip
"""start.json"""
END: Kind[types.EndRecord] = Kind(
    rundir.END,
    {"token": TOKEN, "reason": Maybe(WORDS), "ended_at": WHEN, "attempts": Each(ATTEMPT, 10_000),
     "fingerprint": Maybe(Text(most=128))},
    {"state": STATE},
)  # fmt: skip
"""end.json"""
WAITING: Kind[types.WaitingRecord] = Kind(rundir.WAITING, {"token": TOKEN, "reason": Maybe(WORDS)})
"""waiting.json"""
CLAIM: Kind[types.ClaimRecord] = Kind(
    rundir.CLAIM,
    {
        "token": TOKEN,
        "boot_id": Maybe(Text()),
        "keeper": Maybe(Flag()),
        "after": Maybe(ABSOLUTE),
        "needs": Maybe(Each(ABSOLUTE, MOST_NEEDS)),
        "has_more_needs": Maybe(Flag()),
    },
)
"""claim"""
HEARTBEAT: Kind[types.HeartbeatRecord] = Kind(
    rundir.HEARTBEAT, {"attempt": Maybe(Text(most=256)), "reason": Maybe(WORDS)}, folder=""
)
"""heartbeat.json; each number that makes no sense is one that is not known."""
OUTCOME: Kind[types.OutcomeRecord] = Kind(
    rundir.OUTCOME, {"attempt": Maybe(Text(most=256)), "status": Maybe(Text()), "reason": Maybe(WORDS)}
)
"""outcome.json, likewise."""
MANIFEST: Kind[types.ManifestRecord] = Kind(
    rundir.MANIFEST, {}, {"files": Each(Table({"name": NAME, "size": SIZE, "sha256": HASH}, keeps=True))}, folder=""
)
"""MANIFEST.json"""
FETCHED: Kind[types.FetchedRecord] = Kind(
    rundir.FETCHED,
    {"target": Text(), "host": Text(), "run_dir": Text(), "origin": Text(most=256),
     "files": Map(Table({"size": SIZE, "sha256": HASH}, {"seen": Each(Number(whole=True), 2)}, keeps=True), keys=NAME),
     "left": Each(Table({"name": NAME}, {"size": SIZE, "sha256": MAYBE_HASH})),
     "removed": Map(Text(most=128), keys=NAME)},
)  # fmt: skip
"""fetched.json, which the client writes beside what it has fetched."""

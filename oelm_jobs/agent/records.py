"""Owns what the records of runs look like, as data: the types and limits of what is read back from run directories, on
servers and at home; leaves comparing them to schema, and opening files to rundir.

Others write to these files, too: trainers of a project's own, older and newer versions, and whoever owns the disk.
What a record has besides is kept.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Dict, Optional, Union

from . import rundir, schema
from .schema import Anything, Each, Either, Map, Maybe, Number, Table, Text
from .verbs import ABSOLUTE, COUNT, HASH, INDICES, MAYBE_HASH, NAME, OPTIONAL_PATH, SIZE, STATE

POSITIVE = Number(1, 2**53, whole=True)
FREE = Anything(is_table=True)
WORDS = Text(most=65_536, may_be_odd=True)
LABELS = Each(WORDS, 4096)
ORDINAL = Either((COUNT, Text(most=64)))
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

RUN = Table(
    {},
    {"token": Text(most=128), "study": Text(), "run": Text(), "group": Text(), "label": Text(), "tag": Text(),
     "seed": Number(whole=True), "target": Text(), "project": Maybe(OPTIONAL_PATH), "run_dir": ABSOLUTE,
     "fingerprint": Text(most=128), "train": FREE, "factors": FREE, "global_batch": POSITIVE,
     "gpus": Either((COUNT, INDICES)), "port": Maybe(COUNT), "after": Maybe(ABSOLUTE), "max_retries": COUNT,
     "extended_from": Maybe(EXTENDED), "left": Maybe(LEFT), "fate": Maybe(OPTIONAL_PATH)},
    keeps=True,
)  # fmt: skip
"""run.json"""
ATTEMPT = Table(
    {},
    {"number": COUNT, "token": Maybe(Text(most=128)), "devices": Maybe(LABELS), "started_at": WHEN, "ended_at": WHEN,
     "wall_s": WHEN, "job": Maybe(Text(most=64)), "state": Maybe(STATE), "reason": Maybe(WORDS)},
    keeps=True,
)  # fmt: skip
START = Table(
    {},
    {"number": COUNT, "token": Maybe(Text(most=128)), "devices": Maybe(LABELS), "started_at": WHEN,
     "job": Maybe(Text(most=64)), "boot_id": Maybe(Text()), "before": Maybe(Each(ATTEMPT, 10_000)),
     "port": Maybe(COUNT)},
    keeps=True,
)  # fmt: skip
"""start.json"""
END = Table(
    {"state": STATE},
    {"token": Maybe(Text(most=128)), "reason": Maybe(WORDS), "ended_at": WHEN, "attempts": Each(ATTEMPT, 10_000),
     "fingerprint": Maybe(Text(most=128))},
    keeps=True,
)  # fmt: skip
"""end.json"""
CLAIM = Table({}, {"token": Maybe(Text(most=128)), "boot_id": Maybe(Text())}, keeps=True)
"""claim"""
HEARTBEAT = Table({}, {"attempt": Maybe(Text(most=256))}, keeps=True)
"""heartbeat.json; each number that makes no sense is one that is not known."""
OUTCOME = Table({}, {"attempt": Maybe(Text(most=256)), "status": Maybe(Text()), "reason": Maybe(WORDS)}, keeps=True)
"""outcome.json, likewise."""
MANIFEST = Table({"files": Each(Table({"name": NAME, "size": SIZE, "sha256": HASH}, keeps=True))}, keeps=True)
"""MANIFEST.json"""
FETCHED = Table(
    {},
    {"target": Text(), "host": Text(), "run_dir": Text(), "origin": Text(most=256),
     "files": Map(Table({"size": SIZE, "sha256": HASH}, {"seen": Each(Number(whole=True), 2)}, keeps=True), keys=NAME),
     "left": Each(Table({"name": NAME}, {"size": SIZE, "sha256": MAYBE_HASH})),
     "removed": Map(Text(most=128), keys=NAME)},
    keeps=True,
)  # fmt: skip
"""fetched.json, which the client writes beside what it has fetched."""

KINDS = {
    rundir.RUN: RUN, rundir.START: START, rundir.END: END, rundir.CLAIM: CLAIM, rundir.HEARTBEAT: HEARTBEAT,
    rundir.OUTCOME: OUTCOME, rundir.MANIFEST: MANIFEST, rundir.FETCHED: FETCHED,
}  # fmt: skip
"""By the name of the file."""


@functools.lru_cache(maxsize=None)
def _check(name: str) -> schema.Check:
    return schema.compiled(KINDS[name])


def why_not(name: str, content: Any) -> Optional[str]:
    """Return where the content of a file of this name is no such record, and why; None where it is one."""
    return _check(name)(content)


def read(path: Union[str, Path]) -> Optional[Dict[str, Any]]:
    """Return the record in a file, whose name says of which kind it is; None where rundir.read_json finds nothing.

    Raises:
        schema.Misfit: It is another thing.
    """
    content = rundir.read_json(path)
    if content is None:
        return None
    name = str(path).rpartition("/")[2]
    wrong = _check(name)(content)
    if wrong is not None:
        raise schema.Misfit(name + wrong)
    return content


def read_if_sound(path: Union[str, Path]) -> Dict[str, Any]:
    """Return the record in a file; an empty one where there is none, or another thing."""
    try:
        return read(path) or {}
    except schema.Misfit:
        return {}

"""A lock as plain files for an archive: what was planned, in JSON and to be read, with checksums and how to cite it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..audit.lock import Lock
from ..printed import date

UNKNOWN = "FILL IN"
"""In place of what nobody has said."""
SUMS, CITATION, README, LOCK, READABLE = "SHA256SUMS", "CITATION.cff", "README.md", "lock.json", "lock.txt"


def files(lock: Lock, content: bytes, study_file: Path, ledger: Path) -> dict[str, bytes]:
    """Return the files of a deposit, by name; the same ones each time.

    Args:
        content: Of the lock file.
        study_file: As it is now.
        ledger: Of the study; passed over where there is none.
    """
    found = {LOCK: content, READABLE: readable(lock).encode(), study_file.name: study_file.read_bytes()}
    if ledger.is_file():
        found[ledger.name] = ledger.read_bytes()
    found[CITATION] = _citation(lock).encode()
    found[README] = _readme(lock, study_file.name, has_ledger=ledger.name in found).encode()
    sums = [f"{hashlib.sha256(each).hexdigest()}  {name}\n" for name, each in sorted(found.items())]
    return {**found, SUMS: "".join(sums).encode()}


def readable(lock: Lock) -> str:
    """Return a lock as text."""
    lines = [
        f"Locked plan of study {lock.study}",
        f"sha256: {lock.sha256}",
        f"locked: {date(lock.locked_at)}, by the clock of the machine that wrote it",
        f"replaces: {lock.before or 'nothing, it is the first'}",
        f"code: {lock.code or 'not known'}",
        f"data: {json.dumps(lock.data) if lock.data else 'not known when it was locked'}",
        "",
        *_told(lock.plan),
    ]
    if lock.started:
        lines += ["", "Runs that had begun before:", *(f"  {name}" for name in lock.started)]
    if lock.fingerprints:
        lines += ["", "Fingerprints of runs:", *(f"  {name}: {value}" for name, value in lock.fingerprints.items())]
    return "\n".join(lines) + "\n"


def _told(plan: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    for key, value in plan.items():
        if isinstance(value, dict) and value:
            yield f"{indent}{key}:"
            yield from _told(value, f"{indent}  ")
        else:
            yield f"{indent}{key}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"


def _citation(lock: Lock) -> str:
    """Return a citation file (citation-file-format.github.io, 1.2.0), with marks where facts are lacking."""
    title = json.dumps(f"Locked plan of study {lock.study}", ensure_ascii=False)
    return f"""\
cff-version: 1.2.0
message: "If you refer to this plan, cite it as below. What says {UNKNOWN} was not known to who wrote this."
type: dataset
title: {title}
abstract: {json.dumps(str(lock.plan.get("question") or UNKNOWN), ensure_ascii=False)}
authors:
  - name: "{UNKNOWN}"
version: "{lock.sha256}"
date-released: {date(lock.locked_at)[:10]}
# doi: {UNKNOWN}
# license: {UNKNOWN}
"""


def _readme(lock: Lock, study_file: str, *, has_ledger: bool) -> str:
    ledger = "- `ledger.jsonl`: every lock of the study, and runs that were started over or forgotten\n"
    ledger = ledger if has_ledger else ""
    return f"""\
# Locked plan of study {lock.study}

Written by `oelm-report --lock --export` on the plan of {date(lock.locked_at)}. Nothing here was run by that command.

- `{LOCK}`: the plan, with hashes of code and data and fingerprints of the runs; `{READABLE}`: the same to read
- `{study_file}`: the study's file when this was exported
{ledger}- `{CITATION}`: how to cite it; what says {UNKNOWN} is for you to fill in, before the checksums are made anew
- `{SUMS}`: checksums of all of these: `sha256sum -c {SUMS}`

The lock's own hash is `{lock.sha256}`: that of its JSON without `sha256`, keys sorted. Each run that is queued under it
records this hash and when, by the clock of the machine that it runs on. A report of the study (`oelm-report`) names
what is not as it was locked.
The date of this lock is that of the clock of who wrote it: the date at which an archive took it in is better evidence.
"""

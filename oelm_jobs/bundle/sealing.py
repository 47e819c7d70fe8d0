"""Seal locks and choices again whose names were taken out: each states a hash of its own content, by which it shows
that nobody edited it. One that was edited before is never sealed.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .. import ledger
from ..analysis.audit import lock
from ..analysis.audit.plan import hash_of

CHOICE = "_choice.json"
"""What the names of choices' records end in."""
Sealed = set[tuple[str, int]]
"""Name of the file in the bundle before names are taken out, and line of a ledger."""


def whole(folder: Path) -> Sealed:
    """Return which locks and choices of a study are what their hashes say."""
    found = set()
    for path in sorted((folder / "experiments").rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            found |= {(name, number) for number, _content, one in _sealed_in(path) if _is_whole(path, one)}
    return found


def seal(path: Path, name: str, known: Mapping[str, str], sealed: Sealed) -> dict[str, str]:
    """Seal what a file holds and was whole; return the hashes that changed.

    Args:
        name: Of the file before names were taken out.
        known: Hashes that were replaced before, by the old ones.
    """
    found: dict[str, str] = {}
    lines = path.read_bytes().splitlines() if path.name == ledger.NAME else []
    for number, content, one in _sealed_in(path):
        if (name, number) not in sealed:
            continue
        changed = _of_choice(one) if path.name.endswith(CHOICE) else _of_lock(one, {**known, **found})
        if changed and lines:
            lines[number] = json.dumps(content, ensure_ascii=False).encode()
        elif changed:
            path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        found |= changed
    if found and lines:
        path.write_bytes(b"\n".join(lines) + b"\n")
    return found


def _sealed_in(path: Path) -> Iterator[tuple[int, Any, dict[str, Any]]]:
    """Yield number, object and lock of each line of a ledger, or the lock or choice of a file. Lines end as they do for
    whoever reads a ledger: U+2028 within one, say, ends none, and sealing, which writes it as it is, moves no line.
    """
    is_ledger = path.name == ledger.NAME
    if not is_ledger and path.suffix != ".json":
        return
    text = path.read_bytes()
    for number, part in enumerate(text.splitlines() if is_ledger else [text]):
        with contextlib.suppress(ValueError, RecursionError):
            content = json.loads(part)
            found = content.get("lock") if is_ledger and isinstance(content, dict) else content
            if not isinstance(found, dict):
                continue
            if path.name.endswith(CHOICE) or (isinstance(found.get("plan"), dict) and "plan_sha256" in found):
                yield number, content, found


def _is_whole(path: Path, one: dict[str, Any]) -> bool:
    return one.get("sha256") == _hash_of_choice(one) if path.name.endswith(CHOICE) else lock.is_whole(one)


def _hash_of_choice(content: Mapping[str, Any]) -> str:
    return hash_of({**content, "sha256": ""})


def _of_choice(content: dict[str, Any]) -> dict[str, str]:
    before, now = content["sha256"], _hash_of_choice(content)
    content["sha256"] = now
    return {before: now} if before != now else {}


def _of_lock(content: dict[str, Any], known: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    if content.get("before") in known:
        content["before"] = known[content["before"]]
    now = hash_of(content["plan"])
    if now != content["plan_sha256"]:
        found[content["plan_sha256"]] = content["plan_sha256"] = now
    if "sha256" in content:
        now = lock.sha256_of(content)
        if now != content["sha256"]:
            found[content["sha256"]] = content["sha256"] = now
    return found

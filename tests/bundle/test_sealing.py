"""Locks are sealed again after names were taken out where they were whole, and one that was edited never is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from oelm_jobs.analysis.audit import lock
from oelm_jobs.analysis.audit.plan import hash_of

from oelm_jobs import ledger
from oelm_jobs.bundle import anonymous, sealing
from oelm_jobs.bundle.identities import Identities

USER = "zquandt"


def locked(seeds: int = 2) -> dict[str, Any]:
    plan = {"who": USER, "seeds": seeds, "mark": "a\u2028b"}
    content: dict[str, Any] = {"plan": plan, "plan_sha256": hash_of(plan)}
    return content | {"sha256": lock.sha256_of(content)}


def edited() -> dict[str, Any]:
    return locked() | {"plan": {**locked()["plan"], "seeds": 3}}


def as_ledger(*locks: dict[str, Any]) -> str:
    return "".join(json.dumps({"event": ledger.LOCKED, "lock": one}) + "\n" for one in locks)


FILE, LEDGER = "tune_lock.json", ledger.NAME


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({f"tune/{LEDGER}": as_ledger(edited()), f"tune/old/{LEDGER}": as_ledger(locked())}, [False, True]),
        ({FILE: json.dumps(edited()), f"tune/{FILE}": json.dumps(locked())}, [False, True]),
        ({FILE: json.dumps(locked()), f"tune/{FILE}": json.dumps(edited())}, [True, False]),
        ({f"tune/{LEDGER}": as_ledger(locked(), edited(), locked(4))}, [True, False, True]),
        ({f"tune/{USER}_lock.json": json.dumps(locked())}, [True]),
    ],
    ids=["a ledger and a copy", "a lock and a copy", "a lock and an edited copy", "lines of a ledger", "renamed"],
)
def test_a_lock_that_was_edited_is_not_made_whole_by_taking_out_names(
    tmp_path: Path, files: dict[str, str], expected: list[bool]
) -> None:
    for name, text in files.items():
        path = tmp_path / "experiments" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    whole = sealing.whole(tmp_path)
    anonymous.scrub(
        tmp_path, Identities(users={USER: None}), (), (), lambda at, name, known: sealing.seal(at, name, known, whole)
    )
    found = []
    for name in files:
        text = (tmp_path / "experiments" / name.replace(USER, "user1")).read_text(encoding="utf-8")
        assert USER not in text
        rows = [json.loads(line) for line in text.split("\n") if line] if name.endswith(LEDGER) else [json.loads(text)]
        found += [lock.is_whole(row.get("lock", row)) for row in rows]
    assert found == expected

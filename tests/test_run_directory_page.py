"""docs/run-directory.md names each file of a run and each key of its records."""

from __future__ import annotations

import re
from typing import is_typeddict

import pytest

from oelm_jobs.agent import record_types, rundir
from oelm_jobs.agent.run_record import RunRecord
from tests.support import REPOSITORY

PAGE = (REPOSITORY / "docs" / "run-directory.md").read_text(encoding="utf-8")
CODE = " ".join(
    "".join(found) for found in re.findall(r"^```\w*\n(.*?)^```|`([^`\n]+)`", PAGE, re.MULTILINE | re.DOTALL)
)
RECORDS = {
    **{name: list(kind.__annotations__) for name, kind in vars(record_types).items() if is_typeddict(kind)},
    "RunRecord": [name for name in RunRecord._fields if name != "as_read"],
}


def names(key: str) -> bool:
    """Tell whether the page has a name, as code."""
    return re.search(rf"(?<![\w.]){re.escape(key)}(?!\w)", CODE) is not None


def test_the_page_is_looked_at() -> None:
    assert names("metrics.jsonl") and names("seed") and not names("frobnicated") and not names("see")
    assert len(RECORDS) > 15


def test_every_name_of_a_file_is_on_the_page() -> None:
    files = {value for name, value in vars(rundir).items() if name.isupper() and type(value) is str}
    assert len(files) > 15
    assert sorted(name for name in files if not names(name)) == []


@pytest.mark.parametrize("record", RECORDS)
def test_every_key_of_a_record_is_on_the_page(record: str) -> None:
    assert [key for key in RECORDS[record] if not names(key)] == []

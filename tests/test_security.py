"""What docs/security.md promises is shown by tests that exist."""

from __future__ import annotations

import re

from tests.support import REPOSITORY


def test_every_promise_of_the_security_page_names_tests_that_are_there() -> None:
    page = (REPOSITORY / "docs" / "security.md").read_text(encoding="utf-8")
    tables = re.findall(r"^\| promise \|.*\n\|[- |]+\n((?:\|.*\n)+)", page, re.MULTILINE)
    promises = [row for table in tables for row in table.splitlines()]
    assert len(promises) > 10
    for row in promises:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert named, row
        for path, name in named:
            assert f"def {name}(" in (REPOSITORY / path).read_text(encoding="utf-8"), f"{path}::{name}"

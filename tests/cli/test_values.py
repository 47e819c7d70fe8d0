"""Several values of a setting on a command line."""

from __future__ import annotations

import pytest

from oelm_jobs.cli.values import several, unquoted


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1e-3", ["1e-3"]),
        ("1e-3, 3e-4", ["1e-3", "3e-4"]),
        ("choice(a, b)", ["a", "b"]),
        ("range(3)", ["0", "1", "2"]),
        ("range(0.1,0.4,0.1)", ["0.1", "0.2", "0.3"]),
        ("range(4,0,-2)", ["4", "2"]),
        ("[1, 2]", ["[1, 2]"]),
        ('"a, b"', ['"a, b"']),
        ("\"a,b\", 'c,d'", ['"a,b"', "'c,d'"]),
        ("choice([1, 2],[3])", ["[1, 2]", "[3]"]),
        ("it's,fine", ["it's", "fine"]),
        ("[1, 2", ["[1, 2"]),
    ],
)
def test_the_command_line_gives_several_values(text: str, values: list[str]) -> None:
    assert several(text) == values


@pytest.mark.parametrize(
    "text",
    ["range(0)", "range(1,1)", "range(0,1,0)", "range(a)", "range(1e9)", "range()", "range(0,1,1e-9999999)",
     "range(1e-99999,1,1e-99999)"],
)  # fmt: skip
def test_a_range_without_values_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="range"):
        several(text)


def test_quotes_around_a_whole_value_are_no_part_of_it() -> None:
    assert [*map(unquoted, ['"a, b"', "'x' or 'y'", '"', "plain"])] == ["a, b", "'x' or 'y'", '"', "plain"]

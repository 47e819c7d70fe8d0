"""Tables of characters."""

from __future__ import annotations

import csv
import io

import pytest

from oelm_jobs import table

ROWS = [["gpt_base", "48.4"], ["oelm_freeze", "52.24"]]
HEADERS = ["group", "PPL"]


def test_a_text_table_is_aligned_without_trailing_blanks() -> None:
    assert table.text(ROWS, HEADERS, "lr").splitlines() == [
        "group          PPL",
        "-----------  -----",
        "gpt_base      48.4",
        "oelm_freeze  52.24",
    ]


def test_wide_characters_take_two_columns() -> None:
    lines = table.text([["冻结", "1"], ["a", "22"]], ["组", "n"], "lr").splitlines()
    assert {table.width(line) for line in lines} == {8}


def test_combining_characters_take_none() -> None:
    assert table.width("e\u0301") == 1 and table.width("a\u200bb") == 2


def test_control_characters_cannot_break_a_table() -> None:
    assert table.text([["a\nb", "\x1b[31mred"]], ["x", "y"]).splitlines()[2] == r"a\nb  \x1b[31mred"


def test_a_table_without_rows_has_its_headers() -> None:
    assert table.text([], HEADERS).splitlines() == ["group  PPL", "-----  ---"]
    assert table.markdown([], HEADERS, "lr").splitlines()[0] == "| group   | PPL   |"


def test_short_rows_are_filled() -> None:
    assert table.text([["a"]], HEADERS).splitlines()[2] == "a"


def test_markdown_escapes_what_would_end_a_cell() -> None:
    assert "a\\|b" in table.markdown([["a|b", "1"]], HEADERS)
    assert "<" not in table.markdown([["<script>", "1"]], ["<b>", "PPL"]), "nor what a browser would run"


def test_markdown_keeps_numbers_as_they_are_written() -> None:
    assert "1,000.10" in table.markdown([["a", "1,000.10"]], HEADERS, "lr")


@pytest.mark.parametrize(
    ("raw", "escaped"),
    [("50 %", "50 \\%"), ("a_b", "a\\_b"), ("± 1", "$\\pm$ 1"), ("{x}", "\\{x\\}"), ("a\\b", "a\\textbackslash{}b")],
)
def test_latex_escapes_special_characters(raw: str, escaped: str) -> None:
    assert escaped in table.latex([[raw, "1"]], HEADERS, "lr")


def test_latex_uses_booktabs() -> None:
    made = table.latex(ROWS, HEADERS, "lr")
    assert (
        made.startswith("\\begin{tabular}{lr}\n\\toprule")
        and "\\midrule" in made
        and made.endswith("\\bottomrule\n\\end{tabular}")
    )


def test_csv_reads_back_as_it_was() -> None:
    rows = [["a,b", 'quote "', None, 1.5]]
    made = table.csv(rows, ["w", "x", "y", "z"])
    assert list(csv.reader(io.StringIO(made))) == [["w", "x", "y", "z"], ["a,b", 'quote "', "", "1.5"]]


def test_headers_are_folded_only_as_far_as_it_takes_to_fit() -> None:
    rows, headers = [["gpt_base", "3.7863", "12"]], ["Run", "Mean validation loss", "Attempts so far"]
    whole = table.text(rows, headers, "lrr")
    assert table.text(rows, headers, "lrr", within=47) == whole and len(whole.splitlines()[0]) == 47
    assert table.text(rows, headers, "lrr", within=46).splitlines() == [
        "                Mean",
        "          validation  Attempts so",
        "Run             loss          far",
        "--------  ----------  -----------",
        "gpt_base      3.7863           12",
    ]
    assert table.text(rows, headers, "lrr", within=30).splitlines()[1] == "          validation  Attempts"

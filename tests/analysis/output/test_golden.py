"""Reports of small committed run folders, character by character.

``UPDATE_GOLDEN=1 pytest tests/analysis/output/test_golden.py`` writes them anew; read the difference before committing
it.
"""

from __future__ import annotations

import ast
import csv
import gettext
import io
import json
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from string import Formatter

import pytest
from oelm_jobs.analysis import figures, tables
from oelm_jobs.analysis.output import plain_text, results, writing
from oelm_jobs.analysis.reading import loading
from oelm_jobs.analysis.report import Report, build

from oelm_jobs import fitting
from tests.support import REPOSITORY, needs

from .. import synthetic

HERE = Path(__file__).parent
FOLDERS = HERE / "folders"
GOLDEN = HERE / "golden"
AT = 1_700_100_000.0


def study_report() -> Report:
    """Three groups, two seeds, one of them interrupted, as the toolkit leaves them."""
    study = synthetic.study(seeds=(42, 43), unequal={"world_size": "group C takes the whole server"})
    return build(study, loading.study_runs(study, FOLDERS / "demo", at=AT)[0])


def old_report() -> Report:
    """Old logs in three dialects with all that goes wrong in practice."""
    names = {"gpt_base": "gpt_medium", "oelm_no_freeze": "run_no_freeze", "oelm_freeze": "oelm_frozen"}
    study, runs = loading.load_folders(
        [], [f"{group}={FOLDERS / 'old' / name}" for group, name in names.items()], None, at=AT
    )
    return build(study, runs)


REPORTS = {"demo": study_report, "old": old_report}


@pytest.mark.parametrize("form", ["text", "markdown", "latex", "json"])
@pytest.mark.parametrize("name", REPORTS)
def test_a_report_is_what_it_was(name: str, form: str) -> None:
    compare(
        f"{name}.{ {'text': 'txt', 'markdown': 'md', 'latex': 'tex', 'json': 'json'}[form] }",
        writing.show(REPORTS[name](), form, "en", AT),
    )


@pytest.mark.parametrize("name", REPORTS)
def test_a_chinese_report_is_what_it_was(name: str) -> None:
    compare(f"{name}.zh.txt", writing.show(REPORTS[name](), "text", "zh", AT))


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize("name", REPORTS)
def test_a_report_fits_a_terminal_that_is_narrow(name: str, columns: int, language: str) -> None:
    report = REPORTS[name]()
    shown = writing.show(report, "text", language, AT, width=columns)
    for line in shown.splitlines():
        assert fitting.width(line) <= columns or len(re.split("  +", line.rstrip())) == 2, line  # a table of one run
    said = plain_text.verdicts(report, language).split()
    wrapped = plain_text.verdicts(report, language, columns).split()
    assert "".join(wrapped) == "".join(said) and (wrapped == said or language == "zh"), "no word is broken"
    assert len(shown.split()) > len(said)


def compare(name: str, made: str) -> None:
    path = GOLDEN / name
    made = made.replace(str(FOLDERS), "FOLDERS")
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(made, encoding="utf-8")
    assert made == path.read_text(encoding="utf-8")


def test_the_named_files_are_written_and_the_summary_beside_them(tmp_path: Path) -> None:
    files = writing.write(study_report(), tmp_path / "analysis", summary=tmp_path / "demo_summary.json", made_at=AT)
    names = {path.name for path in files}
    assert names >= {
        "comparison_table.txt",
        "hypothesis_validation.txt",
        "analysis_results.json",
        "report.html",
        "report.md",
        "tables.tex",
        "demo_summary.json",
    }
    summary = json.loads((tmp_path / "demo_summary.json").read_text())
    assert summary["version"] == 1 and list(summary["groups"]) == list(synthetic.GROUPS)
    assert set(summary["hypotheses"]) == {"H1", "H2", "H3", "H4"} and summary["interim"] is True
    assert not list(tmp_path.rglob(".*"))


def test_csv_holds_plain_numbers_and_empty_fields_for_what_is_missing() -> None:
    table = study_report().tables[0]
    rows = list(csv.DictReader(io.StringIO(plain_text.as_csv(table))))
    assert [row["total_params"] for row in rows] == [str(synthetic.TOTAL)] * 3
    assert rows[0]["gap_to_baseline"] == "" and float(rows[2]["gap_to_baseline"]) > 0
    old = list(csv.DictReader(io.StringIO(plain_text.as_csv(old_report().tables[0]))))
    assert old[0]["tokens_per_s_per_gpu"] == "" and old[0]["peak_gpu_mem_gb"] == ""


def test_a_missing_value_is_a_dash_and_never_zero_in_every_form_and_what_no_run_has_takes_no_room() -> None:
    report = old_report()
    for form in ("text", "markdown", "latex"):
        made = writing.show(report, form, "en", AT)
        line = next(line for line in made.splitlines() if line.lstrip("| ").startswith("Hours "))
        cells = line.replace("|", " ").replace("&", " ").replace("\\\\", " ").split()[1:]
        assert cells == [*["–" if form != "latex" else "--"] * 2, "6.20"] and "Peak memory" not in made
    nothing = replace(
        report,
        tables=tuple(
            replace(t, rows=((tables.Cell("a"), *[tables.EMPTY] * (len(t.columns) - 1)),)) for t in report.tables
        ),
    )
    assert "What a loss costs" not in writing.show(nothing, "text", "en", AT)


@pytest.mark.slow
def test_a_report_made_again_differs_in_its_date_alone(tmp_path: Path) -> None:
    made = []
    for i, at in enumerate((AT, AT + 86_400)):
        folder = tmp_path / str(i)
        drawn, _ = figures.draw(study_report(), "en", folder)
        files = writing.write(study_report(), folder, drawn, summary=folder / "s.json", made_at=at)
        made.append({path.name: path.read_bytes() for path in files})
    assert made[0].keys() == made[1].keys() and len(made[0]) > 20
    for name, content in made[0].items():
        other = made[1][name]
        lines, others = content.splitlines(), other.splitlines()
        changed = [a for a, b in zip(lines, others, strict=True) if a != b]
        assert len(changed) <= 1, name
        assert all(b"2023-11-16" in line for line in changed), name


def test_latex_tables_have_as_many_cells_as_columns() -> None:
    for block in writing.show(study_report(), "latex", "en", AT).split("\\begin{tabular}{")[1:]:
        columns = len(block[: block.index("}")])
        rows = [line for line in block.split("\\end{tabular}")[0].splitlines() if line.endswith("\\\\")]
        assert rows and all(line.replace("\\&", "").count("&") == columns - 1 for line in rows)


@pytest.mark.slow
def test_every_sentence_has_its_chinese_with_the_same_fields() -> None:
    def fields(sentence: str) -> set[str]:
        return {name for _, name, _, _ in Formatter().parse(sentence) if name}

    chinese = gettext.translation("oelm_jobs", REPOSITORY / "oelm_jobs" / "locale", ["zh"])
    for path in (REPOSITORY / "analysis").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "_":
                sentence = ast.literal_eval(node.args[0])
                translation = chinese.gettext(sentence)
                assert translation != sentence or sentence in ("Q/K", "n", "{a}\n{b}"), f"{path}: {sentence}"
                assert fields(translation) == fields(sentence), f"{path}: {sentence}"


LATEX_PAGE = r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}" "\n%s\n" r"\end{document}"
HOSTILE = "a_b 5% & c#d $x^2$ {\\cmd} ~ 1–2 ± ∞ <|>"


def latex_report(tmp_path: Path) -> Report:
    """Many groups with hostile names, a diverged run among them: what pdfLaTeX stumbles over."""
    for i in range(8):
        synthetic.make_run(tmp_path, f"[{i}] {HOSTILE}", reason="diverged" if i == 1 else "")
    return build(*loading.load_folders([tmp_path], [], None, at=AT))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["demo", "old", "hostile"])
def test_latex_tables_compile_and_fit_the_text(name: str, tmp_path: Path) -> None:
    report = latex_report(tmp_path / "runs") if name == "hostile" else REPORTS[name]()
    source = writing.show(report, "latex", "en", AT)
    if name == "hostile":
        tabulars = "".join(line for line in source.splitlines() if not line.startswith("%"))
        assert r"\{\textbackslash{}cmd\}" in tabulars and r"$\infty$" in tabulars and "∞" not in tabulars
    (tmp_path / "paper.tex").write_text(LATEX_PAGE % source, encoding="utf-8")
    needs("pdflatex")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout and (tmp_path / "paper.pdf").stat().st_size > 10_000


def test_the_comparison_rests_on_finished_runs_where_there_are_any() -> None:
    table = study_report().tables[0]
    rows = list(csv.DictReader(io.StringIO(plain_text.as_csv(table))))
    assert float(rows[2]["final_val_loss"]) == 3.95 and rows[2]["final_val_loss_sd"] == ""
    assert any("finished runs" in str(remark) for remark in table.remarks)


def test_many_groups_are_shown_in_pieces_that_can_be_read(tmp_path: Path) -> None:
    groups = {f"group_{i}": {"model_type": "gpt"} for i in range(8)}
    runs = [synthetic.load(synthetic.make_run(tmp_path, name)) for name in groups]
    report = build(synthetic.study(groups=groups, hypotheses=()), runs)
    made = writing.show(report, "text", "en", AT)
    assert "Comparison of the groups: results" in made and "Comparison of the groups: cost" in made
    assert max(map(len, made.splitlines())) < 200
    columns = {column.key for table in report.tables for column in table.columns}
    shown = {column.key for table in tables.cut(report.tables, 9) for column in table.columns}
    assert shown == columns


def test_a_gap_that_rounds_to_nothing_has_no_sign() -> None:
    assert [tables.show(tables.Cell(gap), tables.GAP, "en") for gap in (-0.0004, 0.0004, 0.0006)] == [
        "0.0 %", "0.0 %", "+0.1 %",
    ]  # fmt: skip


def test_verdicts_are_there_as_plain_numbers() -> None:
    rows = list(csv.DictReader(io.StringIO(results.verdicts_csv(study_report()))))
    assert [row["id"] for row in rows] == ["H1", "H2", "H3", "H4"]
    assert (rows[0]["verdict"], rows[0]["ratio_low"]) == ("supported", "") and float(rows[1]["ratio"]) > 1.1

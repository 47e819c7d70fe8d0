"""Where runs come from: the lines, the drawing, and runs whose source is another by now."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from oelm_jobs.analysis import lineage
from oelm_jobs.analysis.output import writing
from oelm_jobs.analysis.reading.loaded_run import LoadedRun
from oelm_jobs.analysis.report import build

from oelm_jobs.spec.study import Study
from oelm_jobs.study.files import read_study

PRE = """
factors = ["lr"]
[program]
command = "python pre.py {lr} {seed}"
[groups]
base = { lr = 1.0 }
data = { lr = 2.0 }
"""
TUNE = """
factors = ["lr"]
[program]
command = "python tune.py {lr} {seed} {init}"
[groups]
tuned = { lr = 1.0, inputs = { init = "pre/base:best" }, needs = ["late"] }
late = { lr = 2.0, inputs = { init = "pre/base-s42:<x>.pt" }, needs = ["pre/data"], when = "always" }
"""


@pytest.fixture
def studies(tmp_path: Path) -> tuple[Study, Study]:
    found = []
    for name, text in (("tune", TUNE), ("pre", PRE)):
        (tmp_path / f"{name}.toml").write_text(text)
        found.append(read_study(tmp_path / f"{name}.toml"))
    return found[0], found[1]


def test_what_needs_what_is_said_and_drawn_in_every_form(studies: tuple[Study, Study]) -> None:
    tune, pre = studies
    edges = lineage.edges(tune, {"pre": pre})
    assert [str(line) for line in lineage.lines(edges)] == [
        "tuned begins with pre/base:best (init)",
        "late begins with pre/base-s42:<x>.pt (init)",
        "late begins once pre/data is over",
        "tuned begins once late is done",
    ]
    svg = ElementTree.fromstring(lineage.drawing(edges))
    texts = [text.text for text in svg.iter("text") if text.text]
    assert {"tuned", "late", "pre/base", "pre/data", "<x>.pt", "best"} <= set(texts)
    report = replace(build(tune, []), lineage=edges)
    for form in ("text", "markdown", "html"):
        shown = writing.show(report, form, "en", 0.0, (), None, None)
        assert "Where runs come from" in shown and "once late is done" in shown
    assert "<svg" in shown and "&lt;x&gt;" in shown and "http" not in lineage.drawing(edges)
    rows = json.loads(writing.show(report, "json", "en", 0.0, (), None, None))["lineage"]
    assert rows[0] == {"source": "pre/base", "group": "tuned", "input": "init", "artifact": "best", "when": "success"}


def test_a_study_that_needs_nothing_has_no_word_of_it(studies: tuple[Study, Study]) -> None:
    report = build(studies[1], [])
    assert not lineage.edges(studies[1], {})
    assert "Where runs come from" not in writing.show(report, "html", "en", 0.0, (), None, None)
    assert "lineage" not in json.loads(writing.show(report, "json", "en", 0.0, (), None, None))


def test_what_has_become_another_file_since_is_named(tmp_path: Path) -> None:
    mine, source = tmp_path / "exp_tuned", tmp_path / "exp_base"
    row = {
        "input": "init", "study": "pre", "run": "base", "artifact": "best", "fingerprint": "f",
        "path": "/there/exp_base/best_model.pt", "sha256": "a" * 64, "size": 3, "time": 1.0,
    }  # fmt: skip
    entry = {"name": "best_model.pt", "size": 3, "sha256": "b" * 64}
    for folder, name, content in (
        (mine, ".oelm/inputs.json", {"version": 1, "inputs": [row]}),
        (source, "MANIFEST.json", {"version": 1, "files": [entry]}),
    ):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(json.dumps(content))
    run = LoadedRun(name="tuned", group="tuned", label="tuned", seed=42, path=mine)
    found = lineage.changes([run], lambda study, name: source)
    assert [str(said) for said in found] == [
        f"tuned began with pre/base:best ({'a' * 12}), which is another file by now ({'b' * 12})"
    ]
    (source / "MANIFEST.json").write_text(json.dumps({"version": 1, "files": [{**entry, "sha256": "a" * 64}]}))
    assert not lineage.changes([run], lambda study, name: source)
    row["path"] = "/there/exp_base/work/best_model.pt"
    files = [entry, {**entry, "name": "work/best_model.pt", "sha256": "a" * 64}]
    (mine / ".oelm" / "inputs.json").write_text(json.dumps({"version": 1, "inputs": [row]}))
    (source / "MANIFEST.json").write_text(json.dumps({"version": 1, "files": files}))
    assert not lineage.changes([run], lambda study, name: source), "another one has the same name"
    assert not lineage.changes([run], lambda study, name: None)

"""docs/report.md says what reports are: its words, options, files and pictures exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from oelm_jobs.analysis import findings
from oelm_jobs.analysis.judging import verdicts
from oelm_jobs.analysis.output import writing
from oelm_jobs.analysis.report import build

from oelm_jobs.cli.report import main
from tests.support import REPOSITORY

from . import synthetic

PAGE = (REPOSITORY / "docs" / "report.md").read_text(encoding="utf-8")
PICTURES = re.findall(r"\]\((images/[^)]+)\)", PAGE)


def test_every_verdict_and_severity_is_explained() -> None:
    first = " , ".join(re.findall(r"^\| ([^|]+) \|", PAGE, re.MULTILINE)).replace(" (one seed)", "")
    explained = {word.strip() for word in first.split(",")}
    wanted = {word.replace(" (one seed)", "") for word in (*verdicts.OUTCOMES, *findings.SEVERITIES)}
    assert wanted - {findings.NOTE} <= explained


def test_every_option_that_is_named_exists() -> None:
    known = {option for parameter in main.params for option in parameter.opts} | {"--lang", "--num-seeds"}
    assert set(re.findall(r"--[a-z][a-z-]+", PAGE)) <= known
    shown = {option for parameter in main.params for option in parameter.opts if option.startswith("--")}
    assert shown - set(re.findall(r"--[a-z][a-z-]+", PAGE)) <= {"--help", "--json", "--debug", "--version"}


def test_every_file_that_is_named_is_written(tmp_path: Path) -> None:
    report = build(synthetic.study(), synthetic.make_arms(tmp_path / "runs", {"gpt_base": [3.8]}))
    files = writing.write(report, tmp_path, summary=tmp_path / "<study>_summary.json", made_at=0.0)
    named = set(re.findall(r"`([a-z_<>]+\.(?:txt|md|html|tex|csv))`", PAGE)) | {"analysis_results.json"}
    assert len(named) > 6 and named <= {path.name for path in files}


@pytest.mark.parametrize("picture", PICTURES)
def test_pictures_are_there_and_small(picture: str) -> None:
    path = REPOSITORY / "docs" / picture
    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size < 200_000

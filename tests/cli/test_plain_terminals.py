"""Terminals that are narrow or know no UTF-8, and pipes: nothing fails, nothing that matters is cut off."""

from __future__ import annotations

import importlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from oelm_jobs import fitting
from oelm_jobs.cli.main import COMMANDS


@pytest.mark.parametrize("name", ["main", *COMMANDS])
def test_help_fits_forty_columns(name: str) -> None:
    main = importlib.import_module(f"oelm_jobs.cli.{name.replace('-', '_')}").main
    for chosen in ("zh", "en"):  # English stays
        shown = CliRunner().invoke(main, ["--help", "--lang", chosen], env={"COLUMNS": "40"}).output
        too_long = [line for line in shown.splitlines() if fitting.width(line) > 40]
        assert all(re.match(r"  -| +\S+$", line) for line in too_long), too_long  # a term or word that has no break


@pytest.mark.parametrize("name", COMMANDS)
def test_no_color_is_obeyed_on_a_terminal_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    main = importlib.import_module(f"oelm_jobs.cli.{name.replace('-', '_')}").main
    for value, expected in (("1", "red"), ("", "\x1b[31mred\x1b[0m")):  # https://no-color.org: set and not empty
        monkeypatch.setenv("NO_COLOR", value)
        with main.make_context(name, [], resilient_parsing=True), io.StringIO() as terminal:
            terminal.isatty = lambda: True
            click.echo(click.style("red", fg="red"), terminal, nl=False)
            assert terminal.getvalue() == expected


def said(project: Path, name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    argv = [sys.executable, "-c", f"from oelm_jobs.cli.{name} import main; main()", *arguments]
    variables = {**os.environ, "PYTHONIOENCODING": "ascii", **environment}
    return subprocess.run(argv, cwd=project, env=variables, capture_output=True, stdin=subprocess.DEVNULL, timeout=120)


@pytest.mark.slow
def test_where_utf_8_is_unknown_signs_are_like_it_and_words_are_escaped(project: Path) -> None:
    study = project / "jobs" / "tiny.toml"
    study.write_text(study.read_text().replace("Does the machinery work?", "Größe × 3 — 机器?"), encoding="utf-8")
    plan = said(project, "submit", "--study", "tiny", "--dry-run")
    assert plan.returncode == 0 and rb"Gr\xf6\xdfe x 3 - \u673a\u5668?" in plan.stdout
    refused = said(project, "submit", "--study", "größer")
    assert refused.returncode == 2 and rb"no study 'gr\xf6\xdfer'" in refused.stderr
    shown = json.loads(said(project, "submit", "--study", "tiny", "--dry-run", "--json").stdout)
    assert shown["study"] == "tiny"
    for done in (plan, refused, said(project, "report", "--study", "tiny"), said(project, "doctor")):
        assert (done.stdout + done.stderr).isascii() and b"Traceback" not in done.stderr


@pytest.mark.slow
def test_where_chinese_cannot_be_shown_english_is(project: Path) -> None:
    for encoding, word in (("ascii", b"Usage"), ("latin-1", b"Usage"), ("gb18030", "用法".encode("gb18030"))):
        done = said(project, "status", "--help", "--lang", "zh", PYTHONIOENCODING=encoding)
        assert done.returncode == 0 and done.stdout.startswith(word)

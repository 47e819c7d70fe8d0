"""Terminals that are narrow or know no UTF-8, and pipes: nothing fails, nothing that matters is cut off."""

from __future__ import annotations

import importlib
import inspect
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
from oelm_jobs.agent.states import State
from oelm_jobs.cli import common, init
from oelm_jobs.cli.main import COMMANDS
from oelm_jobs.errors import UsageError
from tests.cli.test_view import remember
from tests.support import needs


@pytest.mark.parametrize("name", ["main", *COMMANDS])
def test_help_fits_forty_columns(name: str) -> None:
    main = importlib.import_module(f"oelm_jobs.cli.{name.replace('-', '_')}").main
    for chosen in ("zh", "en"):  # English stays
        shown = CliRunner().invoke(main, ["--help", "--lang", chosen], env={"COLUMNS": "40"}).output
        too_long = [line for line in shown.splitlines() if fitting.width(line) > 40]
        assert all(re.match(r"  -| +\S+$", line) for line in too_long), too_long  # a term or word that has no break


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("取回结果（并校验）。", ["取回结果", "（并校", "验）。"]),
        ("用 oelm-report --lock 锁定", ["用", "oelm-report", "--lock", "锁定"]),
        ("种子数  [默认：1; x>=0]", ["种子数", "[默认：", "1; x>=0]"]),
    ],
)
def test_chinese_breaks_between_characters_and_punctuation_stays_with_them(text: str, lines: list[str]) -> None:
    assert fitting.wrap(text, 8) == lines


@pytest.mark.parametrize("name", COMMANDS)
def test_no_color_is_obeyed_on_a_terminal_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    main = importlib.import_module(f"oelm_jobs.cli.{name.replace('-', '_')}").main
    for value, expected in (("1", "red"), ("", "\x1b[31mred\x1b[0m")):  # https://no-color.org: set and not empty
        monkeypatch.setenv("NO_COLOR", value)
        with main.make_context(name, [], resilient_parsing=True), io.StringIO() as terminal:
            terminal.isatty = lambda: True
            click.echo(click.style("red", fg="red"), terminal, nl=False)
            assert terminal.getvalue() == expected


def test_a_line_of_two_columns_goes_on_below_the_second_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(common, "terminal_width", lambda: 40)
    common.say_wrapped("  question  学习率加到三倍，损失会更低吗？ And is it lower in the end, too?", " " * 12)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all(fitting.width(line) <= 40 for line in lines)
    assert lines[0].startswith("  question  学") and all(line.startswith(" " * 12 + line[12]) for line in lines[1:])
    assert common.columns({"oelm status": "where the runs stand", "oelm report --study x": "compare its groups"}) == [
        "  oelm status", "      where the runs stand", "  oelm report --study x", "      compare its groups",
    ]  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_what_asks_names_the_option_that_answers_where_there_is_no_terminal(name: str) -> None:
    module = importlib.import_module(f"oelm_jobs.cli.{name.replace('-', '_')}")
    options = [option for param in module.main.params for option in param.opts]
    asks = {"confirm(": "--yes", "_ask_kind(": "--study", "_ask_command(": "--command"}
    source = inspect.getsource(module)
    assert {asks[each] for each in asks if each in source} <= {*options}
    assert not re.search(r"click\.(confirm|prompt)|getpass|\binput\(", source), "asked in common alone"


def test_nobody_is_asked_without_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError) as refused:
        common.confirm("Remove it?", yes=False)
    assert "--yes" in refused.value.hint
    monkeypatch.chdir(tmp_path)
    for argv, flag in ([], "--study"), (["--study", "script"], "--command"):
        done = CliRunner().invoke(init.main, argv)
        assert done.exit_code == 2 and flag in done.stderr
    assert not [*tmp_path.iterdir()]


EACH = """
import importlib, json, sys
for name, argv in json.loads(sys.argv[1]).items():
    print(f"== {name}", file=sys.stderr)
    try:
        importlib.import_module(f"oelm_jobs.cli.{name.replace('-', '_')}").main.main(argv)
    except SystemExit as ended:
        print(f"exit code {ended.code}", file=sys.stderr)
"""


@pytest.mark.slow
def test_a_folder_that_may_not_be_written_is_named_by_what_writes_and_fails_nothing_else(project: Path) -> None:
    remember(project, ["gpt_base"], State.DONE)
    (project / "run.sh").write_text("python train.py --lr 1\n")
    reads = {
        "status": [],
        "doctor": ["--help"],
        "completion": ["bash"],
        "import-script": ["run.sh"],
        "cancel": ["--all"],
    }
    writes = {
        "init": ["--study", "reference"], "demo": [], "run": ["--", "true"], "submit": ["--study", "tiny"],
        "forget": ["gpt_base", "--yes"], "report": ["--study", "tiny"], "data": ["demo"],
    }  # fmt: skip
    argv = [sys.executable, "-c", EACH, json.dumps({**reads, **writes})]
    if os.geteuid() == 0:
        needs("setpriv")
        argv = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *argv]
    folders = [project / "jobs", project / "data", project]
    for folder in folders:
        folder.chmod(0o555)
    try:
        done = subprocess.run(argv, cwd=project, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)
    finally:
        for folder in folders:
            folder.chmod(0o755)
    said = dict(part.split("\n", 1) for part in done.stderr.split("== ")[1:])
    assert said.keys() == {**reads, **writes}.keys() and "Traceback" not in done.stderr, done.stderr
    for name, words in said.items():
        assert ("exit code 0" in words) == (name in reads), (name, words)
        assert name in reads or ("Permission denied" in words and "--debug" not in words), (name, words)


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

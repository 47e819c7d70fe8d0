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

from oelm_jobs import fitting, language
from oelm_jobs.agent.states import State
from oelm_jobs.cli import common, init, submit
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
    assert any(each in source for each in asks) == (name in ("clean", "forget", "submit", "cancel", "init"))
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


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("main", ["submit", "--study", "tiny", "--num-seeds", "300", "--dry-run"]),
        ("submit", ["--study", "tiny", "--num-seeds", "300", "--dry-run", "--script"]),
        ("status", ["--json"]),
        ("status", []),
        ("completion", ["bash"]),
        ("data", ["--help"]),
    ],
)
def test_a_reader_who_has_gone_is_no_error_and_has_a_code_of_its_own(
    project: Path, name: str, arguments: list[str]
) -> None:
    remember(project, [f"run{number}" for number in range(400)], State.DONE)
    primary, secondary = os.pipe()
    os.close(primary)
    argv = [sys.executable, "-c", f"from oelm_jobs.cli.{name} import main; main()", *arguments]
    with open(secondary, "wb") as nobody:
        done = subprocess.run(argv, cwd=project, stdout=nobody, stderr=subprocess.PIPE, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.fixture
def _english_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test has chosen is not what the next one speaks."""
    monkeypatch.setattr(language, "_chosen", "en")


@pytest.mark.usefixtures("_english_stays")
@pytest.mark.parametrize("arguments", [[], ["--lang", "zh"], ["--debug"]])
@pytest.mark.parametrize("name", ["main", "data"])
def test_a_command_of_commands_alone_lists_them_whatever_else_is_said(name: str, arguments: list[str]) -> None:
    main = importlib.import_module(f"oelm_jobs.cli.{name}").main
    shown = CliRunner().invoke(main, arguments)
    assert shown.exit_code == 0 and shown.stderr == ""
    assert shown.stdout == CliRunner().invoke(main, [*arguments, "--help"]).stdout
    assert ("用法" in shown.stdout) == ("zh" in arguments)


@pytest.mark.usefixtures("_english_stays")
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_plan_fits_forty_columns_but_for_what_is_copied(
    project: Path, lang: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setattr(common, "terminal_width", lambda stream=None: 40)
    plan = CliRunner().invoke(submit.main, ["--study", "tiny", "--num-seeds", "40", "--dry-run", "--lang", lang])
    assert plan.exit_code == 0
    lines = plan.output.splitlines()
    assert not [line for line in lines if fitting.width(line) > 40 and not re.search("/|--", line)]
    seeds = next(number for number, line in enumerate(lines) if re.search("42(, |、)43", line))
    assert re.match(r"  \S.* 42\D", lines[seeds]) and re.match(r" {12}\d", lines[seeds + 1])
    devices = next(number for number, line in enumerate(lines) if "GPU" in line and line.startswith("   "))
    assert re.match(r"   \S", lines[devices]) and re.match(r" {13}\S", lines[devices + 1])


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

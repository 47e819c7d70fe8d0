"""Nothing that a server, a log or a file's name says steers a terminal, reorders what it shows, or hides in it."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oelm_jobs import language, visible
from oelm_jobs.agent.sentences import _
from oelm_jobs.agent.states import State
from oelm_jobs.cli import common, view
from oelm_jobs.runs.observe import View
from oelm_jobs.store import ACCEPTED, Store
from tests.cli.test_view import stored
from tests.support import REPOSITORY, make_run

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\u202egnp.exe\u200b\rover"
"""Sets a window's title, clears the screen, uses C1, DEL, reorders, hides, writes over."""
DANGEROUS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@given(st.text(st.characters(exclude_categories=())))
def test_nothing_that_steers_is_left_in_any_text(words: str) -> None:
    for shown in (visible.text(words), visible.line(words)):
        assert not DANGEROUS.search(shown)
        assert not {unicodedata.bidirectional(character) for character in shown} & {"RLO", "LRO", "RLE", "RLI", "LRI"}
        shown.encode()
    assert "\n" not in visible.line(words) and "\t" not in visible.line(words)
    assert visible.text(words).count("\n") == words.count("\n")


def test_what_is_harmless_is_shown_as_it_is() -> None:
    for words in ("plain\twords\nand more", "运行 45 s …", "naïve – “quotes”", "Ω≈ç√ 👍"):
        assert visible.text(words) == words
    assert visible.line("a\nb\x1b[0m\u202e\U000e0041\ud800") == r"a\nb\x1b[0m\u202e\U000e0041\ud800"


@given(st.recursive(st.none() | st.text(st.characters(exclude_categories=())), st.lists))
def test_json_says_the_same_and_steers_nothing(value: object) -> None:
    for document in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        shown = visible.in_json(document)
        assert json.loads(shown) == json.loads(document) and not DANGEROUS.search(shown)


@given(st.text(st.characters(exclude_categories=("Cs",))), st.data())
def test_a_stream_cut_anywhere_shows_what_the_whole_would(words: str, data: st.DataObject) -> None:
    content = words.encode() + b"\x9b\xff\r\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)))))
    stream = visible.Stream()
    pieces = [content[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(content)], strict=True)]
    shown = "".join(stream.piece(piece) for piece in pieces) + stream.piece(b"", final=True)
    assert shown == visible.Stream().piece(content, final=True) and not DANGEROUS.search(shown)


def test_a_progress_bar_in_a_log_becomes_lines() -> None:
    stream = visible.Stream()
    assert stream.piece(b"10 %\r20 %\r") + stream.piece(b"\nnext\r\nlast\n") == "10 %\n20 %\nnext\nlast\n"


# Commands -------------------------------------------------------------------------------------------------------------


def harmless(shown: str) -> None:
    """Fail where something of HOSTILE is left: colours of our own may be there."""
    assert not DANGEROUS.search(re.sub(r"\x1b\[[0-9;]*m", "", shown)), repr(shown)
    assert "owned" not in shown or r"\x1b]0;owned\x07" in shown


def test_tables_titles_and_lines_show_foreign_words_as_escapes() -> None:
    runs = (stored("a" + HOSTILE, State.FAILED, reason=HOSTILE), stored("b", State.RUNNING, devices=[HOSTILE]))
    device = {"label": HOSTILE, "name": HOSTILE, "memory_mb": 1, "memory_used_mb": 0, "utilisation": 0, "user": HOSTILE,
              "run": HOSTILE}  # fmt: skip
    host = {"devices": [device], "queue": [{"run": HOSTILE, "user": HOSTILE}], "disk_free": 1}
    shown = View(runs=runs, unreachable={"box": HOSTILE}, at=0.0, hosts={HOSTILE: host})
    for width in (None, 60, 200):
        harmless(view.render(shown, width=width))
    harmless(view.line(runs[0], 0.0))
    assert "\n" not in view.line(stored("a", State.FAILED, reason="one\ntwo"), 0.0)


def remember(project: Path, reason: str) -> None:
    run = make_run(project, "gpt_base", study="tiny")
    with Store() as store:
        store.intend(project, "gone", str(project), "t1", "{}", [run], lambda known: run)
        store.answer("t1", ACCEPTED, states={run.run_dir: (State.FAILED, reason)})


def test_a_stored_reason_reaches_no_output_as_it_is(oelm, project: Path) -> None:
    remember(project, "not submitted: " + HOSTILE)
    for words in ((), ("--json",)):
        done = oelm("status", *words)
        assert not DANGEROUS.search(done.stdout + done.stderr)
    assert r"\x1b[2J" in oelm("status").stdout
    rows = json.loads(oelm("status", "--json").stdout)["runs"]
    assert rows[0]["reason"].endswith(HOSTILE), "a program gets what was said"


def test_an_error_is_harmless_also_with_its_traceback(oelm, project: Path) -> None:
    for words in ((), ("--debug",)):
        failed = oelm("status", HOSTILE + "\noelm-status: all is well", *words, check=False)
        assert failed.returncode == 2 and not DANGEROUS.search(failed.stderr)
        assert "\noelm-status: all is well" not in failed.stderr, "a second line is no second message"


def test_a_second_line_is_no_second_message(capsys: pytest.CaptureFixture[str]) -> None:
    for tell in (common.narrate, visible.notice):
        tell("box: a record in /x\noelm-fetch: all is well\n\noelm-fetch: all")
        assert not re.search("^oelm-fetch", capsys.readouterr().err, re.MULTILINE)
    common.narrate("\noelm-fetch: interrupted")
    assert capsys.readouterr().err == "\noelm-fetch: interrupted\n", "our own begins one"


def test_a_notice_from_below_the_commands_is_in_their_language(capsys: pytest.CaptureFixture[str]) -> None:
    language.choose("zh")
    try:
        visible.notice(_("nothing came for too long"))
    finally:
        language.choose("en")
    assert capsys.readouterr().err == "太久没有收到任何数据\n"


@pytest.mark.usefixtures("quick")
def test_a_log_on_a_terminal_steers_nothing_and_a_pipe_gets_it_byte_for_byte(oelm, project: Path) -> None:
    oelm("submit", "--study", "tiny", "--group", "gpt_base", "--wait")
    log = project / "models" / "checkpoints" / "tiny" / "exp_gpt_base" / "training.log"
    content = log.read_bytes() + HOSTILE.encode() + b"\n\xc2\x9b5n \x9b5n \xff\n"
    log.write_bytes(content)
    program = "from oelm_jobs.cli.logs import main; main()"
    words = [sys.executable, "-c", program, "gpt_base", "--lines", "9999"]
    assert subprocess.run(words, cwd=project, capture_output=True, check=True).stdout == content
    ours, theirs = os.openpty()
    with subprocess.Popen(words, cwd=project, stdout=theirs) as child:
        os.close(theirs)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # the other end is closed (pty(7))
                break
            shown += piece
    os.close(ours)
    text = shown.decode().replace("\r\n", "\n")
    assert child.returncode == 0 and not DANGEROUS.search(text)
    assert r"\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\u202egnp.exe\u200b" in text and "\nover\n" in text


def test_commands_print_through_one_place() -> None:
    """Also what is written tomorrow: nothing but cli/common.py, a notice and the line that a meter redraws prints by
    itself.
    """
    found = []
    for path in sorted((REPOSITORY / "oelm_jobs").rglob("*.py")):
        if path.name in ("common.py", "progress.py", "visible.py") or "agent" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "click.echo", "click.secho", "print", "sys.stdout.write", "sys.stderr.write", "click.confirm",
                "click.prompt", "input", "traceback.print_exc",
            ):  # fmt: skip
                found.append(f"{path.relative_to(REPOSITORY)}:{node.lineno}")
    assert not found

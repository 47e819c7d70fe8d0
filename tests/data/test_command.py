"""Tests of `oelm-data` as it is typed."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from oelm_jobs.data import check as data_check
from oelm_jobs.data import token_folder
from tests.data.stories import STORIES, write_stories

COMMAND = [sys.executable, "-c", "from oelm_jobs.cli.data import main; main()"]


def oelm_data(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *words], cwd=cwd, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_demo_makes_the_demo_data_of_the_project_that_one_is_in(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "demo.toml").touch()
    done = oelm_data("demo", cwd=tmp_path / "jobs")
    assert done.returncode == 0 and done.stderr == ""
    assert "gpt2-1024 tokens of austen.txt.xz" in done.stdout
    assert "train.bin     1,517,799 tokens" in done.stdout
    assert data_check.check(tmp_path / "data" / "demo") is not None
    again = oelm_data("demo", cwd=tmp_path)
    assert again.returncode == 0 and "up to date" in again.stderr and again.stdout.count("train.bin") == 1


@pytest.mark.slow
def test_demo_outside_of_a_project_makes_it_here_and_takes_another_vocabulary_and_place(tmp_path: Path) -> None:
    assert oelm_data("demo", "--vocab", "300", cwd=tmp_path).returncode == 0
    manifest = token_folder.read_manifest(tmp_path / "data" / "demo")
    assert manifest is not None and manifest.tokenizer.vocab_size == 300
    assert oelm_data("demo", "--output", "other", cwd=tmp_path).returncode == 0
    assert (tmp_path / "other" / "manifest.json").exists()


@pytest.mark.slow
def test_make_and_check_speak_of_what_they_did(tmp_path: Path) -> None:
    write_stories(tmp_path / "TinyStories-train.txt", STORIES)
    write_stories(tmp_path / "TinyStories-valid.txt", STORIES[:5])
    done = oelm_data("make", ".", "--output", "data/tiny", "--processes", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "data/tiny: gpt2 tokens of TinyStories-train.txt" in done.stdout
    assert "validation: TinyStories-valid.txt" in done.stdout
    assert "duplicates: 5 of 5 validation documents are in the training text too; 0 training" in done.stdout
    checked = oelm_data("check", "data/tiny", cwd=tmp_path)
    assert checked.returncode == 0 and checked.stdout.endswith("data/tiny: sound\n")
    os.truncate(tmp_path / "data" / "tiny" / "val.bin", 2)
    broken = oelm_data("check", "data/tiny", cwd=tmp_path)
    assert broken.returncode == 2
    assert broken.stderr.startswith("oelm-data: data/tiny/val.bin: has 2 bytes, its manifest says")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["make", "none.txt", "--output", "out"], "none.txt does not exist"),
        (["make", "a.jsonl", "--output", "out", "--field", "story"], "no field 'story'; valid: id, text"),
        (["make", "a.jsonl", "--output", "out", "--vocab", "70000"], "valid: 257 (bytes alone) to 50257"),
        (["make", "a.jsonl", "--output", "a.jsonl"], "a.jsonl is a file, not a folder"),
        (["make", "a.jsonl", "--output", "a.jsonl/sub/out"], "a.jsonl/sub: Not a directory"),
        (["demo", "--vocab", "5"], "no vocabulary of 5 entries"),
        (["check", "nowhere"], "nowhere is no folder"),
    ],
)
def test_an_error_is_one_line_and_a_hint_never_a_traceback(tmp_path: Path, words: list[str], message: str) -> None:
    write_stories(tmp_path / "a.jsonl", STORIES)
    done = oelm_data(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert message in done.stderr.splitlines()[0] and done.stderr.startswith("oelm-data: ")
    assert len(done.stderr.splitlines()) <= 2
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_bar_is_shown_on_a_terminal_and_stdout_stays_clean(tmp_path: Path) -> None:
    write_stories(tmp_path / "a.txt", STORIES)
    ours, theirs = pty.openpty()
    argv = [*COMMAND, "make", "a.txt", "--output", "out"]
    terminal = os.environ | {"TERM": "xterm"}
    with subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.PIPE, stderr=theirs, env=terminal) as process:
        os.close(theirs)
        seen = b""
        while True:
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # how Linux says that the other side has closed
                chunk = b""
            if not chunk:
                break
            seen += chunk
        assert process.stdout is not None
        stdout = process.stdout.read()
    os.close(ours)
    assert process.returncode == 0
    assert b"encoding" in seen
    assert b"\x1b" not in stdout and stdout.startswith(b"out: gpt2 tokens of a.txt")


def test_help_costs_no_numpy() -> None:
    program = (
        "import sys; sys.argv = ['oelm-data', 'make', '--help']\n"
        "from oelm_jobs.cli.data import main\n"
        "try:\n    main.main()\nexcept SystemExit:\n    pass\n"
        "assert not {'numpy', 'tiktoken', 'rich', 'pyarrow', 'torch'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


@pytest.mark.slow
def test_lines_with_nan_are_made_into_data_and_their_number_is_said_and_kept(tmp_path: Path) -> None:
    lines = [f'{{"text": "story {n} once upon a time", "score": NaN}}\n' for n in range(200)]
    (tmp_path / "s.jsonl").write_text("".join(lines) + r'{"text": "half \ud800"}' + "\n")
    done = oelm_data("make", "s.jsonl", "--output", "d", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "read all the same: 200 JSON lines with NaN" in done.stdout
    assert "read all the same: 1 texts with halves" in done.stdout
    manifest = token_folder.read_manifest(tmp_path / "d")
    assert manifest is not None and manifest.oddities == token_folder.Oddities(not_finite=200, surrogates=1)

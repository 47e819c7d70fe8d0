"""What a study asks of its token files: submit, `oelm-data check` and doctor say the same before anything is queued."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support import write_tokens

GPT = ("submit", "--study", "tiny", "--group", "gpt_base")


def shorten(project: Path) -> None:
    os.truncate(project / "data" / "tiny" / "val.bin", 2 * 17)


def widen(project: Path) -> None:
    ids = np.fromfile(project / "data" / "tiny" / "train.bin", "<u2")
    ids.astype("<i4").tofile(project / "data" / "tiny" / "train.bin")


def write_text(project: Path) -> None:
    (project / "data" / "tiny" / "train.bin").write_text("Once upon a time.\n" * 100)


def exceed(project: Path) -> None:
    ids = np.fromfile(project / "data" / "tiny" / "train.bin", "<u2")
    ids[77] = 64
    ids.tofile(project / "data" / "tiny" / "train.bin")


def cut_a_byte(project: Path) -> None:
    os.truncate(project / "data" / "tiny" / "val.bin", 99)


def garble_the_manifest(project: Path) -> None:
    (project / "data" / "tiny" / "manifest.json").write_text("{")


FAULTS = [
    (shorten, "val.bin: holds 17 tokens, and study tiny needs at least 18 (seq_len = 16)", "lower seq_len in"),
    (widen, "train.bin: holds 32-bit numbers, not uint16 token ids", "write ids as 16-bit numbers: "),
    (write_text, "train.bin: holds plain text, not uint16 token ids", "oelm-data make"),
    (exceed, "train.bin: token 77 is 64, and the vocabulary's last id is 63", "set vocab_size in [train]"),
    (cut_a_byte, "val.bin: 99 bytes are not uint16 token ids", "--force"),
    (garble_the_manifest, "manifest.json", "--force"),
]


@pytest.mark.parametrize(("break_it", "found", "mend"), FAULTS)
def test_submit_check_and_doctor_say_the_same(
    oelm, project: Path, break_it: Callable[[Path], None], found: str, mend: str
) -> None:
    assert oelm("data", "check", "data/tiny").returncode == 0
    break_it(project)
    refused = oelm(*GPT, check=False)
    assert refused.returncode == 2 and found in refused.stderr and "nothing was queued" in refused.stderr
    assert mend in refused.stderr and "No run yet" in oelm("status").stderr
    checked = oelm("data", "check", "data/tiny", check=False)
    assert checked.returncode == 2 and found in checked.stderr and mend in checked.stderr
    findings = json.loads(oelm("doctor", "--json", check=False).stdout)["findings"]
    (finding,) = [finding for finding in findings if finding["what"] == "data of tiny"]
    assert finding["verdict"] == "bad" and found in finding["found"] and mend in finding["mend"]


def test_the_shortest_validation_that_is_taken_trains(oelm, project: Path) -> None:
    os.truncate(project / "data" / "tiny" / "val.bin", 2 * 18)
    assert oelm("data", "check", "data/tiny").returncode == 0
    assert "DONE" in oelm(*GPT, "--wait").stdout


def test_check_asks_for_what_the_project_s_studies_need_of_that_folder_alone(oelm, project: Path, tmp_path) -> None:
    shorten(project)
    shutil.copytree(project / "data" / "tiny", tmp_path / "elsewhere")
    assert oelm("data", "check", str(tmp_path / "elsewhere")).returncode == 0, "no study names it"
    text = (project / "jobs" / "tiny.toml").read_text()
    (project / "jobs" / "tiny.toml").write_text(
        text.replace('"data/tiny/train.bin"', f'"{tmp_path}/elsewhere/train.bin"')
    )
    assert "study tiny needs" in oelm("data", "check", str(tmp_path / "elsewhere"), check=False).stderr
    assert oelm("data", "check", "data/tiny").returncode == 0
    (project / "jobs" / "broken.toml").write_text("=")
    assert "study tiny needs" in oelm("data", "check", str(tmp_path / "elsewhere"), check=False).stderr


def test_files_of_other_names_are_checked_as_the_study_names_them(oelm, project: Path) -> None:
    folder = project / "data" / "tiny"
    (folder / "train.bin").rename(folder / "a.bin")
    (folder / "val.bin").rename(folder / "b.bin")
    text = (project / "jobs" / "tiny.toml").read_text()
    (project / "jobs" / "tiny.toml").write_text(
        text.replace('"data/tiny/train.bin"', '"data/tiny/a.bin"\nval_data_path = "data/tiny/b.bin"')
    )
    assert oelm("data", "check", "data/tiny").returncode == 0
    os.truncate(folder / "b.bin", 4)
    assert "b.bin: holds 2 tokens" in oelm("data", "check", "data/tiny", check=False).stderr
    assert "b.bin: holds 2 tokens" in oelm(*GPT, check=False).stderr


def test_what_set_changes_is_asked_of_the_data_too(oelm, project: Path) -> None:
    refused = oelm(*GPT, "--set", "seq_len=1000", "--tag", "long", check=False)
    assert refused.returncode == 2 and "val.bin: holds 800 tokens" in refused.stderr
    assert "needs at least 1002 (seq_len = 1000)" in refused.stderr


def test_data_that_will_not_do_are_not_sent(oelm, project: Path, tmp_path: Path) -> None:
    (project / "jobs" / "targets.toml").write_text(f'[scratch]\nkind = "local"\nroot = "{tmp_path}/scratch"\n')
    widen(project)
    refused = oelm(*GPT, "--target", "scratch", "--send-data", check=False)
    assert refused.returncode == 2 and "holds 32-bit numbers, not uint16 token ids; nothing was sent" in refused.stderr
    assert not (tmp_path / "scratch" / "data").exists()


# Paths ------------------------------------------------------------------------------------------------------------


def edit_path(project: Path, path: str) -> None:
    study = project / "jobs" / "tiny.toml"
    study.write_text(study.read_text().replace('"data/tiny/train.bin"', json.dumps(path)))


def test_data_in_the_home_folder_are_found_there(
    oelm, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    edit_path(project, "~/data/tiny/train.bin")
    refused = oelm(*GPT, check=False)
    assert f"make it: oelm-data make TEXT... --output {tmp_path}/home/data/tiny\n" in refused.stderr
    shutil.move(project / "data", tmp_path / "home" / "data")
    assert oelm("data", "check", "~/data/tiny").stdout.endswith("sound\n")
    assert "DONE" in oelm(*GPT, "--wait").stdout
    findings = json.loads(oelm("doctor", "--json").stdout)["findings"]
    (finding,) = [finding for finding in findings if finding["what"] == "data of tiny"]
    assert "home/data/tiny has no manifest" in finding["found"]
    assert not (project / "~").exists()


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("$HOME/data/train.bin", "variables are not expanded"),
        ("${DATA}/train.bin", "variables are not expanded"),
        ("~somebody/data/train.bin", "another user's home folder must be given as an absolute path"),
        ("-data/train.bin", "begins with '-'"),
        ("data/\x1b[2J/train.bin", "control characters"),
    ],
)
def test_a_path_that_would_be_taken_literally_is_refused_by_name(oelm, project: Path, path: str, word: str) -> None:
    refused = oelm(*GPT, "--set", f"data_path={path}", "--tag", "x", check=False)
    assert refused.returncode == 2 and word in refused.stderr and "data_path" in refused.stderr
    edit_path(project, path)
    for words in (GPT, (*GPT, "--dry-run")):
        refused = oelm(*words, check=False)
        assert refused.returncode == 2 and word in refused.stderr and "data_path" in refused.stderr
        assert "\x1b" not in refused.stderr
    study = project / "jobs" / "tiny.toml"
    study.write_text(study.read_text().replace(json.dumps(path), '"data/tiny/train.bin"'))
    study.write_text(study.read_text().replace("vocab_size", f"val_data_path = {json.dumps(path)}\nvocab_size", 1))
    assert word in oelm(*GPT, check=False).stderr


def test_a_dollar_in_a_folder_s_name_is_part_of_it(oelm, project: Path) -> None:
    write_tokens(project / "data" / "cash$5" / "train.bin", 4000, 64)
    write_tokens(project / "data" / "cash$5" / "val.bin", 800, 64)
    edit_path(project, "data/cash$5/train.bin")
    assert "DONE" in oelm(*GPT, "--wait").stdout


def test_a_home_folder_that_the_shell_left_to_the_command_is_expanded(
    oelm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    oelm("data", "demo", "--vocab", "300", "--output=~/demo", cwd=tmp_path / "here")
    assert (tmp_path / "home" / "demo" / "train.bin").exists() and not list((tmp_path / "here").iterdir())

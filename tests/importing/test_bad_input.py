"""What is no script, or would go on for ever, ends with a sentence; nothing is written over, no secret is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from oelm_jobs.cli.import_script import main
from oelm_jobs.errors import DataError, OelmError, UsageError
from oelm_jobs.importing import proposal
from oelm_jobs.study.files import read_study

TRAIN = "python train.py --lr 0.1 --seed 1\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program's folder, which is the current one."""
    place = tmp_path / "mine"
    place.mkdir()
    (place / ".git").mkdir()
    (place / "train.py").touch()
    monkeypatch.chdir(place)
    return place


def propose(folder: Path, text: str | bytes, name: str = "a.sh") -> proposal.Proposal:
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return proposal.propose([folder / name], folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.sh", b"", "is empty"),
        ("a.sh", b"\x7fELF\0\0\1", "zero bytes"),
        ("a.py", b"print(1)\n", "it ends in .py"),
        ("a", b"#!/usr/bin/env python3\nprint(1)\n", "its first line names python3"),
        ("a.sh", b"echo hello\n", "starts no program"),
        ("a.sh", b"for i in {1..100000}; do python train.py --seed $i; done\n", "a.sh:1: a word of it stands for"),
        ("a.sh", b"for ((i=0;i<100000;i++)); do python train.py --seed $i; done\n", "more than 10,000 commands"),
        ("a.sh", b"i=0\nwhile [ $i -lt 5 ]; do echo; done\n", "a.sh:2: its loops go on"),
        ("a.sh", b"f() {\n  f\n}\nf\n", "a.sh:2: f calls itself without end"),
        ("a.sh", b"A=xx\nfor i in {1..60}; do A=$A$A; done\n", "a.sh:2: a variable grows"),
        ("a.sh", b"bash a.sh\n", "starts no program"),
        ("a.sh", b"if true; then python train.py\n", "starts no program"),
    ],
)
def test_what_is_no_script_is_said_to_be_none(folder: Path, name: str, content: bytes, why: str) -> None:
    with pytest.raises(DataError, match="a") as caught:
        propose(folder, content, name)
    assert why in str(caught.value)


def test_files_and_folders_that_are_not_there_are_named(folder: Path) -> None:
    with pytest.raises(DataError, match="none.sh: no such file"):
        proposal.propose([folder / "none.sh"], folder)
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="no script in this folder"):
        proposal.propose([folder / "empty"], folder)
    with pytest.raises(UsageError, match="which scripts"):
        main([], standalone_mode=False)


def test_other_alphabets_in_comments_do_no_harm(folder: Path) -> None:
    made = propose(folder, "# größer\n".encode("latin-1") + TRAIN.encode())
    assert [each.run for each in made.starts] == ["base"]


def test_lines_behind_a_fault_are_named_and_those_before_it_are_read(folder: Path) -> None:
    made = propose(folder, TRAIN + 'echo "never closed\n' + TRAIN)
    assert len(made.starts) == 1
    assert [(each.place.line, str(each.why)[:10]) for each in made.left] == [(2, "the rest f")]


def test_nothing_is_written_over_and_tables_go_behind_those_that_are_there(folder: Path) -> None:
    (folder / "jobs").mkdir()
    targets = folder / "jobs" / "targets.toml"
    targets.write_text('# mine\n[gpu]\nkind = "local"\n')
    made = propose(folder, "#SBATCH -p gpu\n#SBATCH --gres=gpu:1\n" + TRAIN)
    proposal.write(made)
    assert targets.read_text().startswith('# mine\n[gpu]\nkind = "local"\n\n[gpu-2]\n')
    assert read_study(folder / "jobs" / "train.toml").seeds == (1,)
    with pytest.raises(OelmError, match="is there already"):
        proposal.write(made)


def test_a_targets_file_that_holds_remarks_alone_keeps_them(folder: Path) -> None:
    targets = folder / "jobs" / "targets.toml"
    targets.parent.mkdir()
    targets.write_text("# where I am let in: ask the admins for gpu7\n")
    proposal.write(propose(folder, "#SBATCH -p gpu\n#SBATCH --gres=gpu:1\n" + TRAIN))
    assert targets.read_text().startswith("# where I am let in: ask the admins for gpu7\n\n[gpu]\n")


def test_a_study_is_not_called_as_one_that_oelm_run_has_made(folder: Path) -> None:
    kept = folder / ".oelm" / "studies" / "train.toml"
    kept.parent.mkdir(parents=True)
    kept.write_text('[program]\ncommand = "python train.py"\n[groups]\ntrain = {}\n')
    assert propose(folder, TRAIN).study.name == "train-2"
    with pytest.raises(UsageError, match="oelm run has made a study of that name"):
        proposal.propose([folder / "a.sh"], folder, "train")


def test_no_secret_is_written_or_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "export HF_TOKEN=hunter2hunter2\nwandb login 0123456789abcdef\n"
    propose(folder, text + "python train.py --seed 1 --hub_token hunter3hunter3 $X\n")
    for more in ([], ["--json"]):
        main(["a.sh", *more], standalone_mode=False)
    told = "".join(capsys.readouterr())
    assert "HF_TOKEN" in told
    assert not any(secret in told for secret in ("hunter2", "hunter3", "0123456789"))


def test_eighty_two_scripts_are_told_in_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arm in ("base", "frozen"):
        for lr in ("1e-3", "3e-4", "1e-4"):
            for seed in range(1, 6):
                warmup = 500 if (arm, lr) == ("frozen", "1e-4") and seed < 4 else 100
                freeze = "--freeze " if arm == "frozen" else ""
                command = f"python train.py {freeze}--lr {lr} --warmup {warmup} --seed {seed}\n"
                (folder / f"{arm}_lr{lr}_s{seed}.sh").write_text(command)
    for number in range(52):
        (folder / f"old{number}.sh").write_text("python prepare.py\n")
    main([".", "--json"], standalone_mode=False)
    told = json.loads(capsys.readouterr().out)
    assert told["headline"] == "82 scripts: 6 groups × 5 seeds; 3 differ in warmup that nobody declared"
    assert len(told["undeclared"][0]["scripts"]) == 3
    assert len(told["not_understood"]) == 52

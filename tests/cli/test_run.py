"""``oelm run``: a command as it stands, in any folder, with real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from oelm_jobs import Project
from oelm_jobs.agent.states import State
from oelm_jobs.cli.run import _what_next
from oelm_jobs.errors import UsageError
from oelm_jobs.study.files import load_study
from tests.support import end_all, wait_until

pytestmark = pytest.mark.slow

SCRIPT = """
import argparse, os, time
from models import net
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=1.0)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--step_s", type=float, default=0.0)
parser.add_argument("--fail", action="store_true")
told = parser.parse_args()
with open("attempts.txt", "a") as file:
    print("attempt", file=file)
if told.fail and len(open("attempts.txt").readlines()) == 1:
    raise SystemExit("no luck this time")
for step in range(1, 6):
    print(f"step {step}: loss {net.loss(step) * told.lr:.4f} seed {told.seed}", flush=True)
    time.sleep(told.step_s)
"""
TRAIN = ("python", "train.py")
Oelm = Callable[..., subprocess.CompletedProcess[str]]


def argv_of(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from oelm_jobs.cli.main import main; main()", *arguments]


def write_script(place: Path) -> None:
    """Make a plain folder with a script, of which no file is ours."""
    for name, text in {"train.py": SCRIPT, "models/net.py": "def loss(step): return 1 / step\n"}.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Such a folder."""
    place = tmp_path / "mine"
    write_script(place)
    yield place
    end_all(place)


@pytest.fixture
def oelm(folder: Path) -> Oelm:
    """Run a command of the toolkit there: ``oelm("run", "--", "python", "train.py")``."""

    def run(*arguments: str, cwd: Path = folder, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            argv_of(*arguments), cwd=cwd, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL
        )
        assert not check or done.returncode == 0, done.stderr + done.stdout
        return done

    return run


def states(oelm: Oelm) -> dict[str, str]:
    return {
        f"{run['study']}/{run['name']}": run["state"] for run in json.loads(oelm("status", "--json").stdout)["runs"]
    }


def work(folder: Path, study: str, run: str) -> Path:
    """Return the working folder of a run."""
    return folder / "models" / "checkpoints" / study / f"exp_{run}" / "work"


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True)
    return done.stdout


def test_a_command_runs_in_a_plain_folder_and_other_commands_find_its_run(folder: Path, oelm: Oelm) -> None:
    done = oelm("run", "--", *TRAIN, "--lr", "0.5")
    lines = [f"step {step}: loss {0.5 / step:.4f} seed 0" for step in range(1, 6)]
    assert done.stdout.splitlines() == ["train: submitted to local", *lines]
    assert f"study train in .oelm/studies/train.toml, code of {folder}" in done.stderr
    assert "train is DONE; its files:" in done.stderr
    assert states(oelm) == {"train/train": "DONE"}
    assert states(lambda *words: oelm(*words, cwd=folder / "models")) == {"train/train": "DONE"}
    assert oelm("logs", "train").stdout.splitlines() == lines
    assert "train: " in oelm("fetch").stdout
    assert "train" in oelm("report", "--study", "train").stdout
    assert sorted(path.name for path in folder.iterdir()) == [".oelm", "experiments", "models", "train.py"]


def test_code_of_folders_that_hold_other_things_elsewhere_comes_along(folder: Path, oelm: Oelm) -> None:
    for name in ("data", "build", "train"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").touch()
        (folder / name / "part.py").write_text(f"print('part of {name}')\n")
    (folder / "all.py").write_text("import build.part, data.part, models.net, train.part\n")
    assert "part of build\npart of data\npart of train\n" in oelm("run", "--", "python", "all.py").stdout


def test_in_a_git_checkout_the_command_runs_at_its_top_with_what_is_not_committed(folder: Path, oelm: Oelm) -> None:
    git(folder, "init", "-q")
    (folder / ".gitignore").write_text("secret.py\n")
    (folder / "secret.py").write_text("")
    git(folder, "add", ".")
    (folder / "new.py").write_text("import os; print(sorted(os.listdir('.')))\n")
    said = oelm("run", "--", "python", "new.py", cwd=folder / "models").stdout
    assert "new.py" in said and "train.py" in said and "secret.py" not in said
    assert git(folder, "status", "--short").splitlines() == [
        "A  .gitignore",
        "A  models/net.py",
        "A  train.py",
        "?? new.py",
    ]


def test_values_and_seeds_are_runs_of_one_study_to_which_the_same_command_adds(folder: Path, oelm: Oelm) -> None:
    command = ("--", *TRAIN, "--lr", "{lr}", "--seed={seed}")
    done = oelm("run", "--set", "lr=1e-4,0.5", "--num-seeds", "2", *command)
    names = ["lr_1e-4", "lr_0_5", "lr_1e-4-s43", "lr_0_5-s43"]
    assert done.stdout.splitlines()[:4] == [f"{name}: submitted to local" for name in names]
    assert states(oelm) == dict.fromkeys([f"train/{name}" for name in names], "DONE")
    assert "step 1: loss 0.5000 seed 43" in oelm("logs", "lr_0_5-s43").stdout
    again = oelm("run", "--set", "lr=0.5,2", "--set", "lr=3", *command).stdout
    assert again.splitlines()[:3] == [
        "lr_0_5: left alone, is done", "lr_2: submitted to local", "lr_3: submitted to local",
    ]  # fmt: skip
    assert list(load_study(folder, "train").groups) == ["lr_1e-4", "lr_0_5", "lr_2", "lr_3"]
    assert load_study(folder, "train").seeds == (42, 43)
    assert len(work(folder, "train", "lr_0_5").joinpath("attempts.txt").read_text().splitlines()) == 1


def test_another_command_is_a_study_of_its_own(folder: Path, oelm: Oelm) -> None:
    oelm("run", "--", *TRAIN)
    oelm("run", "--", *TRAIN, "--lr", "2")
    oelm("run", "--set", "lr=2", "--", *TRAIN, "--lr", "{lr}")
    assert oelm("run", "--", *TRAIN).stdout == "train: left alone, is done\n"
    assert states(oelm) == {f"{name}/{name}": "DONE" for name in ("train", "train-2", "train-3")}


def test_words_arrive_as_they_are_and_none_of_them_is_ours(folder: Path, oelm: Oelm) -> None:
    (folder / "show.py").write_text("import sys; print(sys.argv[1:])\n")
    words = ["a b", "it's", '"x"', "$(ls)", "*", "a&&b", "--lang", "de", "--debug", "--", "-h", "值"]
    said = oelm("run", "--set", "odd=it's {seed}", "--", "python", "show.py", *words, "{odd}", "{{x}}").stdout
    assert said.splitlines()[-1] == repr([*words, "it's {seed}", "{x}"])
    kept = [f"--set={word}" for word in ('a="1,2"', "b=[0.9,0.99]", "c=2024-01-02", "d=true", "e=#1", "f=inf")]
    said = oelm("run", *kept, "--", "python", "show.py", "{settings}").stdout
    assert said.splitlines()[-1] == repr(
        ["--a=1,2", "--b=[0.9,0.99]", "--c=2024-01-02", "--d=true", "--e=#1", "--f=inf"]
    )


def test_ctrl_c_leaves_the_run_alone_and_says_how_to_come_back(folder: Path, oelm: Oelm) -> None:
    argv = argv_of("run", "--", *TRAIN, "--step_s", "30")
    with subprocess.Popen(argv, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        wait_until(lambda: "step 1" in process.stdout.readline(), "its log")
        process.send_signal(signal.SIGINT)
        _out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "train goes on. Come back with: oelm-logs train -f; end it with: oelm-cancel train" in err
    assert states(oelm) == {"train/train": "RUNNING"}
    assert oelm("run", "--detach", "--", *TRAIN, "--step_s", "30").stdout.startswith("train: left alone")
    assert oelm("cancel", "train").stdout == "train: cancelled\n"


def test_a_command_that_fails_is_told_and_goes_on_with_the_same_words(folder: Path, oelm: Oelm) -> None:
    failed = oelm("run", "--", *TRAIN, "--fail", check=False)
    assert failed.returncode == 1 and "no luck this time" in failed.stdout
    assert "train is FAILED" in failed.stderr and "the same command again goes on with it" in failed.stderr
    assert "step 5" in oelm("run", "--", *TRAIN, "--fail").stdout
    assert states(oelm) == {"train/train": "DONE"}


def test_a_study_that_is_saved_is_one_like_any_other(folder: Path, oelm: Oelm) -> None:
    command = ("--", *TRAIN, "--lr", "{lr}")
    oelm("run", "--save", "rates", "--set", "lr=1,2", *command)
    assert not (folder / ".oelm" / "studies").exists()
    assert oelm("submit", "--study", "rates").stdout == "lr_1: left alone, is done\nlr_2: left alone, is done\n"
    assert oelm("run", "--save", "rates", "--set", "lr=2,3", *command).stdout.startswith("lr_2: left alone")
    refused = oelm("run", "--save", "rates", "--", *TRAIN, check=False)
    assert refused.returncode == 2 and "is the study of another command" in refused.stderr


def test_a_study_that_is_saved_later_keeps_its_runs_and_is_one(folder: Path, oelm: Oelm) -> None:
    command = ("--", *TRAIN, "--lr", "{lr}")
    oelm("run", "--set", "lr=1,2", *command)
    assert oelm("run", "--save", "train", "--set", "lr=2,3", *command).stdout.startswith("lr_2: left alone")
    assert states(oelm) == {"train/lr_1": "DONE", "train/lr_2": "DONE", "train/lr_3": "DONE"}
    assert not (folder / ".oelm" / "studies" / "train.toml").exists()
    refused = oelm("run", "--save", "train", "--", *TRAIN, check=False)
    assert refused.returncode == 2 and "is the study of another command" in refused.stderr


def test_a_run_that_is_over_starts_over_where_that_is_asked_for(folder: Path, oelm: Oelm) -> None:
    oelm("run", "--", *TRAIN)
    assert "give --yes" in oelm("run", "--rerun", "--", *TRAIN, check=False).stderr
    assert "step 5" in oelm("run", "--rerun", "--yes", "--", *TRAIN).stdout


def test_commands_at_once_run_each_value_once_and_lose_none(folder: Path, oelm: Oelm) -> None:
    several = [
        subprocess.Popen(
            argv_of("run", "--detach", "--set", f"lr=1,{1 + number % 3},5", "--", *TRAIN, "--lr", "{lr}"),
            cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
        )
        for number in range(6)
    ]  # fmt: skip
    for process in several:
        _out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
    names = {"lr_1", "lr_2", "lr_3", "lr_5"}
    wait_until(lambda: set(states(oelm).values()) == {"DONE"}, "all to be done")
    assert set(states(oelm)) == {f"train/{name}" for name in names} and set(load_study(folder, "train").groups) == names
    for name in names:
        assert work(folder, "train", name).joinpath("attempts.txt").read_text() == "attempt\n"


def test_changed_code_is_said_and_a_tag_runs_it_beside_what_was_done(folder: Path, oelm: Oelm) -> None:
    oelm("run", "--", *TRAIN)
    (folder / "models" / "net.py").write_text("def loss(step): return 2 / step\n")
    said = oelm("run", "--", *TRAIN).stdout
    assert "left alone, is done" in said and "models/net.py" in said and "--tag" in said
    assert "step 1: loss 2.0000" in oelm("run", "--tag", "twice", "--", *TRAIN).stdout
    assert states(oelm) == {"train/train": "DONE", "train/train-twice": "DONE"}


def test_a_dry_run_shows_the_commands_and_leaves_nothing_behind(folder: Path, oelm: Oelm) -> None:
    before = sorted(folder.rglob("*"))
    said = oelm("run", "--dry-run", "--set", "lr=1,2", "--", *TRAIN, "--lr", "{lr}").stdout
    assert "command   python train.py --lr 2" in said and "1. lr_1" in said
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["which command?", "oelm run -- python train.py"]),
        (["--", "python", "nope.py"], ["nope.py: no such file in", "give paths as seen from there"]),
        (["--", *TRAIN, "{lr}"], ["the command has {lr}", "--set lr=VALUE,VALUE"]),
        (["--", *TRAIN, '{"a": 1}'], ["can't stand for a value", "write two: {{ and }}"]),
        (["--set", "lr=1", "--", *TRAIN], ["--set lr: the command has no place for it", "--lr {lr}"]),
        (["--set", "lr", "--", *TRAIN], ["--set lr: give KEY=VALUE"]),
        (["--set", "lr=1,", "--", *TRAIN], ["--set lr=1,: give KEY=VALUE"]),
        (["--set", "lr=range(0)", "--", *TRAIN, "{lr}"], ["--set lr=range(0): the range is empty"]),
        (["--num-seeds", "3", "--", *TRAIN], ["--num-seeds 3: the command has no place for the seed", "--seed {seed}"]),
        (["--target", "bxo", "--", *TRAIN], ["no target 'bxo'", "valid: local"]),
        (["--save", "a b", "--", *TRAIN], ["--save 'a b'", "letters, digits"]),
        (["--save", "targets", "--", *TRAIN], ["--save 'targets'", "is the file of targets"]),
        (["--data", "data/none", "--", *TRAIN], ["data/none"]),
    ],
)
def test_what_is_wrong_with_a_command_is_said_before_anything_is_written(
    folder: Path, oelm: Oelm, arguments: list[str], expected: list[str]
) -> None:
    done = oelm("run", *arguments, check=False)
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr, done.stderr
    for part in expected:
        assert part in done.stderr
    assert not (folder / ".oelm" / "studies").exists() and not (folder / "jobs").exists()


def test_devices_that_are_not_there_are_told_with_the_option_that_asked_for_them(oelm: Oelm) -> None:
    done = oelm("run", "--gpus", "99", "--", *TRAIN, check=False)
    assert done.returncode == 2 and "asks for 99 " in done.stderr
    assert "give the command another --gpus or --target" in done.stderr and ".toml" not in done.stderr.split("asks")[1]
    assert "oelm run [OPTIONS] -- COMMAND..." in oelm("run", "--help").stdout


def test_a_home_folder_is_no_programs(tmp_path: Path, oelm: Oelm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "mine"))
    done = oelm("run", "--", *TRAIN, check=False)
    assert done.returncode == 2 and "is no program's folder" in done.stderr


def test_data_are_linked_where_the_program_looks_for_them(folder: Path, oelm: Oelm) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "rows.bin").write_bytes(b"12345")
    (folder / "count.py").write_text("print(len(open('data/rows.bin', 'rb').read()), 'bytes')\n")
    missing = oelm("run", "--", "python", "count.py", check=False)
    assert missing.returncode == 1 and "the same command with --data data/rows.bin" in missing.stderr
    assert "5 bytes" in oelm("run", "--data", "data/rows.bin", "--", "python", "count.py").stdout
    (folder / "data" / "rows.bin").write_bytes(b"1234567")
    other = oelm("run", "--data", "data/rows.bin", "--", "python", "count.py", check=False)
    assert other.returncode == 2 and "other data" in other.stderr


def test_the_api_does_the_same(folder: Path) -> None:
    with Project(folder, is_any=True, say=lambda text: None) as project:
        plan = project.plan_command([*TRAIN, "--lr", "{lr}"], settings={"lr": ["1", "2"]})
        assert [run.name for run in plan.runs] == ["lr_1", "lr_2"]
        project.submit(plan)
        assert {run.state for run in project.wait(plan).runs} == {State.DONE}
    assert os.fspath(plan.study.path) == f"{folder}/.oelm/studies/train.toml"


def test_the_api_refuses_a_command_without_words(folder: Path) -> None:
    with Project(folder, is_any=True) as project, pytest.raises(UsageError, match="which command"):
        project.plan_command([])


def test_what_a_reason_quotes_need_be_no_files_name(tmp_path: Path) -> None:
    assert _what_next(tmp_path, f"ValueError: '{'x' * 300}'") == "the same command again goes on with it"


def test_what_a_program_lacks_and_is_here_is_to_be_named_and_for_another_machine_sent(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    for is_here, ending in ((True, "--data rows"), (False, "--data rows --send-data")):
        assert _what_next(tmp_path, "FileNotFoundError: 'rows'", is_here=is_here).endswith(ending)

"""What users type wrongly: one clear line on stderr, an exit code, no traceback, nothing queued."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import stand_in_for_nvidia_smi


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["submit", "--study", "tinny"], ["no study 'tinny'", "did you mean 'tiny'?"]),
        (["submit", "--study", "tiny", "--group", "oelm_freez"], ["did you mean 'oelm_freeze'?"]),
        (["submit", "--study", "tiny", "--target", "bxo"], ["no target 'bxo'", "valid: local"]),
        (["submit", "--study", "tiny", "--target", ""], ["--target was given no name", "leave it out to mean local"]),
        (["submit", "--study", "tiny", "--tag", "x", "--set", "freez_qk=true"], ["did you mean 'freeze_qk'?"]),
        (["submit", "--study", "tiny", "--grup", "gpt_base"], ["--grup", "--group"]),
        (["main", "statsu"], ["no command 'statsu'; did you mean 'status'?", "oelm --help"]),
        (["main", "submit", "--grup", "gpt_base"], ["--grup", "--group"]),
        (["data", "chek"], ["no command 'chek'; did you mean 'check'?"]),
        (["data", "--lang", "zh", "chek"], ["没有命令 'chek'；是不是 'check'？"]),
        (["submit", "--study", "tiny", "--tag", "x", "--set", "d_model=31"], ["num_heads = 2 must divide d_model"]),
        (["submit", "--study", "tiny", "--set", "max_steps=5"], ["--tag NAME"]),
        (["submit", "--study", "tiny", "--seeds", "a"], ["whole numbers"]),
        (["submit", "--study", "tiny", "--tag", "a b"], ["letters, digits"]),
        (["submit", "--study", "tiny", "--script"], ["goes with --dry-run"]),
        (["status", "--state", "runing"], ["did you mean 'RUNNING'?"]),
        (["status", "nothing"], ["'nothing' names no study, group or run"]),
        (["logs", "nothing"], ["'nothing' names no study, group or run"]),
        (["cancel"], ["name a study, a group or a run", "--all"]),
        (["clean"], ["name a study, a group or a run", "--all"]),
        (["forget"], ["name a study, a group or a run", "--all"]),
        (["forget", "nothing*"], ["'nothing*' names no study, group or run"]),
        (["cancel", "--seed", "3-1"], ["--seed 3-1: give numbers and ranges", "42,45-47"]),
        (["fetch", "--seed", "x"], ["--seed x: give numbers and ranges"]),
        (["cancel", "--state", "runing"], ["did you mean 'RUNNING'?"]),
    ],
)
def test_a_wrong_word_is_named_with_the_right_ones(oelm, arguments: list[str], expected: list[str]) -> None:
    done = oelm(*arguments, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    for part in expected:
        assert part in done.stderr
    assert "Traceback" not in done.stderr


def test_of_several_studies_one_is_named_and_a_single_one_is_meant_without_a_word(oelm, project: Path) -> None:
    only = oelm("submit", "--dry-run")
    assert "study tiny" in only.stdout and "tiny" not in only.stderr
    implicit = project / ".oelm" / "studies" / "train.toml"
    implicit.parent.mkdir(parents=True)
    implicit.write_text((project / "jobs" / "tiny.toml").read_text())
    assert "study tiny" in oelm("submit", "--dry-run").stdout, "what oelm run made is none of those in jobs/"
    (project / "jobs" / "other.toml").write_text((project / "jobs" / "tiny.toml").read_text())
    done = oelm("submit", "--dry-run", check=False)
    assert done.returncode == 2
    for part in ("no study", "has default = true", "--study: other, tiny"):
        assert part in done.stderr


@pytest.mark.usefixtures("quick")
def test_json_stands_alone_on_stdout_also_after_a_wait(oelm, project: Path) -> None:
    done = oelm("submit", "--study", "tiny", "--group", "gpt_base", "--json", "--wait")
    assert [run["state"] for run in json.loads(done.stdout)["runs"]] == ["DONE"]
    assert "gpt_base: submitted to local" in done.stderr


def test_a_target_that_was_renamed_keeps_no_command_from_the_others(oelm, project: Path) -> None:
    targets = project / "jobs" / "targets.toml"
    targets.write_text('[other]\nkind = "local"\n')
    study = project / "jobs" / "tiny.toml"
    study.write_text(study.read_text().replace("max_steps = 12", "max_steps = 100000"))
    for group, target in (("gpt_base", "other"), ("oelm_freeze", "local")):
        oelm("submit", "--study", "tiny", "--group", group, "--target", target)
    targets.unlink()
    done = oelm("cancel", "--all", "--yes", check=False)
    assert done.returncode == 3 and "no target 'other'" in done.stderr and "oelm_freeze: cancelled" in done.stdout
    assert oelm("fetch", check=False).returncode == 3
    targets.write_text('[other]\nkind = "local"\n')
    assert "gpt_base: cancelled" in oelm("cancel", "--all", "--yes").stdout


def test_missing_data_is_named_before_anything_is_queued(oelm, project: Path) -> None:
    (project / "data" / "tiny" / "val.bin").unlink()
    done = oelm("submit", "--study", "tiny", check=False)
    assert (
        done.returncode == 2
        and "val.bin: no such file; nothing was queued" in done.stderr
        and "oelm-data" in done.stderr
    )
    assert "No run yet" in oelm("status").stderr


def test_a_wrong_word_is_told_before_what_is_missing(oelm, project: Path) -> None:
    shutil.rmtree(project / "data")
    for words, expected in (
        (["--group", "gpt_bas"], "did you mean 'gpt_base'?"),
        (["--tag", "x", "--set", "max_step=5"], "did you mean 'max_steps'?"),
        (["--set", "max_step=5"], "did you mean 'max_steps'?"),
        (["--group", "gpt_bas", "--send-data"], "did you mean 'gpt_base'?"),
        (["--seeds=-1"], "seeds go from 0"),
    ):
        done = oelm("submit", "--study", "tiny", *words, check=False)
        assert done.returncode == 2 and expected in done.stderr and "no such file" not in done.stderr


def test_more_devices_than_the_machine_has_are_refused_before_anything_is_queued(oelm, project: Path) -> None:
    study = project / "jobs" / "tiny.toml"
    study.write_text(study.read_text().replace("global_batch = 4", "global_batch = 4096").replace(
        'model_type = "gpt" }', 'model_type = "gpt", gpus = 2048 }'))  # fmt: skip
    done = oelm("submit", "--study", "tiny", "--group", "gpt_base", check=False)
    assert done.returncode == 2 and "asks for 2048 CPU slots" in done.stderr and "nothing was queued" in done.stderr
    assert "No run yet" in oelm("status").stderr


def test_an_internal_error_shows_its_traceback_only_when_asked(
    oelm, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "from oelm_jobs.runs import observe\n"
        "def broken(*a, **k): raise RuntimeError('oops')\n"
        "observe.refresh = broken\n"
        "from oelm_jobs.cli.status import main; main()"
    )
    plain = subprocess.run([sys.executable, "-c", program], cwd=project, capture_output=True, text=True)
    assert (
        plain.returncode == 70
        and "internal error: RuntimeError: oops" in plain.stderr
        and "Traceback" not in plain.stderr
    )
    debug = subprocess.run([sys.executable, "-c", program, "--debug"], cwd=project, capture_output=True, text=True)
    assert "Traceback" in debug.stderr


def test_status_without_runs_says_what_to_do_and_prints_valid_json(oelm) -> None:
    done = oelm("status")
    assert done.stdout == "" and "oelm-submit" in done.stderr
    assert json.loads(oelm("status", "--json").stdout)["runs"] == []


def test_a_damaged_index_is_named_and_made_again_without_being_lost(oelm) -> None:
    state = Path(os.environ["OELM_STATE_DIR"])
    state.mkdir(parents=True)
    (state / "runs.sqlite3").write_bytes(b"not a database" * 100)
    done = oelm("status", check=False)
    assert done.returncode == 2 and "is damaged" in done.stderr and "oelm-status --rebuild" in done.stderr
    assert "it is kept as" in oelm("status", "--rebuild").stderr
    (kept,) = state.glob("runs.sqlite3.damaged-*")
    assert kept.read_bytes().startswith(b"not a database")
    assert oelm("status").returncode == 0


def test_a_full_disk_behind_stdout_is_named(project: Path) -> None:
    program = "from oelm_jobs.cli.status import main; main(['--json'])"
    with open("/dev/full", "w") as full:
        argv = [sys.executable, "-c", program]
        done = subprocess.run(argv, cwd=project, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 74 and "No space left" in done.stderr and "Traceback" not in done.stderr


def test_a_removed_current_folder_is_named(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    program = f"import os; os.rmdir({str(gone)!r}); from oelm_jobs.cli.status import main; main([])"
    gone.mkdir()
    done = subprocess.run([sys.executable, "-c", program], cwd=gone, capture_output=True, text=True)
    assert done.returncode == 2 and "the current folder has been removed" in done.stderr


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ('["box\\nrm -rf x"]\nkind = "local"', "can't be a target's name"),
        ('[bare]\nkind = "local"\npython = "/nowhere/python"', "is no program on this machine; nothing was queued"),
        ('[bare]\nkind = "ssh"\nhost = "h"\nroot = "$SCRATCH/oelm"', "variables are not expanded"),
        ('[bare]\nkind = "ssh"\nhost = "h"\nroot = "/scratch/${USER}/oelm"', "variables are not expanded"),
    ],
)
def test_a_target_that_cannot_be_is_refused(oelm, project: Path, table: str, expected: str) -> None:
    (project / "jobs" / "targets.toml").write_text(table + "\n")
    done = oelm("submit", "--study", "tiny", "--target", "bare", check=False)
    assert done.returncode == 2 and expected in done.stderr, done.stderr


def test_a_label_with_control_characters_is_refused(oelm, project: Path) -> None:
    study = project / "jobs" / "tiny.toml"
    study.write_text(study.read_text().replace('"Group A: GPT-Base"', '"A\\u001b[2J"'))
    done = oelm("submit", "--study", "tiny", "--dry-run", check=False)
    assert done.returncode == 2 and "label" in done.stderr and "without control characters" in done.stderr
    assert "\x1b" not in done.stderr


def test_a_gpu_that_does_not_exist_is_refused_before_anything_is_queued(
    oelm, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = 'for i in 0 1; do echo "$i, GPU-$i, NVIDIA RTX A5000, 24564, 12, 0"; done'
    stand_in_for_nvidia_smi(tmp_path, monkeypatch, two)
    study = project / "jobs" / "tiny.toml"
    study.write_text(study.read_text().replace('model_type = "gpt" }', 'model_type = "gpt", gpus = [0, 7] }'))
    done = oelm("submit", "--study", "tiny", "--group", "gpt_base", check=False)
    assert done.returncode == 2 and "nothing was queued" in done.stderr
    assert "asks for GPU 7; local has GPUs 0, 1" in done.stderr and "change gpus" in done.stderr, done.stderr
    assert "No run yet" in oelm("status").stderr


def test_the_language_of_an_error_about_the_language_is_the_users_own(oelm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OELM_LANG", "zh")
    done = oelm("status", "--lang", "xx", check=False)
    assert done.returncode == 2 and "可选" in done.stderr, done.stderr


@pytest.mark.parametrize("position", [0, 1])
def test_the_language_may_be_chosen_before_a_subcommand_and_behind_it(oelm, position: int) -> None:
    words = ["status"]
    words[position:position] = ["--lang", "zh"]
    assert "还没有运行" in oelm("main", *words).stderr


def test_a_folder_of_targets_alone_is_no_project(oelm, project: Path) -> None:
    (project / "inner" / "jobs").mkdir(parents=True)
    (project / "inner" / "jobs" / "targets.toml").write_text("")
    assert oelm("submit", "--study", "tiny", "--dry-run", cwd=project / "inner").returncode == 0


def test_a_command_ends_its_process_once_all_is_said_and_done(project: Path) -> None:
    program = "import atexit; from oelm_jobs.cli.status import main; atexit.register(print, 'done at the end'); main()"
    done = subprocess.run(
        [sys.executable, "-c", program + "\nprint('never')", "--help"], cwd=project, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage:") and done.stdout.endswith("\ndone at the end\n")

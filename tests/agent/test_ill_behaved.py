"""Programs that do what no program should: what is said of it, and that nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from oelm_jobs.analysis.audit import configurations
from oelm_jobs.analysis.reading import reference, run_directory, run_files

from oelm_jobs.agent import rundir, trees
from oelm_jobs.agent.reasons import codes
from oelm_jobs.agent.reasons import read as reason_of
from oelm_jobs.agent.run import result, saved, work
from oelm_jobs.agent.run_record import RunRecord
from oelm_jobs.spec.study import Run
from oelm_jobs.transfer import sync
from tests.agent.test_script import LINES, attempts, log, over, program, snapshot, start
from tests.support import end_all, make_run, needs, read, script_of, state, wait_until


@pytest.fixture
def code(root: Path) -> Path:
    """A project's folder without code."""
    folder = root / "code"
    folder.mkdir()
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A project's folder on a disk of 250 MB."""
    needs("mount", root=True, linux=True)
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=250m", "tmpfs", str(disk)], check=True)
    try:
        (disk / "code").mkdir()
        yield disk / "code"
        end_all(disk)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


# Output ---------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_program_that_prints_gigabytes_has_its_words_while_it_runs_and_in_the_report(small_disk: Path) -> None:
    run = make_run(small_disk.parent, "a")
    lines = "yes it goes on and on | head -c 220000000; echo; echo iter 7: loss 1; sleep 3600"
    start(small_disk, run, program("bash", "-c", lines, metrics=LINES))
    row = wait_until(lambda: row if (row := state(run)).get("step") == 7 else None, "its last line")
    assert codes(reason_of(row)) >= {"passed_over", "prints_much", "disk_nearly_full"}
    assert "it has printed 0.2 GB, 0.2 GB of which live reading has passed over (the report reads all)" in row["reason"]
    assert (row["step"], row["metrics"]) == (7, {"loss": 1.0}), "the newest is read all the same"
    assert "it has printed 0.2 GB" in run_files.read(Path(run.run_dir), now=0.0).notes


@pytest.mark.slow
def test_a_program_whose_output_fills_the_disk_is_said_to_have_done_so(small_disk: Path) -> None:
    run = make_run(small_disk.parent, "a")
    start(small_disk, run, program("bash", "-c", "yes || { sleep 1; exit 1; }"))
    row = over(run)
    assert row["state"] == "FAILED"
    assert row["reason"].startswith("disk full: exit code 1; it has printed 0.3 GB: ")
    assert shutil.disk_usage(small_disk).used > 2e8, "nothing of it was thrown away"


# Outside of its folder ------------------------------------------------------------------------------------------------

LARGE = "x" * (work.LARGE_BYTES + 1)
FILES = {"large.txt": LARGE, "main.py": "print(1)\n", "other.py": "print(2)\n"}


def manifest(run: Run) -> set[str]:
    return {file["name"] for file in read(Path(run.run_dir) / rundir.MANIFEST)["files"]}


@pytest.mark.slow
def test_what_is_left_in_the_shared_code_is_said_and_no_later_run_takes_it_for_code(root: Path) -> None:
    code, (first, second) = snapshot(root, **FILES), (make_run(root, name) for name in "ab")
    lines = "touch $(dirname $(realpath large.txt))/left.csv; echo x"
    start(code, first, program("bash", "-c", lines), snapshot=code.name)
    row = over(first)
    assert row["state"] == "DONE"
    assert row["reason"].startswith(f"{code}/left.csv changed while it ran, which others share: let it write by")
    start(code, second, program("ls"), token="t2", snapshot=code.name)
    assert (over(second)["reason"], log(second)) == ("", "large.txt\nmain.py\nother.py\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage", ["echo y > {file}", "rm {file}", "cp {file} {file}.new; echo y >> {file}.new; mv {file}.new {file}"]
)
def test_code_that_was_changed_on_the_target_is_said_and_sent_again_before_it_is_used(root: Path, damage: str) -> None:
    code, (first, second) = snapshot(root, **FILES), (make_run(root, name) for name in "ab")
    lines = "chmod u+w {code} {file}; " + damage
    lines = lines.format(code=code, file=f"{code}/other.py")
    start(code, first, program("bash", "-c", lines + "; echo x"), snapshot=code.name)
    assert f"{code}/other.py changed while it ran" in over(first)["reason"]
    start(code, second, program("python", "-S", "other.py"), token="t2", snapshot=code.name)
    row = over(second)
    assert (row["state"], log(second)) == ("FAILED", "")
    assert f"its code in {code} is no longer what was sent: submit again" in row["reason"]
    assert snapshot(root, **FILES) == code and trees.files_of(str(code)) == sorted(FILES)
    start(code, second, program("python", "-S", "other.py"), token="t3", snapshot=code.name)
    assert wait_until(lambda: state(second)["token"] == "t3" and over(second), "its end")["state"] == "DONE"
    assert log(second) == "2\n"


@pytest.mark.parametrize("files", [{"main.py": "print(1)\n"}, FILES], ids=["the only one", "all"])
@pytest.mark.parametrize("is_touched", [True, False])
def test_code_of_which_every_file_was_rewritten_is_noticed(root: Path, files: dict[str, str], is_touched: bool) -> None:
    code, run = snapshot(root, **files), make_run(root, "a")
    for path in code.iterdir():  # as root can write into what can only be read
        path.chmod(0o644)
        path.write_text(path.read_text().replace("1", "2") + "\n")
        path.chmod(0o444)
        if not is_touched:
            os.utime(path, ns=(trees.STORED_NS, trees.STORED_NS))
    start(code, run, program("python", "-S", "main.py"), snapshot=code.name)
    assert (over(run)["state"], log(run)) == ("FAILED", "")


@pytest.mark.parametrize(
    ("mode", "at"),
    [(0o777, trees.STORED_NS), (0o555, trees.STORED_NS), (0o444, 10**18)],
    ids=["modes", "modes but whether it is read-only", "times"],
)
def test_on_a_disk_that_does_not_keep_modes_or_times_code_counts_as_it_is(root: Path, mode: int, at: int) -> None:
    code, run = snapshot(root, **FILES), make_run(root, "a")
    for path in code.iterdir():
        path.chmod(mode)
        os.utime(path, ns=(at, at))
    start(code, run, program("python", "-S", "main.py"), snapshot=code.name)
    assert (over(run)["state"], log(run)) == ("DONE", "1\n")


@pytest.mark.slow
def test_data_that_change_under_a_run_are_said(root: Path) -> None:
    code, run, data = snapshot(root, **FILES), make_run(root, "a"), root / "sets" / "chars"
    data.mkdir(parents=True)
    (data / "train.bin").write_text("tokens")
    record = program("bash", "-c", "echo more >> chars/train.bin; echo x > chars/own.txt", data=[["chars", str(data)]])
    start(code, run, record, snapshot=code.name)
    row = over(run)
    assert row["state"] == "DONE" and row["reason"].startswith(f"{data}/train.bin changed while it ran")
    assert "work/chars/own.txt" in manifest(run)
    told = run_directory.load(Path(run.run_dir), now=0.0)
    findings = configurations.beyond({"a": [told]}, reference.study_of([told]))
    assert [found.severity for found in findings if row["reason"] in found.text] == ["warning"]


@pytest.mark.parametrize(
    ("place", "is_folder", "file"),
    [("main.py", True, "main.py"), ("main.py/x", False, "main.py"), ("main.py/x", True, "main.py")],
)
def test_a_file_of_the_code_where_data_want_a_folder_is_said(
    root: Path, place: str, is_folder: bool, file: str
) -> None:
    code, run, data = snapshot(root, **FILES), make_run(root, "a"), root / "set"
    if is_folder:
        data.mkdir()
    (data / "x" if is_folder else data).write_text("tokens")
    start(code, run, program("ls", data=[[place, str(data)]]), snapshot=code.name)
    row = over(run)
    assert (row["state"], log(run)) == ("FAILED", "")
    assert f"{file} is a file of the code, and its data want a folder there" in row["reason"]


@pytest.mark.parametrize(
    ("said", "is_hinted"),
    [
        ("PermissionError: [Errno 13] Permission denied: 'large.txt'", True),
        ("OSError: [Errno 30] Read-only file system: '{code}/new.csv'", True),
        ("main.py: line 3: chars/x: Permission denied", True),
        ("PermissionError: [Errno 13] Permission denied: '/root/x'", False),
    ],
)
def test_a_program_that_may_not_write_is_told_where_it_may(root: Path, said: str, is_hinted: bool) -> None:
    code, run, data = snapshot(root, **FILES), make_run(root, "a"), root / "sets"
    data.mkdir()
    (data / "x").touch()
    words = said.format(code=code)
    record = program("bash", "-c", 'echo "$1"; exit 1', "x", words, data=[["chars", str(data)]])
    start(code, run, record, snapshot=code.name)
    reason = over(run)["reason"]
    hint = "is shared and can only be read: let it write by relative names or to {run_dir}: "
    assert (hint in reason) == is_hinted and reason.endswith(words)


def test_files_that_the_study_names_and_that_lie_elsewhere_are_said_to_be_missing(code: Path) -> None:
    run = make_run(code.parent, "a")
    metrics = {"files": ["m.csv"], "goal": {"loss": "minimize"}}
    lines = f"mkdir -p {code.parent}/elsewhere; touch {code.parent}/elsewhere/ckpt.pt; echo x"
    start(code, run, program("bash", "-c", lines, checkpoint="ckpt.pt", metrics=metrics))
    row = over(run)
    said = "it left no ckpt.pt, m.csv in its run directory or the folder work there"
    assert (row["state"], row["reason"]) == ("DONE", said)
    told = run_directory.load(Path(run.run_dir), now=0.0)
    assert (told.told_status, said in told.notes) == ("DONE", True)


def test_what_cannot_be_read_is_named_and_the_run_is_done_all_the_same(code: Path) -> None:
    run = make_run(code.parent, "a")
    lines = "echo x > a.txt; echo x > b.txt; chmod 0 b.txt; mkdir c; echo x > c/d.txt; chmod 0 c"
    script = code.parent / "launch.sh"
    script.write_text(script_of(code, run, (), "t1", program=program("bash", "-c", lines)))
    command = ["bash", str(script)]
    if os.geteuid() == 0:  # for whom all can be read, unless the kernel is told otherwise
        needs("setpriv")
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    subprocess.run(command, check=True)
    row = state(run)
    assert row["state"] == "DONE"
    assert row["reason"] == "what can't be read is not among its results: work/b.txt, work/c"
    assert {name for name in manifest(run) if name.startswith("work/")} == {"work/a.txt"}


def test_a_supervisor_that_was_killed_in_the_middle_of_a_copy_leaves_no_file_among_the_results(root: Path) -> None:
    code = snapshot(root, **FILES)
    record = {"run_dir": str(root / "exp_a"), "snapshot": code.name, "program": {"stages": []}}
    (root / "exp_a" / ".oelm").mkdir(parents=True)
    dying = (
        "import json, os, shutil, signal, sys\n"
        "from oelm_jobs.agent.run import work\n"
        "from oelm_jobs.agent.run_record import RunRecord\n"
        "def copy(source, to):\n"
        "    open(to, 'w').write('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "shutil.copyfile = copy\n"
        "work.prepare(RunRecord.of(json.loads(sys.argv[1])), sys.argv[2], print)\n"
    )
    ended = subprocess.run([sys.executable, "-c", dying, json.dumps(record), str(code)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert list(result.result_files(root / "exp_a")) == []
    top = Path(work.prepare(RunRecord.of(record), str(code), print))
    assert sorted(path.name for path in top.iterdir()) == sorted(FILES)
    assert (top / "main.py").read_text() == "print(1)\n" and list(result.result_files(root / "exp_a")) == []


def test_hidden_files_below_the_run_directory_are_results_and_come_along(code: Path) -> None:
    run = make_run(code.parent, "a")
    lines = 'cd "$1"; mkdir -p .hydra c-5 .git; touch .hydra/c.yaml c-5/.metadata .git/config .x.1.2'
    start(code, run, program("bash", "-c", lines, "x", ["", "run_dir", ""]))
    assert over(run)["state"] == "DONE", "files in the run directory are something, too"
    assert {name for name in manifest(run) if name.rpartition("/")[2][0] == "." or name[0] == "."} == {
        ".hydra/c.yaml", "c-5/.metadata",
    }  # fmt: skip
    assert all(map(sync.safe_name, manifest(run)))


# Checkpoints ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_link_is_a_checkpoint_where_nothing_else_fits_and_leads_to_what_is_the_runs_own(code: Path) -> None:
    run = make_run(code.parent, "a")
    (code / "outside.pt").write_text("another's")
    lines = (
        'echo "from $1: $(cat "$1" 2>&1 | tail -n 1)"; [ "$1" ] && exit;'
        f"ln -s {code}/outside.pt x_latest.pt; echo 3 > step-3.pt; mkdir out;"
        "ln -s ../step-3.pt out/y_latest.pt; exit 1"
    )
    more = {"checkpoint": "**/*_latest.pt", "resume": [["", "checkpoint", ""]]}
    record = program("bash", "-c", lines, "x", ["", "resume", ""], **more)
    start(code, run, record)
    assert over(run)["state"] == "FAILED"
    start(code, run, record, token="t2")
    assert wait_until(lambda: state(run)["token"] == "t2" and over(run), "its end")["state"] == "DONE"
    assert log(run).splitlines()[-1] == f"from {run.run_dir}/work/out/y_latest.pt: 3"
    assert attempts(run)[1]["resumed_from"] == "work/out/y_latest.pt"


def test_a_link_to_a_folder_is_whole_where_that_is(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-5"
    folder.mkdir()
    (tmp_path / "latest").symlink_to("checkpoint-5")
    assert saved.newest(tmp_path, "latest") == "", "an empty folder is none"
    (folder / "state.json").write_text("{}")
    assert saved.newest(tmp_path, "latest") == "latest"
    (folder / "more.json").write_text('{"half": ')
    assert saved.newest(tmp_path, "latest") == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "last"), [("training_args.bin", "trainer_state.json"), ("__0_0.distcp", ".metadata")]
)
def test_the_first_folder_is_no_checkpoint_before_the_file_that_is_written_last(
    code: Path, first: str, last: str
) -> None:
    run = make_run(code.parent, "a")
    lines = (
        'echo "from ${1##*/}"; [ "$1" ] && exit;'
        'if [ ! -e c-5 ]; then mkdir c-5; echo 1 > "c-5/$2"; else echo 1 > "c-5/$3"; fi; exit 1'
    )
    words = ["bash", "-c", lines, "x", ["", "checkpoint", ""], first, last]
    record = program(*words, checkpoint="c-*", resume=["it"])
    for token in ("t1", "t2", "t3"):
        start(code, run, record, token=token)
        row = wait_until(lambda token=token: state(run)["token"] == token and over(run), "its end")
        assert ("work/c-5 is half written" in row["reason"]) == (token == "t1")
    assert (row["state"], log(run)) == ("DONE", "from \nfrom \nfrom c-5\n")


def test_folders_that_all_lack_the_last_file_are_of_a_program_that_does_not_write_it(tmp_path: Path) -> None:
    for step in (5, 10):
        (tmp_path / f"c-{step}").mkdir()
        (tmp_path / f"c-{step}" / "training_args.bin").write_text("x")
    assert saved.newest(tmp_path, "c-*") == "c-10"


@pytest.mark.slow
def test_a_checkpoint_that_is_written_over_and_cut_off_is_put_back_as_it_was_when_the_run_went_on(code: Path) -> None:
    run = make_run(code.parent, "a")
    lines = (
        'echo "from: $(cat w.json 2>&1)"; [ -e ../go ] && exit;'
        "[ ! -e w.json ] || { printf '{\"step\"' > w.json; exit 1; }; echo 5 > w.json; exit 1"
    )
    record = program("bash", "-c", lines, checkpoint="w.json", resume=["it"])
    half = "exit code 1: from: 5; work/w.json is half written: the next attempt goes on from where this one did"
    first = "exit code 1: from: cat: w.json: No such file or directory"
    for token, reason in (("t1", first), ("t2", half), ("t3", half)):
        start(code, run, record, token=token)
        assert wait_until(lambda token=token: state(run)["token"] == token and over(run), "its end")["reason"] == reason
    (Path(run.run_dir) / "go").touch()
    start(code, run, record, token="t4")
    assert wait_until(lambda: state(run)["token"] == "t4" and over(run), "its end")["state"] == "DONE"
    assert log(run).splitlines()[1:] == ["from: 5"] * 3
    assert not (rundir.control(run.run_dir, saved.KEPT)).exists(), "what is done needs no copy"


@pytest.mark.slow
def test_the_copy_that_an_earlier_stage_went_on_from_is_not_put_back_for_a_later_one(code: Path) -> None:
    run = make_run(code.parent, "a")
    first = "[ -e w.json ] || { echo 5 > w.json; exit 1; }; printf '{\"step\"' > w.json"
    later = 'echo "goes on: <$*> $(cat w.json)"; [ -e ../go ] && exit; exit 1'
    stages = [
        {"name": "pretrain", "words": ["bash", "-c", first]},
        {"name": "tune", "words": ["bash", "-c", later, "tune", ["", "resume", ""]]},
    ]
    record = {"stages": stages, "checkpoint": "w.json", "resume": ["again"]}
    for token in ("t1", "t2"):
        start(code, run, record, token=token)
        wait_until(lambda token=token: state(run)["token"] == token and over(run), "its end")
    (Path(run.run_dir) / "go").touch()
    start(code, run, record, token="t3")
    assert wait_until(lambda: state(run)["token"] == "t3" and over(run), "its end")["state"] == "DONE"
    assert log(run) == 'goes on: <> {"step"\n' * 2


@pytest.mark.slow
def test_a_copy_is_kept_only_until_an_attempt_has_left_a_whole_one(code: Path) -> None:
    run = make_run(code.parent, "a")
    kept = f"{rundir.CONTROL}/{saved.KEPT}/work/w.json"
    record = program("bash", "-c", f"cat ../{kept}; echo 5 > w.json; exit 1", checkpoint="w.json", resume=["it"])
    for token in ("t1", "t2"):
        start(code, run, record, token=token)
        wait_until(lambda token=token: state(run)["token"] == token and over(run), "its end")
    assert log(run).splitlines()[1:] == ["5"], "there was one while it ran"
    assert not (rundir.control(run.run_dir, saved.KEPT)).exists()


@pytest.mark.slow
def test_where_a_copy_would_leave_little_room_none_is_kept_and_that_is_said(
    code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(code.parent, "a")
    site = tmp_path / "site"
    site.mkdir()
    full = "import os\nreal = os.statvfs\n"
    full += "os.statvfs = lambda path: os.statvfs_result((4096, 4096, 10**7, 10**5, 10**5, 9, 9, 9, 0, 255))\n"
    (site / "sitecustomize.py").write_text(full)  # 0.4 GB are free
    monkeypatch.setenv("PYTHONPATH", str(site))
    record = program("bash", "-c", "echo 5 > w.json; exit 1", checkpoint="w.json", resume=["it"])
    for token in ("t1", "t2"):
        start(code, run, record, token=token)
        wait_until(lambda token=token: state(run)["token"] == token and over(run), "its end")
    said = "no copy of work/w.json was kept, over which it may have written: No space left on device"
    assert said in over(run)["reason"]


def test_of_several_checkpoints_no_copy_is_kept(tmp_path: Path) -> None:
    (tmp_path / ".oelm").mkdir()
    for name in ("a-5.json", "a-10.json"):
        (tmp_path / name).write_text("{}")
    saved.keep(tmp_path, "a-*.json", "a-10.json")
    assert saved.kept(tmp_path, "a-*.json") == ""
    saved.keep(tmp_path, "a-10.json", "a-10.json")
    (tmp_path / "a-10.json").write_text('{"half')
    assert (saved.put_back(tmp_path, "a-*.json"), saved.newest(tmp_path, "a-*.json")) == ("", "a-5.json")
    assert (saved.put_back(tmp_path, "a-10.json"), saved.newest(tmp_path, "a-10.json")) == ("a-10.json", "a-10.json")

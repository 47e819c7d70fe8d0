"""Programs of the user's own on a host: real processes, killed for real."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from oelm_jobs.analysis.reading import run_directory

from oelm_jobs.agent import inside, processes, rundir, trees
from oelm_jobs.agent.host import cancel, launch
from oelm_jobs.agent.run import saved, words, work
from oelm_jobs.agent.transfer import inventory
from oelm_jobs.spec.study import Run
from oelm_jobs.transfer import sync
from tests.support import (
    make_run,
    random_moment,
    read,
    script_of,
    stand_in_for_nvidia_smi,
    state,
    wait_for_state,
    wait_until,
)

COUNTING = Path(__file__).with_name("counting.py")
OUT = ["--out=", "run_dir", "/out"]
RESUME = ["", "resume", ""]
CHECKPOINT = "out/ckpt.json"


def program(*words: Any, **more: Any) -> dict[str, Any]:
    """Return the record of a program whose only command is these words."""
    given = {"stages": [{"name": "", "words": list(words)}], "stop_s": 20.0}
    return {**given, **more}


def counting(*more: Any, **facts: Any) -> dict[str, Any]:
    """Return the record of the counting program, which can be resumed."""
    known = {"checkpoint": CHECKPOINT, "resume": [["--resume=", "checkpoint", ""]], **facts}
    return program("python", "-S", "counting.py", OUT, RESUME, *more, **known)


@pytest.fixture
def code(root: Path) -> Path:
    """A project's folder with the counting program."""
    folder = root / "code"
    folder.mkdir()
    shutil.copy(COUNTING, folder / "counting.py")
    return folder


def start(code: Path, run: Run, record: dict[str, Any], token: str = "t1", **more: Any) -> None:
    script = script_of(code, run, (), token, program=record, **more)
    request = {"run_dir": run.run_dir, "token": token, "script": script}
    launch.launch({"root": str(code.parent), "token": token, "runs": [request]})


def over(run: Run) -> dict[str, Any]:
    """Return a run's last word once it is over."""
    return wait_for_state(run, "DONE", "FAILED", "CANCELLED")


def log(run: Run) -> str:
    with contextlib.suppress(OSError):
        return (Path(run.run_dir) / rundir.LOG).read_text()
    return ""


def attempts(run: Run) -> list[dict[str, Any]]:
    return read(Path(run.run_dir) / rundir.RESULT)["attempts"]


def supervisor(run: Run) -> int:
    return int(read(rundir.control(run.run_dir, rundir.CLAIM))["pid"])


@pytest.mark.slow
def test_a_program_that_ends_with_exit_code_0_is_done_and_its_files_are_results(code: Path) -> None:
    run = make_run(code.parent, "a")
    start(code, run, counting())
    row = over(run)
    assert (row["state"], row["reason"]) == ("DONE", "")
    names = {file["name"] for file in read(Path(run.run_dir) / rundir.MANIFEST)["files"]}
    assert {"out/ckpt.json", "out/result.txt", "training.log", "experiment_result.json"} <= names
    assert not any("counting.py" in name for name in names), "the code is no result"
    assert "inexact_resume" not in attempts(run)[0]


@pytest.mark.slow
def test_a_program_that_fails_is_failed_with_what_it_said_and_resumes_within_its_retries(code: Path) -> None:
    run = make_run(code.parent, "a", max_retries=1)
    start(code, run, counting("--die-at=7"))
    assert over(run)["state"] == "DONE"
    first, second = attempts(run)
    assert first["reason"] == "exit code 1: ValueError: on purpose at 7"
    assert (second["resumed_from"], second["inexact_resume"]) == (CHECKPOINT, True)
    assert "begins at 5" in log(run)


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["the supervisor", "the program"])
def test_a_program_that_was_killed_in_the_middle_goes_on_from_its_checkpoint(code: Path, whom: str) -> None:
    run = make_run(code.parent, "a")
    start(code, run, counting("--pause=0.2", "--steps=600"))
    wait_until(lambda: (Path(run.run_dir) / CHECKPOINT).exists(), "a checkpoint")
    random_moment()
    pid = supervisor(run) if whom == "the supervisor" else int(log(run).split(" as ")[1].split()[0])
    os.kill(pid, signal.SIGKILL)
    wait_for_state(run, "UNKNOWN" if whom == "the supervisor" else "FAILED")
    start(code, run, counting("--steps=600", "--pause=0"), token="t2")
    assert over(run)["state"] == "DONE"
    assert attempts(run)[-1]["inexact_resume"] is True
    steps = [int(line.split()[1].rstrip(":")) for line in log(run).splitlines() if line.startswith("iter")]
    assert steps[-1] == 600 and steps.count(1) == 1, "it began once"


@pytest.mark.slow
@pytest.mark.parametrize(
    "lines",
    [
        "python -S counting.py $@",
        "exec python -S counting.py $@",
        "(python -S counting.py $@) | tee out.txt",
        "trap 'echo at the end' TERM; python -S counting.py $@",
    ],
    ids=["a shell", "a shell that makes way", "a pipe", "a shell that waits"],
)
def test_a_stop_reaches_a_program_behind_a_shell_once_and_it_has_its_time_for_a_checkpoint(
    code: Path, lines: str
) -> None:
    (code / "train.sh").write_text("#!/usr/bin/env bash\n" + lines.replace("python", sys.executable) + "\n")
    (code / "train.sh").chmod(0o755)
    run = make_run(code.parent, "a")
    record = counting("--pause=0.2", "--slow-stop=2.5", "--steps=600")
    record["stages"][0]["words"][:3] = ["./train.sh"]
    start(code, run, record)
    wait_until(lambda: "iter 2:" in log(run), "a step")
    assert cancel.cancel({"run_dirs": [run.run_dir]})["runs"] == {run.run_dir: "cancelled"}
    assert "SIGTERM 1 times" in log(run)
    row = state(run)
    assert (row["state"], row["reason"]) == ("CANCELLED", "cancelled")
    start(code, run, counting("--steps=600", "--pause=0"), token="t2")
    assert over(run)["state"] == "DONE"
    assert "begins at 0 " in log(run) and log(run).count("begins at 0 ") == 1


@pytest.mark.slow
def test_exit_code_0_after_a_stop_is_a_stop(code: Path) -> None:
    run = make_run(code.parent, "a")
    start(code, run, counting("--pause=0.5", "--steps=600"))
    wait_until(lambda: "iter 1:" in log(run), "a step")
    os.kill(supervisor(run), signal.SIGTERM)
    row = over(run)
    assert (row["state"], row["reason"]) == ("CANCELLED", "stopped by SIGTERM")
    assert attempts(run)[0]["exit_code"] == 0


@pytest.mark.slow
def test_a_program_that_ignores_a_stop_is_killed_and_that_is_said(code: Path) -> None:
    run = make_run(code.parent, "a")
    ignores = "import signal, time; signal.signal(15, signal.SIG_IGN); print('on', flush=True); time.sleep(600)"
    start(code, run, program("python", "-S", "-c", ignores, stop_s=1.0))
    wait_until(lambda: "on" in log(run), "the program")
    cancel.cancel({"run_dirs": [run.run_dir]})
    row = state(run)
    assert row["state"] == "CANCELLED"
    assert row["reason"].endswith("; it did not end in its time after SIGTERM and was killed")


@pytest.mark.slow
def test_a_cancel_leaves_a_program_the_time_for_a_checkpoint_that_it_asks_for(
    code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(code.parent, "a")
    start(code, run, counting("--pause=0.2", "--slow-stop=13", "--steps=600", stop_s=60.0))
    wait_until(lambda: "iter 2:" in log(run), "a step")
    with monkeypatch.context() as soon:
        soon.setattr(cancel, "MOST_S", 1.0)
        assert cancel.cancel({"run_dirs": [run.run_dir]})["runs"] == {run.run_dir: "still ending"}
    assert cancel.cancel({"run_dirs": [run.run_dir]})["runs"] == {run.run_dir: "cancelled"}
    assert "SIGTERM 1 times" in log(run) and state(run)["reason"] == "cancelled"


STAGES = [
    {"name": name, "words": ["bash", "-c", f"echo {name} >> {name}.txt; {more}"]}
    for name, more in (("first", "echo made"), ("second", "[ -e ../go ]"), ("third", "cat first.txt"))
]


@pytest.mark.slow
def test_stages_come_one_after_the_other_and_finished_ones_are_not_repeated(code: Path) -> None:
    run = make_run(code.parent, "a")
    start(code, run, {"stages": STAGES})
    row = over(run)
    assert (row["state"], row["reason"]) == ("FAILED", "stage second: exit code 1: made")
    (Path(run.run_dir) / "go").touch()
    start(code, run, {"stages": STAGES}, token="t2")
    assert over(run)["state"] == "DONE"
    counts = {stage["name"]: (Path(run.run_dir) / "work" / f"{stage['name']}.txt").read_text() for stage in STAGES}
    assert counts == {"first": "first\n", "second": "second\nsecond\n", "third": "third\n"}


@pytest.mark.slow
def test_stages_of_a_run_of_another_length_begin_anew(code: Path) -> None:
    run = make_run(code.parent, "a")
    stage = [{"name": "only", "words": ["bash", "-c", "echo x >> n.txt; echo {} > ckpt.json"]}]
    start(code, run, {"stages": stage, "checkpoint": "ckpt.json"})
    over(run)
    longer = make_run(code.parent, "a", fingerprint="0" * 64)
    start(code, longer, {"stages": stage, "checkpoint": "ckpt.json"}, token="t2",
          extended_from={"fingerprint": run.fingerprint, "max_steps": 1})  # fmt: skip
    wait_until(lambda: state(run)["token"] == "t2" and state(run)["state"] == "DONE", "the longer run")
    assert (Path(run.run_dir) / "work" / "n.txt").read_text() == "x\nx\n"


def test_a_checkpoint_of_an_earlier_stage_is_none_of_a_later_one(code: Path) -> None:
    run = make_run(code.parent, "a")
    stages = [
        {"name": "pretrain", "words": ["bash", "-c", "echo '{\"step\": 3}' > ckpt.json"]},
        {"name": "tune", "words": ["bash", "-c", 'echo "tunes with <$*>"', "tune", ["", "resume", ""]]},
    ]
    start(code, run, {"stages": stages, "checkpoint": "ckpt.json", "resume": ["again"]})
    assert over(run)["state"] == "DONE"
    assert log(run) == "tunes with <>\n"


# The working folder ---------------------------------------------------------------------------------------------------


def snapshot(root: Path, **files: str) -> Path:
    """Keep files as a snapshot; two underscores stand for a slash."""
    contents = {path.replace("__", "/"): text.encode() for path, text in files.items()}
    rows = [(path, False, hashlib.sha256(text).hexdigest()) for path, text in sorted(contents.items())]
    name = trees.name_of(rows)
    trees.keep(str(root / "snapshots"), name, rows, lambda lacking: lambda number: contents[rows[number][0]])
    return root / "snapshots" / name


def content(folder: Path) -> dict[str, tuple[str, int]]:
    """Return all that is in a folder."""
    return {
        path.relative_to(folder).as_posix(): (path.read_text(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.slow
def test_two_runs_that_write_the_same_paths_do_not_meet_and_the_snapshot_stays_as_it_is(root: Path) -> None:
    script = (
        "import os, pathlib, sys, time\n"
        "here = pathlib.Path(__file__).resolve().parent\n"
        "(here / 'out').mkdir(exist_ok=True)\n"
        "(here / 'out' / 'from_file.txt').write_text(sys.argv[1])\n"
        "open('out/there.txt', 'a').write(sys.argv[1])\n"
        "open('results.csv', 'a').write(sys.argv[1])\n"
        "os.makedirs('.hydra'); open('.hydra/config.yaml', 'w').write(sys.argv[1])\n"
        "while not os.path.exists(sys.argv[2]): time.sleep(0.05)\n"
        "print(open('out/there.txt').read(), open('results.csv').read())\n"
    )
    code = snapshot(root, **{"main.py": script, "out__there.txt": "tracked ", "results.csv": "head ", "lib__x.py": ""})
    before, go = content(code), root / "go"
    runs = [make_run(root, name) for name in "ab"]
    for number, run in enumerate(runs):
        record = program("python", "-S", "main.py", run.name, str(go))
        start(code, run, record, token=f"t{number}", snapshot=code.name)
    for run in runs:
        wait_until(lambda run=run: (Path(run.run_dir) / "work" / ".hydra" / "config.yaml").exists(), "both to write")
    go.touch()
    for run in runs:
        assert over(run)["state"] == "DONE"
        assert log(run) == f"tracked {run.name} head {run.name}\n"
        names = {file["name"] for file in read(Path(run.run_dir) / rundir.MANIFEST)["files"]}
        assert {name for name in names if name.startswith("work/")} == {
            "work/out/from_file.txt", "work/out/there.txt", "work/results.csv", "work/.hydra/config.yaml",
        }  # fmt: skip
    assert content(code) == before


def placing(root: Path, code: Path, **record: Any) -> tuple[Path, list[str]]:
    """Have a working folder prepared; return it and what was said."""
    from oelm_jobs.agent.run_record import RunRecord

    (root / "exp_a" / ".oelm").mkdir(parents=True, exist_ok=True)
    said: list[str] = []
    values = {"run_dir": str(root / "exp_a"), "snapshot": code.name, "program": {"stages": [], **record}}
    return Path(work.prepare(RunRecord.of(values), str(code), said.append)), said


def test_new_code_takes_the_place_of_the_old_but_not_of_what_the_run_made_of_it(root: Path) -> None:
    old = snapshot(root, **{"a.py": "1", "b.csv": "head", "gone__c.py": "1"})
    top, said = placing(root, old)
    (top / "b.csv").write_text("head and more")
    (top / "d.py").write_text("its own")
    new = snapshot(root, **{"a.py": "longer", "b.csv": "headline", "d.py": "code"})
    assert said == []
    top, said = placing(root, new)
    there = {name: text for name, (text, _) in content(top).items()}
    assert there == {"a.py": "longer", "b.csv": "head and more", "d.py": "its own"}
    assert said == ["b.csv stays as the run made it", "d.py stays as the run made it"]


@pytest.mark.slow
def test_of_much_code_is_known_what_was_placed(root: Path) -> None:
    folder = "/".join(["d" * 250] * 10)
    files = {f"{folder}/{number}.py": "" for number in range(4000)}
    top, _ = placing(root, snapshot(root, **files))
    assert (root / "exp_a" / ".oelm" / work.PLACED).stat().st_size > rundir.MAX_JSON_BYTES
    assert not list(saved.result.result_files(root / "exp_a")), "no code is a result"
    del files[f"{folder}/0.py"]
    placing(root, snapshot(root, **files))
    assert not (top / folder / "0.py").exists() and (top / folder / "1.py").exists()


def test_what_lay_half_placed_is_placed_whole(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = snapshot(root, **{f"{letter}.py": letter for letter in "abc"})
    placed: list[str] = []
    does = work._place

    def dies(source: str, path: str, look: work.Look, temporary: str) -> None:
        if placed:
            raise KeyboardInterrupt
        placed.append(path)
        does(source, path, look, temporary)

    monkeypatch.setattr(work, "_place", dies)
    with pytest.raises(KeyboardInterrupt):
        placing(root, code)
    monkeypatch.setattr(work, "_place", does)
    top, said = placing(root, code)
    assert (sorted(content(top)), said) == (["a.py", "b.py", "c.py"], [])


def test_a_link_in_place_of_a_folder_of_the_code_is_not_followed(root: Path) -> None:
    code, elsewhere = snapshot(root, **{"out__a.txt": "code"}), root / "elsewhere"
    elsewhere.mkdir()
    (root / "exp_a" / "work").mkdir(parents=True)
    (root / "exp_a" / "work" / "out").symlink_to(elsewhere)
    _, said = placing(root, code)
    assert (list(elsewhere.iterdir()), said) == ([], ["out stays as the run made it"])


def test_data_are_linked_beside_the_code_of_their_folder_and_what_is_written_there_stays_the_runs(root: Path) -> None:
    code = snapshot(root, **{"data__chars__prepare.py": "code", "train.py": ""})
    data = root / "sets" / "chars"
    (data / "raw").mkdir(parents=True)
    (data / "train.bin").write_text("tokens")
    (data / "raw" / "x.txt").write_text("raw")
    top, said = placing(root, code, data=[["data/chars", str(data)], ["sets/more", str(data)]])
    for place in ("data/chars", "sets/more"):
        assert (top / place / "train.bin").is_symlink() and (top / place / "raw" / "x.txt").read_text() == "raw"
        (top / place / "cache.bin").write_text("its own")
    assert sorted(path.name for path in data.iterdir()) == ["raw", "train.bin"] and not said
    found = {name for name, _ in saved.result.result_files(root / "exp_a")}
    assert found == {"work/data/chars/cache.bin", "work/sets/more/cache.bin"}, "neither code nor data are results"


def test_large_files_of_the_code_are_links_and_no_results(root: Path) -> None:
    code = snapshot(root, **{"weights.txt": "x" * (work.LARGE_BYTES + 1)})
    top, _ = placing(root, code)
    assert (top / "weights.txt").is_symlink() and not list(saved.result.result_files(root / "exp_a"))


# Checkpoints ----------------------------------------------------------------------------------------------------------


def make(path: Path, content: bytes, at: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (at, at))


def test_the_newest_checkpoint_is_the_newest_whole_one(tmp_path: Path) -> None:
    import io
    import zipfile

    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as file:
        file.writestr("data", "x" * 1000)
    whole, now, said = held.getvalue(), time.time(), []
    make(tmp_path / "work" / "a-5.pt", whole, now - 30)
    make(tmp_path / "work" / "a-10.pt", whole[:-40], now - 20)
    make(tmp_path / "work" / "a-15.pt", b"", now - 10)
    assert saved.newest(tmp_path, "a-*.pt", said.append) == "work/a-5.pt"
    assert said == ["work/a-15.pt", "work/a-10.pt"]
    make(tmp_path / "a-1.pt", whole, now - 60)
    assert saved.newest(tmp_path, "a-*.pt") == "a-1.pt", "the run directory comes before the working folder"


def test_a_folder_that_lacks_what_the_one_before_holds_is_half_written(tmp_path: Path) -> None:
    now = time.time()
    for step, names in ((5, ("w.bin", "rng_state_0.pth", "state.json")), (10, ("w.bin", "rng_state_0.pth"))):
        for name in names:
            make(tmp_path / "work" / f"checkpoint-{step}" / name, b"{}", now + step)
    assert saved.newest(tmp_path, "checkpoint-*") == "work/checkpoint-5"
    make(tmp_path / "work" / "checkpoint-10" / "state.json", b'{"step": ', now + 11)
    assert saved.newest(tmp_path, "checkpoint-*") == "work/checkpoint-5"
    make(tmp_path / "work" / "checkpoint-10" / "state.json", b"{}", now + 12)
    assert saved.newest(tmp_path, "checkpoint-*") == "work/checkpoint-10"


@pytest.mark.parametrize(
    ("pattern", "name", "fitting"),
    [
        ("ckpt.pt", "ckpt.pt", "ckpt.pt"), ("ckpt.pt", "work/ckpt.pt", "work/ckpt.pt"), ("ckpt.pt", "out/ckpt.pt", ""),
        ("checkpoint-*", "work/checkpoint-5/a/b.bin", "work/checkpoint-5"), ("*.pt", "a/b.pt", ""),
        ("**/*.ckpt", "work/logs/v0/last.ckpt", "work/logs/v0/last.ckpt"), ("**/*.ckpt", "a.ckpt", "a.ckpt"),
        ("step=[0-9]*.ckpt", "step=12.ckpt", "step=12.ckpt"), ("a.pt", "axpt", ""), ("", "a", ""),
        ("[!a].pt", "b.pt", "b.pt"), ("[!a].pt", "a.pt", ""), ("[z-a]*.pt", "b.pt", ""), ("[!].pt", "b.pt", ""),
    ],
)  # fmt: skip
def test_patterns_fit_as_a_shells_do(pattern: str, name: str, fitting: str) -> None:
    assert saved.matching(pattern, name) == fitting


@pytest.mark.slow
def test_a_half_written_checkpoint_is_named_and_the_run_begins_anew_without_it(code: Path) -> None:
    run = make_run(code.parent, "a")
    record = program(
        "bash", "-c", "echo \"<$*>\"; [ -e w.json ] && exit; echo '{\"step\"' > w.json; exit 1", "x", RESUME,
        checkpoint="w.json", resume=["again"],
    )  # fmt: skip
    start(code, run, record)
    assert over(run)["reason"].endswith("; work/w.json is half written, and nothing goes on from there")
    start(code, run, record, token="t2")
    assert over(run)["state"] == "DONE" and log(run) == "<>\n<>\n"
    assert "inexact_resume" not in attempts(run)[1]


def test_a_pipe_in_place_of_a_file_that_is_read_makes_nobody_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / rundir.METRICS)
    assert rundir.tail(tmp_path / rundir.METRICS) == b""


@pytest.mark.slow
def test_a_checkpoint_from_which_the_program_fails_to_go_on_makes_way_for_the_one_before(code: Path) -> None:
    run = make_run(code.parent, "a", max_retries=2)
    lines = """
        case "$1" in
            "") mkdir c-5; echo 5 > c-5/w; sleep 0.1; mkdir c-10; echo half > c-10/w; exit 1 ;;
            *) echo "from ${1##*/}"; [ "$(cat "$1/w")" = 5 ] ;;
        esac
    """
    record = program("bash", "-c", lines, "x", RESUME, checkpoint="c-*", resume=[["", "checkpoint", ""]])
    start(code, run, record)
    assert over(run)["state"] == "DONE"
    assert log(run) == "from c-10\nfrom c-5\n"
    assert [attempt.get("resumed_from") for attempt in attempts(run)] == [None, "work/c-10", "work/c-5"]


@pytest.mark.slow
def test_the_only_checkpoint_is_gone_on_from_whatever_it_failed_of(code: Path) -> None:
    run = make_run(code.parent, "a", max_retries=1)
    lines = '[ "$1" ] || { echo 5 > w; exit 1; }; echo "from $1"; [ -e ../again ] || { touch ../again; exit 1; }'
    record = program("bash", "-c", lines, "x", RESUME, checkpoint="w", resume=["it"])
    told = {**record, "resume": [["it", "checkpoint", ""]]}
    start(code, run, told)
    assert over(run)["state"] == "FAILED"
    start(code, run, told, token="t2")
    assert over(run)["state"] == "DONE"
    assert [attempt.get("resumed_from") for attempt in attempts(run)] == [None, "work/w", "work/w"]


@pytest.mark.parametrize(
    ("name", "content"),
    [("state.json", b"[" * 100_000), ("w.safetensors", (25).to_bytes(8, "little") + b'{"w":{"data_offsets":[]}}')],
)
def test_what_no_program_would_write_is_no_whole_checkpoint(tmp_path: Path, name: str, content: bytes) -> None:
    make(tmp_path / name, content, time.time())
    assert saved.newest(tmp_path, name) == ""


# Words ----------------------------------------------------------------------------------------------------------------


def test_placeholders_are_filled_by_position_and_never_looked_for_in_values() -> None:
    values = {"run_dir": "/a b/{resume}", "resume": ["--a", "{run_dir}"], "checkpoint": ""}
    given: list[Any] = ["x{run_dir}", ["--out=", "run_dir", "/", "run_dir", ""], ["", "resume", ""], "; rm -rf"]
    assert words.fill(given, values) == [
        "x{run_dir}", "--out=/a b/{resume}//a b/{resume}", "--a", "{run_dir}", "; rm -rf",
    ]  # fmt: skip
    assert words.fill([["", "resume", ""]], {"resume": ()}) == []


GROUND = words.Ground(2, port=1234)
SEVERAL = words.Ground(4, "n1", 20001, 2, "7.0.1")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]


@pytest.mark.parametrize(
    ("given", "ground", "made"),
    [
        (["torchrun", "t.py"], GROUND, ["--nproc_per_node=2", "--master_port=1234", "t.py"]),
        (["python", "-m", "torch.distributed.run", "--nproc-per-node", "1", "t.py", "--master_port=1"], GROUND,
         ["--master_port=1234", "--nproc-per-node", "1", "t.py", "--master_port=1"]),
        (["torchrun", "--standalone", ["--nproc_per_node=", "gpus", ""], "t.py"], GROUND,
         ["--standalone", "--nproc_per_node=2", "t.py"]),
        (["torchrun", "-m", "pkg.t"], SEVERAL,
         ["--nnodes=2", "--nproc_per_node=4", "--rdzv-backend=c10d", "--rdzv-endpoint=n1:20001", "--rdzv-id=7.0.1",
          "-m", "pkg.t"]),
    ],
)  # fmt: skip
def test_torchrun_is_told_what_its_words_leave_out(given: list[Any], ground: words.Ground, made: list[str]) -> None:
    assert words.command(given, {"gpus": str(ground.gpus)}, ground) == [*TORCHRUN, *made]


def test_the_nodes_number_is_filled_in_on_each_node(tmp_path: Path) -> None:
    import subprocess

    given: list[Any] = [sys.executable, "-S", "-c", "import sys; print(sys.argv[1:])", ["--r=", "node_rank", "$x 'y'"]]
    argv = words.command(given, {}, SEVERAL)
    said = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, "SLURM_NODEID": "1"}, check=True)
    assert said.stdout == "[\"--r=1$x 'y'\"]\n"
    assert words.command(given, {}, GROUND)[-1] == "--r=0$x 'y'"


# Ends -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "more", "reason"),
    [
        ("true", {}, "left nothing: no output, no file"),
        ("echo x", {"files": ["*.csv"]}, "it ended with exit code 0 and left no *.csv"),
        pytest.param("nohup sleep 600 & echo on", {}, "went on in the background", marks=pytest.mark.slow),
        pytest.param(
            "nohup sleep 600 & echo on", {"files": ["x"]}, "went on in the background", marks=pytest.mark.slow
        ),
        (f"{sys.executable} -S -c 'input()'", {}, "it asks for input, and nobody is there to answer: EOFError"),
        ("echo 'OSError: [Errno 98] Address already in use'; exit 1", {}, "let its command take a free one as {port}"),
        ("kill -9 $$", {}, "killed by SIGKILL"),
        ("echo 'torch.OutOfMemoryError: CUDA out of memory.'; exit 1", {}, "oom: torch.OutOfMemoryError"),
        ("exit 137", {}, "killed by SIGKILL"),
    ],
)  # fmt: skip
def test_what_is_not_done_has_its_words(code: Path, lines: str, more: dict[str, Any], reason: str) -> None:
    run = make_run(code.parent, "a")
    start(code, run, program("bash", "-c", lines, **more))
    row = over(run)
    assert row["state"] == "FAILED" and reason in row["reason"]
    assert not processes.of_run(run.run_dir)


LINES = {"lines": ["step {step}: val {val}", "iter {step}: loss {loss}"]}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("said", "most", "reason"),
    [
        ("step 0: val 1\niter 0: loss 1\niter 10: loss 1\niter 20: loss 1", 30, ""),
        ("step 0: val 1\nstep 20: val 1\niter 10: loss 1\niter 20: loss 1", 31, "exit code 0 at step 20 of 31"),
        ("iter 500: loss 1", 1000, ""),
        ("it goes well", 10, "nothing it left says at which step"),
    ],
)
def test_done_is_the_whole_length_to_within_an_interval_of_the_lines(
    code: Path, said: str, most: int, reason: str
) -> None:
    run = make_run(code.parent, "a")
    (code / "said.txt").write_text(said + "\n")
    start(code, run, program("cat", "said.txt", metrics=LINES, length="steps", max_steps=most))
    row = over(run)
    assert row["state"] == ("FAILED" if reason else "DONE")
    assert reason in row["reason"]


@pytest.mark.slow
def test_a_run_that_what_was_left_of_it_brought_to_its_end_is_done_when_it_goes_on(code: Path) -> None:
    run = make_run(code.parent, "a")
    record = counting("--pause=0.2", "--steps=60", metrics=LINES, length="steps", max_steps=60)
    start(code, run, record)
    beat = Path(run.run_dir) / rundir.HEARTBEAT
    wait_until(lambda: beat.exists() and read(beat)["step"] > 0, "a heartbeat")
    os.kill(supervisor(run), signal.SIGKILL)
    wait_until(lambda: "iter 60:" in log(run) and not processes.of_run(run.run_dir), "its end")
    assert read(beat)["step"] < 60
    start(code, run, record, token="t2")
    row = wait_until(lambda: row if (row := state(run))["token"] == "t2" and row.get("ended_at") else None, "its end")
    assert (row["state"], row["step"]) == ("DONE", 60) and log(run).count("iter") == 60


def test_the_last_line_of_a_program_counts_also_without_an_end(code: Path) -> None:
    run = make_run(code.parent, "a")
    start(code, run, program("printf", "iter 1: loss 3\\riter 2: loss 2", metrics=LINES))
    assert over(run)["step"] == 2 and read(Path(run.run_dir) / rundir.HEARTBEAT)["metrics"] == {"loss": 2}


@pytest.mark.slow
def test_what_a_program_tells_is_seen_while_it_runs(code: Path) -> None:
    run = make_run(code.parent, "a")
    start(code, run, counting("--pause=0.2", "--steps=3000", metrics=LINES, length="steps", max_steps=3000))
    beat = Path(run.run_dir) / rundir.HEARTBEAT
    told = wait_until(lambda: read(beat) if beat.exists() else None, "a heartbeat")
    assert told["step"] > 0 and told["max_steps"] == 3000 and told["attempt"] == "t1:1"
    assert told["metrics"].keys() == {"loss"}
    row = state(run)
    assert row["state"] == "RUNNING" and row["step"] >= told["step"]


@pytest.mark.parametrize(
    ("lines", "more"),
    [
        ("echo x", {}),
        pytest.param("echo x > a.csv; nohup sleep 600 &", {"files": ["*.csv"]}, marks=pytest.mark.slow),
    ],
)
def test_what_is_done_is_done(code: Path, lines: str, more: dict[str, Any]) -> None:
    run = make_run(code.parent, "a")
    start(code, run, program("bash", "-c", lines, **more))
    assert over(run)["state"] == "DONE"


def test_a_program_has_a_place_a_port_and_its_settings(code: Path) -> None:
    run = make_run(code.parent, "a")
    said = (
        "import json, os, sys; e = os.environ; print(json.dumps([os.getcwd(), e['PWD'], e['MASTER_ADDR'],"
        " e['MASTER_PORT'] == sys.argv[1], e['OELM_RUN'], e['OELM_SEED'], open(sys.argv[2]).read(), sys.argv[3]]))"
    )
    record = program(
        "python", "-S", "-c", said, ["", "port", ""], ["", "settings_file", ""], ["", "nodes", "x", "gpus", ""],
        settings_file="json", settings_text='{"a": 1}',
    )  # fmt: skip
    start(code, run, record, seed=42)
    assert over(run)["state"] == "DONE"
    folder = f"{run.run_dir}/work"
    assert json.loads(log(run)) == [folder, folder, "localhost", True, "a", "42", '{"a": 1}', "1x1"]


# What is fetched and cleaned ------------------------------------------------------------------------------------------

SAVES = (
    "mkdir -p out .hydra ck-5 ck-10; for step in 5 10; do echo {} > ck-$step/w.json; sleep 0.01; done;"
    " echo {} > best.json; echo 1 > .hydra/c.yaml; echo 1 > out/log.csv; mkdir .git; echo evil > .git/config"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("which", "wanted"),
    [("none", set()), ("best", {"best.json"}), ("latest", {"ck-10/w.json"}),
     ("all", {"best.json", "ck-5/w.json", "ck-10/w.json"})],
)  # fmt: skip
@pytest.mark.parametrize("lives", [False, True], ids=["over", "running"])
def test_checkpoints_are_fetched_by_their_patterns_and_all_else_comes_along(
    code: Path, which: str, wanted: set[str], lives: bool
) -> None:
    run = make_run(code.parent, "a")
    (code / "main.py").write_text("")
    waits = "; touch out/ready; sleep 600" if lives else ""
    start(code, run, program("bash", "-c", SAVES + waits, checkpoint="ck-*", best="best.json"))
    if lives:
        wait_until(lambda: (Path(run.run_dir) / "work" / "out" / "ready").exists(), "what it saves")
    else:
        over(run)
    request: Any = {"runs": [{"run_dir": run.run_dir}], "checkpoints": which}
    held = inventory.inventory(request)["runs"][run.run_dir]
    names = {row["name"] for row in held["files"] if row["name"].startswith("work/")} - {"work/out/ready"}
    assert names == {f"work/{name}" for name in {*wanted, ".hydra/c.yaml", "out/log.csv"}}
    assert all(sync.safe_name(row["name"]) for row in held["files"])
    left = {row["name"] for row in held["left"]}
    assert left == {f"work/{name}" for name in {"best.json", "ck-5/w.json", "ck-10/w.json"} - wanted}


@pytest.mark.slow
def test_what_was_fetched_of_a_working_folder_can_be_removed_and_nothing_behind_a_link(code: Path) -> None:
    run = make_run(code.parent, "a")
    start(code, run, program("bash", "-c", SAVES, checkpoint="ck-*"))
    over(run)
    listed = {file["name"]: file for file in read(Path(run.run_dir) / rundir.MANIFEST)["files"]}
    files = {name: (listed[name]["size"], listed[name]["sha256"]) for name in ("work/ck-5/w.json", "work/ck-10/w.json")}
    request: Any = {"root": str(code.parent), "runs": [{"run_dir": run.run_dir, "files": files}]}
    elsewhere = code.parent / "elsewhere"
    (Path(run.run_dir) / "work" / "ck-10").rename(elsewhere)
    (Path(run.run_dir) / "work" / "ck-10").symlink_to(elsewhere)
    with pytest.raises(inside.Outside):
        inventory.remove(request)
    (Path(run.run_dir) / "work" / "ck-10").unlink()
    answer = inventory.remove(request)["runs"][run.run_dir]
    assert answer["removed"] == ["work/ck-5/w.json"] and list(answer["kept"]) == ["work/ck-10/w.json"]
    assert (elsewhere / "w.json").exists()


def test_of_a_run_that_is_not_done_the_checkpoint_that_it_goes_on_from_stays() -> None:
    names = ["work/ck-5/a.pt", "work/ck-10/a.pt", "work/ck-10/b.pt", "work/best.pt"]
    assert saved.Saved("ck-*", "best.pt", True).latest(names) == ["work/ck-10/a.pt", "work/ck-10/b.pt"]
    assert saved.Saved("c*.pt", "", True).latest(["cold.pt", "c2.pt"]) == ["cold.pt", "c2.pt"], (
        "none is known to be older"
    )
    built_in = ["checkpoint_5.pt", "checkpoint_10.pt", "best_model.pt"]
    assert saved.Saved().latest(built_in) == ["checkpoint_10.pt"]


def test_a_program_without_gpus_has_cpu_slots_also_where_there_are_gpus(
    code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in_for_nvidia_smi(tmp_path, monkeypatch, f"echo '0, GPU-0, {'x' * 8}, 100, 0, 0'")
    slots = len(os.sched_getaffinity(0))
    run = make_run(code.parent, "a", gpus=0)
    said = "echo $CUDA_VISIBLE_DEVICES, $OMP_NUM_THREADS, $0"
    start(code, run, program("bash", "-c", said, ["", "gpus", ""], cpus=slots))
    assert over(run)["state"] == "DONE"
    assert log(run) == f", {slots}, 0\n"
    assert attempts(run)[0]["devices"] == [f"cpu:{index}" for index in range(slots)]


RANK = """
import os, signal, sys, time
rank, stops = os.environ["RANK"], []
signal.signal(signal.SIGTERM, lambda number, frame: stops.append(number))
print("rank", rank, "of", os.environ["WORLD_SIZE"], os.environ["MASTER_PORT"], flush=True)
while not stops:
    time.sleep(0.05)
time.sleep(1)
print("rank", rank, "was asked", len(stops), "times", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("behind", [[], ["bash", "-c", '"$@"; echo', "x"]], ids=["alone", "behind a shell"])
def test_torchrun_gets_processes_and_a_port_and_passes_a_stop_on_once(code: Path, behind: list[str]) -> None:
    ranks = min(2, len(os.sched_getaffinity(0)))
    (code / "rank.py").write_text(RANK)
    run = make_run(code.parent, "a", gpus=ranks)
    words: list[Any] = ["torchrun", "rank.py"]
    if behind:
        words = [*behind, sys.executable, "-m", "torch.distributed.run", ["--nproc_per_node=", "gpus", ""],
                 ["--master_port=", "port", ""], "rank.py"]  # fmt: skip
    start(code, run, program(*words))
    wait_until(lambda: log(run).count(f" of {ranks} ") == ranks, "all ranks")
    port = read(rundir.control(run.run_dir, rundir.START))["port"]
    assert all(line.split()[4] == str(port) for line in log(run).splitlines() if f" of {ranks} " in line)
    assert cancel.cancel({"run_dirs": [run.run_dir]})["runs"] == {run.run_dir: "cancelled"}
    assert {line for line in log(run).splitlines() if "was asked" in line} == {
        f"rank {rank} was asked 1 times" for rank in range(ranks)
    }


@pytest.mark.slow
def test_the_report_reads_the_attempts_of_a_program_that_was_killed_within_a_line_as_one(code: Path) -> None:
    (code / "halves.py").write_text(
        "import os, signal, sys\n"
        "for step in range(int(sys.argv[-1]) if sys.argv[1:] else 0, 9):\n"
        "    print(f'iter {step}: loss {9 - step}.25', flush=True)\n"
        "    open('ckpt', 'w').write('x')\n"
        "    if step == 5 and not sys.argv[1:]:\n"
        "        print('iter 6: lo', end='', flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    run = make_run(code.parent, "a", max_retries=1)
    facts = {
        "checkpoint": "ckpt",
        "resume": ["4"],
        "metrics": {"lines": ["iter {step}: loss {loss}"], "goal": {"loss": "minimize"}},
    }
    start(code, run, program("python", "-S", "halves.py", ["", "resume", ""], **facts))
    assert over(run)["state"] == "DONE"
    assert "\niter 6: lo\niter 4: loss 5.25\n" in log(run)
    told = run_directory.load(Path(run.run_dir), now=0.0)
    assert told.series["loss"].step.tolist() == list(range(9))
    assert told.series["loss"].value.tolist() == [9.25 - step for step in range(9)]
    assert (told.attempts, told.notes) == (2, ())

"""Sending what a script reads to a root elsewhere on this machine: files and folders, whole or what is missing."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from oelm_jobs import connections
from oelm_jobs.agent import registry
from oelm_jobs.errors import ConfigurationError, PreflightError
from oelm_jobs.project import Project
from oelm_jobs.targets.files import load_target
from oelm_jobs.transfer import send
from tests.cli.test_run import argv_of
from tests.support import end_all, wait_until

STUDY = """
default = true
factors = ["lr"]
[program]
command = "python count.py {settings} {seed}"
data = ["data/books", "words.csv"]
[groups]
low = { lr = 0.5, gpus = 0 }
"""
SCRIPT = """
import os
found = [os.path.join(place, name) for place, _, names in os.walk("data/books", followlinks=True) for name in names]
print(sorted(found), sum(len(open(name).read()) for name in [*found, "words.csv"]))
"""
BOOKS = {"emma.txt": "Emma Woodhouse", "deep/er/odd name\n.txt": "x", "empty.txt": ""}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The root of target ``scratch``; nothing lies there yet."""
    return tmp_path / "scratch" / "me"


@pytest.fixture
def mine(tmp_path: Path, root: Path) -> Iterator[Project]:
    folder = tmp_path / "mine"
    for name, text in BOOKS.items():
        (folder / "data" / "books" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "data" / "books" / name).write_text(text)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "persuasion.txt").write_text("Sir Walter Elliot")
    (folder / "data" / "books" / "linked.txt").symlink_to(tmp_path / "elsewhere" / "persuasion.txt")
    (folder / "data" / "books" / "more").symlink_to(tmp_path / "elsewhere")
    (folder / "words.csv").write_text("a,b\n1,2\n")
    (folder / "count.py").write_text(SCRIPT)
    (folder / "jobs").mkdir()
    (folder / "jobs" / "mine.toml").write_text(STUDY)
    (folder / "jobs" / "targets.toml").write_text(
        f'[scratch]\nkind = "local"\nroot = "{root}"\npython = "{sys.executable}"\n'
    )
    yield Project(folder)
    end_all(root)


def below(folder: Path) -> dict[str, str]:
    """Return the files below a folder with what they hold."""
    places = [(place, name) for place, _folders, names in os.walk(folder, followlinks=True) for name in names]
    return {os.path.relpath(os.path.join(*each), folder): Path(*each).read_text() for each in places}


def test_a_file_where_data_want_a_folder_is_named_before_anything_is_queued(mine: Project) -> None:
    jobs = mine.folder / "jobs"
    (jobs / "mine.toml").write_text(STUDY.replace('"words.csv"', '"words.csv/of/austen"'))
    there = {"words.csv/of": str(mine.folder.parent / "elsewhere"), "data/books": str(mine.folder / "data" / "books")}
    (mine.folder.parent / "elsewhere" / "austen").write_text("Emma")
    mapped = ", ".join(f'"{name}" = "{path}"' for name, path in there.items())
    with (jobs / "targets.toml").open("a") as file:
        file.write(f"data = {{ {mapped} }}\n")
    with pytest.raises(ConfigurationError, match=r"data: .*words.csv is a file, and words.csv/of/austen wants"):
        mine.plan(target="scratch")


def test_nothing_is_sent_of_a_comparison_that_would_be_refused(mine: Project, root: Path) -> None:
    (mine.folder / "jobs" / "mine.toml").write_text(STUDY + "high = { lr = 0.6, gpus = 1 }\n")
    argv = argv_of("submit", "--target", "scratch", "--send-data")
    done = subprocess.run(argv, cwd=mine.folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 2 and "unequal" in done.stderr and not (root / "data").exists(), done.stderr


@pytest.mark.slow
def test_doctor_says_whether_what_a_script_reads_is_there(mine: Project, root: Path) -> None:
    def said() -> tuple[str, str, str]:
        (found,) = (each for each in mine.examine("scratch") if str(each.what) == "data of mine")
        return str(found.verdict), str(found.found), str(found.mend)

    send = "send it: oelm-submit --study mine --target scratch --send-data"
    assert said() == ("bad", f"{root}/data/books: no such file", send)
    mine.send_data("scratch")
    assert said() == ("good", f"0.0 MB in {root}/data/books, {root}/words.csv", "")


@pytest.mark.slow
def test_files_and_folders_are_sent_where_they_are_lacking_and_the_script_finds_them(mine: Project, root: Path) -> None:
    with pytest.raises(
        PreflightError, match=rf"scratch: {root}/data/books: no such file; nothing was queued"
    ) as raised:
        mine.plan(target="scratch")
    assert 'the same command with --send-data sends it; or name where it lies there: data = { "data/books"' in (
        raised.value.hint or ""
    )
    assert mine.send_data("scratch") == [f"{root}/data/books", f"{root}/words.csv"]
    assert below(root / "data" / "books") == below(mine.folder / "data" / "books") and len(below(root / "data")) == 5
    assert not any(path.is_symlink() for path in (root / "data" / "books").rglob("*"))
    assert (root / "words.csv").read_text() == "a,b\n1,2\n"
    mine.submit(mine.plan(target="scratch"))
    assert [str(run.state) for run in mine.wait(timeout_s=120).runs] == ["DONE"]
    assert "data/books/deep/er/odd name" in mine.logs("low") and mine.logs("low").strip().endswith(" 57")


@pytest.mark.slow
def test_what_is_there_is_not_sent_again_and_of_a_folder_only_what_it_lacks(mine: Project, root: Path) -> None:
    said: list[str] = []
    project = Project(mine.folder, say=said.append)
    project.send_data("scratch")
    before = (root / "data" / "books" / "emma.txt").stat().st_ino
    assert project.send_data("scratch") == [] and said[-1] == "scratch has the data already"
    (root / "data" / "books" / "deep" / "er" / "odd name\n.txt").unlink()
    assert project.send_data("scratch") == [f"{root}/data/books"]
    assert said[-1] == f"sent to scratch: {root}/data/books"
    assert below(root / "data" / "books") == below(mine.folder / "data" / "books")
    assert (root / "data" / "books" / "emma.txt").stat().st_ino == before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["data/books/emma.txt", "data/books/new.txt", "words.csv"])
def test_other_data_there_are_named_and_nothing_is_sent(mine: Project, root: Path, name: str) -> None:
    (root / name).parent.mkdir(parents=True)
    (root / name).write_text("something else")
    with pytest.raises(PreflightError, match=rf"scratch: {root}/{name} holds other data than {mine.folder}/"):
        mine.send_data("scratch")
    there = {path: text for path, text in below(root).items() if not path.startswith(".oelm")}
    assert there == {name: "something else"}


@pytest.mark.slow
def test_a_folder_that_arrived_in_part_is_not_taken_for_a_whole_one_and_gone_on_with(
    mine: Project, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    (root / "data" / "books").mkdir(parents=True)
    (root / "data" / "books" / "emma.txt").write_text(BOOKS["emma.txt"])
    monkeypatch.setattr(send, "watch", killed)
    with pytest.raises(KeyboardInterrupt):
        mine.send_data("scratch")
    monkeypatch.undo()
    with pytest.raises(PreflightError, match="not all that was sent is there; nothing was queued") as raised:
        mine.plan(target="scratch")
    (left,) = (path for path in (root / "data" / "books").iterdir() if path.name.startswith(".oelm-incoming-"))
    assert f"or remove {left} there" in (raised.value.hint or "")
    (left / "half.txt").write_text("of a file that has changed since")
    mine.send_data("scratch")
    assert below(root / "data" / "books") == below(mine.folder / "data" / "books")
    left.mkdir()  # all files got their names, and then the client was killed
    assert mine.send_data("scratch") == [] and not left.exists()
    assert mine.plan(target="scratch").data_hash == mine.plan().data_hash


@pytest.mark.slow
def test_what_the_project_lacks_is_named_before_anything_is_sent(mine: Project, root: Path) -> None:
    (mine.folder / "words.csv").unlink()
    with pytest.raises(PreflightError, match=rf"{mine.folder}/words\.csv: no such file; nothing was sent"):
        mine.send_data("scratch")
    assert not (root / "data").exists()
    root.mkdir(parents=True, exist_ok=True)
    (root / "words.csv").write_text("what the target alone has")
    assert mine.send_data("scratch") == [f"{root}/data/books"]
    (root / "words.csv").unlink()
    with pytest.raises(PreflightError, match=r"words\.csv: no such file") as raised:
        mine.plan(target="scratch")
    assert f"put it at {mine.folder}/words.csv; then the same command with --send-data" in (raised.value.hint or "")


@pytest.mark.slow
def test_a_mapped_folder_is_sent_to_where_it_is_mapped_to_and_a_file_keeps_its_name(
    mine: Project, tmp_path: Path
) -> None:
    with (mine.folder / "jobs" / "targets.toml").open("a") as file:
        file.write(f'data = {{ "data/books" = "{tmp_path}/disk/b", "words.csv" = "{tmp_path}/disk/w.csv" }}\n')
    with pytest.raises(PreflightError, match=r"words\.csv would get another name there, .*w\.csv"):
        mine.send_data("scratch")
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "w.csv").write_text("a,b\n1,2\n")
    assert mine.send_data("scratch") == [f"{tmp_path}/disk/b"]
    assert below(tmp_path / "disk" / "b") == below(mine.folder / "data" / "books")


@pytest.mark.slow
def test_another_command_that_sends_is_waited_for(mine: Project, root: Path) -> None:
    said: list[str] = []
    other = os.open(mine.folder, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(Project(mine.folder, say=said.append).send_data, "scratch")
        wait_until(lambda: said == ["another command sends data of this project; waiting for it"], "it to wait")
        assert not root.exists() or "data" not in os.listdir(root)
        os.close(other)
        assert len(sent.result(60)) == 2


@pytest.mark.slow
def test_the_meter_counts_many_files_of_one_size(mine: Project, root: Path) -> None:
    folder = mine.folder / "data" / "books"
    for number in range(300):
        (folder / f"{number}.txt").write_text("0123456789")

    class Told:
        done = size = 0

        def begin(self, files: int, size: int) -> None:
            self.size = size

        def advance(self, size: int) -> None:
            self.done += size

        def say(self, text: str) -> None: ...

    told = Told()
    connection = connections.connect_for_transfer(load_target(mine.folder, "scratch"), mine.folder)
    names = {f"{number}.txt": 10 for number in range(300)}
    (root / "there").mkdir(parents=True)
    expected = connection.call(registry.EXPECT, {"folder": f"{root}/there", "name": "x", "link": False})
    send._transfer(connection, folder, names, expected, told)
    assert told.done == told.size == 3000

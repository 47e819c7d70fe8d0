"""Tests of making token folders: what is in them, how they are split, and that they are complete or absent."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest

from oelm_jobs.data import atomic, token_folder
from oelm_jobs.data import check as data_check
from oelm_jobs.data import maker as data_maker
from oelm_jobs.data.maker import demo, make
from oelm_jobs.data.token_folder import Duplicates
from oelm_jobs.errors import DataError
from tests.data.stories import STORIES, read_documents, write_parquet, write_stories

FILES = ["manifest.json", "train.bin", "val.bin"]


def peak_memory(source: Path, output: Path) -> int:
    """Return the peak resident memory, in the unit of the system's own, of `make` in a process of its own.

    Through a small launcher, because Linux counts what the process that starts another occupied as the other's.
    """
    program = (
        "import sys; from pathlib import Path; from oelm_jobs.data.maker import make\n"
        "make([Path(sys.argv[1])], Path(sys.argv[2]), val_fraction=0.5, processes=1)\n"
    )
    launcher = (
        "import resource, subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]], check=True)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )
    argv = [sys.executable, "-c", launcher, program, source, output]
    return int(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.parquet"])
def test_all_documents_come_back_each_once(tmp_path: Path, name: str) -> None:
    make([write_stories(tmp_path / name, STORIES)], tmp_path / "out", vocab_size=1024, val_fraction=0.1)
    train, val = (read_documents(tmp_path / "out" / file) for file in ("train.bin", "val.bin"))
    assert sorted(train + val) == sorted(STORIES)
    assert [story for story in STORIES if story in set(train)] == train  # in order
    assert 15 <= len(val) <= 75


def test_the_manifest_tells_the_truth(tmp_path: Path) -> None:
    source = write_stories(tmp_path / "a.txt", STORIES)
    made = make([source], tmp_path / "out", vocab_size=500, val_fraction=0.1).manifest
    assert token_folder.read_manifest(tmp_path / "out") == made == data_check.check(tmp_path / "out")
    assert made.tokenizer == token_folder.Tokenizer(name="gpt2-500", vocab_size=500, eot=499)
    assert [(s.name, s.sha256, s.size) for s in made.source] == [
        ("a.txt", hashlib.sha256(source.read_bytes()).hexdigest(), source.stat().st_size)
    ]
    assert made.split == token_folder.Split(unit="document", val_fraction=0.1)
    for name in ("train.bin", "val.bin"):
        raw, said = (tmp_path / "out" / name).read_bytes(), made.files[name]
        ids = np.frombuffer(raw, "<u2")
        assert (said.size, said.tokens, said.sha256) == (len(raw), len(ids), hashlib.sha256(raw).hexdigest())
        assert said.sha256 == token_folder.hash_tokens(tmp_path / "out" / name)
        assert said.documents == int((ids == 499).sum())
        assert ids.max() < 500


@pytest.mark.slow
def test_the_result_depends_neither_on_processes_nor_on_when_and_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_maker, "BYTES_PER_PROCESS", 1000)
    monkeypatch.setattr(data_maker, "BATCH_CHARS", 2000)
    for place in ("one", "other"):
        write_stories(tmp_path / place / "a.txt", STORIES)
    make([tmp_path / "one"], tmp_path / "x", vocab_size=1024, processes=1)
    make([tmp_path / "other"], tmp_path / "y", vocab_size=1024, processes=3)
    monkeypatch.undo()
    make([tmp_path / "one"], tmp_path / "z", vocab_size=1024, processes=1)
    assert content(tmp_path / "x") == content(tmp_path / "y") == content(tmp_path / "z")


def test_copies_of_a_document_land_on_one_side(tmp_path: Path) -> None:
    source = write_stories(tmp_path / "a.jsonl", STORIES * 2)
    made = make([source], tmp_path / "out", vocab_size=1024, val_fraction=0.3).manifest
    for name in ("train.bin", "val.bin"):
        assert set(Counter(read_documents(tmp_path / "out" / name)).values()) == {2}
    assert made.duplicates == Duplicates(val_in_train=0, within_train=made.files["train.bin"].documents // 2)


def test_duplicates_between_training_and_validation_files_are_counted(tmp_path: Path) -> None:
    train = write_stories(tmp_path / "train.txt", [*STORIES[:50], STORIES[7], f"  {STORIES[8]}\n"])
    val = write_stories(tmp_path / "other.txt", [*STORIES[40:60], STORIES[40]])
    made = make([train], tmp_path / "out", validation=[val], vocab_size=1024).manifest
    assert made.duplicates == Duplicates(val_in_train=11, within_train=2)
    assert made.split.unit == "source" and made.split.val_fraction is None
    assert [source.name for source in made.split.source] == ["other.txt"]
    assert read_documents(tmp_path / "out" / "val.bin") == [*STORIES[40:60], STORIES[40]]


def test_a_folder_as_its_publisher_laid_it_out_is_split_as_its_publisher_split_it(tmp_path: Path) -> None:
    for part in range(2):
        write_stories(tmp_path / "in" / f"train-0000{part}-of-00002-x.parquet", STORIES[part * 100 : part * 100 + 100])
    write_stories(tmp_path / "in" / "validation-00000-of-00001-y.parquet", STORIES[200:220])
    make([tmp_path / "in"], tmp_path / "out", vocab_size=1024)
    assert read_documents(tmp_path / "out" / "train.bin") == STORIES[:200]
    assert read_documents(tmp_path / "out" / "val.bin") == STORIES[200:220]


def test_validation_text_in_the_source_folder_is_not_training_text(tmp_path: Path) -> None:
    write_stories(tmp_path / "in" / "a.txt", STORIES[:20])
    held_out = write_stories(tmp_path / "in" / "b.txt", STORIES[20:30])
    made = make([tmp_path / "in"], tmp_path / "out", validation=[held_out], vocab_size=1024).manifest
    assert [source.name for source in made.source] == ["a.txt"]
    with pytest.raises(DataError, match="all the text is validation text"):
        make([held_out], tmp_path / "out2", validation=[tmp_path / "in"])


def test_a_single_plain_text_gives_its_tail_to_validation(tmp_path: Path) -> None:
    text = "\n\n".join(STORIES)
    (tmp_path / "book.txt").write_text(text, encoding="utf-8")
    made = make([tmp_path / "book.txt"], tmp_path / "out", vocab_size=1024, val_fraction=0.1).manifest
    ((head,), (tail,)) = (read_documents(tmp_path / "out" / name) for name in ("train.bin", "val.bin"))
    assert f"{head}\n\n{tail}" == text
    assert 0.05 < len(tail) / len(text) < 0.15
    assert made.split == token_folder.Split(unit="tail", val_fraction=0.1)


def test_the_unit_of_the_split_can_be_chosen(tmp_path: Path) -> None:
    source = write_stories(tmp_path / "a.txt", STORIES)
    make([source], tmp_path / "out", unit="tail", vocab_size=1024)
    val = read_documents(tmp_path / "out" / "val.bin")
    assert val == STORIES[-len(val) :]
    with pytest.raises(DataError, match="'tails'; valid: auto, document, tail"):
        make([source], tmp_path / "out2", unit="tails")


@pytest.mark.parametrize("unit", ["document", "tail"])
def test_test_text_is_as_much_as_validation_text_and_nothing_of_either_is_trained_on(tmp_path: Path, unit: str) -> None:
    source = write_stories(tmp_path / "a.txt", STORIES)
    made = make([source], tmp_path / "out", unit=unit, vocab_size=1024, val_fraction=0.1, test=True).manifest
    assert names(tmp_path / "out") == ["manifest.json", "test.bin", "train.bin", "val.bin"]
    train, val, test = (read_documents(tmp_path / "out" / f"{name}.bin") for name in ("train", "val", "test"))
    assert sorted(train + val + test) == sorted(STORIES)
    assert all(15 <= len(part) <= 75 for part in (val, test))
    assert made.split.test_fraction == 0.1 and {*made.files} == {"train.bin", "val.bin", "test.bin"}
    if unit == "tail":
        assert train + val + test == STORIES
    assert make([source], tmp_path / "out", unit=unit, vocab_size=1024, val_fraction=0.1, test=True).up_to_date
    with pytest.raises(DataError, match="with test text"):
        make([source], tmp_path / "out", unit=unit, vocab_size=1024, val_fraction=0.1)
    with pytest.raises(DataError, match="nothing to train on"):
        make([source], tmp_path / "out2", val_fraction=0.5, test=True)


def test_test_text_of_another_split_does_not_stay_behind(tmp_path: Path) -> None:
    source = write_stories(tmp_path / "a.txt", STORIES)
    make([source], tmp_path / "out", vocab_size=1024, test=True)
    make([source], tmp_path / "out", vocab_size=1024, force=True)
    assert names(tmp_path / "out") == FILES, "it is trained on by now"


def test_test_text_comes_out_of_the_training_text_where_validation_has_its_own(tmp_path: Path) -> None:
    train, val = (write_stories(tmp_path / f"{name}.txt", part) for name, part in
                  (("a", STORIES[:250]), ("b", STORIES[250:])))  # fmt: skip
    make([train], tmp_path / "out", validation=[val], vocab_size=1024, val_fraction=0.2, test=True)
    found = {name: read_documents(tmp_path / "out" / f"{name}.bin") for name in ("train", "val", "test")}
    assert found["val"] == STORIES[250:] and sorted(found["train"] + found["test"]) == sorted(STORIES[:250])
    assert 20 <= len(found["test"]) <= 80


@pytest.mark.parametrize(
    ("stories", "message"),
    [([], "no training text is left: the sources hold 0 documents"), (["x"], "is left: the sources hold 1 document$")],
)
def test_too_little_text_for_a_split_is_refused_and_leaves_nothing(
    tmp_path: Path, stories: list[str], message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        make([write_stories(tmp_path / "in" / "a.jsonl", stories)], tmp_path / "out")
    assert "--val" in caught.value.hint
    assert names(tmp_path) == ["in"]


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 5, float("nan")])
def test_a_validation_share_that_is_none_is_refused(tmp_path: Path, fraction: float) -> None:
    with pytest.raises(DataError, match="more than 0, less than 1"):
        make([write_stories(tmp_path / "a.txt", STORIES)], tmp_path / "out", val_fraction=fraction)


def test_making_the_same_again_writes_nothing(tmp_path: Path) -> None:
    source = write_stories(tmp_path / "a.txt", STORIES)
    assert not make([source], tmp_path / "out", vocab_size=1024).up_to_date
    before = {path: path.stat().st_mtime_ns for path in [tmp_path / "out", *(tmp_path / "out").iterdir()]}
    assert make([source], tmp_path / "out", vocab_size=1024).up_to_date
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_other_data_is_not_overwritten_unless_forced(tmp_path: Path) -> None:
    source, out = write_stories(tmp_path / "a.txt", STORIES), tmp_path / "out"
    make([source], out, vocab_size=1024)
    before = content(out)
    with pytest.raises(DataError, match="other data: tokenizer gpt2-1024 instead of gpt2-300$") as caught:
        make([source], out, vocab_size=300)
    assert "--force" in caught.value.hint
    with pytest.raises(DataError, match=r"split 0\.05 by document instead of 0\.2 by document"):
        make([source], out, vocab_size=1024, val_fraction=0.2)
    write_stories(tmp_path / "a.txt", STORIES[1:])
    with pytest.raises(DataError, match=r"source a\.txt \(\w{8}\) instead of a\.txt \(\w{8}\)"):
        make([source], out, vocab_size=1024)
    assert content(out) == before
    make([source], out, vocab_size=1024, force=True)
    assert content(out) != before
    assert names(out) == FILES


def test_data_of_unknown_origin_are_not_overwritten(tmp_path: Path) -> None:
    source, out = write_stories(tmp_path / "a.txt", STORIES), tmp_path / "out"
    out.mkdir()
    (out / "train.bin").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"train\.bin of unknown origin"):
        make([source], out)
    assert content(out) == {"train.bin": b"mine"}
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is a file, not a folder"):
        make([source], tmp_path / "file")


def test_a_truncated_result_is_not_taken_for_up_to_date(tmp_path: Path) -> None:
    source, out = write_stories(tmp_path / "a.txt", STORIES), tmp_path / "out"
    make([source], out, vocab_size=1024)
    os.truncate(out / "train.bin", 10)
    with pytest.raises(DataError, match=r"train\.bin is not what its manifest says"):
        make([source], out, vocab_size=1024)


def test_files_beside_the_data_are_left_alone_and_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "notes.md").write_text("mine")
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    make([write_stories(tmp_path / "a.txt", STORIES)], tmp_path / "out", vocab_size=1024)
    assert (tmp_path / "out").is_symlink()
    assert names(tmp_path / "disk") == ["manifest.json", "notes.md", "train.bin", "val.bin"]
    assert (tmp_path / "disk" / "notes.md").read_text() == "mine"


@pytest.mark.slow
def test_the_new_folder_has_the_rights_that_mkdir_would_give(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    demo(tmp_path / "out", vocab_size=300)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_a_source_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    source = write_stories(tmp_path / "a.txt", STORIES)

    def report(stage: str, total: int, more: int) -> None:
        if stage == "encode" and source.stat().st_size == total:
            with open(source, "a") as stream:
                stream.write("more")

    with pytest.raises(DataError, match=r"a\.txt was changed while it was read"):
        make([source], tmp_path / "out", vocab_size=1024, report=report)
    assert names(tmp_path) == ["a.txt"]


def test_an_error_of_the_disk_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_stories(tmp_path / "in" / "a.txt", STORIES)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(data_maker.os, "fsync", full)
    with pytest.raises(DataError, match="out: No space left on device"):
        make([source], tmp_path / "out", vocab_size=1024)
    assert names(tmp_path) == ["in"]


def test_data_that_appear_meanwhile_are_not_overwritten(tmp_path: Path) -> None:
    source, out = write_stories(tmp_path / "in" / "a.txt", STORIES), tmp_path / "out"

    def report(stage: str, total: int, more: int) -> None:
        if stage == "encode":
            out.mkdir(exist_ok=True)
            (out / "val.bin").write_bytes(b"mine")

    with pytest.raises(DataError, match=r"val\.bin: appeared while this was made"):
        make([source], out, vocab_size=1024, report=report)
    assert content(out) == {"val.bin": b"mine"}
    assert names(tmp_path) == ["in", "out"]


@pytest.mark.slow
@pytest.mark.parametrize("existing", [False, True])
def test_a_maker_killed_at_work_leaves_no_final_name_and_the_next_one_clears_up(tmp_path: Path, existing: bool) -> None:
    source, out = tmp_path / "big.txt", tmp_path / "place" / "out"
    out.parent.mkdir()
    if existing:
        make([write_stories(tmp_path / "a.txt", STORIES)], out, vocab_size=300)
    before = content(out) if existing else None
    write_stories(source, STORIES * 200)
    program = (
        "import sys; from pathlib import Path; from oelm_jobs.data.maker import make\n"
        "if __name__ == '__main__':\n"
        "    make([Path(sys.argv[1])], Path(sys.argv[2]), vocab_size=300, processes=2, force=True)\n"
    )
    maker = subprocess.Popen([sys.executable, "-c", program, source, out])
    try:
        base = out if existing else out.parent
        deadline = time.monotonic() + 120
        while not any(path.stat().st_size for path in base.glob(f"{atomic.SCRATCH_PREFIX}*/train.bin")):
            assert maker.poll() is None and time.monotonic() < deadline, "it ended before it could be killed"
            time.sleep(0.005)
        workers = psutil.Process(maker.pid).children(recursive=True)
    finally:
        maker.kill()
        maker.wait()
    _, alive = psutil.wait_procs(workers, timeout=300)
    assert not alive
    left = [path for path in base.iterdir() if path.name.startswith(atomic.SCRATCH_PREFIX)]
    assert len(left) == 1
    if existing:
        assert {name: (out / name).read_bytes() for name in FILES} == before
    else:
        assert not out.exists()
    make([source], out, vocab_size=300, val_fraction=0.1, force=existing)
    assert names(out) == FILES
    assert names(out.parent) == ["out"]
    data_check.check(out)


def test_a_maker_at_work_is_not_cleared_away_by_another(tmp_path: Path) -> None:
    with atomic.scratch_folder(tmp_path / "x") as first:
        with atomic.scratch_folder(tmp_path / "y") as second:
            assert first.is_dir() and second.is_dir() and first != second
        assert first.is_dir() and not second.exists()
    assert names(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("form", ["documents.txt", "one.txt", "rows.parquet"])
def test_memory_does_not_grow_with_the_text(tmp_path: Path, form: str) -> None:
    peaks = []
    for size in (6_000_000, 60_000_000):
        source = tmp_path / str(size) / form
        source.parent.mkdir()
        copies = size // sum(len(story.encode()) for story in STORIES)  # sizes past which every buffer has been full
        if form == "documents.txt":
            write_stories(source, [f"{copy} {story}" for copy in range(copies) for story in STORIES])
        elif form == "one.txt":
            source.write_text("\n\n".join(STORIES * copies), encoding="utf-8")
        else:  # one row group as large as the file: the worst case
            rows = [f"{copy} {story}" for copy in range(copies) for story in STORIES]
            write_parquet(source, {"text": rows}, len(rows))
        peaks.append(peak_memory(source, source.parent / "out"))
    assert peaks[1] < 1.2 * peaks[0], peaks  # 54 MB more text, or 27 MB more ids, would be seen


@pytest.mark.slow
def test_the_demo_is_the_novels_whole_and_the_same_everywhere(tmp_path: Path) -> None:
    made = demo(tmp_path / "out").manifest
    assert made.tokenizer.name == "gpt2-1024"
    train, val = made.files["train.bin"], made.files["val.bin"]
    assert (train.tokens, val.tokens) == (1_517_799, 69_797)
    assert (train.documents, val.documents) == (257, 13)
    assert made.duplicates == Duplicates(val_in_train=0, within_train=0)
    assert demo(tmp_path / "out").up_to_date

"""Hashes of what programs read."""

from __future__ import annotations

import os
from pathlib import Path

from oelm_jobs.agent.transfer.contents import content


def of(root: Path, path: Path) -> object:
    return content({"root": str(root), "files": [str(path)]})["files"][str(path)]


def test_a_folder_is_known_by_the_names_and_contents_of_all_that_is_below_it(tmp_path: Path) -> None:
    folder, root = tmp_path / "data", tmp_path / "root"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("one")
    (folder / "deep" / "b.txt").write_text("two")
    first = of(root, folder)
    assert isinstance(first, dict) and first["size"] == 6
    (folder / "deep" / "b.txt").write_text("2wo")
    os.utime(folder / "deep" / "b.txt", (1, 1))
    second = of(root, folder)
    (folder / "deep" / "b.txt").rename(folder / "b.txt")
    third = of(root, folder)
    assert len({str(each) for each in (first, second, third)}) == 3
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "x.pyc").write_text("made while it ran")
    assert of(root, folder) == third


def test_links_are_followed_and_a_circle_ends(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    (elsewhere / "a.txt").write_text("one")
    (folder / "there").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(folder)
    found = of(tmp_path, folder)
    assert isinstance(found, dict) and found["size"] == 3
    (elsewhere / "a.txt").write_text("changed")
    assert of(tmp_path, folder) != found


def test_what_is_in_a_folder_is_told_where_that_is_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "b.txt").write_text("two")
    paths = [str(folder), str(folder / "deep" / "b.txt")]
    found = content({"root": str(tmp_path), "files": paths, "each": True})["files"]
    assert found[paths[0]]["files"] == {"deep/b.txt": found[paths[1]]["sha256"]} and "files" not in found[paths[1]]
    assert "files" not in of(tmp_path, folder)


def test_a_name_that_no_message_holds_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.txt").write_text("one")
    with open(os.fsencode(folder) + b"/\xff", "w") as file:
        file.write("two")
    found = content({"root": str(tmp_path), "files": [str(folder)], "each": True})["files"][str(folder)]
    assert found == {"error": r"a file in it has a name that is too long, or not in UTF-8: '\udcff'"}
    assert isinstance(of(tmp_path, folder), dict) and "sha256" in of(tmp_path, folder)


def test_what_has_not_arrived_whole_is_named_and_no_part_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.txt").write_text("one")
    before = of(tmp_path, folder)
    (folder / ".oelm-incoming-x").mkdir()
    (folder / ".oelm-incoming-x" / "b.txt").write_text("half of tw")
    assert isinstance(before, dict)
    assert of(tmp_path, folder) == {**before, "arriving": str(folder / ".oelm-incoming-x")}


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    assert of(tmp_path, tmp_path / "no") == {"error": "no such file"}

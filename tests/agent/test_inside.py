"""Names from elsewhere stay in the folder that they are meant for, on servers and at home, whatever links lie about."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs import names
from oelm_jobs.agent import inside
from oelm_jobs.agent.host import archive, launch
from oelm_jobs.agent.slurm import cancel as slurm_cancel
from oelm_jobs.agent.slurm import submit as slurm_submit
from oelm_jobs.agent.transfer import inventory, tokens
from oelm_jobs.transfer import sync

OUTWARD = ("../x", "a/../../x", "/etc/passwd", "", ".", "..", "a//b", "a/./b", "a/", "a\0b")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with another one beside it that nothing may reach."""
    (tmp_path / "outside").mkdir()
    made = tmp_path / "inside"
    made.mkdir()
    return made


@pytest.mark.parametrize("name", OUTWARD)
def test_a_name_that_leads_out_is_refused_by_every_way_to_write(folder: Path, name: str) -> None:
    source = folder.parent / "source"
    source.write_text("x")
    for attempt in (
        lambda: inside.path_in(folder, name),
        lambda: inside.write(folder, name, b"x"),
        lambda: inside.replace((folder.parent, "source"), folder, name),
        lambda: inside.replace((folder, name), folder, "x"),
        lambda: inside.remove(folder, name),
        lambda: inside.open_below(folder, name, os.O_WRONLY | os.O_CREAT),
    ):
        with pytest.raises(inside.Outside):
            attempt()
    assert source.exists() and not list(folder.iterdir())


def test_a_link_below_the_folder_is_not_followed_and_one_in_a_files_place_is_replaced(folder: Path) -> None:
    outside = folder.parent / "outside"
    (folder / "link").symlink_to(outside)
    (outside / "file").write_text("theirs")
    (folder / "file").symlink_to(outside / "file")
    for name in ("link/file", "link/new/file"):
        with pytest.raises(inside.Outside, match="leads elsewhere"):
            inside.write(folder, name, b"x")
    with pytest.raises(inside.Outside):
        inside.open_below(folder, "file", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    inside.write(folder, "file", b"ours")
    assert (folder / "file").read_bytes() == b"ours" and not (folder / "file").is_symlink()
    assert [path.name for path in outside.iterdir()] == ["file"] and (outside / "file").read_text() == "theirs"


@pytest.mark.parametrize("act", ["write", "replace", "open", "make", "remove"])
def test_a_link_that_is_put_there_between_look_and_act_leads_nowhere(
    folder: Path, act: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = folder.parent / "outside"
    (outside / "file").write_text("theirs")
    (folder / "source").write_text("ours")
    (folder / "sub").mkdir()
    truth = inside.path_in

    def swapped(*words: object) -> Path:
        """Look as always; then somebody is faster."""
        path = truth(*words)
        if words[1] == "sub/file" and (folder / "sub").is_dir() and not (folder / "sub").is_symlink():
            (folder / "sub").rmdir()
            (folder / "sub").symlink_to(outside)
        return path

    monkeypatch.setattr(inside, "path_in", swapped)
    with pytest.raises(inside.Outside):
        if act == "write":
            inside.write(folder, "sub/file", b"x")
        elif act == "replace":
            inside.replace((folder, "source"), folder, "sub/file")
        elif act == "open":
            os.close(inside.open_below(folder, "sub/file", os.O_WRONLY | os.O_TRUNC | os.O_CREAT))
        elif act == "make":
            inside.make_parent(folder, "sub/file")
        else:
            inside.remove(folder, "sub/file")
    assert [path.name for path in outside.iterdir()] == ["file"] and (outside / "file").read_text() == "theirs"


@pytest.mark.parametrize("name", ["n" * 255, "\u4e2d" * 85, "a/" * 50 + "n" * 255])
def test_a_name_may_be_as_long_as_names_can_be(folder: Path, name: str) -> None:
    path = inside.write(folder, name, b"x")
    (folder / "source").write_bytes(b"y")
    assert inside.replace((folder, "source"), folder, name).read_bytes() == b"y"
    assert [found.name for found in path.parent.iterdir()] == [path.name], "nothing is left beside it"


def test_links_of_the_user_in_the_folders_own_path_are_followed(folder: Path) -> None:
    (folder / "models").symlink_to(folder.parent / "outside")
    written = inside.write(folder / "models" / "exp_a", "sub/file", b"x")
    assert written == folder.parent / "outside" / "exp_a" / "sub" / "file" and written.read_bytes() == b"x"


def test_a_fifo_keeps_nobody_waiting(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    with pytest.raises(inside.Outside, match="no plain file"):
        inside.open_below(folder, "pipe", os.O_RDONLY)


def test_a_manifest_that_names_what_cannot_be_is_damaged_there_and_read_on(folder: Path) -> None:
    (folder.parent / "outside" / "x").write_text("x")
    (folder / "link").symlink_to(folder.parent / "outside")
    odd = ["n" * 256, "a/" * 500, "../outside/x", str(folder.parent / "outside" / "x"), "link/x"]
    digest = hashlib.sha256(b"x").hexdigest()
    files = [{"name": name, "size": 1, "sha256": digest} for name in (*odd, "fine")]
    (folder / "fine").write_text("x")
    (folder / "MANIFEST.json").write_text(json.dumps({"files": files}))
    assert sync.verify(folder).damaged == tuple(odd)


# Requests of a client that is wrong -----------------------------------------------------------------------------------


def test_an_agent_writes_and_removes_nothing_under_names_that_lead_out(folder: Path) -> None:
    victim = folder.parent / "outside" / "file"
    victim.write_text("keep")
    digest = "6ca7ea2feefc88ecb5ed6356ed963f47dc9137f82526fdd25d618ea626d0803f"  # sha256 of "keep"
    run_dir = folder / "exp_a"
    (run_dir / ".oelm").mkdir(parents=True)
    (run_dir / ".oelm" / "claim").touch()
    name = "../../outside/file"
    with pytest.raises(inside.Outside):
        inventory.remove({"root": str(folder), "runs": [{"run_dir": str(run_dir), "files": {name: [4, digest]}}]})
    staging = folder / ".oelm-incoming-x"
    staging.mkdir()
    (staging / "train.bin").write_text("keep")
    with pytest.raises(inside.Outside):
        tokens.accept({"staging": str(staging), "folder": str(folder), "files": {"train.bin": digest, name: digest}})
    assert not (folder / "train.bin").exists(), "all or nothing"
    for other in (victim.parent, folder, folder / "x" / ".oelm-incoming-x"):
        with pytest.raises(inside.Outside):
            tokens.accept({"staging": str(other), "folder": str(folder), "files": {}})
    with pytest.raises(inside.Outside):
        tokens.expect({"folder": str(folder), "name": "../../outside/x", "link": False})
    assert [path.name for path in victim.parent.iterdir()] == ["file"] and victim.read_text() == "keep"


@pytest.mark.parametrize("path", ["/", "exp_a", "{}/exp_a/..", "{}/inside/../exp_a", "{}/inside", "{}/exp_", 7, None])
def test_what_is_no_run_directory_is_neither_moved_nor_run_in(folder: Path, path: object) -> None:
    named = path.format(folder.parent) if isinstance(path, str) else path
    before = sorted(folder.parent.rglob("*"))
    run = {"run_dir": named, "token": "t", "script": "exit 0"}
    job = {"position": 0, "name": "n", "script": "exit 0", "run_dirs": [named], "after": None}
    for attempt in (
        lambda: archive.archive({"run_dirs": [named]}),
        lambda: slurm_cancel.slurm_archive({"run_dirs": [named]}),
        lambda: inventory.remove({"root": str(folder), "runs": [{"run_dir": named, "files": {"a.pt": [1, ""]}}]}),
        lambda: launch.launch({"root": str(folder), "token": "t", "runs": [run]}),
        lambda: slurm_submit.slurm_submit({"root": str(folder), "token": "t", "jobs": [job]}),
    ):
        with pytest.raises(inside.Outside):
            attempt()
    assert sorted(folder.parent.rglob("*")) == before


@pytest.mark.parametrize("move", [archive.archive, slurm_cancel.slurm_archive])
def test_only_what_lies_below_the_root_is_removed(
    folder: Path, move: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oelm_jobs.agent.slurm.commands.cluster_name", lambda: "")
    root, outside = folder / "root", folder / "rooted" / "exp_a"
    inner = root / "models" / "exp_a"
    for place in (inner, outside):
        place.mkdir(parents=True)
        (place / "best.pt").write_text("keep")
    (root / "exp_link").symlink_to(outside)
    (root / "elsewhere").symlink_to(outside.parent)
    for victim in (outside, root / "exp_link", root / "elsewhere" / "exp_a"):
        with pytest.raises(inside.Outside, match="nothing of it is removed"):
            move({"run_dirs": [str(inner), str(victim)], "below": [str(root)]})
    assert (outside / "best.pt").exists() and (inner / "best.pt").exists()
    (inner / "data").symlink_to(outside)
    (folder / "link").symlink_to(root)  # the root itself may be one
    answer = move({"run_dirs": [str(inner)], "below": [str(folder / "link")]})
    assert answer["removed"] == [str(inner)] and list((root / "models" / ".archive").iterdir()) == []
    assert (outside / "best.pt").read_text() == "keep", "what a link leads to stays"


@pytest.mark.parametrize("token", ["../../outside/t", "", "-t", "a/b", 7])
def test_a_token_that_would_be_a_path_is_refused(folder: Path, token: object) -> None:
    for attempt in (
        lambda: launch.launch({"root": str(folder), "token": token, "runs": []}),
        lambda: launch.settle({"root": str(folder), "token": token}),
        lambda: slurm_submit.slurm_settle({"root": str(folder), "token": token}),
    ):
        with pytest.raises(inside.Outside):
            attempt()
    assert not list(folder.rglob("*.json")) and not list((folder.parent / "outside").iterdir())


# Names in records -----------------------------------------------------------------------------------------------------

RECORD = {
    "study": "tiny", "run": "gpt_base-s43-lr1", "group": "gpt_base", "seed": 43, "tag": "lr1", "label": "Group A",
    "token": "oelm-0123456789abcdef", "fingerprint": "0f" * 32, "run_dir": "/r/models/checkpoints/exp_gpt_base-s43-lr1",
    "train": {"max_steps": 10, "seq_len": 16}, "global_batch": 4,
}  # fmt: skip


def test_a_record_as_submissions_write_it_is_believed() -> None:
    assert names.what_is_wrong(RECORD) == ""
    assert names.what_is_wrong({**RECORD, "run": "gpt_base-lr1"}) == "", "the study's first seed has the bare name"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("run", "../../../evil"), ("run", "gpt_base"), ("run", 7), ("run", None), ("group", "../x"), ("group", "a-s43"),
        ("study", "../x"), ("study", "exp_x"), ("study", ""), ("study", ["tiny"]), ("tag", "a/b"), ("tag", None),
        ("seed", -1), ("seed", 2**63), ("seed", "43"), ("seed", True), ("label", "a\x1b[2J"), ("label", None),
        ("label", "a\u202eb"), ("token", "../t"), ("token", "q q"), ("fingerprint", "../f"), ("run_dir", "relative"),
        ("run_dir", "/a/../b"), ("run_dir", 7), ("train", None), ("train", {"max_steps": "many", "seq_len": 1}),
        ("global_batch", 0), ("global_batch", None),
    ],
)  # fmt: skip
def test_a_record_that_no_study_can_have_led_to_is_not_believed(key: str, value: object) -> None:
    assert names.what_is_wrong({**RECORD, key: value})

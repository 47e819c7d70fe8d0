"""Tests of reading and checking token folders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from oelm_jobs import data
from oelm_jobs.data_maker import demo
from oelm_jobs.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    demo(tmp_path / "demo", vocab_size=300)
    return tmp_path / "demo"


def edit(folder: Path, **changes: object) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest |= changes
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_sound_data_pass(folder: Path) -> None:
    assert data.check(folder) == data.read_manifest(folder)


def test_the_module_needs_no_heavy_library() -> None:
    program = "import sys, oelm_jobs.data; assert not {'numpy', 'tiktoken', 'rich', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_folder_without_a_manifest_has_none_and_is_checked_by_its_lengths(folder: Path, tmp_path: Path) -> None:
    (folder / "manifest.json").unlink()
    assert data.read_manifest(folder) is None
    assert data.check(folder) is None
    assert data.read_manifest(tmp_path / "nowhere") is None
    with pytest.raises(DataError, match="nowhere is no folder"):
        data.check(tmp_path / "nowhere")
    (folder / "val.bin").write_bytes(b"abc")
    with pytest.raises(DataError, match=r"val\.bin is no file of uint16 ids: its length is 3 bytes"):
        data.check(folder)


def test_keys_that_a_later_version_adds_are_ignored_and_those_of_an_older_one_suffice(folder: Path) -> None:
    edit(folder, added_later={"x": 1})
    manifest = json.loads((folder / "manifest.json").read_text())
    for key in ("duplicates", "field"):
        del manifest[key]
    for entry in (*manifest["files"].values(), *manifest["source"]):
        entry.pop("documents", None)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert data.check(folder) is not None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 1}', b"\xff", b'{"version": "x"}'])
def test_a_manifest_that_cannot_be_read_is_an_error_that_names_it(folder: Path, content: bytes) -> None:
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(DataError, match=r"demo/manifest\.json can't be read") as caught:
        data.read_manifest(folder)
    assert "--force" in caught.value.hint


def test_a_truncated_file_is_found_by_its_length(folder: Path) -> None:
    os.truncate(folder / "train.bin", 100)
    with pytest.raises(DataError, match=r"train\.bin is 100 bytes long; its manifest says \d+ \(\d+ tokens\)"):
        data.check(folder)


def test_a_changed_token_is_found_by_the_hash(folder: Path) -> None:
    with open(folder / "val.bin", "r+b") as stream:
        stream.seek(1000)
        stream.write(b"\x01\x00")
    with pytest.raises(DataError, match=r"val\.bin was changed: its sha256 is \w{64}"):
        data.check(folder)


def test_an_id_past_the_vocabulary_is_found_with_its_place(tmp_path: Path) -> None:
    ids = np.zeros(1_000_000, dtype="<u2")
    ids[777_777] = 50_000
    ids.tofile(tmp_path / "x.bin")
    with pytest.raises(DataError, match=r"token 777777 is 50000, and the vocabulary's last id is 1023"):
        data.check_tokens(tmp_path / "x.bin", 1024)
    assert data.check_tokens(tmp_path / "x.bin", 50_001) == 1_000_000


@pytest.mark.parametrize(("content", "length"), [(b"", 0), (b"abc", 3)])
def test_a_file_that_can_hold_no_ids_is_refused(tmp_path: Path, content: bytes, length: int) -> None:
    (tmp_path / "x.bin").write_bytes(content)
    with pytest.raises(DataError, match=f"its length is {length} bytes"):
        data.check_tokens(tmp_path / "x.bin", 1024)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "val.bin").unlink()
    with pytest.raises(DataError, match=r"val\.bin: No such file"):
        data.check(folder)
    with pytest.raises(DataError, match="No such file"):
        data.hash_tokens(folder / "val.bin")


def test_a_manifest_that_leaves_a_file_out_is_refused(folder: Path) -> None:
    edit(folder, files={})
    with pytest.raises(DataError, match=r"says nothing of train\.bin, val\.bin"):
        data.check(folder)

"""Tests of reading and checking token folders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from oelm_jobs.agent import verbs
from oelm_jobs.agent.transfer import tokens
from oelm_jobs.data import check as data_check
from oelm_jobs.data import token_folder
from oelm_jobs.data.maker import demo
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
    assert data_check.check(folder) == token_folder.read_manifest(folder)


def test_the_module_needs_no_heavy_library() -> None:
    program = (
        "import sys, oelm_jobs.data.token_folder; assert not {'numpy', 'tiktoken', 'rich', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_folder_without_a_manifest_has_none_and_is_checked_by_its_lengths(folder: Path, tmp_path: Path) -> None:
    (folder / "manifest.json").unlink()
    assert token_folder.read_manifest(folder) is None
    assert data_check.check(folder) is None
    assert token_folder.read_manifest(tmp_path / "nowhere") is None
    with pytest.raises(DataError, match="nowhere is no folder"):
        data_check.check(tmp_path / "nowhere")
    (folder / "val.bin").write_bytes(b"abc")
    with pytest.raises(DataError, match=r"val\.bin: 3 bytes are not uint16 token ids"):
        data_check.check(folder)


def test_keys_that_a_later_version_adds_are_ignored_and_those_of_an_older_one_suffice(folder: Path) -> None:
    edit(folder, added_later={"x": 1})
    manifest = json.loads((folder / "manifest.json").read_text())
    for key in ("duplicates", "field"):
        del manifest[key]
    for entry in (*manifest["files"].values(), *manifest["source"]):
        entry.pop("documents", None)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert data_check.check(folder) is not None


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 1}', b"\xff", b'{"version": "x"}'])
def test_a_manifest_that_cannot_be_read_is_an_error_that_names_it(folder: Path, content: bytes) -> None:
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(DataError, match=r"demo/manifest\.json can't be read") as caught:
        token_folder.read_manifest(folder)
    assert "--force" in caught.value.hint


def test_a_truncated_file_is_found_by_its_length(folder: Path) -> None:
    os.truncate(folder / "train.bin", 100)
    with pytest.raises(DataError, match=r"train\.bin: has 100 bytes, its manifest says \d+ \(\d+ tokens\)"):
        data_check.check(folder)


def test_a_changed_token_is_found_by_the_hash(folder: Path) -> None:
    with open(folder / "val.bin", "r+b") as stream:
        stream.seek(1000)
        stream.write(b"\x01\x00")
    with pytest.raises(DataError, match=r"val\.bin: was changed: its sha256 is \w{64}"):
        data_check.check(folder)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "val.bin").unlink()
    with pytest.raises(DataError, match=r"val\.bin: no such file"):
        data_check.check(folder)
    with pytest.raises(DataError, match="No such file"):
        token_folder.hash_tokens(folder / "val.bin")


def test_a_manifest_that_leaves_a_file_out_is_refused(folder: Path) -> None:
    edit(folder, files={})
    with pytest.raises(DataError, match=r"says nothing of train\.bin, val\.bin"):
        data_check.check(folder)


def test_a_manifest_of_thousands_of_sources_can_be_told(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    row = {"name": "part.txt", "sha256": "0" * 64, "size": 1}
    edit(folder, source=[row] * 20_000, split={**manifest["split"], "source": [row] * 20_000})
    path = str(folder / "train.bin")
    answer = {"files": tokens.look([path])}
    assert verbs.wrong_answer("data", {"files": [path]}, answer) is None
    assert data_check.fault(path, answer["files"][path]) is None


def write(path: Path, ids: np.ndarray, dtype: str = "<u2") -> None:
    ids.astype(dtype).tofile(path)


def test_without_a_manifest_a_file_of_another_type_is_refused_with_the_mend(folder: Path) -> None:
    ids = np.fromfile(folder / "train.bin", "<u2")
    (folder / "manifest.json").unlink()
    write(folder / "train.bin", ids, "<i4")
    with pytest.raises(DataError, match=r"train\.bin: holds 32-bit numbers, not uint16 token ids") as caught:
        data_check.check(folder)
    assert "numpy.asarray(ids, '<u2').tofile('train.bin')" in caught.value.hint


def test_what_its_own_maker_vouches_for_is_no_file_of_another_type(folder: Path) -> None:
    """Samples may err, for instance about ids that are every second time 0 for a reason."""
    ids = np.fromfile(folder / "train.bin", "<u2")
    ids[1::2] = 0
    write(folder / "train.bin", ids)
    with pytest.raises(DataError, match="32-bit numbers"):
        data_check.check(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    files = manifest["files"] | {
        "train.bin": {**manifest["files"]["train.bin"], "sha256": token_folder.hash_tokens(folder / "train.bin")}
    }
    edit(folder, files=files)
    assert data_check.check(folder) is not None


def test_an_id_past_the_vocabulary_is_found_with_its_place(folder: Path) -> None:
    ids = np.fromfile(folder / "train.bin", "<u2")
    ids[77_777] = 50_000
    write(folder / "train.bin", ids)
    with pytest.raises(DataError, match=r"token 77777 is 50000, and the vocabulary's last id is 299"):
        data_check.check(folder)


@pytest.mark.parametrize(("content", "length"), [(b"", 0), (b"abc", 3)])
def test_a_file_that_can_hold_no_ids_is_refused(folder: Path, content: bytes, length: int) -> None:
    (folder / "manifest.json").unlink()
    (folder / "train.bin").write_bytes(content)
    with pytest.raises(DataError, match=rf"train\.bin: {length} bytes are not uint16 token ids"):
        data_check.check(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dtype": "uint32"}, r"the manifest\.json beside it says dtype = uint32, not uint16"),
        ({"files": {"train.bin": 3}}, r"manifest\.json can't be read"),
    ],
)
def test_a_manifest_of_other_data_is_named(folder: Path, changes: dict[str, object], words: str) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    if "files" not in changes:
        changes = {**changes, "files": manifest["files"]}
    edit(folder, **changes)
    with pytest.raises(DataError, match=words) as caught:
        data_check.check(folder)
    assert "--force" in caught.value.hint

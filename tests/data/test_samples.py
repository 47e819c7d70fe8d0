"""What the agent tells of a file of token ids without a manifest: what it seems to hold, its hash, its largest id."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import os
from pathlib import Path

import numpy as np
import pytest

from oelm_jobs.agent.transfer import hashes, samples, tokens

ZIPF = np.random.default_rng(1).zipf(1.2, 200_000) % 50_000
"""Ids as text has them: small ones are frequent."""
TEXT = "It is a truth universally acknowledged, über alles, 真理。\n".encode() * 3000


def saved(ids: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, ids.astype("<u2"))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (ZIPF.astype("<u4").tobytes(), "uint32"),
        (ZIPF.astype("<i4").tobytes(), "uint32"),
        ((ZIPF * 4).astype("<u4").tobytes(), "uint32"),  # a vocabulary of 200,000
        (ZIPF.astype("<i8").tobytes(), "int64"),
        (ZIPF.astype("<f4").tobytes(), "float32"),
        ((ZIPF % 97 + 10).astype("u1").tobytes(), "uint8"),
        (TEXT, "text"),
        (saved(ZIPF), "npy"),
        (gzip.compress(TEXT), "gzip"),
        (lzma.compress(TEXT), "xz"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123\n", "lfs"),
    ],
)
def test_files_of_other_kinds_are_recognised(tmp_path: Path, content: bytes, kind: str) -> None:
    path = tmp_path / "train.bin"
    path.write_bytes(content)
    assert samples.written_as(str(path)) == kind
    if kind not in ("npy", "gzip", "xz", "lfs"):  # whose beginning tells
        path.write_bytes(content[:4096])
        assert samples.written_as(str(path)) == kind, "of a small one, too"


@pytest.mark.parametrize("vocab_size", [64, 256, 257, 1024, 32_768, 50_257, 65_536])
def test_ids_of_whatever_vocabulary_are_left_alone(tmp_path: Path, vocab_size: int) -> None:
    path = tmp_path / "train.bin"
    random = np.random.default_rng(vocab_size)
    for ids in (
        ZIPF % vocab_size,
        random.integers(vocab_size, size=100_000),
        np.arange(100_000) % vocab_size,
        np.full(100_000, vocab_size - 1),
        np.zeros(100_000),
        np.where(np.arange(100_000) < 90_000, 0, random.integers(vocab_size, size=100_000)),  # padded
    ):
        for count in (len(ids), 500, 3, 1):
            ids[:count].astype("<u2").tofile(path)
            assert samples.written_as(str(path)) == ""


def test_no_more_than_a_little_of_a_large_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "train.bin"
    with open(path, "wb") as file:
        file.write(ZIPF.astype("<u4").tobytes())
        file.truncate(8 << 30)  # a hole, which nobody should read through
    read = []

    class Counted(io.FileIO):
        def read(self, size: int | None = -1) -> bytes:
            content = super().read(-1 if size is None else size)
            read.append(len(content))
            return content

    monkeypatch.setattr(samples, "open", lambda name, mode: Counted(name), raising=False)
    assert samples.written_as(str(path)) == "uint32"
    assert len(read) >= samples.PIECES and sum(read) <= 1 << 18


@pytest.mark.parametrize("seed", range(20))
def test_the_largest_id_is_found_with_its_first_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(hashes, "PIECE_BYTES", 1 << 10)
    random = np.random.default_rng(seed)
    most = int(random.choice([1, 2, 255, 256, 257, 1024, 50_257, 65_536]))
    ids = random.integers(most, size=int(random.integers(1, 5000))).astype("<u2")
    if seed % 3 == 0:
        ids.sort()
    (tmp_path / "x.bin").write_bytes(ids.tobytes())
    found = hashes.Memory(None).ids(str(tmp_path / "x.bin"))
    assert found == (hashlib.sha256(ids.tobytes()).hexdigest(), int(ids.max()), int(ids.argmax()))


def test_an_empty_file_has_no_id(tmp_path: Path) -> None:
    (tmp_path / "x.bin").touch()
    assert hashes.Memory(None).ids(str(tmp_path / "x.bin")) == (hashlib.sha256().hexdigest(), 0, 0)


@pytest.mark.slow
def test_a_file_that_was_changed_after_its_manifest_was_written_is_read(tmp_path: Path) -> None:
    from oelm_jobs.data.maker import demo

    demo(tmp_path / "demo", vocab_size=300)
    path, root = tmp_path / "demo" / "val.bin", tmp_path / "root"
    request = {"root": str(root), "files": [str(path)]}
    before = tokens.data(request)["files"][str(path)]
    assert "largest" not in before, "the manifest is believed"
    content = bytearray(path.read_bytes())
    content[1000:1002] = b"\x01\x00" if content[1000:1002] != b"\x01\x00" else b"\x02\x00"
    path.write_bytes(content)  # of the same size
    beside = os.stat(tmp_path / "demo" / "manifest.json").st_mtime_ns
    os.utime(path, ns=(beside + 10**9, beside + 10**9))
    after = tokens.data(request)["files"][str(path)]
    assert after["sha256"] == hashlib.sha256(content).hexdigest() != before["sha256"]
    assert tokens.data(request)["files"][str(path)] == after, "as it is remembered"

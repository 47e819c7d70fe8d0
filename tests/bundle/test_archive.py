"""A bundle's archive: equal bytes for equal files, and nothing of one is used that isn't what its manifest says."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from oelm_jobs.bundle import archive
from oelm_jobs.errors import UsageError

FILES = {"bundle.json": b"{}\n", "jobs/s.toml": b'question = "?"\n', "models/checkpoints/s/exp_a/metrics.jsonl": b"1\n"}
Member = tuple[tarfile.TarInfo, bytes]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    archive.write(folder, tmp_path / "b.tar.gz")
    return tmp_path / "b.tar.gz"


def test_equal_files_make_equal_bytes_whoever_writes_them_and_when(bundle: Path, tmp_path: Path) -> None:
    for name in FILES:
        os.utime(tmp_path / "files" / name, (5, 5))
        (tmp_path / "files" / name).chmod(0o600)
    sha256 = archive.write(tmp_path / "files", tmp_path / "c.tar.gz")
    assert (tmp_path / "c.tar.gz").read_bytes() == bundle.read_bytes()
    assert sha256 == hashlib.sha256(bundle.read_bytes()).hexdigest()
    with tarfile.open(bundle) as packed:
        assert packed.getnames() == ["MANIFEST.json", *sorted(FILES)]
        assert {(info.mtime, info.uid, info.gid, info.uname, info.gname) for info in packed} == {(0, 0, 0, "", "")}


def test_an_archive_and_its_unpacked_folder_are_read_alike(bundle: Path, tmp_path: Path) -> None:
    with tarfile.open(bundle) as packed:
        packed.extractall(tmp_path / "out", filter="data")
    for place in (bundle, tmp_path / "out"):
        assert archive.is_one(place)
        with archive.opened(place) as folder:
            assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    assert not folder.samefile(bundle.parent) and not archive.is_one(tmp_path / "files" / "jobs")


# What is refused ------------------------------------------------------------------------------------------------------


def members(path: Path) -> list[Member]:
    with tarfile.open(path) as packed:
        return [(info, packed.extractfile(info).read()) for info in packed]


def pack(path: Path, found: list[Member], form: int = tarfile.USTAR_FORMAT) -> None:
    with tarfile.open(path, "w:gz", format=form) as packed:
        for info, content in found:
            info.size = len(content) if info.isreg() else 0
            packed.addfile(info, io.BytesIO(content))


def plain(name: str, content: bytes = b"x") -> Member:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info, content


def special(name: str, kind: bytes, to: str = "") -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info, b""


def listing(*names: str, size: int = 1) -> Member:
    rows = [{"name": name, "size": size, "sha256": hashlib.sha256(b"x").hexdigest()} for name in names]
    return plain("MANIFEST.json", json.dumps({"version": 1, "files": rows}).encode())


def changed(found: list[Member]) -> list[Member]:
    return [(info, content.replace(b"1\n", b"2\n") if "metrics" in info.name else content) for info, content in found]


TAMPERED: dict[str, tuple[Callable[[list[Member]], list[Member]], str]] = {
    "changed": (changed, "exp_a/metrics.jsonl was changed"),
    "longer": (lambda found: [*found[:-1], plain(found[-1][0].name, b"1\n2\n")], "exp_a/metrics.jsonl was changed"),
    "missing": (lambda found: found[:-1], "exp_a/metrics.jsonl is missing"),
    "added": (lambda found: [*found, plain("jobs/more.toml")], "jobs/more.toml is not in its manifest"),
    "twice": (lambda found: [*found, found[-1]], "exp_a/metrics.jsonl is in it twice"),
    "no manifest": (lambda found: found[1:], "doesn't begin with MANIFEST.json"),
    "path up": (lambda found: [listing("bundle.json", "jobs/../../x"), *found[1:]], "jobs/../../x leads out"),
    "absolute": (lambda found: [*found, plain("/etc/passwd")], "/etc/passwd leads out"),
    "beside": (lambda found: [listing("bundle.json", "templates/a.j2"), *found[1:]], "a.j2 doesn't belong"),
    "link": (lambda found: [*found, special("jobs/l", tarfile.SYMTYPE, "/etc/passwd")], "jobs/l is no plain file"),
    "hard link": (lambda found: [*found, special("jobs/l", tarfile.LNKTYPE, "x")], "jobs/l is no plain file"),
    "device": (lambda found: [*found, special("jobs/l", tarfile.CHRTYPE)], "jobs/l is no plain file"),
    "folder": (lambda found: [*found, special("jobs", tarfile.DIRTYPE)], "jobs is no plain file"),
    "bomb": (lambda found: [listing("bundle.json", "data/x", size=10**15), *found[1:]], "more than"),
    "no list": (lambda found: [plain("MANIFEST.json", b'{"version": 1, "files": 7}'), *found[1:]], "no manifest"),
    "deep": (lambda found: [plain("MANIFEST.json", b"[" * 100_000), *found[1:]], "no manifest"),
    "negative": (lambda found: [listing("bundle.json", size=-1), *found[1:]], "no manifest"),
    "infinite": (
        lambda found: [plain("MANIFEST.json", b'{"version": 1, "files": [{"name": "x", "size": 1e999}]}'), *found[1:]],
        "no manifest",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("how", TAMPERED)
def test_what_was_tampered_with_is_refused_by_name(bundle: Path, tmp_path: Path, how: str) -> None:
    tamper, expected = TAMPERED[how]
    pack(bundle, tamper(members(bundle)))
    before = {path for path in tmp_path.parent.rglob("*") if path != bundle}
    with pytest.raises(UsageError, match="the bundle is refused") as caught, archive.opened(bundle):
        pass
    assert expected in str(caught.value)
    assert {path for path in tmp_path.parent.rglob("*") if path != bundle} == before


def test_headers_that_ask_for_more_are_not_followed(bundle: Path) -> None:
    found = members(bundle)
    found[-1][0].pax_headers = {"comment": "x" * 10_000}
    pack(bundle, found, tarfile.PAX_FORMAT)
    with pytest.raises(UsageError, match="no plain file"), archive.opened(bundle):
        pass


@pytest.mark.parametrize("how", ["cut", "flipped", "no gzip", "behind", "behind a second member", "empty"])
def test_a_broken_archive_is_refused(bundle: Path, how: str) -> None:
    content = bundle.read_bytes()
    broken = {
        "cut": content[:-20],
        "flipped": content[:60] + bytes([content[60] ^ 255]) + content[61:],
        "no gzip": b"PK" + content,
        "behind": content + b"more",
        "behind a second member": content + gzip.compress(b"more"),
        "empty": b"",
    }[how]
    bundle.write_bytes(broken)
    with pytest.raises(UsageError, match="the bundle is refused"), archive.opened(bundle):
        pass


def test_an_unpacked_folder_is_looked_at_likewise(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    metrics = out / "models/checkpoints/s/exp_a/metrics.jsonl"

    def said() -> str:
        with pytest.raises(UsageError) as caught, archive.opened(out):
            pass
        return str(caught.value)

    with tarfile.open(bundle) as packed:
        packed.extractall(out, filter="data")
    metrics.write_text("2\n")
    assert "exp_a/metrics.jsonl was changed" in said()
    metrics.unlink()
    assert "exp_a/metrics.jsonl is missing" in said()
    metrics.symlink_to("/etc/passwd")
    assert "exp_a/metrics.jsonl is no plain file" in said()
    metrics.unlink()
    metrics.write_text("1\n")
    (out / "jobs" / "more.toml").write_text("")
    assert "jobs/more.toml is not in its manifest" in said()
    (out / "jobs" / "more.toml").unlink()
    (out / "MANIFEST.json").unlink()
    (out / "report").mkdir()
    assert "MANIFEST.json is missing" in said()


def test_a_name_that_no_bundle_can_have_is_said_when_it_is_written(tmp_path: Path) -> None:
    for name, why in (("jobs/" + "x" * 200, "too long"), ("code/a\\b", "no plain name")):
        folder = tmp_path / str(len(name))
        (folder / "jobs").mkdir(parents=True)
        (folder / "code").mkdir()
        (folder / name).write_text("x")
        with pytest.raises(UsageError, match=why):
            archive.write(folder, tmp_path / "b.tar.gz")
    assert not list(tmp_path.glob("*.tar.gz*"))

"""What is brought home has its final name only where it is what was announced, and is compared with the manifest."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from oelm_jobs.errors import TargetError
from oelm_jobs.transfer import fetch, sync
from oelm_jobs.transfer.staging import Staging

CONTENT = b"weights"


def item(name: str, **changes: Any) -> sync.Item:
    values: dict[str, Any] = {
        "name": name,
        "size": len(CONTENT),
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        "grows": False,
    }
    return sync.Item(**{**values, **changes})


@pytest.mark.parametrize(
    ("arrived", "is_whole", "is_wrong"), [(CONTENT, True, False), (b"Weights", False, True), (b"weig", False, False)]
)
def test_what_arrived_is_whole_by_its_hash_alone(
    tmp_path: Path, arrived: bytes, is_whole: bool, is_wrong: bool
) -> None:
    staging = Staging(tmp_path, print)
    arrival = staging.arrival("/there/exp_a", tmp_path / "exp_a", item("best_model.pt"))
    arrival.staged.write_bytes(arrived)
    while arrival.follow(memoryview(bytearray(4))):
        pass
    assert (arrival.is_whole, arrival.is_wrong) == (is_whole, is_wrong)
    staging.close()


def test_content_that_is_not_what_was_announced_is_not_placed(tmp_path: Path) -> None:
    sync.place_content(tmp_path, item("a.json", content=CONTENT))
    assert (tmp_path / "a.json").read_bytes() == CONTENT
    with pytest.raises(TargetError, match="arrived damaged"):
        sync.place_content(tmp_path, item("b.json", content=b"Weights"))
    assert not (tmp_path / "b.json").exists()


def test_a_listed_file_of_the_right_size_with_other_content_is_damaged(tmp_path: Path) -> None:
    listed = [{"name": name, "size": 7, "sha256": hashlib.sha256(CONTENT).hexdigest()} for name in ("a.pt", "b.pt")]
    (tmp_path / "MANIFEST.json").write_text(json.dumps({"files": listed}))
    (tmp_path / "a.pt").write_bytes(CONTENT)
    (tmp_path / "b.pt").write_bytes(b"Weights")
    assert sync.verify(tmp_path).damaged == ("b.pt",)


def test_a_listed_name_that_no_file_can_have_is_damaged(tmp_path: Path) -> None:
    names = ("loop.pt", "round/a.pt", "n" * 300)
    listed = [{"name": name, "size": 7, "sha256": hashlib.sha256(CONTENT).hexdigest()} for name in names]
    (tmp_path / "MANIFEST.json").write_text(json.dumps({"files": listed}))
    for name in ("loop.pt", "round"):
        (tmp_path / name).symlink_to(name)
    assert sync.verify(tmp_path).damaged == names


def test_a_target_that_does_not_say_where_a_run_lies_is_refused(tmp_path: Path) -> None:
    run: Any = SimpleNamespace(target="box", name="a")
    row: Any = {"files": [{"name": "a", "size": 1, "sha256": "0" * 64, "grows": False}], "left": [], "final": False}
    nothing: Any = None
    with pytest.raises(TargetError, match="box says that a lies in"):
        fetch._Fetch(nothing, [], nothing, nothing, False)._compare(fetch._Run(run, tmp_path), row, {})

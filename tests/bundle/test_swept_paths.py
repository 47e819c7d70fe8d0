"""An anonymous bundle of a study that sweeps paths: they have stand-ins, and runs are found by their values again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from oelm_jobs import bundling
from oelm_jobs.bundle import anonymous
from oelm_jobs.bundle.identities import Identities
from oelm_jobs.study import sweep
from tests.bundle.test_bundling import contents
from tests.study.test_tuning import OF_ONE_SEED

Command = Callable[..., "CompletedProcess[str]"]
PLACES = ("/home/zquandt/a.json", "/home/zquandt/b.json")
TRAIN = """
import argparse
parser = argparse.ArgumentParser()
for name in ("optimizer", "lr", "seed"):
    parser.add_argument("--" + name)
a = parser.parse_args()
loss = 1 + ("b.json" in a.lr) / 3 + int(a.seed) % 7 / 1000 + (a.optimizer == "sgd") / 5
print(f"step 1: loss {loss} test {loss + 0.1}", flush=True)
"""
TEXT = (
    OF_ONE_SEED.replace('{ optimizer = "adam" }', '{ optimizer = "adam", gpus = 0 }')
    .replace('{ optimizer = "sgd" }', '{ optimizer = "sgd", gpus = 0 }')
    .replace("values = [1e-3, 1e-2]", f"values = {json.dumps(PLACES)}")
    .replace("lr = 1e-3", 'lr = "none"')
)


@pytest.fixture
def sweeping(project: Path) -> Path:
    for path in (project / "jobs").glob("*.toml"):
        path.unlink()
    (project / "jobs" / "tune.toml").write_text(TEXT)
    (project / "train.py").write_text(TRAIN)
    return project


def without_hashes(text: bytes) -> str:
    """Return a report's text without what depends on the paths: hashes, and the time that it is made at."""
    text = re.sub(rb"[0-9a-f]{12,64}", b"#", text)
    return "\n".join(" ".join(line.split()) for line in text.decode().splitlines() if set(line) - set("- "))


@pytest.mark.slow
def test_what_was_chosen_of_swept_paths_is_reproduced_without_their_names(
    sweeping: Path, oelm: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1900000000")
    oelm("submit", "--mode", "parallel", "--wait")
    oelm("submit", "--confirm", "--mode", "parallel", "--wait")
    plain = contents(bundling.make(sweeping, "tune", tmp_path / "b.tar.gz").path)
    made = bundling.make(sweeping, "tune", tmp_path / "a.tar.gz", is_anonymous=True)
    hidden = contents(made.path)
    assert made.differs == () and made.remaining == {}
    with bundling.reproduce(made.path) as found:
        assert found.differs == ()
        assert found.report.choice is not None and found.report.locks is not None
        chosen = found.report.choice.groups["adam"]
        assert chosen.values["lr"].endswith("/a.json") and chosen.values["lr"] not in PLACES
        assert all(trial.state == "done" for trial in chosen.trials)
    for digest in (sweep.digest({"lr": place}) for place in PLACES):
        for name in (digest, "zquandt"):
            assert [at for at, text in hidden.items() if name.encode() in text or name in at] == []
    told = [each["report/hypothesis_validation.txt"].replace(b"/home/zquandt", b"/place1") for each in (plain, hidden)]
    assert b"H1" in told[1] and without_hashes(told[0]) == without_hashes(told[1])


def test_the_hash_in_a_runs_name_is_that_of_its_values_where_one_of_them_is_a_name_of_two_letters(
    tmp_path: Path,
) -> None:
    values = {"lr": PLACES[0], "optimizer": "li"}
    name = f"models/checkpoints/s/exp_a-{sweep.digest(values)}/.oelm/run.json"
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text(json.dumps({"train": values}))
    known = Identities(users={"zquandt": None, "li": None})
    anonymous.scrub(tmp_path, known, (), [values], lambda path, name, hashes: {})
    (path,) = tmp_path.rglob("run.json")
    found = json.loads(path.read_text())["train"]
    assert found["optimizer"] == "user2" and path.parents[1].name == f"exp_a-{sweep.digest(found)}"

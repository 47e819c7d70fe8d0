"""Which runs names, patterns, seeds, tags and states mean: one rule for all commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from oelm_jobs.agent.states import State
from oelm_jobs.errors import UsageError
from oelm_jobs.runs.select import select, select_one
from oelm_jobs.runs.selection import Only
from oelm_jobs.store import Store
from tests.support import make_run

PROJECT = Path("/project")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Two studies with a group of one name; seeds 42 to 44, some with a tag."""
    runs = [
        make_run(tmp_path, name, study=study, group=group, seed=seed, tag=tag, run_dir=f"/r/{study}/exp_{name}")
        for study, name, group, seed, tag in (
            ("tiny", "base", "base", 42, ""),
            ("tiny", "base-s43", "base", 43, ""),
            ("tiny", "base-s44", "base", 44, ""),
            ("tiny", "freeze", "freeze", 42, ""),
            ("tiny", "freeze-lr1", "freeze", 42, "lr1"),
            ("tiny", "freeze-lr2", "freeze", 42, "lr2"),
            ("wide", "base", "base", 42, ""),
        )
    ]
    with Store(tmp_path / "index") as made:
        made.intend(PROJECT, "local", "/r", "t", "{}", runs, lambda known: None)
        yield made


def names(store: Store, *meant: str, study: str | None = None, only: Only | None = None) -> list[str]:
    runs = select(store, PROJECT, meant, study)
    return [f"{run.study}/{run.name}" for run in (only or Only()).of(runs)]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("base", ["tiny/base", "tiny/base-s43", "tiny/base-s44", "wide/base"]),
        ("tiny/base", ["tiny/base"]),
        ("base-s43", ["tiny/base-s43"]),
        ("wide", ["wide/base"]),
        ("base-s*", ["tiny/base-s43", "tiny/base-s44"]),
        ("*/base", ["tiny/base", "wide/base"]),
        ("tiny/freeze*", ["tiny/freeze", "tiny/freeze-lr1", "tiny/freeze-lr2"]),
        ("freeze-lr[13]", ["tiny/freeze-lr1"]),
        ("w?de", ["wide/base"]),
    ],
)
def test_a_name_means_all_that_is_called_so_and_a_pattern_all_that_fits(
    store: Store, name: str, meant: list[str]
) -> None:
    assert names(store, name) == meant


def test_a_study_narrows_names_and_patterns(store: Store) -> None:
    assert names(store, "base", study="wide") == names(store, "b*", study="wide") == ["wide/base"]


def test_seeds_tags_and_states_narrow_together(store: Store) -> None:
    seeds = [range(43, 45), range(42, 43)]
    assert names(store, "tiny", only=Only(seeds=seeds[:1])) == ["tiny/base-s43", "tiny/base-s44"]
    assert len(names(store, "tiny", only=Only(seeds=seeds))) == 6
    assert names(store, only=Only(tags=["lr*"])) == ["tiny/freeze-lr1", "tiny/freeze-lr2"]
    assert names(store, only=Only(tags=["lr2"], seeds=seeds[1:])) == ["tiny/freeze-lr2"]
    assert names(store, only=Only(states=[State.DONE])) == []
    assert len(names(store, only=Only(states=[State.DONE, State.PLANNED]))) == 7


@pytest.mark.parametrize(
    ("only", "said"),
    [
        (Only(seeds=[range(7, 8)]), "--seed 7: no such run; valid: 42, 43, 44"),
        (Only(seeds=[range(7, 10)]), "--seed 7-9: no such run"),
        (Only(tags=["lr"]), "--tag lr: no such run; did you mean 'lr[12]'"),
        (Only(tags=["x*"], states=[State.DONE]), r"--tag x\*: no such run; valid: lr1, lr2"),
    ],
)
def test_a_seed_or_tag_that_no_run_has_is_named_with_those_there_are(store: Store, only: Only, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        names(store, "tiny", only=only)


@pytest.mark.parametrize("name", ["bose", "bose*", "tinny/base"])
def test_a_name_that_means_nothing_is_named_with_the_nearest(store: Store, name: str) -> None:
    with pytest.raises(UsageError, match="names no study, group or run that was submitted here; did you mean"):
        names(store, name)


def test_where_one_run_is_meant_it_is_the_one_that_is_called_so(store: Store) -> None:
    assert select_one(store, PROJECT, "freeze").name == "freeze"
    assert select_one(store, PROJECT, "freeze-*1").name == "freeze-lr1"
    with pytest.raises(UsageError, match="2 runs where one is meant: tiny/base, wide/base"):
        select_one(store, PROJECT, "base")
    assert select_one(store, PROJECT, "base", "wide").study == "wide"

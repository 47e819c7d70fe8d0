"""Blocks: which runs a study over several data sets has, what these are called, and what is wrong in one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from oelm_jobs import tomlfile
from oelm_jobs.errors import ConfigurationError, UnfairError, UsageError
from oelm_jobs.study.files import read_study
from oelm_jobs.study.plan import make_plan
from oelm_jobs.study.resolve import asked, plan_runs
from oelm_jobs.targets.files import LOCAL
from tests.support import TINY_STUDY

AT_R = replace(LOCAL, root="/r")
BLOCKS = """
[blocks.novels]
data_path = "data/novels/train.bin"
max_steps = 6
[blocks.stories]
data_path = "data/stories/train.bin"
val_data_path = "data/stories/heldout.bin"
max_steps = 9
"""
TRAINER = TINY_STUDY.replace('data_path = "data/tiny/train.bin"\n', "").replace("seeds = [42]", "seeds = [42, 43]") + (
    BLOCKS
)
PROGRAM = """
factors = ["optimizer"]
seeds = [1, 2]
[program]
command = "python train.py {settings} {seed}"
data = ["shared.txt"]
length = "steps"
[settings]
lr = 0.1
steps = 100
[metrics]
goal = { loss = "minimize" }
[groups]
adam = { optimizer = "adam" }
sgd = { optimizer = "sgd" }
[blocks.books]
data = ["data/books", "shared.txt"]
path = "data/books/all.txt"
steps = 300
[blocks.wiki]
data = ["data/wiki.txt"]
path = "data/wiki.txt"
[hypotheses]
better = { metric = "loss", group = "adam", against = "sgd", reduction = [0.01, inf], holds = "mean" }
"""


def study_of(folder: Path, text: str):
    path = folder / "s.toml"
    path.write_text(text)
    return read_study(path)


def test_each_group_is_run_on_the_data_of_each_block_with_its_own_steps(tmp_path: Path) -> None:
    study = study_of(tmp_path, TRAINER)
    runs = plan_runs(study, AT_R, groups=["gpt_base"], data_hash={"novels": "n", "stories": "s"})
    assert [(run.name, run.block, run.settings["max_steps"], run.settings["data_path"]) for run in runs] == [
        ("gpt_base-novels", "novels", 6, "/r/data/novels/train.bin"),
        ("gpt_base-stories", "stories", 9, "/r/data/stories/train.bin"),
        ("gpt_base-s43-novels", "novels", 6, "/r/data/novels/train.bin"),
        ("gpt_base-s43-stories", "stories", 9, "/r/data/stories/train.bin"),
    ]
    assert runs[1].settings["val_data_path"] == "/r/data/stories/heldout.bin" and "val" not in runs[0].settings
    assert len({run.fingerprint for run in runs}) == 4


def test_a_run_in_a_block_is_the_run_that_a_study_of_its_data_alone_would_have(tmp_path: Path) -> None:
    for text, own in (
        (TRAINER, 'max_steps = 6\ndata_path = "data/novels/train.bin"'),
        (PROGRAM, 'steps = 300\npath = "data/books/all.txt"'),
    ):
        alone = tomlfile.document({**tomlfile.tables(study_of(tmp_path, text).path), "blocks": {}})
        key = own.split(" = ")[0]
        lines = ["holds" not in line and line.split(" = ")[0] != key and line for line in alone.splitlines()]
        table = "[train]" if text is TRAINER else "[settings]"
        alone = "\n".join(filter(None, lines)).replace(table, f"{table}\n{own}")
        within = plan_runs(study_of(tmp_path, text), AT_R, data_hash={"novels": "d", "books": "d"})[0]
        assert within.fingerprint == plan_runs(study_of(tmp_path, alone), AT_R, data_hash="d")[0].fingerprint != ""


def test_a_program_reads_the_data_of_the_block_with_its_settings(tmp_path: Path) -> None:
    (tmp_path / "train.py").touch()
    plan = make_plan(tmp_path, study_of(tmp_path, PROGRAM), AT_R, seeds=[1], groups=["adam"])
    books, wiki = plan.runs
    assert [books.settings[key] for key in ("path", "steps", "lr")] == ["data/books/all.txt", 300, 0.1]
    assert [wiki.settings[key] for key in ("path", "steps", "lr")] == ["data/wiki.txt", 100, 0.1]
    assert [path for path, _there in books.data] == ["data/books", "shared.txt"]
    assert [path for path, _there in wiki.data] == ["data/wiki.txt"]


def test_groups_are_compared_within_blocks_alone(tmp_path: Path) -> None:
    study = study_of(tmp_path, TRAINER)
    assert make_plan(tmp_path, study, AT_R).differences == ()  # the steps of the blocks differ
    unequal = replace(study.groups["gpt_base"], gpus=2, declared={"max_lr": 1.0})
    with pytest.raises(UnfairError, match="max_lr"):
        make_plan(tmp_path, replace(study, groups={**study.groups, "gpt_base": unequal}), AT_R)


def test_one_block_can_be_run_alone_and_a_tag_stands_behind_its_name(tmp_path: Path) -> None:
    study = study_of(tmp_path, TRAINER)
    runs = plan_runs(study, AT_R, blocks=["stories"], seeds=[42], tag="low", overrides={"max_lr": "1e-4"})
    assert [run.name for run in runs] == [f"{group}-stories-low" for group in study.groups]
    with pytest.raises(UsageError, match="no block 'story'; did you mean 'stories'"):
        asked(study, blocks=["story"])
    with pytest.raises(UsageError, match=r"--set max_steps=3: blocks set it themselves \(novels, stories\)"):
        asked(study, tag="x", overrides={"max_steps": "3"})
    with pytest.raises(UsageError, match="at most 64"):
        asked(study, tag="x" * 60)


def test_a_claim_is_about_each_block_where_it_does_not_say(tmp_path: Path) -> None:
    assert {h.holds for h in study_of(tmp_path, TRAINER).hypotheses} == {"each"}
    assert {h.holds for h in study_of(tmp_path, PROGRAM).hypotheses} == {"mean"}
    assert {h.holds for h in study_of(tmp_path, TINY_STUDY).hypotheses} == {""}


HEAD = "[blocks.novels]\n"
SWEEP = "\n[sweep]\nparameters.max_lr = { values = [1e-3] }\n"


@pytest.mark.parametrize(
    ("text", "before", "after", "said"),
    [
        (TRAINER, 'data_path = "data/novels/train.bin"\n', "", ["[blocks.novels] data_path", "is missing"]),
        (TRAINER, "data/novels/train.bin", "data/stories/train.bin", ["[blocks.stories] data_path", "of block novels"]),
        (TRAINER, HEAD, HEAD + "max_step = 3\n", ["max_step = 3", "did you mean 'max_steps'"]),
        (TRAINER, 'data_path = "data/nov', 'data_paht = "data/nov', ["data_paht", "did you mean 'data_path'"]),
        (TRAINER, HEAD, HEAD + "freeze_qk = true\n", ["[blocks.novels] freeze_qk", "is a factor"]),
        (TRAINER, HEAD, HEAD + "seed = 3\n", ["[blocks.novels] seed", "is derived"]),
        (TRAINER, HEAD, HEAD + 'test_data_path = "t"\n', ["[blocks.novels] test_data_path", "is derived", "judge_on"]),
        (TRAINER, HEAD, HEAD + "global_batch = 3\n", ["[blocks.novels] global_batch", "set it in [train]"]),
        (TRAINER, HEAD, HEAD + "num_heads = 3\n", ["[blocks.novels] num_heads = 3"]),
        (TRAINER, "max_steps = 6", 'max_steps = "6"', ["[blocks.novels] max_steps", "whole number"]),
        (TRAINER, "[train]", '[train]\ndata_path = "a.bin"', ["[train] data_path", "leave it out here"]),
        (TRAINER, "max_retries = 0", 'max_retries = 0\ntuned = ["max_steps"]', ["gpt_base", "max_steps"]),
        (TRAINER, "[blocks.novels]", "[blocks.s43]", ["s43", "like a seed"]),
        (TRAINER, "[blocks.novels]", "[blocks.stories-old]", ["neither name may begin the other"]),
        (TRAINER, "[blocks.novels]", '[blocks."a b"]', ["a block's name = 'a b'", "letters, digits"]),
        (TRAINER, "oelm_freeze = {", "gpt_base-novels = {", ["runs of group gpt_base", "gpt_base-novels"]),
        (TRAINER, BLOCKS, "\n[blocks]\n", ["[blocks] NAME", "at least one block"]),
        (TRAINER, "margin = 0.02 }", 'margin = 0.02, holds = "all" }', ["[hypotheses.H3] holds = 'all'", "each, mean"]),
        (TRAINER, BLOCKS, BLOCKS + "\n[speed_trial]\n", ["speed_trial", "without [blocks]"]),
        (TRAINER, BLOCKS, BLOCKS + SWEEP, ["sweep", "without [blocks]"]),
        (TINY_STUDY, "margin = 0.02 }", 'margin = 0.02, holds = "each" }', ["[hypotheses.H3] holds", "there are none"]),
        (PROGRAM, 'data = ["data/wiki.txt"]\n', "", ["[blocks.wiki] data", "is missing"]),
        (PROGRAM, 'data = ["data/wiki.txt"]', 'data = "data/wiki.txt"', ["[blocks.wiki] data", "a list"]),
        (PROGRAM, 'data = ["data/wiki.txt"]', 'data = ["../wiki.txt"]', ["[blocks.wiki] data", "path in the project"]),
        (PROGRAM, "steps = 300", "stpes = 300", ["[blocks.books] stpes", "block wiki", "did you mean 'steps'"]),
        (PROGRAM, "steps = 300", 'steps = "300"', ["[blocks.books] steps", "of the kind"]),
        (PROGRAM, "steps = 300", "steps = 0", ["length", "above zero"]),
        (PROGRAM, "steps = 300", 'optimizer = "x"', ["[blocks.books] optimizer", "is a factor"]),
    ],
)  # fmt: skip
def test_what_is_wrong_in_blocks_is_said_with_what_would_do(
    tmp_path: Path, text: str, before: str, after: str, said: list[str]
) -> None:
    assert before in text
    changed = text.replace(before, after, 1)
    if "tuned" in after:
        changed = changed.replace('model_type = "gpt" }', 'model_type = "gpt", max_steps = 4 }')
    with pytest.raises(ConfigurationError) as caught:
        study_of(tmp_path, changed)
    for word in said:
        assert word in str(caught.value)


def test_blocks_without_a_common_unit_have_no_mean(tmp_path: Path) -> None:
    text = TRAINER.replace(HEAD, HEAD + "vocab_size = 32\n")
    study_of(tmp_path, text)  # each can be judged
    with pytest.raises(
        ConfigurationError, match=r"holds = 'mean': the blocks have no common unit.*novels 32, stories 64"
    ):
        study_of(tmp_path, text.replace("at_most_above = 0.10", 'at_most_above = 0.10, holds = "mean"'))

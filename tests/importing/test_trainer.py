"""Scripts that start the built-in trainer become a study of its keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from oelm_jobs.importing import proposal

OWN = "class TrainConfig:\n    pass\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with the trainer."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "config.py").write_text(OWN)
    return tmp_path


def propose(folder: Path, text: str) -> proposal.Proposal:
    (folder / "a.sh").write_text(text)
    return proposal.propose([folder / "a.sh"], folder)


def test_flags_become_keys_and_batches_the_global_batch(folder: Path) -> None:
    made = propose(
        folder,
        "for lr in 1e-3 3e-4; do for seed in 1 2; do\n"
        "torchrun --nproc_per_node 2 -m train --model-type oelm --freeze_qk --max_lr=$lr --seed $seed --batch_size 8"
        " --gradient_accumulation_steps 2 --out_dir out/$lr-$seed --resume none\ndone; done\n",
    )
    study = made.study
    assert study.program is None and study.global_batch == 32 and study.factors == ("max_lr",) and study.seeds == (1, 2)
    assert study.settings["freeze_qk"] is True and "train" in study.path.name
    assert [group.values for group in study.groups.values()] == [{"max_lr": 1e-3}, {"max_lr": 3e-4}]
    assert {group.gpus for group in study.groups.values()} == {2}
    assert any("all 4 commands" in str(note) for note in made.notes)
    assert ["--resume is left out" in str(each.why) for each in made.left] == [True]


def test_what_nobody_declared_is_declared_unequal(folder: Path) -> None:
    start = "python -m oelm_jobs.train --model_type gpt --seed"
    made = propose(folder, f"{start} 1\n{start} 2 --log_interval 5\n{start} 1 --log_interval 5\n")
    assert made.study.program is None and list(made.study.unequal) == ["log_interval"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("python -m train --batch_size 8 --max_lr 1e-3\npython -m train --batch_size 4 --max_lr 2e-3\n", "[4, 8]"),
        ("for d in a b; do python -m train --data_path $d --max_lr 1e-3; done\n", "data_path is the same"),
    ],
)
def test_what_no_study_of_it_can_say_is_one_of_the_command(folder: Path, text: str, why: str) -> None:
    made = propose(folder, text)
    assert made.study.program is not None
    assert any(why.strip("[]") in str(each.why) for each in made.left)


def test_another_package_of_that_name_and_other_flags_are_a_program(folder: Path) -> None:
    assert propose(folder, "python -m train --lr 1 --seed 1\n").study.program is not None
    (folder / "train" / "config.py").write_text("")
    assert propose(folder, "python -m train --max_lr 1 --seed 1\n").study.program is not None

"""Users' old result folders in all their forms."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from oelm_jobs.analysis.reading import folders, loading
from oelm_jobs.analysis.reading.loaded_run import LoadedRun

from oelm_jobs.errors import UsageError

from .. import synthetic
from ..synthetic import old_log


def make(root: Path, name: str, log: str = "training.log", content: str = "", **results: object) -> Path:
    folder = root / name
    (folder / log).parent.mkdir(parents=True, exist_ok=True)
    (folder / log).write_text(content or old_log())
    for file, record in results.items():
        (folder / f"{file}.json").write_text(json.dumps(record))
    return folder


def load(*paths: Path, mapping: tuple[str, ...] = ()) -> list[LoadedRun]:
    return loading.load_folders(paths, mapping, None, at=0.0)[1]


def test_a_training_log_alone_makes_a_run(tmp_path: Path) -> None:
    (run,) = load(make(tmp_path, "oelm_freeze"))
    assert (run.group, run.source, run.last_step) == ("oelm_freeze", "log", 10_000)
    assert run.parameters.trainable == 41_751_040 and run.final is not None and run.final.step == 10_000
    assert run.world_size is None and run.gpu_hours is None and run.tokens_per_s is None


def test_a_log_file_itself_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "gpt_base_seed7.log"
    path.write_text(old_log(frozen=0))
    (run,) = load(path)
    assert (run.group, run.seed) == ("gpt_base", 7)


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("exp_oelm_freeze", "oelm_freeze"),
        ("OELM-NoFreeze_run3", "oelm_no_freeze"),
        ("2024-05-gpt_base-s43", "gpt_base"),
        ("my_oelm_freeze_seed44", "oelm_freeze"),
        ("baseline-s7", "baseline"),
    ],
)
def test_folders_are_told_by_their_names(tmp_path: Path, name: str, group: str) -> None:
    assert folders.group_of(tmp_path / name, tuple(synthetic.GROUPS)) == group


def test_a_map_names_the_group_of_any_folder(tmp_path: Path) -> None:
    a, b = make(tmp_path, "run1"), make(tmp_path, "run2")
    runs = load(mapping=(f"gpt_base={a}", f"oelm_freeze={b}"))
    assert [run.group for run in runs] == ["gpt_base", "oelm_freeze"]


def test_a_folder_of_run_folders_gives_all_of_them(tmp_path: Path) -> None:
    for group in synthetic.GROUPS:
        make(tmp_path / "old", group)
    (tmp_path / "old" / "notes").mkdir()
    assert sorted(run.group for run in load(tmp_path / "old")) == sorted(synthetic.GROUPS)


def test_folders_without_a_run_are_named(tmp_path: Path) -> None:
    for group in synthetic.GROUPS:
        make(tmp_path / "old", group)
    (tmp_path / "old" / "notes").mkdir()
    make(tmp_path / "old" / "deeper", "gpt_base")
    (tmp_path / "old" / ".cache").mkdir()
    (said,) = map(str, loading.left_out([tmp_path / "old"]))
    assert said.endswith("left out: notes"), "runs that lie deeper are found, and what is hidden is nobody's matter"


def test_runs_below_a_folder_that_is_read_as_a_run_are_named(tmp_path: Path) -> None:
    make(tmp_path, "old", "slurm-7.out")
    make(tmp_path / "old", "gpt_base")
    make(tmp_path / "old", "logs", "train.out")
    parts, said = map(str, loading.left_out([tmp_path / "old"]))
    assert said.endswith("left out: gpt_base") and "slurm-7.out" in parts
    assert loading.left_out([tmp_path / "old" / "gpt_base"]) == []


def test_equal_names_from_two_places_are_told_apart(tmp_path: Path) -> None:
    paths = [make(tmp_path / place, "gpt_base") for place in ("first", "second")]
    assert [run.name for run in load(*paths)] == [f"gpt_base ({path})" for path in paths]
    assert {run.group for run in load(*paths)} == {"gpt_base"}


def test_result_files_beside_the_log_are_used(tmp_path: Path) -> None:
    folder = make(
        tmp_path,
        "gpt_base",
        experiment_result={"status": "completed", "elapsed_hours": 6.2},
        timing_stats={"tokens_per_second": 45_000},
        config={"model": {"d_model": 512, "seq_len": 512, "vocab_size": 50257}, "world_size": 2, "batch_size": 8},
    )
    (run,) = load(folder)
    assert (run.status, run.elapsed_hours, run.gpu_hours, run.tokens_per_s) == ("DONE", 6.2, 12.4, 45_000)
    assert (run.world_size, run.global_batch, run.parameters.embedding) == (2, 16, 25_993_728)
    assert run.validations is not None and run.validations.tokens[-1] == 10_000 * 16 * 512


def test_speed_comes_from_the_log_where_it_tells_it(tmp_path: Path) -> None:
    lines = [f"Step {s} | Loss: 3.0000 | LR: 1.00e-04 | tok/s: {40_000 + s}" for s in range(100, 2100, 100)]
    log = "World size: 2\n" + "\n".join(lines) + "\n"
    (run,) = load(make(tmp_path / "a", "gpt_base", content=log))
    assert run.tokens_per_s == 41_150 and run.tokens_per_s_per_gpu == 20_575
    (run,) = load(make(tmp_path / "b", "gpt_base", content=log, timing_stats={"tokens_per_second": 45_000}))
    assert run.tokens_per_s == 45_000


def test_slurm_files_stand_in_for_a_training_log(tmp_path: Path) -> None:
    first = "".join(line + "\n" for line in old_log(steps=6_000).splitlines())
    second = "".join(f"Step {s} | Loss: 2.0000 | PPL: 7.39 | LR: 1.00e-04\n" for s in range(5_100, 10_001, 100))
    folder = make(tmp_path, "gpt_base", "slurm-9.out", first)
    (folder / "slurm-10.out").write_text(second)
    (folder / "slurm-10.err").write_text("\r 5%|▎ | 5/100 [00:01<00:09, 9.9it/s, loss=0.03]\n")
    (run,) = load(folder)
    assert run.last_step == 10_000 and run.curve is not None and float(run.curve.loss[-1]) == 2.0
    assert any("replaced by later ones" in str(note) for note in run.notes)


def test_a_training_log_is_read_instead_of_the_slurm_files_that_repeat_it(tmp_path: Path) -> None:
    folder = make(tmp_path, "gpt_base")
    (folder / "slurm-9.out").write_text(old_log(final_loss=9.0))
    assert [path.name for path in folders.log_files(folder)] == ["training.log"]


def test_a_toolkit_run_among_old_folders_is_read_as_one(tmp_path: Path) -> None:
    synthetic.make_run(tmp_path, "gpt_base", 43)
    (run,) = load(tmp_path)
    assert (run.source, run.seed, run.status) == ("rundir", 43, "DONE")


def test_a_mapped_toolkit_run_takes_the_group_that_the_user_says(tmp_path: Path) -> None:
    folder = synthetic.make_run(tmp_path, "gpt_base")
    (run,) = load(mapping=(f"oelm_no_freeze={folder}",))
    assert run.group == "oelm_no_freeze"


@pytest.mark.parametrize("content", ["not json", "[]", "\x00"])
def test_a_damaged_result_file_is_named(tmp_path: Path, content: str) -> None:
    folder = make(tmp_path, "gpt_base")
    (folder / "results.json").write_text(content)
    (run,) = load(folder)
    assert any("results.json was not understood" in str(note) for note in run.notes)


def test_a_log_without_any_record_says_so(tmp_path: Path) -> None:
    (run,) = load(make(tmp_path, "gpt_base", content="nothing here\n"))
    assert any("holds no record of a step" in str(note) for note in run.notes) and run.final is None


def test_a_log_that_ends_in_nan_is_a_diverged_run(tmp_path: Path) -> None:
    (run,) = load(
        make(
            tmp_path,
            "gpt_base",
            content="Step 100 | Loss: 5.0000 | PPL: 148.41\nStep 200 | Loss: nan | PPL: nan\n",
        )
    )
    assert run.diverged


@pytest.mark.parametrize(
    ("ending", "is_diverged"),
    [
        ("Step 200 | Loss: nan | PPL: nan\n", True),
        ("Step 200 | Loss: nan | PPL: nan\n  Validation | Loss: 4.8000 | PPL: 121.51\n", False),
        ("Step 200 | Loss: 4.7000 | PPL: 109.95\n", False),
    ],
)
def test_a_run_that_turned_nan_after_its_last_validation_is_diverged(
    tmp_path: Path, ending: str, is_diverged: bool
) -> None:
    begin = "Step 100 | Loss: 5.0000 | PPL: 148.41\n  Validation | Loss: 4.9000 | PPL: 134.29\n"
    (run,) = load(make(tmp_path, "gpt_base", content=begin + ending))
    assert run.diverged is is_diverged and run.final is not None
    assert run.final.step == (100 if "4.7" in ending else 200)


@pytest.mark.parametrize(
    ("paths", "mapping", "said"),
    [
        (["nowhere"], [], "there is no such folder"),
        (["empty"], [], "neither this folder nor one below it holds a run"),
        ([], ["gpt_base"], "give GROUP=DIR"),
        ([], ["gpt_base=nowhere"], "there is no such folder"),
    ],
)
def test_folders_that_are_none_are_refused_with_what_would_be_right(
    tmp_path: Path, paths: list[str], mapping: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=said) as caught:
        loading.load_folders([Path(path) for path in paths], mapping, None)
    assert caught.value.hint


def test_a_map_to_a_group_that_the_study_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'gpt_base'"):
        loading.load_folders([], [f"gpt_bas={tmp_path}"], synthetic.study())


def test_other_groups_than_the_references_get_no_hypotheses(tmp_path: Path) -> None:
    study, _ = loading.load_folders([make(tmp_path, "mine"), make(tmp_path, "yours")], [], None, at=0.0)
    assert study.hypotheses == () and list(study.groups) == ["mine", "yours"]


def test_one_reference_group_asks_all_reference_hypotheses(tmp_path: Path) -> None:
    study, _ = loading.load_folders([make(tmp_path, "gpt_base")], [], None, at=0.0)
    assert list(study.groups) == list(synthetic.GROUPS) and len(study.hypotheses) == 4


@pytest.mark.parametrize("value", ["many", True, [8], 10**400, math.inf, None])
def test_a_result_file_whose_values_are_no_numbers_is_read_without_them(tmp_path: Path, value: object) -> None:
    (tmp_path / "training.log").write_text("Step 100 | Loss: 5.0 | PPL: 148.41\n")
    names = ("batch_size", "seq_len", "world_size", "max_steps", "elapsed_hours", "seed", "total_params")
    (tmp_path / "config.json").write_text(json.dumps(dict.fromkeys(names, value)))
    run = folders.load(tmp_path, now=0.0, groups=(), first_seed=None)
    assert (run.global_batch, run.world_size, run.max_steps, run.elapsed_hours, run.seed) == (None,) * 5


def test_numbers_in_quotes_count_as_numbers(tmp_path: Path) -> None:
    (tmp_path / "training.log").write_text("Step 100 | Loss: 5.0 | PPL: 148.41\n")
    (tmp_path / "config.json").write_text('{"batch_size": "8", "world_size": "2", "dropout": "0.1"}')
    run = folders.load(tmp_path, now=0.0, groups=(), first_seed=None)
    assert (run.global_batch, run.train["dropout"]) == (16, 0.1)


@pytest.mark.parametrize(
    ("names", "runs"),
    [
        (["low_s1.log", "low_s2.log", "high_s1.log"], [("low", 1), ("low", 2), ("high", 1)]),
        (["lr1e-3.log", "lr1e-4.log"], [("lr1e-3", None), ("lr1e-4", None)]),
        (["lr0.1.log", "lr0.01.log"], [("lr0.1", None), ("lr0.01", None)]),
        (["a-1234.out", "a-1234.err", "b-1235.out", "b-1235.err"], [("a-1234", None), ("b-1235", None)]),
        (["logs/low.out", "logs/high.out"], [("low", None), ("high", None)]),
        (["slurm-1.out", "slurm-2.out"], [("old", None)]),
        (["gpt-1234.out", "gpt-1235.out"], [("old", None)]),
        (["train.0.log", "train.1.log"], [("old", None)]),
        (["gpt.log", "eval.log"], [("old", None)]),
    ],
)
def test_logs_side_by_side_are_runs_where_their_names_tell_groups_or_seeds(
    tmp_path: Path, names: list[str], runs: list[tuple[str, int | None]]
) -> None:
    for name in names:
        make(tmp_path / Path("old", name).parent.parent, Path("old", name).parent.name, Path(name).name)
    for folder in (tmp_path / "old", tmp_path):
        assert sorted((run.group, run.seed) for run in load(folder)) == sorted(runs, key=str)
    said = list(map(str, loading.left_out([tmp_path / "old"])))
    assert bool(said) is (len(runs) == 1)
    assert all("parts of one run" in each and "--from" in each for each in said)


def test_a_folder_with_a_configuration_is_one_run_whatever_its_logs_are_called(tmp_path: Path) -> None:
    folder = make(tmp_path, "old", "low.log", config={"lr": 1})
    make(tmp_path, "old", "high.log")
    assert [run.group for run in load(folder)] == ["old"]


def test_the_errors_of_a_job_are_read_with_its_output(tmp_path: Path) -> None:
    for name in ("low", "high"):
        make(tmp_path, "old", f"{name}.out", "Step 1 | Loss: 2.0000 | LR: 1.00e-04\n")
        make(tmp_path, "old", f"{name}.err", "Step 2 | Loss: 1.0000 | LR: 1.00e-04\n")
    assert [run.last_step for run in load(tmp_path / "old")] == [2, 2]
    assert len(load(*sorted((tmp_path / "old").iterdir()))) == 2

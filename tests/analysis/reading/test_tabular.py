"""Reports on anything tabular, by columns that the user names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from oelm_jobs.analysis.reading import tabular
from torch.utils.tensorboard import SummaryWriter

from oelm_jobs.errors import UsageError

COLUMNS = {"step": "it", "val_loss": "ev"}


def table(path: Path, last: float = 2.0, names: str = "it,ev,other") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{names}\n1,3,0\n2,{last},0\n")
    return path


def found(*paths: Path) -> list[str]:
    top = paths[0] if paths[0].is_dir() else paths[0].parent
    return [str(path.relative_to(top)) for path in tabular.find_runs(paths, COLUMNS)]


def test_folders_with_tables_are_runs_whatever_trackers_made_in_them(tmp_path: Path) -> None:
    table(tmp_path / "low" / "lightning_logs" / "version_0" / "metrics.csv")
    table(tmp_path / "high" / "m.csv")
    table(tmp_path / "figures" / "data.csv", names="x,y,z")
    table(tmp_path / "summary.csv")
    (tmp_path / "low" / "config.json").write_text('{"lr": 1}')
    assert found(tmp_path) == ["high", "low"]
    assert found(tmp_path / "low") == ["."]


def test_files_of_one_folder_are_runs_and_a_single_one_is_its_folder_s(tmp_path: Path) -> None:
    first = table(tmp_path / "base-s1.csv")
    (tmp_path / "config.json").write_text('{"lr": 1}')
    assert found(tmp_path) == ["."]
    table(tmp_path / "base-s2.csv")
    assert found(tmp_path) == ["base-s1.csv", "base-s2.csv"]
    assert found(first) == ["base-s1.csv"]


def test_a_run_has_the_columns_under_the_names_of_their_metrics(tmp_path: Path) -> None:
    (run,) = tabular.load(table(tmp_path / "new-s43.csv"), COLUMNS, ("base", "new"), {})
    assert (run.name, run.group, run.seed, run.last_step) == ("new-s43", "new", 43, 2)
    assert run.series["val_loss"].value.tolist() == [3.0, 2.0] and set(run.series) == {"val_loss"}
    (run,) = tabular.load(table(tmp_path / "a.csv", names="step,ev,x"), {"val_loss": "ev", "acc": "none"}, (), {}, "b")
    assert run.group == "b" and run.series["val_loss"].step.tolist() == [1, 2]
    assert run.notes == ("a has no column for acc=none",)


def test_tables_of_one_run_go_on_from_each_other(tmp_path: Path) -> None:
    for version, step in ((0, 1), (2, 30), (10, 60)):
        path = tmp_path / "lightning_logs" / f"version_{version}" / "metrics.csv"
        path.parent.mkdir(parents=True)
        path.write_text(f"it,ev\n{step},{version}\n")
    (run,) = tabular.load(tmp_path, COLUMNS, (), {})
    assert run.series["val_loss"].step.tolist() == [1, 30, 60]
    assert run.series["val_loss"].value.tolist() == [0.0, 2.0, 10.0]


def test_trainer_states_and_event_files_are_tables(tmp_path: Path) -> None:
    for step in (9, 10):
        path = tmp_path / "hf" / f"checkpoint-{step}" / "trainer_state.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"log_history": [{"step": n, "ev": n / 2} for n in range(1, step + 1)]}))
    with SummaryWriter(str(tmp_path / "tb" / "logs")) as writer:
        writer.add_scalar("ev", 1.5, 7)
    columns = {"val_loss": "ev"}
    hf, tb = tabular.find_runs([tmp_path], columns)
    assert tabular.load(hf, columns, (), {})[0].series["val_loss"].last.step == 10
    assert tabular.load(tb, columns, (), {})[0].series["val_loss"].last.value == 1.5


@pytest.mark.parametrize(
    ("words", "said"),
    [(["val_loss"], "give METRIC=COLUMN"), (["step=a"], "names no metric"), (["=a"], "give METRIC=COLUMN")],
)
def test_columns_that_name_nothing_are_refused(words: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        tabular.columns_of(words)
    assert tabular.columns_of(["step=it, val_loss=ev", "acc=a=b"]) == {"step": "it", "val_loss": "ev", "acc": "a=b"}


def test_a_column_that_no_table_has_is_told_with_those_that_there_are(tmp_path: Path) -> None:
    table(tmp_path / "a.csv")
    with pytest.raises(UsageError, match=r"no table there has a column evv; did you mean 'ev'\? valid: ev, it, other"):
        tabular.find_runs([tmp_path], {"val_loss": "evv"})


def test_several_runs_in_one_export_of_weights_and_biases_are_several_runs(tmp_path: Path) -> None:
    runs = ("base-s1", "base-s2", "lr/1 - new")
    names = ["trainer/global_step"]
    for run in runs:
        names += [f"{run} - eval/loss{ending}" for ending in ("", "__MIN", "__MAX")]
    rows = ([step, *(f"{value}" for n in range(3) for value in (step + n, 0, 99))] for step in (10, 20))
    path = tmp_path / "wandb_export.csv"
    path.write_text("".join(",".join(f'"{word}"' for word in row) + "\n" for row in [names, *rows]))
    columns = {"val_loss": "eval/loss"}
    assert tabular.find_runs([tmp_path], columns) == [tmp_path]
    assert tabular.find_runs([path], columns) == [path]
    loaded = tabular.load(path, columns, ("base", "new"), {})
    assert [run.name for run in tabular.load(tmp_path, columns, (), {})] == [run.name for run in loaded]
    assert [(run.group, run.seed, run.series["val_loss"].last.value) for run in loaded] == [
        ("base", 1, 20.0), ("base", 2, 21.0), ("new", None, 22.0),
    ]  # fmt: skip
    assert tabular.load(path, {"val_loss": "base-s2 - eval/loss"}, (), {})[0].series["val_loss"].last.step == 20

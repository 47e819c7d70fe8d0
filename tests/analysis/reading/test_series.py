"""Metrics of any program, read into series by step."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from oelm_jobs.analysis.reading import log_metrics, reference, replicates, run_directory
from oelm_jobs.analysis.reading.files import Metrics
from oelm_jobs.analysis.reading.loaded_run import LoadedRun, Reading, Series
from oelm_jobs.analysis.reading.series import read_series

from oelm_jobs.agent.sentences import Sentence


def read(
    folder: Path, *names: str, goal: str = "minimize", attempts: int | None = 1, lines: tuple[str, ...] = ()
) -> tuple[dict[str, Series], list[Sentence]]:
    notes: list[Sentence] = []
    metrics = Metrics(files=list(names), lines=list(lines), goal={"val_loss": goal})
    return read_series(folder, metrics, notes, attempts=attempts), notes


def pairs(series: Series) -> list[tuple[int, float]]:
    return list(zip(series.step.tolist(), series.value.tolist(), strict=True))


def test_a_csv_gives_each_column_its_values_by_step(tmp_path: Path) -> None:
    rows = ("epoch,step,val_loss,train_loss", "0,1,,3.5", "0,2,3.0,", "0,2,,3.25", "1,3,2.5,nan")
    (tmp_path / "metrics.csv").write_text("\n".join(rows) + "\n")
    series, notes = read(tmp_path, "metrics.csv")
    assert pairs(series["val_loss"]) == [(2, 3.0), (3, 2.5)]
    assert pairs(series["train_loss"])[:2] == [(1, 3.5), (2, 3.25)]
    assert math.isnan(series["train_loss"].last.value)
    assert series["val_loss"].best("minimize") == Reading(step=3, value=2.5)
    assert series["val_loss"].best("maximize") == Reading(step=2, value=3.0)
    assert notes == []


def test_files_are_looked_for_in_the_run_directory_then_in_the_working_folder(tmp_path: Path) -> None:
    (tmp_path / "work" / "out").mkdir(parents=True)
    (tmp_path / "work" / "out" / "m.csv").write_text("step,val_loss\n1,3\n")
    assert pairs(read(tmp_path, "out/*.csv")[0]["val_loss"]) == [(1, 3.0)]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "m.csv").write_text("step,val_loss\n1,4\n")
    assert pairs(read(tmp_path, "out/*.csv")[0]["val_loss"]) == [(1, 4.0)]
    series, notes = read(tmp_path, "absent.csv", "/etc/*")
    assert series == {} and notes == ["no file fits absent.csv", "no file fits /etc/*"]


def test_a_cut_line_a_glued_line_and_a_repeated_header_are_no_rows(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("step,val_loss\n1,3\n2,2step,val_loss\nstep,val_loss\n2,2.5\n3,2")
    series, notes = read(tmp_path, "m.csv")
    assert pairs(series["val_loss"]) == [(1, 3.0), (2, 2.5)]
    assert notes == [
        "the last line of m.csv is cut off and was left out", "1 lines of m.csv were not understood",
    ]  # fmt: skip


def test_the_last_row_of_a_table_without_an_end_counts_once_the_run_is_done(tmp_path: Path) -> None:
    (tmp_path / ".oelm").mkdir()
    record = {"run": "low", "program": {"metrics": {"files": ["m.csv"], "goal": {"val_loss": "minimize"}}}}
    (tmp_path / ".oelm" / "run.json").write_text(json.dumps(record))
    (tmp_path / "heartbeat.json").write_text('{"time": 100}')
    (tmp_path / "m.csv").write_text("step,val_loss,lr\n1,3,0.1\n2,2.5,0.1")
    cut_off = "the last line of m.csv is cut off and was left out"

    def values() -> tuple[list[tuple[int, float]], bool]:
        run = run_directory.load(tmp_path, now=100.0)
        return pairs(run.series["val_loss"]), cut_off in run.notes

    assert values() == ([(1, 3.0)], False), "it may be half written"
    (tmp_path / ".oelm" / "end.json").write_text('{"state": "CANCELLED", "attempts": [{"number": 1}]}')
    assert values() == ([(1, 3.0)], True), "its last number may be cut"
    (tmp_path / ".oelm" / "end.json").write_text('{"state": "DONE", "attempts": [{"number": 1}]}')
    assert values() == ([(1, 3.0), (2, 2.5)], False)
    (tmp_path / "m.csv").write_text("step,val_loss,lr\n1,3,0.1\n2,2.5")
    assert values() == ([(1, 3.0)], True), "it lacks a column"
    (tmp_path / "m.csv").write_text("step,val_loss,lr\n1,3,0.1\n2,2.5,0.1")
    (tmp_path / ".oelm" / "start.json").write_text('{"number": 2, "started_at": 99}')
    assert values() == ([(1, 3.0)], False), "a newer attempt goes on"


def test_semicolons_divide_where_commas_are_decimal(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("\ufeffstep;val_loss\n1;3,25\n2;2,5\n")
    assert pairs(read(tmp_path, "m.csv")[0]["val_loss"]) == [(1, 3.25), (2, 2.5)]


def test_an_export_of_weights_and_biases_is_understood(tmp_path: Path) -> None:
    names = '"Step","run-7 - val_loss","run-7 - val_loss__MIN","run-7 - val_loss__MAX"'
    (tmp_path / "m.csv").write_text(f'{names}\n"1","3","2","4"\n"2","2.5","2","3"\n')
    series, _ = read(tmp_path, "m.csv")
    assert pairs(series["val_loss"]) == [(1, 3.0), (2, 2.5)] and set(series) == {"val_loss"}


def test_json_lines_of_a_half_line_and_of_numbers_that_json_lacks(tmp_path: Path) -> None:
    lines = [{"step": 1, "val_loss": 3.0, "eval": {"acc": 0.5}}, {"step": 2, "val_loss": "nan"}, {"val_loss": 2.0}]
    text = "".join(json.dumps(line) + "\n" for line in lines) + 'oh\n{"step": 3, "val_loss": Infinity}\n{"step": 4, "va'
    (tmp_path / "metrics.jsonl").write_text(text)
    series, notes = read(tmp_path)
    assert series["val_loss"].step.tolist() == [1, 2, 3] and series["val_loss"].value.tolist() == [3.0, 2.0, math.inf]
    assert pairs(series["eval.acc"]) == [(1, 0.5)]
    assert notes == [
        "the last line of metrics.jsonl is cut off and was left out",
        "1 lines of metrics.jsonl were not understood",
        "val_loss in metrics.jsonl is not finite at 1 of 3 steps, first at 3",
    ]


def test_the_newest_trainer_state_holds_the_whole_history(tmp_path: Path) -> None:
    for step in (9, 10):
        folder = tmp_path / "work" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        history = [{"step": n, "loss": 3.0 - n / 10, "epoch": 0.1} for n in range(1, step + 1)]
        state = {"global_step": step, "log_history": [*history, {"step": step, "val_loss": 1.5}]}
        (folder / "trainer_state.json").write_text(json.dumps(state))
    series, notes = read(tmp_path, "checkpoint-*/trainer_state.json")
    assert len(series["loss"].step) == 10 and pairs(series["val_loss"]) == [(10, 1.5)] and notes == []


@pytest.mark.parametrize("content", [{"val_loss": [3, 2, 1]}, [{"val_loss": 3}, {"val_loss": 2}, {"val_loss": 1}]])
def test_values_without_steps_are_numbered_and_the_report_says_so(tmp_path: Path, content: object) -> None:
    (tmp_path / "history.json").write_text(json.dumps(content))
    series, notes = read(tmp_path, "history.json")
    assert pairs(series["val_loss"]) == [(1, 3.0), (2, 2.0), (3, 1.0)] and series["val_loss"].is_counted
    assert notes == ["val_loss in history.json is told without steps: its values are numbered from 1"]


def test_a_restarted_step_replaces_what_came_after_it(tmp_path: Path) -> None:
    steps = [1, 2, 3, 4, 5, 3]
    (tmp_path / "m.csv").write_text("step,val_loss\n" + "".join(f"{step},{n}\n" for n, step in enumerate(steps)))
    series, notes = read(tmp_path, "m.csv", attempts=2)
    assert pairs(series["val_loss"]) == [(1, 0.0), (2, 1.0), (3, 5.0)] and notes == []


@pytest.mark.parametrize("attempts", [1, None])
def test_steps_that_go_back_without_a_restart_replace_their_own_alone(tmp_path: Path, attempts: int | None) -> None:
    (tmp_path / "m.csv").write_text("step,val_loss\n1,3\n2,2\n3,1\n2,9\n")
    series, notes = read(tmp_path, "m.csv", attempts=attempts)
    assert pairs(series["val_loss"]) == [(1, 3.0), (2, 9.0), (3, 1.0)]
    assert "go back 1 times, first to 2" in notes[0]


@pytest.mark.slow
def test_of_a_very_long_series_the_best_and_the_last_value_are_kept(tmp_path: Path) -> None:
    count = 300_000
    rows = (f"{n},{9.0 if n == 777 else n / count}\n" for n in range(count))
    (tmp_path / "m.csv").write_text("step,val_loss\n" + "".join(rows))
    series, _ = read(tmp_path, "m.csv", goal="maximize")
    assert series["val_loss"].best("maximize") == Reading(step=777, value=9.0)
    assert series["val_loss"].last.step == count - 1 and len(series["val_loss"].step) < count


def test_a_run_of_a_script_has_its_series_and_what_it_plans(tmp_path: Path) -> None:
    (tmp_path / ".oelm").mkdir()
    program = {"max_steps": 5, "metrics": {"files": ["m.csv"], "goal": {"val_loss": "minimize"}}, "stages": []}
    record = {"run": "low", "study": "s", "group": "low", "seed": 1, "program": program}
    (tmp_path / ".oelm" / "run.json").write_text(json.dumps(record))
    (tmp_path / "m.csv").write_text("step,val_loss\n1,3\n2,2\n")
    run = run_directory.load(tmp_path, now=0.0)
    assert pairs(run.series["val_loss"]) == [(1, 3.0), (2, 2.0)]
    assert (run.max_steps, run.last_step, run.goals) == (5, 2, {"val_loss": "minimize"})
    assert run.curve is None and run.validations is None


@pytest.mark.parametrize("value", [2.0, 2.5])
def test_a_script_s_run_is_a_copy_only_where_it_told_the_same(tmp_path: Path, value: float) -> None:
    whole, part = (
        LoadedRun(name=name, group="g", label="", seed=1, path=tmp_path / name, series={"acc": series})
        for name, series in (
            ("g", Series(step=np.array([1, 2]), value=np.array([3.0, 2.0]))),
            ("g-copy", Series(step=np.array([2]), value=np.array([value]))),
        )
    )
    study = reference.study_of([whole, part])
    assert len(replicates.settle(study, [whole, part]).runs) == (1 if value == 2.0 else 2)


# Lines of the log -----------------------------------------------------------------------------------------------------

NANOGPT = ("step {step}: train loss {train_loss}, val loss {val_loss}", "iter {step}: loss {loss}")


def test_all_lines_of_the_log_are_read_with_a_restart_among_them(tmp_path: Path) -> None:
    first = "step 0: train loss 4.5, val loss 4.25\niter 0: loss 4.5\riter 1: loss 4\niter 2: loss 3.5\niter 3: lo"
    again = "\n\x1b[1miter\x1b[0m 2: loss 3.75, time 5ms\nstep 3: train loss 3, val loss nan\niter 3: loss 3"
    (tmp_path / "training.log").write_text(first + again)
    series, notes = read(tmp_path, lines=NANOGPT, attempts=2)
    assert pairs(series["loss"]) == [(0, 4.5), (1, 4.0), (2, 3.75)]
    assert pairs(series["train_loss"]) == [(0, 4.5), (3, 3.0)]
    assert series["val_loss"].step.tolist() == [0, 3] and math.isnan(series["val_loss"].last.value)
    assert notes == [
        "the last line of training.log is cut off and was left out",
        "val_loss in training.log is not finite at 1 of 2 steps, first at 3",
    ]


def test_a_value_without_a_step_is_of_the_step_that_was_told_last(tmp_path: Path) -> None:
    lines = ("val {val_loss}", "it {step}")
    (tmp_path / "training.log").write_text("val 9\nit 5\nval 3\nit 10\nval 2\n")
    series, notes = read(tmp_path, lines=lines)
    assert pairs(series["val_loss"]) == [(0, 9.0), (5, 3.0), (10, 2.0)] and notes == []
    (tmp_path / "training.log").write_text("val 9\nval 3\n")
    series, notes = read(tmp_path, lines=lines[:1])
    assert pairs(series["val_loss"]) == [(1, 9.0), (2, 3.0)] and "told without steps" in notes[0]


def test_a_file_is_believed_before_the_rounded_numbers_of_lines(tmp_path: Path) -> None:
    (tmp_path / "training.log").write_text("iter 1: loss 2.12\n")
    (tmp_path / "m.csv").write_text("step,loss\n1,2.125\n")
    assert pairs(read(tmp_path, "m.csv", lines=NANOGPT[1:])[0]["loss"]) == [(1, 2.125)]


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("iter {step}, loss {loss}",
         "no line of training.log fits 'iter {step}, loss {loss}'; 'iter 10: loss 3.5' comes close, "
         "but behind 'iter 10' it lacks ', loss'"),
        ("iter {step}: loss {loss}, lr {lr}",
         "no line of training.log fits 'iter {step}: loss {loss}, lr {lr}'; 'iter 10: loss 3.5' comes close, "
         "but behind 'iter 10: loss 3.5' it lacks ', lr'"),
        ("Iter {step}: loss {loss}",
         "no line of training.log fits 'Iter {step}: loss {loss}'; 'iter 10: loss 3.5' comes close, but lacks 'Iter'"),
        ("accuracy {acc}", "no line of training.log fits 'accuracy {acc}', nor has words of it"),
        (r"iter (?P<step>\d+): lost",
         r"no line of training.log fits 'iter (?P<step>\\d+): lost'; 'iter 10: loss 3.5' comes close, "
         r"but behind 'iter 10: los' it lacks 't'"),
        (r"iter 10: (?P<loss>\w+)",
         r"'iter 10: loss 3.5' in training.log fits 'iter 10: (?P<loss>\\w+)', but no number stands there"),
        ("loss {loss", "'loss {loss': a brace that is meant as one is written twice"),
    ],
)  # fmt: skip
def test_a_pattern_that_fits_nothing_gets_the_line_that_comes_closest(tmp_path: Path, pattern: str, said: str) -> None:
    (tmp_path / "training.log").write_text("hello\niter 10: loss 3.5\n")
    assert read(tmp_path, lines=(pattern,))[1] == [said]


@pytest.mark.slow
def test_a_pattern_that_can_take_for_ever_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_metrics, "BLOCK_CPU_S", 0.2)
    (tmp_path / "training.log").write_text("iter 1: loss 3\n" + "x" * 200 + "\n")
    series, notes = read(tmp_path, lines=(r"(?P<loss>(?:x+)+)y", *NANOGPT))
    assert pairs(series["loss"]) == [(1, 3.0)] and "takes too long on a line" in notes[0]

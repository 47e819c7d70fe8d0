"""Reading the toolkit's run directories, finished or not, whole or damaged."""

from __future__ import annotations

import errno
import io
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from oelm_jobs.analysis.reading import loading, metrics, run_directory
from oelm_jobs.analysis.reading.loaded_run import LoadedRun

from oelm_jobs.agent.reasons import because, told
from oelm_jobs.language import translated

from .. import synthetic
from ..synthetic import START, load, make_run


def notes(run: LoadedRun) -> str:
    return "\n".join(map(str, run.notes))


def test_a_finished_run_is_read_whole(tmp_path: Path) -> None:
    run = load(make_run(tmp_path, "oelm_freeze", 43, final_loss=3.9, world_size=2))
    assert (run.name, run.group, run.seed, run.status) == ("oelm_freeze-s43", "oelm_freeze", 43, "DONE")
    assert run.final is not None and (run.final.step, run.final.loss, run.final.full) == (400, pytest.approx(3.9), True)
    assert run.final.ppl == pytest.approx(math.exp(3.9))
    assert (run.parameters.trainable, run.parameters.frozen) == (synthetic.TOTAL - synthetic.QK, synthetic.QK)
    assert run.parameters.frozen_share_without_embedding == pytest.approx(
        synthetic.QK / (synthetic.TOTAL - synthetic.EMBEDDING)
    )
    assert run.curve is not None and len(run.curve.step) == 20
    assert run.validations is not None and run.validations.step.tolist() == [100, 200, 300, 400]
    assert run.tokens_per_s_per_gpu == 20_000 and run.gpu_hours == pytest.approx(2 * (run.elapsed_hours or 0))
    assert run.attempts == 1 and run.peak_gpu_mem_gb == 3.1 and run.provenance["train_code"] == "fedcba9876543210"
    assert not run.notes


def test_a_run_with_a_fresh_heartbeat_is_running(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "gpt_base", stop=200)
    beat = json.loads((folder / "heartbeat.json").read_text())["time"]
    run = load(folder, now=beat + 60)
    assert (run.status, run.last_step, run.max_steps) == ("RUNNING", 200, 400)
    assert run.final is not None and run.final.step == 200 and not run.final.full


def test_a_run_whose_heartbeat_is_old_is_not_called_running(tmp_path: Path) -> None:
    run = load(make_run(tmp_path, "gpt_base", stop=200), now=START + 1e6)
    assert (run.status, run.reason) == ("UNKNOWN", "no heartbeat")


def test_a_run_that_was_only_planned_is_queued(tmp_path: Path) -> None:
    synthetic.record(tmp_path, "exp_gpt_base/.oelm/run.json", {"run": "gpt_base", "group": "gpt_base", "seed": 42})
    assert load(tmp_path / "exp_gpt_base").status == "QUEUED"


def test_an_empty_folder_is_a_run_without_a_record(tmp_path: Path) -> None:
    (tmp_path / "exp_gpt_base").mkdir()
    run = load(tmp_path / "exp_gpt_base")
    assert (run.status, run.reason, run.group, run.final, run.last_step) == (
        "UNKNOWN",
        "no record",
        "gpt_base",
        None,
        None,
    )


def test_a_newer_attempt_than_the_recorded_end_means_that_the_run_goes_on(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "gpt_base", status="FAILED", reason="error")
    synthetic.record(folder, ".oelm/start.json", {"number": 2, "started_at": START + 100})
    beat = json.loads((folder / "heartbeat.json").read_text())["time"]
    assert load(folder, now=beat + 1).status == "RUNNING"
    lost = load(folder, now=beat + 1e6)
    assert (lost.status, lost.reason) == ("UNKNOWN", "no heartbeat")


def test_a_run_started_by_hand_is_done_when_its_trainer_says_so(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "gpt_base")
    result = json.loads((folder / "experiment_result.json").read_text())
    (folder / "experiment_result.json").unlink()
    (folder / ".oelm/run.json").unlink()
    synthetic.record(folder, ".oelm/outcome.json", result["outcome"])
    run = load(folder)
    assert (run.status, run.group, run.seed) == ("DONE", "gpt_base", 42)


def test_a_diverged_run_has_an_infinite_loss(tmp_path: Path) -> None:
    run = load(make_run(tmp_path, "gpt_base", status="FAILED", reason="diverged"))
    assert run.diverged and run.final is not None and math.isinf(run.final.loss) and run.best is not None


def test_losses_that_json_cannot_say_are_strings(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "gpt_base", stop=200)
    with (folder / "metrics.jsonl").open("a") as out:
        out.write('{"step": 220, "loss": "nan"}\n{"step": 240, "loss": "inf", "val_loss": "nan"}\n')
    run = load(folder)
    assert run.curve is not None and math.isnan(run.curve.loss[-2]) and math.isinf(run.curve.loss[-1])
    assert run.diverged


def test_the_last_record_of_a_step_wins_after_a_resume(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "gpt_base", stop=200)
    with (folder / "metrics.jsonl").open("a") as out:
        out.write(
            '{"step": 180, "loss": 1.5}\n{"step": 200, "loss": 1.25, "val_loss": 1.125}\n{"step": 220, "loss": 1.0}\n'
        )
    run = load(folder)
    assert run.curve is not None and run.curve.loss[-3:].tolist() == [1.5, 1.25, 1.0]
    assert run.curve.step.tolist() == list(range(20, 221, 20))
    assert run.validations is not None and run.validations.loss[-1] == 1.125
    assert "2 records of metrics.jsonl were replaced" in notes(run)


def test_a_half_written_last_line_is_ignored(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "gpt_base", stop=200)
    with (folder / "metrics.jsonl").open("a") as out:
        out.write('{"step": 220, "loss": 1.')
    run = load(folder)
    assert (run.status, run.last_step, run.notes) == ("RUNNING", 200, ())
    later = load(folder, now=synthetic.START + 1e6)
    assert later.status == "UNKNOWN" and [str(note) for note in later.notes] == [
        "the last line of metrics.jsonl is cut off and was left out"
    ]


class FailingDisk(io.FileIO):
    """A file of which a disk can't read what lies behind byte 400."""

    def readinto(self, buffer: Any) -> int:
        if self.tell() >= 400:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().readinto(memoryview(buffer)[: 400 - self.tell()]) or 0


def test_a_read_error_in_the_middle_of_the_metrics_is_told_and_the_records_before_it_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run(tmp_path, "gpt_base")
    whole, real = load(folder), Path.open
    assert whole.curve is not None

    def opened(path: Path, *words: Any, **options: Any) -> Any:
        if path.name == "metrics.jsonl":
            return io.BufferedReader(FailingDisk(path), 64)
        return real(path, *words, **options)

    monkeypatch.setattr(Path, "open", opened)
    monkeypatch.setattr(metrics, "CHUNK", 32)
    run = load(folder)
    assert run.curve is not None and 0 < len(run.curve.step) < len(whole.curve.step)
    assert run.curve.loss.tolist() == whole.curve.loss.tolist()[: len(run.curve.step)]
    assert [str(note) for note in run.notes] == ["metrics.jsonl was not understood: Input/output error"]
    assert (run.status, run.final) == (whole.status, whole.final)  # which the result states


def test_a_seed_of_zero_is_a_seed(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "gpt_base", 43)
    result = json.loads((folder / "experiment_result.json").read_text())
    del result["train"]["seed"]
    synthetic.record(folder, "experiment_result.json", {**result, "seed": 0})
    (folder / ".oelm/run.json").unlink()
    assert load(folder).seed == 0


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        '{"step": -5, "loss": 1.0}',
        '{"step": "many"}',
        "[]",
        '{"loss": 1.0}',
        '{"step": 1e400}',
        "\x00\xff",
        "{" * 5000,
    ],
)
def test_lines_that_are_no_records_are_counted_and_the_rest_is_kept(tmp_path: Path, line: str) -> None:
    folder = make_run(tmp_path, "gpt_base", stop=200)
    with (folder / "metrics.jsonl").open("ab") as out:
        out.write(line.encode("latin-1") + b'\n{"step": 220, "loss": 1.0}\n')
    run = load(folder)
    assert run.last_step == 220
    assert "1 lines of metrics.jsonl were not understood" in notes(run)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"text"', "\x00\x01"])
def test_a_damaged_result_is_named_and_the_metrics_still_count(tmp_path: Path, content: str) -> None:
    folder = make_run(tmp_path, "gpt_base")
    (folder / "experiment_result.json").write_text(content)
    run = load(folder)
    assert "experiment_result.json was not understood" in notes(run)
    assert run.final is not None and run.final.step == 400


def test_a_pipe_in_place_of_a_result_is_named_and_nobody_waits_for_a_writer(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "gpt_base")
    (folder / "experiment_result.json").unlink()
    os.mkfifo(folder / "experiment_result.json")
    assert "experiment_result.json was not understood: it is no file" in notes(load(folder))


def test_one_field_of_a_wrong_type_does_not_cost_the_others(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "gpt_base")
    result = json.loads((folder / "experiment_result.json").read_text())
    result["gpu_hours"] = "many"
    result["label"] = None
    synthetic.record(folder, "experiment_result.json", result)
    run = load(folder)
    assert run.status == "DONE" and run.world_size == 1
    assert "experiment_result.json was not understood" in notes(run) and "gpu_hours" in notes(run)


def test_nulls_mean_the_same_as_absent_keys(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "gpt_base")
    result = json.loads((folder / "experiment_result.json").read_text())
    result |= {
        "label": None,
        "revision": None,
        "attempts": [{**result["attempts"][0], "devices": None, "wall_s": None}],
    }
    synthetic.record(folder, "experiment_result.json", result)
    assert not load(folder).notes


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("oelm_freeze", ("oelm_freeze", 42, "")),
        ("oelm_freeze-s43", ("oelm_freeze", 43, "")),
        ("oelm_freeze-s43-lr3", ("oelm_freeze", 43, "lr3")),
        ("oelm_freeze-lr3", ("oelm_freeze", 42, "lr3")),
        ("other-s7", ("other", 7, "")),
        ("other", ("other", 42, "")),
    ],
)
def test_names_say_group_seed_and_tag(name: str, expected: tuple[str, int, str]) -> None:
    assert run_directory.split_name(name, ("gpt_base", "oelm_no_freeze", "oelm_freeze"), 42) == expected


def test_a_study_without_any_run_directory_has_no_runs(tmp_path: Path) -> None:
    assert loading.study_runs(synthetic.study(), tmp_path / "nothing") == ([], [])


def test_a_thousand_columns_are_thinned_evenly_and_keep_their_ends(tmp_path: Path) -> None:
    import numpy as np
    from oelm_jobs.analysis.reading.columns import Columns

    columns = Columns(limit=100)
    for start in range(0, 10_000, 50):
        columns.add({"step": np.arange(start, start + 50)})
    found = columns.finish()
    assert found is not None and 50 <= len(found["step"]) <= 100 and found["step"][-1] == 9_999
    gaps = np.diff(found["step"])
    assert gaps.max() <= 4 * gaps.min()


def test_reasons_with_a_code_are_sentences_wherever_a_record_states_them(tmp_path: Path) -> None:
    killed = because("killed", signal="SIGKILL")
    by_supervisor = make_run(tmp_path, "gpt_base", stop=200)
    synthetic.record(by_supervisor, ".oelm/end.json", {"state": "FAILED", **told(killed)})
    by_trainer = make_run(tmp_path, "oelm_freeze", stop=200)
    stopped = {
        "reason": "can't write f: odd",
        "code": "can't write {path}: {why}",
        "values": {"path": "f", "why": "odd"},
    }
    synthetic.record(by_trainer, ".oelm/outcome.json", {"status": "error", **stopped})
    runs = [load(by_supervisor), load(by_trainer), load(make_run(tmp_path, "oelm_no_freeze", stop=200), START + 1e6)]
    assert [run.told_status for run in runs] == [
        "FAILED (killed by SIGKILL)", "FAILED (can't write f: odd)", "UNKNOWN (no heartbeat)",
    ]  # fmt: skip
    assert [translated(run.told_status, "zh") for run in runs] == [
        "FAILED（被 SIGKILL 杀死）", "FAILED（无法写入 f：odd）", "UNKNOWN（没有心跳）",
    ]  # fmt: skip

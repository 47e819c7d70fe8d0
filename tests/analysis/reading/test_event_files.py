"""TensorBoard's event files, as PyTorch writes them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from oelm_jobs.analysis.reading import run_directory
from oelm_jobs.analysis.reading.files import Metrics
from oelm_jobs.analysis.reading.series import read_series
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util.tensor_util import make_tensor_proto
from torch.utils.tensorboard import SummaryWriter

from oelm_jobs.agent.sentences import Sentence

from .. import synthetic


def read(folder: Path) -> tuple[dict[str, list[tuple[int, float]]], list[Sentence]]:
    notes: list[Sentence] = []
    found = read_series(folder, Metrics(files=["tb/events*"]), notes, attempts=1)
    pairs = {name: list(zip(s.step.tolist(), s.value.tolist(), strict=True)) for name, s in found.items()}
    return pairs, notes


def test_scalars_of_either_version_are_read_and_nothing_else(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path / "tb")) as writer:
        for step in (1, 200, 1 << 40):
            writer.add_scalar("val/loss", 0.5 + step, step)
            writer.add_scalar("val/acc", 0.25, step, new_style=True)
            writer.add_scalar("exact", 1 / 3, step, new_style=True, double_precision=True)
        writer.add_histogram("weights", np.array([1.0, 2.0]), 1)
        writer.add_text("notes", "words", 1)
        writer.add_scalar("val/loss", math.inf, (1 << 40) + 1)
    found, notes = read(tmp_path)
    assert found["val/loss"][:2] == [(1, 1.5), (200, 200.5)] and found["val/loss"][-1] == ((1 << 40) + 1, math.inf)
    assert found["val/acc"] == [(1, 0.25), (200, 0.25), (1 << 40, 0.25)]
    assert found["exact"][0] == (1, 1 / 3)
    assert set(found) == {"val/loss", "val/acc", "exact"} and notes == []


@pytest.mark.parametrize("value", [3, -3, 2.5])
def test_a_tensor_of_one_number_is_a_scalar_whatever_its_type(tmp_path: Path, value: float) -> None:
    writer = EventFileWriter(str(tmp_path / "tb"))
    for number, tensor in enumerate([value, [value, value]]):
        summary = Summary(value=[Summary.Value(tag=f"t{number}", tensor=make_tensor_proto(tensor))])
        writer.add_event(Event(step=7, summary=summary))
    writer.close()
    assert read(tmp_path)[0] == {"t0": [(7, value)]}


def test_a_record_that_is_cut_off_is_left_out_and_what_is_no_event_file_is_said_to_be_none(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path / "tb")) as writer:
        for step in range(1, 4):
            writer.add_scalar("loss", step, step)
    (path,) = (tmp_path / "tb").iterdir()
    whole = path.read_bytes()
    for cut in (1, 5, 14, 30):
        path.write_bytes(whole[:-cut])
        found, notes = read(tmp_path)
        assert found == {"loss": [(1, 1.0), (2, 2.0)]}
        assert notes == [f"the last record of {path.name} is cut off and was left out"]
    for content in (b"hello, this is text", b"\x05" + bytes(11) + b"\xff" * 9):
        path.write_bytes(content)
        found, notes = read(tmp_path)
        assert found == {} and len(notes) == 1 and "it is no event file" in notes[0]


def test_while_a_run_is_running_the_last_record_may_be_half_written(tmp_path: Path) -> None:
    folder = synthetic.make_script_run(tmp_path, "low", 1, 1.5, 0.6, status="RUNNING")
    planned = json.loads((folder / ".oelm" / "run.json").read_text())
    planned["program"]["metrics"]["files"] = ["tb/events*"]
    (folder / ".oelm" / "run.json").write_text(json.dumps(planned))
    with SummaryWriter(str(folder / "tb")) as writer:
        for step in (1, 2):
            writer.add_scalar("val_loss", step, step)
    (path,) = (folder / "tb").iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    run = run_directory.load(folder, now=synthetic.START)
    assert (run.status, run.series["val_loss"].last.step, run.notes) == ("RUNNING", 1, ())
    later = run_directory.load(folder, now=synthetic.START + 1e6)
    assert [str(note) for note in later.notes] == [f"the last record of {path.name} is cut off and was left out"]

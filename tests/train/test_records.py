"""The files by which a run is seen from outside: docs/run-directory.md, as the trainer writes it."""

from __future__ import annotations

import io
import json
import math
import re
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import journal
from tests.train.support import Trainers, metrics, outcome, read_json, train_here
from train.config import TrainConfig, to_dict
from train.records import Records, as_json, step_line, validation_line


def out(config: TrainConfig, name: str) -> Path:
    return Path(str(config.out_dir)) / name


def test_log_lines_are_those_that_reports_have_always_read() -> None:
    assert step_line(300, 5.6583, 4.5e-5) == "Step    300 | Loss: 5.6583 | PPL: 286.66 | LR: 4.50e-05"
    assert validation_line(1.4793) == "  Validation | Loss: 1.4793 | PPL: 4.39"
    assert step_line(1, math.inf, 0.0).endswith("| Loss: inf | PPL: inf | LR: 0.00e+00")


def test_numbers_that_are_not_finite_are_text_and_absent_ones_are_left_out() -> None:
    assert as_json({"a": math.nan, "b": [math.inf, 1.5], "c": None}) == {"a": "nan", "b": ["inf", 1.5]}


@pytest.mark.slow
def test_a_run_leaves_every_file_of_the_contract(tiny: TrainConfig, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_here(tiny) == 0
    printed = capsys.readouterr().out
    assert out(tiny, "training.log").read_text() == printed
    for line in (
        "Total parameters: 19,360",
        "Trainable parameters: 15,264 (78.8%)",
        "Frozen parameters: 4,096 (21.2%)",
    ):
        assert line in printed.splitlines()
    steps = re.findall(r"^Step +(\d+) \| Loss: [\d.]+ \| PPL: [\d.]+ \| LR: \d\.\d\de-\d\d$", printed, re.M)
    assert [int(step) for step in steps] == [1, 4, 8, 12, 16, 20, 24]
    assert len(re.findall(r"^Step.*\n  Validation \| Loss: [\d.]+ \| PPL: [\d.]+$", printed, re.M)) == 3

    records = metrics(tiny)
    assert sorted(records) == [1, 4, 8, 12, 16, 20, 24]
    for step, record in records.items():
        wanted = {"step", "tokens", "time", "loss", "lr", "grad_norm", "tokens_per_s"}
        validated = step % 8 == 0
        wanted |= {"val_loss", "val_tokens", "val_full"} if validated else set()
        wanted |= {"val_loss_sampled"} if step == 24 else set()
        assert set(record) == wanted
        assert record["tokens"] == step * 4 * 16
    assert [records[step]["val_full"] for step in (8, 16, 24)] == [False, False, True]
    assert [records[step]["val_tokens"] for step in (8, 16, 24)] == [3 * 4 * 16, 3 * 4 * 16, 699]
    assert records[4]["lr"] == pytest.approx(3e-3) and records[24]["lr"] == pytest.approx(3e-5)

    beat = read_json(out(tiny, "heartbeat.json"))
    assert beat["step"] == beat["max_steps"] == 24 and beat["loss"] == records[24]["loss"]
    assert {"tokens_per_s", "time"} < set(beat) and "attempt" not in beat

    left = outcome(tiny)
    assert (left["version"], left["status"], left["reason"], left["step"]) == (1, "completed", "", 24)
    assert left["final"] == {"step": 24, "loss": records[24]["loss"], "val_loss": records[24]["val_loss"],
                             "val_tokens": 699, "val_full": True}  # fmt: skip
    assert left["best"]["step"] in (8, 16, 24)
    assert left["config"] == {key: value for key, value in to_dict(tiny).items() if value is not None}
    assert (left["world_size"], left["global_batch"], left["exact"], left["precision"]) == (1, 4, True, "fp32")
    assert left["parameters"] == {"total": 19360, "trainable": 15264, "frozen": 4096, "qk": 4096, "embedding": 2464}
    assert len(left["data"]["train_sha256"]) == 64 and left["data"]["val_tokens"] == 700
    assert left["hardware"]["device"] == "cpu" and left["hardware"]["name"] and left["versions"]["torch"]
    assert left["tokens_per_s"] > 0 and left["train_s"] > 0 and left["val_s"] > 0 and "checkpoint_s" in left
    assert "attempt" not in left and "resumed_from" not in left and "peak_gpu_mem_gb" not in left


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["gpt", "no_freeze", "freeze", "freeze_ffn"])
def test_the_treatment_is_proved_by_hashes_at_start_and_end(arm: str, tiny: TrainConfig) -> None:
    config = replace(
        tiny,
        max_steps=2,
        model_type="gpt" if arm == "gpt" else "oelm",
        freeze_qk=arm == "freeze",
        freeze_ffn=arm == "freeze_ffn",
    )
    assert train_here(config) == 0
    proof = read_json(out(config, "treatment.json"))
    groups = proof["groups"]
    assert set(groups) == {"qk", "other"} | ({"ffn"} if arm == "freeze_ffn" else set())
    frozen = {"freeze": "qk", "freeze_ffn": "ffn"}.get(arm)
    for name, group in groups.items():
        still = name == frozen
        assert (group["sha256_start"] == group["sha256_end"]) is still
        assert group["requires_grad"] is group["in_optimizer"] is not still
    assert (proof["qk_orthogonality_error"] < 1e-6) is (arm != "gpt")
    assert proof["qk_init"] == ("normal" if arm == "gpt" else "orthogonal_head")
    assert sum(layer["total"] for layer in proof["layers"]) == proof["parameters"]["total"]
    assert sum(layer["trainable"] for layer in proof["layers"]) == proof["parameters"]["trainable"]
    qk = next(layer for layer in proof["layers"] if layer["name"] == "blocks.0.attn.qk")
    assert qk == {"name": "blocks.0.attn.qk", "total": 2048, "trainable": 0 if arm == "freeze" else 2048}


def test_treatment_of_an_unfinished_run_has_no_end(tiny: TrainConfig, trainers: Trainers) -> None:
    (process,) = trainers.start(replace(tiny, max_steps=100_000))
    path = out(tiny, "treatment.json")
    while not path.exists() and process.poll() is None:
        pass
    assert "sha256_start" in path.read_text() and "sha256_end" not in path.read_text()


@pytest.mark.slow
def test_with_a_supervisor_the_log_is_left_to_it_and_the_attempt_is_repeated(
    tiny: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OELM_ATTEMPT", "3f9c:2")
    assert train_here(replace(tiny, max_steps=2)) == 0
    assert not out(tiny, "training.log").exists()
    assert outcome(tiny)["attempt"] == read_json(out(tiny, "heartbeat.json"))["attempt"] == "3f9c:2"


@pytest.mark.slow
def test_the_revision_is_the_one_that_the_supervisor_recorded(tiny: TrainConfig) -> None:
    out(tiny, ".oelm").mkdir(parents=True)
    out(tiny, ".oelm/run.json").write_text(json.dumps({"revision": "abc123"}))
    assert train_here(replace(tiny, max_steps=1)) == 0
    assert outcome(tiny)["versions"]["revision"] == "abc123"


@pytest.mark.slow
def test_without_out_dir_nothing_is_written(
    tiny: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert train_here(replace(tiny, out_dir=None, max_steps=2)) == 0
    assert list((tmp_path / "empty").iterdir()) == []
    assert "  Validation | Loss: " in capsys.readouterr().out


def test_a_record_torn_by_a_kill_does_not_spoil_the_next(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"ste')
    Records(str(tmp_path), quiet=True).add_metrics({"step": 2})
    assert (tmp_path / "metrics.jsonl").read_text().splitlines() == ['{"step": 1}', '{"ste', '{"step": 2}']


@pytest.mark.slow
def test_trackers_that_are_missing_or_broken_never_fail_a_run(
    tiny: TrainConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def leave(*args: Any, **kwargs: Any) -> None:
        raise SystemExit("not logged in")

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=leave))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert train_here(replace(tiny, max_steps=2, use_wandb=True, use_tensorboard=True)) == 0
    printed = capsys.readouterr().out
    assert "W&B is off: SystemExit: not logged in" in printed and "TensorBoard is off: " in printed


@pytest.mark.slow
def test_tensorboard_reads_what_was_recorded(tiny: TrainConfig) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert train_here(replace(tiny, max_steps=4, use_tensorboard=True)) == 0
    events = EventAccumulator(f"{tiny.out_dir}/tensorboard")  # type: ignore[no-untyped-call]  # not typed in TensorBoard
    events.Reload()  # type: ignore[no-untyped-call]  # not typed in TensorBoard
    losses = {event.step: event.value for event in events.Scalars("val_loss")}  # type: ignore[no-untyped-call]  # not typed in TensorBoard
    assert losses[4] == pytest.approx(metrics(tiny)[4]["val_loss"])


@pytest.mark.slow
def test_trackers_are_told_every_record(tiny: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, dict[str, Any]]] = []
    finished: list[bool] = []
    run = types.SimpleNamespace(
        log=lambda values, step: told.append((step, values)), finish=lambda: finished.append(True)
    )
    names: list[str] = []

    def init(**settings: Any) -> types.SimpleNamespace:
        names.append(settings["id"])
        return run

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert train_here(replace(tiny, max_steps=4, use_wandb=True)) == 0
    assert sorted({step for step, _ in told}) == sorted(metrics(tiny))
    assert told[-1][1]["val_loss"] == metrics(tiny)[4]["val_loss"]
    assert finished == [True]
    assert train_here(replace(tiny, max_steps=6, use_wandb=True)) == 0
    assert names[0] and names == [names[0]] * 2, "what goes on is the same run to W&B"
    assert train_here(replace(tiny, max_steps=6, use_wandb=True, resume="none")) == 0
    assert names[2] != names[0], "what starts over is another"


@pytest.mark.slow
def test_training_learns_what_can_be_learnt(tiny: TrainConfig) -> None:
    assert train_here(replace(tiny, max_steps=300, val_interval=300, dropout=0.0)) == 0
    assert outcome(tiny)["final"]["val_loss"] < 0.6 * math.log(tiny.vocab_size)


@pytest.mark.slow
def test_a_checkpoint_is_synced_before_and_after_it_gets_its_name_and_the_metrics_before_it(tiny: TrainConfig) -> None:
    folder = Path(str(tiny.out_dir))
    folder.mkdir()
    with journal.kept(folder) as kept:
        assert train_here(tiny) == 0
    for name in ("checkpoint_10.pt", "checkpoint_20.pt", "checkpoint_24.pt", "best_model.pt"):
        lines = kept.lines(name, "./")
        named = [at for at, line in enumerate(lines) if line == f"name {name}"]
        assert named and all(lines[at - 1 : at + 2] == [f"sync {name}", f"name {name}", "sync ./"] for at in named)
        assert torch.load(io.BytesIO(kept.contents[name]), weights_only=True), "whole when it gets its name"
    for count, step in enumerate((10, 20, 24), start=1):
        lines = kept.lines("metrics.jsonl", "training.log", f"checkpoint_{step}.pt")
        before = lines[: lines.index(f"sync checkpoint_{step}.pt")]
        assert before.count("sync metrics.jsonl") >= count and before.count("sync training.log") >= count
    outcome = ".oelm/outcome.json"
    assert kept.lines(outcome) == [f"sync {outcome}", f"name {outcome}"]
    assert json.loads(kept.contents[outcome])["status"] == "completed"

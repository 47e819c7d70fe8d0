"""Interrupted at any step and started again, a run ends as if it had never stopped: to the bit."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.ssh.testbed import free_port
from tests.support import needs
from tests.train.support import (
    Trainers,
    metrics,
    outcome,
    train_here,
    wait_until,
)
from train import loop, run, state
from train.checkpoint import BEST, list_checkpoints, load_checkpoint
from train.config import TrainConfig
from train.data import verify
from train.linear import prefers_onednn

pytestmark = pytest.mark.slow

LONG = {"max_steps": 300, "save_interval": 7, "log_interval": 5, "val_interval": 40}


def final_state(config: TrainConfig) -> dict[str, Any]:
    return load_checkpoint(str(Path(str(config.out_dir)) / f"checkpoint_{config.max_steps}.pt"))


def assert_same_end(interrupted: TrainConfig, uninterrupted: TrainConfig) -> None:
    """Assert that weights, optimizer and all logged losses of two runs are the same bits."""
    a, b = final_state(interrupted), final_state(uninterrupted)
    assert_equal(a["model"], b["model"])
    assert_equal(a["optimizer"], b["optimizer"])
    best = [load_checkpoint(str(Path(str(config.out_dir)) / BEST)) for config in (interrupted, uninterrupted)]
    assert_equal(best[0]["model"], best[1]["model"])
    assert best[0]["progress"] == best[1]["progress"]
    for key in ("step", "tokens", "best", "final", "loss_sums"):
        assert a["progress"][key] == b["progress"][key], key
    found, expected = metrics(interrupted), metrics(uninterrupted)
    assert found.keys() == expected.keys()
    for step, record in expected.items():
        for key in ("loss", "lr", "grad_norm", "val_loss", "val_tokens", "val_full", "tokens"):
            assert found[step].get(key) == record.get(key), (step, key)


def assert_equal(a: Any, b: Any) -> None:
    if isinstance(b, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(b, dict):
        assert a.keys() == b.keys()
        for key, value in b.items():
            assert_equal(a[key], value)
    elif isinstance(b, (list, tuple)):
        assert len(a) == len(b)
        for left, right in zip(a, b, strict=True):
            assert_equal(left, right)
    else:
        assert a == b


def kill_after(trainers: Trainers, config: TrainConfig, world_size: int, step: int, number: signal.Signals) -> None:
    """Start a run and send a signal to all its processes as soon as a record past ``step`` is written."""
    processes = trainers.start(config, world_size)
    wait_until(lambda: max(metrics(config), default=0) >= step or processes[0].poll() is not None, f"step {step}")
    for process in processes:
        process.send_signal(number)
    for process in processes:
        process.communicate(timeout=120)
    expected = -number if number == signal.SIGKILL else 75
    codes = [process.returncode for process in processes]
    if number == signal.SIGKILL:  # who sees the first one gone may have ended by itself
        assert codes[0] == expected and set(codes) <= {expected, 1}
    else:
        assert codes == [expected] * world_size


@pytest.mark.parametrize(("kills", "changes"), [
    ((5,), {}),
    ((30, 80), {"batch_size": 2, "gradient_accumulation_steps": 2}),
    ((20, 60, 100), {"save_interval": 1, "val_interval": 5}),  # mostly within a checkpoint's write
])  # fmt: skip
def test_a_killed_run_ends_like_one_never_killed(
    kills: tuple[int, ...], changes: dict[str, int], tiny: TrainConfig, tmp_path: Path, trainers: Trainers
) -> None:
    config = replace(tiny, **{**LONG, **changes})
    whole = replace(config, out_dir=str(tmp_path / "whole"))
    assert train_here(whole) == 0
    for step in kills:
        kill_after(trainers, config, 1, step, signal.SIGKILL)
        assert not (Path(str(config.out_dir)) / ".oelm" / "outcome.json").exists()
    assert train_here(config) == 0
    assert kills == (5,) or outcome(config)["resumed_from"] > 0
    assert outcome(config)["exact"] is True
    assert_same_end(config, whole)


def test_ranks_with_accumulation_and_dropout_survive_a_kill_to_the_bit(
    tiny: TrainConfig, tmp_path: Path, trainers: Trainers
) -> None:
    world_size = 3  # from three on, the order of a sum counts: it must not depend on how long they have been running
    # A step of several processes takes ten times as long as one of one: the kill comes in the middle of fewer, too.
    several = {**LONG, "max_steps": 100, "batch_size": 2, "gradient_accumulation_steps": 2}
    config = replace(tiny, **several, dropout=0.2, freeze_qk=False)
    whole = replace(config, out_dir=str(tmp_path / "whole"))
    assert trainers.run(whole, world_size).code == 0
    kill_after(trainers, config, world_size, 30, signal.SIGKILL)
    assert trainers.run(config, world_size).code == 0
    assert outcome(config)["resumed_from"] > 0 and outcome(config)["exact"] is True
    assert_same_end(config, whole)


def test_sigterm_leaves_a_checkpoint_of_that_step_and_the_run_goes_on_exactly(
    tiny: TrainConfig, tmp_path: Path, trainers: Trainers
) -> None:
    config = replace(tiny, **{**LONG, "save_interval": 1000})
    whole = replace(config, out_dir=str(tmp_path / "whole"))
    assert train_here(whole) == 0
    kill_after(trainers, config, 1, 33, signal.SIGTERM)
    left = outcome(config)
    assert left["status"] == "resumable" and left["step"] > 30
    assert [step for step, _ in list_checkpoints(str(config.out_dir))] == [left["step"]]
    assert train_here(config) == 0
    assert outcome(config)["resumed_from"] == left["step"] and outcome(config)["status"] == "completed"
    assert_same_end(config, whole)


def test_a_signal_before_the_first_step_leaves_a_run_that_can_be_resumed(
    tiny: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_then_be_stopped(*arguments: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return verify(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(run, "verify", read_then_be_stopped)
        assert train_here(tiny) == 75
    assert (outcome(tiny)["status"], outcome(tiny)["step"]) == ("resumable", 0)
    assert list_checkpoints(str(tiny.out_dir)) == []
    assert train_here(tiny) == 0


def test_under_torchrun_sigterm_to_the_launcher_is_a_checkpoint_on_all_ranks(
    tiny: TrainConfig, trainers: Trainers
) -> None:
    config = replace(tiny, **{**LONG, "max_steps": 100_000, "save_interval": 100_000, "val_interval": 100_000})
    words = ["--nproc_per_node", "2", "--master_port", str(free_port()), "-m", "train"]
    attempt = {"OELM_ATTEMPT": "token:3"}
    (process,) = trainers.start(config, 1, attempt, "torch.distributed.run", words, python=sys.executable)
    wait_until(lambda: max(metrics(config), default=0) >= 10 or process.poll() is not None, "step 10")
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=120)
    left = outcome(config)
    assert left["status"] == "resumable", output
    assert left["attempt"] == "token:3" and left["world_size"] == 2
    assert load_checkpoint(str(Path(str(config.out_dir)) / f"checkpoint_{left['step']}.pt"))["world"]["size"] == 2


def test_a_validation_cut_short_by_sigterm_takes_place_after_the_restart(
    tiny: TrainConfig, tmp_path: Path, trainers: Trainers, data: Path
) -> None:
    # One window a turn over a long file: the last validation takes seconds, and the signal comes within it.
    long_file = tmp_path / "val.bin"
    long_file.write_bytes((data.parent / "val.bin").read_bytes() * 60)
    config = replace(tiny, batch_size=1, max_steps=6, log_interval=1, val_interval=100, val_data_path=str(long_file))
    whole = replace(config, out_dir=str(tmp_path / "whole"))
    assert train_here(whole) == 0
    log = Path(str(config.out_dir)) / "training.log"
    (process,) = trainers.start(config)
    wait_until(lambda: log.exists() and "Step      6" in log.read_text(), "the last step")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 75
    assert "val_loss" not in metrics(config)[6]
    assert train_here(config) == 0
    assert_same_end(config, whole)
    tail = log.read_text().splitlines()
    at = max(i for i, line in enumerate(tail) if line.startswith("  Validation"))
    assert tail[at - 1].startswith("Step      6 |")


def test_other_processes_go_on_from_a_checkpoint_and_say_that_it_is_not_exact(
    tiny: TrainConfig, tmp_path: Path, trainers: Trainers, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = replace(tiny, out_dir=str(tmp_path / "whole"), dropout=0.2)
    assert train_here(whole) == 0
    config = replace(tiny, dropout=0.2, max_steps=24)
    step = loop.Trainer._step

    def step_and_be_stopped(trainer: Any, batches: Any) -> None:
        step(trainer, batches)
        if trainer.progress.step == 5:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(loop.Trainer, "_step", step_and_be_stopped)
        assert train_here(config) == 75
    assert outcome(config)["step"] == 5
    two = replace(config, batch_size=2)
    ended = trainers.run(two, 2)
    assert ended.code == 0, ended.err
    assert "Not exact: 1 processes then, 2 now" in ended.out
    assert outcome(two)["exact"] is False and outcome(two)["world_size"] == 2
    # The micro-batches were cut differently, so dropout differs; the data and everything else do not.
    assert outcome(two)["final"]["val_loss"] == pytest.approx(outcome(whole)["final"]["val_loss"], abs=0.1)


def test_what_makes_other_bits_is_said_when_a_run_goes_on(
    tiny: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_here(replace(tiny, keep_last=0)) == 0
    path = Path(str(tiny.out_dir)) / "checkpoint_10.pt"
    ours = load_checkpoint(str(path))
    for changes, words in [
        ({"name": "RTX A5000"}, "RTX A5000 then, "),
        ({"threads": 7}, "7 threads then, 1 now"),
        ({"torch": "2.0.1"}, "PyTorch 2.0.1 then, "),
        ({"device": "cuda"}, "cuda then, cpu now"),
        ({"precision": "bf16"}, "bf16 then, fp32 now"),
        ({"arithmetic": 0}, "another version of this trainer then"),
    ]:
        torch.save({**ours, "world": {**ours["world"], **changes}}, path)
        assert train_here(replace(tiny, resume=str(path))) == 0
        assert f"Not exact: {words}" in capsys.readouterr().out
        assert outcome(tiny)["exact"] is False
    older = {key: value for key, value in ours["progress"].items() if key != "compiled"}  # of an older version
    torch.save({**ours, "progress": older, "config": {**ours["config"], "compile": "true"}}, path)
    assert train_here(replace(tiny, resume=str(path))) == 0
    assert "Not exact: compiled then or now, but not both" in capsys.readouterr().out
    torch.save({**ours, "world": {key: ours["world"][key] for key in ("size", "device", "torch")}}, path)
    assert train_here(replace(tiny, resume=str(path))) == 0, "a checkpoint of an older version"
    assert outcome(tiny)["exact"] is True


def test_how_adamw_is_computed_is_this_devices_affair_not_the_checkpoints(tiny: TrainConfig) -> None:
    assert train_here(replace(tiny, keep_last=0)) == 0
    path, whole = Path(str(tiny.out_dir)) / "checkpoint_10.pt", final_state(tiny)
    content = load_checkpoint(str(path))
    for group in content["optimizer"]["param_groups"]:
        group["fused"] = not group["fused"]
    torch.save(content, path)
    assert train_here(replace(tiny, resume=str(path))) == 0
    assert_equal(final_state(tiny)["optimizer"], whole["optimizer"])


def test_on_a_gpu_deterministic_kernels_then_or_now_alone_make_other_bits(
    tiny: TrainConfig, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = state._describe_world
    monkeypatch.setattr(state, "_describe_world", lambda *arguments: dict(real(*arguments), device="cuda"))
    assert train_here(replace(tiny, keep_last=0, max_steps=10)) == 0
    path = str(Path(str(tiny.out_dir)) / "checkpoint_10.pt")
    words = "Not exact: deterministic kernels then or now, but not both"
    for flag, other in (("auto", False), ("true", False), ("false", True)):
        assert train_here(replace(tiny, max_steps=10, resume=path, deterministic=flag)) == 0
        assert (words in capsys.readouterr().out) is other
        assert outcome(tiny)["exact"] is not other


def test_the_number_of_processes_changes_nothing_beyond_rounding(
    tiny: TrainConfig, tmp_path: Path, trainers: Trainers
) -> None:
    layouts = {"accumulated": (2, 2, 1), "two": (2, 1, 2)}
    runs = {}
    for name, (batch_size, micro_steps, world_size) in layouts.items():
        config = replace(
            tiny, batch_size=batch_size, gradient_accumulation_steps=micro_steps, out_dir=str(tmp_path / name)
        )
        assert trainers.run(config, world_size).code == 0
        runs[name] = metrics(config)
    assert runs["accumulated"].keys() == runs["two"].keys()
    for step, record in runs["two"].items():
        # Dropout is on: masks belong to micro-batches, not to processes.
        assert record["loss"] == pytest.approx(runs["accumulated"][step]["loss"], abs=1e-5)
        if "val_loss" in record:
            assert record["val_loss"] == pytest.approx(runs["accumulated"][step]["val_loss"], abs=1e-5)


def test_a_finished_run_started_again_is_complete_at_once(
    tiny: TrainConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_here(tiny) == 0
    before, records = outcome(tiny), metrics(tiny)
    monkeypatch.setenv("OELM_ATTEMPT", "t:2")
    assert train_here(tiny) == 0
    assert "Resumed from step 24" in capsys.readouterr().out
    after = outcome(tiny)
    assert after["status"] == "completed" and after["attempt"] == "t:2"
    for key in ("final", "best", "step", "tokens"):
        assert after[key] == before[key]
    assert metrics(tiny) == records


def test_a_checkpoint_of_another_run_is_refused_by_the_differing_keys(
    tiny: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_here(tiny) == 0
    for changed, words in [
        (replace(tiny, dropout=0.3), "dropout = 0.1 there and 0.3 here"),
        (replace(tiny, batch_size=2), "global batch = 4 there and 2 here"),
        (replace(tiny, max_steps=20), "max_steps = 24 there and 20 here"),
    ]:
        assert train_here(changed) == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert words in line and "--resume none" in line
        assert outcome(changed)["status"] == "error" and words in outcome(changed)["reason"]


def test_more_steps_extend_a_run_and_are_said_not_to_be_exact(
    tiny: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_here(tiny) == 0
    longer = replace(tiny, max_steps=30)
    assert train_here(longer) == 0
    assert "the learning rate was another" in capsys.readouterr().out
    left = outcome(longer)
    assert (left["resumed_from"], left["step"], left["exact"], left["final"]["step"]) == (24, 30, False, 30)
    assert left["final"]["val_full"] is True
    assert train_here(longer) == 0
    assert outcome(longer)["exact"] is False, "resuming once more doesn't make it exact"


def test_resume_none_sets_the_old_run_aside(tiny: TrainConfig, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_here(tiny) == 0
    before = outcome(tiny)
    assert train_here(replace(tiny, resume="none")) == 0
    assert "Starting over" in capsys.readouterr().out
    assert outcome(tiny)["final"] == before["final"] and "resumed_from" not in outcome(tiny)
    kept = sorted(os.listdir(Path(str(tiny.out_dir)) / "old_1"))
    assert "checkpoint_24.pt" in kept and "metrics.jsonl" in kept and "best_model.pt" in kept


def test_a_named_checkpoint_is_resumed_from(
    tiny: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_here(replace(tiny, keep_last=0)) == 0
    source = str(Path(str(tiny.out_dir)) / "checkpoint_10.pt")
    branch = replace(tiny, out_dir=str(tmp_path / "branch"), resume=source)
    assert train_here(branch) == 0
    assert outcome(branch)["resumed_from"] == 10
    assert_equal(final_state(branch)["model"], final_state(tiny)["model"])
    assert train_here(replace(branch, resume=str(Path(str(tiny.out_dir)) / "best_model.pt"))) == 1
    assert "holds weights alone" in capsys.readouterr().err


class Products(TorchDispatchMode):
    """Notes the products of matrices in fp32, the ones that a GPU's library makes where there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[tuple[str, list[tuple[int, ...]]]] = []
        self.goes_on = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, tensors = func.overloadpacket.__name__, [each for each in args if isinstance(each, torch.Tensor)]
        is_product = name in ("mm", "addmm", "addmm_", "bmm", "linear", "_linear_pointwise") or "attention" in name
        if self.goes_on and is_product and tensors[0].dtype == torch.float32:
            self.made.append((name, [tuple(each.shape) for each in tensors]))
        return func(*args, **(kwargs or {}))


def test_a_fresh_run_and_a_resumed_one_make_the_same_products_in_the_same_order(
    tiny: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, found = loop.Trainer._step, []
    prefers_onednn(torch.ones(1))  # which tries it once in a process

    def step_and_leave_off(trainer: Any, batches: Any) -> None:
        step(trainer, batches)
        products.goes_on = False

    monkeypatch.setattr(loop.Trainer, "_step", step_and_leave_off)
    fresh = replace(tiny, keep_last=0)
    resumed = replace(tiny, out_dir=str(tmp_path / "resumed"), resume=f"{tiny.out_dir}/checkpoint_10.pt")
    for config in (fresh, resumed):
        with Products() as products:
            assert train_here(config) == 0
        found.append(products.made)
    assert found[0] == found[1] and len(found[0]) > 20


def test_a_compiled_run_killed_ends_like_one_never_killed(
    tiny: TrainConfig, tmp_path: Path, trainers: Trainers
) -> None:
    needs("g++")  # for torch.compile
    config = replace(tiny, **LONG, compile="true")
    whole = replace(config, out_dir=str(tmp_path / "whole"))
    ended = trainers.run(whole)
    assert ended.code == 0 and "Compiling the blocks" in ended.out, ended.err
    kill_after(trainers, config, 1, 30, signal.SIGKILL)
    assert trainers.run(config).code == 0
    assert outcome(config)["resumed_from"] > 0 and outcome(config)["exact"] is True
    assert_same_end(config, whole)

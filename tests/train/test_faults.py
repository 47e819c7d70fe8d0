"""What goes wrong in a run, and that it is named: divergence, memory, disk, torn files, lost processes."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.train.support import (
    ROOT,
    Ended,
    Trainers,
    clean_environment,
    metrics,
    outcome,
    train_here,
    wait_until,
)
from train import estimate, memory
from train.checkpoint import BEST, CheckpointWriter, list_checkpoints, load_checkpoint, write_atomically
from train.config import TrainConfig, to_flags
from train.errors import CheckpointError, DiskFull, TrainError, is_out_of_memory

pytestmark = pytest.mark.slow


def run_folder(config: TrainConfig) -> Path:
    return Path(str(config.out_dir))


def test_a_gradient_that_is_not_finite_stops_the_run_before_it_is_applied(
    tiny: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(tiny, max_lr=1e30, grad_clip=0.0, warmup_steps=0)
    assert train_here(config) == 1
    left = outcome(config)
    assert left["status"] == "diverged" and "gradient norm is nan" in left["reason"]
    assert left["code"] == "gradient norm is {norm} at step {step}"
    assert left["values"] == {"norm": "nan", "step": int(left["reason"].split()[-1])}
    assert capsys.readouterr().err == f"train: {left['reason']}\n"
    kept = load_checkpoint(str(run_folder(config) / f"diverged_{left['step']}.pt"))
    assert all(bool(torch.isfinite(value).all()) for value in kept["model"].values())
    assert list_checkpoints(str(config.out_dir)) == []  # nothing to resume from: it would diverge again


def test_a_loss_far_above_guessing_stops_the_run(tiny: TrainConfig) -> None:
    config = replace(tiny, max_lr=30.0, min_lr=30.0, warmup_steps=0, max_steps=200, grad_clip=0.0, weight_decay=0.0)
    assert train_here(config) == 1
    left = outcome(config)
    assert left["status"] == "diverged" and "far above guessing" in left["reason"]
    assert left["step"] < 200


def test_a_full_disk_keeps_the_checkpoint_before_and_is_named(
    tiny: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    run_folder(tiny).mkdir()
    # The kernel's own full device stands in for the disk, at the file that the second checkpoint is written to.
    os.symlink("/dev/full", run_folder(tiny) / ".checkpoint_20.pt.partial")
    assert train_here(tiny) == 1
    assert (outcome(tiny)["status"], outcome(tiny)["reason"]) == ("error", "disk full")
    assert capsys.readouterr().err == "train: disk full\n"
    assert [step for step, _ in list_checkpoints(str(tiny.out_dir))] == [10]
    assert not (run_folder(tiny) / ".checkpoint_20.pt.partial").is_symlink()
    assert train_here(tiny) == 0
    assert outcome(tiny)["resumed_from"] == 10


def test_on_several_ranks_a_full_disk_ends_all_of_them(tiny: TrainConfig, trainers: Trainers) -> None:
    run_folder(tiny).mkdir()
    os.symlink("/dev/full", run_folder(tiny) / ".checkpoint_10.pt.partial")
    ended = trainers.run_all(replace(tiny, max_steps=5000), 2)
    assert [process.code for process in ended] == [1, 1]
    assert (outcome(tiny)["status"], outcome(tiny)["reason"]) == ("error", "disk full")
    assert "Traceback" not in ended[0].err + ended[1].err


def test_while_one_process_waits_for_its_disk_no_other_waits_where_gradients_go_round(
    tiny: TrainConfig, trainers: Trainers
) -> None:
    # NCCL would give up there after ten minutes; a message is waited for by the hour.
    config = replace(tiny, save_interval=1, max_steps=4)
    processes = trainers.start(config, 2, env={"OELM_TEST_FAULT": "slow disk"}, module="tests.train.faulty")
    ended = [Ended(process) for process in processes]
    assert [process.code for process in ended] == [0, 0], ended[0].err
    assert [step for step, _ in list_checkpoints(str(tiny.out_dir))] == [4, 3]
    assert not (run_folder(tiny) / "early").exists()


@pytest.mark.parametrize("damage", ["truncated", "emptied", "flipped"])
def test_a_torn_checkpoint_is_skipped_for_the_one_before(
    damage: str, tiny: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_here(tiny) == 0
    expected = load_checkpoint(str(run_folder(tiny) / "checkpoint_24.pt"))["model"]
    path = run_folder(tiny) / "checkpoint_24.pt"
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    path.write_bytes(content[: {"truncated": len(content) // 2, "emptied": 0}.get(damage, len(content))])
    assert train_here(tiny) == 0
    assert "Skipping a checkpoint" in capsys.readouterr().out
    assert outcome(tiny)["resumed_from"] == 20
    found = load_checkpoint(str(path))["model"]
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_checkpoint_with_a_flipped_byte_is_called_damaged_before_anything_of_it_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_1.pt"
    torch.save({"model": {"weight": torch.zeros(4)}, "config": {}}, path)
    with zipfile.ZipFile(path) as archive:
        content = path.read_bytes()
        pickled = archive.read("checkpoint_1/data.pkl")
    at = content.index(pickled) + len(pickled) // 2
    path.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
    with pytest.raises(CheckpointError, match="the checksum of checkpoint_1/data.pkl differs"):
        load_checkpoint(str(path))


def test_if_no_checkpoint_can_be_read_the_run_does_not_start_over_silently(
    tiny: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    run_folder(tiny).mkdir()
    (run_folder(tiny) / "checkpoint_10.pt").write_bytes(b"torn")
    assert train_here(tiny) == 1
    assert "none of the 1 checkpoints" in capsys.readouterr().err
    assert (run_folder(tiny) / "checkpoint_10.pt").read_bytes() == b"torn"


def test_retention_keeps_the_newest_the_milestones_and_the_best(tiny: TrainConfig) -> None:
    assert train_here(replace(tiny, save_interval=2, keep_last=2, keep_every=6)) == 0
    assert [step for step, _ in list_checkpoints(str(tiny.out_dir))] == [24, 22, 18, 12, 6]
    best = load_checkpoint(str(run_folder(tiny) / BEST))
    assert best["progress"] == outcome(tiny)["best"]
    assert "optimizer" not in best


def test_a_torn_checkpoint_of_a_later_step_does_not_push_out_the_good_one_before_it(tmp_path: Path) -> None:
    (tmp_path / "checkpoint_23.pt").write_bytes(b"torn")
    writer = CheckpointWriter(str(tmp_path), keep_last=1, keep_every=0)
    for step, left in ((20, [23, 20]), (21, [23, 21]), (23, [23]), (24, [24])):
        writer.save(f"checkpoint_{step}.pt", {"model": torch.zeros(1), "config": {}})
        writer.finish()
        assert [found for found, _ in list_checkpoints(str(tmp_path))] == left
        assert load_checkpoint(str(tmp_path / f"checkpoint_{step}.pt"))


def test_everything_written_loads_with_weights_only(tiny: TrainConfig) -> None:
    assert train_here(tiny) == 0
    paths = sorted(run_folder(tiny).glob("*.pt"))
    assert [path.name for path in paths] == ["best_model.pt", "checkpoint_20.pt", "checkpoint_24.pt"]
    for path in paths:
        assert "model" in torch.load(path, weights_only=True)


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    write_atomically(str(path), {"x": 1})
    os.symlink("/dev/full", tmp_path / ".a.pt.partial")
    with pytest.raises(DiskFull, match="^disk full$"):
        write_atomically(str(path), {"x": torch.zeros(100_000)})
    assert torch.load(path, weights_only=True) == {"x": 1}
    assert os.listdir(tmp_path) == ["a.pt"]
    with pytest.raises(TrainError, match="can't write"):
        write_atomically(str(tmp_path / "absent" / "a.pt"), {"x": 1})


def test_the_writer_saves_the_state_of_the_call_and_reports_a_failure_at_the_next(tmp_path: Path) -> None:
    writer = CheckpointWriter(str(tmp_path), keep_last=1, keep_every=0)
    weights = torch.zeros(1000)
    writer.save("checkpoint_1.pt", {"model": weights, "config": {}})
    weights.fill_(1.0)  # training goes on at once
    writer.finish()
    assert float(load_checkpoint(str(tmp_path / "checkpoint_1.pt"))["model"].sum()) == 0.0
    os.symlink("/dev/full", tmp_path / ".checkpoint_2.pt.partial")
    writer.save("checkpoint_2.pt", {"model": weights, "config": {}})
    with pytest.raises(DiskFull):
        writer.finish()
    assert [step for step, _ in list_checkpoints(str(tmp_path))] == [1]


def test_a_file_that_is_no_checkpoint_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not found"):
        load_checkpoint(str(tmp_path / "absent.pt"))
    torch.save({"other": 1}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="not a checkpoint of this trainer"):
        load_checkpoint(str(tmp_path / "other.pt"))


def test_out_of_memory_names_a_batch_size_with_the_same_global_batch(tiny: TrainConfig) -> None:
    config = replace(tiny, batch_size=65536, seq_len=64, max_steps=2, val_batches=1)
    limit = 3 << 30

    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    ended = subprocess.run(
        [sys.executable, "-m", "train", *to_flags(config)],
        cwd=ROOT,
        env=clean_environment(),
        preexec_fn=bounded,
        capture_output=True,
        text=True,
    )
    left = outcome(config)
    assert ended.returncode == 1 and left["status"] == "oom"
    assert "out of memory at --batch_size 65536" in left["reason"]
    words = left["reason"].replace(";", "").split()
    size = int(words[words.index("--batch_size", words.index("--batch_size") + 1) + 1])
    steps = int(words[words.index("--gradient_accumulation_steps") + 1])
    assert size < 65536 and size * steps == 65536
    assert ended.stderr == f"train: {left['reason']}\n"


def run_out_of_memory(*_: object) -> None:
    raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.parametrize("broken", ["train.memory.available_bytes", "train.estimate.fitting_batch_size"])
def test_out_of_memory_is_recorded_where_there_is_no_telling_what_would_fit(
    broken: str, tiny: TrainConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("train.loop.Trainer._step", run_out_of_memory)
    monkeypatch.setattr(broken, run_out_of_memory)
    assert train_here(tiny) == 1
    assert (outcome(tiny)["status"], outcome(tiny)["reason"]) == ("oom", "out of memory at --batch_size 4")
    assert capsys.readouterr().err == "train: out of memory at --batch_size 4\n"


def test_an_end_is_recorded_where_a_gpu_answers_no_more(
    tiny: TrainConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("train.loop.Trainer._step", run_out_of_memory)
    monkeypatch.setattr("train.run.peak_gpu_mem_gb", run_out_of_memory)
    assert train_here(tiny) == 1
    left = outcome(tiny)
    assert (left["status"], left["step"], left["global_batch"]) == ("oom", 0, 4)
    assert "outcome.json says less: RuntimeError: CUDA out of memory" in capsys.readouterr().err


def test_the_batch_size_named_is_the_largest_divisor_that_fits() -> None:
    config = TrainConfig(batch_size=32)
    eight = replace(config, batch_size=8, gradient_accumulation_steps=4)
    room = estimate.training_bytes(eight, on_gpu=False) / estimate.HEADROOM
    assert estimate.fitting_batch_size(config, room + 1, on_gpu=False) == 8
    assert estimate.fitting_batch_size(config, room - 1, on_gpu=False) == 4
    assert estimate.fitting_batch_size(config, 1e8, on_gpu=False) is None
    assert "the model is too large" in memory.advice(replace(config, batch_size=1), torch.device("cpu"))


def test_a_rank_that_loses_its_peer_ends_and_says_so(tiny: TrainConfig, trainers: Trainers) -> None:
    processes = trainers.start(replace(tiny, max_steps=100_000), 2)
    wait_until(lambda: max(metrics(tiny), default=0) >= 8 or processes[0].poll() is not None, "step 8")
    processes[1].kill()
    _, errors = processes[0].communicate(timeout=120)
    assert processes[0].returncode == 1, errors
    assert outcome(tiny)["status"] == "error" and "another process" in outcome(tiny)["reason"]


@pytest.mark.parametrize(
    ("fault", "status", "reason"),
    [
        ("killed", "error", "another process of the run has ended"),
        ("assert", "error", "RuntimeError: CUDA error: an assert"),
        ("memory", "oom", "out of memory at --batch_size 4"),
    ],
)
def test_processes_that_wait_for_a_gpu_end_with_the_one_that_failed_and_its_reason(
    fault: str, status: str, reason: str, tiny: TrainConfig, trainers: Trainers
) -> None:
    processes = trainers.start(tiny, 3, env={"OELM_TEST_FAULT": fault}, module="tests.train.faulty")
    ended = [Ended(process) for process in processes]
    assert [process.code for process in ended] == [1, -signal.SIGKILL if fault == "killed" else 1, 1]
    left = outcome(tiny)
    assert left["status"] == status and left["reason"].startswith(reason), left
    assert left["step"] == 6
    assert "process 0" not in ended[0].err and "process 2" not in ended[2].err, "they had no cause of their own"


@pytest.mark.parametrize(
    "words",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes",
    ],
)
def test_memory_that_runs_out_is_known_by_what_each_library_says(words: str) -> None:
    assert is_out_of_memory(RuntimeError(words)) and not is_out_of_memory(ValueError(words))
    assert not is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling cublasSgemm"))


def test_metrics_on_a_full_disk_end_the_run_by_the_same_name(tiny: TrainConfig) -> None:
    run_folder(tiny).mkdir()
    os.symlink("/dev/full", run_folder(tiny) / "metrics.jsonl")
    assert train_here(tiny) == 1
    assert (outcome(tiny)["status"], outcome(tiny)["reason"]) == ("error", "disk full")


def test_a_run_directory_that_cannot_be_made_is_one_line(
    tiny: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert train_here(replace(tiny, out_dir=str(tmp_path / "file" / "run"))) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "can't write to" in line and "Not a directory" in line


def test_missing_data_are_one_line_on_standard_error(tiny: TrainConfig, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_here(replace(tiny, data_path="/nowhere/train.bin")) == 1
    printed = capsys.readouterr()
    assert printed.err == "train: data file not found: /nowhere/train.bin; oelm-data makes token files from text\n"
    assert outcome(tiny)["reason"].startswith("data file not found")


def test_an_error_in_the_thread_that_prepares_batches_ends_the_run_with_its_words(
    tiny: TrainConfig, trainers: Trainers
) -> None:
    env = {"OELM_TEST_FAILS_ON": "0", "OELM_TEST_FAILS_AT": "7"}
    ended = Ended(trainers.start(tiny, env=env, module="tests.train.without_gpu", python=sys.executable)[0])
    assert ended.code == 1
    left = outcome(tiny)
    assert (left["status"], left["step"]) == ("error", 6)
    assert left["reason"] == "OSError: [Errno 5] Input/output error"
    assert "in prepare" in ended.err and "in gathered" in ended.err  # the thread's own traceback


def test_an_error_in_one_ranks_batches_ends_all_ranks(tiny: TrainConfig, trainers: Trainers) -> None:
    env = {"OELM_TEST_FAILS_ON": "1", "OELM_TEST_FAILS_AT": "7"}
    ended = [
        Ended(each)
        for each in trainers.start(tiny, 2, env=env, module="tests.train.without_gpu", python=sys.executable)
    ]
    assert [process.code for process in ended] == [1, 1]
    assert outcome(tiny)["status"] == "error" and "Input/output error" in outcome(tiny)["reason"]


def test_batches_prepared_ahead_are_those_of_the_step(tiny: TrainConfig, trainers: Trainers) -> None:
    env = {"OELM_TEST_FAILS_ON": "0", "OELM_TEST_FAILS_AT": "-1"}
    assert train_here(tiny) == 0
    expected = load_checkpoint(str(run_folder(tiny) / "checkpoint_24.pt"))["model"]
    ahead = replace(tiny, out_dir=str(run_folder(tiny).parent / "ahead"))
    assert Ended(trainers.start(ahead, env=env, module="tests.train.without_gpu", python=sys.executable)[0]).code == 0
    found = load_checkpoint(str(run_folder(ahead) / "checkpoint_24.pt"))["model"]
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_checkpoint_that_cannot_be_written_for_an_unforeseen_reason_ends_the_run(tiny: TrainConfig) -> None:
    def unforeseen(path: str, content: object) -> None:
        raise ValueError("nobody foresaw this")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.checkpoint.write_atomically", unforeseen)
        assert train_here(tiny) == 1
    assert outcome(tiny)["status"] == "error"
    assert outcome(tiny)["reason"] == "ValueError: nobody foresaw this"

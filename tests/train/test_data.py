"""From token files to batches: what a step trains on, what a validation reads, and which files are refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.train.support import VOCAB_SIZE, write_tokens
from train.config import TrainConfig
from train.cross_entropy import IGNORED
from train.data import TrainingBatches, default_val_path, micro_batches, open_tokens, validation_batch, verify
from train.distributed import World
from train.errors import DataError
from train.seeds import draw_offsets, splitmix64, stream_seed


def step_batches(path: Path, batch_size: int, micro_steps: int, world_size: int, step: int) -> torch.Tensor:
    """The sequences of a step over all ranks, in the order of the global batch."""
    file = open_tokens(str(path), 16)
    config = TrainConfig(seed=42, seq_len=16, batch_size=batch_size, gradient_accumulation_steps=micro_steps)
    parts: dict[int, torch.Tensor] = {}
    for rank in range(world_size):
        world = World(rank, world_size, torch.device("cpu"))
        batches = TrainingBatches(file, config, world)
        parts.update(zip(micro_batches(config, world), next(batches.steps(step, step)), strict=True))
    return torch.cat([parts[number] for number in sorted(parts)])


def test_the_global_batch_depends_on_seed_and_step_alone(data: Path) -> None:
    one = step_batches(data, 8, 1, 1, step=3)
    for layout in [(4, 2, 1), (4, 1, 2), (2, 2, 2), (1, 1, 8)]:
        assert torch.equal(one, step_batches(data, *layout, step=3))
    assert not torch.equal(one, step_batches(data, 8, 1, 1, step=4))


def test_a_batch_holds_consecutive_tokens_of_the_file(data: Path) -> None:
    tokens = np.fromfile(data, dtype="<u2").astype(np.int64)
    offsets = draw_offsets(42, 3, 8, tokens.size - 16)
    for sequence, offset in zip(step_batches(data, 8, 1, 1, step=3), offsets, strict=True):
        assert sequence.tolist() == tokens[offset : offset + 17].tolist()


def test_offsets_reach_both_ends_of_the_file_and_no_further() -> None:
    drawn = np.concatenate([draw_offsets(1, step, 500, 10) for step in range(4)])
    assert drawn.min() == 0 and drawn.max() == 9
    assert np.abs(np.bincount(drawn) - 200).max() < 70


def test_offsets_and_seeds_never_change_between_versions() -> None:
    # Recorded: another value would silently give every resumed or repeated run other data.
    assert stream_seed(42, "data", 1) == 6667745745991683385
    assert draw_offsets(42, 1, 4, 1_000_000).tolist() == [567293, 308640, 639300, 567260]


def test_offsets_come_from_splitmix64() -> None:
    # The generator's published first outputs for the seed 1234567.
    assert splitmix64(1234567, 3).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_token_ids_above_32767_arrive_unharmed(tmp_path: Path) -> None:
    np.arange(60_000, 60_100, dtype="<u2").tofile(tmp_path / "train.bin")
    batch = step_batches(tmp_path / "train.bin", 4, 1, 1, step=1)
    assert batch.dtype == torch.int64 and batch.min() >= 60_000 and batch.max() < 60_100


def test_validation_windows_predict_every_token_once(data: Path) -> None:
    file = open_tokens(default_val_path(str(data)), 16)
    tokens, targets = validation_batch(file, 16, 0, file.windows(16))
    seen = targets[targets != IGNORED]
    assert seen.tolist() == file.tokens[1:].tolist()
    assert tokens.flatten()[: seen.numel()].tolist() == file.tokens[:-1].tolist()
    assert (targets == IGNORED).sum() == targets.numel() - (file.num_tokens - 1) > 0
    first, _ = validation_batch(file, 16, 2, 3)
    assert torch.equal(first, tokens[2:3])


def test_a_missing_odd_or_short_file_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data file not found: .*train\.bin.*oelm-data"):
        open_tokens(str(tmp_path / "train.bin"), 16)
    (tmp_path / "odd.bin").write_bytes(b"123")
    with pytest.raises(DataError, match="odd number"):
        open_tokens(str(tmp_path / "odd.bin"), 16)
    np.zeros(17, dtype="<u2").tofile(tmp_path / "short.bin")
    with pytest.raises(DataError, match="needs at least 18"):
        open_tokens(str(tmp_path / "short.bin"), 16)


def write_manifest(folder: Path, **changes: object) -> None:
    digest = hashlib.sha256((folder / "train.bin").read_bytes()).hexdigest()
    entry = {"tokens": 4000, "size": 8000, "sha256": digest, **changes}
    tokenizer = {"name": "gpt2-61", "vocab_size": VOCAB_SIZE, "eot": 60}
    (folder / "manifest.json").write_text(
        json.dumps({"version": 1, "tokenizer": tokenizer, "files": {"train.bin": entry}})
    )


def test_data_are_hashed_and_checked_against_their_manifest(tmp_path: Path) -> None:
    path = write_tokens(tmp_path)
    files = open_tokens(str(path), 16), open_tokens(default_val_path(str(path)), 16)
    record, warnings = verify(*files, VOCAB_SIZE)
    assert record.train_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (record.train_tokens, record.val_tokens, record.tokenizer) == (4000, 700, "")
    assert any("no manifest.json" in warning for warning in warnings)
    write_manifest(tmp_path)
    record, warnings = verify(*files, VOCAB_SIZE)
    assert record.tokenizer == "gpt2-61" and warnings == []
    assert "the rest is never used" in verify(*files, 100)[1][0]
    write_manifest(tmp_path, sha256="0" * 64)
    with pytest.raises(DataError, match="not the file that its manifest"):
        verify(*files, VOCAB_SIZE)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(DataError, match="not valid JSON"):
        verify(*files, VOCAB_SIZE)


def test_a_token_outside_the_vocabulary_is_refused_before_training(data: Path) -> None:
    files = open_tokens(str(data), 16), open_tokens(default_val_path(str(data)), 16)
    with pytest.raises(DataError, match="vocab_size = 50 allows ids below that"):
        verify(*files, 50)

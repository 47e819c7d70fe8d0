"""Fixtures of the trainer's tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from tests.train.support import TINY, PassesForTwo, Trainers, write_tokens
from train.config import TrainConfig
from train.distributed import World


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Spinning threads of several tests would only take one another's core."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of a tiny train.bin with val.bin beside it."""
    return write_tokens(tmp_path_factory.mktemp("tokens"))


@pytest.fixture
def tiny(data: Path, tmp_path: Path) -> TrainConfig:
    """A run of a second, in a run directory of its own."""
    return replace(TINY, data_path=str(data), out_dir=str(tmp_path / "run"))


@pytest.fixture
def trainers() -> Iterator[Trainers]:
    found = Trainers()
    yield found
    for process in found.started:
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.fixture
def group(tmp_path: Path) -> Iterator[World]:
    """A process group of this process alone that passes for two, so that DDP is used as it would be."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    yield PassesForTwo(0, 2, torch.device("cpu"), dist.group.WORLD)
    dist.destroy_process_group()


@pytest.fixture
def algorithms() -> Iterator[None]:
    """Leave PyTorch's global choice of algorithms as it was."""
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True

"""What the trainer's tests share: a tiny token folder, a tiny run, and the trainer as a real process."""

from __future__ import annotations

import contextlib
import gc
import json
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.ssh.testbed import free_port
from train import run
from train.config import TrainConfig, to_flags
from train.distributed import World

ROOT = Path(__file__).resolve().parents[2]
VOCAB_SIZE = 61

TINY = TrainConfig(
    model_type="oelm",
    freeze_qk=True,
    d_model=32,
    num_layers=2,
    num_heads=4,
    d_ff=64,
    seq_len=16,
    vocab_size=VOCAB_SIZE,
    dropout=0.1,
    max_steps=24,
    warmup_steps=4,
    max_lr=3e-3,
    batch_size=4,
    val_interval=8,
    val_batches=3,
    log_interval=4,
    save_interval=10,
)


def write_tokens(folder: Path, train_tokens: int = 4000, val_tokens: int = 700, vocab_size: int = VOCAB_SIZE) -> Path:
    """Write train.bin and val.bin that can be learnt: each token is mostly a function of the one before."""
    folder.mkdir(parents=True, exist_ok=True)
    source = np.random.default_rng(7)
    for name, count in (("train", train_tokens), ("val", val_tokens)):
        tokens = [1]
        for noise in source.random(count - 1):
            tokens.append(tokens[-1] * 3 % vocab_size if noise < 0.8 else int(noise * 1e6) % vocab_size)
        np.array(tokens, dtype="<u2").tofile(folder / f"{name}.bin")
    return folder / "train.bin"


def train_here(config: TrainConfig) -> int:
    """Run an attempt in this process, which is quicker than starting one; return its exit code."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        return run.main(config, [])
    finally:
        gc.enable()
        gc.unfreeze()
        for number, handler in handlers.items():
            signal.signal(number, handler)


class Trainers:
    """Starts ``python -m train`` as real processes and ends what a test leaves running."""

    def __init__(self) -> None:
        self.started: list[Process] = []

    def start(
        self,
        config: TrainConfig,
        world_size: int = 1,
        env: dict[str, str] | None = None,
        module: str = "train",
        extra: Sequence[str] = (),
        python: str = "",
    ) -> list[Process]:
        """Start one process per rank, as torchrun would, and return them.

        They are forked from one that has imported PyTorch, which takes longer than what most of these tests train; with
        ``python``, the path of an interpreter, each is that interpreter.
        """
        port = free_port()
        for rank in range(world_size):
            ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "MASTER_PORT": port}
            variables = {key: str(value) for key, value in ranks.items()} if world_size > 1 else {}
            environment = {**clean_environment(), "MASTER_ADDR": "127.0.0.1", **variables, **(env or {})}
            argv = [*extra, *to_flags(config)]
            if python:
                process: Process = subprocess.Popen(
                    [python, "-m", module, *argv],
                    cwd=ROOT,
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            else:
                process = Forked(module, argv, environment)
            self.started.append(process)
        return self.started[-world_size:]

    def run_all(self, config: TrainConfig, world_size: int, env: dict[str, str] | None = None) -> list[Ended]:
        """Start, wait for all ranks, and return how they ended."""
        return [Ended(process) for process in self.start(config, world_size, env)]

    def run(self, config: TrainConfig, world_size: int = 1, env: dict[str, str] | None = None) -> Ended:
        """Start, wait, and return how rank 0 ended."""
        return self.run_all(config, world_size, env)[0]


class PassesForTwo(World):
    """A process alone that says of another one what it says of itself."""

    def everyones(self, value: Any) -> list[Any]:
        return [value] * self.size


class Forked:
    """``python -m module`` in a process forked from one that has imported what it needs, in the words of a Popen."""

    def __init__(self, module: str, argv: Sequence[str], env: dict[str, str]) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torch._dynamo", "train.run"])
        self._said = tempfile.TemporaryDirectory()
        out, err = (os.path.join(self._said.name, name) for name in ("out", "err"))
        self._process = context.Process(target=be_module, args=(module, list(argv), env, out, err))
        self._process.start()

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it ended this moment
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self._process.join(timeout)
        if self.poll() is None:
            raise subprocess.TimeoutExpired("train", timeout or 0.0)
        return tuple(Path(self._said.name, name).read_text(encoding="utf-8") for name in ("out", "err"))


Process = Forked | subprocess.Popen[str]


def be_module(module: str, argv: list[str], env: dict[str, str], out: str, err: str) -> None:
    """Be ``python -m module`` from here on, with files for what it says."""
    for path, number in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), number)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(ROOT)
    sys.argv = [module, *argv]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        sys.stdout.flush()


class Ended:
    """A process that has ended: its exit code and what it printed."""

    def __init__(self, process: Process) -> None:
        self.out, self.err = process.communicate(timeout=300)
        self.code = process.returncode


def clean_environment() -> dict[str, str]:
    """This process's environment without what would make a child believe it is a rank or an attempt."""
    dropped = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT", "OELM_ATTEMPT")
    kept = {key: value for key, value in os.environ.items() if key not in dropped}
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def outcome(config: TrainConfig) -> dict[str, Any]:
    return read_json(Path(str(config.out_dir)) / ".oelm" / "outcome.json")


def metrics(config: TrainConfig) -> dict[int, dict[str, Any]]:
    """The records of metrics.jsonl by step; the last record of a step wins, a last line without newline is ignored."""
    path = Path(str(config.out_dir)) / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    records = [json.loads(line) for line in lines if line]
    return {record["step"]: record for record in records}


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s} s in vain: {what}")
        time.sleep(0.002)

"""How long a training step takes: this project's trainer, and beside it nanoGPT's, on the same tokens and sizes.

    python benchmarks/train_step.py                         # this trainer alone
    python benchmarks/train_step.py --against ~/nanoGPT     # interleaved with a checkout of karpathy/nanoGPT

Each side is its own unchanged command (``python -m train``; nanoGPT's ``train.py``) in its own process, logging every
step. The processes take turns: one is stopped (SIGSTOP) while the other makes a few steps, so that whatever else the
machine does falls on both. The first step of a turn is not counted. Wall time is what a user waits; CPU time says the
same on a machine that is busy with other things.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from train.config import TrainConfig, to_flags
from train.environment import describe_hardware
from train.flops import flops_per_token
from train.optimizer import Precision
from train.peak_rates import mfu
from train.speed_trial import median_interval

ROOT = Path(__file__).resolve().parents[1]
SIZES = TrainConfig(d_model=128, num_layers=4, num_heads=4, d_ff=512, seq_len=128, batch_size=16, dropout=0.0)
OURS, THEIRS = "oelm-jobs", "nanoGPT"
STEP_LINE = re.compile(r"^Step +\d+ \||^iter \d+: loss")
FOREVER = 1_000_000


@dataclass
class Side:
    """One trainer's process and what was measured of it."""

    name: str
    command: Sequence[str]
    folder: Path
    env: dict[str, str]
    steps_per_line: int = 1
    """It logs every so many steps; a GPU has to be waited for each time."""
    process: subprocess.Popen[str] | None = None
    wall_s: list[float] = field(default_factory=list)
    """Seconds per step, one value a turn."""
    cpu_s: list[float] = field(default_factory=list)
    """CPU seconds per step, one value a turn."""

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.command, cwd=self.folder, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def turn(self, lines: int, counted: bool = True) -> None:
        """Let the process run until it has logged one line that does not count and ``lines`` that do, then stop it."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)
        self._next_line()
        wall, cpu = time.perf_counter(), self._cpu_s()
        for _ in range(lines):
            self._next_line()
        wall, cpu = time.perf_counter() - wall, self._cpu_s() - cpu
        self.process.send_signal(signal.SIGSTOP)
        if counted:
            self.wall_s.append(wall / lines / self.steps_per_line)
            self.cpu_s.append(cpu / lines / self.steps_per_line)

    def peak_memory_mb(self, device: str) -> float:
        """Return the most memory that the process had: of a GPU what PyTorch took and keeps, else of the host."""
        assert self.process is not None
        if device == "cuda":
            query = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
            rows = [row.split(",") for row in subprocess.check_output(query, text=True).splitlines()]
            return sum(float(used) for pid, used in rows if int(pid) == self.process.pid)
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) / 1024

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def _next_line(self) -> None:
        assert self.process is not None and self.process.stdout is not None
        said = []
        for line in self.process.stdout:
            said.append(line)
            if STEP_LINE.match(line):
                return
        raise SystemExit(f"{self.name} ended early:\n{''.join(said[-20:])}")

    def _cpu_s(self) -> float:
        assert self.process is not None
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def write_data(folder: Path, vocab_size: int) -> None:
    """Write token files with word-like frequencies."""
    folder.mkdir(parents=True)
    weights = 1.0 / np.arange(1, vocab_size + 1)
    source = np.random.default_rng(0)
    for name, count in (("train", 500_000), ("val", 5_000)):
        source.choice(vocab_size, size=count, p=weights / weights.sum()).astype("<u2").tofile(folder / f"{name}.bin")


def our_side(config: TrainConfig, folder: Path, env: dict[str, str], name: str = OURS, steps_per_line: int = 1) -> Side:
    config = replace(
        config,
        max_steps=FOREVER,
        warmup_steps=2000,
        log_interval=steps_per_line,
        val_interval=FOREVER,
        save_interval=FOREVER,
        data_path=str(folder / "data" / "bench" / "train.bin"),
        out_dir=str(folder / name.replace(" ", "_")),
    )
    return Side(name, [sys.executable, "-m", "train", *to_flags(config)], ROOT, env, steps_per_line)


def their_side(
    config: TrainConfig, folder: Path, checkout: Path, env: dict[str, str], device: str, steps_per_line: int = 1
) -> Side:
    """nanoGPT's train.py with the same sizes; without its biases, which ours has, and without an evaluation.

    On a CPU it has the vocabulary as it is; on a GPU its own, GPT-2's made larger for the GPU's sake, if it is GPT-2's.
    """
    if device == "cpu" or config.vocab_size != 50257:
        meta = pickle.dumps({"vocab_size": config.vocab_size})
        (folder / "data" / "bench" / "meta.pkl").write_bytes(meta)
    for name in ("train.py", "model.py", "configurator.py"):
        shutil.copy(checkout / name, folder / name)
    settings = {
        "device": device,
        "dtype": {"bf16": "bfloat16", "fp16": "float16"}.get(precision(device), "float32"),
        "compile": config.compile == "true",
        "dataset": "bench",
        "block_size": config.seq_len,
        "batch_size": config.batch_size,
        "n_layer": config.num_layers,
        "n_head": config.num_heads,
        "n_embd": config.d_model,
        "dropout": config.dropout,
        "gradient_accumulation_steps": 1,
        "log_interval": steps_per_line,
        "eval_interval": FOREVER,
        "eval_iters": 1,
        "max_iters": FOREVER,
    }
    command = [sys.executable, "-u", "train.py", *(f"--{key}={value}" for key, value in settings.items())]
    return Side(THEIRS, command, folder, env, steps_per_line)


def environment(threads: int, device: str) -> dict[str, str]:
    hidden = {} if device == "cuda" else {"CUDA_VISIBLE_DEVICES": ""}
    own = {"OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore", "PYTHONPATH": str(ROOT)}
    return {**os.environ, **own, **hidden}


def precision(device: str) -> str:
    return Precision(SIZES, torch.device(device)).name


def measure(sides: Sequence[Side], rounds: int, seconds: float) -> int:
    """Let the sides take turns; return the lines of a turn."""
    for side in sides:
        side.start()
        side.turn(3, counted=False)
    for side in sides:
        side.turn(2)
    lines = max(1, round(seconds / min(side.wall_s[0] * side.steps_per_line for side in sides)))
    for side in sides:
        side.wall_s.clear()
        side.cpu_s.clear()
    for number in range(rounds):
        for side in sides if number % 2 else list(reversed(sides)):
            side.turn(lines)
    return lines


def report(config: TrainConfig, sides: Sequence[Side], steps: int, device: str) -> None:
    tokens = config.batch_size * config.seq_len
    flops = flops_per_token(config) * tokens
    print(
        f"\nvocabulary {config.vocab_size:,}: {flops / 1e9:.1f} GFLOP a step of {tokens:,} tokens, {steps} steps a turn"
    )
    for side in sides:
        wall, cpu = statistics.median(side.wall_s), statistics.median(side.cpu_s)
        speed = f"{tokens / wall:8,.0f} tokens/s, {flops / wall / 1e9:6.1f} GFLOP/s"
        name = describe_hardware(torch.device(device))["name"]
        used = mfu(config, tokens / wall, 1, name, precision(device))
        share = f", MFU {100 * used:.1f} %" if used else ""
        memory = f"peak memory {side.peak_memory_mb(device):6,.0f} MB"
        print(f"  {side.name:<10} {1e3 * wall:8.1f} ms wall, {1e3 * cpu:8.1f} ms CPU a step, {speed}{share}, {memory}")
    if len(sides) < 2:
        return
    ours, theirs = sides
    for kind in ("wall", "cpu"):
        pairs = zip(getattr(theirs, f"{kind}_s"), getattr(ours, f"{kind}_s"), strict=True)
        ratios = [a / b for a, b in pairs]
        low, high = median_interval(ratios)
        name = "steps per second" if kind == "wall" else "steps per CPU second"
        print(
            f"  {name}: {statistics.median(ratios):.2f} x nanoGPT "
            f"(95 % interval of the median {low:.2f} … {high:.2f}, {len(ratios)} paired turns)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--against", type=Path, metavar="DIR", help="a checkout of karpathy/nanoGPT")
    parser.add_argument("--vocab", type=int, action="append", help="vocabulary, repeatable (default: 4096 and 50257)")
    parser.add_argument("--rounds", type=int, default=11, help="paired turns (default: 11)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a turn, about (default: 2)")
    parser.add_argument("--threads", type=int, default=1, help="OpenMP threads (default: 1)")
    parser.add_argument("--compile", action="store_true", help="torch.compile on both sides")
    parser.add_argument("--frozen", action="store_true", help="this trainer as OELM with frozen Q/K")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="where to train (default: a GPU if there is one)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all turns to a file")
    arguments = parser.parse_args()
    mode = "compiled" if arguments.compile else "eager"
    load = os.getloadavg()[0]
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    name = describe_hardware(torch.device(device))["name"]
    print(f"{name}, {precision(device)}, {arguments.threads} thread(s), {mode}, load {load:.1f}, ", end="")
    print(f"PyTorch {version('torch')}")
    env = environment(arguments.threads, device)
    turns = {}
    for vocab_size in arguments.vocab or [4096, 50257]:
        config = replace(SIZES, vocab_size=vocab_size, compile="true" if arguments.compile else "false")
        if arguments.frozen:
            config = replace(config, model_type="oelm", freeze_qk=True)
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            write_data(folder / "data" / "bench", vocab_size)
            sides = [our_side(config, folder, env)]
            if arguments.against is not None:
                sides.append(their_side(config, folder, arguments.against, env, device))
            try:
                steps = measure(sides, arguments.rounds, arguments.seconds)
                report(config, sides, steps, device)
            finally:
                for side in sides:
                    side.end()
            turns[vocab_size] = {side.name: {"wall_s": side.wall_s, "cpu_s": side.cpu_s} for side in sides}
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(turns))


if __name__ == "__main__":
    main()

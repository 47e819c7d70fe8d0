"""What all parts of a check share: the machine, the time that is left, and the programs that they start."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from train.config import TrainConfig

ROOT = Path(__file__).resolve().parents[2]
TIME_UP = -1
"""Exit code of a program that was ended because the time was up."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    section: str
    what: str
    says: str
    """What was found, in words and figures."""
    ok: bool | None = None
    """Whether that is as it should be; None for a figure, and for what did not take place."""


@dataclass(frozen=True)
class Job:
    """A program to start: Python's arguments, and what the environment has besides."""

    name: str
    words: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    folder: Path = ROOT


@dataclass(frozen=True)
class Ended:
    """How a program ended."""

    code: int
    text: str
    """Both its streams."""

    def line(self, begin: str) -> str:
        """Return the last line that begins so; whatever libraries say at their end stands behind it."""
        return next((line for line in reversed(self.text.splitlines()) if line.startswith(begin)), "")

    @property
    def complaint(self) -> str:
        """The line that says most of why it failed."""
        if self.code == TIME_UP:
            return "not ended in time"
        lines = [line.strip() for line in self.text.splitlines() if line.strip()] or [f"exit code {self.code}"]
        telling = [line for line in lines if "rror" in line or line.startswith("train: ")]
        return (telling or lines)[-1][:200]


@dataclass(frozen=True)
class Place:
    """Where a check takes place."""

    device: str
    """cuda, or cpu for a rehearsal."""
    gpus: int
    folder: Path
    """For temporary files."""
    ends_at: float
    """time.monotonic() when all must be over."""
    reference: TrainConfig
    """What is measured: the reference configuration, a tiny one in a rehearsal."""
    small: TrainConfig
    """What is compared to the bit: a run of seconds."""
    nanogpt: Path | None
    """A checkout of nanoGPT."""
    seconds: float
    """Length of one measurement, about."""

    @property
    def left_s(self) -> float:
        return max(0.0, self.ends_at - time.monotonic())

    @property
    def env(self) -> dict[str, str]:
        """The environment of a program: one thread, caches of its own, and no GPU in a rehearsal."""
        dropped = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "OELM_ATTEMPT", "OELM_LEASED_GPUS")
        kept = {key: value for key, value in os.environ.items() if key not in dropped}
        own = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
        own["TORCHINDUCTOR_CACHE_DIR"] = str(self.folder / "compiled")
        own["TRITON_CACHE_DIR"] = str(self.folder / "triton")
        return {**kept, **own, **({} if self.device == "cuda" else {"CUDA_VISIBLE_DEVICES": ""})}

    def run(self, jobs: Sequence[Job], limit_s: float) -> dict[str, Ended]:
        """Run programs at the same time until they end or the time is up; return how each ended, by name.

        Args:
            limit_s: For all of them; a rehearsal waits as long as it takes, up to its own end.
        """
        ends_at = self.ends_at if self.device == "cpu" else min(self.ends_at, time.monotonic() + limit_s)
        ended: dict[str, Ended] = {}
        running: dict[str, tuple[subprocess.Popen[bytes], Path]] = {}
        try:
            for job in jobs:
                log = self.folder / f"{len(list(self.folder.glob('*.log')))}.log"
                with log.open("w") as out:
                    process = subprocess.Popen(
                        [sys.executable, *job.words],
                        cwd=job.folder, env={**self.env, **job.env}, stdout=out, stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )  # fmt: skip
                running[job.name] = (process, log)
            while running:
                for name, (process, log) in list(running.items()):
                    if process.poll() is not None or time.monotonic() > ends_at:
                        code = TIME_UP if process.poll() is None else process.returncode
                        _end(process)
                        ended[name] = Ended(code, log.read_text(errors="replace"))
                        del running[name]
                time.sleep(0.05)
        finally:
            for process, _ in running.values():
                _end(process)
        return ended


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a program and what it has started."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

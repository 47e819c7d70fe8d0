"""What it costs a report to read the metrics of a long log, beside looking at each of its lines for itself."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from oelm_jobs.analysis.reading.files import Metrics
from oelm_jobs.analysis.reading.series import read_series

from oelm_jobs.agent import rundir
from oelm_jobs.agent.run.line_patterns import compile_line

Form = Callable[[int], str]
CASES: dict[str, tuple[tuple[str, ...], Form]] = {
    "every line fits": (("step {step} loss {loss}",), lambda n: f"step {n} loss {3 + n % 97 / 1000:.4f}\n"),
    "nanoGPT's lines": (
        ("step {step}: train loss {train_loss}, val loss {val_loss}", "iter {step}: loss {loss}"),
        lambda n: f"iter {n}: loss {3 + n % 97 / 1000:.4f}, time 12.34ms, mfu 40.00%\n",
    ),
    "five numbers": (
        ("step {step} loss {loss} acc {acc} lr {lr} time {time}",),
        lambda n: f"step {n} loss {3 + n % 97 / 1000:.4f} acc 0.{n % 97:02} lr 3e-4 time 12.{n % 10}\n",
    ),
    "a regular expression": (
        (r"step (?P<step>\d+) loss (?P<loss>\S+)",), lambda n: f"step {n} loss {3 + n % 97 / 1000:.4f}\n",
    ),
    "steps of their own lines": (
        ("epoch {step}/", "loss={loss}"),
        lambda n: f"loss={3 + n % 97 / 1000:.4f} lr=0.1\n" if n % 50 else f"epoch {n}/9\n",
    ),
    "no line fits": (("step {step} loss {loss}",), lambda n: f"other words {n}, more of them, and a number 3.25\n"),
}  # fmt: skip
"""For each case: patterns, and a line by its number."""


def reading(folder: Path, lines: tuple[str, ...]) -> float:
    """Return the processor time of reading a run's metrics."""
    begin = time.process_time()
    read_series(folder, Metrics(lines=list(lines), goal={"loss": "minimize"}), [])
    return time.process_time() - begin


def line_by_line(folder: Path, lines: tuple[str, ...]) -> float:
    """Return the processor time of looking at each line for itself, and keeping nothing."""
    begin, patterns = time.process_time(), [compile_line(line) for line in lines]
    with (folder / rundir.LOG).open("rb") as log:
        for raw in log:
            for pattern in patterns:
                if pattern.needle in raw:
                    pattern.read(raw.decode("utf-8", "replace"))
    return time.process_time() - begin


def main(megabytes: int, rounds: int) -> None:
    """Print seconds for each log, and how many times as long the other way takes."""
    print(f"processor time of reading a log of {megabytes} MB, {rounds} rounds each")
    for name, (lines, form) in CASES.items():
        with tempfile.TemporaryDirectory() as place:
            folder, number = Path(place), 0
            with (folder / rundir.LOG).open("w") as log:
                while log.tell() < megabytes << 20:
                    log.write("".join(map(form, range(number, number + 5000))))
                    number += 5000
            pairs = [(reading(folder, lines), line_by_line(folder, lines)) for _round in range(rounds)]
        used, ratios = statistics.median(own for own, _other in pairs), sorted(other / own for own, other in pairs)
        spread = f"{statistics.median(ratios):.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f})"
        print(f"{name:26}{used:7.2f} s   {number:>10,} lines   line by line, nothing kept: {spread} x")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50, int(sys.argv[2]) if len(sys.argv) > 2 else 5)

"""Write the files that show a run to others, apart from checkpoints: log, metrics, heartbeat, outcome.

docs/run-directory.md describes them. Only rank 0 has a ``Records`` that writes; others are given ``out_dir=None`` and
``quiet=True``.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
from typing import Any, Dict, Optional, TextIO

from .sentences import encoded

HEARTBEAT_INTERVAL_S = 5.0


class Records:
    """The run directory's log and JSON files. Without ``out_dir`` lines are printed and nothing is kept."""

    def __init__(self, out_dir: Optional[str], quiet: bool = False) -> None:
        self.out_dir = out_dir
        self.attempt = os.environ.get("OELM_ATTEMPT", "")
        self._quiet = quiet
        self._beat_at = 0.0
        self._log: Optional[TextIO] = None
        self._metrics: Optional[TextIO] = None
        if out_dir:
            os.makedirs(os.path.join(out_dir, ".oelm"), exist_ok=True)
            self.reopen_metrics()
            if not self.attempt:  # with a supervisor, standard output is training.log already
                self._log = open(  # noqa: SIM115 - appended to until the process ends
                    os.path.join(out_dir, "training.log"), "a", encoding="utf-8"
                )
            with contextlib.suppress(FileNotFoundError):  # it speaks of an older attempt
                os.unlink(os.path.join(out_dir, ".oelm", "outcome.json"))

    def reopen_metrics(self) -> None:
        """Open metrics.jsonl for appending; its name may have been given to a new file."""
        if self.out_dir is not None:
            _end_torn_line(os.path.join(self.out_dir, "metrics.jsonl"))
            self._metrics = open(  # noqa: SIM115 - appended to until the process ends
                os.path.join(self.out_dir, "metrics.jsonl"), "a", encoding="utf-8"
            )

    def say(self, line: str = "") -> None:
        """Print a line of the log."""
        if self._quiet:
            return
        print(line, flush=True)
        self.note(line)

    def note(self, line: str) -> None:
        """Write a line to training.log alone, if the trainer writes that itself: it was printed elsewhere already."""
        if self._log is not None:
            self._log.write(line + "\n")
            self._log.flush()

    def add_metrics(self, record: Dict[str, Any]) -> None:
        """Append a record to metrics.jsonl; keys without a value are left out."""
        if self._metrics is not None:
            self._metrics.write(json.dumps(as_json(record)) + "\n")
            self._metrics.flush()

    def beat(self, step: int, max_steps: int, last: Dict[str, Any], always: bool = False) -> None:
        """Write heartbeat.json, unless the last one is young enough.

        Args:
            last: The newest record of metrics.
        """
        if always or time.monotonic() - self._beat_at >= HEARTBEAT_INTERVAL_S:
            self._beat_at = time.monotonic()
            record = {"step": step, "max_steps": max_steps, **{key: last.get(key) for key in ("loss", "tokens_per_s")}}
            self.write("heartbeat.json", {**record, "time": time.time(), "attempt": self.attempt or None})

    def write(self, name: str, record: Dict[str, Any]) -> None:
        """Write a JSON file of the run directory whole or not at all."""
        if self.out_dir is not None:
            write_json(os.path.join(self.out_dir, name), record)

    def sync(self) -> None:
        """Make what was appended durable: a checkpoint never knows of a step that the metrics lost."""
        for stream in (self._metrics, self._log):
            if stream is not None:
                stream.flush()
                os.fsync(stream.fileno())


def step_line(step: int, loss: float, lr: float) -> str:
    """Return the log line of a step, in the format that reports have always read."""
    return f"Step {step:6d} | Loss: {loss:.4f} | PPL: {perplexity(loss):.2f} | LR: {lr:.2e}"


def validation_line(loss: float) -> str:
    """Return the log line of a validation; it belongs to the step line above it."""
    return f"  Validation | Loss: {loss:.4f} | PPL: {perplexity(loss):.2f}"


def speed_line(tokens_per_s: float, mfu: float) -> str:
    """Return the log line of how fast the steps before the step line above were made."""
    return f"  Speed | {tokens_per_s:,.0f} tokens/s | MFU: {100 * mfu:.1f} %"


def perplexity(loss: float) -> float:
    """Return exp(loss), infinite where a float can't hold it."""
    return math.exp(loss) if loss < 700 else math.inf


def as_json(value: Any) -> Any:
    """Return a value fit for JSON: None is left out of objects, numbers that are not finite become text."""
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value


def write_json(path: str, record: Dict[str, Any]) -> None:
    """Write a temporary file in the same folder, fsync it, rename it."""
    partial = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.{os.getpid()}.partial")
    with open(partial, "w", encoding="utf-8") as stream:
        json.dump(as_json(record), stream, ensure_ascii=False)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, path)


def write_outcome(out_dir: Optional[str], status: str, reason: str, facts: Dict[str, Any]) -> None:
    """Write outcome.json; a failure to write is reported and otherwise ignored: the end stands."""
    if not out_dir:
        return
    attempt = os.environ.get("OELM_ATTEMPT") or None
    record = {"version": 1, "attempt": attempt, "status": status, "reason": reason, **encoded(reason), **facts}
    try:
        os.makedirs(os.path.join(out_dir, ".oelm"), exist_ok=True)
        write_json(os.path.join(out_dir, ".oelm", "outcome.json"), record)
    except OSError as error:
        complain(f"can't write outcome.json: {error}")


def complain(message: str) -> None:
    """Print one line on standard error."""
    print(f"train: {message}", file=sys.stderr, flush=True)


def _end_torn_line(path: str) -> None:
    """End a line that a killed process left without its newline, so that the next record stands alone."""
    try:
        with open(path, "rb+") as stream:
            if stream.seek(0, os.SEEK_END) and stream.seek(-1, os.SEEK_END) >= 0 and stream.read(1) != b"\n":
                stream.write(b"\n")
    except FileNotFoundError:
        pass

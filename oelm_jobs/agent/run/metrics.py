"""Follow the metrics that a program tells while it runs: the newest values, read from the ends of growing files.

What comes faster than it is read is skipped: the report reads all (analysis/reading/series.py).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import signal
import subprocess
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Tuple, Union

from .. import rundir
from ..reasons import told
from ..sentences import _, joined
from . import remarks, work
from .line_patterns import LinePattern, clean, compile_line
from .rows import Table, json_object, numbers, step_name, whole
from .tail import LONGEST_PART, Tail

LOOK_S = 5.0
"""Time between two looks."""
MOST_BYTES = 4 << 20
"""So much is read at a look, the newest."""
MOST_CPU_S = 0.03
"""Processor time after which a look at one file is over, whatever it has not found yet."""
BLOCK = 1 << 18
"""Bytes of a log that are searched at a time, from its end back."""
PATTERN_CPU_S = 2.0
"""Processor time after which a pattern is given up: it has more ways to fit a line than can be tried."""
AGAIN_S = 60.0
"""A heartbeat is written so often although nothing is new."""
SEARCH_S = 30.0
"""Time between two searches for files that a pattern fits."""

Told = Tuple[Optional[int], Dict[str, float]]
"""A step, and values by metric."""


class TooSlow(Exception):
    """What was bounded has used its processor time up."""


@contextlib.contextmanager
def bounded(cpu_s: float) -> Iterator[None]:
    """Raise TooSlow once this process has computed for so long; without effect outside of the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def give_up(number: int, frame: Optional[FrameType]) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGVTALRM, give_up)  # regular expressions look for signals while they search
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, cpu_s)
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


class Log:
    """The newest values in the lines of a program's output."""

    def __init__(self, path: Union[str, Path], patterns: List[LinePattern], offset: int, say: Callable[[str], None]):
        """Follow a log from a place on; ``say`` is told which pattern was given up."""
        self._tail = Tail(path, offset)
        self._patterns = patterns
        self._say = say

    @property
    def passed_over(self) -> int:
        """Bytes that came faster than they are read."""
        return self._tail.passed_over

    def look(self, most: int, *, at_end: bool = False) -> Tuple[int, Told]:
        """Return how many bytes were new, and what they say: of each pattern the last line that fits it.

        Args:
            at_end: The program has ended: its last line counts also without an end.
        """
        if not self._patterns:
            return 0, (None, {})
        lines = self._tail.new(most) + (self._tail.rest() if at_end else b"")
        until, end = time.thread_time() + MOST_CPU_S, len(lines)
        found: Dict[LinePattern, Tuple[Tuple[int, int], Dict[str, float]]] = {}
        while end > 0 and len(found) < len(self._patterns) and time.thread_time() < until:
            begin = _line_start(lines, max(0, end - BLOCK))
            text = clean(lines[begin:end])
            for pattern in [each for each in self._patterns if each not in found]:
                try:
                    with bounded(PATTERN_CPU_S):
                        last = last_match(pattern, text, until)
                except TooSlow:
                    self._patterns.remove(pattern)
                    self._say(
                        _("the pattern {pattern!r} takes too long on a line and is no longer looked for", pattern.text)
                    )
                    continue
                if last is not None:
                    found[pattern] = (begin, last[0]), last[1]
            end = begin
        step: Optional[int] = None
        values: Dict[str, float] = {}
        for _place, said in sorted(found.values(), key=lambda each: each[0]):
            told = whole(said.pop("step", None))
            step = step if told is None else told
            values.update(said)
        return len(lines), (step, values)


def _line_start(lines: bytes, place: int) -> int:
    """Return where the line begins that a place is in."""
    return 1 + max(lines.rfind(b"\n", 0, place), lines.rfind(b"\r", 0, place))


def last_match(pattern: LinePattern, text: bytes, until: float) -> Optional[Tuple[int, Dict[str, float]]]:
    """Return (place, numbers) of the last line that fits a pattern; None where none does.

    Args:
        until: This thread's processor time at which older lines are left alone.
    """
    end = len(text) - text.endswith(b"\n")
    while end >= 0:
        at = text.rfind(pattern.needle, 0, end) if pattern.needle else end
        if at < 0:
            break
        begin = text.rfind(b"\n", 0, at) + 1
        stop = text.find(b"\n", at)
        line = text[begin : stop if stop >= 0 else len(text)]
        values = pattern.read(line.decode("utf-8", "replace"))
        if values:
            return begin, values
        end = begin - 1
        if time.thread_time() > until:
            break
    return None


class Files:
    """The newest values in files of metrics that a pattern fits, of which the one that changed last counts."""

    def __init__(self, run_dir: Union[str, Path], pattern: str, wanted: List[str]) -> None:
        """Follow files from their present ends on; ``wanted`` are the metrics for which older rows are looked at."""
        self._run_dir = Path(run_dir)
        self._pattern = pattern
        self._wanted = {"step", *wanted}
        self._searched_at = -math.inf
        self._tail: Optional[Tail] = None
        self._seen: Optional[Tuple[int, int]] = None
        self.look(0)
        self._searched_at = -math.inf

    def look(self, most: int, *, at_end: bool = False) -> Tuple[int, Told]:
        """Return how many bytes were new, and what they say.

        Args:
            at_end: The program has ended: a newer file that fits has to be found now, and a last row counts also
                without an end.
        """
        if at_end or self._tail is None or time.monotonic() - self._searched_at >= SEARCH_S:
            self._searched_at = time.monotonic()
            path = self._newest()
            if path is not None and (self._tail is None or self._tail.path != str(path)):
                self._tail, self._seen = Tail(path), None
        if self._tail is None or "tfevents" in os.path.basename(self._tail.path):  # TensorBoard's are the report's
            return 0, (None, {})
        if self._tail.path.endswith(".json"):
            return self._whole(self._tail.path, most)
        text = clean(self._tail.new(most) + (self._tail.rest() if at_end else b""))
        return len(text), self._rows(text, self._tail.path) if text else (None, {})

    def _newest(self) -> Optional[Path]:
        found = work.named(self._run_dir, self._pattern)
        with contextlib.suppress(OSError):  # one of them is gone again: the next search tells
            return max(found, key=lambda path: (path.stat().st_mtime_ns, path), default=None)
        return None

    def _rows(self, text: bytes, path: str) -> Told:
        """Return the newest values of rows, from the last one back."""
        table = None if path.endswith((".jsonl", ".ndjson")) else _table(path)
        until = time.thread_time() + MOST_CPU_S
        step: Optional[int] = None
        values: Dict[str, float] = {}
        for line in reversed(text.rstrip(b"\n").split(b"\n")):
            if table is not None:
                row = table.row(line.decode("utf-8", "replace"))
            else:
                content = json_object(line)
                row = None if content is None else numbers(content)
            told, said = _apart(row or {})
            if self._pattern == rundir.METRICS:
                said.pop("time", None)  # when the line was written (oelm_run)
            step = told if step is None else step
            values = {**said, **values}
            if self._wanted <= {"step", *values} or time.thread_time() > until:
                break
        return step, values

    def _whole(self, path: str, most: int) -> Tuple[int, Told]:
        """Return what a JSON file says that is read whole, such as transformers' trainer_state.json."""
        try:
            found = os.stat(path)
            if (found.st_mtime_ns, found.st_size) == self._seen:
                return 0, (None, {})
            self._seen = found.st_mtime_ns, found.st_size
            if found.st_size > most:
                return 0, (None, {})
            with open(path, "rb") as stream:
                content = json.loads(stream.read())
        except (OSError, ValueError, RecursionError):
            return 0, (None, {})
        rows = content if isinstance(content, list) else [content]
        if isinstance(content, dict) and isinstance(content.get("log_history"), list):
            rows = [*content["log_history"], {"max_steps": content.get("max_steps")}]
        step: Optional[int] = None
        values: Dict[str, float] = {}
        for row in rows:
            told, said = _apart(numbers(row) if isinstance(row, dict) else {})
            step = step if told is None else told
            values.update(said)
        return found.st_size, (step, values)


def _table(path: str) -> Optional[Table]:
    """Return the table that begins in a file; None where it doesn't yet."""
    try:
        with open(path, "rb") as stream:
            first = stream.readline(LONGEST_PART)
    except OSError:
        return None
    return Table(first.decode("utf-8", "replace").lstrip("\ufeff").strip("\r\n")) if first.endswith(b"\n") else None


def _apart(row: Dict[str, float]) -> Told:
    """Tell the step of a row from its metrics."""
    name = step_name(row)
    return whole(row.get(name)), {key: value for key, value in row.items() if key != name}


class Reader:
    """Everything that a run's program tells while an attempt runs."""

    def __init__(
        self,
        metrics: Mapping[str, Any],
        run_dir: Union[str, Path],
        *,
        log_offset: int = 0,
        max_steps: Optional[int] = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Read what is told from now on.

        Args:
            metrics: ``lines``, ``files`` and ``goal`` of the run's record.
            log_offset: Where the attempt's output begins in the log.
            max_steps: The planned length, where the study declares it.
        """
        self._run_dir = Path(run_dir)
        patterns = [compile_line(line) for line in metrics.get("lines") or ()]
        names = [rundir.METRICS, *(metrics.get("files") or ())]
        wanted = list(metrics.get("goal") or ())
        self._files = [Files(run_dir, name, wanted) for name in names]
        self._log = Log(self._run_dir / rundir.LOG, patterns, log_offset, say)
        self._is_declared = bool(patterns or names[1:])
        self._written_at = time.monotonic()
        self._remark = ""
        self.step: Optional[int] = None
        self.max_steps = max_steps
        self.metrics: Dict[str, float] = {}
        """The last values."""

    def look(self, *, at_end: bool = False) -> bool:
        """Read what is new; return whether it tells anything (``at_end`` as for Files and Log)."""
        left, told = MOST_BYTES, []
        for source in self._files:
            count, said = source.look(left // 2, at_end=at_end)
            left -= count
            told.append(said)
        told.append(self._log.look(left, at_end=at_end)[1])
        for step, values in reversed(told):  # as in the report, the first that tells something counts
            planned = whole(values.pop("max_steps", None))
            self.max_steps = planned or self.max_steps
            self.step = self.step if step is None else step
            self.metrics.update(values)
        return any(step is not None or values for step, values in told)

    def beat(self, mark: str, *, at_end: bool = False) -> None:
        """Look, and write heartbeat.json where there is something new, or a minute has passed. What stands there as a
        reason is a remark on how much the program prints, and how little room its disk has.

        Args:
            mark: OELM_ATTEMPT of the attempt.
            at_end: As for Files.
        """
        now, before = time.monotonic(), self._remark
        is_new = self.look(at_end=at_end)
        output = remarks.of_output(self._run_dir, self._log.passed_over)
        self._remark = joined((output, remarks.of_disk(self._run_dir)))
        if not is_new and self._remark == before and now - self._written_at < AGAIN_S:
            return
        self._written_at = now
        known = {"step": self.step, "max_steps": self.max_steps}
        content: Dict[str, Any] = {name: value for name, value in known.items() if value is not None}
        values = {name: value if math.isfinite(value) else str(value) for name, value in self.metrics.items()}
        content.update(time=time.time(), attempt=mark)
        if values or self._is_declared:  # an empty one says that nothing has fitted so far
            content["metrics"] = values
        if self._remark:
            content.update(told(self._remark))
        with contextlib.suppress(OSError):  # a full disk doesn't end a run
            rundir.write_json(self._run_dir / rundir.HEARTBEAT, content, durable=False)


def watch(child: "subprocess.Popen[bytes]", look: Callable[[], None], *, every_s: float = LOOK_S) -> None:
    """Wait until a child has ended, and look in between; the process sleeps in the kernel meanwhile.

    A handler of a signal may raise, which ends the wait.
    """
    receiver, sender = os.pipe()
    os.set_blocking(receiver, False)
    os.set_blocking(sender, False)
    before = signal.signal(signal.SIGCHLD, lambda number, frame: None)  # without a handler nobody would be woken
    woken = signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
    try:
        due = time.monotonic() + every_s
        while child.poll() is None:
            ready = select.select([receiver], [], [], max(0.0, due - time.monotonic()))[0]
            if ready:
                with contextlib.suppress(BlockingIOError):  # select(2): what is ready may be gone again
                    os.read(receiver, 4096)
            if time.monotonic() >= due:
                look()
                due = time.monotonic() + every_s
    finally:
        signal.set_wakeup_fd(woken)
        signal.signal(signal.SIGCHLD, before)
        os.close(receiver)
        os.close(sender)

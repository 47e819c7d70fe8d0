"""Format runs for a terminal: one table for every command that shows them."""

from __future__ import annotations

import math
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import click

from .. import table, visible
from ..agent.reasons import codes
from ..agent.rundir import finite
from ..agent.sentences import _, encoded, joined
from ..agent.states import State
from ..language import translated
from .common import put

if TYPE_CHECKING:
    from ..runs.observe import View
    from ..stored_run import StoredRun

HEADERS = (_("run"), _("state"), _("step"), _("loss"), _("val ppl"), _("tokens/s"), _("ETA"), _("note"))
ALIGN = "llrrrrrl"
EXPENDABLE = (_("tokens/s"), _("val ppl"), _("loss"))
"""What a narrow terminal does without, in this order, before notes are cut below NOTE_COLUMNS."""
NOTE_COLUMNS = 36
"""So much of a note says what is going on."""
MANY_RUNS = 50
"""Above so many runs a table counts states per group, unless it has a terminal's height to keep to."""
KEPT_FIRST = (
    State.RUNNING,
    State.FAILED,
    State.UNKNOWN,
    State.QUEUED,
    State.PLANNED,
    State.CANCELLED,
    State.DONE,
)
"""Which runs stay in view where a terminal has no room for all."""
SUSPENDED, IN_JOB = "suspended", "in_job"
"""Codes of the reasons of a run whose job Slurm has suspended, and of one that is in another job than its own."""
STALE_S = 120.0
"""A heartbeat older than this is named in the note."""


def titles(runs: Sequence[StoredRun]) -> dict[tuple[str, str], str]:
    """Return by study and name the title of each of several runs: its name, with its study's where names repeat."""
    times = Counter(run.name for run in runs)
    return {(run.study, run.name): run.name if times[run.name] == 1 else f"{run.study}/{run.name}" for run in runs}


def duration(seconds: float) -> str:
    """Return ``45 s``, ``12 min`` or ``5 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def eta_seconds(run: StoredRun) -> float | None:
    """Return the expected remaining seconds of a running run."""
    rate, step = _rate(run), finite(run.progress.get("step"))
    if run.state is not State.RUNNING or SUSPENDED in codes(run.reason) or not rate or step is None:
        return None
    tokens_per_step = float(run.spec["global_batch"]) * float(run.spec["train"]["seq_len"])
    return max(0.0, (float(run.spec["train"]["max_steps"]) - step) * tokens_per_step / rate)


def _rate(run: StoredRun) -> float | None:
    """Return tokens per second as the newest attempt last reported; None where only an older one has."""
    progress = run.progress
    beat, start = finite(progress.get("heartbeat_at")), finite(progress.get("started_at"))
    is_old = run.state is State.QUEUED or (beat is not None and start is not None and beat < start)
    return None if is_old else finite(progress.get("tokens_per_s"))


def _note(run: StoredRun, now: float) -> str:
    progress, parts = run.progress, []
    now += finite(progress.get("clock_ahead_s")) or 0.0  # by the target's clock, as its times are
    job = _("job {job}", progress["job"]) if progress.get("job") and not run.state.is_final else ""
    if IN_JOB in codes(run.reason):
        job = ""
    if run.state is State.RUNNING:
        if SUSPENDED in codes(run.reason):  # what hinders it is not to be cut off
            parts.append(run.reason)
        # The heartbeat may be an older attempt's.
        signs = [sign for key in ("heartbeat_at", "started_at") if (sign := finite(progress.get(key))) is not None]
        if signs and now - max(signs) > STALE_S:
            parts.append(_("no sign of progress for {duration}", duration(now - max(signs))))
        if progress.get("devices"):
            parts.append(_("on {devices}", _condensed(progress["devices"])))
        parts.append(job)  # before what its supervisor says, which may be long
        if (progress.get("attempt") or 1) > 1:
            parts.append(_("attempt {number}", progress["attempt"]))
    if run.reason not in parts:
        parts.append(run.reason)
    starts_at = finite(progress.get("starts_at"))
    if run.state is State.QUEUED and starts_at is not None and starts_at > now:
        parts.append(_("expected to start in {duration}", duration(starts_at - now)))
    if run.state is not State.RUNNING:
        parts.append(job)
    return translated(joined(parts))


def _condensed(devices: Sequence[str]) -> list[str]:
    """Return labels such as ``n1/gpu:0`` with consecutive ones merged (``n1/gpu:0-3``)."""
    found: list[tuple[str, int, int]] = []
    for label in devices:
        kind, __, index = label.rpartition(":")
        if not index.isdigit():
            return list(devices)
        if found and found[-1][0] == kind and found[-1][2] + 1 == int(index):
            found[-1] = (kind, found[-1][1], int(index))
        else:
            found.append((kind, int(index), int(index)))
    return [f"{kind}:{first}" if first == last else f"{kind}:{first}-{last}" for kind, first, last in found]


def row(run: StoredRun, now: float) -> tuple[str, ...]:
    """Return a run's row of the table, safe for a terminal; what isn't known is a dash."""
    progress = run.progress
    step, loss, val = (finite(progress.get(key)) for key in ("step", "loss", "val_loss"))
    rate, eta = _rate(run), eta_seconds(run)
    steps = run.spec["train"]["max_steps"]
    return (
        visible.line(run.name),
        str(run.state),
        "–" if step is None else f"{step:.0f}/{steps}",
        "–" if loss is None else f"{loss:.3f}",
        "–" if val is None else f"{math.exp(min(val, 700)):.2f}",
        "–" if rate is None else f"{rate:,.0f}",
        "–" if eta is None else duration(eta),
        visible.line(_note(run, now)),
    )


def colour(line: str, state: State) -> str:
    """Return the line in its state's colour; click drops the colour off a terminal."""
    colours = {
        State.RUNNING: "cyan",
        State.DONE: "green",
        State.FAILED: "red",
        State.CANCELLED: "yellow",
        State.UNKNOWN: "magenta",
    }
    return click.style(line, fg=colours[state]) if state in colours else line


def terminal_width() -> int | None:
    """Return the width of the terminal on stdout; None for a pipe or a file, where nothing is cut."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except (OSError, ValueError):
        return None


def render(view: View, *, width: int | None = None, height: int | None = None) -> str:
    """Return the table of runs, one block for each study and target, with a line for each target that couldn't be
    asked.

    Args:
        width: Columns that a table's lines may take.
        height: Lines that all may take; the last of the runs' says how many had no room.
    """
    about = []
    for name, answer in view.hosts.items():
        from . import hosts

        about.append(hosts.render(name, answer, width))
    for name, reason in view.unreachable.items():
        ages = [max(0.0, view.at - run.observed_at) for run in view.runs if run.target == name and run.observed_at]
        age = _("nothing is known of its runs")
        if ages:
            age = _("what it said {duration} ago stands", duration(min(ages)))
        said = _("target {target} can't be asked ({why}); {age}", name, reason, age)
        about.append(click.style(visible.line(translated(said)), fg="magenta"))
    shown: Sequence[StoredRun] = view.runs
    if height is not None:
        shown = _in_view(view.runs, height - sum(block.count("\n") + 2 for block in about))
    blocks = []
    for study, target in dict.fromkeys((run.study, run.target) for run in shown):
        runs = [run for run in shown if (run.study, run.target) == (study, target)]
        body = _counts(runs) if height is None and len(runs) > MANY_RUNS else _table(runs, view.at, width)
        title = translated(_("study {study} on {target}", study, target))
        blocks.append(click.style(visible.line(title), bold=True) + "\n" + body)
    if len(shown) < len(view.runs):
        left_out = Counter(run.state for run in view.runs)
        left_out.subtract(run.state for run in shown)
        states = ", ".join(f"{left_out[state]} {state}" for state in KEPT_FIRST if left_out[state])
        more = translated(_("… {count} more: {states}", left_out.total(), states))
        blocks[-1:] = ["\n".join([*blocks[-1:], more])]
    return "\n\n".join(blocks + about)


def _in_view(runs: Sequence[StoredRun], lines: int) -> Sequence[StoredRun]:
    """Return the runs whose tables fit into so many lines, in order, leaving a line where not all fit."""
    per_table = 4  # its title, its head of two lines and the empty line before the next
    tables = {(run.study, run.target) for run in runs}
    if len(runs) + per_table * len(tables) - 1 <= lines:
        return runs
    kept: set[int] = set()
    tables.clear()
    for position in sorted(range(len(runs)), key=lambda position: KEPT_FIRST.index(runs[position].state)):
        table_of = (runs[position].study, runs[position].target)
        if len(kept) + 1 + per_table * len(tables | {table_of}) <= lines:
            kept.add(position)
            tables.add(table_of)
    return [run for position, run in enumerate(runs) if position in kept]


def _table(runs: Sequence[StoredRun], now: float, width: int | None) -> str:
    rows = [row(run, now) for run in runs]
    names: Sequence[str] = HEADERS
    if width is not None:
        names, rows = _fit(rows, width)
    align = "".join(ALIGN[HEADERS.index(name)] for name in names)
    lines = table.text(rows, [translated(name) for name in names], align).splitlines()
    if width is not None:
        lines = [table.cut(line, width) for line in lines]  # where even the names are too long
    head = len(lines) - len(runs)
    return "\n".join(lines[:head] + [colour(line, run.state) for line, run in zip(lines[head:], runs, strict=True)])


def _fit(rows: Sequence[tuple[str, ...]], width: int) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return names and rows of the columns that fit into a width; notes get what the others leave."""
    taken = {
        name: max(table.width(cell) for cell in (translated(name), *column))
        for name, *column in zip(HEADERS, *rows, strict=True)
    }
    names: list[str] = list(HEADERS)

    def room() -> int:
        return width - sum(taken[name] + len(table.GAP) for name in names[:-1])

    for name in EXPENDABLE:
        if room() < min(taken["note"], NOTE_COLUMNS):
            names.remove(name)
    kept = [HEADERS.index(name) for name in names[:-1]]
    return names, [(*(row[position] for position in kept), table.cut(row[-1], max(room(), 1))) for row in rows]


def _counts(runs: Sequence[StoredRun]) -> str:
    states = [state for state in State if any(run.state is state for run in runs)]
    rows = []
    for group in dict.fromkeys(run.group for run in runs):
        count = Counter(run.state for run in runs if run.group == group)
        rows.append((group, str(sum(count.values())), *(str(count[state] or "–") for state in states)))
    headers = (translated(_("group")), translated(_("runs")), *(str(state) for state in states))
    return table.text(rows, headers, "l" + "r" * (len(states) + 1))


def as_json(view: View) -> dict[str, object]:
    """Return the runs as a versioned JSON object."""
    keys = ("project", "study", "name", "group", "label", "seed", "tag", "target", "run_dir", "fingerprint", "reason")
    runs = []
    for run in view.runs:
        values: dict[str, object] = {key: getattr(run, key) for key in keys}
        values.update(state=str(run.state), queued_at=run.queued_at, observed_at=run.observed_at, **encoded(run.reason))
        values.update(max_steps=run.spec["train"]["max_steps"], eta_s=eta_seconds(run), progress=dict(run.progress))
        runs.append(values)
    hosts: dict[str, dict[str, object]] = {}
    of_host = ("devices", "queue", "limit", "junk", "lease_error", "disk_free")
    for name, answer in view.hosts.items():
        known: Mapping[str, object] = answer
        hosts[name] = {key: known[key] for key in of_host if key in known}
        if "site" in answer:
            hosts[name]["partitions"] = answer["site"]["partitions"]
    content = {"version": 1, "time": view.at, "runs": runs, "unreachable": dict(view.unreachable)}
    return {**content, "hosts": hosts} if hosts else content


def screen() -> AbstractContextManager[Callable[[View], None]]:
    """Return what shows views one after the other: redrawn in place on a terminal, else a line per change."""
    return _Screen() if sys.stdout.isatty() else _Lines()


class _Screen(AbstractContextManager["Callable[[View], None]"]):
    """Redraws one table in place, without flicker."""

    def __enter__(self) -> Callable[[View], None]:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        console = Console()
        self._live = Live(console=console, auto_refresh=False, transient=False)
        self._live.__enter__()

        def show(view: View) -> None:
            width, height = console.size
            text = Text.from_ansi(render(view, width=width, height=height))
            excess = len(text.wrap(console, width)) - height  # sentences may take several lines
            if excess > 0:
                text = Text.from_ansi(render(view, width=width, height=height - excess))
            self._live.update(text, refresh=True)

        return show

    def __exit__(self, *details: Any) -> None:
        self._live.__exit__(*details)


class _Lines(AbstractContextManager["Callable[[View], None]"]):
    """Prints a line when a run's state changes, and its progress now and then."""

    EVERY_S = 15.0

    def __enter__(self) -> Callable[[View], None]:
        self._seen: dict[tuple[str, str], tuple[State, float]] = {}
        return self._show

    def __exit__(self, *details: Any) -> None:
        return None

    def _show(self, view: View) -> None:
        now = time.monotonic()
        for run in view.runs:
            key = (run.study, run.name)
            state, at = self._seen.get(key, (None, -math.inf))
            if run.state is not state or (run.state is State.RUNNING and now - at >= self.EVERY_S):
                self._seen[key] = (run.state, now)
                put(line(run, view.at))


def line(run: StoredRun, now: float) -> str:
    """Return a run's state as one line of prose, for logs."""
    name, state, *cells, note = row(run, now)
    named = [f"{translated(header)} {cell}" for header, cell in zip(HEADERS[2:-1], cells, strict=True) if cell != "–"]
    return "  ".join(part for part in (f"{name:<16}", f"{state:<9}", ", ".join(named), note) if part.strip())

"""Owns how runs look in a terminal: one table for every command that shows them; leaves finding out to workflow."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import click

from .. import table
from ..agent.rundir import finite
from ..language import tr
from ..observe import View
from ..spec import State
from ..store import StoredRun

HEADERS = ("run", "state", "step", "loss", "val ppl", "tokens/s", "ETA", "note")
ALIGN = "llrrrrrl"
MANY_RUNS = 50
"""Above so many runs a table counts states per group."""
STALE_S = 120.0
"""A heartbeat older than this is named in the note."""


def duration(seconds: float) -> str:
    """Return ``45 s``, ``12 min`` or ``5 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def eta_seconds(run: StoredRun) -> float | None:
    """Return the expected rest of a running run's training."""
    progress = run.progress
    rate, step = finite(progress.get("tokens_per_s")), finite(progress.get("step"))
    if run.state is not State.RUNNING or not rate or step is None:
        return None
    tokens_per_step = float(run.spec["global_batch"]) * float(run.spec["train"]["seq_len"])
    return max(0.0, (float(run.spec["train"]["max_steps"]) - step) * tokens_per_step / rate)


def _note(run: StoredRun, now: float) -> str:
    parts = []
    if run.state is State.RUNNING:
        parts.append("on " + ", ".join(run.progress.get("devices") or ()))
        beat = finite(run.progress.get("heartbeat_at")) or finite(run.progress.get("started_at"))
        if beat is not None and now - beat > STALE_S:
            parts.append(f"no sign of progress for {duration(now - beat)}")
        if (run.progress.get("attempt") or 1) > 1:
            parts.append(f"attempt {run.progress['attempt']}")
    if run.reason:
        parts.append(run.reason)
    starts_at = finite(run.progress.get("starts_at"))
    if run.state is State.QUEUED and starts_at is not None and starts_at > now:
        parts.append(f"expected to start in {duration(starts_at - now)}")
    if run.progress.get("job") and not run.state.is_final:
        parts.append(f"job {run.progress['job']}")
    return "; ".join(tr(part) for part in parts)


def row(run: StoredRun, now: float) -> tuple[str, ...]:
    """Return a run's line in the table; what isn't known is a dash."""
    progress = run.progress
    step, loss, val, rate = (finite(progress.get(key)) for key in ("step", "loss", "val_loss", "tokens_per_s"))
    eta = eta_seconds(run)
    steps = run.spec["train"]["max_steps"]
    return (
        run.name,
        str(run.state),
        "–" if step is None else f"{step:.0f}/{steps}",
        "–" if loss is None else f"{loss:.3f}",
        "–" if val is None else f"{math.exp(min(val, 700)):.2f}",
        "–" if rate is None else f"{rate:,.0f}",
        "–" if eta is None else duration(eta),
        _note(run, now),
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


def render(view: View, *, width: int | None = None) -> str:
    """Return the table of runs, one block per study and target, with a line for every target that couldn't be asked."""
    blocks = []
    for study, target in dict.fromkeys((run.study, run.target) for run in view.runs):
        runs = [run for run in view.runs if (run.study, run.target) == (study, target)]
        body = _counts(runs) if len(runs) > MANY_RUNS else _table(runs, view.at, width)
        blocks.append(click.style(tr(f"study {study} on {target}"), bold=True) + "\n" + body)
    for name, answer in view.hosts.items():
        from . import hosts

        blocks.append(hosts.render(name, answer))
    for name, reason in view.unreachable.items():
        ages = [max(0.0, view.at - run.observed_at) for run in view.runs if run.target == name and run.observed_at]
        age = f"what it said {duration(min(ages))} ago stands" if ages else "nothing is known of its runs"
        blocks.append(click.style(tr(f"target {name} can't be asked ({reason}); {age}"), fg="magenta"))
    return "\n\n".join(blocks)


def _table(runs: Sequence[StoredRun], now: float, width: int | None) -> str:
    lines = table.text([row(run, now) for run in runs], [tr(header) for header in HEADERS], ALIGN).splitlines()
    if width is not None:
        lines = [_cut(line, width) for line in lines]
    head = len(lines) - len(runs)
    return "\n".join(lines[:head] + [colour(line, run.state) for line, run in zip(lines[head:], runs, strict=True)])


def _cut(line: str, width: int) -> str:
    """Return a line that takes at most ``width`` columns of a terminal."""
    if table.width(line) <= width:
        return line
    while table.width(line) >= width:
        line = line[:-1]
    return line + "…"


def _counts(runs: Sequence[StoredRun]) -> str:
    states = [state for state in State if any(run.state is state for run in runs)]
    rows = []
    for group in dict.fromkeys(run.group for run in runs):
        count = Counter(run.state for run in runs if run.group == group)
        rows.append((group, str(sum(count.values())), *(str(count[state] or "–") for state in states)))
    return table.text(rows, (tr("group"), tr("runs"), *(str(state) for state in states)), "l" + "r" * (len(states) + 1))


def as_json(view: View) -> dict[str, Any]:
    """Return the runs as a versioned JSON object."""
    keys = ("project", "study", "name", "group", "label", "seed", "tag", "target", "run_dir", "fingerprint", "reason")
    runs = []
    for run in view.runs:
        values: dict[str, Any] = {key: getattr(run, key) for key in keys}
        values.update(state=str(run.state), queued_at=run.queued_at, observed_at=run.observed_at)
        values.update(max_steps=run.spec["train"]["max_steps"], eta_s=eta_seconds(run), progress=dict(run.progress))
        runs.append(values)
    hosts = {
        name: {key: answer[key] for key in ("devices", "queue", "disk_free") if key in answer}
        for name, answer in view.hosts.items()
    }
    content = {"version": 1, "time": view.at, "runs": runs, "unreachable": dict(view.unreachable)}
    return {**content, "hosts": hosts} if hosts else content


def watch(
    poll: Callable[[], View],
    *,
    until: Callable[[View], bool] = lambda view: False,
    show: Callable[[View], None] | None = None,
    interval_s: float = 2.0,
) -> View:
    """Show runs until it is enough (or for ever); redraws in place on a terminal, says what changed elsewhere.

    Args:
        show: Is given each view instead.

    Returns:
        The last view.
    """
    screen: AbstractContextManager[Callable[[View], None]] = _Screen() if sys.stdout.isatty() else _Lines()
    with nullcontext(show) if show else screen as shown_by:
        while True:
            view = poll()
            shown_by(view)
            if until(view):
                return view
            time.sleep(interval_s)


class Over:
    """Says when nothing more will come of runs: each is final, or its target has long said that it can't tell."""

    PATIENCE_S = 60.0

    def __init__(self) -> None:
        self._unknown_since: dict[tuple[str, str], float] = {}

    def __call__(self, view: View) -> bool:
        """Say so of a view, newer than the one before."""
        now, unknown = time.monotonic(), {}
        for run in view.runs:
            if run.state is State.UNKNOWN and run.target not in view.unreachable:
                key = (run.study, run.name)
                unknown[key] = self._unknown_since.get(key, now)
        self._unknown_since = unknown
        return all(
            run.state.is_final or now - unknown.get((run.study, run.name), now) >= self.PATIENCE_S for run in view.runs
        )


class _Screen(AbstractContextManager[Callable[[View], None]]):
    """Redraws one table in place, without flicker."""

    def __enter__(self) -> Callable[[View], None]:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        console = Console()
        self._live = Live(console=console, auto_refresh=False, transient=False)
        self._live.__enter__()
        return lambda view: self._live.update(Text.from_ansi(render(view, width=console.width)), refresh=True)

    def __exit__(self, *details: Any) -> None:
        self._live.__exit__(*details)


class _Lines(AbstractContextManager[Callable[[View], None]]):
    """Prints a line when a run's state changes, and its progress every now and then."""

    EVERY_S = 15.0

    def __enter__(self) -> Callable[[View], None]:
        self._seen: dict[str, tuple[State, float]] = {}
        return self._show

    def __exit__(self, *details: Any) -> None:
        return None

    def _show(self, view: View) -> None:
        now = time.monotonic()
        for run in view.runs:
            state, at = self._seen.get(run.name, (None, -math.inf))
            if run.state is not state or (run.state is State.RUNNING and now - at >= self.EVERY_S):
                self._seen[run.name] = (run.state, now)
                click.echo(line(run, view.at))


def line(run: StoredRun, now: float) -> str:
    """Return a run's state as one line of prose, for logs."""
    name, state, *cells, note = row(run, now)
    named = [f"{tr(header)} {cell}" for header, cell in zip(HEADERS[2:-1], cells, strict=True) if cell != "–"]
    return "  ".join(part for part in (f"{name:<16}", f"{state:<9}", ", ".join(named), note) if part.strip())


def counts(runs: Iterable[StoredRun]) -> Mapping[State, int]:
    """Return how many runs are in each state."""
    return Counter(run.state for run in runs)

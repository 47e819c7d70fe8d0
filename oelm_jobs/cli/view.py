"""Format runs for a terminal: one table for every command that shows them."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from .. import fitting, table, visible
from ..agent.reasons import codes
from ..agent.rundir import finite
from ..agent.sentences import Sentence, _, encoded, joined
from ..agent.states import State
from ..language import translated
from .common import put

if TYPE_CHECKING:
    from ..runs.observe import View
    from ..stored_run import StoredRun

HEADERS = (_("run"), _("state"), _("step"), _("loss"), _("val ppl"), _("tokens/s"), _("ETA"), _("note"))
METRIC = _("metric")
OF_SCRIPTS = (_("run"), _("state"), _("step"), METRIC, _("ETA"), _("note"))
"""The columns of runs of scripts: one for the main metric, headed by its name."""
LEFT = (_("run"), _("state"), _("note"))
"""Columns of text."""
EXPENDABLE = (_("tokens/s"), _("val ppl"), _("loss"), METRIC)
"""What a narrow terminal does without, in this order, before notes are cut below NOTE_COLUMNS."""
NOTE_COLUMNS = 36
"""So much of a note says what is going on."""
SHORTEST_NAME = 12
"""No terminal is so narrow that less of a run's name is shown."""
MANY_RUNS = 50
"""Above so many runs a table counts states per group, unless it has a terminal's height to keep to."""
COLOURS = {
    State.RUNNING: "cyan",
    State.FAILED: "red",
    State.UNKNOWN: "magenta",
    State.QUEUED: "",
    State.PLANNED: "",
    State.CANCELLED: "yellow",
    State.DONE: "green",
}
"""The colour of each state's lines, in the order in which runs stay in view where a terminal has no room for all."""
KEPT_FIRST = list(COLOURS)
SUSPENDED, IN_JOB = "suspended", "in_job"
"""Codes of the reasons of a run whose job Slurm has suspended, and of one that is in another job than its own."""
TELL_S = 15.0
"""Seconds between two lines about the progress of a run."""
STALE_S = 120.0
"""A heartbeat older than this is named in the note."""


def titles(runs: Sequence[StoredRun]) -> dict[tuple[str, str], str]:
    """Return by study and name the title of each of several runs: its name, with its study's where names repeat."""
    times = Counter(run.name for run in runs)
    return {(run.study, run.name): run.name if times[run.name] == 1 else f"{run.study}/{run.name}" for run in runs}


def duration(seconds: float) -> Sentence:
    """Return ``45 s``, ``12 min`` or ``5 h 20 min``."""
    if seconds < 90:
        return _("{seconds:.0f} s", seconds)
    minutes = round(seconds / 60)
    if minutes < 90:
        return _("{minutes} min", minutes)
    return _("{hours} h {minutes:02d} min", minutes // 60, minutes % 60)


def eta_seconds(run: StoredRun) -> float | None:
    """Return the expected remaining seconds of a running run."""
    step = finite(run.progress.get("step"))
    if run.is_script:
        return _eta_of_script(run, step)
    rate = _rate(run)
    if run.state is not State.RUNNING or SUSPENDED in codes(run.reason) or not rate or step is None:
        return None
    assert run.max_steps is not None  # the trainer always says
    return max(0.0, (run.max_steps - step) * run.tokens_per_step / rate)


def _eta_of_script(run: StoredRun, step: float | None) -> float | None:
    """Return the remaining seconds of a script by its pace since it began; None of one that went on from a checkpoint,
    since nobody knows from which step.
    """
    beat, start = map(finite, (run.progress.get("heartbeat_at"), run.progress.get("started_at")))
    is_first = run.state is State.RUNNING and SUSPENDED not in codes(run.reason) and run.progress.get("attempt") == 1
    if not is_first or not step or not run.max_steps or beat is None or start is None or beat <= start:
        return None
    return max(0.0, (run.max_steps - step) * (beat - start) / step)


def _rate(run: StoredRun) -> float | None:
    """Return tokens per second as the newest attempt last reported; None where only an older one has."""
    progress = run.progress
    beat, start = finite(progress.get("heartbeat_at")), finite(progress.get("started_at"))
    is_old = run.state is State.QUEUED or (beat is not None and start is not None and beat < start)
    return None if is_old else finite(progress.get("tokens_per_s"))


def _note(run: StoredRun, now: float) -> str:
    progress, parts = run.progress, []
    now += finite(progress.get("clock_ahead_s")) or 0.0  # by the target's clock, as its times are
    why = codes(run.reason)
    is_named = progress.get("job") and not run.state.is_final and IN_JOB not in why
    job = _("job {job}", progress["job"]) if is_named else ""
    if run.state is State.RUNNING:
        if SUSPENDED in why:  # what hinders it is not to be cut off
            parts.append(run.reason)
        # The heartbeat may be an older attempt's.
        times = progress.get("heartbeat_at"), progress.get("started_at")
        signs = [sign for sign in map(finite, times) if sign is not None]
        if signs and now - max(signs) > STALE_S:
            parts.append(_("no sign of progress for {duration}", duration(now - max(signs))))
        if progress.get("metrics") == {} and progress.get("step") is None:
            parts.append(_("nothing has fitted the study's patterns so far"))
        if devices := progress.get("devices"):
            parts.append(_("on {devices}", _condensed(devices)))
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


def columns(runs: Sequence[StoredRun]) -> Mapping[str, str]:
    """Return the columns for runs, each with what heads it: those of scripts where all are, without the metric where
    none declares one.
    """
    if not all(run.is_script for run in runs):
        return {name: translated(name) for name in HEADERS}
    mains = {_main_metric(run) for run in runs} - {""}
    titles: dict[str, str] = {name: translated(name) for name in OF_SCRIPTS if mains or name is not METRIC}
    return {**titles, METRIC: visible.line(*mains)} if len(mains) == 1 else titles


def _main_metric(run: StoredRun) -> str:
    """Return the name of a script's main metric; empty where it has none."""
    metrics = run.spec["program"].get("metrics") or {}
    return next(iter(metrics.get("goal") or {}), "")


def row(run: StoredRun, now: float, names: Iterable[str] = HEADERS) -> tuple[str, ...]:
    """Return a run's cells of these columns, safe for a terminal; what isn't known is a dash."""
    progress, eta, steps = run.progress, eta_seconds(run), run.max_steps
    step, loss, val = map(finite, (progress.get("step"), progress.get("loss"), progress.get("val_loss")))
    rate = None if run.is_script else _rate(run)
    told = (progress.get("metrics") or {}).get(_main_metric(run)) if run.is_script else None
    value = finite(told)
    cells: dict[str, str] = {
        "run": visible.line(run.name),
        "state": str(run.state),
        "step": "–" if step is None else f"{step:.0f}/{steps}" if steps else f"{step:.0f}",
        "loss": "–" if loss is None else f"{loss:.3f}",
        "val ppl": "–" if val is None else f"{math.exp(min(val, 700)):.2f}",
        "tokens/s": "–" if rate is None else f"{rate:,.0f}",
        METRIC: visible.line(str(told or "–")) if value is None else f"{value:.5g}",
        "ETA": "–" if eta is None else translated(duration(eta)),
        "note": visible.line(_note(run, now)),
    }
    return tuple(cells[name] for name in names)


def render(view: View, *, width: int | None = None, height: int | None = None) -> str:
    """Return the table of runs, one block for each study and target, with a line for each target that couldn't be
    asked.

    Args:
        width: Columns that a table's lines may take.
        height: Lines that all may take; the last of the runs' says how many had no room.
    """
    about = []
    if view.hosts:
        from . import hosts

        about = [hosts.render(name, answer, width) for name, answer in view.hosts.items()]
    for name, reason in view.unreachable.items():
        seen_at = max((run.observed_at or 0.0 for run in view.runs if run.target == name), default=0.0)
        age = _("nothing is known of its runs")
        if seen_at:
            age = _("what it said {duration} ago stands", duration(max(0.0, view.at - seen_at)))
        said = _("target {target} can't be asked ({why}); {age}", name, reason, age)
        about.append(click.style(visible.line(translated(said)), fg="magenta"))
    shown: Sequence[StoredRun] = view.runs
    if height is not None:
        shown = _in_view(view.runs, height - sum(block.count("\n") + 2 for block in about))
    blocks: list[str] = []
    tables: dict[tuple[str, str], list[StoredRun]] = {}
    for run in shown:
        tables.setdefault((run.study, run.target), []).append(run)
    for (study, target), runs in tables.items():
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
    runs = [run.without_misread() for run in runs]
    titles = columns(runs)
    rows = [row(run, now, titles) for run in runs]
    names = list(titles)
    if width is not None:
        names, rows = _fit(titles, rows, width)
    align = "".join("l" if name in LEFT else "r" for name in names)
    lines = table.text(rows, [titles[name] for name in names], align).splitlines()
    if width is not None:
        lines = [fitting.cut(line, width) for line in lines]  # where even the names are too long
    for position, run in enumerate(runs, start=len(lines) - len(runs)):
        if colour := COLOURS[run.state]:
            lines[position] = click.style(lines[position], fg=colour)
    return "\n".join(lines)


def _fit(
    titles: Mapping[str, str], rows: Sequence[tuple[str, ...]], width: int
) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return names and rows of the columns that fit into a width; notes get what the others leave."""
    known = list(titles)
    taken = {
        name: max(fitting.width(cell) for cell in (titles[name], *column))
        for name, *column in zip(known, *rows, strict=True)
    }
    names = [*known]

    def room() -> int:
        return width - sum(taken[name] + len(table.GAP) for name in names[:-1])

    for name in EXPENDABLE:
        if name in names and room() < min(taken["note"], NOTE_COLUMNS):
            names.remove(name)
    # A run's state is what all look for: names give way to it, in their middle, where runs of a group are alike.
    first = max(taken["run"] + min(room(), 0), SHORTEST_NAME)
    taken["run"] = min(taken["run"], first)
    kept = [known.index(name) for name in names[1:-1]]
    return names, [
        (
            fitting.cut_within(row[0], first),
            *(row[position] for position in kept),
            fitting.cut(row[-1], max(room(), 1)),
        )
        for row in rows
    ]


def _counts(runs: Sequence[StoredRun]) -> str:
    counts = Counter((run.group, run.state) for run in runs)
    totals = Counter(run.group for run in runs)
    known = {state for _group, state in counts}
    states = [state for state in State if state in known]
    rows = [
        (group, str(total), *(str(counts.get((group, state), "–")) for state in states))
        for group, total in totals.items()
    ]
    headers = (translated(_("group")), translated(_("runs")), *(str(state) for state in states))
    return table.text(rows, headers, "l" + "r" * (len(states) + 1))


def as_json(view: View) -> dict[str, object]:
    """Return the runs as a versioned JSON object."""
    keys = ("project", "study", "name", "group", "label", "seed", "tag", "target", "run_dir", "fingerprint", "reason")
    runs = []
    for run in view.runs:
        values: dict[str, object] = {key: getattr(run, key) for key in keys}
        values.update(state=run.state, queued_at=run.queued_at, observed_at=run.observed_at, **encoded(run.reason))
        known = run.without_misread()
        values.update(max_steps=known.max_steps, eta_s=eta_seconds(known), progress=dict(run.progress))
        runs.append(values)
    hosts: dict[str, dict[str, object]] = {}
    of_host = ("devices", "queue", "limit", "junk", "lease_error", "disk_free")
    for name, answer in view.hosts.items():
        hosts[name] = {key: value for key, value in answer.items() if key in of_host}
        if "site" in answer:
            hosts[name]["partitions"] = answer["site"]["partitions"]
    content = {"version": 1, "time": view.at, "runs": runs, "unreachable": dict(view.unreachable)}
    return {**content, "hosts": hosts} if hosts else content


@contextmanager
def screen() -> Iterator[Callable[[View], None]]:
    """Show views one after the other: redrawn in place on a terminal, without flicker, else a line per change."""
    if not sys.stdout.isatty():
        seen: dict[tuple[str, str], tuple[State, float]] = {}
        yield lambda view: _print_changes(view, seen)
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console()
    with Live(console=console, auto_refresh=False, transient=False) as live:

        def show(view: View) -> None:
            width, height = console.size
            text = Text.from_ansi(render(view, width=width, height=height))
            excess = len(text.wrap(console, width)) - height  # sentences may take several lines
            if excess > 0:
                text = Text.from_ansi(render(view, width=width, height=height - excess))
            live.update(text, refresh=True)

        yield show


def _print_changes(view: View, seen: dict[tuple[str, str], tuple[State, float]]) -> None:
    """Print a line for each run whose state has changed, and the progress of the others now and then."""
    now = time.monotonic()
    for run in view.runs:
        state, at = seen.get((run.study, run.name), (None, -math.inf))
        if run.state is not state or (run.state is State.RUNNING and now - at >= TELL_S):
            seen[run.study, run.name] = (run.state, now)
            put(line(run, view.at))


def line(run: StoredRun, now: float) -> str:
    """Return a run's state as one line of prose, for logs."""
    run = run.without_misread()
    titles = columns([run])
    name, state, *cells, note = row(run, now, titles)
    named = [f"{title} {cell}" for title, cell in zip([*titles.values()][2:-1], cells, strict=True) if cell != "–"]
    return "  ".join(part for part in (f"{name:<16}", f"{state:<9}", ", ".join(named), note) if part.strip())

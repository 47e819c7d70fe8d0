"""Judge what is to be told of a study's runs as they stand, and word it.

Messages are English, as all is that an agent says; there is no catalogue where they are sent.
"""

from __future__ import annotations

import os
import time
from typing import Any, Callable, Dict, List, Mapping, Optional, Set, Tuple

from .. import records, rundir
from ..run import result
from ..states import State
from . import forms
from .declared import Declared
from .outbox import Outbox

GONE_S = 600.0
"""A run that nothing is seen of so long after it was declared is not waited for: it was not accepted, or removed."""
MOST_NAMED = 10
"""So many runs that failed are named in a digest."""
Row = Mapping[str, Any]
"""Where a run stands, as a poll answers it."""


class Teller:
    """What was seen of a study's runs, and what follows from it."""

    def __init__(self, box: Outbox) -> None:
        self._box = box
        self._over: Dict[Tuple[str, str], Row] = {}
        self._signs: Dict[str, Tuple[object, float]] = {}
        self.looked_s = 0.0
        """How long the last look took."""

    def look(self, declared: Declared, row_of: Callable[[str, str], Optional[Row]]) -> bool:
        """Note what is to be told now; return whether all runs are over.

        Args:
            row_of: Returns where a run of a submission stands, by run directory and token; None where that isn't known.
        """
        began = time.monotonic()
        waiting = [run_dir for run_dir in declared.runs if not self.look_at(declared, run_dir, row_of)]
        its = {(run_dir, token) for run_dir, (token, _since) in declared.runs.items()}
        ended = {key: row for key, row in self._over.items() if key in its}
        if not waiting and ended:
            self._box.put("complete", sorted(ended), lambda: _digest(declared, ended))
        self.looked_s = time.monotonic() - began
        return not waiting

    def look_at(self, declared: Declared, run_dir: str, row_of: Callable[[str, str], Optional[Row]]) -> bool:
        """Note what is to be told of one of the runs now; return whether it is over, or gone."""
        wanted, (token, since) = set(declared.notify["on"]), declared.runs[run_dir]
        row = self._over.get((run_dir, token)) or row_of(run_dir, token)
        if row is None:  # nobody has looked: that it is gone doesn't follow
            return False
        is_its = row.get("token") in (token, None, "") and not row.get("absent")
        if is_its and State(row["state"]).is_final:
            if (run_dir, token) not in self._over:
                self._note_end(declared, wanted, run_dir, token, row)
                self._over[run_dir, token] = row
            return True
        if is_its and row["state"] == State.RUNNING and "stalled" in wanted:
            self._note_stall(declared, run_dir, token, row)
        return not is_its and time.time() - since >= GONE_S

    def _note_end(self, declared: Declared, wanted: Set[str], run_dir: str, token: str, row: Row) -> None:
        event = "fail" if row["state"] == State.FAILED else "end"
        if event in wanted or "end" in wanted:
            self._box.put(event, [run_dir, token], lambda: _ended(declared, event, run_dir, row))

    def _note_stall(self, declared: Declared, run_dir: str, token: str, row: Row) -> None:
        """Note that a run makes no progress, once for each place where it stands still."""
        sign, now = sign_of_progress(run_dir, row), time.monotonic()
        before, since = self._signs.get(run_dir, (None, now))
        if sign != before:
            self._signs[run_dir] = sign, now
            return
        still_s = now - since
        if still_s >= declared.notify["stalled_after_s"]:
            self._box.put("stalled", [run_dir, token, sign], lambda: _stalled(declared, run_dir, row, still_s))


def sign_of_progress(run_dir: str, row: Row) -> "List[object]":
    """Return what changes whenever a run makes progress: its attempt, its step, its metrics, its output."""
    beat = records.HEARTBEAT.read_if_sound(run_dir) or {}
    try:
        size = os.stat("%s/%s" % (run_dir, rundir.LOG)).st_size
    except OSError:
        size = 0
    return [row.get("attempt"), beat.get("step"), repr(beat.get("metrics")), size]


def by_records(run_dir: str, token: str) -> Optional[Row]:
    """Return the row of a run that its own records say is over; None of any other."""
    end = records.END.read_if_sound(run_dir)
    if not end or end.get("token") != token or end["state"] not in list(State) or not State(end["state"]).is_final:
        return None
    start = records.START.read_if_sound(run_dir) or {}
    numbers = [attempt.get("number") for attempt in end.get("attempts", [])]
    if start.get("token") == token and start.get("number") not in numbers:
        return None  # an attempt began after it
    return {"token": token, "state": end["state"], "reason": end.get("reason"), "ended_at": end.get("ended_at")}


def a_test(target: str) -> forms.Message:
    """Return what oelm-doctor sends on request."""
    host = os.uname().nodename
    facts = {"target": target, "host": host, "time": round(time.time(), 3)}
    return forms.Message(
        "test", "oelm-jobs: a test from %s" % host, "oelm-doctor sent it for target %s" % target, facts
    )


# Words ----------------------------------------------------------------------------------------------------------------


def _ended(declared: Declared, event: str, run_dir: str, row: Row) -> forms.Message:
    facts = _facts(declared, run_dir, row)
    reason = str(row.get("reason") or "")
    title = "oelm-jobs: %s %s%s" % (facts["run"], row["state"], ": " + reason if reason else "")
    return forms.Message(event, _line(title), "\n".join(_lines(facts)), facts)


def _stalled(declared: Declared, run_dir: str, row: Row, still_s: float) -> forms.Message:
    facts = dict(_facts(declared, run_dir, row), stalled_s=round(still_s))
    title = "oelm-jobs: %s makes no progress for %s" % (facts["run"], _duration(still_s))
    last = rundir.last_lines(run_dir + "/" + rundir.LOG, 1)
    lines = _lines(facts) + (["last line: " + last[0][:300]] if last else [])
    return forms.Message("stalled", _line(title), "\n".join(lines), facts)


def _digest(declared: Declared, ended: Mapping[Tuple[str, str], Row]) -> forms.Message:
    states = [State(row["state"]) for row in ended.values()]
    counts = {str(state): states.count(state) for state in State if state in states}
    failed, hours = [], 0.0
    for (run_dir, _token), row in sorted(ended.items()):
        end = records.END.read_if_sound(run_dir) or {}
        hours += result.gpu_hours(end.get("attempts", []))
        if row["state"] == State.FAILED:
            failed.append({"run": rundir.run_name(run_dir), "reason": str(row.get("reason") or "")})
    facts = {**_place(declared), "runs": counts, "failed": failed, "gpu_hours": round(hours, 2)}
    words = ", ".join("%d %s" % (count, state) for state, count in counts.items())
    lines = ["on %s (%s), %.1f GPU-hours" % (declared.target, os.uname().nodename, hours)]
    lines += ["%s: %s" % (each["run"], each["reason"][:200]) for each in failed[:MOST_NAMED]]
    lines += ["and %d more that failed" % (len(failed) - MOST_NAMED)] if len(failed) > MOST_NAMED else []
    title = "oelm-jobs: study %s is complete: %s" % (declared.study, words)
    return forms.Message("complete", _line(title), "\n".join(lines), facts)


def _place(declared: Declared) -> Dict[str, Any]:
    host = os.uname().nodename
    return {"study": declared.study, "target": declared.target, "host": host, "time": round(time.time(), 3)}


def _facts(declared: Declared, run_dir: str, row: Row) -> Dict[str, Any]:
    record = records.RUN.read_if_sound(run_dir)
    beat = records.HEARTBEAT.read_if_sound(run_dir) or {}
    found: Dict[str, Any] = {**_place(declared), "run": rundir.run_name(run_dir), "run_dir": run_dir}
    found["token"] = declared.runs[run_dir][0]
    if record is not None:
        found.update(group=record.group, seed=record.seed)
    found.update(state=str(row["state"]), reason=str(row.get("reason") or ""))
    for name in ("step", "max_steps"):
        value = rundir.finite(beat.get(name))
        if value is not None:
            found[name] = int(value)
    return found


def _lines(facts: Mapping[str, Any]) -> List[str]:
    lines = ["study %s on %s (%s)" % (facts["study"], facts["target"], facts["host"])]
    if "step" in facts and "max_steps" in facts:
        lines.append("step %s of %s" % (format(facts["step"], ","), format(facts["max_steps"], ",")))
    elif "step" in facts:
        lines.append("step %s" % format(facts["step"], ","))
    return [*lines, facts["run_dir"]]


def _line(text: str) -> str:
    """Return text as one line that can be a header's."""
    return forms.cut("".join(c if c.isprintable() else " " for c in text), 300)


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return "%d %s" % (seconds // length, unit)
    return "%d s" % seconds

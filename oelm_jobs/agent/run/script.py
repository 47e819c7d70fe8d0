"""Run a program of the user's own: its stages in its working folder, and how an attempt of it ended."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Collection, Dict, List, Mapping, Optional, Sequence, Tuple, Union, cast

from .. import processes, records, rundir
from ..processes import Identity
from ..reasons import because, detailed
from ..sentences import joined
from ..states import State
from . import failure, judge, line_patterns, metrics, remarks, result, saved, variables, work
from . import rows as rows_of
from . import words as program_words
from .place import CRASH, PORT, Place, Verdict
from .program import Command, Ended, Program

if TYPE_CHECKING:
    from ..record_types import Attempt, JobStart, OutcomeRecord, StageRecord
    from ..run_record import RunRecord

STAGES = "stages.json"
"""Control file that says which stages have begun and which are finished, for one fingerprint."""
SETTINGS = "settings"
"""Name of the control file that {settings_file} stands for, before its suffix."""
AT_ONCE_S = 10.0
"""A program that ends within so long may have done nothing, or have gone on in the background."""
TAIL_BYTES = 1 << 19
"""So much of the end of its output tells how far apart the steps are that it tells."""
OUT_OF_MEMORY_WORDS = (
    "OutOfMemoryError",
    "CUDA out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""What is said where a GPU's memory does not do."""
FORBIDDEN_WORDS = ("Permission denied", "Read-only file system")
"""What is said where a program may not write."""
TERMINAL_WORDS = ("EOF when reading a line", "Inappropriate ioctl for device", "not a tty", "/dev/tty")
"""What is said where a program asks somebody who isn't there."""


class Script(Program):
    """A program of the user's own."""

    is_script = True

    def __init__(self, record: RunRecord, code: str, say: Callable[[str], None]) -> None:
        """Make ready to run a recorded program.

        Args:
            code: Folder of the code.
            say: Narrates.
        """
        assert record.program is not None
        self._record, self._program, self._code, self._say = record, record.program, code, say
        self._run_dir = Path(record.run_dir)
        self.taken: Mapping[str, str] = {}
        self._place: Optional[Place] = None
        self._ground = program_words.Ground(0)
        self._folder = ""
        self._variables: Dict[str, str] = {}
        self._resumed_from = ""
        self._not_kept = ""  # why there is no copy of that
        self._gone_on_from: Dict[str, int] = {}
        self._checkpoints: Dict[str, int] = {}
        self._outside: Dict[str, Tuple[int, int]] = {}
        self._traces: Optional[judge.Traces] = None
        self._began_step: Optional[float] = None
        self._reader: Optional[metrics.Reader] = None

    # Stages -----------------------------------------------------------------------------------------------------------

    def _known(self) -> Dict[str, Any]:
        """Return by name what is on record of the stages of this very run; of a shorter one nothing counts."""
        content = rundir.read_json(rundir.control(self._run_dir, STAGES)) or {}
        is_its = content.get("fingerprint") in ("", self._record.fingerprint)  # empty: before the data could be hashed
        known = content.get("stages") if is_its else None
        return known if isinstance(known, dict) else {}

    def _note(self, stage: StageRecord, **facts: object) -> None:
        """Record something about a stage, durably."""
        known = self._known()
        known[stage["name"]] = {**known.get(stage["name"], {}), **facts}
        content = {"version": 1, "fingerprint": self._record.fingerprint, "stages": known}
        rundir.write_json(rundir.control(self._run_dir, STAGES), content)

    def _stage(self) -> Optional[StageRecord]:
        """Return the first stage that is not finished; None where all are."""
        known = self._known()
        left = (stage for stage in self._program["stages"] if not known.get(stage["name"], {}).get("finished"))
        return next(left, None)

    def _to_resume(self, stage: Optional[StageRecord]) -> str:
        """Return the name of the checkpoint from which a stage goes on; empty where it begins. What was there before
        the stage first began is another one's.
        """
        if stage is None:
            return ""
        known = self._known().get(stage["name"])
        if known is None and not self._record.extended_from:
            return ""
        name = self._newest()
        before = (known or {}).get("before", {})
        return "" if name in before and before[name] == self._seen().get(name) else name

    def _seen(self) -> Dict[str, int]:
        """Return when each checkpoint was changed last, by its name."""
        return saved.times(self._run_dir, self._program.get("checkpoint") or "")

    # One attempt ------------------------------------------------------------------------------------------------------

    def prepare(self, place: Place, number: int, avoided: Collection[int]) -> Optional[int]:
        """Have the working folder and a port, and see what there is to go on from."""
        self._place = place
        self._ground = place.ground(number, avoided)
        self._folder = work.prepare(self._record, self._code, self._say)
        self._outside = work.outside(self._record, self._code)
        if self._program.get("settings_text") is not None:
            rundir.write_text(self._settings_file(), self._program["settings_text"] or "")
        pattern = self._program.get("checkpoint") or ""
        put_back = saved.put_back(self._run_dir, pattern)
        if put_back:
            self._say("%s is again what it was when the run last went on from it" % put_back)
        self._resumed_from = self._to_resume(self._stage())
        self._not_kept = ""
        if self._resumed_from:
            self._say("going on from %s" % self._resumed_from)
            try:
                saved.keep(self._run_dir, pattern, self._resumed_from)
            except OSError as error:
                why = error.strerror or str(error)
                self._not_kept = because("not_kept", file=self._resumed_from, why=why)
                self._say(self._not_kept)
        self._began_step, self._checkpoints = self._step(), self._seen()
        environment = {**processes.plain_environment(), **place.environment()}
        self._variables = variables.of_program(self._record, environment)
        return self._ground.port

    def _settings_file(self) -> Path:
        name = "%s.%s" % (SETTINGS, self._program.get("settings_file") or "txt")
        return rundir.control(self._run_dir, name)

    def start_record(self) -> JobStart:
        """Name the checkpoint that it goes on from; whether that changes its result nobody knows."""
        found = {"resumed_from": self._resumed_from, "inexact_resume": True} if self._resumed_from else {}
        return cast("JobStart", found)

    def next(self, traces: judge.Traces) -> Optional[Command]:
        """Return the command of the first stage that is not finished, its words filled in as things stand now."""
        if self._traces is not traces:
            self._traces, self._reader = traces, self._read_from(traces.log_start)
        stage = self._stage()
        if stage is None:
            return None
        resumed_from = self._to_resume(stage)
        if stage["name"] not in self._known():
            self._note(stage, before={} if self._record.extended_from else self._seen())
        self._gone_on_from = {resumed_from: self._seen()[resumed_from]} if resumed_from else {}
        newest = self._newest()
        path = str(self._run_dir / newest) if newest else ""
        ground = self._ground
        values: Dict[str, Union[str, Sequence[str]]] = {
            "run_dir": str(self._run_dir), "gpus": str(ground.gpus), "port": str(ground.port), "host": ground.host,
            "nodes": str(ground.nodes), "settings_file": str(self._settings_file()), "checkpoint": path, **self.taken,
        }  # fmt: skip
        resume = self._program.get("resume") or ()
        values["resume"] = program_words.fill(resume, values) if resumed_from else ()
        argv = program_words.command(stage["words"], values, ground)
        assert self._place is not None
        if program_words.launcher(argv) or program_words.holds(stage["words"], program_words.NODE_RANK):
            argv = self._place.spread(argv)
        return Command(argv, self._environment(stage), self._folder, stage["name"])

    def _environment(self, stage: StageRecord) -> Dict[str, str]:
        record = self._record
        return {
            **self._variables,
            "PWD": self._folder, "MASTER_ADDR": self._ground.host, "MASTER_PORT": str(self._ground.port),
            "OELM_RUN": record.run, "OELM_STUDY": record.study, "OELM_GROUP": record.group,
            "OELM_SEED": str(record.seed), "OELM_STAGE": stage["name"],
        }  # fmt: skip

    # Progress ---------------------------------------------------------------------------------------------------------

    def _read_from(self, log_start: int) -> metrics.Reader:
        """Return what reads the metrics of an attempt."""
        told, most = self._program.get("metrics") or {}, self._program.get("max_steps")
        planned = int(most) if most else None
        try:
            since = self._told_since(log_start)
            return metrics.Reader(told, self._run_dir, log_offset=since, max_steps=planned, say=self._say)
        except line_patterns.BadPattern as error:
            self._say(str(error))
            return metrics.Reader({}, self._run_dir, max_steps=planned)

    def look(self) -> None:
        """Read what the program has said of its progress, and pass it on as a heartbeat."""
        self._look()

    def _look(self, *, at_end: bool = False) -> None:
        if self._reader is not None and self._traces is not None:
            self._reader.beat(self._traces.mark, at_end=at_end)

    def _step(self) -> Optional[float]:
        """Return the step that the run has come to, over all attempts; None where nothing tells."""
        beat = records.HEARTBEAT.read_if_sound(self._run_dir) or {}
        return rundir.finite(beat.get("step"))

    def outcome(self) -> OutcomeRecord:
        """Return what a trainer's record would say: how far it came, and whether it left a checkpoint."""
        made = self._seen()
        is_new = any(self._checkpoints.get(name) != changed for name, changed in made.items())
        found: Dict[str, object] = {"status": "resumable" if is_new and self._newest() else ""}
        step = self._step()
        if step is not None:
            found.update(step=step, resumed_from=self._began_step or 0)
        return cast("OutcomeRecord", found)

    def _newest(self) -> str:
        """Return the name of the newest whole checkpoint, of those the first from which the program has not failed to
        go on, if there is one; empty where there is none.
        """
        doubtful: Dict[str, int] = {}
        for known in self._known().values():
            doubtful.update(known.get("failed_from", {}))
        return saved.newest(self._run_dir, self._program.get("checkpoint") or "", doubtful=doubtful)

    def _note_doubt(self, stage: StageRecord) -> None:
        """Record that the program, which is told where to go on from, failed from there and made no other checkpoint.
        Whether a folder is whole nobody can tell for sure; an earlier one costs an interval at most.
        """
        is_told = program_words.holds([*(self._program.get("resume") or ()), *stage["words"]], "checkpoint")
        made = self._seen()
        if is_told and self._gone_on_from and made == self._checkpoints:
            known = self._known().get(stage["name"], {}).get("failed_from", {})
            still = {name: changed for name, changed in known.items() if made.get(name) == changed}
            self._note(stage, failed_from={**still, **self._gone_on_from})

    def can_go_on(self) -> bool:
        """Look for a checkpoint of its own."""
        return bool(self._newest())

    # The end ----------------------------------------------------------------------------------------------------------

    def ended(self, how: Ended, left: Sequence[Identity], place: Place, before: List[Attempt]) -> Optional[Verdict]:
        """Judge by exit code and, where declared, files and length; after a stop it was stopped."""
        self._look(at_end=True)
        stage = self._stage()
        assert stage is not None
        outcome, is_last = self.outcome(), stage is self._program["stages"][-1]
        if how.stop_signal is not None:
            stopped = place.judge_stop(how.stop_signal, before, outcome)
            if how.was_killed:
                stopped = replace(stopped, reason=because("had_to_be_killed", why=stopped.reason))
            return self._remarked(stopped)
        verdict = place.judge_end(before, outcome)
        if verdict is not None:
            return verdict
        wrong = self._failed(how) if how.code else self._lacking(how, left, is_last=is_last)
        if wrong is None:
            saved.drop_kept(self._run_dir)  # a later stage doesn't go on from it
            self._note(stage, finished=True)
            return self._remarked(Verdict(State.DONE, "")) if is_last else None
        if wrong.retry and wrong.cause == CRASH:
            self._note_doubt(stage)
        if stage["name"]:
            wrong = replace(wrong, reason=because("in_stage", stage=stage["name"], why=wrong.reason))
        return self._remarked(wrong)

    def _remarked(self, verdict: Verdict) -> Verdict:
        """Add to a verdict what is to be said besides: that the newest checkpoint is no whole one, that what the study
        names is nowhere, that something changed which is not the run's.
        """
        reason, pattern = verdict.reason, self._program.get("checkpoint") or ""
        half: List[str] = []
        newest = saved.newest(self._run_dir, pattern, half.append)
        if half and verdict.state != State.DONE:
            is_kept = not newest and saved.kept(self._run_dir, pattern)
            reason = because("half_written_again" if is_kept else "half_written", why=reason, files=half)
        if newest:
            saved.drop_kept(self._run_dir)
        lacking: List[str] = []
        if verdict.cause not in (CRASH, PORT):
            wanted = [self._program.get("checkpoint"), self._program.get("best")]
            lacking = [each for each in wanted if each and not saved.files(self._run_dir, each)]
            files = (self._program.get("metrics") or {}).get("files") or ()
            lacking += [each for each in files if not work.named(self._run_dir, each)]
        lacks = because("left_none", files=lacking) if lacking else ""
        changed = remarks.of_changes(self._outside, work.outside(self._record, self._code))
        not_kept = self._not_kept if verdict.state != State.DONE else ""
        return replace(verdict, reason=joined((reason, not_kept, lacks, changed)))

    def _failed(self, how: Ended) -> Verdict:
        """Say why a program that gave up did so."""
        assert self._traces is not None
        code = how.code
        if code > 128 and code - 128 in set(signal.Signals):  # as a shell says it
            code = 128 - code
        ended = failure.how_it_ended(code)
        if rundir.disk_free(str(self._run_dir)) < result.RESERVE_BYTES:
            ended = joined((because("disk_full", how=ended), remarks.of_output(self._run_dir)))
        lines = self._traces.last_lines()
        if failure.is_port_taken(lines) and not self._traces.came_to_training():
            if self._is_port_asked_for():
                return Verdict(State.FAILED, because("port_taken", port=self._ground.port), retry=True, cause=PORT)
            return Verdict(State.FAILED, because("own_port_taken"), retry=True, cause=CRASH)
        said = failure.first_failure(lines) or failure.telling(lines)[:200]
        if any(word in said for word in OUT_OF_MEMORY_WORDS):
            ended = because("oom")
        if any(word in said for word in FORBIDDEN_WORDS):
            ended = self._not_its_own(ended, said)
        if any(word in said for word in TERMINAL_WORDS):
            return Verdict(State.FAILED, detailed(because("wants_terminal"), said), cause=CRASH)
        return Verdict(State.FAILED, detailed(ended, said), retry=True, cause=CRASH)

    def _not_its_own(self, why: str, said: str) -> str:
        """Add which file it was not allowed to write, where that is one of the code or the data."""
        shared = [target for _place, target in self._program.get("data") or ()]
        shared += [self._code] if os.path.basename(self._code) == self._record.snapshot else []
        for word in re.findall(r"[^\s'\":,]+", said):
            path = os.path.realpath(os.path.join(self._folder, word))
            if any((path + "/").startswith(os.path.realpath(top) + "/") for top in shared):
                return because("not_its_own", why=why, path=word)
        return why

    def _is_port_asked_for(self) -> bool:
        stage = self._stage()
        words = stage["words"] if stage else []
        plain = program_words.of_interpreter(program_words.fill(words[:3], {}))
        return bool(program_words.launcher(plain)) or program_words.holds(words, "port")

    def _lacking(self, how: Ended, left: Sequence[Identity], *, is_last: bool) -> Optional[Verdict]:
        """Say what a program that ended with exit code 0 lacks of being done; None where it lacks nothing."""
        wrong: Optional[str] = None
        if is_last:
            patterns = self._program.get("files") or ()
            missing = [pattern for pattern in patterns if not saved.files(self._run_dir, pattern)]
            if missing:
                wrong = because("files_missing", files=missing)
            elif self._program.get("length") and self._program.get("max_steps"):
                wrong = self._too_short()
            elif not patterns and how.seconds < AT_ONCE_S and not left and self._left_nothing():
                wrong = because("ended_at_once", seconds=how.seconds)
        is_undeclared = not (self._program.get("files") or self._program.get("length")) or not is_last
        if left and (wrong or (is_undeclared and how.seconds < AT_ONCE_S)):
            wrong = because("in_background")
        return Verdict(State.FAILED, wrong, cause=CRASH) if wrong else None

    def _left_nothing(self) -> bool:
        """Tell whether this attempt left no word and the run no file."""
        assert self._traces is not None
        names = {name for name, _path in result.result_files(self._run_dir)}
        return not self._traces.last_lines() and not names - {rundir.LOG, rundir.HEARTBEAT, rundir.RESULT}

    def _too_short(self) -> Optional[str]:
        """Say how far it came where that is not its whole length, to within an interval of its lines."""
        assert self._reader is not None and self._traces is not None
        told, most = self._told_steps(), self._reader.max_steps or self._program.get("max_steps") or 0
        is_its = (records.HEARTBEAT.read_if_sound(self._run_dir) or {}).get("attempt") == self._traces.mark
        come_to = [self._step() if is_its or self._resumed_from else None, *(steps[-1] for steps in told if steps)]
        known = [step for step in come_to if step is not None]
        metrics_told = self._program.get("metrics") or {}
        if not known:
            can_tell = metrics_told.get("lines") or metrics_told.get("files")
            return because("no_step") if can_tell else None
        step = max(known)
        # Gone on from its end, it has nothing left to tell; what it told in files before is read by no one here.
        has_ended_before = bool(self._resumed_from) and self._reader.step is None and not metrics_told.get("lines")
        if step + _interval(told, step - (self._began_step or 0)) >= most or has_ended_before:
            return None
        return because("too_short", step="%.12g" % step, length="%.12g" % most)

    def _told_steps(self) -> List[List[float]]:
        """Return the steps that the ends of metrics.jsonl and of the log tell, the latter by each pattern."""
        assert self._traces is not None
        told, log = self._program.get("metrics") or {}, self._run_dir / rundir.LOG
        began_at = 0.0 if self._resumed_from else rundir.finite(self._traces.start.get("started_at")) or 0.0
        rows = map(rows_of.json_object, rundir.tail(self._run_dir / rundir.METRICS, TAIL_BYTES).splitlines())
        steps: List[List[Any]] = [
            [row.get("step") for row in rows if row and (rundir.finite(row.get("time")) or began_at) >= began_at]
        ]
        added = max(0, os.path.getsize(log) - self._told_since(self._traces.log_start))
        lines = line_patterns.clean(rundir.tail(log, min(added, TAIL_BYTES))).split(b"\n")
        # What is no pattern, or takes too long, tells no step.
        with contextlib.suppress(metrics.TooSlow, line_patterns.BadPattern), metrics.bounded(metrics.PATTERN_CPU_S):
            for text in told.get("lines") or ():
                pattern = line_patterns.compile_line(text)
                found = (pattern.read(line.decode("utf-8", "replace")) for line in lines)
                steps.append([values.get("step") for values in found if values])
        return [[float(step) for step in each if rundir.finite(step) is not None] for each in steps]

    def _told_since(self, log_start: int) -> int:
        """Return from which byte of the log on it tells of this attempt: one that goes on adds to what was told before,
        also by what was left of an attempt whose supervisor was lost.
        """
        return max(0, log_start - TAIL_BYTES) if self._resumed_from else log_start


def _interval(told: List[List[float]], otherwise: float) -> float:
    """Return how many steps lie between those that are told, of the source that tells most; ``otherwise`` where none
    tells two.
    """
    gaps = (max((step - steps[place] for place, step in enumerate(steps[1:])), default=0.0) for steps in told)
    return min((gap for gap in gaps if gap > 0), default=otherwise)

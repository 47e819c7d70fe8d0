"""What is known of a run on a cluster, as the rules for its state need it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Callable, Dict, List, Mapping, NamedTuple, Optional

from .. import privacy, reasons, records, rundir
from ..run import failure, waiting
from ..run.progress import last_said
from ..states import FINAL
from .commands import Job
from .tasks import Task, output_of, was_started

if TYPE_CHECKING:
    from ..record_types import Attempt, EndRecord, StartRecord

Row = Dict[str, object]
"""Where a run stands, as probe answers it: ``state``, ``reason`` and what else is known."""


class Written(NamedTuple):
    """What a run has written; empty where it wrote nothing."""

    start: StartRecord
    """Start record of its newest attempt."""
    end: EndRecord
    """End record of its attempts so far."""
    is_cancelled: bool
    """True where somebody asked for its end."""

    @property
    def has_ended(self) -> bool:
        """True where the newest attempt has its end on record."""
        number = self.start.get("number")
        return bool(self.end) and number in [attempt.get("number") for attempt in self.end.get("attempts", [])]

    @property
    def is_final(self) -> bool:
        """True where that end is one after which Slurm starts nothing again."""
        return self.has_ended and self.end.get("state") in FINAL


NOTHING_WRITTEN = Written({}, {}, False)


def read_written(run_dir: str) -> Written:
    """Read what a run has written, as far as it bears on its state.

    Raises:
        schema.Misfit: A record makes no sense.
    """
    try:  # of ten thousand runs that were not at work yet, one look each is enough
        names = os.listdir(run_dir + "/" + rundir.CONTROL)
    except OSError:
        return NOTHING_WRITTEN
    if privacy.another(run_dir):  # in a root that a group shares
        return NOTHING_WRITTEN
    start = records.START.read(run_dir) if rundir.START in names else None
    end = records.END.read(run_dir) if rundir.END in names else None
    return Written(start or {}, end or {}, rundir.CANCEL in names)


class Files:
    """Logs of a run and of its job, which are opened only where a rule needs them."""

    def __init__(self, root: str, run_dir: str, task: Optional[Task]) -> None:
        self._root, self._run_dir, self._task = root, run_dir, task

    def waits_for(self, token: str, since: float) -> str:
        """Return what the supervisor has waited for since then; empty where it doesn't."""
        return waiting.read(self._run_dir, token, since)

    def said(self, since: float = 0.0) -> str:
        """Return the newest line of the supervisor's log; empty where it was last written before ``since``."""
        try:
            written_at = os.stat(self._control(rundir.SUPERVISOR_LOG)).st_mtime
        except OSError:
            written_at = 0.0
        return last_said(self._control("")) if written_at >= since else ""

    def has_log(self) -> bool:
        """Tell whether the supervisor's log exists: making it is the first thing that a launch script does."""
        return os.path.exists(self._control(rundir.SUPERVISOR_LOG))

    def _control(self, name: str) -> str:
        return "%s/%s/%s" % (self._run_dir, rundir.CONTROL, name)

    def has_output(self) -> bool:
        """Tell whether the job's own output exists."""
        return self._task is not None and output_of(self._root, self._task).exists()

    def was_started(self) -> bool:
        """Tell whether the job left a trace of having started."""
        return self._task is not None and was_started(self._root, self._task)

    def slurms_note(self) -> str:
        """Return slurmstepd's last note in the job's output; empty where there is none."""
        return failure.slurmstepds_note(str(output_of(self._root, self._task))) if self._task is not None else ""


class Facts(NamedTuple):
    """What is known of a run: from squeue and its records, then from sbatch's answer, then from accounting."""

    run_dir: str
    token: str
    """Token of the submission that is asked about."""
    task: Optional[Task]
    """The run's task; None where no submission is known."""
    job: Optional[Job]
    """Its job in squeue."""
    written: Written
    files: Files
    read_at: float
    """When squeue was read, Unix seconds."""
    may_clear: bool = True
    """Whether a limit per user or group may clear, because jobs of theirs will end."""
    owner: Callable[[], Optional[Job]] = lambda: None
    """Returns the job in squeue that has the run's claim; called only where a rule needs it."""

    answer: Mapping[str, object] = {}
    """sbatch's answer."""
    is_end_known: bool = False
    """Whether the client knows the run's end, so that nobody is asked for it."""

    account: Optional[Job] = None
    """Its newest incarnation in accounting."""
    trouble: str = ""
    """Why accounting gave no answer."""
    has_accounts: bool = True
    """Whether the cluster keeps accounts."""
    is_array_listed: bool = False
    """Whether squeue or accounting lists other tasks of its array."""
    is_new: bool = False
    """Whether accounting may not have heard of it yet."""

    ended_as: str = ""
    """Slurm's state of the job once it has ended; empty where nobody kept it."""
    exit_code: str = ""
    """Its exit code as sacct shows it."""

    @property
    def is_in_queue(self) -> bool:
        """True where squeue lists its job as one that waits or runs."""
        return self.job is not None and not self.job.is_over

    @property
    def has_started(self) -> bool:
        """True where the newest attempt is one of this submission."""
        return self.written.start.get("token") == self.token

    @property
    def is_own_end(self) -> bool:
        """True where the end record is this submission's, and no attempt began after it."""
        return self.written.end.get("token") == self.token and (self.written.has_ended or not self.has_started)

    @property
    def end_state(self) -> Optional[str]:
        """State in the end record."""
        return self.written.end.get("state")

    @property
    def job_id(self) -> Optional[str]:
        """Id of its job, by squeue or by sbatch's answer."""
        if self.job is not None:
            return self.job.id
        if "id" not in self.answer or self.task is None:
            return None
        number = str(self.answer["id"])
        return number if self.task.task is None else "%s_%d" % (number, self.task.task)

    def row(self, state: str, reason: str = "", **more: object) -> Row:
        """Return a row that names submission and job."""
        row: Row = {"token": self.token} if self.job is None else {"job": self.job.id, "token": self.token}
        if self.job_id is not None:
            row["job"] = self.job_id
        return dict(row, **more, state=state, **reasons.told(reason))

    def end_row(self) -> Row:
        """Return the row that the end record gives."""
        return row_of_end(self.written.end)


def row_of_end(end: EndRecord) -> Row:
    """Return the row that an end record gives."""
    attempts: List[Attempt] = end.get("attempts") or [{}]
    return {
        "ended_at": end.get("ended_at"),
        "token": end.get("token"),
        "attempt": attempts[-1].get("number"),
        "job": attempts[-1].get("job"),
        "devices": attempts[-1].get("devices"),
        "started_at": attempts[-1].get("started_at"),
        "state": str(end.get("state")),
        **reasons.told(reasons.read(end)),
    }


def shown_of_start(start: StartRecord) -> Row:
    """Return what a row shows of a start record."""
    return {"devices": start.get("devices"), "started_at": start.get("started_at"), "attempt": start.get("number")}

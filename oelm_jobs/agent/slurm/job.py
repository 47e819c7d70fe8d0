"""A run's place in a Slurm job: its claim, the granted devices, what a signal means, the requeue.

The batch process is the supervisor (the script execs it), so ``--signal=B:USR1@N`` reaches it alone. On a cancel, a
preemption or the time limit Slurm sends SIGTERM to every process of the job, SIGKILL after KillWait (slurm.conf(5)).
Which of them it was, scontrol tells: a requeued job counts one restart more, a time-out has Reason=TimeLimit.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Collection, Dict, List, Optional, Tuple

from .. import processes, rundir
from ..host import host, launch, lease, needs, permitted
from ..reasons import because
from ..run import failure, place, waiting
from ..run.words import Ground
from ..run_record import RunRecord
from ..sentences import _
from ..states import State
from . import claim as slurm_claim
from . import commands, step
from . import words as slurm_words
from .submit import FATE
from .variables import JOB_NAME_VARIABLE

if TYPE_CHECKING:
    from ..record_types import Attempt, JobStart, OutcomeRecord, StartRecord

TERM_GRACE_S = 20.0
"""Least time for a checkpoint after SIGTERM: Slurm kills after KillWait, 30 s by default."""
END_SLACK_S = 120.0
"""A warning may come a minute early (sbatch(1), --signal); nearer to the end than this it is one of the time limit."""
RESTARTED_BY = (("PREEMPTION", place.PREEMPTION), ("NODE FAIL", place.NODE_FAILURE))
"""Why Slurm starts a job again, by what slurmstepd noted in its output."""
STOPPED_BY = {
    place.TIMEOUT: "time_limit",
    place.PREEMPTION: "preemption",
    place.NODE_FAILURE: "node_failure",
    place.REQUEUE: "requeue",
}
"""The codes of why Slurm stopped a job that it starts again."""
REQUEUE_TRIES, REQUEUE_PAUSE_S = 5, 2.0
"""How often a requeue that Slurm refuses is tried, and the pause between tries."""
RECORDS_BEHIND_S = 60.0
"""So long a node may not see what another one has written (nfs(5), acregmax)."""
REQUEUE_PATIENCE_S = 900.0
"""So long it is tried where the controller does not answer: nobody enforces a time limit meanwhile."""


class SlurmJob:
    """The Slurm job that this process is the batch script of."""

    signals: Tuple[int, ...] = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
    look_s = slurm_claim.FENCE_S

    def __init__(self, record: RunRecord, say: Callable[[str], None]) -> None:
        self._record = record
        self._say = say
        self._run_dir = record.run_dir
        number = os.environ["SLURM_JOB_ID"]
        self.restart = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
        array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
        # One task of an array has the array's own number as its SLURM_JOB_ID: only this form names it alone.
        self.job = "%s_%s" % (array, task) if array else number
        """The job as squeue shows it, and scontrol and scancel take it."""
        self._number = int(number)
        self._node = os.environ.get("SLURMD_NODENAME") or os.uname().nodename
        self._hosts = [self._node]
        self._claim: Optional[slurm_claim.Claim] = None
        self._devices: List[str] = []
        self._gpus_per_node = 0
        program = record.program
        self._cores = max(1, program.get("cpus") or 1) if program and not record.world_size else 0  # without GPUs
        self._requeued = False  # True where Slurm itself starts the job again
        self._goes_on = False
        self._has_asked_all = False

    # The claim --------------------------------------------------------------------------------------------------------

    def claim(self) -> None:
        """Take the claim, unless the submission was given up or its owner lives."""
        fate, mine = self._record.fate or "", {"fate": "started", "job": self.job, "time": time.time()}
        is_first = not fate or rundir.create(Path(fate), mine)
        if not is_first and (rundir.read_json(fate) or {}).get("fate") != "started":
            raise place.Refused("this submission was given up before Slurm answered for it; submit again")
        owner = slurm_claim.Owner(
            job=self.job,
            restart=self.restart,
            name=os.environ.get(JOB_NAME_VARIABLE) or os.environ.get("SLURM_JOB_NAME", ""),
            token=self._record.token,
            identity=processes.identify(os.getpid()),
            time=time.time(),
            cluster=os.environ.get("SLURM_CLUSTER_NAME", ""),
        )
        try:
            self._claim = slurm_claim.take(self._run_dir, owner, self._say)
        except slurm_claim.Unanswered as error:
            raise place.Refused(str(error)) from error

    def is_mine(self) -> bool:
        """Ask the file system whether the claim is still the newest: a node that was cut off learns so that another
        one goes on with its run.
        """
        return self._claim is None or self._claim.is_held()

    def is_cancelled(self) -> bool:
        """True where this very job was cancelled; what is left of an older cancel is cleared away."""
        path = rundir.control(self._run_dir, rundir.CANCEL)
        cancelled = rundir.read_json(path)
        if cancelled is None:
            return False
        if self.job in cancelled.get("jobs", ()):
            return True
        with contextlib.suppress(OSError):
            path.unlink()
        return False

    def lost_reason(self, start: StartRecord) -> str:
        """Say what Slurm did to an incarnation that left no end."""
        if start.get("job") == self.job:
            return because("ended_by_slurm")
        return because("supervisor_lost")

    # Devices ----------------------------------------------------------------------------------------------------------

    def submitted_at(self) -> float:
        """What the submission's own file says, however often Slurm has started the job since."""
        fate = self._record.fate or ""
        root = os.path.dirname(os.path.dirname(os.path.dirname(fate)))
        made = rundir.read_json(launch.submission_file(root, self._record.token)) if fate else None
        return rundir.finite((made or {}).get("time")) or time.time()

    def wait_for_turn(self, *, goes_on: bool) -> float:
        """The job's dependency has waited already."""
        if self._record.after:
            host.stop_on_failure(self._record, self.job)
        needs.of_ended_jobs(self._record, RECORDS_BEHIND_S, goes_on=goes_on)
        return time.time()

    def acquire(self, queued_at: float) -> None:
        """Look at what the job was granted."""
        before = self._claim.before if self._claim else None
        if before is not None and not before.released and before.identity.host != os.uname().nodename:
            # Slurm gave a node up; what still runs there must have the time to see that it lost its claim.
            reason = because("node_cut_off", seconds=2 * self.look_s, node=before.identity.host)
            self._say(reason)
            waiting.write(self._run_dir, self._record.token, reason)
            time.sleep(2 * self.look_s)
        self._hosts = step.hosts(self._node)
        wanted = self._record.world_size
        per_node, rest = divmod(wanted, len(self._hosts))
        if rest:
            why = _(
                "{count} processes can't be divided over the job's {nodes} nodes: change nodes in sbatch of the target",
                wanted,
                len(self._hosts),
            )
            raise lease.ImpossibleRequest(why)
        gpus = [] if self._cores else step.visible_gpus()
        if gpus and len(gpus) < per_node:
            why = _(
                "the job got {count} GPUs on {node} for {processes} processes: set gpus_per_run of the target, or ask"
                " for more in sbatch",
                len(gpus),
                self._node,
                per_node,
            )
            raise lease.ImpossibleRequest(why)
        self._gpus_per_node = per_node if gpus else 0
        indices = [str(index) for index in range(self._cores or per_node)]
        places = [gpus[:per_node] or indices, *(indices for _node in self._hosts[1:])]
        kind = "gpu" if gpus else "cpu"
        self._devices = [
            "%s/%s:%s" % (node, kind, index) for node, there in zip(self._hosts, places) for index in there
        ]

    def devices(self) -> List[str]:
        """Return labels such as ``n1/gpu:0``."""
        return self._devices

    def environment(self) -> Dict[str, str]:
        """Slurm has set what confines the job's processes; say how many GPUs they must see on each node. Where it
        confines nothing, a program without GPUs sees none all the same.
        """
        found = {lease.GPUS_VARIABLE: str(self._gpus_per_node)}
        if self._cores:
            found.update({permitted.CUDA: "", "OMP_NUM_THREADS": str(self._cores)})
        return found

    def start_record(self) -> JobStart:
        """Name the job's incarnation."""
        return {"job": self.job, "restart": self.restart, "nodes": self._hosts}

    # One attempt ------------------------------------------------------------------------------------------------------

    def argv(self, command: List[str], number: int, avoided: Collection[int] = ()) -> Tuple[List[str], Optional[int]]:
        """Give torchrun a rendezvous of this attempt's own, and a task on every node."""
        return step.words(command, self._hosts, self._number, self._rendezvous(number), avoided)

    def _rendezvous(self, number: int) -> str:
        return "%d.%d.%d" % (self._number, self.restart, number)

    def ground(self, number: int, avoided: Collection[int] = ()) -> Ground:
        """Return the first node's name and a port of the job's own."""
        nodes = len(self._hosts)
        host = self._hosts[0] if nodes > 1 else "localhost"
        port = step.free_port(self._number, avoided)
        gpus = 0 if self._cores else len(self._devices) // nodes
        return Ground(gpus, host, port, nodes, self._rendezvous(number))

    def spread(self, argv: List[str]) -> List[str]:
        """Start a command by srun where the job has several nodes."""
        return [*step.on_each(len(self._hosts)), *argv] if len(self._hosts) > 1 else argv

    def pass_stop(self, pid: int, number: int) -> float:
        """Ask for a checkpoint, unless Slurm's own SIGTERM has asked every process of the job already: a second one
        makes torchrun give its ranks up.
        """
        if number == signal.SIGUSR1:
            grace = max(TERM_GRACE_S, (self._record.warning_s or 0.0) - commands.RECORDS_S)
        else:
            grace = max(TERM_GRACE_S, commands.kill_wait() - commands.RECORDS_S)
            shown = self._shown(5.0)
            if shown and (self._starts_again(shown) or "RUNNING" not in shown.get("JobState", "")):
                self._has_asked_all = True
                return grace
            if shown:  # Slurm lets the job go on, and kills nothing
                grace = place.stop_grace(self._record, grace)
        if len(self._hosts) > 1:
            with contextlib.suppress(commands.SlurmError):
                if commands.call(["scancel", "--signal=TERM", self.job], 15.0)[0] == 0:
                    self._has_asked_all = True
                    return grace
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        return grace

    def has_asked_all(self) -> bool:
        """Tell whether Slurm has passed the last stop on."""
        return self._has_asked_all

    def _shown(self, timeout_s: float) -> Dict[str, str]:
        """Return what slurmctld knows of the job; empty where it does not answer."""
        try:
            return commands.show_job(self.job, timeout_s)
        except commands.SlurmError:
            return {}

    def _starts_again(self, shown: Dict[str, str]) -> bool:
        """Tell whether Slurm counts one start more than this."""
        return int(shown.get("Restarts") or 0) > self.restart

    def judge_stop(self, number: int, attempts: List[Attempt], outcome: OutcomeRecord) -> place.Verdict:
        """Tell a cancel from what Slurm, or this supervisor itself, follows with another start of the job."""
        is_cancelled = self.is_cancelled()
        cause = place.CANCEL if is_cancelled else self._cause(number)
        if cause in (place.CANCEL, ""):
            why = because("cancelled" if is_cancelled else "cancelled_by_scancel")
            if not cause:
                why = because("stopped", signal=signal.Signals(number).name)
            return place.stopped(State.CANCELLED, why, outcome, cause=place.CANCEL)
        refusal = self._no_more_timeouts(attempts, outcome) if cause == place.TIMEOUT else ""
        if refusal:
            return place.Verdict(State.FAILED, refusal, cause=cause)
        why = because(STOPPED_BY[cause])
        if not self._requeued and self._record.requeue is False:
            return place.stopped(State.FAILED, why, outcome, cause=cause, resumes=False)
        return place.stopped(State.QUEUED, why, outcome, cause=cause)

    def judge_end(self, attempts: List[Attempt], outcome: OutcomeRecord) -> Optional[place.Verdict]:
        """Ask Slurm: with a GraceTime the SIGTERM of a preemption goes to the job's steps alone, and to the batch
        process when that time is over (slurm.conf(5), GraceTime).
        """
        if self._cause(signal.SIGTERM) not in (place.PREEMPTION, place.REQUEUE, place.NODE_FAILURE, place.TIMEOUT):
            return None
        return self.judge_stop(signal.SIGTERM, attempts, outcome)

    def _cause(self, number: int) -> str:
        """Return why a signal came; empty where it came from somebody who only meant this process."""
        warned = number == signal.SIGUSR1
        try:
            shown = commands.show_job(self.job, 10.0)
        except commands.SlurmError as error:
            self._say("Slurm does not say why it stopped the job (%s)" % error)
            return place.TIMEOUT if warned else ""
        self._requeued = self._starts_again(shown)
        if self._requeued:
            said = failure.slurmstepds_note(shown.get("StdOut", ""))
            return next((cause for mark, cause in RESTARTED_BY if mark in said), place.REQUEUE)
        if shown.get("Reason") == "TimeLimit":
            return place.TIMEOUT
        if shown.get("PreemptTime", "None") not in ("None", "Unknown", "0"):
            return place.PREEMPTION
        state = shown.get("JobState", "")
        if state.startswith("NODE_FAIL") or shown.get("Reason") == "NodeDown":  # COMPLETING while processes live
            return place.NODE_FAILURE
        if shown.get("Reason") == "DeadLine":
            return ""
        if state.startswith(("CANCELLED", "COMPLETING")):  # what scancel leads to while processes live
            return place.CANCEL
        if "RUNNING" not in state or not warned:  # any other end is Slurm's to name, once the job is over
            return ""
        end = shown.get("EndTime", "")
        slack = (self._record.warning_s or 0.0) + END_SLACK_S
        return place.TIMEOUT if not end.isdigit() or int(end) - time.time() < slack else place.REQUEUE

    def _no_more_timeouts(self, attempts: List[Attempt], outcome: OutcomeRecord) -> str:
        """Return why a time-out is one too many; empty where the job may start again."""
        before = [a for a in attempts if a.get("job") == self.job and a.get("cause") == place.TIMEOUT]
        budget = self._record.max_timeouts or 0
        if len(before) >= budget:
            return because("timeouts_used_up", count=len(before) + 1, most=budget)
        if not _made_steps(outcome) and attempts and attempts[-1] in before and not attempts[-1].get("steps"):
            return because("time_limit_too_short")
        return ""

    def retries_used(self, attempts: List[Attempt]) -> int:
        """Count the crashes of this job's earlier incarnations: a requeue must not make the budget new."""
        return sum(1 for a in attempts if a.get("job") == self.job and a.get("cause") == place.CRASH)

    # The end ----------------------------------------------------------------------------------------------------------

    def go_on_later(self) -> str:
        """Requeue the job, unless Slurm has done it; the end record is written, and SIGTERM follows at once."""
        self._goes_on = True
        self.leave()
        if self._requeued:
            return ""
        words, refusals, deadline = "", 0, time.monotonic() + REQUEUE_PATIENCE_S
        while refusals < REQUEUE_TRIES and time.monotonic() < deadline:
            try:
                code, _, err = commands.call(["scontrol", "requeue", self.job], 20.0)
            except commands.SlurmError as error:
                words = str(error)
                refusals += isinstance(error, commands.NotRun)
            else:
                if code == 0:
                    return ""
                words = slurm_words.last(err, "scontrol") or "exit code %d" % code
                # A controller that is restarted or hung takes no job's time, either.
                refusals += not slurm_words.SILENCE.search(slurm_words.last(err, "scontrol"))
            shown = self._shown(10.0)
            if self._starts_again(shown) or shown.get("JobState") == "PENDING":
                return ""  # the answer was lost, or the SIGTERM that follows it ended scontrol
            self._say("scontrol requeue: %s" % words)
            time.sleep(REQUEUE_PAUSE_S)
        self._goes_on = False
        return words

    def release(self) -> None:
        """Slurm takes the devices back when the job ends."""

    def leave(self) -> None:
        """Release the claim; an output of the job's own in which Slurm said nothing is not kept."""
        if self._claim is not None:
            self._claim.release()
        fate, task = self._record.fate or "", self.job.partition("_")[2]
        if fate.endswith(FATE) and not self._goes_on:  # of a script that somebody submitted
            path = fate[: -len(FATE)] + ("_%s.log" % task if task else ".log")
            with contextlib.suppress(OSError):
                if os.path.getsize(path) == 0:
                    os.unlink(path)


def _made_steps(outcome: OutcomeRecord) -> bool:
    return int(outcome.get("step") or 0) > int(outcome.get("resumed_from") or 0)

"""Submit to a plain host, where runs queue for device leases without a daemon."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from ..agent import registry, rundir
from ..agent.host import permitted
from ..connections import as_agent_reads
from . import Answer, LaunchScript, Scheduler, allowed_environment, silent

if TYPE_CHECKING:
    from ..agent import messages


class LeaseScheduler(Scheduler):
    """Submission to a host whose devices are leased, over a connection."""

    def submit(
        self,
        jobs: Sequence[LaunchScript],
        token: str,
        say: Callable[[str], None] = silent,
        accepted: Callable[[Sequence[str]], None] = lambda run_dirs: None,
    ) -> Answer:
        """Start the launch scripts there, detached; each waits for its lane and its lease."""
        target = self._connection.target
        lists = {permitted.OF_TARGET: target.gpus, permitted.AVOIDED: target.avoid, permitted.PREFERRED: target.prefer}
        limits = {name: ",".join(map(str, indices)) for name, indices in lists.items() if indices}
        if target.max_parallel:
            limits[permitted.MAX_PARALLEL] = str(target.max_parallel)
        if target.per_gpu > 1:
            limits[permitted.PER_GPU] = str(target.per_gpu)
        request: messages.LaunchRequest = {
            "root": self._connection.resolved.root,
            "token": token,
            "runs": [self._run(job, jobs, token) for job in jobs],
            "snapshot": jobs[0].snapshot,
            "environment": {**allowed_environment(target), **limits},
        }
        answer = self._connection.call(registry.LAUNCH, request, timeout_s=60 + 0.2 * len(jobs))
        self._check_begun(answer, token)
        busy = tuple(job.run_dirs[0] for job in jobs if answer["runs"].get(job.run_dirs[0]) == "busy")
        started = tuple(job.run_dirs[0] for job in jobs if job.run_dirs[0] not in busy)
        return Answer(accepted=started, busy=busy)

    def _run(self, job: LaunchScript, jobs: Sequence[LaunchScript], token: str) -> messages.LaunchRun:
        run: messages.LaunchRun = {
            "run_dir": job.run_dirs[0],
            "token": token,
            "script": job.script,
            "gpus": job.gpus if isinstance(job.gpus, int) else list(job.gpus),
            "after": None if job.after is None else jobs[job.after].run_dirs[0],
        }
        if job.needs:
            run["needs"] = [need["run_dir"] for need in job.needs]
        return run

    def settle(self, token: str, root: str, run_dirs: Sequence[str]) -> Answer:
        """Ask whether the launch arrived; if it hasn't by now, it is kept from ever taking effect."""
        request: messages.Submission = {"root": root, "token": token}
        answer = self._connection.call(registry.SETTLE, request)
        if answer["answer"] == "accepted":
            return Answer(accepted=tuple(run_dirs))
        return Answer(accepted=(), refused=dict.fromkeys(run_dirs, rundir.NEVER_SENT))

    def poll(
        self, runs: Mapping[str, str], *, ended: Collection[str] = (), host: bool = False, anew: bool = False
    ) -> messages.PollAnswer:
        """Probe the host once for all runs."""
        target = as_agent_reads(self._connection)
        root = (target.checkpoint_root or target.root) if host else ""
        request: messages.ProbeRequest = {"run_dirs": list(runs), "root": root, "tells": target.root}
        return self._connection.call(registry.PROBE, request)

    def _archive(self, request: messages.ArchiveRequest) -> messages.Moved:
        return self._connection.call(registry.ARCHIVE, request)

    def cancel(self, runs: Mapping[str, str]) -> Mapping[str, str]:
        """End runs; returns when their claims and leases are free."""
        request: messages.RunDirs = {"run_dirs": list(runs)}
        return self._connection.call(registry.CANCEL, request, timeout_s=120)["runs"]

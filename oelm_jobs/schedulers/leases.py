"""Submit to a plain host, where runs queue for device leases without a daemon."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from ..agent import registry, rundir, snapshots
from ..agent.sentences import _
from ..connections import Connection, as_agent_reads
from ..errors import CodeGone, TargetError
from . import CODE_GONE, Answer, LaunchScript, allowed_environment, silent

if TYPE_CHECKING:
    from ..agent import messages


class LeaseScheduler:
    """Submission to a host whose devices are leased, over a connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def submit(
        self,
        jobs: Sequence[LaunchScript],
        token: str,
        say: Callable[[str], None] = silent,
        accepted: Callable[[Sequence[str]], None] = lambda run_dirs: None,
    ) -> Answer:
        """Start the launch scripts there, detached; each waits for its lane and its lease."""
        runs: list[messages.LaunchRun] = [
            {"run_dir": job.run_dirs[0], "token": job.token, "script": job.script} for job in jobs
        ]
        request: messages.LaunchRequest = {
            "root": self._connection.root,
            "token": token,
            "runs": runs,
            "snapshot": jobs[0].snapshot,
            "environment": self._environment(),
        }
        answer = self._connection.call(registry.LAUNCH, request, timeout_s=60 + 0.2 * len(jobs))
        if answer["answer"] == snapshots.LACKING:
            raise CodeGone(_("{target}: {why}", self._connection.target.name, CODE_GONE))
        if answer["answer"] == "settled":
            raise TargetError(_("submission {token} had been given up", token))
        states = answer["runs"]
        run_dirs = [run["run_dir"] for run in runs]
        started = tuple(run_dir for run_dir in run_dirs if states.get(run_dir, "started") == "started")
        busy = tuple(run_dir for run_dir in run_dirs if states.get(run_dir) == "busy")
        return Answer(accepted=started, busy=busy, handle=token)

    def _environment(self) -> dict[str, str]:
        """Return the variables that runs get from this client, and the GPUs that they are limited to."""
        target = self._connection.target
        found = allowed_environment(target)
        return {**found, "OELM_GPUS": ",".join(map(str, target.gpus))} if target.gpus else found

    def settle(self, token: str, root: str, run_dirs: Sequence[str]) -> Answer:
        """Ask whether the launch arrived; if it hasn't by now, it is kept from ever taking effect."""
        request: messages.Submission = {"root": root, "token": token}
        answer = self._connection.call(registry.SETTLE, request)
        if answer["answer"] == "accepted":
            return Answer(accepted=tuple(run_dirs))
        return Answer(accepted=(), refused=dict.fromkeys(run_dirs, rundir.NEVER_SENT))

    def poll(self, runs: Mapping[str, str], *, ended: Collection[str] = (), host: bool = False) -> messages.PollAnswer:
        """Probe the host once for all runs."""
        target = as_agent_reads(self._connection)
        root = (target.checkpoint_root or target.root) if host else ""
        request: messages.ProbeRequest = {"run_dirs": list(runs), "root": root}
        return self._connection.call(registry.PROBE, request)

    def archive(self, run_dirs: Sequence[str]) -> None:
        """Rename run directories to ``.archive/<name>-<time>`` beside them."""
        request: messages.RunDirs = {"run_dirs": list(run_dirs)}
        answer = self._connection.call(registry.ARCHIVE, request)
        if answer["busy"]:
            raise TargetError(
                _("still in use, nothing was archived: {run_dirs}", answer["busy"]), hint=_("end it: oelm-cancel")
            )

    def cancel(self, runs: Mapping[str, str]) -> Mapping[str, str]:
        """End runs; returns when their claims and leases are free."""
        request: messages.RunDirs = {"run_dirs": list(runs)}
        return self._connection.call(registry.CANCEL, request, timeout_s=120)["runs"]

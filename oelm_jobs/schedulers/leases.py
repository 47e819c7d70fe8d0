"""Owns submission to a plain host, where runs queue for device leases without a daemon; leaves the queue itself to
the agent there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..connections import Connection
from ..errors import TargetError
from . import Answer, Job


class LeaseScheduler:
    """Host leases at the other end of a connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def submit(self, jobs: Sequence[Job], token: str) -> Answer:
        """Start the launch scripts there, detached; they wait for their lane and their leases by themselves."""
        runs = [{"run_dir": job.run_dir, "token": job.token, "script": job.script} for job in jobs]
        request = {"root": self._connection.root, "token": token, "runs": runs}
        answer = self._connection.call("launch", request, timeout_s=60 + 0.2 * len(jobs))
        if answer["answer"] == "settled":
            raise TargetError(f"submission {token} had been given up")
        states = answer["runs"]
        accepted = tuple(job.run_dir for job in jobs if states.get(job.run_dir, "started") == "started")
        busy = tuple(job.run_dir for job in jobs if states.get(job.run_dir) == "busy")
        return Answer(accepted=accepted, busy=busy, handle=token)

    def settle(self, token: str) -> bool:
        """Ask whether the launch arrived; if it did not by now, it is fenced off and never will."""
        answer = self._connection.call("settle", {"root": self._connection.root, "token": token})
        return bool(answer["answer"] == "accepted")

    def poll(self, run_dirs: Sequence[str], *, host: bool = False) -> Mapping[str, Any]:
        """Probe the host once for all runs."""
        root = self._connection.root if host else ""
        return self._connection.call("probe", {"run_dirs": list(run_dirs), "root": root})

    def archive(self, run_dirs: Sequence[str]) -> None:
        """Rename run directories to ``.archive/<name>-<time>`` beside them."""
        answer = self._connection.call("archive", {"run_dirs": list(run_dirs)})
        if answer["busy"]:
            raise TargetError(
                f"still in use, nothing was archived: {', '.join(answer['busy'])}", hint="end it: oelm-cancel"
            )

    def cancel(self, run_dirs: Sequence[str]) -> Mapping[str, str]:
        """End runs; returns when their claims and leases are free."""
        answer: Mapping[str, str] = self._connection.call("cancel", {"run_dirs": list(run_dirs)}, timeout_s=120)["runs"]
        return answer

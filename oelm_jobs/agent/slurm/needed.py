"""Jobs that runs of a job need: what sbatch is told of them, and what is said of a job that waits for them or can't
start any more. Their own records count; Slurm knows the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Dict, NamedTuple, Optional, Sequence

from .. import records, rundir
from ..host import launch
from ..reasons import because, read
from ..sentences import _
from ..states import FINAL, State

if TYPE_CHECKING:
    from .. import messages

ALWAYS = "always"
NEVER = "DependencyNeverSatisfied"
"""Slurm's word for a job whose dependency can't come true any more."""


class Dependency(NamedTuple):
    """What a job depends on: words of sbatch's ``--dependency`` (empty where there is nothing to wait for any more), or
    why it isn't sent, or not yet.
    """

    words: str = ""
    refused: str = ""
    limit: str = ""


def dependency(
    root: str, need: messages.Needed, answer_of: Callable[[str, str, int], Optional[messages.Kept]]
) -> Dependency:
    """Return what a job depends on because of a run that its runs need.

    Args:
        answer_of: Returns what became of a script, by root, token and position.
    """
    run_dir, token, name = need["run_dir"], need["token"], rundir.run_name(need["run_dir"])
    state = _ended(run_dir, token)
    if state == State.DONE or (state and need.get("when") == ALWAYS):
        return Dependency()
    if state:
        return Dependency(refused=_("not sent: {run}, which it needs, is {state}", name, state))
    content = rundir.read_json(launch.submission_file(root, token)) or {}
    for job in content.get("jobs", ()):
        if run_dir in job["run_dirs"]:
            answer = answer_of(root, token, int(job["position"])) or {}
            if "id" in answer:
                number = str(answer["id"])
                task = "_%d" % job["run_dirs"].index(run_dir) if len(job["run_dirs"]) > 1 else ""
                kind = "afterany" if need.get("when") == ALWAYS else "afterok"
                return Dependency(words="%s:%s%s" % (kind, number, task))
            if "limit" in answer:
                return Dependency(limit=_("waits for the ones before it"))
            if "refused" in answer:
                return Dependency(refused=_("not sent: {run}, which it needs, was not accepted", name))
            return Dependency(refused=_("not sent: what became of {run}, which it needs, is not known", name))
    return Dependency(refused=_("not sent: no job of {run}, which it needs, is known here", name))


def _ended(run_dir: str, token: str) -> str:
    """Return how a run has ended under a submission; empty where its record doesn't say that it has."""
    end = records.END.read_if_sound(run_dir)
    state = end["state"] if end and end.get("token") == token else ""
    return state if state in FINAL else ""


def waited_for(needs: Sequence[Dict[str, str]]) -> str:
    """Return why a job waits for others: the first run that it needs and that is not over; empty where all are."""
    for need in needs:
        if not _ended(need["run_dir"], need["token"]):
            return because("waiting_for_needed", run=rundir.run_name(need["run_dir"]))
    return ""


def unmet(needs: Sequence[Dict[str, str]], slurms_reason: str) -> str:
    """Return which run that a job needs is the reason why it never started; empty where none is known to be.

    Args:
        slurms_reason: Slurm's word for why the job ended.
    """
    for need in needs:
        if need.get("when") == ALWAYS:
            continue
        name, end = rundir.run_name(need["run_dir"]), records.END.read_if_sound(need["run_dir"])
        state = _ended(need["run_dir"], need["token"])
        if end is not None and state in (State.FAILED, State.CANCELLED):
            return because("needed_failed" if state == State.FAILED else "needed_cancelled", run=name, why=read(end))
        if not state and slurms_reason == NEVER:  # its own job never started, or left no record
            return because("needed_unknown", run=name, why=because("no_end_record"))
    return ""

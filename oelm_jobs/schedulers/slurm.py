"""Submit to Slurm at the other end of a connection.

On this machine submitit runs sbatch (submitit_sender); everything else is a verb of the agent, one round trip each
behind SSH.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ..agent import __main__ as agent
from ..agent import inside, privacy, registry, rundir, schema, trees
from ..agent.host import launch
from ..agent.registry import Answers, Asks, Verb
from ..agent.sentences import Sentence, _, joined
from ..agent.slurm import commands as slurm_commands
from ..agent.slurm import submit as slurm_submit
from ..agent.slurm import words as slurm_words
from ..connections import as_agent_reads, own
from ..connections.answers import believed
from ..errors import AnswerLost, NotReached, PreflightError, TargetError, UnknownAnswer
from ..targets.sbatch import named_in, options_of, without_slurm
from . import Answer, LaunchScript, Scheduler, allowed_environment, silent

if TYPE_CHECKING:
    from ..agent import messages

ROOM_POLL_S = float(os.environ.get("OELM_ROOM_POLL_S", "20"))
"""How often it is tried again where the cluster takes no more jobs of this user for now."""
COMMANDS = ("squeue", "scontrol", "sbatch")
"""The commands of Slurm's whose trouble on a target has a hint."""
REFUSALS = (
    slurm_commands.SlurmError, launch.NotWritable, launch.InputGone, inside.Outside, privacy.NotOurs, trees.Busy,
    schema.Misfit, OSError,
)  # fmt: skip
"""What a verb ends with that did nothing."""


def _is_of_slurm(text: object) -> bool:
    """Tell whether a sentence, or one in it, is about one of COMMANDS: ``command`` names it (agent/slurm/commands)."""
    if not isinstance(text, Sentence):
        return False
    return text.values.get("command") in COMMANDS or any(map(_is_of_slurm, text.values.values()))


class SlurmScheduler(Scheduler):
    """Submission to Slurm over a connection."""

    def _call(self, verb: Verb[Asks, Answers], request: Asks, timeout_s: float = 120.0) -> Answers:
        """Let the agent answer; on this machine in this process.

        Raises:
            TargetError: Slurm does not answer, or can't be reached.
            UnknownAnswer: What was done is not known.
        """
        target = self._connection.target
        if target.host or target.clusters:
            try:
                return self._connection.call(verb, request, timeout_s=timeout_s)
            except TargetError as error:
                if not error.hint and _is_of_slurm(str(error)):
                    error.hint = without_slurm(target)
                raise
        with self._here():
            answer = agent.answer(verb, dict(request))
        return believed(target.name, verb, request, answer)

    @contextlib.contextmanager
    def _here(self) -> Iterator[None]:
        """Do what a verb does in this process: with umask and group set for what it writes (agent/privacy.py).

        Raises:
            TargetError: It did nothing.
            UnknownAnswer: What was done is not known.
        """
        target = self._connection.resolved
        try:
            with privacy.confined(target.share):
                privacy.enter(**own(target), make=False)
                yield
        except slurm_commands.HalfDone as error:
            raise UnknownAnswer(_("{target}: {why}", target.name, str(error))) from error
        except REFUSALS as error:
            raise TargetError(_("{target}: {why}", target.name, str(error))) from error

    # Submission -------------------------------------------------------------------------------------------------------

    def submit(
        self,
        jobs: Sequence[LaunchScript],
        token: str,
        say: Callable[[str], None] = silent,
        accepted: Callable[[Sequence[str]], None] = lambda run_dirs: None,
    ) -> Answer:
        """Send scripts to sbatch, each once; wait where the cluster accepts no more jobs now.

        The agent remembers its answers, so that a wait outlives a lost connection: what is asked again is not sent
        again.
        """
        answers: dict[int, messages.Sent] = {}
        said = ""
        name = self._connection.target.name
        while True:
            try:
                answers.update(self._send(jobs, token, answers))
                trouble = ""
            except TargetError as error:
                if answers and isinstance(error, (NotReached, AnswerLost)):
                    trouble = _("{error}; tried again until it answers", str(error))
                elif any("id" in answer or "unknown" in answer for answer in answers.values()):
                    raise UnknownAnswer(str(error), hint=error.hint) from error  # some of them run already
                else:
                    raise
            waiting = [job for job in jobs if "limit" in answers[job.position]]
            if not waiting and not trouble:
                return self._read(jobs, answers)
            accepted([run_dir for job in jobs if "id" in answers[job.position] for run_dir in job.run_dirs])
            notice = trouble or _(
                "{target} takes no more jobs of yours for now ({why})", name, answers[waiting[0].position]["limit"]
            )
            if notice != said:
                runs = sum(len(job.run_dirs) for job in waiting)
                say(_("{notice}; runs that wait for room: {count}; Ctrl-C leaves them out", notice, runs))
                said = notice
            time.sleep(ROOM_POLL_S)

    def _send(
        self, jobs: Sequence[LaunchScript], token: str, answers: Mapping[int, messages.Sent]
    ) -> dict[int, messages.Sent]:
        """Send scripts.

        Args:
            answers: What is known of them: those that were accepted or refused are only named.
        """
        target = self._connection.target
        request: messages.SlurmSubmitRequest = {
            "root": self._connection.resolved.root,
            "token": token,
            "jobs": [self._job(job, answers) for job in jobs],
            "snapshot": jobs[0].snapshot,
            "environment": allowed_environment(target),
        }
        if target.host:
            timeout_s = 60 + len(jobs) * 2.0 + slurm_submit.SBATCH_TIMEOUT_S + slurm_submit.PATIENCE_S
            answer = self._connection.call(registry.SLURM_SUBMIT, request, timeout_s=timeout_s)
        else:
            from .submitit_sender import send

            with _asking(target.clusters), self._here():
                try:
                    answer = slurm_submit.slurm_submit(request, send)
                except OSError as error:  # a full disk, say: sbatch may have some of them
                    raise slurm_commands.HalfDone(str(error)) from error
        self._check_begun(answer, token)
        return {int(position): row for position, row in answer["jobs"].items()}

    def _job(self, job: LaunchScript, answers: Mapping[int, messages.Sent]) -> messages.Script:
        row: messages.Script = {
            "position": job.position,
            "name": job.name,
            "script": "" if {"id", "refused"} & answers.get(job.position, {}).keys() else job.script,
            "run_dirs": list(job.run_dirs),
            "after": job.after,
        }
        if job.needs:
            row["needs"] = [
                {"run_dir": need["run_dir"], "token": need["token"], "when": need["when"]} for need in job.needs
            ]
        return row

    def _read(self, jobs: Sequence[LaunchScript], answers: Mapping[int, messages.Sent]) -> Answer:
        """Combine the answers about each script.

        Raises:
            PreflightError: All were refused.
            TargetError: Nobody was there to take them.
            UnknownAnswer: Of one it isn't known.
        """
        target = self._connection.target
        for job in jobs:
            if "unknown" in answers[job.position]:
                why = answers[job.position]["unknown"]
                raise UnknownAnswer(_("{target}: whether Slurm took it is not known: {why}", target.name, why))
        accepted = [job for job in jobs if "id" in answers[job.position]]
        refused = {
            run_dir: answers[job.position]["refused"]
            for job in jobs
            if "refused" in answers[job.position]
            for run_dir in job.run_dirs
        }
        if refused and not accepted:
            message = next(iter(refused.values()))
            named = named_in(target, message)
            change = _("change {option} in sbatch of target {target}", named, target.name) if named else ""
            hint = joined([change, _("check it: oelm-doctor {target}", target.name)])
            is_silent = slurm_words.NO_CONTROLLER.search(message)
            error = _("{target}: sbatch: {why}", target.name, message)
            raise (TargetError if is_silent else PreflightError)(error, hint=hint)
        return Answer(
            accepted=tuple(run_dir for job in accepted for run_dir in job.run_dirs),
            refused=refused,
        )

    def settle(self, token: str, root: str, run_dirs: Sequence[str]) -> Answer:
        """Look for a submission's jobs; those that aren't found will never run, even if they still appear."""
        request: messages.Submission = {"root": root, "token": token}
        answer = self._call(registry.SLURM_SETTLE, request)
        found = set(answer["runs"])
        refused = {
            run_dir: answer["refused"].get(run_dir) or rundir.NEVER_SENT for run_dir in run_dirs if run_dir not in found
        }
        return Answer(accepted=tuple(run_dir for run_dir in run_dirs if run_dir in found), refused=refused)

    # Looking and ending -----------------------------------------------------------------------------------------------

    def poll(
        self, runs: Mapping[str, str], *, ended: Collection[str] = (), host: bool = False, anew: bool = False
    ) -> messages.PollAnswer:
        """Ask squeue, the runs' records and sacct, in this order and no more than needed (agent/slurm/state.py)."""
        target = as_agent_reads(self._connection)
        request: messages.SlurmPollRequest = {
            "root": target.root,
            "checkpoint_root": target.checkpoint_root,
            "runs": [list(pair) for pair in runs.items()],
            "ended": list(ended),
            "interval_s": 0.0 if anew else options_of(target).poll_s,
            "host": host,
        }
        return self._call(registry.SLURM_POLL, request)

    def _archive(self, request: messages.ArchiveRequest) -> messages.Moved:
        return self._call(registry.SLURM_ARCHIVE, request)

    def cancel(self, runs: Mapping[str, str]) -> Mapping[str, str]:
        """Cancel jobs and wait until their processes are gone."""
        root = as_agent_reads(self._connection).root
        request: messages.SlurmCancelRequest = {"root": root, "runs": [list(pair) for pair in runs.items()]}
        return self._call(registry.SLURM_CANCEL, request)["runs"]


@contextlib.contextmanager
def _asking(clusters: str) -> Iterator[None]:
    """Direct Slurm's commands to one of a site's clusters for a while; to their own where it is empty."""
    before = dict(os.environ)
    if clusters:
        slurm_commands.about(clusters)
    try:
        yield
    finally:
        if clusters:
            os.environ.pop("SLURM_CLUSTERS", None)
            os.environ.update(before)

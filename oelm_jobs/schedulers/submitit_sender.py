"""Submit rendered scripts through submitit, where sbatch is on this machine.

The only module that depends on submitit's private names (series 1.5; tests/slurm/test_submitit.py fails when they
change). A SlurmExecutor whose submission text is the rendered script: nothing is pickled, ``map_array`` and
``batch`` are not used (they build a plain SlurmExecutor and would drop the text).
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from ..agent.slurm import commands as slurm_commands
from ..agent.slurm import variables
from ..agent.slurm import words as slurm_words

READABLY = """\
import os, select, sys
pipes = dict(os.pipe() for _ in (1, 2))
kept, poll = {end: b"" for end in pipes}, select.poll()
ends = [(os.POSIX_SPAWN_DUP2, writing, number) for number, writing in enumerate(pipes.values(), 1)]
try:
    child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=ends, setsigdef=(13, 25))
except OSError as error:
    print("sbatch can't be run: %s" % error.strerror, file=sys.stderr)
    sys.exit(127)
for reading, writing in pipes.items():
    os.close(writing)
    poll.register(reading)
while pipes:
    for end, _ in poll.poll():
        piece = os.read(end, 65536)
        kept[end] += piece
        if not piece:
            poll.unregister(end)
            del pipes[end]
for stream, output in zip((sys.stdout, sys.stderr), kept.values()):
    stream.buffer.write(output.decode("utf-8", "replace")[-10000:].encode("utf-8", "replace"))
    stream.flush()
status = os.waitpid(child, 0)[1]
sys.exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))
"""
"""Runs a command and passes its output on in UTF-8, in one piece: submitit ends a command whose output it can't decode,
and that of a site's own programs is not always UTF-8. Without subprocess, whose import takes longer than sbatch does;
as that does, SIGPIPE and SIGXFSZ, which Python ignores, are given back.
"""


class ScriptExecutor(submitit.SlurmExecutor):
    """Submits one finished script."""

    def __init__(self, folder: Path, script: Path, options: Sequence[str]) -> None:
        super().__init__(folder)
        self._script = script
        self._options = list(options)

    def submit_script(self) -> str:
        """Run sbatch on the script; return the job's id.

        Raises:
            FailedJobError: It failed; the message is what it said.
            FailedSubmissionError: It named no job.
        """
        return str(self._submit_command("").job_id)

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        return self._script.read_text(encoding="utf-8")

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        sbatch = ["sbatch", *self._options, str(submission_file_path)]
        return [sys.executable, "-S", "-c", READABLY, *sbatch]

    def _num_tasks(self) -> int:
        return 1

    @staticmethod
    def _get_job_id_from_submission_command(string: bytes | str) -> str:
        text = string.decode("utf-8", "replace") if isinstance(string, bytes) else string
        answer = slurm_words.read_answer(0, text, "")
        if "id" not in answer:
            raise FailedSubmissionError(text)
        return str(answer["id"])


def send(script: str, options: Sequence[str]) -> tuple[int, str, str]:
    """Submit a script through submitit; return sbatch's (exit code, stdout, stderr).

    Ctrl-C and a closing terminal wait until sbatch has answered: cut short, nobody would know whether it had accepted.

    Raises:
        NotRun: There is no Slurm on this machine.
    """
    path = Path(script)
    (path.parent / "submitit").mkdir(exist_ok=True)
    with _undisturbed(path):
        try:
            # submitit prints what sbatch says; it is said in the answer.
            with contextlib.redirect_stderr(io.StringIO()):
                number = ScriptExecutor(path.parent / "submitit", path, options).submit_script()
            return 0, f"Submitted batch job {number}\n", ""
        except FailedSubmissionError as error:
            return 0, "", str(error)
        except FailedJobError as error:
            cause = error.__cause__
            code = cause.returncode if isinstance(cause, subprocess.CalledProcessError) else -1
            return code, "", str(error)
        except RuntimeError as error:  # "Could not detect srun"
            raise slurm_commands.NotRun("sbatch", str(error)) from error


@contextlib.contextmanager
def _undisturbed(script: Path) -> Iterator[None]:
    """Block signals that end a client (sbatch inherits the mask), and unset variables that override a script."""
    held = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    mine = {name: os.environ.pop(name) for name in variables.set_aside(script.read_text(encoding="utf-8"))}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.environ.update(mine)

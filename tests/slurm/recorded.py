"""Recorded output of Slurm's commands, which stand-ins print in tests."""

from __future__ import annotations

from pathlib import Path

TOKEN, NAME = "oelm-1", "a.oelm-1.0"
"""A submission, and the name of its job."""
SUBMITTED, STARTED, READ, ENDED, LATER = 1000.0, 2000.0, 3000.0, 3500.0, 4000.0
"""When the job was submitted and started, when squeue was read, when the run ended, and when another start was."""


def prints(text: str, calls: Path | None = None) -> str:
    """Return shell lines that print a text, and note the arguments they got."""
    noted = f"echo \"$*\" >> '{calls}'\n" if calls else ""
    return f"{noted}cat <<'END'\n{text}\nEND"


def fails(words: str) -> str:
    """Return shell lines that fail with words."""
    return f"echo '{words}' >&2; exit 1"


NO_CONTROLLER = fails("squeue: error: Unable to contact slurm controller (connect failure)")


def queue_line(state: str, *, name: str = NAME, job: str = "7", task: str = "N/A") -> str:
    """Return a line as squeue prints it."""
    return f"{job}|{task}|{state}|{STARTED:.0f}|{SUBMITTED:.0f}|n1|low|normal|None|{name}"


def account(state: str, exit_code: str = "0:0", *, job: str = "7", name: str = NAME) -> str:
    """Return a line as sacct prints it."""
    return f"{job}|{state}|{exit_code}|{SUBMITTED:.0f}|{STARTED:.0f}|{ENDED:.0f}|n1|{name}"

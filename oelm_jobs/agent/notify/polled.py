"""Have told what a poll of Slurm has found out, from the login node that was asked: ends that left no supervisor to
tell of them, and what compute nodes couldn't send.
"""

from __future__ import annotations

from typing import Any, Mapping, Sequence, Tuple

from .declared import leave, open_ones


def note(root: str, wanted: Sequence[Tuple[str, str]], rows: Mapping[str, Any]) -> None:
    """Let a process of its own, one for each study, look at a poll's rows and send what is due; the poll doesn't wait.

    Args:
        wanted: Run directories and tokens that were asked about.
    """
    known = [[run_dir, token, rows[run_dir]] for run_dir, token in wanted if run_dir in rows]
    for folder in open_ones(root):
        leave("polled", folder, root, known)

"""Tell what a poll of Slurm has found out, from the login node that was asked: ends that left no supervisor to tell of
them, and what compute nodes couldn't send.
"""

from __future__ import annotations

from typing import Any, Mapping, Optional, Sequence, Tuple

from .declared import leave, open_ones, read
from .telling import Row, Teller, by_records


def note(root: str, wanted: Sequence[Tuple[str, str]], rows: Mapping[str, Any]) -> None:
    """Note what is to be told of a poll's rows, and let a process of its own send what is due.

    Args:
        wanted: Run directories and tokens that were asked about.
    """
    asked = dict(wanted)

    def row_of(run_dir: str, token: str) -> Optional[Row]:
        return rows.get(run_dir) if asked.get(run_dir) == token else by_records(run_dir, token)

    for folder in open_ones(root):
        found = read(folder)
        if found is None or not found.is_slurm:
            continue
        is_over, due_s = Teller().look(found, row_of), found.outbox.next_s(found.notify)
        if due_s == 0:
            leave("send", folder)
        elif due_s is None and is_over:
            found.close()

"""Commands of a Slurm that takes jobs and starts none: for what the toolkit asks of it and makes of its answers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

COMMANDS = {
    "sbatch": """\
for last; do :; done
grep -q 'no such account' "$last" && { echo 'sbatch: error: Batch job submission failed: Invalid account' >&2; exit 1; }
echo "$*" >> "$0.calls"; echo Submitted batch job $(wc -l < "$0.calls")""",
    "srun": "exit 0",
    "squeue": '[ ! -e "$0.says" ] || cat "$0.says"',
    "sacct": '[ ! -e "$0.says" ] || cat "$0.says"',
    "scancel": 'echo "$*" >> "$0.calls"; : > "${0%scancel}squeue.says"',
    "sacctmgr": "echo 'sacctmgr: error: accounting is disabled' >&2; exit 1",
    "sinfo": "echo 'low|low*|up|infinite|1:00:00|4|gpu:8|(null)'",
    "scontrol": """\
[ "$2" = config ] || exit 0
echo 'Configuration data as of 2026-01-01T00:00:00'; echo 'ClusterName = c'; echo 'SLURM_VERSION = 23.11.4'""",
}
"""Command to its lines of shell; what ``squeue`` and ``sacct`` list is in a file beside them, ``squeue.says``."""


def stand_in_for_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put these commands first on PATH; return their folder."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, lines in COMMANDS.items():
        (folder / name).write_text(f"#!/bin/bash\n{lines}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # where squeue's answers are kept
    return folder

"""Send what runs have kept for Weights & Biases while they were offline, with its own command."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from ..agent.sentences import _
from ..errors import LocalError


def wandb_folders(run_dir: Path) -> list[Path]:
    """Return the folders of W&B's offline runs in a run directory, an attempt each, the first first.

    What was sent before is among them: W&B marks it itself, and passes it over.
    """
    found = (path.parent for path in run_dir.rglob("offline-run-*/run-*.wandb"))
    return sorted(found, key=lambda folder: folder.name)


def wandb_sync(run_dirs: Iterable[Path]) -> list[str]:
    """Return the argv of a command that sends the offline runs of run directories; empty where there are none.

    Raises:
        LocalError: W&B is not installed here.
    """
    folders = [str(folder) for run_dir in run_dirs for folder in wandb_folders(run_dir)]
    if not folders:
        return []
    # The one that the user's shell would find, else that of this Python, whose environment need not be active.
    program = shutil.which("wandb") or shutil.which("wandb", path=str(Path(sys.executable).parent))
    if not program:
        raise LocalError(
            _("{count} offline runs of W&B can't be sent: there is no wandb command here", len(folders)),
            hint="pip install wandb",
        )
    return [program, "sync", *folders]

"""Report what sending data to a target does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .common import narrate

if TYPE_CHECKING:
    from pathlib import Path

    from ..spec.study import Study
    from ..spec.target import Target


def send_data(project: Path, target: Target, study: Study) -> None:
    """Send a study's token files where the target lacks them, with progress."""
    from ..transfer.send import send_data as send
    from .progress import Meter

    meter = Meter("sending")
    try:
        sent = send(project, target, study, meter)
    finally:
        meter.end()
    narrate(f"sent to {target.name}: {', '.join(sent)}" if sent else f"{target.name} has the data already")

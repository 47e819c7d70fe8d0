"""Report what sending data to a target does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..agent.sentences import _
from .common import narrate

if TYPE_CHECKING:
    from pathlib import Path

    from ..spec.study import Study
    from ..spec.target import Target


def send_data(project: Path, target: Target, study: Study) -> None:
    """Send a study's token files where the target lacks them, with progress."""
    from ..transfer.send import send_data as send
    from .progress import Meter

    meter = Meter(_("sending"))
    try:
        sent = send(project, target, study, meter)
    finally:
        meter.end()
    if sent:
        narrate(_("sent to {target}: {files}", target=target.name, files=sent))
    else:
        narrate(_("{target} has the data already", target=target.name))

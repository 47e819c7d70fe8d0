"""Read the results of interleaved speed trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from oelm_jobs.agent.sentences import Sentence, _

from .. import statistics
from . import files
from .numbers import positive


class Rounds(msgspec.Struct, frozen=True):
    """Speeds of two arms side by side."""

    ratios: list[float] = []
    """One a paired round."""

    @property
    def estimate(self) -> statistics.Estimate | None:
        """The median log ratio; None where there are fewer than two rounds, or one has a ratio that can't be."""
        is_sound = len(self.ratios) > 1 and all(map(positive, self.ratios))
        return statistics.median(list(map(math.log, self.ratios))) if is_sound else None


class Comparison(Rounds, frozen=True, kw_only=True):
    """An entry of ``comparisons``."""

    group: str
    against: str
    flop_ratio: float | None = None


class Record(msgspec.Struct, frozen=True):
    """speed_trial.json."""

    comparisons: list[Comparison] = []
    control: Rounds = Rounds()


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The speed of two arms measured side by side (speed_trial.json)."""

    group: str
    """The arm in the numerator."""
    against: str
    """The arm in the denominator."""
    estimate: statistics.Estimate
    """Median log ratio over the paired rounds."""
    control: statistics.Estimate | None
    """The same of an arm against itself: near 0, or the trial is disturbed."""
    bound: float | None
    """Largest ratio that the counted operations allow; None where the file doesn't say."""
    path: Path
    """The file."""

    @property
    def control_is_off(self) -> bool:
        """True where the A/A control is more than 1 % off and its 95 % interval, if there is one, excludes 1."""
        if self.control is None or abs(self.control.mean) <= 0.01:
            return False
        low, high = self.control.interval(0.025)
        return math.isinf(low) or not low <= 0 <= high


def load_trials(paths: Sequence[Path]) -> tuple[list[Trial], list[Sentence]]:
    """Read speed_trial.json files; the second list says which were not understood."""
    trials: list[Trial] = []
    notes: list[Sentence] = []
    for path in paths:
        record, note = files.read(path, Record)
        if note:
            notes.append(note)
        if record is None:
            continue
        found = [
            Trial(
                group=entry.group,
                against=entry.against,
                estimate=estimate,
                control=record.control.estimate,
                bound=positive(entry.flop_ratio),
                path=path,
            )
            for entry in record.comparisons
            if (estimate := entry.estimate) is not None
        ]
        if not found:
            notes.append(files.not_understood(path.name, _("no paired rounds")))
        trials += found
    return trials, notes

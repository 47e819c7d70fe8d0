"""Read the results of interleaved speed trials."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from oelm_jobs.agent.sentences import Sentence, _

from .. import statistics
from . import files
from .numbers import positive


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
    bound: float | None = None
    """Largest ratio that the counted operations allow; None where the file doesn't say."""
    path: Path = Path()
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
        content, note = files.read(path, dict)
        if note:
            notes.append(note)
        if content is None:
            continue
        found = [replace(trial, path=path) for trial in _comparisons(content)]
        if not found:
            notes.append(files.not_understood(path.name, _("no paired rounds")))
        trials += found
    return trials, notes


def _comparisons(content: Mapping[str, Any]) -> list[Trial]:
    control = _estimate(content.get("control"))
    listed = content.get("comparisons")
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else [content]
    trials = []
    for entry in entries:
        estimate = _estimate(entry)
        if estimate is not None and entry.get("group") and entry.get("against"):
            trials.append(
                Trial(
                    group=str(entry["group"]), against=str(entry["against"]), estimate=estimate,
                    control=_estimate(entry.get("control")) or control,
                    bound=positive(entry.get("flop_ratio")),
                )
            )  # fmt: skip
    return trials


def _estimate(entry: Any) -> statistics.Estimate | None:
    """Return the median log ratio of an entry's ``ratios`` (one a paired round)."""
    if not isinstance(entry, dict):
        return None
    ratios = entry.get("ratios")
    if not isinstance(ratios, list) or len(ratios) < 2:
        return None
    known = [ratio for ratio in map(positive, ratios) if ratio is not None]
    return statistics.median([math.log(ratio) for ratio in known]) if len(known) == len(ratios) else None

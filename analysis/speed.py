"""Owns whether two arms' speeds can be compared, the interleaved trial and the counted bound; leaves the verdict to
``verdicts``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import files, statistics
from .records import LoadedRun
from .words import Text, text


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
        """True where the A/A control is more than 1 % off and its 95 % interval (if its rounds make one) excludes 1."""
        if self.control is None or abs(self.control.mean) <= 0.01:
            return False
        low, high = self.control.interval(0.025)
        return math.isinf(low) or not low <= 0 <= high


def incomparable(a: Sequence[LoadedRun], b: Sequence[LoadedRun]) -> Text | None:
    """Return why end-to-end speeds of two arms can't be compared: other GPU model, count or host, or any of them
    unknown.
    """
    seen: dict[str, tuple[set[str], set[str]]] = {}
    for position, arm in enumerate((a, b)):
        for run in arm:
            for key, value in (
                ("gpu_count", run.world_size),
                ("gpu_model", run.hardware.get("name")),
                ("host", run.hardware.get("host")),
            ):
                seen.setdefault(key, (set(), set()))[position].add(str(value) if value else "–")
    for key, (left, right) in seen.items():
        if left != right or len(left) > 1:
            return text("speed_unequal", what=text(key), a=tuple(sorted(left)), b=tuple(sorted(right)))
        if left == {"–"}:
            return text("speed_unknown", what=text(key))
    for key in ("batch_size", "gradient_accumulation_steps", "compile"):
        known = [{str(run.train[key]) for run in arm if key in run.train} for arm in (a, b)]
        if known[0] and known[1] and len(known[0] | known[1]) > 1:
            return text("speed_unequal", what=key, a=tuple(sorted(known[0])), b=tuple(sorted(known[1])))
    return None


def flop_bound(run: LoadedRun, trained: LoadedRun) -> float | None:
    """Return the largest speed ratio that freezing Q/K can give, from counted FLOPs per token; None where the shape
    is unknown.

    A trained product costs 6 FLOPs per parameter and token, a frozen one 4 (no weight gradient); attention
    12·layers·d·T (PaLM, appendix B). Position embeddings, biases and norms are no products. At the reference: 286.5 /
    280.2 MFLOP = 1.0225.
    """
    frozen, total = run.parameters.frozen, trained.parameters.total
    shape = {key: run.train.get(key) for key in ("d_model", "num_layers", "d_ff", "seq_len")}
    if (
        not frozen
        or not total
        or trained.parameters.frozen != 0
        or not all(isinstance(v, int) and v > 0 for v in shape.values())
    ):
        return None
    d, layers, ff, length = (int(shape[key]) for key in ("d_model", "num_layers", "d_ff", "seq_len"))  # type: ignore[arg-type]
    products = total - length * d - layers * (ff + d + 4 * d) - 2 * d
    full = 6 * products + 12 * layers * d * length
    return full / (full - 2 * frozen)


def load_trials(paths: Sequence[Path]) -> tuple[list[Trial], list[Text]]:
    """Read speed_trial.json files; the second list says which were not understood."""
    trials: list[Trial] = []
    notes: list[Text] = []
    for path in paths:
        content, note = files.read(path, dict)
        if note:
            notes.append(note)
        if content is None:
            continue
        found = [replace(trial, path=path) for trial in _comparisons(content)]
        if not found:
            notes.append(text("file_not_understood", name=path.name, why="no paired rounds"))
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
                    bound=_positive(entry.get("flop_ratio")),
                )
            )  # fmt: skip
    return trials


def _positive(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) and value > 0 else None


def _estimate(entry: Any) -> statistics.Estimate | None:
    """Return the median log ratio of an entry's ``ratios`` (one a paired round)."""
    if not isinstance(entry, dict):
        return None
    ratios = entry.get("ratios")
    if not isinstance(ratios, list) or len(ratios) < 2:
        return None
    if not all(isinstance(r, (int, float)) and not isinstance(r, bool) and math.isfinite(r) and r > 0 for r in ratios):
        return None
    return statistics.median([math.log(r) for r in ratios])

"""Read metrics.jsonl into curves, a block of lines at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path

import msgspec
import numpy as np

from oelm_jobs.agent.sentences import Sentence, _

from . import files
from .columns import Column, Columns
from .loaded_run import Curve, Validations

CHUNK = 8 << 20
"""Bytes that are decoded at a time."""
LONGEST_LINE = 1 << 20
"""Bytes; a longer line is no record."""

TRAINING = {name: name for name in ("step", "tokens", "loss", "lr", "tokens_per_s", "time")}
VALIDATION = {
    "step": "step",
    "tokens": "tokens",
    "loss": "val_loss",
    "full": "val_full",
    "sampled": "val_loss_sampled",
    "time": "time",
}
"""For each column the field of a record that it is made of."""

_decoder = msgspec.json.Decoder(files.Metric, strict=False)
_NO_RECORD = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def read(path: Path, notes: list[Sentence]) -> tuple[Curve | None, Validations | None]:
    """Return the training records and the validations of metrics.jsonl; append to ``notes`` what was not understood."""
    train, val = Columns(), Columns(keep_lowest="loss")
    not_understood = 0
    rest = b""
    try:
        with path.open("rb") as stream:
            while block := stream.read(CHUNK) + stream.readline(LONGEST_LINE):
                lines, _end, rest = block.rpartition(b"\n")
                records, bad = _decode(lines)
                not_understood += bad
                train.add(_columns(records, TRAINING))
                val.add(_columns([record for record in records if record.val_loss is not None], VALIDATION))
    except FileNotFoundError:
        return None, None
    except OSError as error:
        notes.append(files.not_understood(path.name, error.strerror or _("unreadable")))
    if rest:
        notes.append(files.cut_off(path.name))
    if not_understood:
        notes.append(_("{count} lines of {name} were not understood", not_understood, path.name))
    note_columns(train, notes, path.name)
    trained, validated = train.finish(), val.finish()
    return Curve(**trained) if trained else None, Validations(**validated) if validated else None


def note_columns(train: Columns, notes: list[Sentence], name: str) -> None:
    """Note what was replaced or thinned while training records were collected."""
    columns = train.finish()
    if train.repeated or train.restarts:
        said = _(
            "{count} records of {name} were replaced by later ones of the same step ({restarts} restarts)",
            f"{train.repeated:,}",
            name,
            train.restarts,
        )
        notes.append(said)
    if columns is not None and train.last_added_step < (reached := int(columns["step"][-1])):
        said = _(
            "{name} ends at step {step}, an earlier attempt had reached {reached}",
            name,
            f"{train.last_added_step:,}",
            f"{reached:,}",
        )
        notes.append(said)
    if train.stride > 1:
        notes.append(_("{name} is very long: one record in {stride} was kept", name, train.stride))


def _decode(lines: bytes) -> tuple[list[files.Metric], int]:
    """Return the records, and how many lines are none."""
    try:
        return _decoder.decode_lines(lines), 0
    except _NO_RECORD:
        records, bad = [], 0
        for line in filter(bytes.strip, lines.split(b"\n")):
            try:
                records.append(_decoder.decode(line))
            except _NO_RECORD:
                bad += 1
        return records, bad


def _columns(records: Sequence[files.Metric], fields: Mapping[str, str]) -> dict[str, Column]:
    return {column: np.array(list(map(attrgetter(field), records))) for column, field in fields.items()}


def steady_speed(curve: Curve | None) -> float | None:
    """Return the median of tokens per second, the first tenth of the records (warm-up of caches and compilers) left
    out.
    """
    if curve is None:
        return None
    steady = curve.tokens_per_s[len(curve.step) // 10 :]
    steady = steady[np.isfinite(steady)]
    return float(np.median(steady)) if len(steady) else None

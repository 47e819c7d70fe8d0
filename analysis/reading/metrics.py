"""Read metrics.jsonl into curves, a block of lines at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np

from oelm_jobs.agent.sentences import Sentence, _

from . import files
from .columns import Columns
from .loaded_run import Curve, Validations

CHUNK = 8 << 20
"""Bytes that are decoded at a time."""
LONGEST_LINE = 1 << 20
"""Bytes; a longer line is no record."""


def read(path: Path, notes: list[Sentence]) -> tuple[Curve | None, Validations | None, Sentence | None]:
    """Return the training records and the validations of metrics.jsonl, and the note that its last line is cut off;
    append to ``notes`` what was not understood, that note included.
    """
    train, val = Columns(), Columns(keep_lowest="loss")
    not_understood = 0
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        return None, None, None
    except OSError as error:
        notes.append(files.not_understood(path.name, error.strerror or _("unreadable")))
        return None, None, None
    with stream:
        for lines in _whole_lines(stream):
            records, bad = _decode(lines)
            not_understood += bad
            _add(records, train, val)
        is_cut_off = stream.tell() > 0 and stream.seek(-1, os.SEEK_END) >= 0 and stream.read(1) != b"\n"
    cut_off = files.cut_off(path.name) if is_cut_off else None
    if cut_off is not None:
        notes.append(cut_off)
    if not_understood:
        notes.append(_("{count} lines of {name} were not understood", not_understood, path.name))
    note_columns(train, notes, path.name)
    trained, validated = train.finish(), val.finish()
    return Curve(**trained) if trained else None, Validations(**validated) if validated else None, cut_off


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
    if columns is not None and train.last_added_step < int(columns["step"][-1]):
        said = _(
            "{name} ends at step {step}, an earlier attempt had reached {reached}",
            name,
            f"{train.last_added_step:,}",
            f"{int(columns['step'][-1]):,}",
        )
        notes.append(said)
    if train.stride > 1:
        notes.append(_("{name} is very long: one record in {stride} was kept", name, train.stride))


def _whole_lines(stream: BinaryIO) -> Iterator[bytes]:
    """Yield blocks of whole lines of at most CHUNK bytes; a last line without a newline is left out."""
    rest = b""
    while block := stream.read(CHUNK):
        cut = block.rfind(b"\n")
        if cut < 0:
            rest = (rest + block)[-(LONGEST_LINE + 1) :]
            continue
        yield rest + block[: cut + 1]
        rest = block[cut + 1 :]


_decoder = msgspec.json.Decoder(files.Metric)


def _decode(lines: bytes) -> tuple[list[files.Metric], int]:
    try:
        return _decoder.decode_lines(lines), 0
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        records, bad = [], 0
        for line in lines.split(b"\n"):
            if not line.strip():
                continue
            try:
                records.append(_decoder.decode(line))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                bad += 1
        return records, bad


def _add(records: list[files.Metric], train: Columns, val: Columns) -> None:
    if not records:
        return
    step = np.array([r.step for r in records], dtype=np.int64)
    tokens = np.array([r.tokens for r in records], dtype=np.float64)
    time = np.array([r.time for r in records], dtype=np.float64)
    train.add(
        {
            "step": step,
            "tokens": tokens,
            "loss": _floats([r.loss for r in records]),
            "lr": np.array([r.lr for r in records], dtype=np.float64),
            "tokens_per_s": np.array([r.tokens_per_s for r in records], dtype=np.float64),
            "time": time,
        }
    )
    rows = [i for i, r in enumerate(records) if r.val_loss is not None]
    if rows:
        val.add(
            {
                "step": step[rows],
                "tokens": tokens[rows],
                "loss": _floats([records[i].val_loss for i in rows]),
                "full": np.array([records[i].val_full for i in rows], dtype=np.bool_),
                "time": time[rows],
            }
        )


def _floats(values: list[Any]) -> Any:
    try:
        return np.array(values, dtype=np.float64)
    except ValueError:
        return np.array([files.number(value) for value in values], dtype=np.float64)


def steady_speed(curve: Curve | None) -> float | None:
    """Return the median of tokens per second, the first tenth of the records (warm-up of caches and compilers) left
    out.
    """
    if curve is None:
        return None
    steady = curve.tokens_per_s[len(curve.step) // 10 :]
    steady = steady[np.isfinite(steady)]
    return float(np.median(steady)) if len(steady) else None

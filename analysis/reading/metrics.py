"""Read metrics.jsonl into curves, a block of lines at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np

from ..words import Text, text
from . import files
from .columns import Columns
from .loaded_run import Curve, Validations

CHUNK = 8 << 20
"""Bytes that are decoded at a time."""
LONGEST_LINE = 1 << 20
"""Bytes; a longer line is no record."""


def read(path: Path, notes: list[Text]) -> tuple[Curve | None, Validations | None]:
    """Return the training records and the validations of metrics.jsonl; append to ``notes`` what was not understood."""
    train, val = Columns(), Columns(keep_lowest="loss")
    not_understood = 0
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        return None, None
    except OSError as error:
        notes.append(text("file_not_understood", name=path.name, why=error.strerror or "unreadable"))
        return None, None
    with stream:
        for lines in _whole_lines(stream):
            records, bad = _decode(lines)
            not_understood += bad
            _add(records, train, val)
        is_cut_off = stream.tell() > 0 and stream.seek(-1, os.SEEK_END) >= 0 and stream.read(1) != b"\n"
    if is_cut_off:
        notes.append(text("log_truncated", name=path.name))
    if not_understood:
        notes.append(text("lines_not_understood", name=path.name, count=not_understood))
    note_columns(train, notes, path.name)
    trained, validated = train.finish(), val.finish()
    return Curve(**trained) if trained else None, Validations(**validated) if validated else None


def note_columns(train: Columns, notes: list[Text], name: str) -> None:
    """Note what was replaced or thinned while training records were collected."""
    columns = train.finish()
    if train.repeated or train.restarts:
        notes.append(text("steps_repeated", name=name, count=f"{train.repeated:,}", restarts=train.restarts))
    if columns is not None and train.last_added_step < int(columns["step"][-1]):
        notes.append(
            text("ends_earlier", name=name, step=f"{train.last_added_step:,}", reached=f"{int(columns['step'][-1]):,}")
        )
    if train.stride > 1:
        notes.append(text("rows_thinned", name=name, stride=train.stride))


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

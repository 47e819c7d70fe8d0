"""Read scalars from TensorBoard's event files.

An event file is a sequence of TFRecords (length, its checksum, content, its checksum: tensorflow/core/lib/io/
record_writer.h), each an Event in protobuf's wire format (tensorflow/core/util/event.proto, summary.proto). TensorBoard
itself reads them with grpc, protobuf and numpy, and takes seconds to import; of all this only numbers by step are
needed. Checksums are not looked at: a record that was cut off is shorter than its length.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from oelm_jobs.agent.sentences import Sentence, _

from . import files

LONGEST = 64 << 20
"""Bytes of a record; a longer one is none."""
VARINT, EIGHT_BYTES, BYTES, FOUR_BYTES = 0, 1, 2, 5
"""Protobuf's wire types."""
STEP, SUMMARY = 2, 5
"""Fields of an Event."""
VALUE = 1
"""Field of a Summary."""
TAG, SIMPLE_VALUE, TENSOR = 1, 2, 8
"""Fields of a Summary.Value; the first version of TensorBoard's scalars is a float, the second a tensor."""
DTYPE, CONTENT, FLOATS, DOUBLES = 1, 4, 5, 6
INTEGERS = (7, 10)
"""Fields of a TensorProto."""
FORMATS = {1: "<f", 2: "<d", 3: "<i", 9: "<q"}
"""How one number of a type is packed (tensorflow/core/framework/types.proto)."""


def is_events(path: Path) -> bool:
    """Tell whether a file is one of these by its name."""
    return "tfevents" in path.name


def rows(path: Path, notes: list[Sentence]) -> Iterator[dict[str, float]]:
    """Yield the scalars of each event by tag, and its ``step``; append to ``notes`` what was not understood.

    Raises:
        OSError: The file can't be read.
    """
    with path.open("rb") as stream:
        while header := stream.read(12):
            length = struct.unpack("<Q", header[:8])[0] if len(header) == 12 else 0
            if length > LONGEST:
                notes.append(files.not_understood(path.name, _("it is no event file")))
                return
            record = stream.read(length + 4)
            if len(header) < 12 or len(record) < length + 4:
                notes.append(files.record_cut_off(path.name))
                return
            try:
                yield from _scalars(record[:length])
            except (ValueError, struct.error):
                notes.append(files.not_understood(path.name, _("it is no event file")))
                return


def _scalars(event: bytes) -> Iterator[dict[str, float]]:
    step, summaries = 0, []
    for field, value in _fields(event):
        if field == STEP and isinstance(value, int):
            step = value
        elif field == SUMMARY and isinstance(value, bytes):
            summaries.append(value)
    found: dict[str, float] = {}
    for summary in summaries:
        for field, value in _fields(summary):
            if field == VALUE and isinstance(value, bytes):
                tag, number = _scalar(value)
                if number is not None:
                    found[tag] = number
    if found:
        yield {**found, "step": step}


def _scalar(content: bytes) -> tuple[str, float | None]:
    tag, number = "", None
    for field, value in _fields(content):
        if field == TAG and isinstance(value, bytes):
            tag = value.decode("utf-8", errors="replace")
        elif field == SIMPLE_VALUE and isinstance(value, bytes):
            number = struct.unpack("<f", value)[0]
        elif field == TENSOR and isinstance(value, bytes):
            number = _tensor(value)
    return tag, number


def _tensor(content: bytes) -> float | None:
    """Return the number of a tensor that holds one; None of another."""
    found = dict(_fields(content))
    for field, form in ((FLOATS, "<f"), (DOUBLES, "<d"), (CONTENT, FORMATS.get(int(found.get(DTYPE, 0)), ""))):
        value = found.get(field)
        if form and isinstance(value, bytes) and len(value) == struct.calcsize(form):
            return float(struct.unpack(form, value)[0])
    for field in INTEGERS:
        value = found.get(field)
        number, end = _varint(value, 0) if isinstance(value, bytes) else (value, 0)
        if number is not None and (not isinstance(value, bytes) or end == len(value)):
            return float(number - (1 << 64) if number >= 1 << 63 else number)
    return None


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield a message's fields: number and content.

    Raises:
        ValueError: It is no message.
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        field, kind = key >> 3, key & 7
        if kind == VARINT:
            value, at = _varint(message, at)
            yield field, value
            continue
        if kind == BYTES:
            size, at = _varint(message, at)
        elif kind in (EIGHT_BYTES, FOUR_BYTES):
            size = 8 if kind == EIGHT_BYTES else 4
        else:
            raise ValueError(f"wire type {kind}")
        if at + size > len(message):
            raise ValueError("a field is longer than its message")
        yield field, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Return the number that begins at a place, and the place behind it."""
    value = shift = 0
    while at < len(message) and shift < 70:
        byte = message[at]
        value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            return value, at
    raise ValueError("a number without an end")

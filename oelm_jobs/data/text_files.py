"""A file of text in one of the formats, read in constant memory: plain text, JSON lines, parquet."""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..agent.sentences import _
from ..agent.transfer import samples
from ..encodings import conversion, name_encoding
from ..errors import DataError, valid_choices
from .token_folder import Oddities

CHUNK_BYTES = 1 << 20
Advance = Callable[[int], None]
"""Told how many more bytes of the sources have been read."""


@dataclass(frozen=True, kw_only=True)
class TextFile:
    """One file of a source, or a part of it."""

    path: Path
    """Where it lies."""
    name: str
    """How manifests call it: its path below the folder that was named, or its bare name."""
    kind: str
    """``text``, ``jsonl``, ``parquet`` or ``novels``."""
    start: int = 0
    """First byte (first row of a parquet file)."""
    stop: int | None = None
    """Byte (row) after the last one; None is the end."""


def read_text(file: TextFile, advance: Advance) -> Iterator[str]:
    """Yield a plain text in chunks.

    Raises:
        DataError: It is not UTF-8; the hint converts it.
    """
    decoder = codecs.getincrementaldecoder("utf-8-sig" if file.start == 0 else "utf-8")("strict")
    offset = file.start
    with open(file.path, "rb") as stream:
        stream.seek(offset)
        ended = False
        while not ended:
            wanted = CHUNK_BYTES if file.stop is None else min(CHUNK_BYTES, file.stop - offset)
            chunk = stream.read(wanted)
            ended = not chunk
            held = len(decoder.getstate()[0])
            try:
                text = decoder.decode(chunk, final=ended)
            except UnicodeDecodeError as error:
                where = offset - held + error.start
                is_wide = where < 4 or b"\0" in error.object  # then its beginning and its zeros tell
                content = error.object if is_wide else error.object[error.start :]
                raise _other_encoding(file.path, content, where, error.object[error.start]) from None
            if "\0" in text:
                if offset == 0 and name_encoding(chunk):
                    raise _other_encoding(file.path, chunk, 1, 0)
                raise DataError(
                    _("{path} is not text: it holds zero bytes (near byte {offset})", str(file.path), offset)
                )
            offset += len(chunk)
            advance(len(chunk))
            yield text


def _other_encoding(path: Path, content: bytes, where: int, byte: int) -> DataError:
    """Return the error about bytes that are not UTF-8, with the conversion that they need."""
    encoding = name_encoding(content)
    if encoding.startswith("UTF"):
        return DataError(
            _("{path} is {encoding} text, not UTF-8", str(path), encoding),
            hint=_("convert it: {command}", conversion(path, encoding)),
        )
    hint = _("if it is text, convert it: {command}", conversion(path, encoding)) if encoding else ""
    return DataError(_("{path} is not UTF-8 text (byte {offset} is 0x{byte:02x})", str(path), where, byte), hint=hint)


def read_jsonl(file: TextFile, field: str, advance: Advance, oddities: Oddities) -> Iterator[str]:
    """Yield the text of each line that isn't blank.

    Raises:
        DataError: A line is no JSON object with text in that field; says which.
    """
    import msgspec

    decoder = msgspec.json.Decoder()
    begin = offset = file.start

    def where() -> str:
        return _("{path}: the line at byte {offset}", str(file.path), begin)

    with open(file.path, "rb") as stream:
        stream.seek(offset)
        while (file.stop is None or offset < file.stop) and (line := stream.readline()):
            begin = offset
            offset += len(line)
            advance(len(line))
            line = line.removeprefix(codecs.BOM_UTF8).strip()
            if not line:
                continue
            try:
                record = decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                try:
                    record = _decode_leniently(line, oddities)
                except (ValueError, RecursionError):
                    encoding = name_encoding(line) if begin == 0 else ""
                    if encoding.startswith("UTF"):
                        raise _other_encoding(file.path, line, 0, line[0]) from None
                    raise DataError(_("{where} is not JSON: {why}", where(), str(error))) from None
            if not isinstance(record, dict):
                raise DataError(_("{where} is no object: {what}", where(), line[:40].decode(errors="replace")))
            if field not in record:
                raise DataError(
                    _("{where} has no field {field!r}; {choices}", where(), field, valid_choices(field, record)),
                    hint=_("choose one with --field"),
                )
            text = _text_of(record[field])
            if text is None:
                raise _no_text(_("{where}, field {field!r}", where(), field), record[field])
            yield _whole_characters(text, oddities)


def _decode_leniently(line: bytes, oddities: Oddities) -> object:
    """Return a line as Python's json reads it, which wrote most of those that the standard forbids: NaN and infinite
    numbers, and halves of characters (lone surrogates), also as bytes.

    Raises:
        ValueError: That can't read it either.
    """
    found: list[str] = []

    def constant(name: str) -> float:
        found.append(name)
        return float(name)

    record = json.loads(line.decode("utf-8", "surrogatepass"), parse_constant=constant)
    oddities.not_finite += bool(found)
    return record


def _whole_characters(text: str, oddities: Oddities) -> str:
    """Return text without lone surrogates: pairs become their character, halves U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
        return text
    except UnicodeEncodeError:
        whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        oddities.surrogates += whole.count("\ufffd") > text.count("\ufffd")
        return whole


def _text_of(value: object) -> str | None:
    """Return a field's text, None where it is none; null is an empty document, and so is NaN, which pandas writes for
    it.
    """
    if value is None or value != value:
        return ""
    return value if isinstance(value, str) else None


def _no_text(where: str, value: object) -> DataError:
    return DataError(_("{where}, is no text but {type}", where, type(value).__name__))


def read_parquet(file: TextFile, field: str, advance: Advance) -> Iterator[str]:
    """Yield the text of each row.

    Raises:
        DataError: There is no such column, or a row of it holds no text; says which.
    """
    parquet = open_parquet(file.path)
    names = parquet.schema_arrow.names
    if field not in names:
        raise DataError(
            _("{path} has no column {field!r}; {choices}", str(file.path), field, valid_choices(field, names)),
            hint=_("choose one with --field"),
        )
    num_rows = parquet.metadata.num_rows
    stop = num_rows if file.stop is None else file.stop
    bytes_per_row = os.path.getsize(file.path) / max(num_rows, 1)
    row, told = 0, 0
    for group in range(parquet.num_row_groups):
        size = parquet.metadata.row_group(group).num_rows
        if row + size <= file.start or row >= stop:
            row += size
            continue
        for batch in parquet.iter_batches(batch_size=1024, row_groups=[group], columns=[field], use_threads=False):
            try:
                values = batch.column(0).to_pylist()
            except UnicodeDecodeError as error:
                where = _("{path}: row {row}, column {field!r}", str(file.path), row, field)
                raise DataError(_("{where}, or near it: not UTF-8 text: {why}", where, str(error))) from None
            for index, value in enumerate(values, start=row):
                if file.start <= index < stop:
                    text = _text_of(value)
                    if text is None:
                        raise _no_text(_("{path}: row {row}, column {field!r}", str(file.path), index, field), value)
                    yield text
            row += len(values)
            done = int((min(row, stop) - file.start) * bytes_per_row)
            advance(done - told)
            told = done


def open_parquet(path: Path) -> Any:  # a ParquetFile; pyarrow ships no types
    """Open a parquet file.

    Raises:
        DataError: It is none, or pyarrow is missing.
    """
    try:
        import pyarrow.parquet
    except ImportError:
        raise DataError(
            _("reading {path} needs pyarrow, which is not installed", str(path)),
            hint=_("pip install 'oelm-jobs[parquet]'"),
        ) from None
    try:
        # A buffer of its own keeps a row group that is as large as the file out of memory.
        return pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=CHUNK_BYTES)
    except pyarrow.ArrowInvalid as error:
        is_pointer = samples.written_as(str(path)) == "lfs"
        hint = _("it is a Git LFS pointer: git lfs pull brings the file itself") if is_pointer else ""
        raise DataError(
            _("{path} is not a parquet file: {why}", str(path), str(error).splitlines()[0]), hint=hint
        ) from None

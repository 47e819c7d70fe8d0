"""Read text files as a stream of documents, in constant memory."""

from __future__ import annotations

import codecs
import json
import lzma
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ..agent.sentences import _
from ..encodings import conversion, name_encoding
from ..errors import DataError, valid_choices
from .token_folder import END_OF_TEXT, Oddities

KINDS = {".txt": "text", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
"""How a file is read, by the end of its name."""
NOVELS_PATH = Path(__file__).parents[1] / "text" / "austen.txt.xz"

CHUNK_BYTES = 1 << 20
PIECE_CHARS = 1 << 18
"""Longer documents come in pieces of about this size, so that one may be larger than the memory."""
LOOKAHEAD_CHARS = 1 << 14
"""How far past `PIECE_CHARS` a place is sought where cutting changes no token."""

# GPT-2's pattern never joins a lone blank to what stands before it: encoding both sides separately gives the same ids.
_HARMLESS_CUT = re.compile(r"(?<=\S)[ \n](?=\S)")
_CHAPTER = re.compile(r"(?m)^(?= *(?:CHAPTER|Chapter) +[IVXLC\d]+\.?\s*$)")
_VALIDATION_NAME = re.compile(r"(?:^|[-_.])(?:val|valid|validation|dev)(?:[-_.]|$)", re.IGNORECASE)

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


class Piece(NamedTuple):
    """A document, or a piece of a long one."""

    text: str
    first: bool
    """Begins a document."""
    last: bool
    """Ends it."""


def novels() -> TextFile:
    """Return the embedded text; each chapter is a document."""
    return TextFile(path=NOVELS_PATH, name=NOVELS_PATH.name, kind="novels")


def find_files(sources: Sequence[Path]) -> list[TextFile]:
    """Return the text files that the sources name; folders are searched recursively, in order.

    Raises:
        DataError: A source is missing, of no known kind, or a folder without text.
    """
    found: dict[Path, TextFile] = {}
    for source in sources:
        if source.is_dir():
            paths = sorted(path for path in source.rglob("*") if _is_text(path.relative_to(source)) and path.is_file())
            if not paths:
                raise DataError(
                    _("{path} holds no text; valid: files that end in {endings}", path=str(source), endings=list(KINDS))
                )
        elif not source.exists():
            near = source.parent.iterdir() if source.parent.is_dir() else ()
            choices = valid_choices(source.name, [path.name for path in near if _is_text(Path(path.name))])
            raise DataError(
                _(
                    "{path} does not exist; in {folder}: {choices}",
                    path=str(source),
                    folder=str(source.parent),
                    choices=choices,
                )
            )
        elif source.suffix.lower() not in KINDS:
            what = source.suffix or _("a file without an ending")
            raise DataError(
                _("{path}: can't read {what}; valid: {choices}", path=str(source), what=what, choices=list(KINDS))
            )
        else:
            paths = [source]
        for path in paths:
            name = path.relative_to(source).as_posix() if source.is_dir() else path.name
            found.setdefault(path.resolve(), TextFile(path=path, name=name, kind=KINDS[path.suffix.lower()]))
    return list(found.values())


def _is_text(path: Path) -> bool:
    return path.suffix.lower() in KINDS and not any(part.startswith(".") for part in path.parts)


def split_by_name(files: Sequence[TextFile]) -> tuple[list[TextFile], list[TextFile]]:
    """Return training and validation files; what its publisher called validation never becomes training text.

    `validation-00000-of-00001-….parquet` and `TinyStories-valid.txt` are such names. Where all files have one, all are
    training files.
    """
    validation = [file for file in files if _VALIDATION_NAME.search(file.path.stem)]
    train = [file for file in files if file not in validation]
    return (train, validation) if train else (list(files), [])


def is_separated(file: TextFile) -> bool:
    """Tell whether a file holds several documents; a plain text without `END_OF_TEXT` (in its first MiB) is one."""
    if file.kind != "text":
        return True
    with open(file.path, "rb") as stream:
        return END_OF_TEXT.encode() in stream.read(CHUNK_BYTES)


def cut_tail(file: TextFile, fraction: float) -> tuple[TextFile, TextFile]:
    """Split a file into its beginning and its last ``fraction``.

    The cut lies between documents; in a plain text of one document, at a blank line, a line's end or a blank.
    """
    if file.kind == "parquet":
        cut = int((1 - fraction) * _open_parquet(file.path).metadata.num_rows)
    else:
        size = file.path.stat().st_size
        with open(file.path, "rb") as stream:
            stream.seek(int((1 - fraction) * size))
            if file.kind == "jsonl":
                stream.readline()
                cut = stream.tell()
            elif is_separated(file):
                cut = _after(stream, END_OF_TEXT.encode())
            else:
                cut = _after_blank(stream)
    return replace(file, stop=cut), replace(file, start=cut)


def _after(stream: BinaryIO, mark: bytes) -> int:
    """Return the offset after the next ``mark``, or of the end."""
    window = b""
    while chunk := stream.read(CHUNK_BYTES):
        window = window[-len(mark) :] + chunk
        found = window.find(mark)
        if found >= 0:
            return stream.tell() - len(window) + found + len(mark)
    return stream.tell()


def _after_blank(stream: BinaryIO) -> int:
    start = stream.tell()
    window = stream.read(LOOKAHEAD_CHARS * 4)
    for mark in (b"\n\n", b"\n", b" "):
        found = window.find(mark)
        if found >= 0:
            return start + found + len(mark)
    # No blank at all: only don't cut inside a character (UTF-8 continues it with 0b10xxxxxx).
    return start + next((i for i, byte in enumerate(window) if byte & 0xC0 != 0x80), len(window))


def read_documents(
    file: TextFile,
    *,
    field: str = "text",
    advance: Advance = lambda _: None,
    oddities: Oddities | None = None,
) -> Iterator[Piece]:
    """Yield the documents of a file, blanks at their ends removed, empty ones left out.

    Args:
        file: What to read.
        field: Column of a parquet file or key of a JSON line that holds the text.
        advance: Called with the number of bytes read, every few bytes.
        oddities: Counts what was read although strict parsers refuse it.

    Raises:
        DataError: The file is not what its name says; says where.
    """
    if file.kind == "parquet":
        return cut_documents(text + END_OF_TEXT for text in _read_parquet(file, field, advance))
    if file.kind == "jsonl":
        texts = _read_jsonl(file, field, advance, oddities if oddities is not None else Oddities())
        return cut_documents(text + END_OF_TEXT for text in texts)
    if file.kind == "novels":
        text = lzma.decompress(file.path.read_bytes()).decode("utf-8")
        advance(file.path.stat().st_size)
        return cut_documents([END_OF_TEXT.join(_CHAPTER.split(text))])
    return cut_documents(_read_text(file, advance))


def cut_documents(chunks: Iterable[str]) -> Iterator[Piece]:
    """Yield the documents of a text that arrives in chunks of any size, holding one piece and one chunk in memory."""
    rest, first = "", True
    for chunk in chunks:
        rest += chunk
        *ended, rest = rest.split(END_OF_TEXT)
        for document in ended:
            yield from _cut_pieces(document, first, ended=True)
            first = True
        if len(rest) > PIECE_CHARS + LOOKAHEAD_CHARS:
            for piece in _cut_pieces(rest, first, ended=False):
                if piece.last:
                    rest = piece.text
                else:
                    yield piece
                    first = False
    yield from _cut_pieces(rest, first, ended=True)


def _cut_pieces(text: str, first: bool, *, ended: bool) -> Iterator[Piece]:
    """Yield a document's pieces; to the last one more text may have to be appended.

    Where the first piece ends depends on the document alone, not on how it was read: its hash decides the split.
    """
    if first:
        text = text.lstrip()
    if ended:
        text = text.rstrip()
        if first and not text:
            return
    start = 0
    while len(text) - start > PIECE_CHARS + LOOKAHEAD_CHARS:
        # The search stops short of the look-ahead's end: a separator may have begun there.
        cut = _HARMLESS_CUT.search(text, start + PIECE_CHARS, start + PIECE_CHARS + LOOKAHEAD_CHARS - len(END_OF_TEXT))
        stop = cut.start() if cut else start + PIECE_CHARS
        yield Piece(text[start:stop], first, False)
        start, first = stop, False
    yield Piece(text[start:], first, True)


def _read_text(file: TextFile, advance: Advance) -> Iterator[str]:
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
                    _(
                        "{path} is not text: it holds zero bytes (near byte {offset})",
                        path=str(file.path),
                        offset=offset,
                    )
                )
            offset += len(chunk)
            advance(len(chunk))
            yield text


def _other_encoding(path: Path, content: bytes, where: int, byte: int) -> DataError:
    """Return the error about bytes that are not UTF-8, with the conversion that they need."""
    encoding = name_encoding(content)
    if encoding.startswith("UTF"):
        return DataError(
            _("{path} is {encoding} text, not UTF-8", path=str(path), encoding=encoding),
            hint=_("convert it: {command}", command=conversion(path, encoding)),
        )
    hint = _("if it is text, convert it: {command}", command=conversion(path, encoding)) if encoding else ""
    return DataError(
        _("{path} is not UTF-8 text (byte {offset} is 0x{byte:02x})", path=str(path), offset=where, byte=byte),
        hint=hint,
    )


def _read_jsonl(file: TextFile, field: str, advance: Advance, oddities: Oddities) -> Iterator[str]:
    import msgspec

    decoder = msgspec.json.Decoder()
    offset = file.start
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
                    raise DataError(
                        _(
                            "{path}: the line at byte {offset} is not JSON: {why}",
                            path=str(file.path),
                            offset=begin,
                            why=str(error),
                        )
                    ) from None
            if not isinstance(record, dict):
                raise DataError(
                    _(
                        "{path}: the line at byte {offset} is no object: {what}",
                        path=str(file.path),
                        offset=begin,
                        what=line[:40].decode(errors="replace"),
                    )
                )
            if field not in record:
                raise DataError(
                    _(
                        "{path}: the line at byte {offset} has no field {field!r}; {choices}",
                        path=str(file.path),
                        offset=begin,
                        field=field,
                        choices=valid_choices(field, record),
                    ),
                    hint=_("choose one with --field"),
                )
            text = _text_of(record[field])
            if text is None:
                raise DataError(
                    _(
                        "{path}: the line at byte {offset}, field {field!r}, is no text but {type}",
                        path=str(file.path),
                        offset=begin,
                        field=field,
                        type=type(record[field]).__name__,
                    )
                )
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


def _read_parquet(file: TextFile, field: str, advance: Advance) -> Iterator[str]:
    parquet = _open_parquet(file.path)
    names = parquet.schema_arrow.names
    if field not in names:
        raise DataError(
            _(
                "{path} has no column {field!r}; {choices}",
                path=str(file.path),
                field=field,
                choices=valid_choices(field, names),
            ),
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
                raise DataError(
                    _(
                        "{path}: column {field!r} is not UTF-8 text near row {row}: {why}",
                        path=str(file.path),
                        field=field,
                        row=row,
                        why=str(error),
                    )
                ) from None
            for index, value in enumerate(values, start=row):
                if file.start <= index < stop:
                    text = _text_of(value)
                    if text is None:
                        raise DataError(
                            _(
                                "{path}: row {row}, column {field!r}, is no text but {type}",
                                path=str(file.path),
                                row=index,
                                field=field,
                                type=type(value).__name__,
                            )
                        )
                    yield text
            row += len(values)
            done = int((min(row, stop) - file.start) * bytes_per_row)
            advance(done - told)
            told = done


def _open_parquet(path: Path):  # type: ignore[no-untyped-def]  # pyarrow ships no types
    try:
        import pyarrow.parquet
    except ImportError:
        raise DataError(
            _("reading {path} needs pyarrow, which is not installed", path=str(path)),
            hint=_("pip install 'oelm-jobs[parquet]'"),
        ) from None
    try:
        # A buffer of its own keeps a row group that is as large as the file out of memory.
        return pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=CHUNK_BYTES)
    except pyarrow.ArrowInvalid as error:
        with open(path, "rb") as stream:
            pointer = stream.read(23) == b"version https://git-lfs"
        hint = _("it is a Git LFS pointer: git lfs pull brings the file itself") if pointer else ""
        raise DataError(
            _("{path} is not a parquet file: {why}", path=str(path), why=str(error).splitlines()[0]), hint=hint
        ) from None

"""Read text files as a stream of documents, in constant memory."""

from __future__ import annotations

import lzma
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ..agent.sentences import _
from ..errors import DataError, valid_choices
from .text_files import CHUNK_BYTES, Advance, TextFile, open_parquet, read_jsonl, read_parquet, read_text
from .token_folder import END_OF_TEXT, Oddities

KINDS = {".txt": "text", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
"""How a file is read, by the end of its name."""
NOVELS_PATH = Path(__file__).parents[1] / "text" / "austen.txt.xz"

PIECE_CHARS = 1 << 18
"""Longer documents come in pieces of about this size, so that one may be larger than the memory."""
LOOKAHEAD_CHARS = 1 << 14
"""How far past `PIECE_CHARS` a place is sought where cutting changes no token."""

# GPT-2's pattern never joins a lone blank to what stands before it: encoding both sides separately gives the same ids.
_HARMLESS_CUT = re.compile(r"(?<=\S)[ \n](?=\S)")
_CHAPTER = re.compile(r"(?m)^(?= *(?:CHAPTER|Chapter) +[IVXLC\d]+\.?\s*$)")
_VALIDATION_NAME = re.compile(r"(?:^|[-_.])(?:val|valid|validation|dev)(?:[-_.]|$)", re.IGNORECASE)


class DocumentPiece(NamedTuple):
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
                raise DataError(_("{path} holds no text; valid: files that end in {endings}", str(source), list(KINDS)))
        elif not source.exists():
            near = source.parent.iterdir() if source.parent.is_dir() else ()
            choices = valid_choices(source.name, [path.name for path in near if _is_text(Path(path.name))])
            raise DataError(
                _("{path} does not exist; in {folder}: {choices}", str(source), str(source.parent), choices)
            )
        elif source.suffix.lower() not in KINDS:
            what = source.suffix or _("a file without an ending")
            raise DataError(_("{path}: can't read {what}; valid: {choices}", str(source), what, list(KINDS)))
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
        cut = int((1 - fraction) * open_parquet(file.path).metadata.num_rows)
    else:
        size = file.path.stat().st_size
        with open(file.path, "rb") as stream:
            stream.seek(int((1 - fraction) * size))
            if is_separated(file):
                cut = _after(stream, b"\n" if file.kind == "jsonl" else END_OF_TEXT.encode())
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
) -> Iterator[DocumentPiece]:
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
        return cut_documents(text + END_OF_TEXT for text in read_parquet(file, field, advance))
    if file.kind == "jsonl":
        texts = read_jsonl(file, field, advance, oddities if oddities is not None else Oddities())
        return cut_documents(text + END_OF_TEXT for text in texts)
    if file.kind == "novels":
        text = lzma.decompress(file.path.read_bytes()).decode("utf-8")
        advance(file.path.stat().st_size)
        return cut_documents([END_OF_TEXT.join(_CHAPTER.split(text))])
    return cut_documents(read_text(file, advance))


def cut_documents(chunks: Iterable[str]) -> Iterator[DocumentPiece]:
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


def _cut_pieces(text: str, first: bool, *, ended: bool) -> Iterator[DocumentPiece]:
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
        yield DocumentPiece(text[start:stop], first, False)
        start, first = stop, False
    yield DocumentPiece(text[start:], first, True)

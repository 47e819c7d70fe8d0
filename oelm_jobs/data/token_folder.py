"""Read a token folder (`train.bin`, `val.bin`, `manifest.json`)."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from ..agent.sentences import _
from ..errors import DataError

VERSION = 1
END_OF_TEXT = "<|endoftext|>"
"""Ends every document; in a source it separates documents, whatever the source's format."""
TRAIN, VAL, TEST, MANIFEST = "train.bin", "val.bin", "test.bin", "manifest.json"


class Tokenizer(msgspec.Struct, frozen=True, kw_only=True):
    """The vocabulary of the ids."""

    name: str
    """``gpt2``, or ``gpt2-1024`` for its first 1,023 ranks."""
    vocab_size: int
    """Every id is below it."""
    eot: int
    """Ends each document."""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A text file that the tokens were made from."""

    name: str
    """Its path below the folder that was named, or its bare name."""
    sha256: str
    """Of the file as it was."""
    size: int = 0
    """Its length in bytes."""


class Split(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How validation was separated from training text."""

    unit: str
    """``document`` (chosen by hash), ``tail`` (the last part of each file) or ``source`` (files of its own)."""
    val_fraction: float | None = None
    """Share that was asked for; None with ``source``."""
    source: list[Source] = []
    """The validation files."""
    test_fraction: float | None = None
    """Share of the training text that was set apart as test text; None where none was."""


class TokenFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of ids."""

    tokens: int
    """How many ids."""
    size: int
    """Its length in bytes, twice the tokens."""
    sha256: str
    """Of its content."""
    documents: int = 0
    """How many documents, each ended by ``eot``."""


class Duplicates(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of documents that are equal, apart from blanks at their ends."""

    val_in_train: int
    """Validation documents that are training documents too: what a model may know by heart."""
    within_train: int
    """Training documents that repeat an earlier one."""


class Oddities(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Counts of text that was read although strict JSON parsers reject it."""

    not_finite: int = 0
    """Lines that hold NaN or an infinite number."""
    surrogates: int = 0
    """Texts with halves of characters (lone surrogates), which became U+FFFD."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a token folder's ``manifest.json``: its files, and what they were made from."""

    version: int = VERSION
    """Of this format."""
    tokenizer: Tokenizer
    """The vocabulary of the ids."""
    dtype: str = "uint16"
    """Little-endian, flat."""
    field: str | None = None
    """Column or key that held the text, of sources that have such."""
    source: list[Source]
    """The text files, in order."""
    split: Split
    """How validation was separated."""
    files: dict[str, TokenFile]
    """By file name."""
    duplicates: Duplicates | None = None
    """None where they weren't counted."""
    oddities: Oddities | None = None
    """None where the text had none."""


def how_to_make(folder: Path, name: str = "") -> str:
    """Return the command that makes a token folder, with that file in it."""
    command = "oelm-data demo" if folder.name == "demo" else f"oelm-data make TEXT... --output {folder}"
    return command if name != TEST else f"{command} --test{' --force' if (folder / TRAIN).exists() else ''}"


def read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest of a token folder, None where there is none (data without one are legal).

    Raises:
        DataError: There is one, and it can't be read.
    """
    path = folder / MANIFEST
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(
            _("{path} can't be read: {why}", str(path), str(error)), hint=_("oelm-data make … --force writes it anew")
        ) from error


def hash_tokens(path: Path, advance: Callable[[int], None] = lambda _: None) -> str:
    """Return the sha256 of a file in hexadecimal; streams."""
    digest = hashlib.sha256()
    with explained(path), open(path, "rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
            advance(len(chunk))
    return digest.hexdigest()


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the operating system's errors into DataError; the one that names a file of its own keeps that name."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        raise DataError(_("{path}: {why}", str(error.filename or path), why)) from error

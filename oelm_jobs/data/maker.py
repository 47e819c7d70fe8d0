"""Make a token folder from text: split it, count tokens, and give complete files their final names."""

from __future__ import annotations

import contextlib
import hashlib
import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from ..agent.host.devices import cores
from ..agent.rundir import write_text
from ..agent.sentences import _, joined
from ..errors import DataError
from . import corpus, tokenizer
from .atomic import publish, scratch_folder
from .text_files import TextFile
from .token_folder import (
    END_OF_TEXT,
    MANIFEST,
    TEST,
    TRAIN,
    VAL,
    Duplicates,
    Manifest,
    Oddities,
    Source,
    Split,
    TokenFile,
    Tokenizer,
    explained,
    hash_tokens,
    read_manifest,
)

BATCH_CHARS = 1 << 20
"""How much text is encoded at once: a tenth of a second's work."""
BYTES_PER_PROCESS = 8 << 20
"""A process is started only for this much text, since starting one takes as long as encoding a good deal of it."""
MANY_FILES = 100
"""From this many plain texts on, whole texts are validation rather than the tail of each."""

Report = Callable[[str, int, int], None]
"""Told the stage (``hash``, ``encode``), its bytes in all and how many more are done."""


class Made(NamedTuple):
    """The result of `make`."""

    manifest: Manifest
    up_to_date: bool
    """The folder held exactly this already; nothing was written."""


def demo(
    output: Path, *, vocab_size: int = 1024, test: bool = False, force: bool = False, report: Report = lambda *_: None
) -> Made:
    """Make a token folder of the embedded novels, a twentieth of the chapters for validation; see `make`."""
    tokenizer.check_vocab_size(vocab_size)
    split = Split(unit="document", val_fraction=0.05, test_fraction=0.05 if test else None)
    recipe = _Recipe(train=[corpus.novels()], validation=[], split=split, field=None, vocab_size=vocab_size, every=20)
    return _make(recipe, output, processes=1, force=force, report=report)


def make(
    sources: Sequence[Path],
    output: Path,
    *,
    validation: Sequence[Path] = (),
    val_fraction: float = 0.05,
    unit: str = "auto",
    test: bool = False,
    field: str = "text",
    vocab_size: int = 50257,
    processes: int = 0,
    force: bool = False,
    report: Report = lambda *_: None,
) -> Made:
    """Make a token folder of text; the same text and options give the same bytes, whatever the number of processes.

    Args:
        sources: Files (.txt, .jsonl, .parquet) or folders of them.
        output: The folder to make. Its three files appear under their names only when complete.
        validation: Files or folders of validation text. Without them, files whose names say so (``validation-…``) are
            used, and without such the sources are split.
        val_fraction: Share of the sources that becomes validation where they are split.
        unit: What is split: ``document`` (by the document's hash, so that equal ones stay together), ``tail`` (the last
            part of each file) or ``auto`` (``tail`` for a few plain texts without separators, else ``document``).
        test: Set as large a share of the sources apart again, as test text, by which nothing is chosen.
        field: Column of parquet files or key of JSON lines that holds the text.
        vocab_size: 50257 is GPT-2's vocabulary; less truncates it.
        processes: How many encode; 0 is one per usable CPU.
        force: Replace other data in ``output``.
        report: Called with progress.

    Raises:
        DataError: A source can't be read, there is too little text for a split, or ``output`` holds other data.
    """
    tokenizer.check_vocab_size(vocab_size)
    if unit not in ("auto", "document", "tail"):
        raise DataError(_("no split by {unit!r}; valid: auto, document, tail", unit))
    if not 0 < val_fraction < 1:
        wrong = _(
            "a validation share of {share} can't be; valid: more than 0, less than 1 (for instance 0.05)", val_fraction
        )
        raise DataError(wrong)
    with explained(output):
        train, val = corpus.split_by_name(corpus.find_files(sources))
        if validation:
            val = corpus.find_files(validation)
            held_out = {file.path.resolve() for file in val}
            train = [file for file in train if file.path.resolve() not in held_out]
            if not train:
                raise DataError(_("all the text is validation text"), hint=_("name other files than those of --val"))
        if val:
            split = Split(unit="source")
        elif unit == "auto":
            few_texts = len(train) < MANY_FILES and not any(corpus.is_separated(file) for file in train)
            split = Split(unit="tail" if few_texts else "document", val_fraction=val_fraction)
        else:
            split = Split(unit=unit, val_fraction=val_fraction)
        if test and val_fraction >= 0.5:
            raise DataError(_("two shares of {share} leave nothing to train on", val_fraction))
        split = msgspec.structs.replace(split, test_fraction=val_fraction if test else None)
        named = field if any(file.kind in ("jsonl", "parquet") for file in [*train, *val]) else None
        recipe = _Recipe(train=train, validation=val, split=split, field=named, vocab_size=vocab_size)
        return _make(recipe, output, processes=processes or cores(), force=force, report=report)


@dataclass(frozen=True, kw_only=True)
class _Recipe:
    """The options that determine the bytes of the result."""

    train: list[TextFile]
    """Text to train on, and to split where `validation` is empty."""
    validation: list[TextFile]
    """Text of its own to validate on."""
    split: Split
    """How, without the hashes of the validation files."""
    field: str | None
    """Column or key that holds the text."""
    vocab_size: int
    """Entries of GPT-2's vocabulary that are used."""
    every: int | None = None
    """Validate on every n-th document; None chooses by hash, which is fair but only roughly right for a few hundred."""

    @property
    def names(self) -> tuple[str, ...]:
        """The files of ids that are made."""
        return (TRAIN, VAL) if self.split.test_fraction is None else (TRAIN, VAL, TEST)

    @property
    def files(self) -> list[TextFile]:
        return [*self.validation, *self.train]

    def parts(self) -> Iterator[tuple[TextFile, str | None]]:
        """Yield what to read in order, and the file that it goes to, None where each document's hash decides."""
        for file in self.validation:
            yield file, VAL
        for file in self.train:
            if self.split.unit == "tail" and self.split.val_fraction is not None:
                head, tail = corpus.cut_tail(file, self.split.val_fraction)
                if self.split.test_fraction is not None:
                    test = tail
                    head, tail = corpus.cut_tail(file, self.split.val_fraction + self.split.test_fraction)
                    tail = replace(tail, stop=test.start)
                yield head, TRAIN
                yield tail, VAL
                if self.split.test_fraction is not None:
                    yield test, TEST
            else:
                yield file, TRAIN if self.validation and self.split.test_fraction is None else None

    def side(self, index: int, digest: int) -> str:
        """Return the file for a document by its number and the hash (64 bits) of its first piece.

        Equal documents have equal hashes, so that both copies land on one side.
        """
        val, test = self.split.val_fraction or 0, self.split.test_fraction or 0
        if self.every is not None:
            place = index % self.every
            return VAL if place == self.every - 1 else TEST if test and place == self.every // 2 - 1 else TRAIN
        return VAL if digest < val * 2**64 else TEST if digest < (val + test) * 2**64 else TRAIN


def _make(recipe: _Recipe, output: Path, *, processes: int, force: bool, report: Report) -> Made:
    with explained(output):
        before = [file.path.stat() for file in recipe.files]
        total = sum(state.st_size for state in before)
        wanted = _manifest(recipe, partial(report, "hash", total))
        if not force and (present := _present(output, wanted)):
            return Made(present, True)
        output = output.resolve()  # a link to another disk stays one
        with scratch_folder(output) as scratch, contextlib.ExitStack() as opened:
            writers = {name: _Writer(opened.enter_context(open(scratch / name, "xb"))) for name in recipe.names}
            oddities = Oddities()
            batches = _batches(recipe, writers, oddities, partial(report, "encode", total))
            processes = min(processes, 1 + total // BYTES_PER_PROCESS)
            for name, tokens in tokenizer.encode_batches(batches, recipe.vocab_size, processes=processes):
                writers[name].write(tokens)
            for file, old in zip(recipe.files, before, strict=True):
                new = file.path.stat()
                if (old.st_size, old.st_mtime_ns) != (new.st_size, new.st_mtime_ns):
                    raise DataError(
                        _("{path} was changed while it was read", str(file.path)),
                        hint=_("run it again when it is whole"),
                    )
            made = msgspec.structs.replace(
                wanted,
                files={name: writer.finish() for name, writer in writers.items()},
                duplicates=_count_duplicates(writers[TRAIN].hashes, writers[VAL].hashes),
                oddities=oddities if oddities != Oddities() else None,
            )
            _refuse_empty(made)
            write_text(scratch / MANIFEST, msgspec.json.format(msgspec.json.encode(made), indent=1).decode() + "\n")
            # a test file of the text before would be judged on, and may be trained on by now
            stale = [TEST] if force and TEST not in recipe.names else []
            publish(scratch, output, (*recipe.names, MANIFEST), replace=force, stale=stale)
    return Made(made, False)


def _manifest(recipe: _Recipe, advance: Callable[[int], None]) -> Manifest:
    """Return the manifest as far as it is known before anything is encoded; reads every source once for its hash."""

    def source(file: TextFile) -> Source:
        return Source(name=file.name, sha256=hash_tokens(file.path, advance), size=file.path.stat().st_size)

    size = recipe.vocab_size
    return Manifest(
        tokenizer=Tokenizer(name=tokenizer.tokenizer_name(size), vocab_size=size, eot=size - 1),
        field=recipe.field,
        source=[source(file) for file in recipe.train],
        split=msgspec.structs.replace(recipe.split, source=[source(file) for file in recipe.validation]),
        files={},
    )


def _batches(
    recipe: _Recipe, writers: dict[str, _Writer], oddities: Oddities, advance: Callable[[int], None]
) -> Iterator[tuple[str, str]]:
    """Yield ``(file name, text)`` to encode, enter each document's hash with its writer, and count oddities."""
    held: dict[str, list[str]] = {name: [] for name in recipe.names}
    chars = dict.fromkeys(recipe.names, 0)
    name, index = TRAIN, -1
    for part, fixed in recipe.parts():
        pieces = corpus.read_documents(part, field=recipe.field or "", advance=advance, oddities=oddities)
        for text, first, last in pieces:
            if first:
                digest = hashlib.blake2b(text.encode("utf-8"), digest_size=8)
                index += 1
                name = fixed or recipe.side(index, int.from_bytes(digest.digest(), "little"))
            else:
                digest.update(text.encode("utf-8"))
            held[name].append(text)
            chars[name] += len(text)
            if last:
                held[name].append(END_OF_TEXT)
                writers[name].hashes.append(int.from_bytes(digest.digest(), "little"))
            if chars[name] >= BATCH_CHARS:
                yield name, "".join(held[name])
                held[name].clear()
                chars[name] = 0
    for name, texts in held.items():
        if texts:
            yield name, "".join(texts)


class _Writer:
    """Writes one file of ids, counting and hashing; keeps 8 bytes for each document (17 MB for TinyStories)."""

    def __init__(self, stream: BinaryIO) -> None:
        self.hashes = array("Q")
        self._digest = hashlib.sha256()
        self._size = 0
        self._stream = stream

    def write(self, tokens: bytes) -> None:
        self._stream.write(tokens)
        self._digest.update(tokens)
        self._size += len(tokens)

    def finish(self) -> TokenFile:
        """Make the file durable and return its description."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        return TokenFile(
            tokens=self._size // 2, size=self._size, sha256=self._digest.hexdigest(), documents=len(self.hashes)
        )


def _count_duplicates(train: array[int], val: array[int]) -> Duplicates:
    """Count by hashes; sorts ``train`` in place, since a copy would be the peak of the memory."""
    import numpy as np

    train_hashes, val_hashes = np.frombuffer(train, np.uint64), np.frombuffer(val, np.uint64)
    train_hashes.sort()
    places = np.searchsorted(train_hashes, val_hashes)
    inside = places < len(train_hashes)
    return Duplicates(
        val_in_train=int((train_hashes[places[inside]] == val_hashes[inside]).sum()),
        within_train=int((train_hashes[1:] == train_hashes[:-1]).sum()),
    )


def _refuse_empty(made: Manifest) -> None:
    for name, kind in ((TRAIN, _("training")), (VAL, _("validation")), (TEST, _("test"))):
        if name in made.files and not made.files[name].tokens:
            hint = _("name more text, or validation text with --val, or use --split tail")
            if made.split.unit == "source":
                hint = _("name more text")
            documents = sum(file.documents for file in made.files.values())
            found = _("no {kind} text is left: the sources hold {n} documents", kind, documents)
            if documents == 1:
                found = _("no {kind} text is left: the sources hold {n} document", kind, documents)
            raise DataError(found, hint=hint)


def _present(output: Path, wanted: Manifest) -> Manifest | None:
    """Return the manifest of an output that matches the recipe; None where the output holds no data.

    Raises:
        DataError: It holds other data.
    """
    if output.exists() and not output.is_dir():
        raise DataError(_("{path} is a file, not a folder", str(output)), hint=_("name another --output"))
    held = [name for name in (TRAIN, VAL, TEST, MANIFEST) if (output / name).exists()]
    if not held:
        return None
    hint = _("--force replaces it; --output names another folder")
    present = read_manifest(output)
    if present is None:
        raise DataError(
            _("{path} holds {files} of unknown origin (it has no {name})", str(output), held, MANIFEST), hint=hint
        )
    differing = [
        _("{key} {found} instead of {wanted}", name, _brief(getattr(present, name)), _brief(getattr(wanted, name)))
        for name in ("tokenizer", "source", "split", "field")
        if getattr(present, name) != getattr(wanted, name)
    ]
    if differing:
        raise DataError(_("{path} holds other data: {differences}", str(output), joined(differing)), hint=hint)
    for name, said in present.files.items():
        if not (output / name).exists() or (output / name).stat().st_size != said.size:
            raise DataError(
                _("{path} is not what its manifest says", str(output / name)), hint=_("--force makes it again")
            )
    return present


def _brief(value: object) -> str:
    if isinstance(value, Tokenizer):
        return value.name
    if isinstance(value, Split):
        share = value.val_fraction
        what = value.unit if share is None else _("{share:g} by {unit}", share, value.unit)
        if value.test_fraction is not None:
            what = _("{what}, with test text", what)
        return _("{what} ({files})", what, _brief(value.source)) if value.source else what
    if isinstance(value, list):
        named = ", ".join(f"{source.name} ({source.sha256[:8]})" for source in value[:3])
        return named + (", …" if len(value) > 3 else "")
    return str(value)

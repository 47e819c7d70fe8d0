"""Read a training log of any dialect into columns, in constant memory.

The loss is used, the PPL column is clipped. What a carriage return overwrote, and whatever is a progress bar, is
never a record. The pattern of the log's own dialect (``log_patterns``) reads a block in one pass; lines that
it doesn't match are parsed one by one, each shape of line (the same but for the digits) only once.
"""

from __future__ import annotations

import codecs
import gc
import math
import operator
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from oelm_jobs.encodings import SAMPLE_BYTES, name_encoding

from .columns import Columns
from .log_lines import ODD, ParsedLine, Span, clean, read_facts, read_line, read_record, record_places, states_finite
from .log_patterns import TRAINING_LINES, VALIDATION_LINE

BLOCK = 1 << 20
"""Bytes that are read at a time."""
LONGEST_LINE = 1 << 16
"""Bytes; a longer line is no record and is skipped without being kept."""
LARGEST_STEP = 2**53
SHAPES = 4096
"""Shapes of lines that are remembered at a time."""
LONGEST_SHAPE = 512
"""Bytes of a line whose shape is remembered."""

_LINE_END = re.compile(rb"\r{1,9}\n")
"""Text that is written through two layers which both end lines as Windows does has two carriage returns."""
_DIGITS = bytes.maketrans(b"0123456789", b"0" * 10)
_Shape = tuple[Span, ...] | bool
"""Where a record's numbers stand; for a line that is no record and states nothing, whether it looks like one."""

_Column = Sequence[float]
_Row = tuple[bytes, bytes, bytes, bytes]
"""Step, loss and LR of a training record, or any other line."""


@dataclass
class Log:
    """What one or more log files hold; filled by ``read``."""

    train: Columns = field(default_factory=Columns)
    """step, loss, lr, tokens_per_s."""
    val: Columns = field(default_factory=lambda: Columns(keep_lowest="loss"))
    """step, loss."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Keys of the configuration and parameter counts that the log states, the last one wins; ``complete`` where it
    says that training is.
    """
    lines: int = 0
    """Lines in all, progress bars not counted."""
    overwritten: int = 0
    """Progress bars and other texts that a carriage return overwrote."""
    not_understood: int = 0
    """Lines that aren't records, facts or progress bars."""
    alike: int = 0
    """Those among them that look like records (a step and a loss)."""
    disagreeing: int = 0
    """Validations whose PPL isn't exp(loss)."""
    is_truncated: bool = False
    """True where the last line has no newline (it is left out)."""
    is_nan_at_end: bool = False
    """True where the last loss of any line isn't finite: training, validation, or one that is only mentioned."""
    not_finite: int = 0
    """Lines with such a loss."""
    encoding: str = ""
    """What a file of wider characters is written in (PowerShell's ``>`` writes UTF-16); empty for all others."""
    _not_finite_loss: str = ""
    """What the last line of a loss that isn't finite called it, where that was no record."""
    _step: int = -1
    _quick: re.Pattern[bytes] = TRAINING_LINES[0]
    _shapes: dict[bytes, _Shape] = field(default_factory=dict)
    _pending: list[tuple[int, float, float, float]] = field(default_factory=list)
    _waiting: list[tuple[int, float, float]] = field(default_factory=list)

    def read(self, path: Path) -> None:
        """Read a file to the end.

        Raises:
            OSError: It can't be read.
        """
        was_enabled = gc.isenabled()
        gc.disable()  # collecting takes a third of the time, and these millions of tuples have no cycles
        try:
            with path.open("rb", buffering=0) as stream:
                self._read(self._blocks(stream))
        finally:
            if was_enabled:
                gc.enable()

    def _blocks(self, stream: BinaryIO) -> Iterator[bytes]:
        """Return the file a block at a time, as UTF-8 where it is in characters of 16 or 32 bits."""
        sample = stream.read(SAMPLE_BYTES)
        stream.seek(0)
        is_wide = b"\0" in sample or sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        encoding = name_encoding(sample) if is_wide else ""
        blocks = iter(lambda: stream.read(BLOCK), b"")
        if not encoding.startswith("UTF-"):
            return blocks
        self.encoding = encoding
        return (text.encode() for text in codecs.iterdecode(blocks, encoding, errors="replace"))

    def _read(self, blocks: Iterable[bytes]) -> None:
        rest = b""
        is_skipping = False  # inside a line that is too long to be one
        for piece in blocks:
            block = rest + piece
            end = block.rfind(b"\n") + 1
            whole = block[:end]
            rest, lost = _tail(block[end:])
            self.overwritten += lost
            if is_skipping and whole:
                whole = whole[whole.find(b"\n") + 1 :]
                self.lines += 1
                self.not_understood += 1
                is_skipping = False
            if len(rest) > LONGEST_LINE:
                rest, is_skipping = b"", True
            self._block(whole)
        self.is_truncated = bool(rest.strip()) or is_skipping

    def _block(self, block: bytes) -> None:
        if b"\r" in block:
            block = self._visible(block)
        found: list[_Row] = self._quick.findall(block)
        others = [i for i, row in enumerate(found) if row[3]]
        if len(others) > 0.2 * len(found):  # another dialect: the one that matches most lines of the block's beginning
            sample = block[: block.find(b"\n", 20_000) + 1] or block
            self._quick = min(TRAINING_LINES, key=lambda pattern: sum(bool(row[3]) for row in pattern.findall(sample)))
            found = self._quick.findall(block)
            others = [i for i, row in enumerate(found) if row[3]]
        start = 0
        step = self._step
        for i in others:
            if i and (above := found[i - 1][0]):
                step = int(above) if len(above) < 16 else -1
            match = VALIDATION_LINE.fullmatch(found[i][3])
            if match:
                bracketed, named, loss, ppl = match.groups()
                digits = bracketed or named
                if digits and len(digits) < 16:
                    step = int(digits)
                if step >= 0:
                    self.lines += 1
                    self._note_losses(float(loss))
                    self._waiting.append((step, float(loss), float(ppl)))
                    continue
            self._add_plain(found[start:i])
            self._step = step
            self._line(found[i][3])
            step = self._step
            start = i + 1
        self._add_plain(found[start:])
        self._step = step if found and found[-1][3] else self._step
        self._flush()

    def _visible(self, block: bytes) -> bytes:
        """Return the block with only what a terminal would show at the end of each line."""
        block = _LINE_END.sub(b"\n", block)
        if b"\r" not in block:
            return block
        self.overwritten += block.count(b"\r")
        return b"\n".join([line[line.rfind(b"\r") + 1 :] for line in block.split(b"\n")])

    def _add_plain(self, found: list[_Row]) -> None:
        """Add the training records among the rows that the dialect's pattern found."""
        rows = [row for row in found if row[0]]
        if not rows:
            return
        self._join()
        self.lines += len(rows)
        try:
            steps = [int(row[0]) for row in rows]
            stride = self.train.stride
            left_out = 0
            if stride > 1 and steps[0] > self.train.last_added_step and all(map(operator.lt, steps, steps[1:])):
                # Most rows of a very long log are thinned anyway: only every stride-th one is turned into numbers.
                keep = slice((len(rows) - 1) % stride, None, stride)
                left_out = len(rows)
                rows, steps = rows[keep], steps[keep]
                left_out -= len(rows)
            losses = [float(row[1]) for row in rows]
            self._note_losses(losses[-1])  # the fast path takes digits only: infinite means too large for a float
            rates = [float(row[2]) if row[2] else math.nan for row in rows]
            self._add_train(steps, losses, rates, math.nan, left_out=left_out)
            self._step = steps[-1]
        except (ValueError, OverflowError):  # such as 1.2.3: read line by line to count the bad one
            self.lines -= len(rows)
            for step, loss, rate, _ in rows:
                self._line(b"Step " + step + b" | Loss: " + loss + (b" | LR: " + rate if rate else b""))

    def _join(self) -> None:
        """Add the training records that were read one by one, together: arrays of one row are slow."""
        if self._pending:
            self._add_train(*zip(*self._pending, strict=True))
            self._pending = []

    def _flush(self) -> None:
        self._join()
        if self._waiting:
            steps, losses, ppls = (np.array(column) for column in zip(*self._waiting, strict=True))
            self._waiting = []
            with np.errstate(all="ignore"):
                # Printed with two decimals; clipped at 22026 in the first steps.
                off = (ppls > 0) & (ppls < 22026) & (np.abs(np.log(ppls) - losses) > 0.02 + 0.006 / ppls)
            self.disagreeing += int(np.count_nonzero(off))
            self.val.add({"step": steps.astype(np.int64), "loss": losses.astype(np.float64)})

    def _line(self, raw: bytes) -> None:
        """Read one line; what lines of its shape (the same but for the digits) say is looked up."""
        shape = raw.translate(_DIGITS)
        known = self._shapes.get(shape)
        if known is None or (isinstance(known, bool) and self._not_finite_loss):
            self._new_line(raw, shape)
            return
        self.lines += 1
        record = None
        if not isinstance(known, bool):
            record = read_record(*[raw[first:last].decode() for first, last in known])
        if record is None or record[0] > LARGEST_STEP:
            self.not_understood += 1
            self.alike += known is not False
            return
        self._step = record[0]
        self._note_losses(record[1])
        self._pending.append(record)

    def _new_line(self, raw: bytes, shape: bytes) -> None:
        line = clean(raw[: LONGEST_LINE + 1])
        if not line:
            return
        self.lines += 1
        if self._not_finite_loss and states_finite(line, self._not_finite_loss):
            self._note_losses()
        parsed = read_line(line)
        facts = read_facts(line) if parsed is None else {}
        if facts:
            self.facts.update(facts)
        elif parsed is None:
            self.not_understood += 1
        else:
            self._add_parsed(parsed)
        if facts or len(raw) > LONGEST_SHAPE:
            return
        if len(self._shapes) >= SHAPES:
            self._shapes.clear()
        if parsed is None or parsed == ODD:
            self._shapes[shape] = parsed is not None
        elif (
            parsed.train_loss is not None
            and parsed.val_loss is None
            # A loss that isn't finite elsewhere in the line is not among the record's numbers.
            and not (parsed.is_not_finite and math.isfinite(parsed.train_loss))
            # record_places counts characters, the shape bytes.
            and line.isascii()
            and line.encode() == raw.strip(b" \t\r")
        ):
            self._shapes[shape] = record_places(line, raw.index(line[:1].encode()))

    def _add_parsed(self, parsed: ParsedLine) -> None:
        step = parsed.step if parsed.step is not None else self._step
        losses = [loss for loss in (parsed.train_loss, parsed.val_loss) if loss is not None]
        is_sound = bool(losses) and 0 <= step <= LARGEST_STEP
        if parsed.is_not_finite:
            self._note_losses(math.nan)
            self._not_finite_loss = parsed.not_finite_loss
        elif is_sound:
            self._note_losses(*losses)
        if parsed.is_progress:
            self.lines -= 1
            self.overwritten += 1
            return
        if not is_sound:
            self.not_understood += 1
            self.alike += parsed.is_odd or bool(losses)
            return
        self._step = step
        if parsed.train_loss is not None:
            self._pending.append((step, parsed.train_loss, parsed.lr, parsed.tokens_per_s))
        if parsed.val_loss is not None:
            self._waiting.append((step, parsed.val_loss, parsed.val_ppl))

    def _note_losses(self, *losses: float) -> None:
        """Remember whether the losses of the latest line are finite."""
        self.is_nan_at_end = not all(map(math.isfinite, losses))
        self.not_finite += self.is_nan_at_end
        self._not_finite_loss = ""

    def _add_train(
        self, steps: _Column, losses: _Column, rates: _Column, speeds: _Column | float, *, left_out: int = 0
    ) -> None:
        rows = {"step": np.array(steps, dtype=np.int64), "loss": np.array(losses), "lr": np.array(rates)}
        self.train.add({**rows, "tokens_per_s": np.full(len(steps), speeds)}, left_out=left_out)


def _tail(piece: bytes) -> tuple[bytes, int]:
    """Return what of an unfinished line can still become visible, and how many texts were overwritten in it."""
    end = len(piece.rstrip(b"\r"))  # trailing carriage returns may belong to a line end
    at = piece.rfind(b"\r", 0, end)
    return (piece, 0) if at < 0 else (piece[at + 1 :], piece.count(b"\r", 0, at + 1))

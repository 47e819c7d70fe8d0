"""Parse a single log line of any dialect, whatever a logger put before it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Any

from . import log_patterns as patterns
from . import numbers


@dataclass(frozen=True)
class ParsedLine:
    """What a line says."""

    step: int | None = None
    """The step that it names."""
    train_loss: float | None = None
    """Training loss."""
    lr: float = math.nan
    """Learning rate."""
    tokens_per_s: float = math.nan
    """Tokens per second (taken as of all GPUs together)."""
    val_loss: float | None = None
    """Validation loss."""
    val_ppl: float = math.nan
    """Validation PPL as printed."""
    is_progress: bool = False
    """It is a progress bar, whatever numbers stand in it."""
    is_odd: bool = False
    """It looks like a record and isn't one (a negative step, a loss below zero, cut in the middle)."""
    by_its_digits: bool = False
    """It is odd because of its digits: another line of the same shape may be a record."""
    is_not_finite: bool = False
    """It says that a loss isn't finite, in a record or in a sentence."""
    not_finite_loss: str = ""
    """The name that it gives that loss, where it is no record."""


ODD = ParsedLine(is_odd=True)
UNREADABLE = ParsedLine(is_odd=True, by_its_digits=True)


def clean(raw: bytes) -> str:
    """Return a line as text: escape sequences and control characters taken out, bad UTF-8 replaced, without blanks
    around.
    """
    if b"\x1b" in raw:
        raw = patterns.ESCAPES.sub(b"", raw)
    return patterns.CONTROL.sub("", raw.decode("utf-8", errors="replace")).lstrip("\ufeff").strip()


def read_line(line: str) -> ParsedLine | None:
    """Return what a cleaned line says about a step; None where it isn't about one."""
    is_progress = patterns.PROGRESS_BAR.search(line) is not None
    if not is_progress and "oss" not in line and "OSS" not in line:
        return None
    start = None if is_progress else record_start(line)
    record = _record(line, start) if start is not None else None
    bad = patterns.NOT_FINITE.search(line)
    if record is not None:
        return replace(record, is_not_finite=bad is not None)
    is_odd = not is_progress and any(
        (first := head.search(line)) and loss.search(line, first.end()) for head, loss in patterns.SIMILAR
    )
    if not (is_progress or is_odd or bad):
        return None
    name = _name(bad) if bad is not None else ""
    return ParsedLine(is_progress=is_progress, is_odd=is_odd, is_not_finite=bad is not None, not_finite_loss=name)


def _name(match: re.Match[str]) -> str:
    return (match["name"] or match[0]).lower()


def states_finite(line: str, loss: str) -> bool:
    """Tell whether a line that is no record says that the loss of this name is a number now."""
    said = (numbers.real(match[2]) for match in patterns.LOSS_VALUE.finditer(line) if _name(match) == loss)
    return patterns.OLDER_LOSS.search(line) is None and any(map(numbers.is_finite, said))


def record_start(line: str) -> int | None:
    """Return where the record in a line begins, behind whatever a logger put before it; None where none begins.

    A logger's prefix is short, contains no sentence and ends with a sign, a number or a level. A line that mentions a
    step and a loss in a sentence ("Resumed at step 100: loss 3.2") is no record.
    """
    head = patterns.START.search(line, 0, patterns.LONGEST_PREFIX + 64)
    if head is None or head.start() > patterns.LONGEST_PREFIX:
        return None
    prefix = line[: head.start()].rstrip()
    if not prefix:
        return head.start()
    plain = patterns.BRACKETS.sub("[]", prefix)
    if patterns.PROSE.search(plain) or patterns.RETELLING.search(prefix):
        return None
    if head[0][0] not in "vVeE" and patterns.ABOUT_VALIDATION.search(prefix):
        return None
    last = re.search(r"[^\W\d_]+$", prefix)
    return head.start() if last is None or patterns.LEVEL.fullmatch(last[0]) else None


def _record(line: str, start: int) -> ParsedLine | None:
    is_validation = "val" in line[start:].lower()
    if is_validation and (match := patterns.VALIDATION_AT_STEP.fullmatch(line, start)):
        before, behind, loss, rest = match.groups()
        train_loss = _first(patterns.TRAINING_LOSS, rest)
        return _sound(step=before or behind, val_loss=loss, ppl=_first(patterns.PPL, rest), train_loss=train_loss)
    if match := patterns.TRAINING.fullmatch(line, start):
        step, loss, rest = match.groups()
        lr, rate = _first(patterns.LR, rest), _first(patterns.RATE, rest)
        val_loss = _first(patterns.VALIDATION_LOSS, rest) if is_validation else None
        return _sound(step=step, train_loss=loss, lr=lr, rate=rate, val_loss=val_loss)
    if is_validation and (match := patterns.VALIDATION.fullmatch(line, start)):
        loss, rest = match.groups()
        return _sound(step=_first(patterns.AFTER_STEP, rest), val_loss=loss, ppl=_first(patterns.PPL, rest))
    return None


Span = tuple[int, int]


def record_places(line: str, offset: int) -> tuple[Span, ...]:
    """Return where step, loss, learning rate and tokens per second stand in a line that ``read_line`` takes for a
    training record without a validation; what it doesn't say has an empty place. The line begins at ``offset``.

    Nothing above asks which digit a digit is: lines that differ in nothing else are records of the same places. What
    the digits there mean, ``read_record`` says.
    """
    match = patterns.TRAINING.fullmatch(line, record_start(line) or 0)
    assert match is not None
    spans = [match.span(1), match.span(2)]
    for found in (patterns.LR.search(match[3]), patterns.RATE.search(match[3])):
        first, last = found.span(found.lastindex or 0) if found is not None else (0, 0)
        spans.append((first + match.start(3), last + match.start(3)))
    return tuple((first + offset, last + offset) for first, last in spans)


def read_record(step: str, loss: str, lr: str, rate: str) -> tuple[int, float, float, float] | None:
    """Return a training record's numbers (NaN for the last two where the words are empty); None where one of them is
    unclear.
    """
    found, value, speed = numbers.integer(step), numbers.real(loss), numbers.real(lr) if lr else math.nan
    if found is None or value is None or speed is None:
        return None
    return found, value, speed, _rate(rate, loss) if rate else math.nan


def read_facts(line: str) -> dict[str, Any]:
    """Return configuration keys and counts that a line states, ``complete`` where it says that training is; empty
    where none.
    """
    found: dict[str, Any] = {}
    if patterns.MAYBE_FACT.search(line):
        for match in patterns.PARAMETER_COUNT.finditer(line):
            found[f"{match[1].lower()}_params"] = numbers.integer(match[2])
        for match in patterns.FACT.finditer(line):
            key = next(name for name in patterns.KEYS if match[name] is not None)
            found[key] = fact(key, match["value"].lower())
        if gpus := patterns.GPUS.search(line):
            found.setdefault("world_size", int(gpus[1]))
    if patterns.COMPLETE.search(line):
        found["complete"] = True
    return {key: value for key, value in found.items() if value is not None}


def fact(key: str, word: str) -> Any:
    """Return the value of a configuration key; None where it is unclear."""
    if key in patterns.WORDS:
        return {"true": True, "false": False}.get(word, word)
    return numbers.real(word) if key in patterns.FRACTIONS else numbers.integer(word)


def _sound(*, rate: str | None = None, ppl: str | None = None, **words: str | None) -> ParsedLine:
    """Return the record that has these words in its fields, or an odd one where a number is unclear or can't be:
    cross-entropy isn't negative, nor is a step.
    """
    values: dict[str, Any] = {
        field: numbers.integer(word) if field == "step" else numbers.real(word)
        for field, word in words.items()
        if word is not None
    }
    if None in values.values():
        return UNREADABLE
    if any(values.get(field, 0) < 0 for field in ("step", "train_loss", "val_loss")):
        return ODD
    if rate:
        values["tokens_per_s"] = _rate(rate, words["train_loss"] or "")
    if ppl and (printed := numbers.real(ppl)) is not None:
        values["val_ppl"] = printed
    return ParsedLine(**values)


def _first(pattern: re.Pattern[str], rest: str) -> str | None:
    """Return what a pattern's group holds; all of the match, which is no number, where it has no number to hold."""
    match = pattern.search(rest)
    return match[match.lastindex or 0] if match else None


def _rate(word: str, loss: str) -> float:
    """Return tokens per second: commas divide thousands, but beside a loss with a decimal comma nobody knows."""
    value = numbers.real(word, grouped="," not in loss or "." in loss)
    return math.nan if value is None else value

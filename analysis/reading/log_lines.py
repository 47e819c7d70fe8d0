"""Parse a single log line of any dialect, whatever a logger put before it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

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
    if patterns.PROGRESS_BAR.search(line):
        return _with_mention(ParsedLine(is_progress=True), line)
    if "oss" not in line and "OSS" not in line:
        return None
    start = record_start(line)
    parsed = _record(line, start) if start is not None else None
    if parsed is not None:
        return replace(parsed, is_not_finite=patterns.NOT_FINITE.search(line) is not None)
    is_alike = any((first := head.search(line)) and loss.search(line, first.end()) for head, loss in patterns.SIMILAR)
    mention = _with_mention(ParsedLine(is_odd=is_alike), line)
    return mention if mention.is_not_finite else ODD if is_alike else None


def _with_mention(parsed: ParsedLine, line: str) -> ParsedLine:
    match = patterns.NOT_FINITE.search(line)
    return parsed if match is None else replace(parsed, is_not_finite=True, not_finite_loss=_name(match))


def _name(match: re.Match[str]) -> str:
    return (match["name"] or match[0]).lower()


def states_finite(line: str, loss: str) -> bool:
    """Tell whether a line that is no record says that the loss of this name is a number now."""
    if patterns.OLDER_LOSS.search(line):
        return False
    values = [numbers.real(match[2]) for match in patterns.LOSS_VALUE.finditer(line) if _name(match) == loss]
    return any(value is not None and math.isfinite(value) for value in values)


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
    is_validation = head[0][0] in "vVeE"
    if not is_validation and patterns.ABOUT_VALIDATION.search(prefix):
        return None
    last = re.search(r"[^\W\d_]+$", prefix)
    return head.start() if last is None or patterns.LEVEL.fullmatch(last[0]) else None


def _record(line: str, start: int) -> ParsedLine | None:
    is_validation = "val" in line[start:].lower()
    if is_validation and (match := patterns.VALIDATION_AT_STEP.fullmatch(line, start)):
        step = match[1] if match[1] is not None else match[2]
        inner = patterns.TRAINING_LOSS.search(match[4])
        if inner and inner[1] is None:
            return UNREADABLE
        return _sound(
            step=step, val_loss=match[3], val_ppl=_first(patterns.PPL, match[4]), train_loss=inner[1] if inner else None
        )
    if match := patterns.TRAINING.fullmatch(line, start):
        inner = patterns.VALIDATION_LOSS.search(match[3]) if is_validation else None
        if inner and inner[1] is None:
            return UNREADABLE
        return _sound(
            step=match[1], train_loss=match[2], lr=_first(patterns.LR, match[3]), rate=_first(patterns.RATE, match[3]),
            val_loss=inner[1] if inner else None,
        )  # fmt: skip
    if is_validation and (match := patterns.VALIDATION.fullmatch(line, start)):
        at = patterns.AFTER_STEP.search(match[2])
        return _sound(step=at[1] if at else None, val_loss=match[1], val_ppl=_first(patterns.PPL, match[2]))
    return None


Span = tuple[int, int]


def record_places(line: str) -> tuple[Span, Span, Span | None, Span | None]:
    """Return where step, loss, learning rate and tokens per second stand in a line that ``read_line`` takes for a
    training record without a validation.

    Nothing above asks which digit a digit is: lines that differ in nothing else are records of the same places. What
    the digits there mean, ``read_record`` says.
    """
    match = patterns.TRAINING.fullmatch(line, record_start(line) or 0)
    assert match is not None
    rest = match.start(3)

    def place(found: re.Match[str] | None) -> Span | None:
        if found is None:
            return None
        first, last = found.span(found.lastindex or 0)
        return first + rest, last + rest

    return match.span(1), match.span(2), place(patterns.LR.search(match[3])), place(patterns.RATE.search(match[3]))


def read_record(step: str, loss: str, lr: str, rate: str) -> tuple[int, float, float, float] | None:
    """Return a training record's numbers (NaN for the last two where the words are empty); None where one of them is
    unclear.
    """
    found, value, speed = numbers.integer(step), numbers.real(loss), numbers.real(lr) if lr else math.nan
    if found is None or value is None or speed is None:
        return None
    return found, value, speed, _rate(rate, loss) if rate else math.nan


def read_facts(line: str) -> dict[str, str]:
    """Return configuration keys and counts that a line states, ``complete`` where it says that training is; empty
    where none.
    """
    if not patterns.MAYBE_FACT.search(line):
        return {"complete": "yes"} if patterns.COMPLETE.search(line) else {}
    found = {}
    for match in patterns.PARAMETER_COUNT.finditer(line):
        count = numbers.integer(match[2])
        if count is not None:
            found[f"{match[1].lower()}_params"] = str(count)
    for match in patterns.FACT.finditer(line):
        key = next(name for name in patterns.KEYS if match[name] is not None)
        value = _plain(key, match["value"].lower())
        if value is not None:
            found[key] = value
    gpus = patterns.GPUS.search(line)
    if gpus:
        found.setdefault("world_size", gpus[1])
    if patterns.COMPLETE.search(line):
        found["complete"] = "yes"
    return found


def _sound(
    *,
    step: str | None = None,
    train_loss: str | None = None,
    lr: str = "",
    rate: str = "",
    val_loss: str | None = None,
    val_ppl: str = "",
) -> ParsedLine:
    """Return the record, or an odd one where a number is unclear or can't be: cross-entropy isn't negative, nor is a
    step.
    """
    found = numbers.integer(step) if step is not None else None
    losses = [numbers.real(loss) if loss is not None else None for loss in (train_loss, val_loss)]
    speed = numbers.real(lr) if lr else math.nan
    if speed is None or (found is None) is not (step is None):
        return UNREADABLE
    if any(value is None and word is not None for value, word in zip(losses, (train_loss, val_loss), strict=True)):
        return UNREADABLE
    if any(value is not None and value < 0 for value in losses) or (found is not None and found < 0):
        return ODD
    ppl = numbers.real(val_ppl) if val_ppl else math.nan
    return ParsedLine(
        step=found,
        train_loss=losses[0],
        lr=speed,
        tokens_per_s=_rate(rate, train_loss or "") if rate else math.nan,
        val_loss=losses[1],
        val_ppl=math.nan if ppl is None else ppl,
    )


def _first(pattern: re.Pattern[str], rest: str) -> str:
    match = pattern.search(rest)
    return str(match[match.lastindex or 0]) if match else ""


def _rate(word: str, loss: str) -> float:
    """Return tokens per second: commas divide thousands, but beside a loss with a decimal comma nobody knows."""
    is_point = "," not in loss or "." in loss
    value = numbers.real(word, grouped=is_point)
    return math.nan if value is None else value


def _plain(key: str, word: str) -> str | None:
    """Return a stated value with its thousands undivided and a decimal point; None where it is unclear."""
    if "," not in word and word.count(".") < 2:
        return word
    value = numbers.real(word) if key in patterns.FRACTIONS else numbers.integer(word)
    return None if value is None else str(value)

"""Owns what a single log line says, in every dialect and with anything in front; leaves files, order and speed to
``logs``.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

from . import numbers
from .numbers import NUMBER, NUMERAL

_ESCAPES = re.compile(rb"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
LONGEST_PREFIX = 200
"""Characters in which a logger says who, when and how grave, before the record."""
_VAL_WORD = r"(?:val(?:id(?:ation)?)?|eval(?:uation)?)"
_STEP_WORD = r"\[?(?:global[_ ])?(?:step|iter(?:ation)?)[\s:=#]{0,16}"
_STEP = rf"{_STEP_WORD}({NUMERAL})(?:\s{{0,4}}/\s{{0,4}}{NUMERAL})?"
_SEPARATOR = r"[\s|:,;.\-\])]{0,24}"
_BETWEEN = r"[\s|:,_/.\-\])]{0,24}"
_LOSS = rf"loss[\s:=]{{0,16}}({NUMBER})"
_HEAD = re.compile(
    rf"(?<![a-z])(?:{_STEP_WORD}-?\d"
    rf"|{_VAL_WORD}(?![a-z])(?={_BETWEEN}(?:(?:val|eval)[_ ]?)?(?:loss|{_STEP_WORD}-?\d)))",
    re.IGNORECASE,
)
"""Where a record begins."""
_TRAIN = re.compile(rf"{_STEP}{_SEPARATOR}(?:train(?:ing)?[_ /.]?)?{_LOSS}(.*)", re.IGNORECASE)
_VAL_AT = re.compile(
    rf"(?:{_STEP}{_SEPARATOR}{_VAL_WORD}(?![a-z])|{_VAL_WORD}[\s\]:|,)\-]{{1,16}}{_STEP})"
    rf"{_BETWEEN}(?:{_VAL_WORD}[_ ]?)?{_LOSS}(.*)",
    re.IGNORECASE,
)
_VAL = re.compile(rf"{_VAL_WORD}{_BETWEEN}{_LOSS}(.*)", re.IGNORECASE)
_AT_STEP = re.compile(rf"\b(?:at|after)\s{{1,4}}{_STEP}", re.IGNORECASE)
_LR = re.compile(rf"\b(?:lr|learning[_ ]rate)\s{{0,8}}[:=]?\s{{0,8}}({NUMBER})", re.IGNORECASE)
_TOKENS = r"tok(?:en)?s?(?:/s(?:ec)?|[_ ]per[_ ]s(?:ec(?:ond)?)?)"
_RATE = re.compile(
    rf"\b{_TOKENS}\s{{0,8}}[:=]\s{{0,8}}({NUMERAL})(?!\s?[kM])|(?<![\d.,])(?<!\d )({NUMERAL})\s{{0,8}}{_TOKENS}"
    r"(?![\w/]|\s{0,8}[:=]?\s{0,8}\d)",
    re.IGNORECASE,
)
_PPL = re.compile(rf"\b(?:ppl|perplexity)\s{{0,8}}[:=]?\s{{0,8}}({NUMBER})", re.IGNORECASE)
_VAL_IN = re.compile(rf"(?<![a-z]){_VAL_WORD}[_ /.]?loss(?:[\s:=]{{0,16}}({NUMBER}))?", re.IGNORECASE)
_TRAIN_IN = re.compile(rf"(?<![a-z])train(?:ing)?[_ /.]?loss(?:[\s:=]{{0,16}}({NUMBER}))?", re.IGNORECASE)
_BAR = re.compile(r"\d%\s{0,8}\||\bit/s\b|\bs/it\b|\dit \[|[━█▏▎▍▌▋▊▉]{2}|\d/\d{1,20} \[\d{1,9}:\d\d")
_ALIKE = (
    (re.compile(r"\b(?:step|iter(?:ation)?)\b", re.IGNORECASE), re.compile(r"loss\b", re.IGNORECASE)),
    (re.compile(r"\bvalidation\b", re.IGNORECASE), re.compile(r"\bloss\b", re.IGNORECASE)),
)
_VALUE = r"['\"]?[\s:=>\-]{0,16}(?:(?:is|was|became|turned|went|to|now)\s{1,8}){0,2}(?:tensor)?[\[('\"]{0,3}"
_NAN = r"[-+]?(?:nan|inf(?:inity)?|1\.#(?:[qs]?nan|ind|inf)\d{0,9})(?!-?\w|\s{1,4}(?:or|check|guard|count)\b)"
_NAMED = r"(?<![a-z])(?P<name>(?:[a-z]{1,20}[_/.]){0,3}loss(?:es)?(?:/\w{1,20})?)"
_NOT_FINITE = re.compile(
    rf"{_NAMED}(?:\s{{1,8}}(?:at|in|of|on|for)\s{{1,8}}[a-z]{{1,12}}[\s#:=]{{1,4}}\d{{1,12}})?{_VALUE}{_NAN}"
    r"|(?<![a-z])loss\s{1,8}(?:is|was|became)\s{1,8}(?:not\s{1,8}(?:a\s{1,8})?(?:finite|number)|non-?finite|infinite)\b"
    r"|(?<!\w)(?<!no )(?<!for )(?<!if )(?<!on )(?<!0 )(?<!without )(?:nan|non-?finite|infinite) loss(?:es)?"
    r"(?=\s(?:at|in|on|detected|encountered|found|occurred|seen|during)\b|[!,.;]|$)",
    re.IGNORECASE,
)
"""What says that a loss isn't finite, in a record or in passing."""
_TOLD = re.compile(rf"{_NAMED}{_VALUE}({NUMERAL})", re.IGNORECASE)
_NOT_OF_NOW = re.compile(
    r"best|lowest|minim|(?<![a-z])min(?![a-z])|resum|restor|load|sav(?:ed|ing)|checkpoint", re.IGNORECASE
)

_BRACKETS = re.compile(r"\[[^\[\]]*\]|\([^()]*\)|<[^<>]*>")
_PROSE = re.compile(r"(?<!\S)(?![A-Z]+ )[A-Za-z']{2,} +[a-z']{2,}(?=[\s,:;.]|$)")
_OF_THE_PAST = re.compile(
    r"(?<![a-z])(?:best|lowest|resum|restor|load|sav(?:ed|ing)|checkpoint|epoch|loss(?!\w))(?!\w*/)", re.IGNORECASE
)
_OF_VALIDATION = re.compile(r"(?<![a-z])(?:val|valid|validat\w*|eval\w*|test|dev)(?![a-z/])", re.IGNORECASE)
_LAST_WORD = re.compile(r"[A-Z]+|(?i:trace|debug|info|notice|warn|warning|train|training)")

_COUNTS = re.compile(
    rf"(total|trainable|frozen)\s{{1,8}}param(?:eter)?s?\s{{0,8}}[:=]\s{{0,8}}({NUMERAL})(?!\s{{0,4}}[MBK]\b)",
    re.IGNORECASE,
)
_KEYS = {
    "world_size": r"world[_ ]size|number of gpus|num[_ ]gpus|n[_ ]?gpus",
    "batch_size": r"batch[_ ]size(?:[_ ]per[_ ](?:gpu|device))?|micro[_ ]batch[_ ]size",
    "gradient_accumulation_steps": r"gradient[_ ]accumulation(?:[_ ]steps)?|grad[_ ]accum(?:[_ ]steps)?",
    "global_batch": r"global[_ ]batch(?:[_ ]size)?|effective[_ ]batch(?:[_ ]size)?|sequences per step",
    "max_steps": r"max[_ ]steps|total[_ ]steps|training[_ ]steps",
    "warmup_steps": r"warmup[_ ]steps",
    "max_lr": r"max[_ ]lr",
    "min_lr": r"min[_ ]lr",
    "weight_decay": r"weight[_ ]decay",
    "dropout": r"dropout",
    "seq_len": r"seq[_ ]len(?:gth)?|block[_ ]size|context[_ ]length",
    "d_model": r"d[_ ]model",
    "num_layers": r"num[_ ]layers|n[_ ]layers?",
    "num_heads": r"num[_ ]heads|n[_ ]heads?",
    "d_ff": r"d[_ ]ff",
    "vocab_size": r"vocab(?:ulary)?[_ ]size",
    "seed": r"seed",
    "model_type": r"model[_ ]type",
    "freeze_qk": r"freeze[_ ]qk",
}
_FRACTIONS = ("max_lr", "min_lr", "weight_decay", "dropout")
_FACT = re.compile(
    r"(?<![\w.])(?:--)?(?:"
    + "|".join(f"(?P<{key}>{words})" for key, words in _KEYS.items())
    + rf")['\"]?\s{{0,8}}(?:[:=]\s{{0,8}}|\s(?=[\d]))['\"]?(?P<value>{NUMERAL}|(?:true|false|gpt|oelm)\b)",
    re.IGNORECASE,
)
_DIGIT_AND_SIGN = re.compile(r"[=:\d]")
_GPUS = re.compile(r"\b(?:using|on|with)\s+(\d+)\s+(?:gpus?|processes|devices)\b", re.IGNORECASE)
_COMPLETE = re.compile(r"\btraining\s+(?:is\s+)?(?:complete[d]?|finished|done)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Spoken:
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
    """It is odd for its digits: another line of its shape may be a record."""
    is_not_finite: bool = False
    """It says that a loss isn't finite, in a record or in passing."""
    not_finite_loss: str = ""
    """What it calls that loss, where it is no record."""


ODD = Spoken(is_odd=True)
UNREADABLE = Spoken(is_odd=True, by_its_digits=True)


def clean(raw: bytes) -> str:
    """Return a line as text: escape sequences and control characters taken out, bad UTF-8 replaced, without blanks
    around.
    """
    if b"\x1b" in raw:
        raw = _ESCAPES.sub(b"", raw)
    return _CONTROL.sub("", raw.decode("utf-8", errors="replace")).lstrip("\ufeff").strip()


def read_line(line: str) -> Spoken | None:
    """Return what a cleaned line says about a step; None where it isn't about one."""
    if _BAR.search(line):
        return _telling(Spoken(is_progress=True), line)
    if "oss" not in line and "OSS" not in line:
        return None
    start = record_start(line)
    spoken = _record(line, start) if start is not None else None
    if spoken is not None:
        return replace(spoken, is_not_finite=_NOT_FINITE.search(line) is not None)
    is_alike = any((first := head.search(line)) and loss.search(line, first.end()) for head, loss in _ALIKE)
    told = _telling(Spoken(is_odd=is_alike), line)
    return told if told.is_not_finite else ODD if is_alike else None


def _telling(spoken: Spoken, line: str) -> Spoken:
    match = _NOT_FINITE.search(line)
    return spoken if match is None else replace(spoken, is_not_finite=True, not_finite_loss=_name(match))


def _name(match: re.Match[str]) -> str:
    return (match["name"] or match[0]).lower()


def tells_finite(line: str, loss: str) -> bool:
    """Tell whether a line that is no record says that the loss of this name is a number now."""
    if _NOT_OF_NOW.search(line):
        return False
    values = [numbers.real(match[2]) for match in _TOLD.finditer(line) if _name(match) == loss]
    return any(value is not None and math.isfinite(value) for value in values)


def record_start(line: str) -> int | None:
    """Return where the record in a line begins, behind whatever a logger put before it; None where none begins.

    A logger's words are short, hold no sentence and end with a sign, a number or a level: what is told in passing
    ("Resumed at step 100: loss 3.2") is no record.
    """
    head = _HEAD.search(line, 0, LONGEST_PREFIX + 64)
    if head is None or head.start() > LONGEST_PREFIX:
        return None
    prefix = line[: head.start()].rstrip()
    if not prefix:
        return head.start()
    plain = _BRACKETS.sub("[]", prefix)
    if _PROSE.search(plain) or _OF_THE_PAST.search(prefix):
        return None
    is_validation = head[0][0] in "vVeE"
    if not is_validation and _OF_VALIDATION.search(prefix):
        return None
    last = re.search(r"[^\W\d_]+$", prefix)
    return head.start() if last is None or _LAST_WORD.fullmatch(last[0]) else None


def _record(line: str, start: int) -> Spoken | None:
    is_validation = "val" in line[start:].lower()
    if is_validation and (match := _VAL_AT.fullmatch(line, start)):
        step = match[1] if match[1] is not None else match[2]
        inner = _TRAIN_IN.search(match[4])
        if inner and inner[1] is None:
            return UNREADABLE
        return _sound(
            step=step, val_loss=match[3], val_ppl=_first(_PPL, match[4]), train_loss=inner[1] if inner else None
        )
    if match := _TRAIN.fullmatch(line, start):
        inner = _VAL_IN.search(match[3]) if is_validation else None
        if inner and inner[1] is None:
            return UNREADABLE
        return _sound(
            step=match[1], train_loss=match[2], lr=_first(_LR, match[3]), rate=_first(_RATE, match[3]),
            val_loss=inner[1] if inner else None,
        )  # fmt: skip
    if is_validation and (match := _VAL.fullmatch(line, start)):
        at = _AT_STEP.search(match[2])
        return _sound(step=at[1] if at else None, val_loss=match[1], val_ppl=_first(_PPL, match[2]))
    return None


Span = tuple[int, int]


def record_places(line: str) -> tuple[Span, Span, Span | None, Span | None]:
    """Return where step, loss, learning rate and tokens per second stand in a line that ``read_line`` takes for a
    training record without a validation.

    Nothing above asks which digit a digit is: lines that differ in nothing else are records of the same places. What
    the digits there mean, ``read_record`` says.
    """
    match = _TRAIN.fullmatch(line, record_start(line) or 0)
    assert match is not None
    rest = match.start(3)

    def place(found: re.Match[str] | None) -> Span | None:
        if found is None:
            return None
        first, last = found.span(found.lastindex or 0)
        return first + rest, last + rest

    return match.span(1), match.span(2), place(_LR.search(match[3])), place(_RATE.search(match[3]))


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
    if not _DIGIT_AND_SIGN.search(line):
        return {"complete": "yes"} if _COMPLETE.search(line) else {}
    found = {}
    for match in _COUNTS.finditer(line):
        count = numbers.integer(match[2])
        if count is not None:
            found[f"{match[1].lower()}_params"] = str(count)
    for match in _FACT.finditer(line):
        key = next(name for name in _KEYS if match[name] is not None)
        value = _plain(key, match["value"].lower())
        if value is not None:
            found[key] = value
    gpus = _GPUS.search(line)
    if gpus:
        found.setdefault("world_size", gpus[1])
    if _COMPLETE.search(line):
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
) -> Spoken:
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
    return Spoken(
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
    value = numbers.real(word) if key in _FRACTIONS else numbers.integer(word)
    return None if value is None else str(value)

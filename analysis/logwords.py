"""Owns what a single log line says, in every dialect and with anything in front; leaves files, order and speed to
``logs``.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

_ESCAPES = re.compile(rb"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_PREFIX = re.compile(
    r"(?:\[?\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[^\]\s]*\]?[\s:|\-]*)?"
    r"(?:\[?(?:[\w.]+\s*[:\-|]\s*)?(?:DEBUG|INFO|WARNING)\]?[\s:|\-]*)?"
    r"(?:\[(?:rank ?|default)?\d+\]:?\s*)?",
    re.IGNORECASE,
)
_NUMBER = r"([-+]?(?:\d[\d_]*\.?\d*(?:e[-+]?\d+)?|\.\d+|nan|inf(?:inity)?))"
_STEP = r"\[?(?:global[_ ])?step[\s:=#]*(-?\d[\d,]*)(?:\s*/\s*\d[\d,]*)?\s*\]?"
_TRAIN = re.compile(
    rf"{_STEP}\s*[|:,\-]*\s*(?:train(?:ing)?[_ ]?)?loss\s*[:=]?\s*{_NUMBER}(?![\w.])(.*)", re.IGNORECASE
)
_VAL_AT = re.compile(
    rf"(?:{_STEP}\s*[|:,\-]*\s*(?:val(?:id(?:ation)?)?|eval(?:uation)?)(?![a-z])|eval(?:uation)?\s+{_STEP})"
    rf"[\s|:,_\-]*(?:(?:val|eval)[_ ]?)?loss\s*[:=]?\s*{_NUMBER}(?![\w.])(.*)",
    re.IGNORECASE,
)
_VAL = re.compile(
    rf"(?:val(?:id(?:ation)?)?|eval(?:uation)?)[\s|:,_\-]*loss\s*[:=]?\s*{_NUMBER}(?![\w.])(.*)", re.IGNORECASE
)
_LR = re.compile(rf"\b(?:lr|learning[_ ]rate)\s*[:=]\s*{_NUMBER}", re.IGNORECASE)
_TOKENS = r"tok(?:en)?s?(?:/s(?:ec)?|[_ ]per[_ ]s(?:ec(?:ond)?)?)"
_RATE = re.compile(
    rf"\b{_TOKENS}\s*[:=]\s*(\d[\d,]*\.?\d*)(?![\d.,]*[kM])|(?<![\d.,])(\d[\d,]*\.?\d*)\s*{_TOKENS}(?![\w/])",
    re.IGNORECASE,
)
_PPL = re.compile(rf"\b(?:ppl|perplexity)\s*[:=]\s*{_NUMBER}", re.IGNORECASE)
_VAL_IN = re.compile(rf"\bval(?:idation)?[_ ]?loss\s*[:=]\s*{_NUMBER}", re.IGNORECASE)
_BAR = re.compile(r"\d+%\s*\||\bit/s\b|\bs/it\b|\d+it \[|[━█▏▎▍▌▋▊▉]{2}|\d+/\d+ \[\d+:\d\d")
_ALIKE = re.compile(r"\bstep\b.*\bloss\b|\bvalidation\b.*\bloss\b", re.IGNORECASE)

_COUNTS = re.compile(
    r"(total|trainable|frozen)\s+param(?:eter)?s?\s*[:=]\s*(\d[\d,]*)(?![\d.]*\s*[MBK]\b)", re.IGNORECASE
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
_FACT = re.compile(
    r"(?<![\w.])(?:--)?(?:"
    + "|".join(f"(?P<{key}>{words})" for key, words in _KEYS.items())
    + r")['\"]?\s*(?:[:=]\s*|\s(?=[\d]))"
    r"['\"]?(?P<value>[-+]?\d[\d,]*\.?\d*(?:e[-+]?\d+)?|\.\d+|true|false|gpt|oelm)\b",
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


def clean(raw: bytes) -> str:
    """Return a line as text: escape sequences and control characters taken out, bad UTF-8 replaced, without blanks
    around.
    """
    if b"\x1b" in raw:
        raw = _ESCAPES.sub(b"", raw)
    return _CONTROL.sub("", raw.decode("utf-8", errors="replace")).strip()


def read_line(line: str) -> Spoken | None:
    """Return what a cleaned line says about a step; None where it isn't about one."""
    if _BAR.search(line):
        return Spoken(is_progress=True)
    if "oss" not in line and "OSS" not in line:
        return None
    start = _PREFIX.match(line)
    body = line[start.end() :] if start else line
    is_validation = "val" in body.lower()
    if not is_validation or (match := _VAL_AT.fullmatch(body)) is None:
        match = _TRAIN.fullmatch(body)
        if match:
            inner = _VAL_IN.search(match[3]) if is_validation else None
            return _sound(
                step=_integer(match[1]), train_loss=_float(match[2]), lr=_first(_LR, match[3]),
                tokens_per_s=_rate(match[3]), val_loss=_float(inner[1]) if inner else None,
            )  # fmt: skip
    else:
        step = match[1] if match[1] is not None else match[2]
        return _sound(step=_integer(step), val_loss=_float(match[3]), val_ppl=_first(_PPL, match[4]))
    match = _VAL.fullmatch(body) if is_validation else None
    if match:
        return _sound(val_loss=_float(match[1]), val_ppl=_first(_PPL, match[2]))
    return Spoken(is_odd=True) if _ALIKE.search(body) else None


Span = tuple[int, int]


def record_places(line: str) -> tuple[Span, Span, Span | None, Span | None]:
    """Return where step, loss, learning rate and tokens per second stand in a line that ``read_line`` takes for a
    training record without a validation.

    Nothing above asks which digit a digit is: lines that differ in nothing else are records of the same places.
    """
    start = _PREFIX.match(line)
    offset = start.end() if start else 0
    match = _TRAIN.fullmatch(line[offset:])
    assert match is not None
    rest = offset + match.start(3)

    def place(found: re.Match[str] | None) -> Span | None:
        if found is None:
            return None
        first, last = found.span(found.lastindex or 0)
        return first + rest, last + rest

    step, loss = ((first + offset, last + offset) for first, last in (match.span(1), match.span(2)))
    return step, loss, place(_LR.search(match[3])), place(_RATE.search(match[3]))


def read_facts(line: str) -> dict[str, str]:
    """Return configuration keys and counts that a line states, ``complete`` where it says that training is; empty
    where none.
    """
    if not _DIGIT_AND_SIGN.search(line):
        return {"complete": "yes"} if _COMPLETE.search(line) else {}
    found = {f"{match[1].lower()}_params": match[2].replace(",", "") for match in _COUNTS.finditer(line)}
    for match in _FACT.finditer(line):
        key = match.lastgroup if match.lastgroup != "value" else None
        key = key or next(name for name in _KEYS if match[name] is not None)
        found[key] = match["value"].replace(",", "").lower()
    gpus = _GPUS.search(line)
    if gpus:
        found.setdefault("world_size", gpus[1])
    if _COMPLETE.search(line):
        found["complete"] = "yes"
    return found


def _sound(
    *,
    step: int | None = None,
    train_loss: float | None = None,
    lr: float = math.nan,
    tokens_per_s: float = math.nan,
    val_loss: float | None = None,
    val_ppl: float = math.nan,
) -> Spoken:
    """Return the record, or an odd one where a value can't be: cross-entropy isn't negative, nor is a step."""
    losses = [loss for loss in (train_loss, val_loss) if loss is not None]
    if any(loss < 0 for loss in losses) or (step is not None and step < 0):
        return Spoken(is_odd=True)
    return Spoken(
        step=step, train_loss=train_loss, lr=lr, tokens_per_s=tokens_per_s, val_loss=val_loss, val_ppl=val_ppl
    )


def _first(pattern: re.Pattern[str], rest: str) -> float:
    match = pattern.search(rest)
    return _float(match[1]) if match else math.nan


def _rate(rest: str) -> float:
    match = _RATE.search(rest)
    return _float((match[1] or match[2]).replace(",", "")) if match else math.nan


def _float(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return math.nan


def _integer(word: str) -> int:
    digits = word.replace(",", "")
    return int(digits) if len(digits) < 20 else -1

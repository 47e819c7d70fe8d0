"""Patterns of log lines: the known dialects exactly, then the general form of records and of what else a log states.

Repetitions are bounded, so that no line takes long to match.
"""

from __future__ import annotations

import re

from .numbers import NUMBER, NUMERAL

# The dialects that users have -----------------------------------------------------------------------------------------

_TIME = rb"(?:\d{4}-\d\d-\d\d[^\n|]*?)??"
"""What a logger may put before every line."""
_TRAINING = (
    rb"Step +(\d+) \| Loss: ([\d.]+) \| PPL: [\d.]+ \| LR: ([\d.e-]+)",
    rb"Step +(\d+) \| Loss: ([\d.]+)(?: \| PPL: [\d.]+)?()",
    rb"Step +(\d+) \| loss=([\d.]+)(?: \| ppl=[\d.]+)?(?: \| lr=([\d.e-]+))?",
)
TRAINING_LINES = tuple(re.compile(time + dialect + rb"\n|([^\n]*)\n") for time in (b"", _TIME) for dialect in _TRAINING)
"""For each dialect, without and with a time: step, loss, LR, or any other line."""
VALIDATION_LINE = re.compile(
    _TIME + rb"(?:  Validation \| Loss: |\[Step (\d+)\] Validation - Loss: |Eval step +(\d+) \| loss=)(\d+\.\d+)"
    rb"(?: \| PPL: |, PPL: | \| ppl=)(\d+(?:\.\d+)?)"
)
"""A validation of any of them: step or step (without one it is of the training record above it), loss, PPL."""

# Records in general ---------------------------------------------------------------------------------------------------

ESCAPES = re.compile(rb"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
"""Terminal escape sequences."""
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
LONGEST_PREFIX = 200
"""Characters before a record in which a logger may print time, name and level."""
VAL_WORD = r"(?:val(?:id(?:ation)?)?|eval(?:uation)?)"
STEP_WORD = r"\[?(?:global[_ ])?(?:step|iter(?:ation)?)[\s:=#]{0,16}"
STEP = rf"{STEP_WORD}({NUMERAL})(?:\s{{0,4}}/\s{{0,4}}{NUMERAL})?"
SEPARATOR = r"[\s|:,;.\-\])]{0,24}"
BETWEEN = r"[\s|:,_/.\-\])]{0,24}"
LOSS = rf"loss[\s:=]{{0,16}}({NUMBER})"
START = re.compile(
    rf"(?<![a-z])(?:{STEP_WORD}-?\d"
    rf"|{VAL_WORD}(?![a-z])(?={BETWEEN}(?:(?:val|eval)[_ ]?)?(?:loss|{STEP_WORD}-?\d)))",
    re.IGNORECASE,
)
"""Where a record begins."""
TRAINING = re.compile(rf"{STEP}{SEPARATOR}(?:train(?:ing)?[_ /.]?)?{LOSS}(.*)", re.IGNORECASE)
"""A training record: step, loss, the rest of the line."""
VALIDATION_AT_STEP = re.compile(
    rf"(?:{STEP}{SEPARATOR}{VAL_WORD}(?![a-z])|{VAL_WORD}[\s\]:|,)\-]{{1,16}}{STEP})"
    rf"{BETWEEN}(?:{VAL_WORD}[_ ]?)?{LOSS}(.*)",
    re.IGNORECASE,
)
"""A validation that names its step (before or after the word): step or step, loss, the rest."""
VALIDATION = re.compile(rf"{VAL_WORD}{BETWEEN}{LOSS}(.*)", re.IGNORECASE)
"""A validation that names no step, or only later in the line: loss, the rest."""
AFTER_STEP = re.compile(rf"\b(?:at|after)\s{{1,4}}{STEP}", re.IGNORECASE)
"""The step in the rest of such a line."""
LR = re.compile(rf"\b(?:lr|learning[_ ]rate)\s{{0,8}}[:=]?\s{{0,8}}({NUMBER})", re.IGNORECASE)
TOKENS = r"tok(?:en)?s?(?:/s(?:ec)?|[_ ]per[_ ]s(?:ec(?:ond)?)?)"
RATE = re.compile(
    rf"\b{TOKENS}\s{{0,8}}[:=]\s{{0,8}}({NUMERAL})(?!\s?[kM])|(?<![\d.,])(?<!\d )({NUMERAL})\s{{0,8}}{TOKENS}"
    r"(?![\w/]|\s{0,8}[:=]?\s{0,8}\d)",
    re.IGNORECASE,
)
"""Tokens per second, the unit before or behind the number."""
PPL = re.compile(rf"\b(?:ppl|perplexity)\s{{0,8}}[:=]?\s{{0,8}}({NUMBER})", re.IGNORECASE)
VALIDATION_LOSS = re.compile(rf"(?<![a-z]){VAL_WORD}[_ /.]?loss(?:[\s:=]{{0,16}}({NUMBER}))?", re.IGNORECASE)
"""A validation loss in the rest of a training record; no value where it is unclear."""
TRAINING_LOSS = re.compile(rf"(?<![a-z])train(?:ing)?[_ /.]?loss(?:[\s:=]{{0,16}}({NUMBER}))?", re.IGNORECASE)
"""A training loss in the rest of a validation."""
PROGRESS_BAR = re.compile(r"\d%\s{0,8}\||\bit/s\b|\bs/it\b|\dit \[|[━█▏▎▍▌▋▊▉]{2}|\d/\d{1,20} \[\d{1,9}:\d\d")
"""A progress bar, whatever numbers it shows."""
SIMILAR = (
    (re.compile(r"\b(?:step|iter(?:ation)?)\b", re.IGNORECASE), re.compile(r"loss\b", re.IGNORECASE)),
    (re.compile(r"\bvalidation\b", re.IGNORECASE), re.compile(r"\bloss\b", re.IGNORECASE)),
)
"""Pairs of words in this order that make a line similar to a record."""
VALUE = r"['\"]?[\s:=>\-]{0,16}(?:(?:is|was|became|turned|went|to|now)\s{1,8}){0,2}(?:tensor)?[\[('\"]{0,3}"
NAN = r"[-+]?(?:nan|inf(?:inity)?|1\.#(?:[qs]?nan|ind|inf)\d{0,9})(?!-?\w|\s{1,4}(?:or|check|guard|count)\b)"
NAMED = r"(?<![a-z])(?P<name>(?:[a-z]{1,20}[_/.]){0,3}loss(?:es)?(?:/\w{1,20})?)"
NOT_FINITE = re.compile(
    rf"{NAMED}(?:\s{{1,8}}(?:at|in|of|on|for)\s{{1,8}}[a-z]{{1,12}}[\s#:=]{{1,4}}\d{{1,12}})?{VALUE}{NAN}"
    r"|(?<![a-z])loss\s{1,8}(?:is|was|became)\s{1,8}(?:not\s{1,8}(?:a\s{1,8})?(?:finite|number)|non-?finite|infinite)\b"
    r"|(?<!\w)(?<!no )(?<!for )(?<!if )(?<!on )(?<!0 )(?<!without )(?:nan|non-?finite|infinite) loss(?:es)?"
    r"(?=\s(?:at|in|on|detected|encountered|found|occurred|seen|during)\b|[!,.;]|$)",
    re.IGNORECASE,
)
"""A loss that isn't finite, in a record or mentioned otherwise."""
LOSS_VALUE = re.compile(rf"{NAMED}{VALUE}({NUMERAL})", re.IGNORECASE)
"""A named loss and its value, in a line that is no record."""
OLDER_LOSS = re.compile(
    r"best|lowest|minim|(?<![a-z])min(?![a-z])|resum|restor|load|sav(?:ed|ing)|checkpoint", re.IGNORECASE
)
"""Words with which a line tells of another loss than the current one."""

# What may stand before a record --------------------------------------------------------------------------------------

BRACKETS = re.compile(r"\[[^\[\]]*\]|\([^()]*\)|<[^<>]*>")
"""Bracketed text before a record, which may hold anything."""
PROSE = re.compile(r"(?<!\S)(?![A-Z]+ )[A-Za-z']{2,} +[a-z']{2,}(?=[\s,:;.]|$)")
"""Two words of a sentence before a record."""
RETELLING = re.compile(
    r"(?<![a-z])(?:best|lowest|resum|restor|load|sav(?:ed|ing)|checkpoint|epoch|loss(?!\w))(?!\w*/)", re.IGNORECASE
)
"""Words before a record that make it one of the past."""
ABOUT_VALIDATION = re.compile(r"(?<![a-z])(?:val|valid|validat\w*|eval\w*|test|dev)(?![a-z/])", re.IGNORECASE)
"""Words before a training record that make it one of validation."""
LEVEL = re.compile(r"[A-Z]+|(?i:trace|debug|info|notice|warn|warning|train|training)")
"""What the last word before a record may be: a logger's level."""

# What a log states besides -------------------------------------------------------------------------------------------

PARAMETER_COUNT = re.compile(
    rf"(total|trainable|frozen)\s{{1,8}}param(?:eter)?s?\s{{0,8}}[:=]\s{{0,8}}({NUMERAL})(?!\s{{0,4}}[MBK]\b)",
    re.IGNORECASE,
)
"""A count of parameters, unless in millions or billions."""
KEYS = {
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
"""Spellings of configuration keys."""
FRACTIONS = ("max_lr", "min_lr", "weight_decay", "dropout")
"""Keys whose values may be fractions."""
WORDS = ("model_type", "freeze_qk")
"""Keys whose values are words; those of all others are whole numbers."""
FACT = re.compile(
    r"(?<![\w.])(?:--)?(?:"
    + "|".join(f"(?P<{key}>{words})" for key, words in KEYS.items())
    + rf")['\"]?\s{{0,8}}(?:[:=]\s{{0,8}}|\s(?=[\d]))['\"]?(?P<value>{NUMERAL}|(?:true|false|gpt|oelm)\b)",
    re.IGNORECASE,
)
"""A configuration key with its value."""
MAYBE_FACT = re.compile(r"[=:\d]")
"""What every line with a fact has."""
GPUS = re.compile(r"\b(?:using|on|with)\s+(\d{1,9})\s+(?:gpus?|processes|devices)\b", re.IGNORECASE)
COMPLETE = re.compile(r"\btraining\s+(?:is\s+)?(?:complete[d]?|finished|done)\b", re.IGNORECASE)

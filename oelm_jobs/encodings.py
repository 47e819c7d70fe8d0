"""Guess how a text that is not UTF-8 was encoded, so that an error can name the conversion that works."""

from __future__ import annotations

import codecs
import re
import shlex
from pathlib import Path

SAMPLE_BYTES = 1 << 16
"""What is looked at; more would tell no more."""
_FOREIGN = re.compile(rb"[\x80-\xff]+")


def name_encoding(content: bytes) -> str:
    """Return iconv's name of the probable encoding of a text that is not UTF-8; empty where it doesn't look like text.

    Args:
        content: The file's beginning, or what stands around the byte that UTF-8 doesn't allow.
    """
    if content.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):  # first: the former begins like UTF-16's
        return "UTF-32"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16"
    sample = content[:SAMPLE_BYTES]
    if b"\0" in sample:
        # Most text has blanks and digits: in UTF-16, zeros at every second place, none at the others.
        even, odd = sample[0::2], sample[1::2]
        for name, zeros, others in (("UTF-16LE", odd, even), ("UTF-16BE", even, odd)):
            if 0 not in others and zeros.count(0) * 8 > len(zeros) and _decodes(sample[: len(sample) // 2 * 2], name):
                return name
        return ""
    foreign = _FOREIGN.findall(sample)
    # Chinese characters come in pairs of bytes and in rows; accented letters stand alone between plain ones.
    if foreign and sum(map(len, foreign)) >= 2 * len(foreign) and _decodes(sample, "GB18030"):
        return "GB18030"
    return "CP1252" if any(0x80 <= byte <= 0x9F for byte in sample) else "LATIN1"


def conversion(path: Path, encoding: str) -> str:
    """Return the command that converts a text to UTF-8, into a file beside it."""
    beside = path.with_name(f"{path.stem}.utf8{path.suffix}")
    return f"{shlex.join(['iconv', '-f', encoding, '-t', 'UTF-8', str(path)])} > {shlex.quote(str(beside))}"


def _decodes(sample: bytes, encoding: str) -> bool:
    """Tell whether bytes are text without control characters; a character cut by the sample's end is ignored."""
    try:
        text = codecs.getincrementaldecoder(encoding)("strict").decode(sample)
    except UnicodeDecodeError:
        return False
    return not any(character < " " and character not in "\t\n\r\f" for character in text)

"""Make text from elsewhere safe to show on a terminal: control and invisible characters become escapes (``\\x1b``,
``\\u202e``).

What servers say, logs and file names may hold anything; whatever would steer the terminal, reorder text or hide in it
is shown, not obeyed.
"""

from __future__ import annotations

import codecs
import io
import re
import sys
from collections.abc import Callable

_FORMAT = (
    "\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""Characters without a width of their own that reorder what stands around them or hide in it (Unicode Technical Report
36 and Standard Annex 9): soft hyphen, bidirectional controls, zero-width ones, line and paragraph separators, tags.
"""
_CONTROL = "\x00-\x1f\x7f-\x9f\ud800-\udfff"
"""C0, DEL and C1 (ISO 6429), and halves of pairs, which can't be written at all."""
# Not compiled here: every command imports this module, and few print such a character.
_IN_A_LINE = f"[{_CONTROL}{_FORMAT}]"
_IN_A_TEXT = f"(?![\\n\\t]){_IN_A_LINE}"
_COLOUR = r"(\x1b\[[0-9;]*m)"
"""What click.style puts around words (Select Graphic Rendition)."""


def text(content: str) -> str:
    """Return text with control and invisible characters as escapes; newlines and tabs stay."""
    return content if _is_plain(content.replace("\n", "").replace("\t", "")) else re.sub(_IN_A_TEXT, _escape, content)


def message(content: str) -> str:
    """Return text as one message: lines after the first are indented, so that none looks like another message."""
    shown = text(content)
    begin = len(shown) - len(shown.lstrip("\n"))
    return shown[:begin] + shown[begin:].replace("\n", "\n  ")


translate: Callable[[str], str] = str
"""Puts what ``notice`` prints into the user's language; the commands set it."""


def notice(content: str) -> None:
    """Print a message on stderr at once."""
    print(message(translate(content)), file=sys.stderr, flush=True)


def coloured(content: str) -> str:
    """Return text in which only colours are left as escape sequences; its foreign parts have been through ``line`` or
    ``text``.
    """
    return "".join(part if number % 2 else text(part) for number, part in enumerate(re.split(_COLOUR, content)))


def in_json(document: str) -> str:
    """Return an equal JSON document in which control and invisible characters are escapes; newlines stay."""
    import json  # here, like others: every command imports this module

    return re.sub(_IN_A_TEXT, lambda found: json.dumps(found.group())[1:-1].replace("\x7f", "\\u007f"), document)


def line(content: str) -> str:
    """Return text as one line: newlines and tabs become escapes, too."""
    return content if _is_plain(content) else re.sub(_IN_A_LINE, _escape, content)


def _is_plain(content: str) -> bool:
    """True where nothing needs an escape, which is cheap to say of nearly all text: what is printable for Python are
    none of the characters above but the last of them, tags and variation selectors.
    """
    return content.isprintable() and (content.isascii() or max(content) < "\U000e0000")


def _escape(found: re.Match[str]) -> str:
    return found.group().encode("unicode_escape").decode()


class Stream:
    """Text that arrives in pieces of bytes, cut anywhere: within a character, an escape sequence or a line end."""

    def __init__(self) -> None:
        self._decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")("replace"), translate=True)

    def piece(self, content: bytes, *, final: bool = False) -> str:
        """Return the text that can be shown now; a carriage return begins a new line, so that nothing is overwritten.

        Args:
            final: Whether nothing follows.
        """
        return text(self._decoder.decode(content, final))

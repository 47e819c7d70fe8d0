"""Read files of known host keys (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT), for paramiko; the OpenSSH client reads them
itself.
"""

from __future__ import annotations

import base64
import binascii
import enum
import fnmatch
import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

REVOKED, AUTHORITY = "@revoked", "@cert-authority"


class KeyStanding(enum.Enum):
    """What the files say about a key."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    CHANGED = "changed"
    REVOKED = "revoked"


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line about a host."""

    file: str
    marker: str
    """``@revoked``, ``@cert-authority``, or empty."""
    kind: str
    """Type of the key."""
    key: bytes
    """The public key as it is sent."""


def lines_about(names: Sequence[str], files: Iterable[str]) -> list[Line]:
    """Return the files' lines about a host that has these names; invalid lines are skipped."""
    wanted = [name.lower() for name in names]
    found = []
    for file in files:
        try:
            content = Path(file).read_bytes()
        except OSError:
            continue
        # Only blanks, tabs and line feeds separate fields and lines: a comment that holds another Unicode separator
        # must not begin a line that OpenSSH does not see.
        for text in content.decode("utf-8", "replace").split("\n"):
            fields = [field for field in re.split("[ \t\r]", text) if field]
            marker = fields.pop(0) if fields and fields[0].startswith("@") else ""
            if len(fields) < 3 or fields[0].startswith("#") or marker not in ("", REVOKED, AUTHORITY):
                continue
            if not any(_names(fields[0], name) for name in wanted):
                continue
            try:
                key = base64.b64decode(fields[2], validate=True)
            except (binascii.Error, ValueError):
                continue
            kind = fields[1].encode("utf-8", "replace")
            if key.startswith(len(kind).to_bytes(4, "big") + kind):
                found.append(Line(file=file, marker=marker, kind=fields[1], key=key))
    return found


def _names(field: str, name: str) -> bool:
    """Tell whether a line's first field names a host: by its hash, or by patterns of which no negated one matches."""
    if field.startswith("|"):
        parts = field.split("|")
        try:
            salt, digest = base64.b64decode(parts[2]), base64.b64decode(parts[3])
        except (IndexError, binascii.Error, ValueError):
            return False
        return parts[1] == "1" and hmac.compare_digest(hmac.new(salt, name.encode(), hashlib.sha1).digest(), digest)
    is_meant = False
    for pattern in field.lower().split(","):
        if _matches(pattern.removeprefix("!"), name):
            if pattern.startswith("!"):
                return False
            is_meant = True
    return is_meant


def _matches(pattern: str, name: str) -> bool:
    """Match with ``*`` and ``?`` alone: brackets are part of names with a port."""
    return bool(re.fullmatch(fnmatch.translate(pattern.replace("[", "[[]")), name))


def judge(lines: Iterable[Line], key: bytes) -> tuple[KeyStanding, str]:
    """Return what the lines about a host say about the key that it presents, and in which file."""
    others = ""
    verdict = (KeyStanding.UNKNOWN, "")
    for line in lines:
        if line.marker == REVOKED and line.key == key:
            return KeyStanding.REVOKED, line.file
        if not line.marker and line.key == key:
            verdict = (KeyStanding.KNOWN, line.file)
        elif not line.marker:
            others = others or line.file
    return (KeyStanding.CHANGED, others) if others and verdict[0] is KeyStanding.UNKNOWN else verdict

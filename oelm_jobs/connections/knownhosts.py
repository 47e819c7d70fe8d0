"""Read files of known host keys (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT), for paramiko; the OpenSSH client reads them
itself.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import paramiko

REVOKED, AUTHORITY = "@revoked", "@cert-authority"


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


def lines_about(name: str, files: Iterable[str]) -> list[Line]:
    """Return the files' lines about a host of this name; invalid lines are skipped."""
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
            if not _names(fields[0], name.lower()):
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
        try:
            return bool(paramiko.HostKeys.hash_host(name, field) == field)
        except (AssertionError, IndexError, ValueError):
            return False
    is_meant = False
    for pattern in field.lower().split(","):
        # With * and ? alone: brackets are part of names with a port.
        if re.fullmatch(fnmatch.translate(pattern.removeprefix("!").replace("[", "[[]")), name):
            if pattern.startswith("!"):
                return False
            is_meant = True
    return is_meant

"""What commands print with ``--json`` is what its types say, and so what docs/reference says."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from oelm_jobs.cli import objects


def check_printed(name: str, arguments: Sequence[str], text: str) -> None:
    """See that all objects that a command has printed are of its types, where it was to print JSON.

    Args:
        name: The command's module, or ``main`` with the command as first argument.
    """
    if "--json" in arguments:
        command = (arguments[0] if name == "main" else name).replace("_", "-")
        for value in _values(text):
            wrong = [why_not(value, kind) for kind in objects.PRINTED[command]]
            assert "" in wrong, f"{command}: oelm_jobs/cli/objects.py says otherwise: {'; '.join(wrong)}"


def why_not(value: Any, kind: Any) -> str:
    """Return why a value read from JSON is not of a type; empty where it is."""
    try:
        read = msgspec.to_builtins(msgspec.convert(value, kind))
    except msgspec.ValidationError as error:
        return str(error)
    return "" if read == value else f"{sorted(set(value) - set(read)) or 'something inside'} is unknown"


def _values(text: str) -> Iterator[Any]:
    decoder, text = json.JSONDecoder(), text.strip()
    while text:
        value, end = decoder.raw_decode(text)
        yield value
        text = text[end:].lstrip()

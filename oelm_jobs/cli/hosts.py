"""Owns how a target's devices, queue and disk look in a terminal; leaves asking for them to observe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from .. import table
from ..language import tr

HEADERS = ("device", "model", "memory", "use", "held by")


def render(name: str, answer: Mapping[str, Any]) -> str:
    """Return what a target said of itself (agent/probe.py, with ``root``)."""
    rows = []
    for device in answer.get("devices", ()):
        memory = f"{device['memory_used_mb'] / 1024:.1f}/{device['memory_mb'] / 1024:.0f} GB"
        holder = f"{device['user']} ({device['run']})" if device["run"] else "–"
        use = f"{device['utilisation']} %" if device["memory_mb"] else "–"
        rows.append((device["label"], device["name"], memory if device["memory_mb"] else "–", use, holder))
    waiting = [f"{ticket['run']} of {ticket['user']}" for ticket in answer.get("queue", ())]
    facts = [f"{answer['disk_free'] / 1e9:.1f} GB free"] if "disk_free" in answer else []
    facts += [f"waiting: {', '.join(waiting)}"] if waiting else []
    head = click.style(tr(f"target {name}: {'; '.join(facts)}"), bold=True)
    return "\n".join([head, *([table.text(rows, [tr(header) for header in HEADERS], "llrrl")] if rows else [])])

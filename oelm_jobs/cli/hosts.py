"""Print a target's devices or partitions, queue and disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .. import table, visible
from ..agent.sentences import _, joined
from ..fitting import cut
from ..language import translated

if TYPE_CHECKING:
    from ..agent.messages import DeviceRow, Partition, PollAnswer

HEADERS = (_("device"), _("model"), _("memory"), _("use"), _("held by"))
PARTITION_HEADERS = (_("partition"), _("nodes"), _("GPUs a node"), _("max time"), _("note"))


def render(name: str, answer: PollAnswer, width: int | None = None) -> str:
    """Return a target's answer about its devices (agent/probe.py, agent/slurm/state.py) as text.

    Args:
        width: Columns that a line of a table may take.
    """
    waiting = [_("{run} of {user}", ticket["run"], ticket["user"]) for ticket in answer.get("queue", ())]
    facts = [_("{size:.1f} GB free", answer["disk_free"] / 1e9)] if "disk_free" in answer else []
    facts += [_("waiting: {runs}", waiting)] if waiting else []
    facts += [_("held to {limit}", answer["limit"])] if answer.get("limit") else []
    facts += [_("passed over: {files}", answer["junk"])] if answer.get("junk") else []
    facts += [_("no devices: {why}", answer["lease_error"])] if answer.get("lease_error") else []
    head = translated(_("target {target}: {facts}", name, joined(facts)))
    lines = [click.style(visible.line(head), bold=True)]
    partitions = answer["site"]["partitions"] if "site" in answer else ()
    for rows, headers, align in (
        ([_device(row) for row in answer.get("devices", ())], HEADERS, "llrrl"),
        ([_partition(row) for row in partitions], PARTITION_HEADERS, "lrlrl"),
    ):
        if rows:
            lines += table.text(rows, [translated(header) for header in headers], align).splitlines()
    return "\n".join([lines[0], *(line if width is None else cut(line, width) for line in lines[1:])])


def _device(row: DeviceRow) -> tuple[str, ...]:
    memory = f"{row['memory_used_mb'] / 1024:.1f}/{row['memory_mb'] / 1024:.0f} GB"
    holder = f"{row['user']} ({row['run']})" if row["run"] else "–"
    if row.get("holder"):
        holder = translated(_("without a ticket: {holder}", row["holder"]))
    if row.get("fault"):
        return (row["label"], translated(row["name"]), "–", "–", translated(row["fault"]))
    use = f"{row['utilisation']} %" if row["memory_mb"] else "–"
    return (row["label"], translated(row["name"]), memory if row["memory_mb"] else "–", use, holder)


def _partition(row: Partition) -> tuple[str, ...]:
    kinds = [word.split(":") for word in row["gres"] if word.split(":")[0] == "gpu"]
    gpus = ", ".join(" x ".join(reversed(kind[1:])) for kind in kinds)  # gpu:a5000:4 and gpu:4
    is_down = row["takes_jobs"] and not row["is_up"]
    states = ((_("default"), row["is_default"]), (_("down"), is_down), (_("takes no jobs"), not row["takes_jobs"]))
    notes = [word for word, holds in states if holds]
    return (row["name"], str(row["nodes"]), gpus or "–", row["max_time"], ", ".join(translated(word) for word in notes))

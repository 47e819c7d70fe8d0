"""Propose targets: what ``~/.ssh/config`` and, where this machine submits to a cluster, sinfo know. Nothing is
connected to.
"""

from __future__ import annotations

import glob
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import tomlfile
from ..agent.sentences import _
from ..errors import ConfigurationError, UsageError
from ..folders import home
from ..spec.options import PLACEHOLDER
from ..targets.files import append, read_targets

if TYPE_CHECKING:
    from ..agent.messages import Partition

MOST_HOSTS = 50
"""More hosts than these are not written down."""
DEEPEST = 8
"""How deep files of ssh_config(5) may include each other."""
LOCAL = "local"
HEAD = """\
# Where runs can go: `oelm submit --target NAME`. `oelm doctor NAME` checks a target before it costs a night.
# A targets.toml in your own configuration folder is read first, for all your projects.
[local]
kind = "local"                               # this machine: its GPUs, or one slot for each CPU core where it has none
"""
OF_CLUSTER = """
# Partitions that sinfo lists on this machine, ready to use. Options of sbatch stand as they are.
"""
_WHAT_HOSTS_NEED = """\
# One that is a cluster's login node is kind = "slurm" and needs
# sbatch = { partition = "…", gpus = "{gpus}", time = "12:00:00" }.
# What runs need first goes into setup = ["source ~/venvs/torch/bin/activate"].
"""
OF_CHOSEN = f"""
# Hosts that ssh reaches, ready to use.
{_WHAT_HOSTS_NEED}"""
OF_HOSTS = f"""
# Hosts of ~/.ssh/config, each to be switched on by oelm init --host NAME, or by taking the "# " away.
{_WHAT_HOSTS_NEED}"""
OF_OTHERS = """
# Other hosts of ~/.ssh/config, each to be switched on by oelm init --host NAME, or by taking the "# " away.
"""


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A targets file that isn't written yet."""

    text: str
    ready: tuple[str, ...]
    """Targets that can be used as they are."""
    commented: tuple[str, ...]
    """Hosts that stand in comments."""
    remarks: tuple[str, ...] = ()
    """What could not be asked."""


def propose(ssh_config: Path | None = None, chosen: Sequence[str] = ()) -> Proposal:
    """Return what this machine knows of places to run.

    Args:
        ssh_config: Without it the user's own.
        chosen: Hosts that are targets at once; the others of the file stand in comments.

    Raises:
        UsageError: One can't be a target's name.
    """
    partitions, remarks = _partitions()
    of_cluster, of_hosts = _of_cluster(partitions), tables_of(chosen)
    if taken := sorted(of_hosts.keys() & of_cluster.keys()):
        raise UsageError(_("--host {host}: a partition of this machine's cluster has that name", taken[0]))
    ready = {**of_cluster, **of_hosts}
    found = hosts(ssh_config or home() / ".ssh" / "config")
    commented = {name: {"kind": "ssh", "host": name} for name in found if name not in (LOCAL, *ready)}
    if len(commented) > MOST_HOSTS:
        remarks += (_("~/.ssh/config names {count} hosts; the first {most} are in it", len(commented), MOST_HOSTS),)
        commented = dict(list(commented.items())[:MOST_HOSTS])
    text = HEAD
    for head, tables in ((OF_CLUSTER, of_cluster), (OF_CHOSEN, of_hosts)):
        if tables:
            text += head + "\n".join(tomlfile.document({name: table}).lstrip("\n") for name, table in tables.items())
    if commented:
        text += (OF_OTHERS if of_hosts else OF_HOSTS) + "\n".join(
            "".join(f"# {line}\n" for line in tomlfile.document({name: table}).split("\n") if line)
            for name, table in commented.items()
        )
    return Proposal(text=text, ready=(LOCAL, *ready), commented=tuple(commented), remarks=remarks)


# A cluster ------------------------------------------------------------------------------------------------------------


def _partitions() -> tuple[Sequence[Partition], tuple[str, ...]]:
    """Return the partitions that jobs of this machine can go to, and why they aren't known."""
    if shutil.which("sinfo") is None:
        return (), ()
    from ..agent.slurm.commands import SlurmError
    from ..agent.slurm.site import partitions

    try:
        return [row for row in partitions() if row["is_up"] and row["takes_jobs"]], ()
    except SlurmError as error:
        return (), (_("sinfo is here and says no partitions: {why}", str(error)),)


def _of_cluster(partitions: Sequence[Partition]) -> dict[str, dict[str, Any]]:
    """Return a target for each partition, the default one first; with several kinds of GPUs one for each kind."""
    found: dict[str, dict[str, Any]] = {}
    for row in sorted(partitions, key=lambda row: not row["is_default"]):
        kinds = list(dict.fromkeys(filter(None, map(_gpus, row["gres"]))))
        for gpus in kinds or [""]:
            kind = gpus.partition(":")[0] if ":" in gpus else ""
            name = row["name"] + (f"-{kind}" if len(kinds) > 1 and kind else "")
            name = f"{name}-slurm" if name == LOCAL else name
            has_limit = row["max_time"][:1].isdigit()
            options = {"partition": row["name"], **({"gpus": gpus} if gpus else {})}
            options |= {"time": row["max_time"]} if has_limit else {}
            table = {"kind": "slurm", "sbatch": options}
            if _can_be_read(name, table):
                found.setdefault(name, table)
    return found


def _gpus(gres: str) -> str:
    """Return a run's GPUs as sbatch is asked for them (``a100:{gpus}``), of ``gpu:a100:4``; empty for what is none."""
    fields = gres.split(":")
    if fields[0] != "gpu":
        return ""
    return f"{fields[1]}:{PLACEHOLDER}" if len(fields) > 2 else PLACEHOLDER


# Hosts ----------------------------------------------------------------------------------------------------------------


def tables_of(chosen: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return a target for each host, by its name.

    Raises:
        UsageError: One can't be a target's name.
    """
    found = {name: {"kind": "ssh", "host": name} for name in chosen}
    for name, table in found.items():
        if name == LOCAL or not _can_be_read(name, table):
            raise UsageError(
                _("--host {host}: can't be a target's name", name),
                hint=_("give it a Host of its own in ~/.ssh/config, of letters, digits, dots and dashes"),
            )
    return found


def add(path: Path, chosen: Sequence[str]) -> list[str]:
    """Write hosts behind what a targets file has; return those that it lacked.

    Raises:
        UsageError: One can't be a target's name.
        ConfigurationError: The file can't be read or written.
    """
    with tomlfile.changing(path) as before:
        lacking = {name: table for name, table in tables_of(chosen).items() if name not in before}
        if lacking:
            append(path, lacking)
    return list(lacking)


def hosts(config: Path) -> list[str]:
    """Return the hosts that a file of ssh_config(5) calls by name, in its order; without patterns, and without those
    where git alone logs in.
    """
    found: dict[str, bool] = {}
    _read(config, config.parent, found, DEEPEST)
    return [name for name, is_git in found.items() if not is_git and _can_be_read(name, {"kind": "ssh", "host": name})]


def _read(path: Path, base: Path, found: dict[str, bool], depth: int) -> None:
    current: list[str] = []
    for keyword, words in _lines(path):
        if keyword == "host":
            current = [word for word in words if not re.search(r"[*?!]", word)]
            found.update({name: found.get(name, False) for name in current})
        elif keyword == "match":
            current = []
        elif keyword == "user" and words[:1] == ["git"]:
            found.update(dict.fromkeys(current, True))
        elif keyword == "include" and depth:
            for word in words:
                pattern = str(base / (f"{home()}/{word[2:]}" if word.startswith("~/") else word))
                for file in sorted(glob.glob(pattern)):
                    _read(Path(file), base, found, depth - 1)


def _lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield keyword and arguments of each line; of what can't be read, nothing."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    except OSError:
        return
    for line in text.splitlines():
        line = line.strip()
        if line and not line.startswith("#"):
            keyword, *rest = re.split(r"[\s=]+", line, maxsplit=1)
            quoted = re.findall(r'"([^"]*)"|(\S+)', rest[0] if rest else "")
            yield keyword.lower(), [one or other for one, other in quoted]


def _can_be_read(name: str, table: Mapping[str, Any]) -> bool:
    """Tell whether a targets file may hold a table."""
    try:
        read_targets(tomlfile.Section(Path("targets.toml"), "", {name: table}))
    except ConfigurationError:
        return False
    return True

"""Propose targets for commands: sbatch's options, set-up lines, hosts."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import tomlfile
from ..agent.sentences import _
from ..errors import ConfigurationError
from ..spec.options import PLACEHOLDER
from ..targets.files import read_targets
from ..targets.sbatch_keys import OWNED
from .commands import Command
from .found import Found
from .scope import as_written, is_known
from .state import shell_line

PARALLEL = "max_parallel"
"""Among sbatch's options: how many tasks of an array run at a time."""
_IGNORED = frozenset({*OWNED, "export", "get-user-env", "verbose", "hold", "dependency", PARALLEL})
"""Options of sbatch that a target doesn't need."""
_NAMED = {"dependency": _("a run waits for no job: oelm-submit --mode sequential keeps an order"),
          "chdir": _("a run works in its own folder")}  # fmt: skip


def propose(
    commands: Sequence[Command], existing: Mapping[str, Any], constant: Collection[str], found: Found
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return targets by name, and that of each command; ``local`` needs no table where nothing is set up.

    Args:
        existing: Tables of the project's targets file, whose names are taken.
        constant: Variables of the environment that don't vary.
    """
    tables: dict[str, dict[str, Any]] = {}
    targets: list[str] = []
    known: dict[str, str] = {}
    for command in commands:
        table = _table(command, constant, found)
        if table == {"kind": "local"}:
            targets.append("local")
            continue
        key = repr(table)
        if key not in known:
            known[key] = _name(table, {**existing, **tables}, table)
            if existing.get(known[key]) != table:
                tables[known[key]] = table
        targets.append(known[key])
    return tables, targets


def _table(command: Command, constant: Collection[str], found: Found) -> dict[str, Any]:
    started = command.started
    table: dict[str, Any] = {"kind": "slurm" if started.options is not None else "ssh" if started.host else "local"}
    if started.host:
        user, at, host = started.host.rpartition("@")
        host, colon, port = host.partition(":")
        table |= {"host": host, **({"user": user} if at else {}), **({"port": int(port)} if colon else {})}
    if python := _interpreter(command):
        table["python"] = python
    exports = [_export(name, value) for name, value in command.environment.items() if name in constant]
    if setup := [*started.setup, *exports]:
        table["setup"] = setup
    if command.secrets:
        table["env"] = sorted(command.secrets)
    if started.options is not None:
        options = started.options
        if options.get(PARALLEL):
            table["max_parallel"] = int(options[PARALLEL])
        if "no-requeue" in options:
            table["requeue"] = False
        for option, why in _NAMED.items():
            if option in options:
                found.leave(started.place, f"--{option}={options[option]}", why)
        sbatch = {name: _option(name, value) for name, value in options.items() if name not in _IGNORED}
        table["sbatch"] = _valid(sbatch, command, found)
        if not table["sbatch"]:
            del table["sbatch"]
    return table


def _interpreter(command: Command) -> str:
    """Return the path of an interpreter that isn't the environment's; empty where it has none that can be told."""
    python, folder = command.program.python, command.started.folder
    if python and is_known(python) and not python.startswith(("/", "~")):
        return posixpath.join(folder, python) if folder.startswith(("/", "~")) else ""
    return python if is_known(python) else ""


def _export(name: str, value: str) -> str:
    if is_known(value):
        text = shlex.quote(value)
    else:
        line = shell_line([value])
        text = line if line.startswith('"') else f'"{as_written(value)}"'
    return " ".join(["export", f"{name}={text}"])


def _option(name: str, value: str) -> str | bool:
    """Return an option's value for a targets file: numbers of GPUs are the run's, nothing is a switch."""
    if name in ("gres", "tres-per-node") and re.fullmatch(r"(gres[:/])?gpu([:=][A-Za-z][\w.-]*)?([:=]\d+)?", value):
        return re.sub(r"[:=]\d+$", "", value) + ":" + PLACEHOLDER
    if name in ("gpus", "gpus-per-node") and re.fullmatch(r"([A-Za-z][\w.-]*:)?\d+", value):
        return re.sub(r"\d+$", "", value) + PLACEHOLDER
    return value if value else True


def _valid(sbatch: dict[str, str | bool], command: Command, found: Found) -> dict[str, str | bool]:
    """Return the options that a target may have; the others are named."""
    kept: dict[str, str | bool] = {}
    for name, value in sbatch.items():
        try:
            tables = {"cluster": {"kind": "slurm", "sbatch": {name: value}}}
            read_targets(tomlfile.Section(Path(command.started.place.path), "", tables))
        except ConfigurationError as error:
            found.leave(command.started.place, f"--{name}={value}", str(error))
        else:
            kept[name] = value
    return kept


def _name(table: Mapping[str, Any], taken: Mapping[str, Any], like: Mapping[str, Any]) -> str:
    """Return a target's name: its host or partition, and a number where that is taken by another."""
    sbatch = table.get("sbatch", {})
    wanted = str(table.get("host") or sbatch.get("partition") or ("cluster" if table["kind"] == "slurm" else "here"))
    wanted = re.sub(r"[^\w.-]+", "_", wanted).strip("_.-")[:64] or "cluster"
    wanted = "cluster" if wanted == "local" else wanted
    name, number = wanted, 2
    while name in taken and taken[name] != like:
        name, number = f"{wanted}-{number}", number + 1
    return name

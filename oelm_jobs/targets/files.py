"""Read targets files; save hosts that were given on a command line in one."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import names, tomlfile
from ..agent import rundir
from ..agent.sentences import _
from ..errors import NoSuchTarget, UsageError, valid_choices
from ..folders import REMEMBERED, config_folder, target_files
from ..spec.target import Target

KINDS = ("local", "ssh", "slurm")
"""Kinds of targets that this version can use."""
CONNECTIONS = ("fabric", "openssh")
"""Ways to reach another machine."""
DEFAULT_ROOT = "oelm"
"""Root on another machine where none is given; below the home folder there."""
HEADER = "# Written by oelm-submit --host. Add what a targets file may hold, or delete a table; it stays so.\n"
_HOST = re.compile(r"[A-Za-z0-9_.:%\[\]-]+")
_USER = re.compile(r"[A-Za-z0-9_.\\@+-]+")
_NAME = re.compile(r"[\w\[][\w.@:%\[\]\\+-]{0,127}")
LOCAL = Target(name="local", kind="local", root="", python="")
"""This machine; there without any file."""


def load_targets(project: Path) -> dict[str, Target]:
    """Return all targets by name; ``local`` is always among them.

    Raises:
        ConfigurationError: A file is off.
    """
    found = {"local": LOCAL}
    for path in target_files(project):
        found |= read_targets(tomlfile.read(path))
    return found


def read_targets(top: tomlfile.Section) -> dict[str, Target]:
    """Return the targets of one file by name.

    Raises:
        ConfigurationError: Says all that is wrong in it.
    """
    found: dict[str, Target] = {}
    with top.all_at_once():
        for name in top.keys_left():
            if not _NAME.fullmatch(name):  # it is written into scripts and onto terminals
                why = _("can't be a target's name: letters, digits and . _ @ : % + - only, at most 128")
                top.wrong(repr(name), why, at=name)
            found[name] = _read_target(name, top.take_section(name))
    return found


def load_target(project: Path, name: str) -> Target:
    """Return one target.

    Raises:
        NoSuchTarget: There is none of that name.
    """
    targets = load_targets(project)
    if name not in targets:
        paths = [str(path) for path in target_files(project)] or [str(project / "jobs" / "targets.toml")]
        raise NoSuchTarget(
            _("no target {target!r}; {choices}", name, valid_choices(name, targets)),
            hint=_(
                "targets are described in {paths}; runs of a renamed one are found by oelm-status --rebuild",
                functools.reduce(lambda rest, path: _("{a} or {b}", rest, path), paths),
            ),
        )
    return targets[name]


def _read_target(name: str, table: tomlfile.Section) -> Target:
    kind = table.take("kind", str, choices=KINDS)
    for key in table.keys_left():
        if "password" in key.lower() or "passphrase" in key.lower():
            table.wrong(key, _("no password belongs in a file: use a key and an agent"))
            table.take_any(key)
    data = table.take_section("data")
    env = table.take_list("env", str, ())
    for variable in env:
        if not variable.isidentifier():
            table.wrong(
                "env", _("give names of environment variables; their values are never written down"), value=variable
            )
    reach = {} if kind == "local" else _read_reach(table, required=kind == "ssh")
    leased = _read_leased(table) if kind != "slurm" else {}
    is_limited = "gpus_per_run" in table
    gpus_per_run = table.take("gpus_per_run", int, 0)
    if is_limited and gpus_per_run < 1:
        table.wrong("gpus_per_run", _("must be at least 1"), value=gpus_per_run)
    slurm = None
    if kind == "slurm":
        from .sbatch_keys import read_slurm  # here, because a status reads this file and few targets are Slurm's

        slurm = read_slurm(table, is_remote=bool(reach.get("host")))
    target = Target(
        name=name,
        kind=kind,
        root=_read_path(table, "root", DEFAULT_ROOT if reach.get("host") else ""),
        python=_read_path(table, "python"),
        setup=table.take_list("setup", str, ()),
        data={key: _read_path(data, key) for key in data.keys_left()},
        checkpoint_root=_read_path(table, "checkpoint_root"),
        env=env,
        gpus_per_run=gpus_per_run,
        template=table.take("template", str, ""),
        share=table.take("share", str, "", choices=("group",)),
        slurm=slurm,
        **leased,
        **reach,
    )
    if kind:  # else nobody knows what it may hold
        table.finish()
    return target


def _read_leased(table: tomlfile.Section) -> dict[str, Any]:
    """Take the keys that say which devices of a plain host runs lease, and how many at a time."""
    found: dict[str, Any] = {}
    for key in ("gpus", "avoid", "prefer"):
        indices = found[key] = tuple(sorted(table.take_list(key, int, ())))
        if len(set(indices)) != len(indices) or min(indices, default=0) < 0:
            table.wrong(key, _("give indices of GPUs, each once, as in [0, 1]"), value=list(indices))
    both = sorted(set(found["avoid"]) & {*found["gpus"], *found["prefer"]})
    if both:
        table.wrong("avoid", _("gpus or prefer names {gpus}, too", both), value=list(found["avoid"]))
    for key, otherwise in (("max_parallel", 0), ("per_gpu", 1)):
        is_given, most = key in table, 64 if key == "per_gpu" else 1_000_000
        found[key] = table.take(key, int, otherwise)
        if is_given and not 1 <= found[key] <= most:
            table.wrong(key, _("valid: {low} to {high}", 1, most), value=found[key])
    return found


def _read_reach(table: tomlfile.Section, *, required: bool) -> dict[str, Any]:
    """Take the keys that say how another machine is reached: host, user, port, connection."""
    found = {
        "host": table.take("host", str) if required else table.take("host", str, ""),
        "user": table.take("user", str, ""),
        "port": table.take("port", int, 0),
    }
    for key, value in found.items():
        if wrong := _wrong_reach(key, value):
            table.wrong(key, wrong, value=value)
    return {**found, "connection": table.take("connection", str, CONNECTIONS[0], choices=CONNECTIONS)}


def _wrong_reach(key: str, value: Any) -> str:
    """Return why a host, user or port can't be one; they become words of ssh's command line."""
    if key == "port":
        return "" if 0 <= value <= 65535 else _("valid: {low} to {high}", 1, 65535)
    if not value or (not value.startswith("-") and (_HOST if key == "host" else _USER).fullmatch(value)):
        return ""
    return _("an alias of ~/.ssh/config, a name or an address") if key == "host" else _("a login name")


def _read_path(table: tomlfile.Section, key: str, default: str = "") -> str:
    """Take a path on a target (absolute, or below the home folder there)."""
    path = table.take(key, str, default)
    if wrong := names.why_not_path(path):
        table.wrong(key, wrong, value=path)
    return path


def append(path: Path, tables: Mapping[str, Mapping[str, Any]]) -> None:
    """Write tables behind what a targets file has, whose remarks stay; the caller lets nobody else change it.

    Raises:
        OSError: It can't be read or written.
    """
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    before = f"{old.rstrip()}\n\n" if old.strip() else ""
    rundir.write_text(path, before + tomlfile.document(tables).lstrip("\n"), durable=False)


# Targets given on a command line --------------------------------------------------------------------------------------


def adhoc(host: str, *, user: str = "", port: int = 0, root: str = "", setup: tuple[str, ...] = ()) -> Target:
    """Return a target made of a command line's words; its name is ``[user@]host[:port]``.

    Raises:
        UsageError: One of them can't be what it says.
    """
    why = "" if host else _("is missing")
    for key, value in (("host", host), ("user", user), ("port", port), ("root", root)):
        if wrong := why or (names.why_not_path(root) if key == "root" else _wrong_reach(key, value)):
            raise UsageError(_("--{option} {value!r}: {why}", key, value, wrong))
    name = (f"{user}@" if user else "") + host + (f":{port}" if port else "")
    return Target(
        name=name, kind="ssh", host=host, user=user, port=port, root=root or DEFAULT_ROOT, python="", setup=setup
    )


def named_on_the_spot(
    project: Path, host: str, *, user: str = "", port: int = 0, root: str = "", setup: tuple[str, ...] = ()
) -> Target:
    """Return the target that a command line's words mean: what the targets files know under its name already, with the
    words in place of what is written there; else one made of the words alone.

    Raises:
        UsageError: One of them can't be what it says, or the files know another machine under that name.
    """
    made = adhoc(host, user=user, port=port, root=root, setup=setup)
    known = load_targets(project).get(made.name)
    if known is None:
        return made
    if (known.host, known.user, known.port) != (made.host, made.user, made.port):
        raise UsageError(
            _(
                "--host {host}: the targets files know {name} as another machine: {other}",
                host,
                made.name,
                known.host or _("this one"),
            ),
            hint=_("--target {name} means that one; for {host} itself give that table another name", made.name, host),
        )
    return replace(known, root=made.root if root else known.root, setup=setup or known.setup)


def remember(project: Path, target: Target) -> Path | None:
    """Write an ad-hoc target down, so that later commands find its runs; return the file.

    What else stands in the file stays, comments apart.

    Returns:
        None where a file knew it already.

    Raises:
        ConfigurationError: The file can't be read or written.
    """
    known = load_targets(project).get(target.name)
    path = config_folder() / REMEMBERED
    if known == target:
        return None
    with tomlfile.changing(path) as tables:
        if known is not None and target.name not in tables:
            return None  # it is described in a file of the user's, which wins
        given = {"kind": "ssh", "host": target.host, "user": target.user, "port": target.port}
        given |= {"root": target.root, "setup": list(target.setup)}
        own = {**tables.get(target.name, {}), **given}
        tables[target.name] = {key: value for key, value in own.items() if value}
        rundir.write_text(path, HEADER + tomlfile.document(tables), durable=False)
    return path

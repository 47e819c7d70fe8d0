"""Read targets files; save hosts that were given on a command line in one."""

from __future__ import annotations

import fcntl
import functools
import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import names, tomlfile
from ..agent.sentences import _
from ..errors import ConfigurationError, NoSuchTarget, UsageError, valid_choices
from ..folders import config_folder
from ..spec.target import Slurm, Target

KINDS = ("local", "ssh", "slurm")
"""Kinds of targets that this version can use."""
CONNECTIONS = ("fabric", "openssh")
"""Ways to reach another machine."""
DEFAULT_ROOT = "oelm"
"""Root on another machine where none is given; below the home folder there."""
REMEMBERED = "remembered.toml"
"""File beside the user's targets.toml, written by the toolkit: targets that were given on a command line."""
_HOST = re.compile(r"[A-Za-z0-9_.:%\[\]-]+")
_USER = re.compile(r"[A-Za-z0-9_.\\@+-]+")
_NAME = re.compile(r"[\w\[][\w.@:%\[\]\\+-]{0,127}")
LOCAL = Target(name="local", kind="local", root="", python="")
"""This machine; there without any file."""


def target_files(project: Path) -> list[Path]:
    """Return the targets files that exist: remembered ones, the user's, then the project's, whose tables win."""
    user = config_folder()
    paths = (user / REMEMBERED, user / "targets.toml", project / "jobs" / "targets.toml")
    return [path for path in paths if path.is_file()]


def load_targets(project: Path) -> dict[str, Target]:
    """Return all targets by name; ``local`` is always among them.

    Raises:
        ConfigurationError: A file is off.
    """
    found = {"local": LOCAL}
    for path in target_files(project):
        top = tomlfile.read(path)
        for name in top.keys_left():
            if not _NAME.fullmatch(name):  # it is written into scripts and onto terminals
                raise ConfigurationError(
                    _(
                        "{path}: {name!r} can't be a target's name: letters, digits and . _ @ : % + - only, at most"
                        " 128",
                        str(path),
                        name,
                    )
                )
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
            raise table.error(key, _("no password belongs in a file: use a key and an agent"))
    data = table.take_section("data")
    env = table.take_list("env", str, ())
    for variable in env:
        if not variable.isidentifier():
            raise table.error(
                "env", _("give names of environment variables; their values are never written down"), value=variable
            )
    reach = {} if kind == "local" else read_reach(table, required=kind == "ssh")
    target = Target(
        name=name,
        kind=kind,
        root=read_path(table, "root", DEFAULT_ROOT if reach.get("host") else ""),
        python=read_path(table, "python"),
        setup=table.take_list("setup", str, ()),
        data={key: read_path(data, key) for key in data.keys_left()},
        checkpoint_root=read_path(table, "checkpoint_root"),
        env=env,
        gpus=_read_gpus(table) if kind != "slurm" else (),
        gpus_per_run=_read_gpus_per_run(table),
        template=table.take("template", str, ""),
        share=table.take("share", str, "", choices=("group",)) if "share" in table else "",
        slurm=_read_slurm(table, bool(reach.get("host"))) if kind == "slurm" else None,
        **reach,
    )
    table.finish()
    return target


def _read_slurm(table: tomlfile.Section, is_remote: bool) -> Slurm:
    from .sbatch import read_slurm  # here, because a status reads this file and few targets are Slurm's

    return read_slurm(table, is_remote=is_remote)


def _read_gpus(table: tomlfile.Section) -> tuple[int, ...]:
    gpus = table.take_list("gpus", int, ())
    if len(set(gpus)) != len(gpus) or min(gpus, default=0) < 0:
        raise table.error("gpus", _("give the indices that runs may use, each once, as in [0, 1]"), value=list(gpus))
    return tuple(sorted(gpus))


def _read_gpus_per_run(table: tomlfile.Section) -> int:
    is_given = "gpus_per_run" in table
    number = table.take("gpus_per_run", int, 0)
    if is_given and number < 1:
        raise table.error("gpus_per_run", _("must be at least 1"), value=number)
    return number


def read_reach(table: tomlfile.Section, *, required: bool) -> dict[str, Any]:
    """Take the keys that say how another machine is reached: host, user, port, connection.

    Raises:
        ConfigurationError: One is missing or can't be what it says.
    """
    host = table.take("host", str) if required else table.take("host", str, "")
    found = {
        "host": host,
        "user": table.take("user", str, ""),
        "port": table.take("port", int, 0),
        "connection": table.take("connection", str, CONNECTIONS[0], choices=CONNECTIONS),
    }
    for key, value in found.items():
        wrong = _wrong_reach(key, value)
        if wrong:
            raise table.error(key, wrong, value=value)
    return found


def _wrong_reach(key: str, value: Any) -> str:
    """Return why a host, user or port can't be one; they become words of ssh's command line."""
    if key == "port":
        return "" if 0 <= value <= 65535 else _("valid: {low} to {high}", 1, 65535)
    if value and (value.startswith("-") or not {"host": _HOST, "user": _USER}.get(key, _USER).fullmatch(value)):
        return _("an alias of ~/.ssh/config, a name or an address") if key == "host" else _("a login name")
    return ""


def read_path(table: tomlfile.Section, key: str, default: str = "") -> str:
    """Take a path on a target (absolute, or below the home folder there).

    Raises:
        ConfigurationError: It begins like an option, or holds characters that no path should.
    """
    path = table.take(key, str, default)
    wrong = names.why_not_path(path)
    if wrong:
        raise table.error(key, wrong, value=path)
    return path


# Targets given on a command line --------------------------------------------------------------------------------------


def adhoc(host: str, *, user: str = "", port: int = 0, root: str = "", setup: tuple[str, ...] = ()) -> Target:
    """Return a target made of a command line's words; its name is ``[user@]host[:port]``.

    Raises:
        UsageError: One of them can't be what it says.
    """
    for key, value in (("host", host), ("user", user), ("port", port)):
        wrong = _wrong_reach(key, value)
        if wrong or (key == "host" and not host):
            raise UsageError(_("--{option} {value!r}: {why}", key, value, wrong or _("is missing")))
    if wrong := names.why_not_path(root):
        raise UsageError(_("--{option} {value!r}: {why}", "root", root, wrong))
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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)  # of several commands at once none may lose another's target
            tables = tomlfile.tables(path) if path.is_file() else {}
            if known is not None and target.name not in tables:
                return None  # it is described in a file of the user's, which wins
            given = {"kind": "ssh", "host": target.host, "user": target.user, "port": target.port}
            given |= {"root": target.root, "setup": list(target.setup)}
            own = {**tables.get(target.name, {}), **given}
            tables[target.name] = {key: value for key, value in own.items() if value}
            lines = [
                "# Written by oelm-submit --host. Add what a targets file may hold, or delete a table; it stays so."
            ]
            for name, table in tables.items():
                lines += ["", f"[{json.dumps(name, ensure_ascii=False)}]"]
                lines += [f"{key} = {_toml(value)}" for key, value in table.items()]
            temporary = path.with_name(f".{path.name}.{os.getpid()}")
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
            temporary.replace(path)
        finally:
            os.close(folder)
    except OSError as error:
        raise ConfigurationError(_("{path}: can't be written: {why}", str(path), str(error))) from error
    return path


def _toml(value: Any) -> str:
    """Return a value as TOML: a JSON string, number or list of them is one."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{json.dumps(key, ensure_ascii=False)} = {_toml(each)}" for key, each in value.items())
        return f"{{ {inner} }}"
    return json.dumps(value, ensure_ascii=False)

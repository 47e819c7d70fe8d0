"""Owns targets files: which places to run there are and what they need; leaves reaching them to connections."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from . import tomlfile
from .errors import ConfigurationError, UsageError, valid_choices
from .folders import config_folder
from .spec import Slurm, Target

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
                    f"{path}: {name!r} can't be a target's name: letters, digits and . _ @ : % + - only, at most 128"
                )
            found[name] = _read_target(name, top.take_section(name))
    return found


def load_target(project: Path, name: str) -> Target:
    """Return one target.

    Raises:
        UsageError: There is none of that name.
    """
    targets = load_targets(project)
    if name not in targets:
        files = " or ".join(str(path) for path in target_files(project)) or str(project / "jobs" / "targets.toml")
        raise UsageError(
            f"no target {name!r}; {valid_choices(name, targets)}", hint=f"targets are described in {files}"
        )
    return targets[name]


def _read_target(name: str, table: tomlfile.Section) -> Target:
    kind = table.take("kind", str, choices=KINDS)
    for key in table.keys_left():
        if "password" in key.lower() or "passphrase" in key.lower():
            raise table.error(key, "no password belongs in a file: use a key and an agent")
    data = table.take_section("data")
    env = table.take_list("env", str, ())
    for variable in env:
        if not variable.isidentifier():
            raise table.error(
                "env", "give names of environment variables; their values are never written down", value=variable
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
        raise table.error("gpus", "give the indices that runs may use, each once, as in [0, 1]", value=list(gpus))
    return tuple(sorted(gpus))


def _read_gpus_per_run(table: tomlfile.Section) -> int:
    number = table.take("gpus_per_run", int, 0)
    if number < 0:
        raise table.error("gpus_per_run", "must not be negative", value=number)
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
        return "" if 0 <= value <= 65535 else "valid: 1 to 65535"
    if value and (value.startswith("-") or not {"host": _HOST, "user": _USER}.get(key, _USER).fullmatch(value)):
        return "an alias of ~/.ssh/config, a name or an address" if key == "host" else "a login name"
    return ""


def read_path(table: tomlfile.Section, key: str, default: str = "") -> str:
    """Take a path on a target (absolute, or below the home folder there).

    Raises:
        ConfigurationError: It begins like an option, or holds characters that no path should.
    """
    path = table.take(key, str, default)
    wrong = _wrong_path(path)
    if wrong:
        raise table.error(key, wrong, value=path)
    return path


def _wrong_path(path: str) -> str:
    if path.startswith("-") or not path.isprintable():
        return "a path that begins with '-' or holds control characters is refused"
    if path.startswith("~") and path[1:2] not in ("", "/"):
        return "another user's home folder must be given as an absolute path"
    return ""


# Targets given on a command line --------------------------------------------------------------------------------------


def adhoc(host: str, *, user: str = "", port: int = 0, root: str = "", setup: tuple[str, ...] = ()) -> Target:
    """Return a target made of a command line's words; its name is ``[user@]host[:port]``.

    Raises:
        UsageError: One of them can't be what it says.
    """
    for key, value in (("host", host), ("user", user), ("port", port)):
        wrong = _wrong_reach(key, value)
        if wrong or (key == "host" and not host):
            raise UsageError(f"--{key} {value!r}: {wrong or 'is missing'}")
    if _wrong_path(root):
        raise UsageError(f"--root {root!r}: {_wrong_path(root)}")
    name = (f"{user}@" if user else "") + host + (f":{port}" if port else "")
    return Target(
        name=name, kind="ssh", host=host, user=user, port=port, root=root or DEFAULT_ROOT, python="", setup=setup
    )


def remember(target: Target) -> Path:
    """Write an ad-hoc target down, so that later commands find its runs; return the file.

    Raises:
        ConfigurationError: The file can't be written.
    """
    path = config_folder() / REMEMBERED
    tables: dict[str, Target] = {}
    if path.is_file():
        top = tomlfile.read(path)
        tables = {name: _read_target(name, top.take_section(name)) for name in top.keys_left()}
    if tables.get(target.name) == target:
        return path
    tables[target.name] = target
    lines = ["# Written by oelm-submit --host: targets given on a command line. Edit or delete what you like."]
    for name, known in tables.items():
        # A JSON string is a TOML basic string, too.
        values = {"kind": "ssh", "host": known.host, "user": known.user, "port": known.port, "root": known.root}
        lines += ["", f"[{json.dumps(name, ensure_ascii=False)}]"]
        lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items() if value]
        lines += [f"setup = {json.dumps(list(known.setup), ensure_ascii=False)}"] if known.setup else []
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise ConfigurationError(f"{path}: can't be written: {error}") from error
    return path

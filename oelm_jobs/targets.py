"""Owns targets files: which places to run there are and what they need; leaves reaching them to connections."""

from __future__ import annotations

from pathlib import Path

from . import tomlfile
from .errors import UsageError, valid_choices
from .spec import Target

KINDS = ("local",)
"""Kinds of targets that this version can use."""
LOCAL = Target(name="local", kind="local", root="", python="")
"""This machine; there without any file."""


def target_files(project: Path) -> list[Path]:
    """Return the targets files that exist: the user's, then the project's, whose tables win."""
    import platformdirs

    user = platformdirs.user_config_path("oelm-jobs") / "targets.toml"
    return [path for path in (user, project / "jobs" / "targets.toml") if path.is_file()]


def load_targets(project: Path) -> dict[str, Target]:
    """Return all targets by name; ``local`` is always among them.

    Raises:
        ConfigurationError: A file is off.
    """
    found = {"local": LOCAL}
    for path in target_files(project):
        top = tomlfile.read(path)
        for name in top.keys_left():
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
    target = Target(
        name=name,
        kind=kind,
        root=table.take("root", str, ""),
        python=table.take("python", str, ""),
        setup=table.take_list("setup", str, ()),
        data={key: data.take(key, str) for key in data.keys_left()},
        env=env,
    )
    table.finish()
    return target

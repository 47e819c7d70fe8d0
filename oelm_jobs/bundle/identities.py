"""Who a bundle could tell of: names of people, users, hosts and targets, places on disks, git's commits and remotes,
e-mails.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import pwd
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import tomlfile
from ..code import checkout
from ..errors import ConfigurationError
from ..folders import home, target_files
from ..targets.files import LOCAL, load_targets
from .archive import files_in

HOST_KEYS = ("host", "hostname", "hosts", "node", "nodes", "login", "nodelist", "_host", "boot_id")
USER_KEYS = ("user", "username", "owner", "account", "author", "authors", "email", "_user")
TARGET_KEYS = ("target",)
"""Keys of records whose values are names, whatever stands there."""
COMMON = frozenset(
    {
        "root", "user", "users", "home", "local", "localhost", "admin", "ubuntu", "runner", "nobody", "test", "none",
        "true", "false", "cpu", "gpu", "cuda", "python", "oelm", "model", "train", "data", "default", "main", "origin",
        "git", "github", "gitlab", "com", "org", "you", "yours", "name",
    }
)  # fmt: skip
"""Words that name nobody in particular."""
SHORTEST = 3
"""A shorter name is looked for where it is all of a record's value, and in places where it is whole."""
LOGS = 5000
"""So many commits are asked for their authors."""
_KEY = re.compile(r"[A-Za-z_][\w-]*")
_HOMES = re.compile(r"/(?:home|Users|users|u|scratch|work|data/home)/([A-Za-z_][\w.-]*)")


@dataclass(kw_only=True)
class Identities:
    """Names, by what they stand for."""

    persons: dict[str, None] = field(default_factory=dict)
    users: dict[str, None] = field(default_factory=dict)
    hosts: dict[str, None] = field(default_factory=dict)
    targets: dict[str, None] = field(default_factory=dict)
    commits: dict[str, None] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    """Folders whose names are replaced as a whole, with what stands for them."""

    keys: frozenset[str] = frozenset()
    """Words that records and studies use as keys: they stay, and as a part of a person's name they tell of nobody."""

    @property
    def names(self) -> dict[str, str]:
        """What stands for each name; two that differ in capitals alone may be two people, and have two stand-ins."""
        found: dict[str, str] = {}
        for kind, known in (("person", self.persons), ("user", self.users), ("host", self.hosts),
                            ("target", self.targets), ("commit", self.commits)):  # fmt: skip
            numbered: dict[str, str] = {}
            for name in known:
                plain = name.strip().casefold()
                is_of_person = kind == "person" and (len(plain) < SHORTEST or plain in self.keys)
                if not plain or plain in COMMON or plain.isdigit() or is_of_person:
                    continue
                found.setdefault(name.strip(), numbered.setdefault(name.strip(), f"{kind}{len(numbered) + 1}"))
        return found


def collect(project: Path, folder: Path) -> Identities:
    """Return who this machine, the project's git, its targets and the records in a bundle's folder tell of."""
    found = Identities(keys=frozenset(key.casefold() for key in keys_in(folder)))
    found.places[str(project)] = "/project"
    _of_machine(found)
    _of_git(project, found)
    _of_targets(project, found)
    roots: dict[str, None] = {}
    for name in files_in(folder):
        path = folder / name
        if path.suffix not in (".json", ".jsonl") or name.startswith("code/"):
            continue
        for content in _objects(path):
            _of_record(content, found, roots)
    for root in sorted(roots, key=lambda root: (-len(root), root)):
        found.places.setdefault(root, f"/root{len(found.places)}")
    own = str(home())
    found.places.setdefault(own, "/home/me")
    for place in [*found.places]:
        found.users |= dict.fromkeys(_HOMES.findall(place))
    return found


def _of_machine(found: Identities) -> None:
    with contextlib.suppress(OSError, KeyError):
        name = getpass.getuser()
        found.users[name] = None
        full = pwd.getpwnam(name).pw_gecos.partition(",")[0]
        _person(full, found)
    found.users[home().name] = None
    host = socket.gethostname()
    found.hosts |= dict.fromkeys((host, host.partition(".")[0]))


def _person(full: str, found: Identities) -> None:
    """Add a person's name, and what it is made of."""
    words = full.split()
    if not words or full.casefold() in COMMON:
        return
    found.persons[full] = None
    if len(words) > 1:
        found.persons |= dict.fromkeys(word for word in words if len(word) > SHORTEST)


def _of_git(project: Path, found: Identities) -> None:
    said = checkout.git(project, "log", "--all", f"-{LOGS}", "--format=%an%n%cn%n%ae%n%ce") or b""
    said += (checkout.git(project, "config", "user.name") or b"") + (
        checkout.git(project, "config", "user.email") or b""
    )
    for line in dict.fromkeys(said.decode("utf-8", "replace").splitlines()):
        user, is_mail, _domain = line.partition("@")
        if is_mail:
            found.users[user.rpartition("+")[2]] = None
        else:
            _person(line, found)
    for line in (checkout.git(project, "remote", "-v") or b"").decode("utf-8", "replace").splitlines():
        url = (line.split() or [""])[-2 if len(line.split()) > 2 else -1]
        found.places[url] = found.places[url.removesuffix(".git")] = "remote"
        match = re.fullmatch(r"(?:\w+://)?(?:[\w.-]+@)?([\w.-]+)[:/](?:\d+/)?(.*?)/?(?:\.git)?", url)
        if match is not None and not url.startswith(("/", ".")):
            found.places[f"{match[1]}/{match[2]}"] = "remote"  # as it is quoted, by whatever protocol
            found.users |= dict.fromkeys(match[2].split("/")[:-1])


def _of_targets(project: Path, found: Identities) -> None:
    with contextlib.suppress(ConfigurationError):
        for target in load_targets(project).values() if target_files(project) else ():
            if target.name == LOCAL.name:
                continue
            found.targets[target.name] = None
            found.hosts |= dict.fromkeys(filter(None, (target.host, (target.host or "").partition(".")[0])))
            found.users |= dict.fromkeys(filter(None, (target.user,)))


def keys_in(folder: Path) -> set[str]:
    """Return the keys of all records and studies: what reads them knows them by these."""
    found: set[str] = set()

    def walk(content: Any) -> None:
        if isinstance(content, dict):
            found.update(key for key in content if _KEY.fullmatch(key))
        for item in content.values() if isinstance(content, dict) else content if isinstance(content, list) else ():
            walk(item)

    for name in files_in(folder):
        path = folder / name
        if name.startswith("code/"):
            continue
        if path.suffix == ".toml":
            with contextlib.suppress(ConfigurationError):
                walk(tomlfile.tables(path))
        elif path.suffix in (".json", ".jsonl"):
            for content in _objects(path):
                walk(content)
    return found


def _objects(path: Path) -> Iterator[Any]:
    text = path.read_text(encoding="utf-8", errors="replace")
    with contextlib.suppress(ValueError, RecursionError):
        yield json.loads(text)
        return
    for line in text.splitlines():
        if '"' in line:
            with contextlib.suppress(ValueError, RecursionError):
                yield json.loads(line)


def _of_record(content: Any, found: Identities, roots: dict[str, None]) -> None:
    """Add what an object names by its keys, and below which folders runs lay."""
    if isinstance(content, list):
        for item in content:
            _of_record(item, found, roots)
    if not isinstance(content, dict):
        return
    for key, value in content.items():
        said = [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str) and item]
        kind = str(key).casefold()
        if kind in HOST_KEYS or kind.endswith("_host"):
            found.hosts |= dict.fromkeys([*said, *(one.partition(".")[0] for one in said)])
        elif kind in USER_KEYS:
            found.users |= dict.fromkeys(said)
        elif kind in TARGET_KEYS:
            found.targets |= dict.fromkeys(one for one in said if one != LOCAL.name)
        elif kind == "revision":
            found.commits |= dict.fromkeys(one.partition("-")[0] for one in said)
        elif kind in ("run_dir", "place", "copy"):
            roots |= dict.fromkeys(
                one.partition("/models/checkpoints")[0] for one in said if "/models/checkpoints" in one
            )
        elif kind == "project":
            roots |= dict.fromkeys(one.rstrip("/") for one in said if one.startswith("/"))
        for one in said:
            found.users |= dict.fromkeys(_HOMES.findall(one))
        _of_record(value, found, roots)

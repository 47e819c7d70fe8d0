"""The code in a bundle: the snapshot of each run under the hash by which its record names it, and its list, of which
that hash is made.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..agent import rundir, schema, trees
from ..agent.sentences import _
from ..code import kept
from .archive import files_in

FOLDER = "code"
SUFFIX = ".json"


def collect(
    project: Path, folder: Path, study: str, put: Callable[[str, bytes], None], left_out: dict[str, str]
) -> None:
    """Add the code that a study's runs used, each snapshot once and whole.

    Args:
        folder: Of the bundle, with the records of the runs.
        put: Adds a file to the bundle by its name, or says in ``left_out`` why not.
    """
    named = _named(folder, study)
    for name, tree in kept.find(project, named):
        if tree is None:
            left_out[f"{FOLDER}/{name}"] = _not_here(named[name])
            continue
        for number, (inner, _executable, _sha256) in enumerate(tree.rows):
            put(f"{FOLDER}/{name}/{inner}", tree.read(number))
        put(f"{FOLDER}/{name}{SUFFIX}", _listing(name, tree.rows))


def _named(folder: Path, study: str) -> dict[str, dict[str, Any]]:
    """Return the code that the records of a study's runs in a bundle name, each with the first that does."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((folder / "models").rglob(f"{rundir.CONTROL}/{rundir.RUN}")):
        record = record_of(path.parent.parent)
        if record.get("study", "") in ("", study) and kept.NAME.fullmatch(name := str(record.get("snapshot"))):
            found.setdefault(name, record)
    return found


def record_of(run_dir: Path) -> dict[str, Any]:
    """Return what a run's record says; nothing where it can't be read."""
    try:
        content = json.loads(rundir.control(run_dir, rundir.RUN).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _not_here(record: Mapping[str, Any]) -> str:
    """Return why a run's code is not in a bundle, and what would bring it there."""
    target, (revision, _dash, changed) = str(record.get("target", "")), str(record.get("revision", "")).partition("-")
    if not revision or changed:
        return _("was sent to {target}, is not kept in this project, and its files are others by now", target)
    return _(
        "was sent to {target}, is not kept in this project, and its files are others by now; once commit {commit} is"
        " checked out here, it is packed",
        target,
        revision[:12],
    )


def _listing(name: str, rows: Iterable[trees.Row]) -> bytes:
    files = [{"name": inner, "executable": executable, "sha256": sha256} for inner, executable, sha256 in rows]
    return (json.dumps({"snapshot": name, "files": files}, indent=1) + "\n").encode()


def without_reasons(left_out: Iterable[str]) -> dict[str, str]:
    """Return the code that a bundle lacks as a whole, with a reason that names neither target nor commit."""
    return {name: _("is not kept in the project") for name in left_out if kept.NAME.fullmatch(name[len(FOLDER) + 1 :])}


def without_targets(folder: Path) -> dict[str, str]:
    """Remove what a project's code says of its targets, which no run reads; return why, by name."""
    found = sorted((folder / FOLDER).glob("*/jobs/targets.toml"))
    for path in found:
        path.unlink()
    return {path.relative_to(folder).as_posix(): _("tells of your machines") for path in found}


def renamed(folder: Path) -> dict[str, str]:
    """Give code whose files were changed the hash that it has now, in the records as well; return the hashes that
    changed files had before, by their names now.
    """
    names: dict[str, str] = {}
    for listing in sorted((folder / FOLDER).glob(f"*{SUFFIX}")):
        name = listing.name[: -len(SUFFIX)]
        is_executable = {str(row["name"]): bool(row["executable"]) for row in json.loads(listing.read_bytes())["files"]}
        place = folder / FOLDER / name
        rows = [
            (inner, is_executable.get(inner, False), hashlib.sha256((place / inner).read_bytes()).hexdigest())
            for inner in files_in(place)
        ]
        now = names[name] = trees.name_of(rows)
        if now == name:
            continue
        listing.unlink()
        (folder / FOLDER / f"{now}{SUFFIX}").write_bytes(_listing(now, rows))
        if (folder / FOLDER / now).exists():  # they differed by what was taken out alone
            shutil.rmtree(place)
        elif place.exists():
            place.rename(folder / FOLDER / now)
    return _replace(folder, {before: now for before, now in names.items() if before != now})


def _replace(folder: Path, names: Mapping[str, str]) -> dict[str, str]:
    """Replace the names of code in all other files; return the hashes that changed ones had."""
    if not names:
        return {}
    found: dict[str, str] = {}
    any_of = re.compile(rb"(?<![0-9a-f])(?:%s)(?![0-9a-f])" % b"|".join(name.encode() for name in sorted(names)))
    for name in files_in(folder):
        if name.startswith(f"{FOLDER}/"):
            continue
        path = folder / name
        content = path.read_bytes()
        new = any_of.sub(lambda one: names[one[0].decode()].encode(), content)
        if new != content:
            path.write_bytes(new)
            found[name] = hashlib.sha256(content).hexdigest()
    return found


def why_not(folder: Path, study: str, left_out: Collection[str]) -> str:
    """Return which code in an open bundle is not what the records of a study's runs say by its hash, and how; empty
    where all is.

    Args:
        left_out: Names of files, and of code as a whole, that the bundle says it lacks.
    """
    named = _named(folder, study)
    for name in sorted(named):
        if not (folder / FOLDER / f"{name}{SUFFIX}").is_file() and f"{FOLDER}/{name}" not in left_out:
            return _("{name} is missing", f"{FOLDER}/{name}{SUFFIX}")
    there = {f"{FOLDER}/{name}" for name in files_in(folder / FOLDER)}
    for listing in sorted((folder / FOLDER).glob(f"*{SUFFIX}")):
        there.discard(f"{FOLDER}/{listing.name}")
        name = listing.name[: -len(SUFFIX)]
        try:
            content = schema.loads(listing.read_bytes())
            rows = [(str(row["name"]), bool(row["executable"]), str(row["sha256"])) for row in content["files"]]
        except (schema.Misfit, KeyError, TypeError) as error:
            return _("{name} is not understood: {why}", f"{FOLDER}/{listing.name}", str(error))
        if trees.name_of(rows) != name:
            return _("{name} is not the list of files that its name says", f"{FOLDER}/{listing.name}")
        if name not in named:
            return _("{name} is code that no run's record names", f"{FOLDER}/{name}")
        for inner, _executable, sha256 in rows:
            path = f"{FOLDER}/{name}/{inner}"
            if path in there:
                if hashlib.sha256((folder / path).read_bytes()).hexdigest() != sha256:
                    return _("{name} is not the file that ran", path)
                there.discard(path)
            elif path not in left_out:
                return _("{name} is missing", path)
    return _("{name} is in no list of code that ran", min(there)) if there else ""

"""Send a study's data to a target: only what is missing there, checked at the other end.

A target on this machine whose root is another folder is sent to in the same way.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..agent import registry
from ..agent.sentences import _
from ..connections import Connection, connect, connect_for_transfer
from ..data import check as data_check
from ..data import token_folder
from ..errors import NotReached, PreflightError, TargetError
from ..spec.study import Study
from ..spec.target import Target
from ..study import blocks
from ..study.resolve import data_paths, token_files
from ..targets.files import LOCAL
from . import fetch
from .rsync import Transfer, watch

if TYPE_CHECKING:
    from ..agent import messages

    Lacking = dict[tuple[str, str], dict[str, str]]
    """By folder here and folder there: the name of each file below them and its SHA-256, in the order in which they are
    to appear.
    """

TRIES = 5


def send_data(project: Path, target: Target, study: Study, progress: fetch.Progress) -> list[str]:
    """Send a study's data to a target where it lacks them, and say so; return the paths there of what was sent.

    Token files go with their manifest. Of a folder that is there in part, the rest is sent. Another command that sends
    data of the project is waited for.

    Raises:
        PreflightError: The project lacks them, they won't do, or the target holds others under their names.
        TargetError: The target can't be reached; what has arrived is gone on with next time.
    """
    connection = connect_for_transfer(target, project)
    lock = os.open(project, os.O_RDONLY)
    try:
        _wait_for_others(lock, progress.say)
        look, own = _lacking_tokens if study.program is None else _lacking, connect(LOCAL, project)
        found = [look(own, connection, within) for within in blocks.each(study).values()]  # all, before any is sent
        lacking: Lacking = {}
        for files_in, _paths in found:
            for folders, files in files_in.items():
                before = {name: digest for name, digest in lacking.get(folders, {}).items() if name not in files}
                lacking[folders] = {**before, **files}  # the manifest stays last
        sent = [*dict.fromkeys(path for _files_in, paths in found for path in paths)]
        for (source, place), files in lacking.items():
            send_files(connection, Path(source), place, files, progress)
    finally:
        os.close(lock)
    what = _("sent to {target}: {files}", target.name, sent)
    progress.say(what if sent else _("{target} has the data already", target.name))
    return sent


def _wait_for_others(lock: int, say: Callable[[str], None]) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say(_("another command sends data of this project; waiting for it"))
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError:  # there are no locks on this file system: what two have mixed is sent again, by its hash
        pass


def _lacking_tokens(own: Connection, connection: Connection, study: Study) -> tuple[Lacking, list[str]]:
    """Return which token files a target lacks, and their paths there."""
    here = token_files(own.resolved, study)
    about_here: messages.DataRequest = {"root": own.resolved.root, "files": list(here)}
    own_rows = own.call(registry.DATA, about_here)["files"]
    for path in here:
        if fault := data_check.fault(path, own_rows[path], study):
            hint = fault.hint or _("make it: {command}", token_folder.how_to_make(Path(path).parent, Path(path).name))
            raise PreflightError(_("{path}: {why}; nothing was sent", path, str(fault)), hint=hint)
    there = token_files(connection.resolved, study)
    about_there: messages.DataRequest = {"root": connection.resolved.root, "files": list(there)}
    rows = connection.call(registry.DATA, about_there, timeout_s=1800)["files"]
    lacking: Lacking = {}
    for mine, theirs in zip(here, there, strict=True):
        digest = own_rows[mine]["sha256"]
        if "error" in rows[theirs]:
            lacking.setdefault(_folders(mine, theirs), {})[Path(mine).name] = digest
        elif rows[theirs]["sha256"] != digest:
            raise _taken(connection.target.name, theirs, mine)
    for (source, _place), files in lacking.items():
        manifest = Path(source, token_folder.MANIFEST)
        if manifest.is_file():
            # Last: what it describes is there by then.
            files[token_folder.MANIFEST] = token_folder.hash_tokens(manifest)
    return lacking, [f"{place}/{name}" for (_source, place), files in lacking.items() for name in files]


def _lacking(own: Connection, connection: Connection, study: Study) -> tuple[Lacking, list[str]]:
    """Return what a target lacks of the files and folders that a script reads, and which of them, as paths there."""
    here, there = (data_paths(side.resolved, study) for side in (own, connection))
    own_rows, rows = _contents(own, here), _contents(connection, there)
    for mine, theirs in zip(here, there, strict=True):
        if "error" in own_rows[mine] and "error" in rows[theirs]:
            why = _("{path}: {why}; nothing was sent", mine, own_rows[mine]["error"])
            raise PreflightError(why, hint=_("name what is here in data, or bring it there by hand: rsync -a"))
    lacking: Lacking = {}
    sent: list[str] = []
    for mine, theirs in zip(here, there, strict=True):
        if "error" in own_rows[mine]:  # the target alone has it
            continue
        wanted, has = _files(own_rows[mine]), _files(rows[theirs])
        for name, digest in has.items():
            if wanted.get(name) != digest:
                raise _taken(connection.target.name, _below(theirs, name), _below(mine, name if name in wanted else ""))
        missing = {name: digest for name, digest in wanted.items() if name not in has}
        if "" in missing:
            if Path(mine).name != Path(theirs).name:
                why = _("{target}: {path} would get another name there, {place}", connection.target.name, mine, theirs)
                raise PreflightError(why, hint=_("bring it there by hand, or map its folder in data of the target"))
            lacking.setdefault(_folders(mine, theirs), {})[Path(mine).name] = missing[""]
        elif missing or rows[theirs].keys() & {"error", "arriving"}:
            lacking.setdefault((mine, theirs), {}).update(missing)
        if missing or "error" in rows[theirs]:
            sent.append(theirs)
    return lacking, sent


def _contents(connection: Connection, paths: Sequence[str]) -> Mapping[str, messages.Content]:
    request: messages.ContentRequest = {"root": connection.resolved.root, "files": list(paths), "each": True}
    return connection.call(registry.CONTENT, request, timeout_s=1800)["files"] if paths else {}


def _files(row: messages.Content) -> dict[str, str]:
    """Return the hash of each file that a path holds, by its name below it: a file's own is empty."""
    return {} if "error" in row else row.get("files", {"": row["sha256"]})


def _below(path: str, name: str) -> str:
    return f"{path}/{name}" if name else path


def _folders(mine: str, theirs: str) -> tuple[str, str]:
    return str(Path(mine).parent), str(Path(theirs).parent)


def send_files(
    connection: Connection, source: Path, place: str, files: Mapping[str, str], progress: fetch.Progress
) -> None:
    """Send files of one folder and have the agent check and place them."""
    # By its place alone: what was left there of files that have changed since is taken up, too.
    name, target = hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()[:16], connection.target.name
    wish: messages.ExpectRequest = {"folder": place, "name": name, "link": bool(connection.target.host)}
    expected = connection.call(registry.EXPECT, wish)
    if "error" in expected:
        raise PreflightError(
            _("{target}: nothing can be written at {path}: {why}; nothing was sent", target, place, expected["error"]),
            hint=_("make the folder there, or name another in data of the target"),
        )
    if not expected["rsync"]:
        raise PreflightError(
            _("there is no rsync command on {target}; nothing was sent", target),
            hint=_("install it there, or ask its administrators to"),
        )
    if expected["link"] != f".oelm-incoming-{name}":
        raise TargetError(_("{target} expects the data at {path!r}: refused", target, expected["link"]))
    sizes = {file: (source / file).stat().st_size for file in files}
    size, free = sum(sizes.values()), expected["free"]
    if size > free:
        lacks = _("{path} has {free:.1f} GB free, the data need {size:.1f} GB", place, free / 1e9, size / 1e9)
        raise PreflightError(
            _("{target}: {why}; nothing was sent", target, lacks),
            hint=_("make room there, or name another folder in data of the target"),
        )
    request: messages.AcceptRequest = {"staging": expected["staging"], "folder": place, "files": dict(files)}
    for _try in range(2):
        if sizes:
            _transfer(connection, source, sizes, expected, progress)
        answer = connection.call(registry.ACCEPT, request, timeout_s=1800)
        if answer["taken"]:
            taken = answer["taken"][0]
            raise _taken(target, f"{place}/{taken}", f"{source}/{taken}")
        if not answer["damaged"]:
            return
        sizes = {file: sizes[file] for file in sizes if file in answer["damaged"]}  # the others are in place
    raise TargetError(_("{files} arrived damaged twice; was it changed while it was sent?", answer["damaged"]))


def _taken(target: str, path: str, mine: str) -> PreflightError:
    return PreflightError(
        _("{target}: {path} holds other data than {other}; it was not overwritten", target, path, mine),
        hint=_("remove or rename it there, or name another folder in data of the target"),
    )


def _transfer(
    connection: Connection,
    source: Path,
    sizes: Mapping[str, int],
    expected: messages.ExpectAnswer,
    progress: fetch.Progress,
) -> None:
    """Send files (name to bytes) into the staging folder there, going on after up to TRIES broken connections.

    Raises:
        NotReached: The connection broke once too often; what has arrived stays.
        TargetError: rsync can't do it at all.
    """
    top = source.resolve()
    has_links = any(os.path.realpath(top / name) != str(top / name) for name in sizes)
    for number in range(1, TRIES + 1):
        route = connection.route()
        progress.begin(len(sizes), sum(sizes.values()))  # anew: rsync counts in what had arrived before
        there = f"{route.host}:{expected['link']}/" if route else f"{expected['staging']}/"
        # An absolute source, so that a colon in it isn't taken for a host.
        transfer = Transfer(f"{top}/", there, list(sizes), route, expected["rsync"], has_links=has_links)
        try:
            watch(transfer, connection.target.name, transfer.moved, progress.advance)
            return
        except NotReached as error:
            if number == TRIES:
                raise
            progress.say(_("{why}; going on where it broke off", str(error)))
            time.sleep(float(number))

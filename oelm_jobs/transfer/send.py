"""Send a study's token files to a target: only what is missing there, checked at the other end.

A target on this machine whose root is another folder is sent to in the same way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
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
from ..study.resolve import token_files
from ..targets.files import LOCAL
from . import fetch
from .rsync import NETWORK_CODES, Transfer, upload_folder
from .staging import IDLE_S

if TYPE_CHECKING:
    from ..agent import messages

TRIES = 5


def send_data(project: Path, target: Target, study: Study, progress: fetch.Progress) -> list[str]:
    """Send a study's token files, with their manifest, to a target where it lacks them; return the names sent.

    Raises:
        PreflightError: The project lacks them, they won't do, or the target holds others under their names.
        TargetError: The target can't be reached; what has arrived is gone on with next time.
    """
    connection = connect_for_transfer(target, project)
    own = connect(LOCAL, project)
    here = token_files(own.resolved, study)
    about_here: messages.DataRequest = {"root": own.root, "files": list(here)}
    rows = own.call(registry.DATA, about_here)["files"]
    hashes = {}
    for path in here:
        if fault := data_check.fault(path, rows[path], data_check.need_of(study)):
            hint = fault.mend or _("make it: {command}", token_folder.how_to_make(Path(path).parent))
            raise PreflightError(_("{path}: {why}; nothing was sent", path, fault.found), hint=hint)
        hashes[Path(path)] = str(rows[path]["sha256"])
    there = token_files(connection.resolved, study)
    about_there: messages.DataRequest = {"root": connection.root, "files": list(there)}
    rows = connection.call(registry.DATA, about_there, timeout_s=1800)["files"]
    folders: dict[tuple[str, str], dict[str, str]] = {}
    for mine, theirs in zip(map(Path, here), there, strict=True):
        row = rows[theirs]
        if "error" not in row and row["sha256"] == hashes[mine]:
            continue
        if "error" not in row:
            raise PreflightError(
                _(
                    "{target}: {path} holds other data than {other}; it was not overwritten",
                    target.name,
                    theirs,
                    str(mine),
                ),
                hint=_("remove or rename it there, or name another folder in data of the target"),
            )
        folders.setdefault((str(mine.parent), str(Path(theirs).parent)), {})[mine.name] = hashes[mine]
    sent: list[str] = []
    for (source, place), files in folders.items():
        manifest = Path(source) / token_folder.MANIFEST
        if manifest.is_file():
            # Last: what it describes is there by then.
            files[token_folder.MANIFEST] = token_folder.hash_tokens(manifest)
        _send(connection, Path(source), place, files, progress)
        sent += [f"{place}/{name}" for name in files]
    return sent


def _send(connection: Connection, source: Path, place: str, files: Mapping[str, str], progress: fetch.Progress) -> None:
    """Send files of one folder and have the agent check and place them."""
    name = "".join(digest[:4] for digest in files.values())[:16]
    wish: messages.ExpectRequest = {"folder": place, "name": name, "link": bool(connection.target.host)}
    expected = connection.call(registry.EXPECT, wish)
    if "error" in expected:
        raise PreflightError(
            _(
                "{target}: nothing can be written at {path}: {why}; nothing was sent",
                connection.target.name,
                place,
                expected["error"],
            ),
            hint=_("make the folder there, or name another in data of the target"),
        )
    if not expected["rsync"]:
        raise PreflightError(
            _("there is no rsync command on {target}; nothing was sent", connection.target.name),
            hint=_("install it there, or ask its administrators to"),
        )
    if expected["link"] != f".oelm-incoming-{name}":
        raise TargetError(_("{target} expects the data at {path!r}: refused", connection.target.name, expected["link"]))
    sizes = {file: (source / file).stat().st_size for file in files}
    size = sum(sizes.values())
    if size > int(expected["free"]):
        raise PreflightError(
            _(
                "{target}: {path} has {free:.1f} GB free, the data need {size:.1f} GB; nothing was sent",
                connection.target.name,
                place,
                expected["free"] / 1e9,
                size / 1e9,
            ),
            hint=_("make room there, or name another folder in data of the target"),
        )
    request: messages.AcceptRequest = {"staging": expected["staging"], "folder": place, "files": dict(files)}
    for _try in range(2):
        _transfer(connection, source, sizes, expected, progress)
        answer = connection.call(registry.ACCEPT, request, timeout_s=1800)
        if answer["taken"]:
            raise PreflightError(
                _(
                    "{target}: {path} holds another {files}; not overwritten",
                    connection.target.name,
                    place,
                    answer["taken"],
                ),
                hint=_("remove or rename it there, or name another folder in data of the target"),
            )
        if not answer["damaged"]:
            return
    raise TargetError(_("{files} arrived damaged twice; was it changed while it was sent?", answer["damaged"]))


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
    for number in range(1, TRIES + 1):
        route = connection.route()
        progress.begin(len(sizes), sum(sizes.values()))  # anew: rsync counts in what had arrived before
        transfer = Transfer(
            upload_folder(source),
            f"{route.host}:{expected['link']}/" if route else f"{expected['staging']}/",
            list(sizes),
            shell=route.shell if route else None,
            remote=expected["rsync"] if route else "",
        )
        said, code, idle = "", 0, ""
        try:
            idle = _watch(transfer, progress.advance)
        finally:
            code, said = transfer.end()
        if code == 0:
            return
        why = idle or said or _("rsync exit code {n}", code)
        if code not in NETWORK_CODES and not idle:
            raise TargetError(_("rsync to {target}: {why}", connection.target.name, why))
        if number == TRIES:
            raise NotReached(_("the transfer to {target} broke off: {why}", connection.target.name, why))
        progress.say(_("the transfer broke off ({why}); going on where it was", why))
        time.sleep(float(number))


def _watch(transfer: Transfer, advance: Callable[[int], None]) -> str:
    """Wait for a transfer, reporting progress; return early, with the reason, when nothing moves any more."""
    done, last, moved_at = 0, 0, time.monotonic()
    while not transfer.is_over():
        moved = transfer.moved()
        if moved != last:
            step = moved - last if moved > last else moved  # the next file begins at zero
            done, last, moved_at = done + step, moved, time.monotonic()
            advance(step)
        elif time.monotonic() - moved_at > IDLE_S:
            return _("nothing moved for {n:.0f} s", IDLE_S)
        time.sleep(0.1)
    return ""

"""Hash files and folders that programs read."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Dict, Iterator

from .. import rundir
from ..run import work
from ..sentences import _
from . import hashes, tokens

if TYPE_CHECKING:
    from .. import messages

MOST_FILES, LONGEST_NAME = 100_000, 1024
"""Of no more files in a folder each is told, and by no longer names (verbs.ANSWERS)."""


def content(request: messages.ContentRequest) -> messages.ContentAnswer:
    """Hash files and folders, remembering in the root what was read of them.

    Args:
        request: ``root``, ``files`` (absolute paths), ``each``: whether files in folders are told one by one.

    Returns:
        ``files``: path to ``size`` (bytes of all files in it) and ``sha256`` (of a folder: over the names below it and
        what they hold), or ``error`` where it isn't there or can't be read. Of a folder also ``files`` (name below it
        to SHA-256), where they are asked for, and ``arriving`` (path of what was sent and isn't in its place yet).
    """
    memory = hashes.Memory(rundir.control(request["root"], hashes.NAME))
    answers: Dict[str, messages.Content] = {}
    for path in request["files"]:
        try:
            answers[path] = _look(path, memory, bool(request.get("each")))
        except OSError as error:
            answers[path] = {"error": error.strerror or str(error)}
    memory.save()
    return {"files": answers}


def _look(path: str, memory: hashes.Memory, is_told: bool) -> messages.Content:
    if os.path.isfile(path):
        return {"size": os.path.getsize(path), "sha256": memory.sha256(path)}
    if not os.path.isdir(path):
        raise OSError(_("no such file") if not os.path.exists(path) else _("not a file"))
    digest, size, files = hashlib.sha256(), 0, {}
    for name in sorted(_below(path)):
        file = os.path.join(path, name)
        files[name] = memory.sha256(file)
        digest.update(os.fsencode("%s\n%s\n" % (name, files[name])))
        size += os.path.getsize(file)
    row: messages.Content = {"size": size, "sha256": digest.hexdigest()}
    if is_told:
        if len(files) > MOST_FILES:
            raise OSError(_("it holds more than {most:,} files", MOST_FILES))
        odd = [name for name in files if len(name) > LONGEST_NAME or name.encode(errors="ignore") != os.fsencode(name)]
        if odd:
            raise OSError(_("a file in it has a name that is too long, or not in UTF-8: {name!r}", odd[0][:200]))
        row["files"] = files
    staging = [name for name in os.listdir(path) if name.startswith(tokens.INCOMING)]
    if staging:
        row["arriving"] = os.path.join(path, staging[0])
    return row


def _below(folder: str) -> Iterator[str]:
    """Yield the names of the files below a folder; links are followed, to each folder once."""
    seen = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if name != work.CACHE and not name.startswith(tokens.INCOMING))
        real = os.path.realpath(place)
        if real in seen:
            folders[:] = []
            continue
        seen.add(real)
        for name in files:
            file = os.path.join(place, name)
            if os.path.isfile(file):
                yield os.path.relpath(file, folder)

"""Report token files on their host, and move data that were sent to their final names."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Optional, Sequence

from .. import inside, privacy, rundir
from ..run import result
from ..sentences import _
from . import hashes, samples

if TYPE_CHECKING:
    from .. import messages

MANIFEST = "manifest.json"
INCOMING = ".oelm-incoming-"
"""How the names of folders begin in which what is sent lies until all of it is there."""


def data(request: messages.DataRequest) -> messages.DataAnswer:
    """Examine token files, remembering in the root what was read of them.

    Args:
        request: ``root``, ``files`` (absolute paths), ``whole``.

    Returns:
        ``files``: as ``look`` returns them.
    """
    memory = hashes.Memory(rundir.control(request["root"], hashes.NAME))
    answers = look(request["files"], memory, whole=bool(request.get("whole")))
    memory.save()
    return {"files": answers}


def look(
    files: Sequence[str], memory: Optional[hashes.Memory] = None, whole: bool = True
) -> Dict[str, messages.TokenFile]:
    """Examine token files.

    A file whose size agrees with the manifest beside it, and which is no younger than that, is believed, unless
    ``whole``; another is read whole, once as long as ``memory`` knows it.

    Returns:
        Path to ``size``, ``written_as`` (what it seems to hold in the place of ids, as samples.written_as says; empty),
        ``sha256``, ``largest`` and ``at`` (largest id and its first place, where the file was read), or ``error`` where
        the file can't be read or isn't there; ``manifest`` (the content of the one beside it without its lists of
        sources, or None), ``manifest_error`` (why that can't be read; empty).
    """
    memory = memory or hashes.Memory(None)
    answers: Dict[str, messages.TokenFile] = {}
    for path in files:
        beside = os.path.join(os.path.dirname(path), MANIFEST)
        row: messages.TokenFile = {"manifest": _judged(rundir.read_json(beside)), "manifest_error": ""}
        if row["manifest"] is None and os.path.lexists(beside):
            row["manifest_error"] = _("it is no JSON object, too large, or not to be read")
        try:
            if not os.path.isfile(path):
                raise OSError(_("no such file") if not os.path.exists(path) else _("not a file"))
            row["size"] = os.path.getsize(path)
            row["written_as"] = samples.written_as(path)
            listed = _listed(row["manifest"], path)
            is_known = listed.get("size") == row["size"] and listed.get("sha256")
            if is_known and not whole and os.stat(path).st_mtime_ns <= os.stat(beside).st_mtime_ns:
                row["sha256"] = str(listed["sha256"])
            else:
                row["sha256"], row["largest"], row["at"] = memory.ids(path)
        except OSError as error:
            row["error"] = error.strerror or str(error)
        answers[path] = row
    return answers


def _judged(manifest: Optional[Dict[str, object]]) -> Optional[Dict[str, object]]:
    """Return a manifest without its lists of sources: there may be thousands, and nothing reads them."""
    if manifest is None:
        return None
    split = manifest.get("split")
    return dict(manifest, source=[], split=dict(split, source=[]) if isinstance(split, dict) else split)


def _listed(manifest: Any, path: str) -> Dict[str, object]:
    try:
        return dict(manifest["files"][os.path.basename(path)])
    except (KeyError, TypeError, ValueError):
        return {}


def expect(request: messages.ExpectRequest) -> messages.ExpectAnswer:
    """Prepare a staging folder for files that are about to be sent.

    From another machine rsync gets a name without blanks or quotes, which stands in the home folder and points at the
    staging folder: old versions hand their arguments to the shell as they are.

    Args:
        request: ``folder`` (absolute) in which the files will lie, ``name`` of the transfer (letters and digits),
            ``link``: whether that name is needed.

    Returns:
        ``staging`` (absolute), ``link`` (relative to the home folder), ``free`` (bytes), ``rsync`` (path or empty);
        or ``error`` alone, where nothing can be written there.

    Raises:
        inside.Outside: The name can't be part of a folder's.
    """
    link = INCOMING + inside.token(request["name"])
    staging = os.path.join(request["folder"], link)
    try:
        os.makedirs(staging, exist_ok=True)
        if not os.access(staging, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        return {"error": error.strerror or str(error)}
    place = os.path.join(os.path.expanduser("~"), link)
    if request["link"] and (not os.path.islink(place) or os.readlink(place) != staging):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(place)
        os.symlink(staging, place)
    return {"staging": staging, "link": link, "free": rundir.disk_free(staging), "rsync": shutil.which("rsync") or ""}


def accept(request: messages.AcceptRequest) -> messages.AcceptAnswer:
    """Move sent files to their final names, each only if its hash is the announced one.

    Args:
        request: ``staging`` and ``folder`` (absolute), ``files``: name below it to SHA-256, in the order in which they
            appear.

    Returns:
        ``placed``: names that are in place now; ``damaged``: names whose content is another; ``taken``: names under
        which something else lies already.

    Raises:
        inside.Outside: A name leads out of the folder; nothing was placed.
    """
    staging, folder = request["staging"], request["folder"]
    link = os.path.basename(staging)
    if staging != os.path.join(folder, link) or not link.startswith(INCOMING):
        raise inside.Outside(_("{name!r} is no name of a file below {folder}", staging, folder))
    answer: messages.AcceptAnswer = {"placed": [], "damaged": [], "taken": []}
    places = {name: (inside.path_in(staging, name), inside.path_in(folder, name)) for name in request["files"]}
    for name, wanted in request["files"].items():
        source, place = map(str, places[name])
        if os.path.exists(place):
            same = result.sha256(Path(place)) == wanted
            (answer["placed"] if same else answer["taken"]).append(name)
            continue
        is_plain = os.path.isfile(source) and not os.path.islink(source)
        if not is_plain or result.sha256(Path(source)) != wanted:
            answer["damaged"].append(name)
            with contextlib.suppress(OSError):
                os.unlink(source)
            continue
        privacy.settle(source)
        inside.replace((staging, name), folder, name)
        answer["placed"].append(name)
    for parent in {place.parent for _source, place in places.values()}:
        rundir.sync_folder(parent)
    if not answer["damaged"]:
        shutil.rmtree(staging, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(os.path.expanduser("~"), link))
    return answer

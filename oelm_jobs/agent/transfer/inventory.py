"""List what a run directory holds, for fetching and verifying: finished files with their hash, growing ones with a
length and the hash up to it.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Dict, Iterable, Optional, Set, Tuple

from .. import inside, probe, records, rundir, schema, snapshots, trees
from ..run import result, saved, work
from ..sentences import _
from ..slurm import claim as slurm_claim
from ..slurm.facts import read_written
from ..states import Checkpoints
from . import find, hashes, taken, uses

if TYPE_CHECKING:
    from .. import messages
    from ..record_types import ManifestRecord
    from ..run_record import RunRecord

    Choose = Callable[[Iterable[str]], Set[str]]
    """Which of a run's files are asked for, by their names."""

REPORTED = (rundir.RESULT, rundir.METRICS, rundir.HEARTBEAT, rundir.TREATMENT)
"""Files in a run directory that a report reads."""
SENT_WHOLE = (rundir.RUN, rundir.SCRIPT, rundir.INPUTS, rundir.START, rundir.OUTCOME, rundir.END)
"""Control files that come along: the report reads them."""
MAX_INLINE_BYTES = 256 << 10
"""Smaller files that are replaced while a run trains travel in the answer: between a look and a transfer they would
have changed."""
MOST_INLINE_BYTES = 4 << 20
"""So much of a program's own files travels there in all: they may be written anew at any time."""
HELD = "held"
"""Control folder of second names for checkpoints on their way: the trainer may replace or remove the first one."""
HELD_S = 6 * 3600.0
"""A second name that nobody gave up is removed after so long."""


def inventory(request: messages.InventoryRequest) -> messages.InventoryAnswer:
    """List what run directories hold.

    Args:
        request: ``runs``: a list of ``run_dir`` and ``have`` (name to SHA-256 of what the client holds already);
            ``checkpoints``: none, best, latest or all; ``records``: only what a report reads, all else is left.

    Returns:
        ``rsync`` (path of the command, empty where there is none), and ``runs``: run directory to ``state``,
        ``reason``, ``path`` (without symbolic links), ``final`` (over, with a manifest), ``origin``, ``files``
        (``name``, ``size``, ``sha256``, ``grows``, ``content`` in base64 where it travels right here, and ``source``
        where it is to be had under another name), ``left`` (files that weren't asked for), ``gone`` (listed in the
        manifest, but removed).
    """
    which = Checkpoints(request["checkpoints"])
    alone = bool(request.get("records"))
    answers = {run["run_dir"]: _look(run["run_dir"], run.get("have") or {}, which, alone) for run in request["runs"]}
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/bin", "/usr/bin", "/opt/homebrew/bin"])
    return {"runs": answers, "rsync": shutil.which("rsync", path=path) or ""}


def _look(run_dir: str, have: Dict[str, str], which: Checkpoints, records_alone: bool) -> messages.Held:
    row = probe.state_or_unknown(run_dir)
    state, reason = row["state"], row["reason"]
    if row.get("absent"):
        return {
            "state": state, "reason": reason, "files": [], "left": [], "gone": [], "final": False, "origin": "",
            "absent": True,
        }  # fmt: skip
    origin = rundir.origin(run_dir)
    manifest = records.MANIFEST.read_if_sound(run_dir)
    record = records.RUN.read_if_sound(run_dir)
    checkpoints = saved.Saved.of(record)

    def choose(names: Iterable[str]) -> Set[str]:
        wanted = checkpoints.wanted(names, which)
        return {name for name in wanted if not records_alone or _is_reported(name, record)}

    # The manifest counts if the newest attempt has an end record, which is written after it.
    final = manifest is not None and row.get("ended_at") is not None
    answer: messages.Held = {
        "state": state, "reason": reason, "files": [], "left": [], "gone": [], "path": os.path.realpath(run_dir),
        "origin": origin, "final": final,
    }  # fmt: skip
    if final and manifest is not None:
        _add_listed(run_dir, manifest, choose, answer)
        _add_inline(run_dir, rundir.MANIFEST, have, answer)
    else:
        _add_living(run_dir, have, checkpoints, choose, answer)
    for name in SENT_WHOLE:
        _add_inline(run_dir, rundir.CONTROL + "/" + name, have, answer)
    _add_growing(run_dir, rundir.CONTROL + "/" + rundir.SUPERVISOR_LOG, answer)
    return answer


def _is_reported(name: str, record: Optional[RunRecord]) -> bool:
    """Tell whether a report reads a result file: of a script also its log and the files in which it tells metrics."""
    program = record.program if record else None
    if name in REPORTED or program is None:
        return name in REPORTED
    patterns = (program.get("metrics") or {}).get("files") or ()
    return name == rundir.LOG or any(saved.matching(pattern, name) for pattern in patterns)


def _add_listed(run_dir: str, manifest: ManifestRecord, choose: Choose, answer: messages.Held) -> None:
    """Add the files in the manifest of a finished run."""
    entries = {str(entry["name"]): entry for entry in manifest["files"]}
    there = {name for name in entries if _size(run_dir + "/" + name) == entries[name]["size"]}
    answer["gone"] = sorted(set(entries) - there)
    wanted = choose(there)
    for name in sorted(there):
        size, digest = entries[name]["size"], entries[name]["sha256"]
        if name in wanted:
            answer["files"].append({"name": name, "size": size, "sha256": digest, "grows": False})
        else:
            answer["left"].append({"name": name, "size": size, "sha256": digest})


def _add_living(
    run_dir: str, have: Dict[str, str], checkpoints: saved.Saved, choose: Choose, answer: messages.Held
) -> None:
    """Add the files of a run that still trains or ended without a manifest; an older manifest is ignored."""
    memory = hashes.Memory(rundir.control(run_dir, hashes.NAME))
    found = {name: str(path) for name, path in result.result_files(Path(run_dir))}
    wanted, room = choose(found), MOST_INLINE_BYTES
    for name in sorted(found):
        if name not in wanted:
            answer["left"].append({"name": name, "size": _size(found[name]) or 0, "sha256": ""})
        elif checkpoints.checkpoint_of(name):
            try:
                source = _hold(run_dir, name)
                size, digest = _size(run_dir + "/" + source), memory.sha256(run_dir + "/" + source)
            except OSError:
                continue  # made room for a newer one just now
            if size is not None:
                row: messages.Announced = {"name": name, "size": size, "sha256": digest, "grows": False}
                row["source"] = source
                answer["files"].append(row)
        elif name.endswith(".json") and "/" not in name:
            _add_inline(run_dir, name, have, answer)
        elif name.startswith(work.FOLDER + "/") and _size(found[name]) in range(room + 1):
            room -= _add_inline(run_dir, name, have, answer)
        else:
            _add_growing(run_dir, name, answer)
    memory.save()


def _hold(run_dir: str, name: str) -> str:
    """Give a checkpoint a second name under which it stays unchanged; return that name (the first where links can't be
    made).

    Raises:
        OSError: It is gone.
    """
    found = os.stat(run_dir + "/" + name)
    held = "%s/%s/%d-%d-%s" % (rundir.CONTROL, HELD, found.st_ino, found.st_mtime_ns, os.path.basename(name))
    try:
        os.makedirs(os.path.dirname(run_dir + "/" + held), exist_ok=True)
        os.link(run_dir + "/" + name, run_dir + "/" + held)
    except FileExistsError:
        pass
    except FileNotFoundError:
        raise
    except OSError:
        return name
    return held


def release(request: messages.ReleaseRequest) -> messages.Nothing:
    """Remove second names that were made for a transfer, and old ones that were left behind.

    Args:
        request: ``runs``: run directory to the names to give up (``source`` of an inventory).
    """
    for run_dir, names in request["runs"].items():
        folder = rundir.control(run_dir, HELD)
        for path in list(folder.glob("*")) if folder.is_dir() else ():
            with contextlib.suppress(OSError):
                forgotten = time.time() - os.lstat(str(path)).st_ctime > HELD_S
                if forgotten or "%s/%s/%s" % (rundir.CONTROL, HELD, path.name) in names:
                    path.unlink()
        with contextlib.suppress(OSError):
            folder.rmdir()
    return {}


def _add_inline(run_dir: str, name: str, have: Dict[str, str], answer: messages.Held) -> int:
    """Add a file with its content, unless the client has that; return how many bytes travel in the answer."""
    try:
        with open(run_dir + "/" + name, "rb") as file:
            content = file.read(MAX_INLINE_BYTES + 1)
    except OSError:
        return 0
    if len(content) > MAX_INLINE_BYTES:
        _add_growing(run_dir, name, answer)
        return 0
    digest = hashlib.sha256(content).hexdigest()
    row: messages.Announced = {"name": name, "size": len(content), "sha256": digest, "grows": False}
    is_new = have.get(name) != digest
    if is_new:
        row["content"] = base64.b64encode(content).decode("ascii")
    answer["files"].append(row)
    return len(content) if is_new else 0


def _add_growing(run_dir: str, name: str, answer: messages.Held) -> None:
    path = run_dir + "/" + name
    with contextlib.suppress(OSError):
        size = os.path.getsize(path)
        digest = result.sha256(Path(path), size)
        answer["files"].append({"name": name, "size": size, "sha256": digest, "grows": True})


def _is_what_was_fetched(run_dir: str, name: str, size: int, digest: str) -> bool:
    """Tell whether a file equals what the client fetched: by the run's manifest where that is about the newest attempt
    and this file, else by the file's own hash (a lost node, say, leaves an older manifest or none).
    """
    path, manifest_path = run_dir + "/" + name, run_dir + "/" + rundir.MANIFEST
    if _size(path) != size:
        return False
    with contextlib.suppress(OSError, schema.Misfit):
        is_older = os.stat(path).st_mtime_ns <= os.stat(manifest_path).st_mtime_ns
        manifest = records.MANIFEST.read_if_sound(run_dir) if is_older and read_written(run_dir).has_ended else None
        if manifest and {"name": name, "size": size, "sha256": digest} in manifest["files"]:
            return True
    with contextlib.suppress(OSError):
        return result.sha256(Path(path)) == digest
    return False


def _size(path: str) -> Optional[int]:
    try:
        return os.path.getsize(path) if os.path.isfile(path) and not os.path.islink(path) else None
    except OSError:
        return None


def remove(request: messages.RemoveRequest) -> messages.RemoveAnswer:
    """Remove files of finished runs, each only while it equals what the client fetched and no run that isn't over takes
    it. Nobody submits meanwhile: a submission either is seen here, or finds what it takes gone and is refused. Without
    locks on the file system that can't be promised: who takes what is looked at anew for each run.

    Args:
        request: ``root``; ``checkpoint_root``, where run directories lie elsewhere; ``runs``: a list of ``run_dir`` and
            ``files`` (name to size and SHA-256 as fetched).

    Returns:
        ``runs``: run directory to ``removed`` (names), ``freed`` (bytes) and ``kept`` (name to the reason).

    Raises:
        inside.Outside: A name leads out of its run directory; nothing was removed.
        trees.Busy: Somebody is submitting just now; nothing was removed.
    """
    for run in request["runs"]:
        for name in run["files"]:
            inside.path_in(inside.run_dir(run["run_dir"]), name)
    looked = {run["run_dir"]: _fetched_ones(run["run_dir"], run["files"]) for run in request["runs"]}
    with trees.held(os.path.join(request["root"], rundir.CONTROL, snapshots.FOLDER), alone=True) as is_held:
        takers, doubt = _takers(request)
        answers: Dict[str, messages.Removed] = {}
        for run in request["runs"]:
            if answers and not is_held:
                takers, doubt = _takers(request)
            answers[run["run_dir"]] = _remove(run["run_dir"], run["files"], looked[run["run_dir"]], takers, doubt)
    return {"runs": answers}


def _takers(request: messages.RemoveRequest) -> Tuple[taken.Takers, str]:
    """Return who takes what from others below a root, and why that isn't known."""
    rows, doubt = taken.taken(uses.Uses(request["root"], find.top(request)))
    return taken.Takers(rows), doubt


def _fetched_ones(run_dir: str, files: Dict[str, Tuple[int, str]]) -> Dict[str, Tuple[int, int]]:
    """Return inode and time of change of those of a run's files that equal what the client fetched. What takes long is
    done here, while others may submit.
    """
    found = {}
    for name, (size, digest) in files.items():
        with contextlib.suppress(OSError):
            look = os.lstat(run_dir + "/" + name)
            if _is_what_was_fetched(run_dir, name, size, digest):
                found[name] = (look.st_ino, look.st_mtime_ns)
    return found


def _remove(
    run_dir: str,
    files: Dict[str, Tuple[int, str]],
    looked: Dict[str, Tuple[int, int]],
    takers: taken.Takers,
    doubt: str,
) -> messages.Removed:
    removed: messages.Removed = {"removed": [], "freed": 0, "kept": {}}
    why = doubt
    if os.path.lexists(rundir.control(run_dir, rundir.FETCHED)):  # both machines see one disk: no second copy
        why = _("it is the client's own copy")
    elif not slurm_claim.is_free(run_dir):
        why = _("a Slurm job has the run")
    elif not why:
        try:
            claim = rundir.lock(rundir.control(run_dir, rundir.CLAIM), patience_s=2.0)
        except (rundir.Busy, OSError):
            why = _("the run is alive or gone")
    if why:
        return {**removed, "kept": dict.fromkeys(files, why)}
    try:
        for name, (size, _digest) in files.items():
            try:
                holder = takers.of(run_dir, name)
                if holder is not None:
                    raise OSError(_("{run}, {state}, takes it", holder.run, holder.state))
                look = os.lstat(run_dir + "/" + name)
                if looked.get(name) != (look.st_ino, look.st_mtime_ns):
                    raise OSError(_("is not what was fetched"))
                inside.remove(run_dir, name)
                removed["removed"].append(name)
                removed["freed"] += size
            except (OSError, inside.Outside) as error:
                removed["kept"][name] = getattr(error, "strerror", None) or str(error)
    finally:
        os.close(claim)
    return removed

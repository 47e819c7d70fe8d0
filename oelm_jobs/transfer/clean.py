"""Free disk on targets: checkpoints whose verified copy is at home, code that no run needs any more, and what was
brought from other targets for runs that are over.

A checkpoint may go when its run is over and the copy at home, read anew, has the hash that the target's manifest gives;
of a run that was left without one, by a lost node or while it waited to start again, the hash that the file there has.
A run whose directory is the one in the project, as on this machine without another root, has no copy and loses nothing.
Of a run that isn't done the newest checkpoint stays: submitting it again resumes from there. What a run that isn't over
takes from another one stays, as the target says, which looks once more, and lets nobody submit, while it removes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..agent import records, registry, trees
from ..agent.run.saved import Saved
from ..agent.sentences import _, joined
from ..agent.states import State
from ..agent.transfer.taken import NAMED
from ..connections import Connection, connect
from ..errors import StoreError, TargetError
from ..outcome import each_target
from ..store import Store
from ..stored_run import StoredRun
from ..targets.files import load_target
from .home import home_of, lies_at_home
from .sync import is_whole, record, write_record

if TYPE_CHECKING:
    from ..agent import messages
    from ..agent.record_types import FetchedRecord, ManifestRecord


@dataclass(frozen=True, kw_only=True)
class Taken:
    """A file of a run that stays, since another one, which isn't over, takes it."""

    name: str
    study: str
    run: str
    """Which one takes it."""
    state: State
    """Where that stands."""
    more: int = 0
    """So many others take it, too, and aren't named."""


@dataclass(frozen=True, kw_only=True)
class Removable:
    """The files of one run that may be removed."""

    run: StoredRun
    files: Mapping[str, tuple[int, str]]
    """Name to size and SHA-256."""
    taken: tuple[Taken, ...] = ()
    """What stays since others take it."""
    note: str = ""
    """Why something stays."""

    @property
    def size(self) -> int:
        """Bytes that would be freed."""
        return sum(size for size, _ in self.files.values())


@dataclass(frozen=True, kw_only=True)
class Removed:
    """The outcome of removing one run's files."""

    run: StoredRun
    names: tuple[str, ...]
    """Files that are gone there."""
    freed: int
    """Their bytes."""
    kept: Mapping[str, str]
    """Files that stayed after all, and why."""


@dataclass(frozen=True, kw_only=True)
class Unused:
    """What no run and no submission needs below a target's root."""

    target: str
    names: tuple[str, ...]
    """Of snapshots."""
    size: int
    """Bytes that removing these would free."""
    copies: Mapping[str, int] = field(default_factory=dict)
    """Copies of what runs take from other targets (``STUDY/RUN/HASH``), and the bytes of each."""
    note: str = ""
    """Why more stay than need to; empty where nothing is in doubt."""
    taken: Mapping[str, tuple[Taken, ...]] = field(default_factory=dict)
    """Run directory to what others take of that run: files, or folders of them."""
    doubt: str = ""
    """Why they may take anything; empty where that is known."""


@dataclass(frozen=True, kw_only=True)
class Discarded:
    """What was removed of what nobody needs below a target's root."""

    names: tuple[str, ...] = ()
    """Of snapshots."""
    copies: tuple[str, ...] = ()
    freed: int = 0
    """Bytes of all that."""


def removable(project: Path, run: StoredRun, theirs: Unused) -> Removable:
    """Return what may be removed of a run; hashes the copies at home.

    Args:
        theirs: What its target said.
    """
    home = home_of(project, run)
    if lies_at_home(load_target(project, run.target), run, home):
        return Removable(run=run, files={}, note=_("is in the project, there is no second copy"))
    if not run.state.is_final:
        return Removable(run=run, files={}, note=_("is {state}", run.state))
    if run.state is not State.DONE and not run.progress:
        return Removable(run=run, files={}, note=_("never started: there is nothing of it"))
    known = record(home)
    manifest = records.MANIFEST.read_if_sound(home)
    saved = Saved.of(records.RUN.read_if_sound(home))
    if not known or known.get("run_dir") != run.run_dir or (manifest is None and run.state is State.DONE):
        return Removable(run=run, files={}, note=_("was not fetched since it ended: oelm-fetch"))
    gone, fetched = known.get("removed", {}), known.get("files", {})
    every = _checkpoints(known, manifest, saved)
    checkpoints = {name: entry for name, entry in every.items() if gone.get(name) != entry[1]}
    here = {name: entry for name, entry in checkpoints.items() if name in fetched and is_whole(home / name, *entry)}
    kept = saved.latest(checkpoints) if run.state is not State.DONE else []
    taken = tuple(
        replace(each, name=name)
        for each in theirs.taken.get(run.run_dir, ())
        for name in sorted(here)
        if name == each.name or name.startswith(each.name + "/")
    )
    stays = {*kept, *(each.name for each in taken)} if not theirs.doubt else set(here)
    files = {name: entry for name, entry in here.items() if name not in stays}
    notes: list[str] = [_("{file} stays: the run resumes from it", sorted(kept))] if kept else []
    notes += told(taken, run.study)
    if theirs.doubt and here:
        notes.append(theirs.doubt)
    absent = sorted(set(checkpoints) - set(here) - set(kept))
    if absent:
        notes += [
            _("not here, verified, so they stay: {files}", absent),
            _("oelm-fetch --checkpoints all brings them"),
        ]
    return Removable(run=run, files=files, taken=taken, note=joined(notes))


def told(taken: Sequence[Taken], study: str) -> list[str]:
    """Return what to say of those that take files of a run: of each file a few are named, the others counted.

    Args:
        study: That of the run; runs of others are named with theirs.
    """
    by_file: dict[str, list[Taken]] = {}
    for each in taken:
        by_file.setdefault(each.name, []).append(each)
    by_taker: dict[tuple[str, State], list[str]] = {}
    by_count: dict[int, list[str]] = {}
    for name, those in by_file.items():
        for each in those[:NAMED]:
            taker = each.run if each.study == study else f"{each.study}/{each.run}"
            by_taker.setdefault((taker, each.state), []).append(name)
        more = len(those[NAMED:]) + sum(each.more for each in those)
        if more:
            by_count.setdefault(more, []).append(name)
    notes: list[str] = []
    for (taker, state), names in by_taker.items():
        notes.append(_("kept: {file} is taken by {run}, {state}", names, taker, state))
    return notes + [_("kept: {file} is taken by {count:,} more", names, count) for count, names in by_count.items()]


def _checkpoints(known: FetchedRecord, manifest: ManifestRecord | None, saved: Saved) -> dict[str, tuple[int, str]]:
    """Return name to size and hash of a run's checkpoints, from its manifest; without one, from what was fetched (no
    hash for what was not).
    """
    if manifest is not None:
        found = {file["name"]: (file["size"], file["sha256"]) for file in manifest["files"]}
    else:
        found = {file["name"]: (file["size"], "") for file in known.get("left", []) if "size" in file}
        found |= {name: (file["size"], file["sha256"]) for name, file in known.get("files", {}).items()}
    return {name: entry for name, entry in found.items() if saved.checkpoint_of(name)}


def has_no_checkpoint(project: Path, run: StoredRun) -> bool:
    """Tell whether the copy at home shows that a finished run's checkpoints were freed on its target; false also where
    there is no copy, or one of another submission.
    """
    home = home_of(project, run)
    known, manifest = record(home), records.MANIFEST.read_if_sound(home)
    end = records.END.read_if_sound(home) or {}
    if known.get("run_dir") != run.run_dir or end.get("token") != run.token:
        return False
    saved = Saved.of(records.RUN.read_if_sound(home))
    steps = {name: entry for name, entry in _checkpoints(known, manifest, saved).items() if saved.is_resumed(name)}
    return bool(steps) and all(known.get("removed", {}).get(name) == entry[1] for name, entry in steps.items())


def remove(project: Path, target: str, wanted: Sequence[Removable]) -> list[Removed]:
    """Remove files from a target, each only while it equals the copy here, and record at home what is gone.

    Raises:
        TargetError: It can't be reached, or somebody is submitting there just now; everything stays.
    """
    connection = connect(load_target(project, target), project)
    request: messages.RemoveRequest = {
        "root": connection.resolved.root,
        "checkpoint_root": connection.resolved.checkpoint_root,
        "runs": [{"run_dir": one.run.run_dir, "files": dict(one.files)} for one in wanted],
    }
    answers = connection.call(registry.REMOVE, request, timeout_s=600)["runs"]
    done = []
    for one in wanted:
        answer, home = answers[one.run.run_dir], home_of(project, one.run)
        known = record(home)
        gone = {name: one.files[name][1] for name in answer["removed"] if name in one.files}
        write_record(home, {**known, "removed": {**known.get("removed", {}), **gone}})
        done.append(
            Removed(run=one.run, names=tuple(answer["removed"]), freed=answer["freed"], kept=dict(answer["kept"]))
        )
    return done


# Snapshots ------------------------------------------------------------------------------------------------------------


def unused(project: Path, store: Store, name: str) -> Unused:
    """Ask a target which snapshots and copies are needed neither by an unfinished run of any user nor by a submission,
    and what unfinished runs take from others.

    Raises:
        TargetError: It can't be asked.
    """
    connection, request, note = _request(project, store, name)
    answer = connection.call(registry.SNAPSHOTS, request, timeout_s=600)
    note = joined([answer["note"], note])
    taken: dict[str, tuple[Taken, ...]] = {}
    for row in answer["taken"]:
        one = Taken(
            name=row["name"], study=row["study"], run=row["run"], state=State(row["state"]), more=row.get("more", 0)
        )
        taken[row["run_dir"]] = (*taken.get(row["run_dir"], ()), one)
    return Unused(
        target=name, names=tuple(answer["unused"]), size=answer["freed"], copies=answer["copies"], note=note,
        taken=taken, doubt=answer["doubt"],
    )  # fmt: skip


def discard(project: Path, store: Store, wanted: Unused) -> Discarded:
    """Remove snapshots and copies, each only if it still isn't needed.

    Raises:
        TargetError: It can't be asked, or somebody is submitting there just now.
    """
    connection, request, _ = _request(project, store, wanted.target)
    discarded: messages.DiscardRequest = {**request, "names": list(wanted.names), "copies": list(wanted.copies)}
    answer = connection.call(registry.DISCARD, discarded, timeout_s=600)
    return Discarded(names=tuple(answer["removed"]), copies=tuple(answer["copies"]), freed=answer["freed"])


def _request(project: Path, store: Store, name: str) -> tuple[Connection, messages.SnapshotsRequest, str]:
    """Return a target's connection, the request about its snapshots, and why some of them stay in any case."""
    connection = connect(load_target(project, name), project)
    target = connection.resolved
    oldest, young_s, note = store.oldest_unanswered(target.root), 0.0, ""
    if oldest is not None:
        whose, made_at = oldest
        young_s = max(0.0, time.time() - made_at) + 2 * trees.USED_S
        note = _("what a submission of {project} may need stays: its answer isn't known (oelm-status)", whose)
    return (
        connection,
        {"root": target.root, "checkpoint_root": target.checkpoint_root, "young_s": young_s},
        note,
    )


@dataclass(frozen=True, kw_only=True)
class Cleaned:
    """What was removed from targets, and what might have been."""

    files: tuple[Removable, ...]
    """By run."""
    code: tuple[Unused, ...]
    """By target."""
    removed: tuple[Removed, ...] = ()
    discarded: Mapping[str, Discarded] = field(default_factory=dict)
    """Target to the snapshots and copies that were removed there."""
    unreachable: Mapping[str, TargetError] = field(default_factory=dict)
    """Target to the error that kept the operation from it."""
    misread: Mapping[str, StoreError] = field(default_factory=dict)
    """``STUDY/RUN`` to why what the index has of it can't be understood; it was left alone."""


def clean(
    project: Path,
    store: Store,
    runs: Sequence[StoredRun],
    confirm: Callable[[Sequence[Removable], Sequence[Unused]], bool],
) -> Cleaned:
    """Remove the checkpoints of runs whose copy at home is verified once more, and code and copies of inputs that
    nobody needs any more.

    Args:
        confirm: Is given what would go and why the rest stays; nothing goes unless it returns True.
    """
    files: list[Removable] = []
    code: list[Unused] = []

    def look(name: str) -> None:
        theirs = unused(project, store, name)
        code.append(theirs)
        files.extend(removable(project, run, theirs) for run in runs if run.target == name)

    targets = list(dict.fromkeys(run.target for run in runs))
    errors = each_target(targets, look)
    removed: list[Removed] = []
    discarded: dict[str, Discarded] = {}

    def free(name: str) -> None:
        if theirs := [one for one in files if one.run.target == name and one.files]:
            removed.extend(remove(project, name, theirs))
        for one in code:
            if one.target == name and (one.names or one.copies):
                discarded[name] = discard(project, store, one)

    if confirm(files, code):
        errors.update(each_target(targets, free))
    return Cleaned(
        files=tuple(files), code=tuple(code), removed=tuple(removed), discarded=discarded, unreachable=errors
    )

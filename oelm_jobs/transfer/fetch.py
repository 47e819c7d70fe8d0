"""Fetch runs: ask what there is, bring what isn't here yet, and report the outcome.

One request per target lists what all its runs hold; where nothing is new, that is all. Otherwise one rsync brings what
is missing, and files that changed during the transfer are asked for again.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..agent import inside, registry, rundir
from ..agent.sentences import _
from ..agent.states import Checkpoints, State
from ..connections import Connection, connect_for_transfer
from ..errors import NotReached, TargetError
from ..stored_run import StoredRun
from ..targets.files import load_target
from . import sync
from .home import home_of, lies_at_home
from .staging import Arrival, Staging, place_arrival
from .sync import Item

if TYPE_CHECKING:
    from ..agent import messages
    from ..agent.record_types import FetchedRecord, ResultFile

ROUNDS = 4
"""How often files that change under way are looked at again in one fetch."""
TRIES = 5
"""How often a broken connection is mended without a byte of progress between."""


class Progress(Protocol):
    """Callbacks for the progress of a transfer."""

    def begin(self, files: int, size: int) -> None:
        """Begin a transfer of so many files and bytes."""

    def advance(self, size: int) -> None:
        """Count bytes that have arrived and been hashed."""

    def say(self, text: str) -> None:
        """Report a message."""


class Untold:
    """Progress of a transfer that nobody watches; messages go to ``say``."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say

    def begin(self, files: int, size: int) -> None: ...

    def advance(self, size: int) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """The outcome of a fetch for one run."""

    run: StoredRun
    run_dir: Path
    """Where it is at home."""
    state: State
    """Where the run stands."""
    new_files: int = 0
    """Files that came now."""
    new_bytes: int = 0
    """Their size."""
    files: int = 0
    """Files that are here and verified."""
    size: int = 0
    """Their bytes."""
    complete: bool = False
    """True where the run is over and all that was asked for is here, verified."""
    damaged: tuple[str, ...] = ()
    """Files that could not be had as announced."""
    left: tuple[str, ...] = ()
    """Files that stayed there, as asked."""
    note: str = ""
    """Why nothing was fetched."""


def fetch(
    project: Path,
    runs: Sequence[StoredRun],
    progress: Progress,
    *,
    checkpoints: Checkpoints = Checkpoints.BEST,
    again: bool = False,
) -> list[Fetched]:
    """Fetch runs of one target and verify them.

    Args:
        checkpoints: Which come along.
        again: Hash what is here anew, too.

    Raises:
        TargetError: The target can't be reached or asked; what has arrived is kept for the next time.
        LocalError: The disk here is full, or can't be written.
    """
    connection = connect_for_transfer(load_target(project, runs[0].target), project)
    homes = [(run, home_of(project, run)) for run in runs]
    theirs = [_Run(run, home) for run, home in homes if not lies_at_home(connection.target, run, home)]
    fetched = {one.run_dir: one for one in _Fetch(connection, theirs, progress, checkpoints, again).all()}
    return [fetched.get(home) or _in_place(run, home) for run, home in homes]


def bring_records(
    connection: Connection,
    places: Sequence[tuple[StoredRun, Path]],
    progress: Progress,
    *,
    again: bool = False,
) -> list[Fetched]:
    """Fetch what a report reads of runs, into folders that can be no other run's, and verify it.

    Args:
        places: Runs, of which each has where it lies now as run directory, with their folders here.
        again: Hash what is here anew, too.

    Raises:
        TargetError: As ``fetch``.
        LocalError: Likewise.
    """
    looks = [_Run(run, home) for run, home in places]
    return _Fetch(connection, looks, progress, Checkpoints.NONE, again, records_alone=True).all()


def _in_place(run: StoredRun, home: Path) -> Fetched:
    """Verify a run of this machine that lies in its project."""
    checked = sync.verify(home)
    return Fetched(
        run=run,
        run_dir=home,
        state=run.state,
        files=checked.files - len(checked.damaged),
        size=checked.size,
        complete=checked.has_manifest and not checked.damaged,
        damaged=checked.damaged,
        note="" if checked.has_manifest else _("is {state}, nothing to verify yet", run.state),
    )


@dataclass
class _Run:
    """One run that is being fetched."""

    run: StoredRun
    home: Path
    row: messages.Held = field(init=False)
    """The target's answer about it."""
    record: FetchedRecord = field(init=False)
    """Of what was fetched before."""
    here: list[Item] = field(init=False)
    wanted: list[Item] = field(init=False)
    new_files: int = 0
    new_bytes: int = 0
    outcome: Fetched | None = None
    """None before its first round; while files are damaged there is another one."""

    def count(self, item: Item) -> None:
        """Count a file that has come."""
        self.here.append(item)
        self.new_files += 1
        self.new_bytes += item.size


@dataclass
class _Fetch:
    """The fetch of one target's runs."""

    connection: Connection
    runs: Sequence[_Run]
    progress: Progress
    checkpoints: Checkpoints
    again: bool
    records_alone: bool = False
    """Whether only what a report reads comes along."""
    rsync: str = ""
    """Path of the command there."""

    def all(self) -> list[Fetched]:
        """Fetch until nothing that was asked for changes any more, at most ROUNDS times."""
        for _round in range(ROUNDS):
            looks = [look for look in self.runs if look.outcome is None or look.outcome.damaged]
            if not looks:
                break
            self._ask(looks)
            self._bring([look for look in looks if look.wanted])
            for look in looks:
                look.outcome = self._settle(look)
            self._release(looks)
        return [look.outcome for look in self.runs if look.outcome is not None]

    def _release(self, looks: Sequence[_Run]) -> None:
        """Release checkpoints for which the target keeps a second name during this fetch."""
        held = {
            look.run.run_dir: names
            for look in looks
            if (names := [item.source for item in (*look.here, *look.wanted) if item.source])
        }
        if held:
            request: messages.ReleaseRequest = {"runs": held}
            self.connection.call(registry.RELEASE, request)

    # Asking -----------------------------------------------------------------------------------------------------------

    def _ask(self, looks: Sequence[_Run]) -> None:
        """Ask what the runs hold and compare it with what is here."""
        have: dict[str, dict[str, str]] = {}
        for look in looks:
            known = {} if self.again else sync.record(look.home).get("files", {})
            have[look.run.run_dir] = {
                name: entry["sha256"]
                for name, entry in known.items()
                if (look.home / name).is_file() and entry.get("seen") == sync.seen(look.home / name)
            }
        request: messages.InventoryRequest = {
            "runs": [{"run_dir": run_dir, "have": files} for run_dir, files in have.items()],
            "checkpoints": self.checkpoints.value,
        }
        if self.records_alone:
            request["records"] = True
        answer = self.connection.call(registry.INVENTORY, request, timeout_s=3600)
        self.rsync = answer["rsync"]
        for look in looks:
            self._compare(look, answer["runs"][look.run.run_dir], have[look.run.run_dir])

    def _compare(self, look: _Run, row: messages.Held, have: Mapping[str, str]) -> None:
        look.row, look.record, look.here, look.wanted = row, sync.record(look.home), [], []
        if _is_nothing(row):  # nor is what lies at home of another one yet
            return
        if not inside.is_absolute(row.get("path", "")):
            place = json.dumps(row.get("path", ""))
            raise TargetError(
                _("{target} says that {run} lies in {path}: refused", look.run.target, look.run.name, place)
            )
        if look.home.is_dir() and any(look.home.iterdir()):
            self._check_home(look)
        for item in sync.items(row["files"]):
            # By the record, where that is still about this run; else it is read.
            is_known = bool(look.record) and have.get(item.name) == item.sha256
            is_here = is_known or sync.is_whole(look.home / item.name, item.size, item.sha256)
            (look.here if is_here else look.wanted).append(item)

    def _check_home(self, look: _Run) -> None:
        """Check that the folder at home holds this run; move what it was before it was started over out of its way.

        Raises:
            TargetError: It is another run, which was not fetched but trained here.
        """
        trained: Mapping[str, object] = {}
        if look.record:
            is_older = look.record.get("origin") != look.row["origin"]
        else:
            trained = rundir.read_json(rundir.control(look.home, rundir.RUN)) or {}  # whatever it is, it is not ours
            is_older = (str(look.home), trained.get("token")) in _left(look.run)
        if is_older:
            place = sync.set_aside(look.home)
            look.record = {}
            self.progress.say(
                _("{run} was started over; what was here of it before is in {path}", look.run.name, str(place))
            )
        elif trained and not self.records_alone and trained.get("run_dir") != look.run.run_dir:
            raise TargetError(
                _("{path} holds a run that was not fetched from {target}", str(look.home), look.run.target),
                hint=_("move it away first: mv '{path}' '{path}-old'", str(look.home)),
            )

    # Bringing ---------------------------------------------------------------------------------------------------------

    def _bring(self, looks: Sequence[_Run]) -> None:
        for look in looks:
            look.home.mkdir(parents=True, exist_ok=True)
            if not look.row["final"]:
                (look.home / rundir.MANIFEST).unlink(missing_ok=True)  # it says nothing of a run that goes on
        for folder in dict.fromkeys(look.home.parent for look in looks):
            self._bring_into(folder, [look for look in looks if look.home.parent == folder])

    def _bring_into(self, folder: Path, looks: Sequence[_Run]) -> None:
        large = [(look, item) for look in looks for item in look.wanted if item.content is None]
        if large:
            if not self.rsync and self.connection.target.host:
                raise TargetError(
                    _("there is no rsync command on {target}", self.connection.target.name),
                    hint=_("install it there, or ask its administrators to"),
                )
            staging = Staging(folder.resolve(), self.progress.say)
            try:
                arrivals = [(look, staging.arrival(look.row["path"], look.home, item)) for look, item in large]
                self.progress.begin(len(arrivals), sum(arrival.item.size for _, arrival in arrivals))
                self._transfer(staging, arrivals)
            finally:
                staging.close()
        # What says that a run is whole comes last.
        for look in looks:
            for item in sorted(look.wanted, key=_last_first):
                if item.content is not None:
                    sync.place_content(look.home, item)
                    look.count(item)

    def _transfer(self, staging: Staging, arrivals: Sequence[tuple[_Run, Arrival]]) -> None:
        """Transfer files, going on after broken connections as long as there is progress."""
        tries = 0
        while open_ones := [(look, arrival) for look, arrival in arrivals if not arrival.is_placed]:
            before, broken = sum(arrival.read for _, arrival in arrivals), None
            try:
                staging.transfer(
                    [arrival for _, arrival in open_ones],
                    self.connection.route(),
                    self.rsync,
                    self.connection.target.name,
                    self.progress.advance,
                )
            except NotReached as error:
                broken = error
            for look, arrival in open_ones:
                if arrival.is_whole:
                    place_arrival(arrival)
                    look.count(arrival.item)
                elif arrival.is_wrong:
                    self.progress.advance(-arrival.read)
                    arrival.start_over()
            if broken is None:
                return
            tries = 0 if sum(arrival.read for _, arrival in arrivals) > before else tries + 1
            if tries >= TRIES:
                raise broken
            self.progress.say(_("{why}; going on where it broke off", str(broken)))
            time.sleep(random.uniform(0.5, 1.5) * max(1, tries))

    # Saying -----------------------------------------------------------------------------------------------------------

    def _settle(self, look: _Run) -> Fetched:
        """Record what is here of a run."""
        if _is_nothing(look.row):
            note = _("is not there any more") if look.run.progress else _("never started: there is nothing of it")
            return Fetched(run=look.run, run_dir=look.home, state=State.UNKNOWN, note=note)
        here = {item.name: item for item in look.here}
        damaged = tuple(item.name for item in look.wanted if item.name not in here)
        files = dict(look.record.get("files", {}))
        for name, item in here.items():
            files[name] = {"size": item.size, "sha256": item.sha256, "seen": sync.seen(look.home / name)}
        gone: list[ResultFile] = [{"name": name} for name in look.row["gone"] if name not in files]
        content: FetchedRecord = {
            "version": 1,
            "target": look.run.target,
            "host": self.connection.target.host,
            "run_dir": look.run.run_dir,
            "origin": look.row["origin"],
            "files": {name: entry for name, entry in files.items() if (look.home / name).is_file()},
            "left": look.row["left"] + gone,
            "removed": look.record.get("removed", {}),
        }
        before: Mapping[str, object] = look.record
        if here and content != {key: before.get(key) for key in content}:
            sync.write_record(look.home, content)
        return Fetched(
            run=look.run,
            run_dir=look.home,
            state=State(look.row["state"]) if self.connection.target.slurm is None else look.run.state,
            new_files=look.new_files,
            new_bytes=look.new_bytes,
            files=len(here),
            size=sum(item.size for item in look.here),
            complete=look.row["final"] and not damaged,
            damaged=damaged,
            left=tuple(file["name"] for file in look.row["left"]),
        )


def _left(run: StoredRun) -> set[tuple[str, str]]:
    """Return where a run that moved to another target lay before: run directory and token."""
    return {(place["run_dir"], place["token"]) for place in run.left}


def _is_nothing(row: messages.Held) -> bool:
    """Tell whether the target has nothing of a run: it has not started, not yet started over, or is gone."""
    return bool(row.get("absent")) or not (row["files"] or row["left"])


def _last_first(item: Item) -> int:
    """Sort key: the result, then the manifest, then the end record come after everything else."""
    order = [rundir.RESULT, rundir.MANIFEST, f"{rundir.CONTROL}/{rundir.END}"]
    return order.index(item.name) + 1 if item.name in order else 0

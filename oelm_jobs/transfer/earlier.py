"""What runs of locked studies were before they were started over or forgotten: their records come home.

There the first result decides. Where nothing is locked the newest one does, and the ledger says all that is told of
those before it: nothing of them is fetched.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .. import ledger
from ..agent import inside, records, registry, rundir
from ..agent.sentences import _
from ..agent.states import State
from ..connections import connect_for_transfer
from ..errors import NoSuchTarget, TargetError
from ..ledger import Entry
from ..outcome import Outcome
from ..stored_run import STATES, StoredRun
from ..targets.files import load_target
from . import sync
from .fetch import Fetched, Progress, bring_records

if TYPE_CHECKING:
    from ..agent import messages


@dataclass(frozen=True, kw_only=True)
class Earlier(Fetched):
    """What was done about a run that was started over or forgotten."""

    entry: Entry
    """Its line in the ledger."""

    @property
    def is_forgotten(self) -> bool:
        """Whether it was forgotten; else it was started over."""
        return self.entry.event == ledger.FORGOTTEN


@dataclass(frozen=True, kw_only=True)
class Brought(Outcome[Fetched]):
    """What a fetch did."""

    earlier: tuple[Earlier, ...] = ()
    """Of locked studies, runs that were started over or forgotten and whose records were not all here before."""


def kept(project: Path, studies: Collection[str] | None, current: Collection[tuple[str, str, str]]) -> list[Entry]:
    """Return the lines of the ledgers about runs of locked studies whose files were left somewhere.

    Args:
        studies: Names; all where None.
        current: Study, name and token of each run that the index knows: what was to start over and did not is one.
    """
    known = sorted(path.parent.name for path in (project / "experiments").glob(f"*/{ledger.NAME}"))
    return [
        entry
        for study in known
        if (studies is None or study in studies) and ledger.is_locked(project, study)
        for entry in ledger.read(project, study)
        if entry.study == study
        and entry.event in (ledger.FORGOTTEN, ledger.RERUN)
        and entry.files in (*ledger.TO_FETCH, ledger.GONE)
        and (entry.study, entry.run, entry.token) not in current
        and run_of(project, entry).misnamed is None
        and inside.TOKEN.fullmatch(entry.token)
    ]


def lacking(
    project: Path,
    studies: Collection[str] | None,
    current: Collection[tuple[str, str, str]],
    *,
    again: bool = False,
) -> list[Entry]:
    """Return those of them whose records are not all here.

    Args:
        studies: As for ``kept``.
        current: As for ``kept``.
        again: Also those that were fetched, and those whose files were gone: their disk may have been away.
    """
    found = kept(project, studies, current)
    lines = [entry for study in {entry.study for entry in found} for entry in ledger.read(project, study)]
    taken = {token for _study, _run, token in current} | {entry.token for entry in lines}
    return [
        entry
        for entry in found
        if (again or entry.files != ledger.GONE) and not _is_here(project, entry, taken, again=again)
    ]


def bring(project: Path, target: str, entries: Sequence[Entry], progress: Progress, *, again: bool) -> list[Earlier]:
    """Bring what a report reads of runs from one target, and verify it; the ledger is told what is not there any more.

    A target that can't be asked is told with each of them: nothing else waits for what it holds.

    Raises:
        LocalError: The disk here is full, or can't be written.
    """
    try:
        return _bring(project, target, entries, progress, again=again)
    except (TargetError, NoSuchTarget) as error:
        note = _("could not be fetched: {why}", str(error))
        return [_not_brought(project, entry, note) for entry in entries]


def _bring(project: Path, target: str, entries: Sequence[Entry], progress: Progress, *, again: bool) -> list[Earlier]:
    connection = connect_for_transfer(load_target(project, target), project)
    request: messages.ArchivedRequest = {
        "runs": {
            str(number): {"run_dir": entry.run_dir, "token": entry.token, "place": entry.place}
            for number, entry in enumerate(entries)
        }
    }
    places = connection.call(registry.ARCHIVED, request, timeout_s=600)["runs"]
    there = {place: entry for number, entry in enumerate(entries) if (place := places[str(number)])}
    gone = [entry for number, entry in enumerate(entries) if not places[str(number)]]
    wanted = [(run_of(project, entry)._replace(run_dir=place), _home(project, entry)) for place, entry in there.items()]
    brought = [
        Earlier(**{**vars(one), "complete": not one.damaged}, entry=there[one.run.run_dir])  # nothing more will come
        for one in bring_records(connection, wanted, progress, again=again)
        if one.files or one.damaged
    ]
    for study in dict.fromkeys(entry.study for entry in gone):
        news = [entry for entry in gone if entry.study == study and entry.files != ledger.GONE]
        if news:
            ledger.append(project, study, [replace(entry, files=ledger.GONE) for entry in news])
    for entry in gone:
        note = _("is not on {target} any more ({place})", target, entry.place or entry.run_dir)
        brought.append(_not_brought(project, entry, note))
    return brought


def _not_brought(project: Path, entry: Entry, note: str) -> Earlier:
    run = run_of(project, entry)
    return Earlier(entry=entry, run=run, run_dir=_home(project, entry), state=run.state, note=note)


def run_of(project: Path, entry: Entry) -> StoredRun:
    """Return a run that a line is about as it was last seen."""
    return StoredRun(
        project=str(project), study=entry.study, name=entry.run, group=entry.group, label="", seed=entry.seed,
        tag=entry.tag, target=entry.target, run_dir=entry.run_dir, fingerprint=entry.fingerprint, token=entry.token,
        spec={}, state=STATES.get(entry.state, State.UNKNOWN), reason=entry.reason, queued_at=None, observed_at=None,
        progress={},
    )  # fmt: skip


def _home(project: Path, entry: Entry) -> Path:
    """Return where a run's records come: into the copy that was fetched of it before, else a folder in the archive."""
    folder = project / "models" / "checkpoints"
    if Path(entry.run_dir).parent.name == entry.study:
        folder /= entry.study
    new = folder / rundir.ARCHIVE / ledger.fetched_name(entry)
    return next(ledger.kept(project, entry.study, entry), new)


def _is_here(project: Path, entry: Entry, taken: Collection[str], *, again: bool) -> bool:
    """Tell whether all that a report reads of a run is here: it is here itself, or was fetched once it was over."""
    home = next(ledger.kept(project, entry.study, entry, taken), None)
    if home is None:
        return False
    known = sync.record(home)
    if not known:
        return str(home) == entry.place or rundir.control(home, rundir.END).exists()
    if again:
        return False
    files = known.get("files", {})
    if any(not (home / name).is_file() or each.get("seen") != sync.seen(home / name) for name, each in files.items()):
        return False
    manifest = records.MANIFEST.read_if_sound(home)
    if manifest is None:
        # It was left without one, or this was fetched while it ran: what came from the archive is all that there is.
        return known.get("run_dir") == entry.place
    left = {file["name"] for file in known.get("left", [])}
    return all(file["name"] in files or file["name"] in left for file in manifest["files"])

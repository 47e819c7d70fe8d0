"""The index made again from the records on targets, and runs taken over from other projects.

A run is a project's own where its record names the project, where it lies in the project's own folder, or where the
index has it already: the index is what remembers that a run was taken over, and records are never rewritten.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .. import names
from ..agent import registry
from ..agent.run_record import RunRecord
from ..agent.sentences import _
from ..agent.states import State
from ..connections import Connection, connect
from ..errors import Nonsense, TargetError, UsageError, few, valid_choices
from ..folders import expanded
from ..names import SPEED_TRIAL
from ..schedulers import scheduler
from ..spec.target import Target
from ..store import Store
from ..study.files import read_studies
from ..transfer import sync
from . import moving
from .observe import Scope, refresh, side_by_side

if TYPE_CHECKING:
    from ..agent import messages

UNNAMED = "unnamed"
"""What stands for a project that records don't name, also where one is asked for."""


@dataclass(frozen=True, kw_only=True)
class Holding:
    """Runs of one project that lie on one target."""

    target: str
    project: str
    """Path of the project that submitted them, where it was then; empty where their records don't name it."""
    records: tuple[RunRecord, ...]
    """With ``run_dir`` where they lie now."""
    states: Mapping[str, State] = field(default_factory=dict)
    """Where they stand, by run directory; empty where that was not asked."""
    is_own: bool = False
    """Whether they are this project's."""

    @property
    def owner(self) -> str:
        """The project in words."""
        return self.project or UNNAMED

    def lives(self, record: RunRecord) -> bool:
        """True where a run was not over when its target was asked."""
        state = self.states.get(record.run_dir)
        return state is not None and not state.is_final

    @property
    def is_elsewhere(self) -> bool:
        """True where no project lies under that path on this machine any more: it was moved, or it is another's."""
        return not any((Path(self.project) / "jobs").glob("*.toml")) if self.project else True


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What lies on targets."""

    holdings: tuple[Holding, ...]
    """By target; a project's own first."""
    unreachable: Mapping[str, str]
    """Target to the reason why it couldn't be asked."""
    nonsense: tuple[str, ...] = ()
    """Of those reasons the ones that say that it answered, but nothing that can be believed."""
    passed_over: tuple[str, ...] = ()
    """What was found and isn't believed, in words."""


def survey(store: Store, project: Path, targets: Sequence[Target]) -> Survey:
    """Ask targets, side by side, which runs of which project lie there and where they stand."""
    found: dict[str, list[Holding]] = {}
    failed: dict[str, TargetError] = {}
    passed_over: list[str] = []
    by_name = {target.name: target for target in targets}
    # A target that is in no file any more was renamed, for all that is known: its runs are looked for everywhere.
    known = {
        (run.target if run.target in by_name else "", run.run_dir, run.study, run.name) for run in store.runs(project)
    }

    def ask(name: str) -> None:
        try:
            connection = connect(by_name[name], project)
            resolved = connection.resolved
            request: messages.FindRequest = {"root": resolved.root, "checkpoint_root": resolved.checkpoint_root}
            records = connection.call(registry.FIND, request, timeout_s=600)["runs"]
            believed, odd = _believed(name, records)
            passed_over.extend(odd)
            is_ours = resolved.root == str(project)
            owners: dict[str, list[RunRecord]] = {}
            for record in believed:
                keys = [(where, record.run_dir, record.study, record.run) for where in (name, "")]
                own = is_ours or not known.isdisjoint(keys)
                owners.setdefault(str(project) if own else record.project, []).append(record)
            holdings = [
                Holding(target=name, project=owner, records=tuple(theirs), is_own=owner == str(project))
                for owner, theirs in owners.items()
            ]
            found[name] = [_with_states(connection, holding) for holding in holdings]
        except TargetError as error:
            failed[name] = error

    side_by_side(ask, list(by_name))
    everything = [holding for name in by_name for holding in found.get(name, ())]
    indexed = {(run.target, run.study, run.name) for run in store.runs(project)}
    holdings = [_only_here(holding, everything, by_name, indexed) for holding in everything]
    holdings = [_without_superseded(holding, holdings) for holding in holdings]
    return Survey(
        holdings=tuple(sorted((h for h in holdings if h.records), key=lambda h: not h.is_own)),
        unreachable={name: str(error) for name, error in failed.items()},
        nonsense=tuple(str(error) for error in failed.values() if isinstance(error, Nonsense)),
        passed_over=tuple(passed_over),
    )


def _believed(target: str, records: Sequence[Mapping[str, object]]) -> tuple[list[RunRecord], list[str]]:
    """Return the records that a submission can have written, one for each run, and words about the others."""
    found: dict[tuple[str, str, str], RunRecord] = {}
    odd: list[str] = []
    # A folder that somebody copied or renamed holds a record, too: the run's own folder is called after it.
    for record in sorted(records, key=lambda known: Path(str(known.get("run_dir"))).name != f"exp_{known.get('run')}"):
        wrong = names.what_is_wrong(record)
        key = (str(record.get("project")), str(record.get("study")), str(record.get("run")))
        if not wrong and key in found:
            wrong = _("{run} is what lies in {run_dir}", f"{key[1]}/{key[2]}", found[key].run_dir)
        if wrong:
            odd.append(
                _("{target}: a record in {run_dir} was passed over: {why}", target, str(record.get("run_dir")), wrong)
            )
        else:
            found[key] = RunRecord.of(record)
    return list(found.values()), odd


def _with_states(connection: Connection, holding: Holding) -> Holding:
    """Return a holding with where its runs stand; without, where the target can't say."""
    asked = {record.run_dir: record.token for record in holding.records}
    try:
        rows = scheduler(connection).poll(asked)["runs"]
    except TargetError:
        return holding
    return replace(holding, states={run_dir: State(rows[run_dir]["state"]) for run_dir in asked})


def _only_here(
    holding: Holding,
    everything: Sequence[Holding],
    targets: Mapping[str, Target],
    indexed: Collection[tuple[str, str, str]],
) -> Holding:
    """Return a holding without the runs of another target here: this machine and the cluster behind its sbatch may
    share a root, and then a run is the one's that its record names; what was fetched is another's, too, as long as
    that, or the index (by target, study and name), knows of it.
    """
    elsewhere = {
        (other.target, record.run_dir, record.token)
        for other in everything
        if other.target != holding.target
        for record in other.records
    }

    names_elsewhere = {(study, name) for target, study, name in indexed if target != holding.target}
    for other in everything:
        if other.target != holding.target:
            names_elsewhere |= {(record.study, record.run) for record in other.records}

    def is_anothers(record: RunRecord) -> bool:
        is_known = (record.study, record.run) in names_elsewhere and not targets[holding.target].host
        if is_known and sync.record(Path(record.run_dir)):
            return True
        if record.target == holding.target or record.target not in targets:
            return False
        return holding.is_own or (record.target, record.run_dir, record.token) in elsewhere

    return replace(holding, records=tuple(record for record in holding.records if not is_anothers(record)))


def _without_superseded(holding: Holding, everything: Sequence[Holding]) -> Holding:
    """Return a holding without what its project's runs left there when they started over on another target."""
    found = [record for other in everything if other.project == holding.project for record in other.records]
    old = moving.superseded(found)
    kept = [r for r in holding.records if (holding.target, r.run_dir, r.token) not in old]
    return replace(holding, records=tuple(kept))


class _Order:
    """Where a run's record stands among others: by study, tag, seed, and the study's order of groups where its file
    still has them.
    """

    def __init__(self, project: Path, warn: Callable[[str], None] = lambda text: None) -> None:
        self._groups = {
            study.name: {name: place for place, name in enumerate(study.groups)}
            for study in read_studies(project, warn)
        }

    def __call__(self, known: RunRecord) -> tuple[object, ...]:
        group = known.group
        place = -1 if group == SPEED_TRIAL else self._groups.get(known.study, {}).get(group, len(group))
        return known.study, known.tag, known.seed, place, group


def rebuild(store: Store, project: Path, targets: Sequence[Target]) -> Survey:
    """Make the project's part of the index again from the run directories; return what lies on the targets.

    Runs of a target that can't be asked stay as they are, and so do submissions under way.
    """
    found = survey(store, project, targets)
    odd: list[str] = []
    order = _Order(project, odd.append)
    own = _one_of_each(store, project, found, odd.append)
    gone = {run.target for run in store.runs(project)} - {target.name for target in targets}
    for target in targets:
        if target.name not in found.unreachable:
            store.replace_runs(project, target.name, sorted(own.get(target.name, ()), key=order), gone)
    refresh(store, project, store.runs(project), scope=Scope.ALL)
    return replace(found, passed_over=(*found.passed_over, *odd))


def _one_of_each(store: Store, project: Path, survey: Survey, say: Callable[[str], None]) -> dict[str, list[RunRecord]]:
    """Return by target the records of a project's own runs, one of each name: a run that went on elsewhere lies on two
    targets. It is where the index has it; where that knows nothing, where it lives.
    """
    indexed = {(run.study, run.name): run.target for run in store.runs(project)}
    found: dict[tuple[str, str], list[tuple[Holding, RunRecord]]] = {}
    for holding in survey.holdings:
        for record in holding.records if holding.is_own else ():
            found.setdefault((record.study, record.run), []).append((holding, record))
    chosen: dict[str, list[RunRecord]] = {}
    for key, ones in found.items():
        where = indexed.get(key)
        ones.sort(key=lambda one: (one[0].target != where, not one[0].lives(one[1])))
        if where not in survey.unreachable:
            holding, record = ones.pop(0)
            chosen.setdefault(holding.target, []).append(record)
            where = holding.target
        for other in [holding.target for holding, record in ones if holding.target != where]:
            say(_("{target} holds {run}, too; the index has what lies on {other}", other, "/".join(key), where))
    return chosen


def adopt(
    store: Store, project: Path, found: Survey, owner: str = "", say: Callable[[str], None] = lambda text: None
) -> list[Holding]:
    """Take over the runs that another project submitted: this project's index has them from now on.

    Args:
        owner: The path of that project, as it was when they were submitted; without it the only one that there is and
            that isn't a project on this machine.
        say: Is told which runs are left, because this project has runs of these names.

    Returns:
        What was taken over.

    Raises:
        UsageError: There is no such project, or several that could be meant.
    """
    others = [holding for holding in found.holdings if not holding.is_own]
    chosen = sorted(_owned_by(owner, others) if owner else _moved(others), key=_none_lives)
    own = {(run.study, run.name) for run in store.runs(project)}
    taken = []
    for holding in chosen:
        left = [record for record in holding.records if (record.study, record.run) in own]
        records = [record for record in holding.records if (record.study, record.run) not in own]
        if left:
            listed = few([f"{record.study}/{record.run}" for record in left])
            say(
                _(
                    "not taken over from {target}, since this project has runs of these names: {runs}",
                    holding.target,
                    listed,
                )
            )
        if records:
            store.add_runs(project, holding.target, sorted(records, key=_Order(project)))
            own |= {(record.study, record.run) for record in records}
            taken.append(Holding(target=holding.target, project=holding.project, records=tuple(records)))
    refresh(store, project, store.runs(project), scope=Scope.ALL)
    return taken


def _none_lives(holding: Holding) -> bool:
    """Sort key: of two runs of one name the one that lives is taken."""
    return not any(map(holding.lives, holding.records))


def _owned_by(owner: str, others: Sequence[Holding]) -> list[Holding]:
    wanted = str(expanded(owner)) if owner.startswith("~") else owner.rstrip("/") or "/"
    chosen = [holding for holding in others if holding.owner == wanted]
    if not chosen:
        known = [holding.owner for holding in others]
        choices = valid_choices(owner, known)
        raise UsageError(_("no run of project {project} was found on any target; {choices}", owner, choices))
    return chosen


def _moved(others: Sequence[Holding]) -> list[Holding]:
    """Return the holdings of the only project that can have become this one.

    Raises:
        UsageError: There are several, or all are projects here.
    """
    moved = [holding for holding in others if holding.is_elsewhere]
    projects = sorted({holding.owner for holding in moved})
    if len(projects) > 1:
        raise UsageError(
            _("runs of {count} projects lie on the targets: {projects}", len(projects), few(projects)),
            hint=_("name the one whose runs are meant: oelm-status --adopt {project}", shlex.quote(projects[0])),
        )
    if not moved and others:
        projects = sorted({holding.owner for holding in others})
        raise UsageError(
            _("what lies on the targets belongs to projects on this machine: {projects}", few(projects)),
            hint=_(
                "to take it over from one all the same, name it: oelm-status --adopt {project}",
                shlex.quote(projects[0]),
            ),
        )
    return moved

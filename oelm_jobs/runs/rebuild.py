"""The index made again from the records on targets, and runs taken over from other projects.

A run is a project's own where its record names the project, where it lies in the project's own folder, or where the
index has it already: the index is what remembers that a run was taken over, and records are never rewritten.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .. import ledger, names
from ..agent import registry
from ..agent.run_record import RunRecord
from ..agent.sentences import _
from ..agent.states import State
from ..connections import Connection, connect
from ..errors import Nonsense, TargetError, UsageError, few, valid_choices
from ..folders import expanded, study_files
from ..names import SPEED_TRIAL
from ..schedulers import scheduler
from ..spec.target import Target
from ..store import Store
from ..study.files import read_studies
from ..transfer import sync
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
        return not self.project or not study_files(Path(self.project))


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


class _Found(NamedTuple):
    """A run's record on a target."""

    target: str
    owner: str
    """Path of the project that it belongs to; empty where that isn't known."""
    record: RunRecord
    state: State | None
    """Where it stands; None where that was not asked."""


def survey(store: Store, project: Path, targets: Sequence[Target]) -> Survey:
    """Ask targets, side by side, which runs of which project lie there and where they stand; what this project has
    forgotten stays so.
    """
    found: dict[str, list[_Found]] = {}
    passed_over: list[str] = []
    by_name = {target.name: target for target in targets}
    stored = store.runs(project)
    # A target that is in no file any more was renamed, for all that is known: its runs are looked for everywhere.
    known = {(run.target if run.target in by_name else "", run.run_dir, run.study, run.name) for run in stored}

    def ask(name: str) -> None:
        connection = connect(by_name[name], project)
        resolved = connection.resolved
        request: messages.FindRequest = {"root": resolved.root, "checkpoint_root": resolved.checkpoint_root}
        believed, odd = _believed(name, connection.call(registry.FIND, request, timeout_s=600)["runs"])
        passed_over.extend(odd)
        states = _states(connection, believed)
        found[name] = []
        for record in believed:
            keys = [(where, record.run_dir, record.study, record.run) for where in (name, "")]
            is_own = resolved.root == str(project) or not known.isdisjoint(keys)
            owner = str(project) if is_own else record.project
            found[name].append(_Found(name, owner, record, states.get(record.run_dir)))

    failed = side_by_side(ask, by_name)
    forgotten = ledger.tokens(ledger.read_all(project))
    everything = [
        each
        for name in by_name
        for each in found.get(name, ())
        if each.owner != str(project) or (each.record.study, each.record.run, each.record.token) not in forgotten
    ]
    indexed = [(run.study, run.name, run.target) for run in stored]
    holdings: dict[tuple[str, str], list[_Found]] = {}
    for each in _without_what_was_left(_without_others(everything, project, by_name, indexed)):
        holdings.setdefault((each.target, each.owner), []).append(each)
    return Survey(
        holdings=tuple(
            Holding(
                target=target,
                project=owner,
                records=tuple(each.record for each in theirs),
                states={each.record.run_dir: each.state for each in theirs if each.state is not None},
                is_own=owner == str(project),
            )
            for (target, owner), theirs in sorted(holdings.items(), key=lambda item: item[0][1] != str(project))
        ),
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


def _states(connection: Connection, records: Sequence[RunRecord]) -> dict[str, State]:
    """Return where runs stand, by run directory; nothing where the target can't say."""
    asked = {record.run_dir: record.token for record in records}
    try:
        rows = scheduler(connection).poll(asked)["runs"] if asked else {}
    except TargetError:
        return {}
    return {run_dir: State(rows[run_dir]["state"]) for run_dir in asked}


def _without_others(
    found: Sequence[_Found], project: Path, targets: Mapping[str, Target], indexed: Iterable[tuple[str, str, str]]
) -> list[_Found]:
    """Return what was found without the runs of another target here: this machine and the cluster behind its sbatch may
    share a root, and then a run is the one's that its record names; what was fetched is another's, too, as long as
    that, or the index (study, name and target), knows of it.
    """
    places = {(each.target, each.record.run_dir, each.record.token) for each in found}
    targets_of: dict[tuple[str, str], set[str]] = {}
    for study, name, target in (*indexed, *((each.record.study, each.record.run, each.target) for each in found)):
        targets_of.setdefault((study, name), set()).add(target)

    def is_anothers(target: str, owner: str, record: RunRecord) -> bool:
        is_known = targets_of[record.study, record.run] != {target} and not targets[target].host
        if is_known and sync.record(Path(record.run_dir)):
            return True
        if record.target == target or record.target not in targets:
            return False
        return owner == str(project) or (record.target, record.run_dir, record.token) in places

    return [each for each in found if not is_anothers(each.target, each.owner, each.record)]


def _without_what_was_left(found: Sequence[_Found]) -> list[_Found]:
    """Return what was found without what a project's runs left when they started over on another target."""
    left = {
        (each.owner, place["target"], place["run_dir"], place["token"])
        for each in found
        for place in each.record.left or ()
    }
    return [each for each in found if (each.owner, each.target, each.record.run_dir, each.record.token) not in left]


def _order(project: Path, warn: Callable[[str], None] = lambda text: None) -> Callable[[RunRecord], tuple[object, ...]]:
    """Return the key that sorts records by study, tag, seed, and the study's order of groups where its file still has
    them.
    """
    groups = {study.name: [SPEED_TRIAL, *study.groups] for study in read_studies(project, warn)}

    def place(known: RunRecord) -> tuple[object, ...]:
        order = groups.get(known.study, [SPEED_TRIAL])
        at = order.index(known.group) if known.group in order else len(order)
        return known.study, known.tag, known.seed, at, known.group

    return place


def rebuild(store: Store, project: Path, targets: Sequence[Target]) -> Survey:
    """Make the project's part of the index again from the run directories; return what lies on the targets.

    Runs of a target that can't be asked stay as they are, and so do submissions under way.
    """
    found = survey(store, project, targets)
    odd: list[str] = []
    order, own = _order(project, odd.append), _one_of_each(store, project, found, odd.append)
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
    chosen = _meant(owner, others)
    # Of two runs of one name the one that lives is taken.
    chosen.sort(key=lambda holding: not any(map(holding.lives, holding.records)))
    own = {(run.study, run.name) for run in store.runs(project)}
    order, taken = _order(project), []
    for holding in chosen:
        left = [record for record in holding.records if (record.study, record.run) in own]
        records = [record for record in holding.records if (record.study, record.run) not in own]
        if left:
            listed = few([f"{record.study}/{record.run}" for record in left])
            why = _("since this project has runs of these names")
            say(_("not taken over from {target}, {why}: {runs}", holding.target, why, listed))
        if records:
            store.add_runs(project, holding.target, sorted(records, key=order))
            own |= {(record.study, record.run) for record in records}
            taken.append(Holding(target=holding.target, project=holding.project, records=tuple(records)))
    refresh(store, project, store.runs(project), scope=Scope.ALL)
    return taken


def _meant(owner: str, others: Sequence[Holding]) -> list[Holding]:
    """Return the holdings of a project; without its path those of the only one that can have become this one.

    Raises:
        UsageError: There are none of it; or there are several, or all are projects here.
    """
    wanted = str(expanded(owner)) if owner.startswith("~") else owner.rstrip("/") or "/"
    chosen = [holding for holding in others if (holding.owner == wanted if owner else holding.is_elsewhere)]
    projects = sorted({holding.owner for holding in chosen or others})
    if owner and not chosen:
        choices = valid_choices(owner, projects)
        raise UsageError(_("no run of project {project} was found on any target; {choices}", owner, choices))
    if len(projects) > 1 or (projects and not chosen):
        why = _("what lies on the targets belongs to projects on this machine: {projects}", few(projects))
        if chosen:
            why = _("runs of {count} projects lie on the targets: {projects}", len(projects), few(projects))
        hint = _("name the one whose runs are meant: oelm-status --adopt {project}", shlex.quote(projects[0]))
        raise UsageError(why, hint=hint)
    return chosen

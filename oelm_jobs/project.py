"""A project's Python API, which the commands use as well: studies, runs, results and reports of one folder."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from . import visible
from .agent.sentences import _
from .errors import NoSuchTarget, TargetError
from .folders import find_project
from .runs.observe import Scope, View, refresh
from .runs.select import select, select_one
from .store import Store, StoredRun, index_path

if TYPE_CHECKING:
    from .checks.finding import Finding
    from .reporting import StudyReport
    from .runs.logs import Piece
    from .runs.rebuild import Holding, Survey
    from .spec.study import Study
    from .spec.target import Target
    from .study.plan import Plan
    from .submit.decide import Again
    from .submit.submission import Submitted
    from .transfer.clean import Removable, Removed, Unused
    from .transfer.fetch import Fetched, Progress

Each = TypeVar("Each")
Named = str | StoredRun
"""What names runs: a study, a group, a run (``STUDY/RUN`` where its name is not unique), or a run itself."""


@dataclass(frozen=True, kw_only=True)
class Outcome(Generic[Each]):
    """What an operation did, run by run."""

    done: tuple[Each, ...]
    """For each run of the targets that could be asked."""
    unreachable: Mapping[str, TargetError] = field(default_factory=dict)
    """Target to the error that kept the operation from it."""


@dataclass(frozen=True, kw_only=True)
class Cancelled:
    """What a cancel did with one run."""

    run: StoredRun
    answer: str
    """What was done, in words."""


@dataclass(frozen=True, kw_only=True)
class Cleaned:
    """What was removed from targets, and what might have been."""

    files: tuple[Removable, ...]
    """By run."""
    code: tuple[Unused, ...]
    """By target."""
    removed: tuple[Removed, ...] = ()
    discarded: Mapping[str, tuple[tuple[str, ...], int]] = field(default_factory=dict)
    """Target to the names of snapshots that were removed there, and their bytes."""
    unreachable: Mapping[str, TargetError] = field(default_factory=dict)


class Project(AbstractContextManager["Project"]):
    """A folder with studies in ``jobs/``, its index of runs, and connections to its targets.

    Threads may share one: each has its own view of the index, and requests to one target wait for each other.

    Args:
        folder: The project or a folder in it; without it the current one.
        say: Is told what is worth knowing besides results; by default it is printed on stderr.

    Raises:
        UsageError: No project lies there.
    """

    def __init__(self, folder: Path | str | None = None, *, say: Callable[[str], None] = visible.notice) -> None:
        self.folder = find_project(Path.cwd() if folder is None else Path(folder))
        self.say = say
        self._stores: dict[int, Store] = {}

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the index and all connections; both are opened again when they are used again."""
        from .connections import close_all

        while self._stores:
            self._stores.popitem()[1].close()
        close_all(self.folder)

    @property
    def store(self) -> Store:
        """The index of runs, opened for this thread."""
        known = self._stores.get(threading.get_ident())
        if known is None:
            known = self._stores[threading.get_ident()] = Store()
        return known

    # Studies and targets ----------------------------------------------------------------------------------------------

    def study(self, name: str | None = None) -> Study:
        """Return a study by its name or the path of its file; without a name the default study.

        Raises:
            UsageError: There is none, or no default.
            ConfigurationError: Its file is invalid.
        """
        from .study.files import load_study

        return load_study(self.folder, name, warn=self.say)

    def target(self, name: str = "local") -> Target:
        """Return a target of the targets files.

        Raises:
            NoSuchTarget: They have none of that name.
            ConfigurationError: A file is invalid.
        """
        from .targets.files import load_target

        return load_target(self.folder, name)

    def targets(self) -> dict[str, Target]:
        """Return all targets by their names."""
        from .targets.files import load_targets

        return load_targets(self.folder)

    def host(self, host: str, *, user: str = "", port: int = 0, root: str = "", setup: Sequence[str] = ()) -> Target:
        """Return a target for a machine behind SSH that is in no targets file.

        Args:
            root: Folder for runs there; ``oelm`` in the home folder by default.
            setup: Lines of shell to run first.
        """
        from .targets.files import named_on_the_spot

        return named_on_the_spot(self.folder, host, user=user, port=port, root=root, setup=tuple(setup))

    def remember(self, target: Target) -> Path | None:
        """Write such a target into a targets file, so that its runs are found again; return the file, None where it
        is in one already.
        """
        from .targets.files import remember

        return remember(self.folder, target)

    # Submitting -------------------------------------------------------------------------------------------------------

    def plan(
        self,
        study: Study | str | None = None,
        target: Target | str = "local",
        *,
        groups: Sequence[str] = (),
        seeds: Sequence[int] = (),
        tag: str = "",
        settings: Mapping[str, str] | None = None,
        mode: str = "sequential",
        stop_on_failure: bool = False,
        offline: bool = False,
    ) -> Plan:
        """Resolve a study into runs, and see that their comparison is fair.

        Args:
            groups: Only these.
            seeds: Instead of the study's own.
            tag: Names the runs apart from the study's own.
            settings: Train keys for these runs; they need a tag.
            mode: ``sequential`` (each run waits for the one before it) or ``parallel``.
            stop_on_failure: A failed run cancels the ones behind it.
            offline: Ask the target nothing; such a plan is to be looked at, not submitted.

        Raises:
            UsageError: A group or a setting does not exist.
            UnfairError: The groups would differ in more than the study declares.
            PreflightError: The target lacks the study's data.
            TargetError: It can't be reached.
        """
        from .checks import preflight
        from .connections import connect, unreached
        from .runs.locations import where_they_lie
        from .study.plan import make_plan
        from .study.resolve import with_settings

        chosen = self.study(study) if study is None or isinstance(study, str) else study
        place = self.target(target) if isinstance(target, str) else target
        wanted: dict[str, Any] = {
            "groups": groups,
            "seeds": seeds,
            "tag": tag,
            "overrides": settings or {},
            "mode": mode,
            "stop_on_failure": stop_on_failure,
        }
        if offline:
            plan = make_plan(self.folder, chosen, unreached(place, self.folder), **wanted)
            return where_they_lie(plan, self.runs(), self.say)
        connection = connect(place, self.folder)
        data_hash = preflight.data_hash(connection, self.folder, with_settings(chosen, settings or {}))
        return make_plan(self.folder, chosen, connection.resolved, **wanted, data_hash=data_hash)

    def submit(self, plan: Plan, again: Again | None = None) -> list[Submitted]:
        """Submit a plan's runs, each at most once; return what became of each.

        Runs that are under way or done are left alone; cancelled, failed and lost ones go on from their last
        checkpoint.

        Args:
            again: What happens to runs that are over; by default they are resumed.

        Raises:
            PreflightError: The target can't run it; nothing was queued.
            ConfigurationError: A run directory holds another configuration.
            UnknownAnswer: The launch may or may not have arrived; ``refresh`` finds out.
        """
        from .connections import connect
        from .submit import submission
        from .submit.decide import Again

        connection = connect(self.target(plan.target.name), self.folder)
        return submission.submit(plan, connection, self.store, again or Again.RESUME, say=self.say)

    # Where runs stand -------------------------------------------------------------------------------------------------

    def runs(self, *names: Named, study: str | None = None) -> list[StoredRun]:
        """Return runs as they were last seen, without asking anybody; all of the project's without names.

        Raises:
            UsageError: A name or the study names nothing that was submitted.
        """
        if not index_path().exists() and not names and study is None:
            return []
        return select(self.store, self.folder, [_name(name) for name in names], study)

    def refresh(self, *names: Named, study: str | None = None, hosts: bool = False) -> View:
        """Ask the targets where runs stand, once each and side by side.

        A target that can't be asked changes no state; the view says which.

        Args:
            hosts: Ask the targets about their devices, queues and disks, too.
        """
        runs = self.runs(*names, study=study)
        scope = Scope.STOPPED if names else Scope.MOVING
        asked = {run.target for run in runs} if hosts else ()
        return refresh(self.store, self.folder, runs, scope=scope, hosts=asked)

    def watch(self, *names: Named, study: str | None = None, hosts: bool = False) -> Iterator[View]:
        """Yield where runs stand every two seconds, for ever; runs that are submitted meanwhile appear."""
        from .runs.watch import views

        return views(lambda: self.refresh(*names, study=study, hosts=hosts))

    def wait(self, *names: Named, study: str | None = None, show: Callable[[View], None] = lambda view: None) -> View:
        """Wait until runs are over, or have long been unknown to their targets; return where they stand then.

        Args:
            show: Is given every look.
        """
        from .runs.watch import Over

        is_over = Over()
        for view in self.watch(*names, study=study):
            show(view)
            if is_over(view):
                return view
        raise AssertionError("watching never ends")

    def logs(self, run: Named, *, lines: int = 50, study: str | None = None, supervisor: bool = False) -> str:
        """Return the last lines of a run's log.

        Args:
            supervisor: The supervisor's own log: waiting, attempts, signals.

        Raises:
            UsageError: The name names no run, or several.
            TargetError: The target can't be asked.
        """
        found = self.follow(run, lines=lines, study=study, supervisor=supervisor, until_over=False)
        return b"".join(piece.content for piece in found).decode("utf-8", "replace")

    def follow(
        self,
        run: Named,
        *,
        lines: int = 50,
        study: str | None = None,
        supervisor: bool = False,
        until_over: bool = True,
    ) -> Iterator[Piece]:
        """Yield a run's log piece by piece as it is written, from ``lines`` lines before its end.

        Args:
            supervisor: As for ``logs``.
            until_over: Go on until the run is over, through lost connections; else end at what there is now.
        """
        from .agent import rundir
        from .runs.logs import pieces

        chosen = select_one(self.store, self.folder, _name(run), study)
        name = f"{rundir.CONTROL}/{rundir.SUPERVISOR_LOG}" if supervisor else rundir.LOG
        return pieces(self.store, self.folder, chosen, name, lines=lines, follow=until_over, say=self.say)

    def cancel(
        self,
        *names: Named,
        study: str | None = None,
        confirm: Callable[[Sequence[StoredRun]], None] = lambda runs: None,
    ) -> Outcome[Cancelled]:
        """End runs with all their processes; they write a checkpoint first. Those that are over are left as they are.

        Args:
            confirm: Is given the runs that would be ended; what it raises keeps them alive.
        """
        from .runs import control

        view = self.refresh(*names, study=study)
        alive = [run for run in view.runs if not run.state.is_final]
        confirm(alive)
        done: dict[tuple[str, str], str] = {}

        def end(target: str) -> None:
            theirs = [run for run in alive if run.target == target]
            done.update(control.cancel(self.store, self.folder, theirs))

        errors = each_target((run.target for run in alive), end)
        answers = []
        for run in view.runs:
            if run.state.is_final or run.target not in errors:
                answer = done.get((run.study, run.name)) or _left_alone(run, view)
                answers.append(Cancelled(run=run, answer=answer))
        return Outcome(done=tuple(answers), unreachable=errors)

    # Results ----------------------------------------------------------------------------------------------------------

    def fetch(
        self,
        *names: Named,
        study: str | None = None,
        checkpoints: str = "best",
        verify: bool = False,
        progress: Progress | None = None,
    ) -> Outcome[Fetched]:
        """Bring runs home and verify every file; only what is new is transferred.

        Args:
            checkpoints: Which come along: ``none``, ``best``, ``latest`` or ``all``.
            verify: Hash what is here already anew, too.
            progress: Is told what arrives.

        Raises:
            LocalError: The disk here is full, or can't be written.
        """
        from .connections import connect_for_transfer

        runs, targets = self.runs(*names, study=study), self.targets()
        for name in dict.fromkeys(run.target for run in runs):
            if name in targets and targets[name].host:
                connect_for_transfer(targets[name], self.folder)  # logs in while the rest is imported
        from .transfer.fetch import fetch

        # What is elsewhere says where it stands when it is asked what it holds: one round trip, not two.
        remote = {name for name, target in targets.items() if target.host and target.slurm is None}
        known = iter(refresh(self.store, self.folder, [run for run in runs if run.target not in remote]).runs)
        runs = [run if run.target in remote else next(known) for run in runs]
        done: dict[tuple[str, str], Fetched] = {}

        def bring(target: str) -> None:
            theirs = [run for run in runs if run.target == target]
            for one in fetch(self.folder, theirs, progress or _Untold(self.say), checkpoints=checkpoints, again=verify):
                done[one.run.study, one.run.name] = one

        errors = each_target((run.target for run in runs), bring)
        fetched = tuple(done[run.study, run.name] for run in runs if (run.study, run.name) in done)
        return Outcome(done=fetched, unreachable=errors)

    def send_data(
        self, target: Target | str, study: Study | str | None = None, progress: Progress | None = None
    ) -> list[str]:
        """Send a study's token files to a target where it lacks them; return the paths there of those sent.

        Raises:
            PreflightError: The project lacks them, they won't do, or the target holds others under their names.
            TargetError: The target can't be reached; what has arrived is gone on with next time.
        """
        from .transfer.send import send_data

        chosen = self.study(study) if study is None or isinstance(study, str) else study
        place = self.target(target) if isinstance(target, str) else target
        return send_data(self.folder, place, chosen, progress or _Untold(self.say))

    def clean(
        self,
        *names: Named,
        study: str | None = None,
        confirm: Callable[[Sequence[Removable], Sequence[Unused]], bool] = lambda files, code: True,
    ) -> Cleaned:
        """Remove from targets checkpoints whose copy here is verified once more, and code that nobody needs any more.

        Args:
            confirm: Is given what would go and why the rest stays, by run and by target; nothing goes unless it
                returns True.
        """
        from .transfer import clean

        runs = self.refresh(*names, study=study).runs
        files = clean.removable(self.folder, runs)
        code: list[Unused] = []
        targets = list(dict.fromkeys(run.target for run in runs))
        errors = each_target(targets, lambda name: code.append(clean.unused(self.folder, self.store, name)))
        removed: list[Removed] = []
        discarded: dict[str, tuple[tuple[str, ...], int]] = {}

        def free(target: str) -> None:
            if theirs := [one for one in files if one.run.target == target and one.files]:
                removed.extend(clean.remove(self.folder, theirs))
            for one in code:
                if one.target == target and one.names:
                    discarded[target] = clean.discard(self.folder, self.store, one)

        if confirm(files, code):
            where = {one.run.target for one in files if one.files} | {one.target for one in code if one.names}
            errors.update(each_target([name for name in targets if name in where], free))
        return Cleaned(
            files=tuple(files), code=tuple(code), removed=tuple(removed), discarded=discarded, unreachable=errors
        )

    def report(
        self,
        study: str | None = None,
        *,
        only: Sequence[str] = (),
        folders: Sequence[Path] = (),
        mapping: Sequence[str] = (),
        output: Path | None = None,
        target_loss: float | None = None,
    ) -> StudyReport:
        """Compare the groups of a study: audit, verdicts on its hypotheses, tables; see ``reporting.report_on``."""
        from .reporting import report_on

        return report_on(
            self.folder, study, only=only, folders=folders, mapping=mapping, output=output, target_loss=target_loss,
            warn=self.say,
        )  # fmt: skip

    def lock(self, study: str | None = None) -> Path:
        """Record a study's rules before training, so that a report lists later changes; return the file.

        Raises:
            UsageError: It was locked before.
        """
        from .reporting import lock_rules

        return lock_rules(self.report(study), self.say)

    # The index and the targets ----------------------------------------------------------------------------------------

    def survey(self) -> Survey:
        """Ask the targets which runs of which project lie there and where they stand."""
        from .runs import rebuild

        return rebuild.survey(self.store, self.folder, list(self.targets().values()))

    def rebuild(self) -> Survey:
        """Make the index of the project's runs again from their run directories; return what lies on the targets."""
        from .runs import rebuild

        return rebuild.rebuild(self.store, self.folder, list(self.targets().values()))

    def adopt(self, found: Survey, owner: str = "") -> list[Holding]:
        """Take over runs that a project submitted which was moved, or is on another machine; return them.

        Args:
            owner: Its path, as it was then; without it the only one that there is and that isn't a project here.

        Raises:
            UsageError: There is no such project, or several that could be meant.
        """
        from .runs import rebuild

        return rebuild.adopt(self.store, self.folder, found, owner, self.say)

    def examine(self, target: str = "local") -> list[Finding]:
        """Check that a target can run the project's studies: Python, torch, devices, leases, disk, data, ports."""
        from .checks import doctor

        return doctor.examine(self.folder, self.target(target))


class _Untold:
    """Progress of a transfer that nobody watches."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say

    def begin(self, files: int, size: int) -> None: ...

    def advance(self, size: int) -> None: ...


def each_target(names: Iterable[str], act: Callable[[str], None]) -> dict[str, TargetError]:
    """Act on each target once; one that can't be reached doesn't keep the others from it. Return errors by target."""
    errors: dict[str, TargetError] = {}
    for name in dict.fromkeys(names):
        try:
            act(name)
        except TargetError as error:
            errors[name] = error
        except NoSuchTarget as error:
            errors[name] = TargetError(str(error), hint=error.hint)
    return errors


def _name(named: Named) -> str:
    return named if isinstance(named, str) else f"{named.study}/{named.name}"


def _left_alone(run: StoredRun, view: View) -> str:
    if run.target in view.unreachable:
        return _("was {state} when {target} last answered", state=str(run.state), target=run.target)
    return _("is {state} already", state=str(run.state))

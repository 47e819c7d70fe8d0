"""A project's Python API, which the commands use as well: studies, runs, results and reports of one folder."""

from __future__ import annotations

import math
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING

from . import visible
from .agent.sentences import _
from .agent.states import Checkpoints, State
from .errors import UsageError
from .folders import find_project, index_path, program_folder
from .runs.observe import Scope, View, refresh
from .runs.select import select, select_one, understood
from .store import Store
from .stored_run import StoredRun, that_left

if TYPE_CHECKING:
    from .agent.record_types import Left
    from .bundling import Made
    from .checks.finding import Finding
    from .confirming import Confirmation
    from .outcome import Outcome
    from .reporting import StudyReport
    from .runs.control import Cancelled
    from .runs.forget import Forgotten as Forgotten
    from .runs.logs import Piece
    from .runs.rebuild import Holding, Survey
    from .runs.selection import Selection
    from .spec.study import Run, Study
    from .spec.target import Target
    from .study.blocks import DataHash
    from .study.plan import Mode, Plan
    from .submit.decide import Again
    from .submit.preview import PlannedRun
    from .submit.submission import Submitted
    from .transfer.clean import Cleaned, Removable, Unused
    from .transfer.earlier import Brought
    from .transfer.fetch import Fetched, Progress

    Named = str | StoredRun | Run | Plan | View | Selection | Submitted | Fetched | Cancelled
    """What names runs: a study, a group, a run (``STUDY/RUN`` where its name is not unique), a run itself, or what
    another method has returned.
    """


_OPEN: weakref.WeakSet[Project] = weakref.WeakSet()
"""Projects of this process that may use a folder's connections."""


class Project(AbstractContextManager["Project"]):
    """A folder with studies in ``jobs/``, its index of runs, and connections to its targets.

    Threads may share one: each opens the index for itself, and their requests go on side by side.

    Args:
        folder: The project or a folder in it; without it the current one.
        say: Is told what is worth knowing besides results; by default it is printed on stderr.
        is_any: Where no project lies, the git checkout or the folder itself will do (for ``plan_command``).

    Raises:
        UsageError: No project lies there.
    """

    def __init__(
        self, folder: Path | str | None = None, *, say: Callable[[str], None] = visible.notice, is_any: bool = False
    ) -> None:
        start = Path.cwd() if folder is None else Path(folder)
        self.folder = program_folder(start) if is_any else find_project(start)
        self.say = say
        _OPEN.add(self)
        self._stores: dict[int, threading.local] = {}
        """Each thread's index, by process: one that a fork has copied must be neither used nor closed (sqlite.org)."""

    def __repr__(self) -> str:
        return f"Project({str(self.folder)!r})"

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the index and all connections; both are opened again when they are used again. What another thread
        reads from the index at that moment it reads to its end.
        """
        self._stores.pop(os.getpid(), None)  # closes each that nobody uses; sqlite crashes where one is closed in use
        _OPEN.discard(self)
        connections = sys.modules.get(f"{__package__}.connections")  # not loaded, there is none to close
        if connections is not None and all(other.folder != self.folder for other in list(_OPEN)):
            connections.close_all(self.folder)

    @property
    def store(self) -> Store:
        """The index of runs, opened for this thread."""
        _OPEN.add(self)
        own = self._stores.setdefault(os.getpid(), threading.local())
        if not hasattr(own, "store"):
            own.store = Store()
        found: Store = own.store
        return found

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

    def _study(self, study: Study | str | None) -> Study:
        return self.study(study) if study is None or isinstance(study, str) else study

    def _target(self, target: Target | str) -> Target:
        return self.target(target) if isinstance(target, str) else target

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
        blocks: Sequence[str] = (),
        seeds: Iterable[int] = (),
        tag: str = "",
        settings: Mapping[str, str | Sequence[str]] | None = None,
        mode: Mode | str = "sequential",
        stop_on_failure: bool = False,
        offline: bool = False,
        sending: Progress | None = None,
    ) -> Plan:
        """Resolve a study into runs, and see that their comparison is fair.

        Args:
            groups: Only these.
            blocks: Only these.
            seeds: Instead of the study's own; each counts once.
            tag: Names the runs apart from the study's own.
            settings: Train keys for these runs; they need a tag. Lists of values are swept, and name their runs.
            mode: ``Mode.SEQUENTIAL`` (each run waits for the one before it) or ``Mode.PARALLEL``.
            stop_on_failure: A failed run cancels the ones behind it.
            offline: Ask the target nothing; such a plan is to be looked at, not submitted.
            sending: Data that the target lacks are sent there once the comparison is seen to be fair, and it is told
                of that.

        Raises:
            UsageError: A group, a block or a setting does not exist, or a seed is out of range.
            UnfairError: The groups would differ in more than the study declares.
            PreflightError: The target lacks the study's data.
            TargetError: It can't be reached.
        """
        from .checks import preflight
        from .connections import connect, unreached
        from .runs.locations import where_they_lie
        from .study import lineage
        from .study.files import load_study
        from .study.plan import Mode, make_plan
        from .study.resolve import asked

        chosen, place, how = self._study(study), self._target(target), Mode(mode)
        numbers = tuple(dict.fromkeys(map(index, seeds)))
        # Before a target is asked.
        changed = asked(chosen, groups=groups, blocks=blocks, seeds=numbers, tag=tag, overrides=settings)

        others = lineage.others(self.folder, changed, load_study)
        submitted = {(run.study, run.name): run.fingerprint for run in self.runs()} if others else {}

        def resolved(there: Target, data_hash: DataHash = "") -> Plan:
            return make_plan(
                self.folder, chosen, there, groups=groups, blocks=blocks, seeds=numbers, tag=tag, overrides=settings,
                mode=how, stop_on_failure=stop_on_failure, data_hash=data_hash, others=others, known_runs=submitted,
            )  # fmt: skip

        if offline:
            plan = where_they_lie(resolved(unreached(place, self.folder)), self.runs(), self.say)
            return replace(plan, place=place)
        if sending is not None:
            resolved(unreached(place, self.folder))  # what would be refused sends nothing
            self.send_data(place, changed, progress=sending)
        connection = connect(place, self.folder)
        data_hash = preflight.data_hash(connection, self.folder, changed)
        return replace(resolved(connection.resolved, data_hash), place=place)

    def plan_command(
        self,
        command: Sequence[str],
        target: Target | str = "local",
        *,
        settings: Mapping[str, Sequence[str]] | None = None,
        gpus: int = 1,
        num_seeds: int = 1,
        data: Sequence[str] = (),
        save: str = "",
        tag: str = "",
        mode: Mode | str = "parallel",
        offline: bool = False,
        sending: Progress | None = None,
    ) -> Plan:
        """Resolve a command into runs, one for each combination of values and each seed.

        Its study is kept in ``.oelm/studies``, where other methods and commands find it; with values that are new, or
        more seeds, the same command adds to it.

        Args:
            command: Words; ``{lr}`` is the value of setting ``lr``, ``{seed}`` the seed.
            settings: The values of each setting, as text.
            num_seeds: How many runs each combination has.
            data: Files and folders that the program reads, as it calls them.
            save: Name of a file in ``jobs/`` to keep the study in.
            tag, mode, sending: As for ``plan``.
            offline: As for ``plan``; nothing is written.

        Raises:
            UsageError: Command and settings don't go together.
            ConfigurationError: They make no study, or its file can't be written.
            Others: As for ``plan``.
        """
        from .study import implicit

        made = implicit.make(self.folder, command, settings or {}, gpus=gpus, num_seeds=num_seeds, data=data, save=save)
        planned = self.plan(
            made.study, target, groups=made.groups, seeds=made.seeds, tag=tag, mode=mode, offline=offline,
            sending=sending,
        )  # fmt: skip
        if not offline:
            implicit.keep(made)
            if not save and not planned.target.share:
                implicit.out_of_git(self.folder, made.study.name)
        return planned

    def choose(self, study: Study | str | None = None) -> Confirmation:
        """Return what the trials of a study that tunes choose for each group, or what was chosen before, which stays;
        writes nothing. ``plan`` takes its ``study``, ``seeds`` and ``tag``.

        Raises:
            UsageError: The study tunes nothing, a trial isn't over, or a group has no result.
        """
        from .confirming import choose

        return choose(self.folder, self._study(study), self.say)

    def record(self, confirmation: Confirmation) -> None:
        """Lock the study, where it isn't, and make a choice for good: before the first run that confirms it.

        Raises:
            UsageError: Another choice was recorded meanwhile, or the lock was edited.
            ConfigurationError: The study isn't as it was locked.
        """
        from .confirming import record

        record(self.folder, confirmation, self.say)

    def ran_before(self, plan: Plan) -> list[StoredRun]:
        """Return runs of studies that have no file any more which a plan would run anew: its study's file may only have
        been renamed. Its key ``name`` says what it is called; nothing is guessed.
        """
        from .runs import renamed

        return renamed.ran_before(plan, self.runs())

    def submit(self, plan: Plan, again: Again | str = "resume", *, why: str = "") -> list[Submitted]:
        """Submit a plan's runs, each at most once; return what became of each.

        Runs that are under way or done are left alone; cancelled, failed and lost ones go on from their last
        checkpoint. A host that is in no targets file is written into one, so that its runs are found again.

        Args:
            again: What happens to runs that are over: ``Again.RESUME``, ``RERUN`` or ``EXTEND``.
            why: Why they start over, for the study's ledger, which keeps a line of what each was.

        Raises:
            UsageError: The plan was made without asking the target.
            PreflightError: The target can't run it; nothing was queued.
            ConfigurationError: A run directory holds another configuration.
            UnknownAnswer: The launch may or may not have arrived; ``refresh`` finds out.
        """
        from .connections import connect
        from .submit import submission
        from .submit.decide import Again

        how = Again(again)
        if not plan.data_hash:
            raise UsageError(_("a plan that was made offline can't be submitted"))
        place = self._place(plan)
        if place.host and (path := self.remember(place)):
            self.say(_("target {target} is remembered in {path}", place.name, str(path)))
        return submission.submit(plan, connect(place, self.folder), self.store, how, self.say, why)

    def preview(self, plan: Plan) -> list[PlannedRun]:
        """Return what a plan's runs would do: their commands, and how long they should take where that is known."""
        from .submit.preview import preview

        return preview(plan, self.runs())

    def scripts(self, plan: Plan) -> list[str]:
        """Return the launch scripts of a plan as they would be sent."""
        from .code import snapshot
        from .connections import connect
        from .scripts.jobs import Scripts
        from .submit.submission import lock_of

        code = snapshot.take(self.folder, is_script=plan.study.program is not None)
        connection = connect(self._place(plan), self.folder)
        made = Scripts(plan=plan, connection=connection, snapshot=code, is_sent=False, lock=lock_of(plan, connection))
        return [job.script for job in made.render(plan.runs)]

    def _place(self, plan: Plan) -> Target:
        return plan.place or self.target(plan.target.name)

    # Where runs stand -------------------------------------------------------------------------------------------------

    @property
    def is_empty(self) -> bool:
        """Whether nothing was submitted from here, as far as the index knows."""
        return not index_path().exists() or not self.store.knows(self.folder)

    def runs(self, *names: Named, study: Study | str | None = None) -> list[StoredRun]:
        """Return runs as they were last seen, without asking anybody; all of the project's without names.

        Raises:
            UsageError: A name or the study names nothing that was submitted.
        """
        if not names and study is None and not index_path().exists():
            return []
        return select(self.store, self.folder, names, study)

    def run(self, name: Named, study: Study | str | None = None) -> StoredRun:
        """Return the one run of a name, as it was last seen.

        Raises:
            UsageError: It names none, or several.
        """
        return select_one(self.store, self.folder, name, study)

    def select(
        self,
        *names: Named,
        study: Study | str | None = None,
        seeds: Iterable[int | range] = (),
        tags: Iterable[str] = (),
        states: Iterable[State | str] = (),
        earlier: bool = False,
    ) -> Selection:
        """Return those of the runs that names mean which have one of some seeds and tags and are in one of some states;
        other methods take it for a name. For states the targets are asked.

        Args:
            tags: Or patterns of them.
            earlier: Also those that only ``fetch`` still takes: of locked studies what was started over or forgotten.

        Raises:
            UsageError: A name, a seed or a tag is none that was submitted.
        """
        from .runs.selection import Only, Selection

        only = Only(
            seeds=[seed if isinstance(seed, range) else range(seed, seed + 1) for seed in seeds],
            tags=list(tags),
            states=[State(state) for state in states],
        )

        def named(*names: Named) -> tuple[Sequence[StoredRun], Sequence[StoredRun]]:
            return self._with_earlier(names, study) if earlier else (self.runs(*names, study=study), ())

        everything = named()
        found, before = named(*names) if names else everything
        if only.states:
            found = refresh(self.store, self.folder, found, scope=Scope.STOPPED).runs
        return Selection(runs=only.of(_once(*found, *before)), out_of=len(_once(*everything[0], *everything[1])))

    def refresh(self, *names: Named, study: Study | str | None = None, hosts: bool = False) -> View:
        """Ask the targets where runs stand, once each and side by side.

        A target that can't be asked changes no state; the view says which.

        Args:
            hosts: Ask the targets about their devices, queues and disks, too.
        """
        runs = self.runs(*names, study=study)
        asked = {run.target for run in runs} if hosts else ()
        return refresh(self.store, self.folder, runs, scope=Scope.STOPPED if names else Scope.MOVING, hosts=asked)

    def watch(self, *names: Named, study: Study | str | None = None, hosts: bool = False) -> Iterator[View]:
        """Yield where runs stand every two seconds, for ever; runs that are submitted meanwhile appear."""
        from .runs.watch import views

        return views(lambda: self.refresh(*names, study=study, hosts=hosts))

    def wait(
        self,
        *names: Named,
        study: Study | str | None = None,
        timeout_s: float = math.inf,
        show: Callable[[View], None] | None = None,
    ) -> View:
        """Wait until runs are over, or have long been unknown to their targets; return where they stand then.

        Args:
            timeout_s: Return after so many seconds all the same.
            show: Is given every look.
        """
        from .runs.watch import until_over, views

        looks = views(lambda: refresh(self.store, self.folder, self.runs(*names, study=study)))
        return until_over(looks, timeout_s, show)

    def logs(self, run: Named, *, lines: int = 50, study: Study | str | None = None, supervisor: bool = False) -> str:
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
        study: Study | str | None = None,
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

        chosen = self.run(run, study)
        if chosen.misnamed is not None:
            raise chosen.misnamed
        name = f"{rundir.CONTROL}/{rundir.SUPERVISOR_LOG}" if supervisor else rundir.LOG
        return pieces(self.store, self.folder, chosen, name, lines=lines, follow=until_over, say=self.say)

    def cancel(
        self,
        *names: Named,
        study: Study | str | None = None,
        everything: bool = False,
        confirm: Callable[[Sequence[StoredRun]], None] = lambda runs: None,
    ) -> Outcome[Cancelled]:
        """End runs with all their processes; they write a checkpoint first. Those that are over are left as they are.

        Args:
            everything: All runs of the project, where none are named.
            confirm: Is given the runs that would be ended; what it raises keeps them alive.
        """
        from .runs import control

        _need_names(names, study, everything)
        runs, misread = understood(self.runs(*names, study=study), whole=False)
        view = refresh(self.store, self.folder, runs, scope=Scope.STOPPED if names else Scope.MOVING, anew=True)
        return replace(control.cancel_all(self.store, view, self.folder, confirm), misread=misread)

    def forget(
        self,
        *names: Named,
        study: Study | str | None = None,
        everything: bool = False,
        why: str = "",
        delete: bool = False,
        confirm: Callable[[Sequence[StoredRun]], None] = lambda runs: None,
    ) -> Outcome[Forgotten]:
        """Take runs that are over out of the index, reports and later submissions; the study's ledger keeps a line of
        each. What they made is moved to ``.archive``, on their targets and here.

        Args:
            everything: All runs of the project, where none are named.
            why: For the ledger.
            delete: Remove what they made from their targets, instead.
            confirm: Is given the runs that would be forgotten; what it raises keeps them.

        Raises:
            UsageError: One isn't over, or what may decide would be removed; nothing was done.
            TargetError: Whether one is over can't be found out, or its files can't be removed; nothing was done.
        """
        from .runs import forget

        _need_names(names, study, everything)
        runs, misread = understood(self.runs(*names, study=study))
        view = refresh(self.store, self.folder, runs, scope=Scope.ALL, anew=True)
        done = forget.forget(
            self.store, self.folder, view, why=why, delete=delete, confirm=confirm, say=self.say
        )  # fmt: skip
        return replace(done, misread=misread)

    # Results ----------------------------------------------------------------------------------------------------------

    def fetch(
        self,
        *names: Named,
        study: Study | str | None = None,
        checkpoints: Checkpoints | str = "best",
        verify: bool = False,
        progress: Progress | None = None,
    ) -> Brought:
        """Bring runs home and verify every file; only what is new is transferred. Of a locked study the records of what
        was started over or forgotten come along.

        Args:
            checkpoints: Which come along: ``Checkpoints.NONE``, ``BEST``, ``LATEST`` or ``ALL``.
            verify: Hash what is here already anew, too.
            progress: Is told what arrives.

        Raises:
            LocalError: The disk here is full, or can't be written.
        """
        from .connections import connect_for_transfer

        which = Checkpoints(checkpoints)
        known_here, before_them = self._with_earlier(names, study)
        runs, misread = understood(known_here)
        targets = self.targets()
        for name in dict.fromkeys(run.target for run in runs):
            if name in targets and targets[name].host:
                connect_for_transfer(targets[name], self.folder)  # logs in while the rest is imported
        from .outcome import each_target
        from .transfer import earlier
        from .transfer.fetch import Untold, fetch

        # What is elsewhere says where it stands when it is asked what it holds: one round trip, not two.
        remote = {name for name, target in targets.items() if target.host and target.slurm is None}
        known = iter(refresh(self.store, self.folder, [run for run in runs if run.target not in remote]).runs)
        runs = [run if run.target in remote else next(known) for run in runs]
        done: list[Fetched] = []
        told = progress or Untold(self.say)

        def bring(target: str) -> None:
            theirs = [run for run in runs if run.target == target]
            done.extend(fetch(self.folder, theirs, told, checkpoints=which, again=verify))

        errors = each_target((run.target for run in runs), bring)
        order = {(run.study, run.name): number for number, run in enumerate(runs)}
        done.sort(key=lambda one: order[one.run.study, one.run.name])
        meant = {(run.study, run.name) for run in (*known_here, *before_them)}
        before = [
            entry
            for entry in earlier.lacking(self.folder, {name for name, _run in meant}, self._current(), again=verify)
            if (entry.study, entry.run) in meant
        ]
        brought = [
            one
            for target in dict.fromkeys(entry.target for entry in before)
            if target not in errors
            for one in earlier.bring(
                self.folder, target, [entry for entry in before if entry.target == target], told, again=verify
            )
        ]
        return earlier.Brought(done=tuple(done), unreachable=errors, misread=misread, earlier=tuple(brought))

    def _with_earlier(
        self, names: Sequence[Named], study: Study | str | None
    ) -> tuple[list[StoredRun], list[StoredRun]]:
        """Return the runs of names that the index knows, and those that only the ledgers of locked studies know.

        Raises:
            UsageError: A name or the study names none of either.
        """
        from .transfer import earlier

        before = [earlier.run_of(self.folder, entry) for entry in earlier.kept(self.folder, None, self._current())]
        if not before:
            return self.runs(*names, study=study), []
        gone = {(run.study, run.name, run.token) for run in before}
        found = select(self.store, self.folder, names, study, before)
        return (
            [run for run in found if (run.study, run.name, run.token) not in gone],
            [run for run in found if (run.study, run.name, run.token) in gone],
        )

    def _current(self) -> set[tuple[str, str, str]]:
        """Return study, name and token of each run that the index knows."""
        return {(run.study, run.name, run.token) for run in self.store.runs(self.folder)}

    def wandb_sync(self, fetched: Iterable[Fetched]) -> list[str]:
        """Return the argv of W&B's own command that sends what runs which are over have kept for it while they were
        offline; empty where there is nothing.

        Raises:
            LocalError: It is not installed here.
        """
        from .transfer.trackers import wandb_sync

        return wandb_sync(one.run_dir for one in fetched if one.state.is_final)

    def to_mlflow(self, fetched: Iterable[Fetched]) -> str:
        """Export fetched runs to MLflow, those that were exported before as far as they have come since; return the URI
        of where they are, which is the user's MLFLOW_TRACKING_URI or MLflow's own default.

        Raises:
            LocalError: MLflow is not installed here, or does not take them.
        """
        from .exporting import to_mlflow

        return to_mlflow(one.run_dir for one in fetched if one.run_dir.is_dir())

    def send_data(
        self,
        target: Target | str,
        study: Study | str | None = None,
        *,
        settings: Mapping[str, str] | None = None,
        progress: Progress | None = None,
    ) -> list[str]:
        """Send a study's data to a target where it lacks them; return the paths there of what was sent.

        Raises:
            PreflightError: The project lacks them, they won't do, or the target holds others under their names.
            TargetError: The target can't be reached; what has arrived is gone on with next time.
        """
        from .study.resolve import with_settings
        from .transfer.fetch import Untold
        from .transfer.send import send_data

        trained = with_settings(self._study(study), settings or {})
        return send_data(self.folder, self._target(target), trained, progress or Untold(self.say))

    def clean(
        self,
        *names: Named,
        study: Study | str | None = None,
        everything: bool = False,
        confirm: Callable[[Sequence[Removable], Sequence[Unused]], bool] = lambda files, code: True,
    ) -> Cleaned:
        """Remove from targets checkpoints whose copy here is verified once more, and code and copies of inputs that
        nobody needs any more.

        Args:
            everything: All runs of the project, where none are named.
            confirm: Is given what would go and why the rest stays, by run and by target; nothing goes unless it
                returns True.
        """
        from .transfer import clean

        _need_names(names, study, everything)
        runs, misread = understood(self.refresh(*names, study=study).runs)
        return replace(clean.clean(self.folder, self.store, runs, confirm), misread=misread)

    def report(
        self,
        study: Study | str | None = None,
        *,
        only: Sequence[str] = (),
        folders: Sequence[Path | str] = (),
        mapping: Sequence[str] = (),
        columns: Sequence[str] = (),
        goals: Mapping[str, str] | None = None,
        output: Path | str | None = None,
        target_loss: float | None = None,
    ) -> StudyReport:
        """Compare the groups of a study: audit, verdicts on its hypotheses, tables; see ``reporting.report_on``."""
        from .reporting import report_on

        return report_on(
            self.folder, study, only=only, folders=folders, mapping=mapping, columns=columns, goals=goals,
            output=output, target_loss=target_loss, warn=self.say,
        )  # fmt: skip

    def bundle(
        self,
        path: Path | str,
        study: Study | str | None = None,
        *,
        anonymous: bool = False,
        target_loss: float | None = None,
        language: str = "en",
    ) -> Made:
        """Pack all that a study's verdicts rest on; see ``bundling.make``."""
        from .bundling import make

        return make(
            self.folder, study, Path(path), is_anonymous=anonymous, target_loss=target_loss, language=language,
            warn=self.say,
        )  # fmt: skip

    def lock(self, study: Study | str | None = None) -> Path:
        """Record a study's rules before training, so that a report lists later changes; return the file.

        Raises:
            UsageError: It was locked before and has not changed, or its lock file was edited.
        """
        from .locking import lock_rules

        return lock_rules(self.folder, study, self.say)

    def export_lock(self, folder: Path | str, study: Study | str | None = None) -> list[Path]:
        """Write a study's lock, which is made where there is none, as plain files for an archive; return them.

        Raises:
            UsageError: The folder holds something, or the lock file was edited.
            ConfigurationError: The study isn't as it was locked.
        """
        from .locking import export

        return export(self.folder, study, Path(folder), self.say)

    def ensure_locked(self, study: Study | str | None = None) -> str:
        """Lock a study's rules where they aren't; return the hash of the lock.

        Raises:
            UsageError: The lock file was edited.
            ConfigurationError: The study isn't as it was locked.
        """
        from .locking import ensure_locked

        return ensure_locked(self.folder, study, self.say)

    # The index and the targets ----------------------------------------------------------------------------------------

    def left_behind(self, runs: Iterable[StoredRun]) -> list[tuple[StoredRun, Left]]:
        """Return what runs that started over on another target have left behind."""
        if not (moved := that_left(runs)):
            return []
        from .runs.moving import left_by

        return left_by(self.folder, moved)

    def survey(self) -> Survey:
        """Ask the targets which runs of which project lie there and where they stand."""
        from .runs import rebuild

        return rebuild.survey(self.store, self.folder, list(self.targets().values()))

    def rebuild(self) -> Survey:
        """Make the index of the project's runs again from their run directories; return what lies on the targets.

        An index that can't be read is kept under another name.
        """
        from .runs import rebuild
        from .store import set_aside

        if aside := set_aside():
            self.say(_("the index of runs was damaged; it is kept as {path}", str(aside)))
            self._stores.pop(os.getpid(), None)  # what is open is the file that was renamed
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

    def token_files(self, folder: Path) -> list[tuple[str, Study]]:
        """Return the names of the token files in a folder, each with a study of the project that trains on it."""
        from .connections import connect
        from .study import blocks
        from .study.files import read_studies
        from .study.resolve import token_files
        from .targets.files import LOCAL

        own = connect(LOCAL, self.folder).resolved
        return [
            (path.name, within)
            for study in read_studies(self.folder, self.say)
            for within in blocks.each(study).values()
            for path in map(Path, token_files(own, within))
            if path.parent.resolve() == folder.resolve()
        ]

    def shell(self, target: str = "local") -> list[str]:
        """Return the argv of a command that opens a shell on a target, as its runs have it."""
        from .runs import terminal

        return terminal.shell(self.folder, self.target(target))

    def tensorboard(
        self, target: str = "local", study: Study | str | None = None, port: int = 6006
    ) -> tuple[list[str], list[str], int]:
        """Lead a port of this machine to a target, for TensorBoard.

        Args:
            port: Taken if it is free.

        Returns:
            The argv of a command that shows the runs, of one that ends the forwarding afterwards (empty where nothing
            has to be ended), and the port.
        """
        from .runs import terminal

        folder = terminal.study_folder(self._study(study), target, self.runs()) if study is not None else ""
        return terminal.tensorboard(self.folder, self.target(target), folder, port)

    def examine(self, target: str = "local", *, notify: bool = False) -> list[Finding]:
        """Check that a target can run the project's studies: Python, torch, devices, leases, disk, data, ports.

        Args:
            notify: Send a test of the notifications.
        """
        from .checks import doctor

        return doctor.examine(self.folder, self.target(target), notify=notify)


def _once(*runs: StoredRun) -> list[StoredRun]:
    """Return runs without those whose name one before has."""
    found: dict[tuple[str, str], StoredRun] = {}
    for run in runs:
        found.setdefault((run.study, run.name), run)
    return list(found.values())


def _need_names(names: Sequence[Named], study: Study | str | None, everything: bool) -> None:
    if not names and study is None and not everything:
        raise UsageError(_("name a study, a group or a run"), hint=_("or give --all; oelm-status lists them"))

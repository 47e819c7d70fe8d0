"""Tuning: what effort each group had, which combination its trials choose, and whether what confirms it is that one.

A trial is a run of one combination of the sweep with one of the study's seeds. All groups have the same ones; a trial
that failed counts as tried. What else was run of a group, with other values or seeds, is more effort than the others
had, and is named.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from oelm_jobs.agent.sentences import Sentence, _, joined
from oelm_jobs.agent.states import State
from oelm_jobs.errors import few
from oelm_jobs.ledger import Entry
from oelm_jobs.names import CONFIRM
from oelm_jobs.spec.study import Hypothesis, Study
from oelm_jobs.study.resolve import run_name
from oelm_jobs.study.tuning import Candidate, candidates

from . import sweeps
from .audit import configurations
from .audit.choice import Choice, Chosen, Considered
from .findings import DECLARED, AuditFinding, warning
from .judging.evidence import COUNT_METRICS, LOSS_METRICS
from .judging.verdicts import Circumstances
from .reading.loaded_run import LoadedRun
from .sweeps import Combination
from .told import Goals

DONE, FAILED, GOING, MISSING, UNKNOWN = "done", "failed", "going", "missing", "unknown"
"""States of a trial: with a result, over without one, under way, not run to its end, and not known here."""
OVER = (DONE, FAILED)
KEY = "tuning"
"""Of what is found of it."""
CLOCKS_S = 60.0
"""Clocks of two machines may differ by so much."""
_STATES = {State.QUEUED: GOING, State.RUNNING: GOING, State.FAILED: FAILED, State.CANCELLED: MISSING}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A combination of values that is tried with a seed, and how that went."""

    candidate: Candidate
    """The combination."""
    name: str
    """What its run is called."""
    state: str
    """DONE, FAILED, GOING, MISSING or UNKNOWN."""
    run: LoadedRun | None = None
    """None where it was never run."""
    result: float | None = None
    """What is chosen by."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """What was done to tune a group."""

    group: str
    trials: tuple[Trial, ...]
    """Those that the study plans."""
    extra: tuple[LoadedRun, ...]
    """Further runs of it, with other values or seeds."""
    thrown_away: tuple[Entry, ...] = ()
    """What the ledger says of runs of it that were forgotten or started over."""

    def of(self, *states: str) -> list[Trial]:
        """Return its trials in some states."""
        return [trial for trial in self.trials if trial.state in states]

    @property
    def runs(self) -> list[LoadedRun]:
        """All that was run."""
        return [*(trial.run for trial in self.trials if trial.run is not None), *self.extra]

    @property
    def steps(self) -> int | None:
        """Steps that the trials which are over were planned with, or came to, in all; None where nothing tells any."""
        runs = [trial.run for trial in self.of(*OVER) if trial.run is not None]
        known = [steps for run in runs if (steps := run.max_steps or run.last_step) is not None]
        return sum(known) if known else None

    @property
    def gpu_hours(self) -> float | None:
        """Of all that was run, thrown away or not; None where nothing tells any."""
        told = [*(run.gpu_hours for run in self.runs), *(entry.gpu_hours for entry in self.thrown_away)]
        known = [hours for hours in told if hours is not None]
        return math.fsum(known) if known else None

    @property
    def combinations(self) -> list[Combination]:
        """What its trials gave, in the order in which they run."""
        found: dict[str, list[Trial]] = {}
        for trial in self.trials:
            found.setdefault(trial.candidate.tag, []).append(trial)
        return [
            Combination(
                group=self.group,
                tag=tag,
                values=members[0].candidate.values,
                results=tuple(trial.result for trial in members if trial.result is not None),
                failed=sum(trial.result is None for trial in members),
            )
            for tag, members in found.items()
        ]


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How a study was tuned, and what confirms it."""

    efforts: tuple[Effort, ...]
    """By group, in the study's order."""
    best: Mapping[str, Combination]
    """What the trials choose today, by group; those without a result are not there."""
    choice: Choice | None
    """What was chosen when the first run was to confirm it; None where nothing was."""
    confirming: Mapping[str, tuple[LoadedRun, ...]]
    """Runs that confirm what was chosen, by group."""
    strange: tuple[LoadedRun, ...]
    """Runs tagged as confirming ones that have other values than were chosen."""
    findings: tuple[AuditFinding, ...]
    """What makes the tuning less than it should be."""

    def alarms(self, *groups: str) -> tuple[Sentence, ...]:
        """Return what a verdict on these groups must not be read without."""
        return tuple(found.text for found in self.findings if found.concerns(*groups))


def efforts(study: Study, runs: Sequence[LoadedRun], goals: Goals | None, ledger: Sequence[Entry] = ()) -> list[Effort]:
    """Return what was done to tune each group of a study that tunes."""
    tried, keys = candidates(study), [*(study.sweep.parameters if study.sweep else ())]
    by_place = {(run.group, run.tag, run.seed): run for run in reversed(runs)}
    found = []
    for group in study.groups:
        trials = []
        for candidate in tried:
            for seed in study.seeds:
                run = by_place.get((group, candidate.tag, seed))
                if run is not None and sweeps.values_of(run, keys) not in (None, candidate.values):
                    run = None  # its record says that it is another one
                name = run_name(study, group, seed, candidate.tag)
                trials.append(_trial(candidate, name, run, goals))
        known = {id(trial.run) for trial in trials}
        extra = [run for run in runs if run.group == group and run.tag != CONFIRM and id(run) not in known]
        gone = tuple(entry for entry in ledger if entry.group == group and entry.tag != CONFIRM)
        found.append(Effort(group=group, trials=tuple(trials), extra=tuple(extra), thrown_away=gone))
    return found


def _trial(candidate: Candidate, name: str, run: LoadedRun | None, goals: Goals | None) -> Trial:
    if run is None:
        return Trial(candidate=candidate, name=name, state=MISSING)
    is_over = run.finished or run.diverged or run.source == "log"
    result = sweeps.result_of(run, goals) if is_over else None
    state = _STATES.get(State(run.status), UNKNOWN) if run.status in [*State] else UNKNOWN
    if is_over:
        state = DONE if result is not None and math.isfinite(result) else FAILED
    return Trial(candidate=candidate, name=name, state=state, run=run, result=result)


def chosen(found: Sequence[Effort], goals: Goals | None) -> dict[str, Combination]:
    """Return the combination that is best for each group; of equal ones the first in the order of the sweep. Groups
    of which none has a finite result are not there.
    """
    best = sweeps.best([one for effort in found for one in effort.combinations], goals)
    return {group: one for group, one in best.items() if math.isfinite(one.mean)}


def recorded(found: Sequence[Effort], best: Mapping[str, Combination]) -> dict[str, Chosen]:
    """Return what a record says of a choice, by group."""
    return {
        effort.group: Chosen(
            values=dict(best[effort.group].values), tag=best[effort.group].tag,
            trials=tuple(map(considered, effort.trials)),
        )
        for effort in found if effort.group in best
    }  # fmt: skip


def considered(trial: Trial) -> Considered:
    """Return what a record says of a trial."""
    result = trial.result if trial.result is None or math.isfinite(trial.result) else str(trial.result)
    return Considered(
        run=trial.name, state=trial.state, result=result, fingerprint=trial.run.fingerprint if trial.run else ""
    )


def with_remarks(
    around: Circumstances, h: Hypothesis, study: Study, tuned: Tuning, goals: Goals | None
) -> Circumstances:
    """Return the circumstances of a hypothesis with what is to be said in its line of the tuning."""
    if h.metric in COUNT_METRICS and not h.is_told:
        return around
    metric, _goal = selection_metric(study, goals)
    is_same = h.metric == metric if h.is_told else h.metric in LOSS_METRICS
    note = _("selected and judged on the same validation data")
    notes = (*around.notes, note) if is_same else around.notes
    return replace(around, alarms=(*around.alarms, *tuned.alarms(h.group, h.against)), notes=notes)


def declared(study: Study) -> list[AuditFinding]:
    """Return what is said of settings that a study calls tuned without having tuned them."""
    if not study.tuned or study.is_tuning:
        return []
    said = _("{keys}: tuned with equal budgets, as the study says; not shown, since no [sweep] tried them", study.tuned)
    return [AuditFinding(severity=DECLARED, text=said, key=KEY)]


def selection_metric(study: Study, goals: Goals | None) -> tuple[str, str]:
    """Return the metric that settings are chosen by, and its goal."""
    if study.program is None:
        return "final_val_loss", "minimize"
    return next(iter((goals or study.program.metrics.goal).items()), ("", ""))


def look(
    study: Study, runs: Sequence[LoadedRun], goals: Goals | None, choice: Choice | None, ledger: Sequence[Entry] = ()
) -> Tuning:
    """Return how a study was tuned; ``ledger`` has the runs of it that were thrown away."""
    found = efforts(study, runs, goals, ledger)
    best = chosen(found, goals)
    wanted = {group: one.values for group, one in (choice.groups if choice is not None else best).items()}
    confirming: dict[str, list[LoadedRun]] = {group: [] for group in study.groups}
    strange: list[LoadedRun] = []
    for run in runs:
        if run.tag != CONFIRM or run.group not in study.groups:
            continue
        values = sweeps.values_of(run, [*wanted.get(run.group, ())])
        is_chosen = run.group in wanted and values in (None, wanted[run.group])
        (confirming[run.group] if is_chosen else strange).append(run)
    tuned = Tuning(
        efforts=tuple(found),
        best=best,
        choice=choice,
        confirming={group: tuple(members) for group, members in confirming.items()},
        strange=tuple(strange),
        findings=(),
    )
    said = [*_unequal(study, found), *_unlike(study, found), *_reused(study, runs, found), *_confirmed(tuned)]
    said += _confirmed_otherwise(study, tuned)
    said += [*_changed(study, choice, found, best)] if choice is not None else []
    return replace(tuned, findings=tuple(said))


# Findings -------------------------------------------------------------------------------------------------------------


def _warning(said: Sentence, *groups: str) -> AuditFinding:
    return warning(said, *groups, key=KEY)


def _unequal(study: Study, found: Sequence[Effort]) -> list[AuditFinding]:
    """Return in what the effort for the groups was not the same."""
    said = []
    for effort in found:
        if effort.extra:
            runs = few([run.name for run in effort.extra])
            said.append(_("{group} was tried with more than the sweep: {runs}", effort.group, runs))
    thrown = {effort.group: len(effort.thrown_away) for effort in found}
    if len(set(thrown.values())) > 1:
        runs = few([entry.run for effort in found for entry in effort.thrown_away])
        each_of = [f"{name} {count}" for name, count in thrown.items()]
        said.append(_("runs that were tried and thrown away: {counts} ({runs})", each_of, runs))
    counts = {effort.group: len(effort.of(*OVER)) for effort in found}
    if len(set(counts.values())) > 1 and not any(effort.of(GOING) for effort in found):
        said.append(_("trials that are over: {counts}", [f"{name} {count}" for name, count in counts.items()]))
    for effort in found:
        if (missing := effort.of(MISSING, UNKNOWN)) and len(missing) < len(effort.trials):
            said.append(_("{group} lacks trials: {runs}", effort.group, few([trial.name for trial in missing])))
    each = {effort.group: _steps_of_one(effort) for effort in found if effort.of(*OVER)}
    if len({steps for steps in each.values() if steps}) > 1:
        said.append(_("steps of a trial: {counts}", [f"{name} {steps}" for name, steps in each.items()]))
    if not said:
        return []
    return [_warning(_("UNEQUAL TUNING: the groups did not have the same budget: {what}", joined(said)), *study.groups)]


def _steps_of_one(effort: Effort) -> str:
    runs = [trial.run for trial in effort.of(*OVER) if trial.run is not None]
    steps = sorted({run.max_steps or run.last_step or 0 for run in runs} - {0})
    return "–".join(f"{count:,}" for count in dict.fromkeys([*steps[:1], *steps[-1:]]))


def _unlike(study: Study, found: Sequence[Effort]) -> list[AuditFinding]:
    """Return what trials differ in besides the factors and what is tuned."""
    runs = [trial.run for effort in found for trial in effort.trials if trial.run is not None]
    keys = [d.key for d in configurations.differences(runs, study) if d.is_unfair and d.key != "max_steps"]
    return [_warning(_("the trials differ in {keys}, which the study does not declare", keys))] if keys else []


def _reused(study: Study, runs: Sequence[LoadedRun], found: Sequence[Effort]) -> list[AuditFinding]:
    """Return which seeds confirm and had a part in the choice, whether the runs were thrown away or not."""
    tried = {run.name: run.seed for run in runs if run.tag != CONFIRM and run.group in study.groups}
    tried |= {entry.run: entry.seed for effort in found for entry in effort.thrown_away}
    used = {name: seed for name, seed in tried.items() if seed is not None and seed in study.confirm_seeds}
    if not used:
        return []
    seeds = [str(seed) for seed in sorted(set(used.values()))]
    names = few([*used])
    return [_warning(_("seeds {seeds} are to confirm the choice, and were tried with before: {runs}", seeds, names))]


def _confirmed(tuned: Tuning) -> list[AuditFinding]:
    said = [
        _warning(
            _("{run} confirms nothing, since its values are not those that were chosen: left out", run.name), run.group
        )
        for run in tuned.strange
    ]
    everyone = [run for members in tuned.confirming.values() for run in members]
    made_at = tuned.choice.chosen_at - CLOCKS_S if tuned.choice is not None else 0.0
    if early := [run.name for run in everyone if run.started_at is not None and run.started_at < made_at]:
        said.append(
            _warning(_("the choice on record was made after runs that confirm it had begun: {runs}", few(early)))
        )
    if tuned.choice is None and everyone:
        said.append(
            _warning(_("the choice has no record (oelm-submit --confirm makes it): it is that of the trials now"))
        )
    return said


def _confirmed_otherwise(study: Study, tuned: Tuning) -> list[AuditFinding]:
    """Return in what a group's confirming runs differ from its trials: these then chose for something else."""
    said = []
    for effort in tuned.efforts:
        runs = [trial.run for trial in effort.trials if trial.run is not None]
        known = {d.key for d in configurations.differences(runs, study)}
        confirming = [_on_what_chose(run) for run in tuned.confirming[effort.group]]
        both = configurations.differences([*runs, *confirming], study)
        if runs and (keys := [d.key for d in both if d.is_unfair and d.key not in known]):
            text = _(
                "{group}: the runs that confirm differ from its trials in {keys}: what was tuned is not what is judged",
                effort.group, keys,
            )  # fmt: skip
            said.append(_warning(text, effort.group))
    return said


def _on_what_chose(run: LoadedRun) -> LoadedRun:
    """Return a run without the test file, which no trial sees."""
    return replace(run, data={key: value for key, value in run.data.items() if key != "test_sha256"})


def _changed(
    study: Study, choice: Choice, found: Sequence[Effort], best: Mapping[str, Combination]
) -> list[AuditFinding]:
    """Return what is not as it was when the choice was made."""
    said = []
    now = recorded(found, best)
    for group, before in choice.groups.items():
        if group not in study.groups:
            continue
        trials = {trial.name: considered(trial) for effort in found if effort.group == group for trial in effort.trials}
        gone = [trial.run for trial in before.trials if trials.get(trial.run, _NONE).state not in OVER]
        other = [
            trial.run
            for trial in before.trials
            if trial.run not in gone and (trials[trial.run].result, trials[trial.run].fingerprint)
            != (trial.result, trial.fingerprint)
        ]  # fmt: skip
        new = [name for name in trials if name not in {trial.run for trial in before.trials}]
        for runs, what in (
            (
                gone,
                _("{group}: trials of the choice are not there any more: {runs}", group, few(gone)),
            ),
            (other, _("{group}: results of trials changed after the choice was made: {runs}", group, few(other))),
            (new, _("{group}: trials came after the choice was made: {runs}", group, few(new))),
        ):
            said += [_warning(what, group)] if runs else []
        if group in now and now[group].values != before.values:
            text = _(
                "{group}: its trials would choose {now} today; what was chosen on {date}, {before}, counts",
                group, shown(now[group].values), choice.chosen, shown(before.values),
            )  # fmt: skip
            said.append(_warning(text, group))
    if set(choice.seeds) != set(study.seeds):
        said.append(_warning(_("the choice was made by seeds {before}; now it is {now}", choice.seeds, study.seeds)))
    if added := [str(seed) for seed in study.confirm_seeds if seed not in choice.confirm_seeds]:
        said.append(_warning(_("seeds {seeds} to confirm the choice came after it was made", added)))
    return said


_NONE = Considered(run="", state=MISSING, result=None, fingerprint="")


def shown(values: Mapping[str, object]) -> str:
    """Return a combination of values as a reader has it."""
    return ", ".join(f"{key} = {sweeps.text_of(value)}" for key, value in values.items())

"""Build a report from loaded runs: groups, audit, verdicts and tables, before anything is put into words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from oelm_jobs.agent.sentences import Sentence, _
from oelm_jobs.ledger import Entry
from oelm_jobs.names import CONFIRM
from oelm_jobs.spec.study import Hypothesis, Study
from oelm_jobs.study import fairness
from oelm_jobs.study.tuning import as_judged

from . import effects, elsewhere, findings, lineage, repeated, summaries, sweeps, told, tuning, tuning_tables, variation
from .audit import arms, configurations, observations, treatment
from .audit.choice import Choice
from .audit.lock import Lock, deviations, rule_deviations
from .audit.locked import Account, account
from .audit.locks import Locks
from .elsewhere import Alike
from .findings import AuditFinding
from .judging import speed
from .judging.evidence import COUNT_METRICS, LOSS_METRICS, TEST_METRICS
from .judging.verdicts import Circumstances, Verdict, judge
from .reading import reference, replicates
from .reading.loaded_run import LoadedRun, on_cpus, told_apart
from .reading.trials import Trial
from .tables import Table


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that a report says, before it is put into words."""

    study: Study
    """What was asked."""
    groups: Mapping[str, tuple[LoadedRun, ...]]
    """Runs by group, in the study's order; groups without runs are there, empty; tagged runs are groups of their own
    at the end.
    """
    labels: Mapping[str, str]
    """What each group is called."""
    findings: tuple[AuditFinding, ...]
    """What the audit found, by severity."""
    verdicts: tuple[Verdict, ...]
    """In the order of the hypotheses."""
    tables: tuple[Table, ...]
    """In the order of printing."""
    differences: tuple[fairness.Difference, ...] = ()
    """Configuration keys that aren't the same for all runs."""
    deviations: tuple[Sentence, ...] = ()
    """What changed since the lock."""
    locked_at: float | None = None
    """Unix seconds of the lock; None without one."""
    locked: Account | None = None
    """What the lock shows; None where its history isn't known."""
    goals: Mapping[str, str] | None = None
    """Of scripts the metrics that it is about, the main one first, each with its direction: ``minimize``, ``maximize``
    or empty; None for runs of the built-in trainer, and old logs.
    """

    swept: tuple[sweeps.Combination, ...] = ()
    """What was run with several values of settings, on which no verdict rests."""
    lineage: tuple[lineage.Edge, ...] = ()
    """What its groups need of others."""
    deciding: Mapping[str, Sequence[LoadedRun]] = field(default_factory=dict)
    """The runs that verdicts rest on, by group."""
    around: Mapping[str, Circumstances] = field(default_factory=dict)
    """What limits each hypothesis beyond its numbers, by its id."""
    parts: Mapping[str, Report] = field(default_factory=dict)
    """Of a study with blocks the report of each by its name, with verdicts on it alone."""
    tuning: tuning.Tuning | None = None
    """How a study that tunes was tuned; its groups have the runs that confirm what was chosen. None for others."""

    @property
    def runs(self) -> tuple[LoadedRun, ...]:
        """All runs, group by group."""
        return tuple(run for members in self.groups.values() for run in members)

    @property
    def all_tables(self) -> tuple[Table, ...]:
        """The tables in the order of printing, effect sizes before them and what varied behind."""
        deciding = [part.deciding for part in self.parts.values()] or [self.deciding]
        compared = [run for groups in deciding for members in groups.values() for run in members]
        beside = effects.table(self.verdicts), variation.table(compared or self.runs)
        return tuple(table for table in (beside[0], *self.tables, beside[1]) if table is not None)

    @property
    def is_on_cpus(self) -> bool:
        """True where no run is known to have used a GPU, and one to have used none."""
        return on_cpus(self.runs)

    @property
    def is_interim(self) -> bool:
        """True where a group lacks finished runs."""
        return any(finding.key == "interim" for finding in self.findings)

    @property
    def limits(self) -> tuple[AuditFinding, ...]:
        """The findings but those on how files were read; what is the same of several runs is one."""
        return repeated.once([one for one in self.findings if one.severity != findings.NOTE], self.groups)

    @property
    def reading_notes(self) -> tuple[Sentence, ...]:
        """What was odd about the files; what is the same of several runs is one."""
        notes = [one for one in self.findings if one.severity == findings.NOTE]
        return tuple(one.text for one in repeated.once(notes, self.groups))


def build(
    study: Study,
    runs: Sequence[LoadedRun],
    *,
    trials: Sequence[Trial] = (),
    remarks: Sequence[Sentence] = (),
    target_loss: float | None = None,
    lock: Lock | None = None,
    locks: Locks | None = None,
    planned: Study | None = None,
    choice: Choice | None = None,
    ledger: Sequence[Entry] = (),
    disputes: Sequence[replicates.Dispute] = (),
    compute: Table | None = None,
    alike: Sequence[Alike] = (),
) -> Report:
    """Build the report of a study from loaded runs; never raises for what the runs hold.

    With a lock the verdicts rest on the locked seeds alone, and what changed since is listed; of several ``locks`` the
    one binds under which the first run was queued that verdicts rest on. ``planned`` is the whole study that the lock
    is about, where ``study`` is a selection of it. Verdicts of a study that tunes rest on the runs that confirm its
    ``choice``, and ``ledger`` has what was tried besides and thrown away.

    Args:
        disputes: Seeds whose result that decides is known not to be here, with what the runs themselves dispute.
        compute: The table of what the study took in all.
        alike: Runs, mostly of other studies, with the settings of those that decide.
    """
    settled = replicates.settle(study, runs)
    runs = settled.runs
    history = account(locks, planned or study, runs) if locks is not None else None
    lock = history.binding if history is not None else lock
    is_of_scripts = study.program is not None or (bool(runs) and all(run.is_script or run.series for run in runs))
    goals = told.metrics(study, runs) if is_of_scripts else None
    whole, study = study, as_judged(study)
    tuned = tuning.look(whole, runs, goals, choice, ledger) if whole.is_tuning else None
    groups = grouped(study, told_apart(runs), tuned)
    own = {name: groups[name] for name in study.groups}
    differences = configurations.differences([run for members in own.values() for run in members], study)
    found = treatment.audit(own, {name: group.factors for name, group in study.groups.items()})
    found += configurations.from_configurations(own, study, differences)
    found += observations.from_curves(own, study)
    found += arms.of_settings(own, study) if reference.is_made_up(study) else ()
    found += configurations.beyond(groups, study)
    found += tuned.findings if tuned is not None else [*observations.tuning(runs, study), *tuning.declared(study)]
    found += [*settled.findings, *(findings.warning(remark) for remark in remarks)]
    judged = CONFIRM if tuned is not None else ""
    disputes = [dispute for dispute in (*settled.disputes, *disputes) if dispute.tag == judged]
    deciding = own
    locked = lock.seeds if lock is not None else ()
    if lock is not None and tuned is not None:
        locked = tuple(lock.plan.get("confirm_seeds", study.seeds))
    if tuned is not None or locked:
        seeds = (*(locked or study.seeds), None)
        deciding = {name: tuple(run for run in members if run.seed in seeds) for name, members in own.items()}
        disputes = [dispute for dispute in disputes if dispute.seed in seeds]
    seen = elsewhere.findings(alike, deciding, lock.locked_at, is_confirming=tuned is not None) if lock else []
    found += seen
    around = {h.id: circumstances(h, study, deciding, found, trials, disputes) for h in study.hypotheses}
    if tuned is not None:
        around = {h.id: tuning.with_remarks(around[h.id], h, whole, tuned, goals) for h in study.hypotheses}
    for h in study.hypotheses:
        around[h.id] = replace(around[h.id], alarms=(*around[h.id].alarms, *elsewhere.alarms(h, seen)))
    if lock is not None:
        for name, note in rule_deviations(lock, study).items():
            around[name] = replace(around[name], alarms=(*around[name].alarms, note))
    named = labels(study, groups)
    swept = sweeps.combinations(whole, runs, goals)
    found += sweeps.edges(swept, named, goals)
    planned_seeds = {name: (study if name in study.groups else whole).seeds for name in groups}  # trials have others
    made = [
        summaries.comparison(groups, named, planned_seeds, goals, target_loss),
        *(tuning_tables.made(tuned, named, goals) if tuned is not None else ()),
        *sweeps.made(whole, swept, named, goals),
    ]
    made += [summaries.by_run(groups, goals)]
    if goals is None:  # scripts tell nothing of parameters, nor of tokens
        made += [summaries.parameters(groups, named), summaries.efficiency(groups, named, target_loss)]
        layers = summaries.layers(groups)
        made += [layers] if layers is not None else []
    made += [compute] if compute is not None else []
    if on_cpus([run for members in groups.values() for run in members]):
        made = [table.of_processes for table in made]
    return Report(
        study=whole,
        groups=groups,
        labels=named,
        findings=tuple(sorted(found, key=lambda finding: findings.SEVERITIES.index(finding.severity))),
        verdicts=judge(study.hypotheses, deciding, around),
        tables=tuple(made),
        differences=tuple(differences),
        deviations=from_lock(lock, history, planned or whole, runs),
        locked_at=lock.locked_at if lock is not None else None,
        locked=history,
        goals=goals,
        swept=tuple(swept),
        deciding=deciding,
        around=around,
        tuning=tuned,
    )


def from_lock(
    lock: Lock | None, locked: Account | None, study: Study, runs: Sequence[LoadedRun]
) -> tuple[Sentence, ...]:
    """Return what isn't as it was locked."""
    if lock is None:
        return ()
    if locked is None:
        return tuple(deviations(lock, study, runs))
    return (*locked.faults, *deviations(lock, study, runs, locked.told))


def grouped(
    study: Study, runs: Sequence[LoadedRun], tuned: tuning.Tuning | None = None
) -> dict[str, tuple[LoadedRun, ...]]:
    """Return runs by group, seeds in order; tagged runs and unknown groups stand at the end. Of a study that tunes the
    groups have the runs that confirm what was chosen, and no others.
    """
    confirming = {run.path for members in tuned.confirming.values() for run in members} if tuned is not None else ()
    found: dict[str, list[LoadedRun]] = {name: [] for name in study.groups}
    for run in sorted(runs, key=lambda run: (run.tag, run.group, run.seed is None, run.seed or 0, run.name)):
        name = f"{run.group}-{run.tag}" if run.tag else run.group
        if run.path in confirming:
            name = run.group
        elif tuned is not None and name in study.groups:
            name = f"{run.group} (not tuned)"
        # GROUP-TAG may be the name of another group: a tagged run isn't a seed of that one.
        is_taken = run.tag and name in study.groups and run.path not in confirming
        found.setdefault(f"{run.group} ({run.tag})" if is_taken else name, []).append(run)
    return {name: tuple(members) for name, members in found.items()}


def labels(study: Study, groups: Mapping[str, Sequence[LoadedRun]]) -> dict[str, str]:
    """Return the study's labels, else those that the runs record, else names."""
    found = {}
    for name, members in groups.items():
        own = study.groups[name].label if name in study.groups else ""
        found[name] = own or next((run.label for run in members if run.label and not run.tag), "") or name
    return found


def circumstances(
    h: Hypothesis,
    study: Study,
    groups: Mapping[str, Sequence[LoadedRun]],
    found: Sequence[AuditFinding],
    trials: Sequence[Trial],
    disputes: Sequence[replicates.Dispute] = (),
) -> Circumstances:
    """Return what the audit means for one hypothesis."""
    a, b = groups.get(h.group, ()), groups.get(h.against, ())
    concerned = [finding for finding in found if finding.concerns(h.group, h.against)]
    factors = [study.groups[name].values if name in study.groups else {} for name in (h.group, h.against)]
    void = next((finding.text for finding in concerned if finding.severity == findings.VOID), None)
    void = void or treatment.never_varied(a, b, (treatment.freezing(factors[0]), treatment.freezing(factors[1])))
    if h.metric in COUNT_METRICS and not h.is_told:
        return Circumstances(void=void)
    is_of_speed = h.metric in fairness.SPEED_METRICS and not h.is_told
    unfair_keys = dict.fromkeys(
        finding.key
        for finding in concerned
        if finding.severity == findings.UNFAIR
        and not (is_of_speed and finding.key == "learning_rate")
        and _separates(finding, study, a, b)
    )
    alarm = _("UNFAIR PAIR: the arms differ in {keys}, which the study does not declare", [*unfair_keys])
    notes: list[Sentence] = []
    if any(finding.key == "interim" and set(finding.groups) & {h.group, h.against} for finding in found):
        notes.append(_("interim"))
    if h.metric in (*LOSS_METRICS, *TEST_METRICS) or h.is_told:
        notes += [f.text for f in concerned if f.severity == findings.WARNING and f.is_doubt]
    trial = None
    disputes = [dispute for dispute in disputes if dispute.group in (h.group, h.against)]
    undecidable = next((dispute.reason for dispute in disputes if not dispute.is_alarm), None)
    if is_of_speed and a and b:
        trial, undecidable, remarks = _speed(h, a, b, trials, undecidable)
        notes += remarks
    return Circumstances(
        may_pair=may_pair(a, b),
        void=void or treatment.other_start(a, b, (factors[0], factors[1])),
        undecidable=undecidable,
        alarms=(*((alarm,) if unfair_keys else ()), *(dispute.reason for dispute in disputes if dispute.is_alarm)),
        notes=tuple(notes),
        trial=trial.estimate if trial else None,
    )


def _speed(
    h: Hypothesis,
    a: Sequence[LoadedRun],
    b: Sequence[LoadedRun],
    trials: Sequence[Trial],
    undecidable: Sentence | None,
) -> tuple[Trial | None, Sentence | None, list[Sentence]]:
    """Return the trial that decides on a speed or cost, else why nothing does, and remarks.

    ``undecidable`` is why the runs can't decide, which is no matter to a trial: it is made of rounds.
    """
    if h.metric != "speed":
        return None, undecidable or speed.incomparable(a, b), []
    notes = []
    timed = [t for t in trials if (t.group, t.against) == (h.group, h.against)]
    trial = timed[0] if timed else None
    why = None
    if trial is None:
        why = undecidable or speed.incomparable(a, b)
    elif any(t.estimate != trial.estimate for t in timed):
        why = _(
            "there are several speed trials of these two groups with different rounds ({files})",
            [str(t.path) for t in timed],
        )
    elif trial.control is None:
        notes.append(_("the speed trial has no A/A control"))
    elif trial.control_is_off:
        why = _(
            "the A/A control of the speed trial came out at {ratio} instead of 1.00: the trial was disturbed",
            f"{math.exp(trial.control.mean):.3f}",
        )
    trial = None if why else trial
    return trial, why, notes + _confounded(a, b, trial)


def may_pair(a: Sequence[LoadedRun], b: Sequence[LoadedRun]) -> bool:
    """Tell whether equal seeds of two arms share the data order: the toolkit's trainer, the same data, global batch
    and length. What a script makes of its seed it knows alone: its pairs have at worst nothing in common, which makes
    an interval wider and no surer than it is; but a resumption may make it begin its data anew.
    """
    if not a or not b or any(run.source != "rundir" or run.is_inexact for run in (*a, *b)):
        return False
    keys = [
        (run.global_batch, run.train.get("seq_len"), run.train.get("data_seed"), run.data.get("train_sha256"))
        for run in (*a, *b)
    ]
    return len(set(keys)) == 1


def _separates(finding: AuditFinding, study: Study, a: Sequence[LoadedRun], b: Sequence[LoadedRun]) -> bool:
    """Tell whether a difference lies between these two arms (it may lie between one of them and a third)."""
    if not finding.key:
        return True
    if finding.key == "learning_rate":
        return observations.rates_differ(a, b)
    return any(difference.key == finding.key for difference in configurations.differences([*a, *b], study))


def _confounded(a: Sequence[LoadedRun], b: Sequence[LoadedRun], trial: Trial | None) -> list[Sentence]:
    """Note where a speed gain exceeds what freezing saves in operations (a trial's: beyond its uncertainty)."""
    bound = trial.bound if trial is not None and trial.bound is not None else speed.flop_bound(a[0], b[0])
    if trial is not None:
        ratio, least = math.exp(trial.estimate.mean), math.exp(trial.estimate.interval(0.05)[0])
    else:
        speeds = [[run.tokens_per_s for run in arm if run.tokens_per_s] for arm in (a, b)]
        if not all(speeds):
            return []
        ratio = least = fmean(speeds[0]) / fmean(speeds[1])
    if bound is None or least <= max(bound, 1.0):
        return []
    said = _(
        "a ratio of {ratio} is more than the saved operations can give ({bound}): something else differs, too",
        f"{ratio:.3f}", f"{bound:.4f}",
    )  # fmt: skip
    return [said]

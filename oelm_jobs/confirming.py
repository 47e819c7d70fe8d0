"""Confirm what was tuned: see that every trial is over, choose, and make the choice for good."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import ledger
from .agent.sentences import _, joined
from .analysis import told, tuning
from .analysis.audit import choice as choices
from .analysis.reading import loading, replicates
from .errors import UsageError, few
from .locking import ensure_locked, fingerprints
from .names import CONFIRM
from .reporting import report_on
from .study.tuning import confirming

if TYPE_CHECKING:
    from .analysis.audit.choice import Choice
    from .spec.study import Study


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """What was chosen in a study, and the study that confirms it."""

    chosen_in: Study
    """The study that tunes."""
    study: Study
    """The one in which every group has the values that were chosen for it."""
    choice: Choice
    """What was chosen."""
    path: Path
    """The choice's record."""
    is_recorded: bool
    """Whether it was recorded before."""

    tag: str = CONFIRM
    """Of the runs that confirm it."""

    @property
    def values(self) -> dict[str, dict[str, Any]]:
        """What was chosen, by group and setting."""
        return {group: one.values for group, one in self.choice.groups.items()}

    @property
    def seeds(self) -> tuple[int, ...]:
        """With which it is confirmed."""
        return self.chosen_in.confirm_seeds


def choose(project: Path, study: Study, warn: Callable[[str], None]) -> Confirmation:
    """Return what a study's trials choose, or what was chosen before, which stays. Writes nothing.

    Args:
        warn: Is told what is not as it was when the choice was made, and in what the groups' budgets differ.

    Raises:
        UsageError: The study tunes nothing, a trial isn't over, a group has no result, or the record was edited.
    """
    if not study.is_tuning:
        raise UsageError(
            _("study {study} tunes nothing: there is nothing to confirm", study.name),
            hint=_("name what is swept in tuned, and give [sweep] and confirm_seeds"),
        )
    if not study.confirm_seeds:
        raise UsageError(
            _("{path}: confirm_seeds is missing: which seeds confirm the choice?", str(study.path)),
            hint=_("for example: confirm_seeds = {seeds}, none of them among seeds", "[101, 102, 103]"),
        )
    read = replicates.settle(study, report_on(project, study, warn=warn).counting).runs
    goals = told.metrics(study, read) if study.program is not None else None
    path = loading.choice_path(project, study)
    known = choices.read(path)
    is_recorded = known is not None
    tuned = tuning.look(study, read, goals, known, ledger.read(project, study.name))
    for finding in tuned.findings:
        warn(finding.text)
    if known is None:
        _see_that_all_is_over(study, tuned)
        _see_that_trials_are_of(study, tuned, fingerprints(project, study, warn)[0])
        metric, goal = tuning.selection_metric(study, goals)
        known = choices.made(
            study.name, tuning.recorded(tuned.efforts, tuned.best), metric=metric, goal=goal, seeds=study.seeds,
            confirm_seeds=study.confirm_seeds, at=loading.now(),
        )  # fmt: skip
    else:
        _see_that_it_fits(study, known, path)
    values = {group: one.values for group, one in known.groups.items() if group in study.groups}
    return Confirmation(
        chosen_in=study, study=confirming(study, values), choice=known, path=path, is_recorded=is_recorded
    )


def record(project: Path, confirmation: Confirmation, warn: Callable[[str], None]) -> None:
    """Lock the study, where it isn't, and make the choice for good.

    Raises:
        UsageError: Another choice was recorded meanwhile, or the lock was edited.
        ConfigurationError: The study isn't as it was locked.
    """
    ensure_locked(project, confirmation.chosen_in, warn)
    if confirmation.is_recorded:
        return
    found = choices.write(confirmation.path, confirmation.choice)
    before, after = ({name: one.values for name, one in each.groups.items()} for each in (confirmation.choice, found))
    if before != after:
        raise UsageError(
            _("{path}: another choice was recorded meanwhile, and counts", str(confirmation.path)),
            hint=_("the same command goes on with it"),
        )


def _see_that_all_is_over(study: Study, tuned: tuning.Tuning) -> None:
    lacking = {state: _named(tuned, state) for state in (tuning.MISSING, tuning.GOING, tuning.UNKNOWN)}
    if any(lacking.values()):
        what = joined(
            [
                _("missing: {runs}", few(lacking[tuning.MISSING])) if lacking[tuning.MISSING] else "",
                _("under way: {runs}", few(lacking[tuning.GOING])) if lacking[tuning.GOING] else "",
                _("not known here: {runs}", few(lacking[tuning.UNKNOWN])) if lacking[tuning.UNKNOWN] else "",
            ]
        )
        hint = _("they are run by: {command}", f"oelm-submit --study {study.name}")
        if not lacking[tuning.MISSING]:
            way = _("when they are over, {command} brings what is elsewhere", f"oelm-fetch --study {study.name}")
            hint = way if lacking[tuning.UNKNOWN] else _("watch them: oelm-status --watch")
        raise UsageError(_("not every trial is over, so nothing is chosen: {what}", what), hint=hint)
    if without := [effort.group for effort in tuned.efforts if effort.group not in tuned.best]:
        raise UsageError(
            _("no trial of {groups} has a result, so nothing can be chosen", without),
            hint=_("oelm-status shows why they failed; sweep other values"),
        )


def _see_that_trials_are_of(study: Study, tuned: tuning.Tuning, planned: Mapping[str, str]) -> None:
    """See that the trials are what the study says now: else they choose for something that nobody confirms.

    Args:
        planned: The fingerprint that each trial has by the study; nothing where its data aren't here.
    """
    runs = [trial.run for effort in tuned.efforts for trial in effort.trials if trial.run is not None]
    others = [run.name for run in runs if run.fingerprint and planned.get(run.name, run.fingerprint) != run.fingerprint]
    if others:
        raise UsageError(
            _(
                "{path}: these trials were run with another configuration or other data than the study has now, so "
                "nothing is chosen: {runs}",
                str(study.path), few(others),
            ),
            hint=_("put the study back, or run them anew: {command}", f"oelm-submit --study {study.name} --rerun"),
        )  # fmt: skip


def _named(tuned: tuning.Tuning, state: str) -> Sequence[str]:
    return [trial.name for effort in tuned.efforts for trial in effort.of(state)]


def _see_that_it_fits(study: Study, choice: Choice, path: Path) -> None:
    """See that a recorded choice says of each group and setting what the study asks."""
    lacking = [group for group in study.groups if group not in choice.groups]
    others = [key for one in choice.groups.values() for key in {*one.values} ^ {*study.tuned}]
    if lacking or others:
        what = _("it has no group {groups}", lacking) if lacking else _("it is of other settings ({keys})", others)
        raise UsageError(
            _("{path}: the choice that was recorded is not one of this study: {what}", str(path), what),
            hint=_("tune what changed in a study of its own"),
        )

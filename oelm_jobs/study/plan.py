"""A study resolved into runs, whose comparison is fair, before anything is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..agent.sentences import _
from ..agent.states import Word
from ..errors import ConfigurationError
from ..folders import study_files
from ..programs import description, script
from ..spec.study import Run, Study
from ..spec.target import Target
from . import blocks as of_blocks
from . import fairness
from .blocks import DataHash
from .fairness import Difference
from .resolve import Overrides, plan_runs


class Mode(Word):
    """When the runs of a submission begin."""

    SEQUENTIAL = "sequential"
    """Each waits for the one before it."""
    PARALLEL = "parallel"
    """Each as soon as it has its devices."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a submission would do."""

    project: Path
    study: Study
    target: Target
    """Where it goes, with every path as it is there."""
    mode: Mode
    stop_on_failure: bool = False
    """Whether a failed run keeps the ones behind it in its lane from starting."""
    runs: tuple[Run, ...]
    """In the order of their lane."""
    differences: tuple[Difference, ...] = ()
    """What differs between the groups besides the factors, all of it declared or harmless."""
    data_hash: DataHash = ""
    """Hash over the token files; empty where a plan is made without them."""
    place: Target | None = None
    """The target as it was given, to which connections are made; None for that of the targets files."""

    @property
    def root(self) -> str:
        """Absolute path on the target."""
        return self.target.root

    @cached_property
    def study_file(self) -> str:
        """Absolute path of the study's file where its name alone doesn't tell it, else empty."""
        return "" if self.study.path in study_files(self.project) else str(self.study.path)


def make_plan(
    project: Path,
    study: Study,
    target: Target,
    *,
    groups: Sequence[str] = (),
    blocks: Sequence[str] = (),
    seeds: Sequence[int] = (),
    tag: str = "",
    overrides: Overrides | None = None,
    mode: Mode = Mode.SEQUENTIAL,
    stop_on_failure: bool = False,
    data_hash: DataHash = "",
    others: Mapping[str, Study] | None = None,
    known_runs: Mapping[tuple[str, str], str] | None = None,
) -> Plan:
    """Resolve a study into runs and check that their comparison is fair. Needs no data and no GPU.

    Args:
        target: With every path as it is there (``Connection.resolved``), or as far as that is known without asking
            (``connections.unreached``).
        others: Studies whose runs these need, by name (``lineage.others``).
        known_runs: Fingerprints of submitted runs, by study and run.

    Raises:
        UsageError: A group, a block or an override doesn't exist.
        ConfigurationError: A script's command names a file that the project doesn't have, or one stands where its data
            want a folder.
        UnfairError: The groups would differ in more than the study declares.
    """
    if study.program is not None and (why := script.why_not_there(project, study)):
        raise ConfigurationError(_("{path}: [program] command: {why}", str(study.path), why))
    for within in of_blocks.each(study).values() if study.program is not None else ():
        if why := script.why_no_folder(project, within):
            raise ConfigurationError(_("{path}: [program] data: {why}", str(study.path), why))
    runs = plan_runs(
        study, target, groups=groups, blocks=blocks, seeds=seeds, tag=tag, overrides=overrides, data_hash=data_hash,
        others=others, known_runs=known_runs,
    )  # fmt: skip
    compared = description.of(study).compared
    kinds = fairness.kinds(study.program)
    differences: list[Difference] = []
    for block in dict.fromkeys(run.block for run in runs):  # of two blocks nothing is compared
        one_of = {run.group: run for run in runs if run.trial is None and run.block == block}  # seeds change nothing
        arms = [fairness.Arm(group=run.group, run=run.name, keys=compared(run)) for run in one_of.values()]
        found = fairness.check(arms, factors=study.factors, unequal=study.declared, kinds=kinds)
        differences += [each for each in found if each not in differences]
    return Plan(
        project=project,
        study=study,
        target=target,
        mode=mode,
        stop_on_failure=stop_on_failure,
        runs=tuple(runs),
        differences=tuple(differences),
        data_hash=data_hash,
    )

"""Runs of studies whose file is gone: whether a plan would run them anew, since the file was only renamed.

A study's name is in the records of its runs, on every machine, and these are never rewritten: a file that is renamed
says by its key ``name`` what its study is called. Nothing is taken for another study's because it looks like it: one
that was copied to try something has the same groups and fingerprints, and its runs are its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..folders import study_files
from ..stored_run import StoredRun
from ..study.files import names_in
from ..study.plan import Plan


def without_file(project: Path, stored: Iterable[StoredRun]) -> list[StoredRun]:
    """Return the runs of studies that no file is called after any more."""
    there = set(names_in(study_files(project)).values())
    gone = [run for run in stored if run.study not in there]
    return [run for run in gone if not Path(run.without_misread().spec.get("study_file") or "/nowhere").exists()]


def ran_before(plan: Plan, stored: Iterable[StoredRun]) -> list[StoredRun]:
    """Return the runs of such studies that have the fingerprints of a plan's runs which its own study has not run."""
    stored = list(stored)
    own = {run.name for run in stored if run.study == plan.study.name}
    new = {(run.name, run.fingerprint) for run in plan.runs if run.name not in own and run.fingerprint}
    alike = [run for run in stored if (run.name, run.fingerprint) in new and run.study != plan.study.name]
    return without_file(plan.project, alike) if alike else []

"""Collect what a study's verdicts rest on: its file, lock and ledger, the records and metrics of its runs, what its
data are, and the code that ran.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import ledger
from ..agent import rundir
from ..agent.run import inputs, work
from ..agent.sentences import _
from ..analysis import elsewhere
from ..code import credentials
from ..folders import study_files
from ..programs import description
from ..spec.study import Study
from ..study import blocks
from ..study.files import names_in
from ..study.resolve import run_directory
from . import code
from .archive import why_not

CHECKPOINTS = Path("models", "checkpoints")
SMALL_BYTES = 1 << 20
"""A file that nobody declares is a record, and comes along, where it is no larger."""
LARGE_BYTES = 256 << 20
"""No single file is larger."""
RECORDS = (rundir.RESULT, rundir.METRICS, rundir.HEARTBEAT, rundir.TREATMENT)
SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".yaml", ".yml", ".toml")
NOT_CONTROL = (rundir.FETCHED, "cancel.json", "waiting.json")
"""Control files that say nothing of a result."""
MANIFEST = "manifest.json"
"""What says what the data in a folder are."""


@dataclass(kw_only=True)
class Contents:
    """A folder that becomes a bundle, and what is left out of it."""

    folder: Path
    left_out: dict[str, str] = field(default_factory=dict)
    """Why, by name."""

    def put(self, name: str, content: bytes) -> None:
        """Add a file, unless it holds credentials; the first of a name stays."""
        why = why_not(name) or credentials.why_by_name(name) or credentials.why_by_content(content)
        path = self.folder / name
        if why:
            self.left_out[name] = why
        elif not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def copy(self, path: Path, name: str) -> None:
        """Add a file as it is on the disk; links and what can't be read are left out."""
        try:
            if path.is_symlink() or not path.is_file():
                return
            if path.stat().st_size > LARGE_BYTES:
                self.left_out[name] = _("is larger than {size} MB", LARGE_BYTES >> 20)
                return
            self.put(name, path.read_bytes())
        except OSError as error:
            self.left_out[name] = error.strerror or str(error)

    def __contains__(self, name: str) -> bool:
        return (self.folder / name).exists()


def collect(
    project: Path, study: Study, run_dirs: Sequence[Path], strangers: Iterable[Mapping[str, Any]], into: Contents
) -> None:
    """Put all of a study into a folder, each file where it lies in the project.

    Args:
        run_dirs: The folders of its runs that are here.
        strangers: What the records of other studies' runs beside them say: name, study, group, seed, tag, folder.
            These runs are named by a report, so their names are told, and no more.
    """
    into.copy(study.path, f"jobs/{study.path.name}")
    for path in _named_studies(project, study):
        into.copy(path, f"jobs/{path.name}")
    _experiments(project, study, into)
    places = [project / CHECKPOINTS, project / CHECKPOINTS / study.name]
    own = dict.fromkeys(path for path in run_dirs if path.is_dir() and path.is_relative_to(project / CHECKPOINTS))
    for place in places:
        own |= dict.fromkeys(sorted(place.glob(f"{rundir.TRAIN_PREFIX}{rundir.SPEED_TRIAL}*")))
        own |= dict.fromkeys(
            path for path in sorted(place.glob(f"{rundir.ARCHIVE}/*")) if _study_of(path) == study.name
        )
    for run_dir in own:
        for path in _records(run_dir):
            into.copy(path, path.relative_to(project).as_posix())
    for source in _sources(project, [path for path in own if path in run_dirs]):
        for path in (rundir.control(source, rundir.RUN), source / rundir.MANIFEST):
            into.copy(path, path.relative_to(project).as_posix())
    for known in strangers:
        name = Path(str(known["path"]), rundir.CONTROL, rundir.RUN).relative_to(project).as_posix()
        said = {key: known[key] for key in ("run", "study", "group", "seed", "tag")}
        into.put(name, json.dumps(said).encode())
    _data(project, study, into)
    code.collect(project, into.folder, study.name, into.put, into.left_out)


def _named_studies(project: Path, study: Study) -> Iterator[Path]:
    """Yield the files of studies that a study goes on from, by what its file names, and that these go on from."""
    called = names_in(study_files(project))
    found = [study.path]
    for known in found:
        text = known.read_text(encoding="utf-8", errors="replace")
        for path, name in called.items():
            word = f"{re.escape(name)}|{re.escape(path.stem)}"
            if path not in found and re.search(rf"[\"'](?:{word})[/\"']", text):
                found.append(path)
                yield path


def _experiments(project: Path, study: Study, into: Contents) -> None:
    """Add what lies in the study's folder of experiments, but the report, which can be made again, and what a bundle
    alone has: it would pass for what was found in the project.
    """
    top = project / "experiments"
    for place, folders, names in os.walk(top / study.name):
        folders[:] = sorted(name for name in folders if name != "analysis" and name.casefold() != elsewhere.FILE)
        for name in sorted(names):
            path = Path(place, name)
            if not name.endswith("_summary.json") and name.casefold() != elsewhere.FILE:
                into.copy(path, path.relative_to(project).as_posix())
    named = sorted(path for path in top.glob(f"{study.name}_*") if not path.name.endswith("_summary.json"))
    for path in (ledger.lock_path(project, study), top / "speed_trial.json", *named):
        into.copy(path, path.relative_to(project).as_posix())


def _sources(project: Path, run_dirs: Iterable[Path]) -> Iterator[Path]:
    """Yield where the runs lie here from which some have taken what they began with: a report compares the two."""
    for run_dir in run_dirs:
        for row in inputs.read(str(run_dir)):
            for place in (project / CHECKPOINTS / row["study"], project / CHECKPOINTS):
                found = run_directory(place, row["run"])
                if found.is_relative_to(project / CHECKPOINTS) and _study_of(found) == row["study"]:
                    yield found


def _study_of(run_dir: Path) -> str:
    return str(code.record_of(run_dir).get("study", ""))


def _records(run_dir: Path) -> Iterator[Path]:
    """Yield the records of a run and the files of its metrics; no weights, no code, no data."""
    run = code.record_of(run_dir)
    program = run.get("program") if isinstance(run.get("program"), dict) else None
    metrics = (program or {}).get("metrics")
    patterns = metrics.get("files", []) if isinstance(metrics, dict) else []
    for path in sorted(run_dir.iterdir()):
        is_record = path.name in RECORDS or (program is not None and path.name == rundir.LOG)
        if is_record or (path.name.endswith(SUFFIXES) and path.is_file() and path.stat().st_size <= SMALL_BYTES):
            yield path
    control = run_dir / rundir.CONTROL
    for path in sorted(control.iterdir()) if control.is_dir() else ():
        if path.name.endswith(SUFFIXES) and path.name not in NOT_CONTROL:
            yield path
    for pattern in patterns:
        yield from sorted(work.named(run_dir, str(pattern)))


def _data(project: Path, study: Study, into: Contents) -> None:
    """Add the manifests that say of a study's data what they are; those outside of the project under names that it
    doesn't have.
    """
    paths = [path for within in blocks.each(study).values() for path in description.of(study).data(within).values()]
    found = (project / path for path in paths)
    folders = dict.fromkeys(there if there.is_dir() else there.parent for there in found)
    for folder in sorted(folders, key=lambda folder: not folder.is_relative_to(project)):
        inner = folder.relative_to(project).as_posix() if folder.is_relative_to(project) else f"data/{folder.name}"
        own = inner if inner.startswith("data/") else f"data/{inner}"
        names = (f"{own}{'' if number == 1 else f'-{number}'}/{MANIFEST}" for number in itertools.count(1))
        into.copy(folder / MANIFEST, next(name for name in names if name not in into))

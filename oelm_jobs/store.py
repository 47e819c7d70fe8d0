"""The client's index of runs and submissions (SQLite in the user's state folder). The run directories are the source of
truth.

The index is what makes a submission happen at most once on the client's side: intent and token are committed before
anything is sent. Writers take the write lock at once (BEGIN IMMEDIATE), no transaction is open while a target is
talked to, and the rollback journal is kept because write-ahead logging breaks on network homes
(https://sqlite.org/wal.html).
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .agent.sentences import _
from .agent.states import State
from .errors import DamagedStore, StoreError
from .folders import state_folder
from .stored_run import COLUMNS, STATES, StoredRun, kept, stored

if TYPE_CHECKING:
    from .agent.run_record import RunRecord
    from .spec.study import Run

MIGRATIONS: list[str] = [
    """
    CREATE TABLE submission (
        token TEXT PRIMARY KEY, project TEXT NOT NULL, target TEXT NOT NULL, root TEXT NOT NULL, made_at REAL NOT NULL,
        maker TEXT NOT NULL, answer TEXT NOT NULL, handle TEXT NOT NULL DEFAULT ''
    );
    CREATE TABLE run (
        project TEXT NOT NULL, study TEXT NOT NULL, name TEXT NOT NULL, "group" TEXT NOT NULL, label TEXT NOT NULL,
        seed INTEGER NOT NULL, tag TEXT NOT NULL, target TEXT NOT NULL, run_dir TEXT NOT NULL, fingerprint TEXT NOT
        NULL, position INTEGER NOT NULL, token TEXT NOT NULL, spec TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT
        NULL DEFAULT '', queued_at REAL, observed_at REAL, progress TEXT NOT NULL DEFAULT '{}', PRIMARY KEY (project,
        study, name)
    );
    CREATE INDEX run_token ON run (token, run_dir);
    """,
    # What a run was before its newest submission, so that a refused submission leaves it as it was.
    "ALTER TABLE run ADD COLUMN previous TEXT NOT NULL DEFAULT ''",
]
"""Schema versions in order; ``PRAGMA user_version`` counts those applied. Only ever append."""

INTENT, ACCEPTED, REFUSED, UNKNOWN = "intent", "accepted", "refused", "unknown"
"""What is known of a submission's answer."""

SPEC = ("train", "global_batch", "extended_from", "left")
"""What is kept here of a run's record, which lies in its run directory."""

BUSY_S = 30.0
"""How long a writer waits for the others."""
CACHE_KIB = 65_536
"""Memory for pages: a transaction over ten thousand runs that outgrows it writes before it commits."""


def index_path() -> Path:
    """Return the file of the user's index."""
    return state_folder() / "runs.sqlite3"


class Store:
    """The open index; a context manager."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or index_path()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Transactions are opened by hand (isolation_level=None): sqlite3's own begin deferred, which deadlocks.
            # What was begun in one thread may go on in another (a log that is followed): check_same_thread=False.
            self._db = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            self._migrate()
        except (OSError, sqlite3.Error) as error:
            raise self._error(error) from error

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the index; no thread may use it any more."""
        self._db.close()

    def _error(self, error: Exception) -> StoreError:
        if type(error) is sqlite3.DatabaseError:  # no database, or a malformed one
            hint = _("make it again from the run directories: oelm-status --rebuild")
            return DamagedStore(_("{path}: is damaged: {why}", str(self.path), str(error)), hint=hint)
        message = _("{path}: can't be used: {why}", str(self.path), str(error))
        return StoreError(message, hint=_("OELM_STATE_DIR names another folder"))

    def _query(self, query: str, values: Sequence[object]) -> Iterator[sqlite3.Row]:
        """Yield the rows of a query."""
        try:
            yield from self._db.execute(query, tuple(values))
        except sqlite3.Error as error:
            raise self._error(error) from error

    def _migrate(self) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise StoreError(
                _(
                    "{path}: written by a newer oelm-jobs (schema {version}, this one knows {known})",
                    str(self.path),
                    version,
                    len(MIGRATIONS),
                )
            )
        if version == len(MIGRATIONS):
            return
        with self._writing():
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
                for statement in script.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {number}")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._error(error) from error

    # Submitting -------------------------------------------------------------------------------------------------------

    def intend(
        self,
        project: Path,
        target: str,
        root: str,
        token: str,
        maker: str,
        runs: Sequence[Run],
        decide: Callable[[StoredRun], Run | None],
    ) -> list[Run]:
        """Commit the intent to submit runs before anything is sent; return the runs that this submission has got.

        Args:
            maker: Identity of this process as JSON, by which others see whether it still lives.
            decide: Returns a run that is stored already as it is to be submitted, or None to leave it alone; called
                under the write lock, so that of concurrent submissions one gets each run.
        """
        from msgspec.json import encode  # here: a status starts without it

        taken, rows = [], []
        with self._writing():
            first = self._db.execute("SELECT coalesce(max(position), 0) + 1 FROM run").fetchone()[0]
            studies = {run.study for run in runs}
            known = {
                (row["study"], row["name"]): row for study in studies for row in self._rows(project, study, columns="*")
            }
            for run in runs:
                previous = dict(known.get((run.study, run.name), ()))
                if previous:
                    chosen = decide(stored([previous[field] for field in StoredRun._fields]))
                    if chosen is None:
                        continue
                    run = chosen
                taken.append(run)
                spec = {"train": run.train, "global_batch": run.global_batch, "extended_from": run.extended_from}
                if run.left:
                    spec["left"] = run.left
                rows.append(
                    (str(project), run.study, run.name, run.group, run.label, run.seed, run.tag, target, run.run_dir,
                     run.fingerprint, first + len(taken), token, encode(spec).decode(), State.PLANNED, time.time(),
                     json.dumps({**previous, "previous": ""}) if previous else "")
                )  # fmt: skip
            self._db.executemany(
                """INSERT OR REPLACE INTO run (project, study, name, "group", label, seed, tag, target, run_dir,
                   fingerprint, position, token, spec, state, queued_at, previous)
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
                rows,
            )
            if taken:
                self._db.execute(
                    "INSERT INTO submission VALUES (?, ?, ?, ?, ?, ?, ?, '')",
                    (token, str(project), target, root, time.time(), maker, INTENT),
                )
        return taken

    def answer(
        self, token: str, answer: str, *, states: Mapping[str, tuple[State, str]] | None = None, handle: str = ""
    ) -> None:
        """Record a submission's outcome, and the states (by run directory) of its runs about which nothing was known.

        Runs of a refused submission are again what they were before it, where they were something.
        """
        with self._writing():
            self._db.execute("UPDATE submission SET answer = ?, handle = ? WHERE token = ?", (answer, handle, token))
            if answer == REFUSED:
                for (previous,) in self._db.execute("SELECT previous FROM run WHERE token = ?", (token,)).fetchall():
                    values = json.loads(previous or "{}")
                    if values:
                        columns = ", ".join(f'"{column}"' for column in values)
                        places = ", ".join("?" * len(values))
                        self._db.execute(
                            f"INSERT OR REPLACE INTO run ({columns}) VALUES ({places})", [*values.values()]
                        )
            if answer == ACCEPTED:
                self._db.execute("UPDATE run SET previous = '' WHERE token = ?", (token,))
            self._db.executemany(
                "UPDATE run SET state = ?, reason = ?, progress = ? WHERE token = ? AND run_dir = ? AND state = ?",
                [
                    (state, reason, kept(reason, {}), token, run_dir, State.PLANNED)
                    for run_dir, (state, reason) in (states or {}).items()
                ],
            )

    def accept(self, token: str, run_dirs: Sequence[str]) -> None:
        """Record which runs of a submission were accepted so far; also shows that its maker is alive."""
        with self._writing():
            self._db.execute("UPDATE submission SET made_at = ? WHERE token = ?", (time.time(), token))
            self._db.executemany(
                "UPDATE run SET state = ?, previous = '' WHERE token = ? AND run_dir = ? AND state = ?",
                [(State.QUEUED, token, run_dir, State.PLANNED) for run_dir in run_dirs],
            )

    def open_submissions(self, project: Path) -> list[sqlite3.Row]:
        """Return the submissions (token, target, root, maker, made_at) whose answer isn't known."""
        query = "SELECT token, target, root, maker, made_at FROM submission WHERE project = ? AND answer IN (?, ?)"
        return list(self._query(query, (str(project), INTENT, UNKNOWN)))

    def oldest_unanswered(self, root: str) -> tuple[str, float] | None:
        """Return (project, time) of the oldest submission of any project to a root whose answer isn't known; None where
        there is none.
        """
        query = "SELECT project, made_at FROM submission WHERE root = ? AND answer IN (?, ?) ORDER BY made_at LIMIT 1"
        row = next(self._query(query, (root, INTENT, UNKNOWN)), None)
        return (str(row["project"]), float(row["made_at"])) if row else None

    # Reading and observing --------------------------------------------------------------------------------------------

    def _rows(self, project: Path, study: str | None, *, columns: str = COLUMNS) -> Iterator[sqlite3.Row]:
        query = f"SELECT {columns} FROM run WHERE project = ? AND (? IS NULL OR study = ?) ORDER BY position"
        return self._query(query, (str(project), study, study))

    def run(self, project: Path, study: str, name: str) -> StoredRun | None:
        """Return one run."""
        query = f"SELECT {COLUMNS} FROM run WHERE project = ? AND study = ? AND name = ?"
        return next((stored(row) for row in self._query(query, (str(project), study, name))), None)

    def runs(self, project: Path, study: str | None = None) -> list[StoredRun]:
        """Return a project's runs in the order of their submission."""
        return [stored(row) for row in self._rows(project, study)]

    def runs_of(self, token: str) -> dict[str, State]:
        """Return the states of a submission's runs, by run directory."""
        query = "SELECT run_dir, state FROM run WHERE token = ?"
        return {run_dir: STATES.get(state, State.UNKNOWN) for run_dir, state in self._query(query, (token,))}

    def runs_that_left(self, project: Path) -> list[StoredRun]:
        """Return a project's runs that have left files on other targets, without reading all runs."""
        query = f"SELECT {COLUMNS} FROM run WHERE project = ? AND spec LIKE '%\"left\":%' ORDER BY position"
        return [run for run in map(stored, self._query(query, (str(project),))) if run.spec.get("left")]

    def states(self, project: Path, study: str) -> dict[str, State]:
        """Return the states of a study's runs, by name."""
        query = "SELECT name, state FROM run WHERE project = ? AND study = ?"
        return {name: STATES.get(state, State.UNKNOWN) for name, state in self._query(query, (str(project), study))}

    def observe(
        self,
        runs: Iterable[tuple[StoredRun, State, str, Mapping[str, object]]],
        at: float,
        *,
        unchanged: Iterable[StoredRun] = (),
    ) -> None:
        """Record what a target answered about runs, except those that were submitted again meanwhile."""
        with self._writing():
            self._db.executemany(
                """UPDATE run SET state = ?, reason = ?, progress = ?, observed_at = ?
                   WHERE project = ? AND study = ? AND name = ? AND token = ?""",
                [
                    (state, reason, kept(reason, progress), at, run.project, run.study, run.name, run.token)
                    for run, state, reason, progress in runs
                ],
            )
            self._db.executemany(
                "UPDATE run SET observed_at = ? WHERE project = ? AND study = ? AND name = ? AND token = ?",
                [(at, run.project, run.study, run.name, run.token) for run in unchanged],
            )

    def replace_runs(self, project: Path, target: str, records: Sequence[RunRecord], gone: Iterable[str] = ()) -> None:
        """Replace the index of a project's runs on a target by the records found there; submissions in flight stay.

        Args:
            gone: Targets that there are no more; runs of theirs that are among the records are on this one from now on.
        """
        with self._writing():
            self._db.execute(
                "DELETE FROM run WHERE project = ? AND target = ? AND state <> ?", (str(project), target, State.PLANNED)
            )
            self._db.executemany(
                "DELETE FROM run WHERE project = ? AND target = ? AND study = ? AND name = ? AND state <> ?",
                [(str(project), before, known.study, known.run, State.PLANNED) for before in gone for known in records],
            )
            self._add(project, target, records)

    def add_runs(self, project: Path, target: str, records: Sequence[RunRecord]) -> None:
        """Add runs from records found on a target; runs that the project has already are not changed."""
        with self._writing():
            self._add(project, target, records)

    def _add(self, project: Path, target: str, records: Sequence[RunRecord]) -> None:
        first = self._db.execute("SELECT coalesce(max(position), 0) + 1 FROM run").fetchone()[0]
        for position, known in enumerate(records, start=first):
            content = known.to_json()
            spec = json.dumps({key: content[key] for key in SPEC if key in content})
            self._db.execute(
                """INSERT OR IGNORE INTO run (project, study, name, "group", label, seed, tag, target, run_dir,
                   fingerprint, position, token, spec, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
                (str(project), known.study, known.run, known.group, known.label, known.seed, known.tag, target,
                 known.run_dir, known.fingerprint, position, known.token, spec, State.UNKNOWN),
            )  # fmt: skip


def set_aside() -> Path | None:
    """Rename an index that can't be read, without deleting it; return its new path, None where it can be read."""
    path = index_path()
    try:
        with Store(path):
            return None
    except DamagedStore:
        pass
    aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
    path.rename(aside)
    return aside

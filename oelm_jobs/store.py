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
from contextlib import AbstractContextManager, contextmanager
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .agent.sentences import _
from .agent.states import State
from .errors import DamagedStore, StoreError
from .folders import index_path
from .programs import length
from .stored_run import COLUMNS, STATES, StoredRun, kept, stored

if TYPE_CHECKING:
    from .agent.record_types import ProgramRecord
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

SAME = ("study", "group", "label", "seed", "tag", "run_dir", "fingerprint")
"""Columns that a run and its record have under the same names."""

BUSY_S = 30.0
"""How long a writer waits for the others."""
CACHE_KIB = 65_536
"""Memory for pages: a transaction over ten thousand runs that outgrows it writes before it commits."""


class OpenSubmission(NamedTuple):
    """A submission whose answer isn't known."""

    token: str
    root: str
    """The target's, as it was then."""
    maker: str
    """Identity of the process that made it, as JSON."""
    made_at: float
    """Unix seconds; renewed while its maker is at it."""


class Store(AbstractContextManager["Store"]):
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
            message = _(
                "{path}: written by a newer oelm-jobs (schema {version}, this one knows {known})",
                str(self.path),
                version,
                len(MIGRATIONS),
            )
            raise StoreError(message)
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
        study_file: str = "",
    ) -> list[Run]:
        """Commit the intent to submit runs before anything is sent; return the runs that this submission has got.

        Args:
            maker: Identity of this process as JSON, by which others see whether it still lives.
            decide: Returns a run that is stored already as it is to be submitted, or None to leave it alone; called
                under the write lock, so that of concurrent submissions one gets each run.
            study_file: Absolute path of the study's file, where its name alone doesn't tell it.
        """
        taken, rows = [], []
        with self._writing():
            known = {
                (row["study"], row["name"]): row
                for study in {run.study for run in runs}
                for row in self._query("SELECT * FROM run WHERE project = ? AND study = ?", (str(project), study))
            }
            for run in runs:
                previous = dict(known.get((run.study, run.name), ()))
                if previous:
                    chosen = decide(stored([previous[field] for field in StoredRun._fields]))
                    if chosen is None:
                        continue
                    run = chosen
                taken.append(run)
                row = {"name": run.name, "token": token, "state": State.PLANNED, "queued_at": time.time()}
                row["spec"] = _spec(run, _own(run.settings, _of_script(run), run.code), study_file)
                rows.append((run, {**row, "previous": json.dumps({**previous, "previous": ""}) if previous else ""}))
            self._add(project, target, rows, "REPLACE")
            if taken:
                self._db.execute(
                    "INSERT INTO submission VALUES (?, ?, ?, ?, ?, ?, ?, '')",
                    (token, str(project), target, root, time.time(), maker, INTENT),
                )
        return taken

    def answer(self, token: str, answer: str, *, states: Mapping[str, tuple[State, str]] | None = None) -> None:
        """Record a submission's outcome, and the states (by run directory) of its runs about which nothing was known.

        Runs of a refused submission are again what they were before it, where they were something.
        """
        with self._writing():
            self._db.execute("UPDATE submission SET answer = ? WHERE token = ?", (answer, token))
            if answer == REFUSED:
                for (previous,) in self._db.execute("SELECT previous FROM run WHERE token = ?", (token,)).fetchall():
                    if previous:
                        self._insert([json.loads(previous)])
            if answer == ACCEPTED:
                self._db.execute("UPDATE run SET previous = '' WHERE token = ? AND previous <> ''", (token,))
            alike: dict[tuple[State, str, str], list[str]] = {}
            for run_dir, (state, reason) in (states or {}).items():
                alike.setdefault((state, reason, kept(reason, {})), []).append(run_dir)
            self._db.executemany(
                """UPDATE run SET state = ?, reason = ?, progress = ? WHERE token = ? AND state = ?
                   AND run_dir IN (SELECT value FROM json_each(?))""",
                [(*known, token, State.PLANNED, json.dumps(run_dirs)) for known, run_dirs in alike.items()],
            )

    def accept(self, token: str, run_dirs: Sequence[str]) -> None:
        """Record which runs of a submission were accepted so far; also shows that its maker is alive."""
        with self._writing():
            self._db.execute("UPDATE submission SET made_at = ? WHERE token = ?", (time.time(), token))
            self._db.executemany(
                "UPDATE run SET state = ?, previous = '' WHERE token = ? AND run_dir = ? AND state = ?",
                [(State.QUEUED, token, run_dir, State.PLANNED) for run_dir in run_dirs],
            )

    def open_submissions(self, project: Path) -> list[OpenSubmission]:
        """Return the submissions whose answer isn't known."""
        query = "SELECT token, root, maker, made_at FROM submission WHERE project = ? AND answer IN (?, ?)"
        return [OpenSubmission(*row) for row in self._query(query, (str(project), INTENT, UNKNOWN))]

    def oldest_unanswered(self, root: str) -> tuple[str, float] | None:
        """Return (project, time) of the oldest submission of any project to a root whose answer isn't known; None where
        there is none.
        """
        query = "SELECT project, made_at FROM submission WHERE root = ? AND answer IN (?, ?) ORDER BY made_at LIMIT 1"
        row = next(self._query(query, (root, INTENT, UNKNOWN)), None)
        return (str(row["project"]), float(row["made_at"])) if row else None

    # Reading and observing --------------------------------------------------------------------------------------------

    def _runs(self, condition: str, *values: object) -> list[StoredRun]:
        query = f"SELECT {COLUMNS} FROM run {condition} ORDER BY position"
        return [stored(row) for row in self._query(query, values)]

    def run(self, project: Path, study: str, name: str) -> StoredRun | None:
        """Return one run."""
        found = self._runs("WHERE project = ? AND study = ? AND name = ?", str(project), study, name)
        return found[0] if found else None

    def knows(self, project: Path) -> bool:
        """Tell whether a project has runs."""
        return next(self._query("SELECT 1 FROM run WHERE project = ? LIMIT 1", (str(project),)), None) is not None

    def runs(self, project: Path, study: str | None = None) -> list[StoredRun]:
        """Return a project's runs in the order of their submission."""
        return self._runs("WHERE project = ? AND (? IS NULL OR study = ?)", str(project), study, study)

    def states(self, project: Path, study: str) -> dict[str, State]:
        """Return where a study's runs stand, by name."""
        query = "SELECT name, state FROM run WHERE project = ? AND study = ?"
        return {name: STATES.get(state, State.UNKNOWN) for name, state in self._query(query, (str(project), study))}

    def runs_of(self, token: str) -> dict[str, State]:
        """Return the states of a submission's runs, by run directory."""
        query = "SELECT run_dir, state FROM run WHERE token = ?"
        return {run_dir: STATES.get(state, State.UNKNOWN) for run_dir, state in self._query(query, (token,))}

    def observe(self, runs: Iterable[StoredRun], *, unchanged: Iterable[StoredRun] = ()) -> None:
        """Record runs as their target has just told of them, except those that were submitted again meanwhile.

        Args:
            unchanged: Of these it told nothing new.
        """
        with self._writing():
            self._db.executemany(
                """UPDATE run SET state = ?, reason = ?, progress = ?, observed_at = ?
                   WHERE project = ? AND study = ? AND name = ? AND token = ?""",
                [(run.state, run.reason, kept(run.reason, run.progress), *_when_and_which(run)) for run in runs],
            )
            self._db.executemany(
                "UPDATE run SET observed_at = ? WHERE project = ? AND study = ? AND name = ? AND token = ?",
                map(_when_and_which, unchanged),
            )

    def forget(
        self, project: Path, runs: Iterable[StoredRun], record: Callable[[Sequence[StoredRun]], None]
    ) -> list[StoredRun]:
        """Remove runs, each unless it was submitted again since it was seen; return those that were there.

        Args:
            record: Is given them before, under the write lock; what it raises keeps them.
        """
        with self._writing():
            tokens = {(run.study, run.name): run.token for run in self.runs(project) if run.state is not State.PLANNED}
            known = [run for run in runs if tokens.get((run.study, run.name)) == run.token]
            record(known)
            self._db.executemany(
                "DELETE FROM run WHERE project = ? AND study = ? AND name = ? AND token = ?",
                [(str(project), run.study, run.name, run.token) for run in known],
            )
        return known

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
            self._add(project, target, map(_of_record, records), "IGNORE")

    def add_runs(self, project: Path, target: str, records: Sequence[RunRecord]) -> None:
        """Add runs from records found on a target; runs that the project has already are not changed."""
        with self._writing():
            self._add(project, target, map(_of_record, records), "IGNORE")

    def _add(
        self, project: Path, target: str, runs: Iterable[tuple[Run | RunRecord, dict[str, object]]], over: str
    ) -> None:
        """Insert runs, each with what else its row holds; one that is there is replaced, or stays (``IGNORE``)."""
        first = self._db.execute("SELECT coalesce(max(position), 0) + 1 FROM run").fetchone()[0]
        rows = []
        for position, (run, more) in enumerate(runs, start=first):
            row = {"project": str(project), "target": target, "position": position, **more}
            rows.append({**row, **{key: getattr(run, key) for key in SAME}})
        self._insert(rows, over)

    def _insert(self, rows: Sequence[Mapping[str, object]], over: str = "REPLACE") -> None:
        """Insert rows that have the same columns in the same order."""
        if rows:
            columns, places = (", ".join(map(form.format, rows[0])) for form in ('"{}"', "?"))
            values = [tuple(row.values()) for row in rows]
            self._db.executemany(f"INSERT OR {over} INTO run ({columns}) VALUES ({places})", values)


_when_and_which = attrgetter("observed_at", "project", "study", "name", "token")


def _of_record(known: RunRecord) -> tuple[RunRecord, dict[str, object]]:
    """Return a run that a record tells of, with what its row holds besides; where it stands isn't known yet."""
    return known, {
        "name": known.run, "token": known.token, "state": State.UNKNOWN,
        "spec": _spec(known, _own(known.train, known.program, known.train_code), known.study_file),
    }  # fmt: skip


def _of_script(run: Run) -> ProgramRecord | None:
    if run.program is None:
        return None
    from .programs import script  # here: few need it

    return script.kept(run)


def _own(settings: Mapping[str, object], program: ProgramRecord | None, code: str) -> dict[str, object]:
    """Return what is kept of a program."""
    if program is None:
        return {"train": settings}
    kept = {key: program.get(key) for key in length.KEPT}
    goal = (program.get("metrics") or {}).get("goal")  # of a record alone there is more
    return {"program": {**kept, "metrics": {"goal": goal}}, "code": code}


def _spec(run: Run | RunRecord, own: Mapping[str, object], study_file: str | None) -> str:
    """Return what is kept here of a run's configuration, of which the record lies in its run directory."""
    from msgspec.json import encode  # here: a status starts without it

    spec = {**own, "global_batch": run.global_batch, "extended_from": run.extended_from}
    more = {"left": run.left, "study_file": study_file}
    return encode({**spec, **{key: value for key, value in more.items() if value}}).decode()


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

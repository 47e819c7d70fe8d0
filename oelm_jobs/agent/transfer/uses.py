"""What runs that are not over use below a root: each by its newest submission, and where it stands."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Set, Tuple

from .. import privacy, probe, records, rundir
from ..sentences import _
from ..states import FINAL, State

if TYPE_CHECKING:
    from .. import messages

NAME = re.compile(r"[0-9a-f]{16}")
"""A snapshot's name."""


class Use(NamedTuple):
    """A run's use of a root: who names what it needs."""

    time: float
    """When it was submitted; a run's newest use counts."""
    token: str
    snapshot: str
    """Name of the snapshot; empty where an older version did not write it down."""
    is_slurm: bool
    script: str
    """Path of its launch script."""


class Uses:
    """The uses of a root, as they were when they were looked for; where a run stands is asked once, when it is asked
    for.
    """

    def __init__(self, root: str, top: str) -> None:
        """Look for them.

        Args:
            top: Folder of the run directories.
        """
        self.newest: Dict[str, Use] = {}
        """By run directory."""
        self.unanswered: List[Tuple[str, Use]] = []
        """Those of submissions without an answer."""
        self.unread = ""
        """Path of a submission's file that can't be understood; empty where there is none."""
        self.note = ""
        """Why where some of them stand can't be told; empty as long as it could."""
        self._root = root
        self._states: Dict[str, str] = {}
        for path in sorted(Path(root, rundir.CONTROL, "submissions").glob("*.json")):
            try:
                for run_dir, use in self._of_submission(rundir.read_json(path) or {}):
                    self._add(run_dir, use)
            except (KeyError, TypeError, ValueError):
                self.unread = str(path)
        self.with_needs: Set[str] = set()
        """Run directories whose own record says that it needs others."""
        for run_dir, use, has_needs in _recorded(top):
            self._add(run_dir, use)
            if has_needs:
                self.with_needs.add(run_dir)

    def _add(self, run_dir: str, use: Use) -> None:
        self.newest[run_dir] = max(use, self.newest.get(run_dir, use))

    def _of_submission(self, content: Dict[str, Any]) -> Iterator[Tuple[str, Use]]:
        """Yield the uses by a submission whose answer is known; note the others."""
        token, at, name = str(content["token"]), float(content["time"]), str(content.get("snapshot") or "")
        if content.get("settled"):
            return
        if content.get("scheduler") != "slurm":
            for run_dir in content["runs"]:
                yield str(run_dir), Use(at, token, name, False, str(rundir.control(run_dir, rundir.SCRIPT)))
            return
        from ..slurm import submit as slurm_submit  # here, because few hosts have Slurm

        for job in content["jobs"]:
            position = int(job["position"])
            answer = slurm_submit.answer_of(self._root, token, position)
            script = slurm_submit.file_of(self._root, token, position, ".sh")
            if answer is not None and "refused" in answer:
                continue
            if answer is None or "id" not in answer:
                use = Use(at, token, name, True, str(script))
                self.unanswered += [(str(run_dir), use) for run_dir in job["run_dirs"]]
                continue
            use = Use(at, token, name or snapshot_in(script), True, str(script))
            for run_dir in job["run_dirs"]:
                yield str(run_dir), use

    def not_over(self, run_dirs: Iterable[str]) -> Dict[str, str]:
        """Return the states of those of these runs, whoever's, that aren't over."""
        wanted = [run_dir for run_dir in run_dirs if run_dir not in self._states]
        asked: Dict[str, Use] = {}
        for run_dir in wanted:
            if privacy.another(run_dir):
                self._states[run_dir] = "" if _is_over_there(run_dir) else State.UNKNOWN
            else:
                asked[run_dir] = self.newest[run_dir]
        rows = self._rows(asked)
        self._states.update((run_dir, _unless_over(rows.get(run_dir))) for run_dir in asked)
        return {run_dir: self._states[run_dir] for run_dir in run_dirs if self._states[run_dir]}

    def _rows(self, asked: Dict[str, Use]) -> Dict[str, messages.RunRow]:
        """Return where this user's runs stand, without those that can't be asked about."""
        rows = {run_dir: probe.state_or_unknown(run_dir, dict) for run_dir, use in asked.items() if not use.is_slurm}
        runs = [(run_dir, use.token) for run_dir, use in asked.items() if use.is_slurm]
        if runs:
            from ..slurm import commands as slurm_commands
            from ..slurm import state as slurm_state

            try:
                rows.update(slurm_state.slurm_poll({"root": self._root, "runs": runs, "interval_s": 0.0})["runs"])
            except slurm_commands.SlurmError as error:
                self.note = _("jobs can't be asked about: {why}", str(error))
        return rows


def _recorded(top: str) -> Iterator[Tuple[str, Use, bool]]:
    """Yield the uses that run directories record themselves, and whether these runs need others: a script may have been
    started by hand.
    """
    for folder, folders, _names in os.walk(top):
        record = rundir.read_json(rundir.control(folder, rundir.RUN))
        if record is not None:
            folders[:] = []
            name = str(record.get("snapshot") or "")
            if NAME.fullmatch(name):
                is_slurm = record.get("scheduler") == "slurm"
                script = str(rundir.control(folder, rundir.SCRIPT))
                yield (
                    folder,
                    Use(0.0, str(record.get("token") or ""), name, is_slurm, script),
                    bool(record.get("needs")),
                )
        folders[:] = [name for name in folders if not name.startswith(".")]


def snapshot_in(script: Path) -> str:
    """Return the snapshot that a launch script names; empty where that isn't known."""
    held = rundir.records_of(script)
    return str(held[0].get("snapshot") or "") if held else ""


def _unless_over(row: Optional[messages.RunRow]) -> str:
    """Return a run's state, empty where it is over."""
    if row is None:
        return State.UNKNOWN
    return "" if row["state"] in FINAL or row.get("absent") else row["state"]


def _is_over_there(run_dir: str) -> bool:
    """Tell whether another user's run is over, by its own records."""
    end = records.END.read_if_sound(run_dir)
    is_over = end is not None and end["state"] in FINAL
    return is_over and not rundir.is_locked(rundir.control(run_dir, rundir.CLAIM))

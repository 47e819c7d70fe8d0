"""The keys of a target that only Slurm has, and which options of sbatch it may set.

Source: sbatch(1). Options are passed on as they are, so any header can be expressed; only what submission and resume
rest on is refused.
"""

from __future__ import annotations

import datetime
import re
from typing import Any

from .. import tomlfile
from ..agent.sentences import _
from ..spec.options import GPU_OPTIONS, Slurm

OWNED = {
    "job-name": _("it holds the submission's token"),
    **dict.fromkeys(("output", "error"), _("a run's words go to its own folder: oelm-logs shows them")),
    "input": _("the script reads its own record"),
    "open-mode": _("logs are appended to over all starts of a job"),
    "array": _("arrays are made for seeds and sweeps; max_parallel of the target limits how many run at a time"),
    "signal": _("warning_s of the target says how long before its end a run is warned"),
    **dict.fromkeys(("requeue", "no-requeue"), _("requeue of the target says it")),
    "chdir": _("a run works in its snapshot of the code; root of the target says where that lies"),
    "wrap": _("the script is the toolkit's"),
    **dict.fromkeys(("parsable", "quiet"), _("sbatch's answer is read by the toolkit")),
    "wait": _("oelm-submit --wait waits"),
    "test-only": _("oelm-submit --dry-run shows a plan"),
    **dict.fromkeys(("help", "usage", "version"), _("is no option of a job")),
}
"""Options that a target can't set, with the reason."""
OF_TARGET = frozenset(
    {"data", "env", "gpus_per_run", "host", "kind", "login_shell", "max_parallel", "max_timeouts", "poll_s", "python",
     "root", "setup", "template", "user", "warning_s"}
)  # fmt: skip
"""Keys of a target that are easily written among sbatch's options, where none is called so."""
SHORT = {
    "A": "account", "B": "extra-node-info", "C": "constraint", "D": "chdir", "G": "gpus", "J": "job-name",
    "L": "licenses", "M": "clusters", "N": "nodes", "S": "core-spec", "a": "array", "b": "begin",
    "c": "cpus-per-task", "d": "dependency", "e": "error", "i": "input", "m": "distribution", "n": "ntasks",
    "o": "output", "p": "partition", "q": "qos", "s": "oversubscribe", "t": "time", "w": "nodelist", "x": "exclude",
}  # fmt: skip
"""Short options by letter: the long name is what a targets file takes."""
_NAME = re.compile(r"[a-z][a-z0-9-]*")


def read_slurm(table: tomlfile.Section, *, is_remote: bool) -> Slurm:
    """Take the keys of a target that only Slurm has."""
    if "gpus" in table:
        _pinned(table, "gpus", table.take_any("gpus"))
    options = table.take_section("sbatch")
    words: dict[str, str | None] = {}
    for key in options.keys_left():
        name = key.replace("_", "-").removeprefix("--")
        value = options.take_any(key)
        if name in GPU_OPTIONS and isinstance(value, list):
            _pinned(options, key, value)
        elif why := _why_not(key, name, value):
            is_time = isinstance(value, (datetime.date, datetime.time))
            options.wrong(key, why, value=str(value) if is_time else value)
        elif value is not False:
            words[name] = None if value is True else str(value)
    slurm = Slurm(
        sbatch=words,
        login_shell=table.take("login_shell", bool, is_remote),
        requeue=table.take("requeue", bool, True),
        warning_s=table.take("warning_s", int, 120),
        max_timeouts=table.take("max_timeouts", int, 100),
        max_parallel=table.take("max_parallel", int, 0),
        poll_s=table.take("poll_s", float, 30.0),
    )
    for key in ("warning_s", "max_timeouts", "max_parallel", "poll_s"):
        if getattr(slurm, key) < 0:
            table.wrong(key, _("must not be negative"), value=getattr(slurm, key))
    return slurm


def _why_not(key: str, name: str, value: Any) -> str:
    """Return why an option can't be set to a value; empty where it can.

    Args:
        key: As the file writes it.
        name: As sbatch does, without the dashes in front.
    """
    if len(name) == 1:
        return _("give the long name: {name}", SHORT[name]) if name in SHORT else _("give the long name")
    if name.replace("-", "_") in OF_TARGET:
        return _("is a key of the target itself: write it above this table")
    if name in OWNED:
        return _("is the toolkit's own: {why}", OWNED[name])
    if isinstance(value, (datetime.date, datetime.time)):
        return _('put it in quotes: {key} = "{value}"', key, str(value))
    if name == "dependency" and "singleton" in str(value):
        return _("means nothing here, as job names are unique: max_parallel of the target limits how many run")
    if name == "clusters" and (not re.fullmatch(r"[\w.-]+", str(value)) or value in (True, "all")):
        return _("give one: each cluster is a target of its own")
    if name == "nodes" and not re.fullmatch(r"[1-9]\d*", str(value)):
        return _("give one number: a run's processes are divided over its nodes")
    if not _NAME.fullmatch(name) or not isinstance(value, (str, int, float)) or "\n" in str(value):
        return _("give long options of sbatch with a text, a number, or true")
    return ""


def _pinned(table: tomlfile.Section, key: str, value: Any) -> None:
    """Note an error about GPUs that are named by their indices."""
    hint = _("gpus_per_run = N in the target gives every run N of them")
    table.wrong(key, _("Slurm chooses the GPUs, a target says only how many"), value=value, hint=hint)

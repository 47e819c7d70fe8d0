"""The record of a run (run.json): its fields, and to and from JSON; records.py has their limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, Mapping, NamedTuple, Optional, Sequence, Union

if TYPE_CHECKING:
    from .record_types import Extended, Left, LockStamp, NeedRecord, ProgramRecord


class RunRecord(NamedTuple):
    """A run as its submission wrote it down (run.json); the fields in the order of the file.

    What is None is left out of a new file, but for ``port``, ``after`` and ``extended_from``; what a record that was
    read holds besides is kept.
    """

    version: int = 1
    token: str = ""
    """Of its submission."""
    study: str = ""
    run: str = ""
    """Its name."""
    group: str = ""
    label: str = ""
    seed: int = 0
    tag: str = ""
    target: str = ""
    project: str = ""
    """Path of the project on the machine that submitted it."""
    run_dir: str = ""
    fingerprint: str = ""
    """Empty where the data could not be hashed."""
    snapshot: str = ""
    revision: str = ""
    diff: str = ""
    train_code: str = ""
    factors: Mapping[str, Any] = {}
    train: Mapping[str, Any] = {}
    world_size: int = 0
    global_batch: int = 0
    gpus: Union[int, Sequence[int]] = 0
    """How many, or which."""
    port: Optional[int] = None
    """The port that was asked for."""
    after: Optional[str] = None
    """Run directory of the run before it in its lane."""
    stop_on_failure: bool = False
    max_retries: int = 0
    extended_from: "Optional[Extended]" = None
    """The run that it continues."""
    left: "Optional[Sequence[Left]]" = None
    """What it has left on other targets."""
    needs: "Optional[Sequence[NeedRecord]]" = None
    """The runs that it needs; None where it needs none."""
    study_file: Optional[str] = None
    """Path of its study's file on the machine that submitted it, where the study's name alone doesn't tell it."""
    share: Optional[str] = None
    scheduler: Optional[str] = None
    """``slurm``, or None."""
    warning_s: Optional[float] = None
    max_timeouts: Optional[int] = None
    requeue: Optional[bool] = None
    fate: Optional[str] = None
    """File of its job's fate; empty where nobody submitted the script."""
    notify: Optional[str] = None
    """Folder of what a job is to tell of it."""
    program: "Optional[ProgramRecord]" = None
    """What it executes; None for the built-in trainer, by ``command``."""
    command: Optional[Sequence[str]] = None
    queued_at: Optional[float] = None
    """When it was first submitted, Unix seconds."""
    lock: "Optional[LockStamp]" = None
    """The lock of its study that was in force then; None where there was none."""
    as_read: Mapping[str, Any] = {}
    """The object that it was read from, but for its command, which the supervisor adds at the end."""

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "RunRecord":
        """Return the record in an object of its shape (records.RUN); null and absent are the same."""
        as_read = {name: value for name, value in content.items() if name != "command"}
        known = {name: content[name] for name in _RUN_FIELDS if content.get(name) is not None}
        return cls(**known, as_read=as_read)

    def to_json(self) -> Dict[str, Any]:
        """Return the object to write; of a record that was read, that object with what was replaced since."""
        if self.as_read:
            pairs = zip(_RUN_FIELDS, self, RunRecord.of(self.as_read))
            return dict(self.as_read, **{name: value for name, value, before in pairs if value != before})
        return {name: value for name, value in zip(_RUN_FIELDS, self) if value is not None or name in _NULLS}


_RUN_FIELDS = RunRecord._fields[:-1]
_NULLS = ("port", "after", "extended_from")

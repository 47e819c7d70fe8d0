"""Files: records that are looked for, data, what is fetched, and what is removed."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple, TypedDict

from ..record_types import ResultFile
from .runs import Stand
from .target import Root, _CheckpointsMay


class FindRequest(Root, _CheckpointsMay):
    """Where records are looked for."""


class FindAnswer(TypedDict):
    """The records of runs, which nobody has judged yet (names.what_is_wrong)."""

    runs: List[Dict[str, object]]


class Aside(TypedDict):
    """A run that was started over or forgotten: where it lay, and where it was moved to, as far as that is known."""

    run_dir: str
    token: str
    place: str


class ArchivedRequest(TypedDict):
    """Such runs, by words of the client's."""

    runs: Dict[str, Aside]


class ArchivedAnswer(TypedDict):
    """Where they lie now, by these words; empty where nothing of one is there."""

    runs: Dict[str, str]


class TokenFile(TypedDict, total=False):
    """What a data file holds, or why that isn't known."""

    manifest: Optional[Dict[str, Any]]
    manifest_error: str
    size: int
    written_as: str
    sha256: str
    largest: int
    at: int
    error: str


class _DataMay(TypedDict, total=False):
    whole: Optional[bool]


class DataRequest(Root, _DataMay):
    """Data files that are looked at."""

    files: List[str]


class DataAnswer(TypedDict):
    """By path."""

    files: Dict[str, TokenFile]


class _EachMay(TypedDict, total=False):
    each: bool


class ContentRequest(Root, _EachMay):
    """Files and folders that are hashed; ``each``: what is in folders is told one by one."""

    files: List[str]


class Content(TypedDict, total=False):
    """What a file or a folder holds, or why that isn't known."""

    size: int
    sha256: str
    files: Dict[str, str]
    arriving: str
    error: str


class ContentAnswer(TypedDict):
    """By path."""

    files: Dict[str, Content]


class ExpectRequest(TypedDict):
    """Where a data file is to lie."""

    folder: str
    name: str
    link: bool


class ExpectAnswer(TypedDict, total=False):
    """Where to put it meanwhile; or ``error``."""

    staging: str
    link: str
    free: int
    rsync: str
    error: str


class AcceptRequest(TypedDict):
    """Data files that have arrived, with their hashes."""

    staging: str
    folder: str
    files: Dict[str, str]


class AcceptAnswer(TypedDict):
    """Their names, by what was done with them."""

    placed: List[str]
    damaged: List[str]
    taken: List[str]


class _HadMay(TypedDict, total=False):
    have: Optional[Dict[str, str]]


class Had(_HadMay):
    """A run, and the hashes of what is known of it here."""

    run_dir: str


class _InventoryMay(TypedDict, total=False):
    records: bool


class InventoryRequest(_InventoryMay):
    """Runs that are to be fetched, with which of their checkpoints; ``records``: only what a report reads of them."""

    runs: List[Had]
    checkpoints: str


class _AnnouncedMay(TypedDict, total=False):
    content: str
    source: str


class Announced(_AnnouncedMay):
    """A file that there is."""

    name: str
    size: int
    sha256: str
    grows: bool


class _HeldMay(TypedDict, total=False):
    path: str
    absent: Optional[bool]


class Held(_HeldMay, Stand):
    """What a run directory holds."""

    files: List[Announced]
    left: List[ResultFile]
    gone: List[str]
    final: bool
    origin: str


class InventoryAnswer(TypedDict):
    """By run directory."""

    rsync: str
    runs: Dict[str, Held]


class ReleaseRequest(TypedDict):
    """Files that were kept for a fetch, by run directory."""

    runs: Dict[str, List[str]]


class Nothing(TypedDict):
    """An answer that says nothing."""


class Removable(TypedDict):
    """Files of a run that lie at home, with size and hash."""

    run_dir: str
    files: Dict[str, Tuple[int, str]]


class RemoveRequest(Root, _CheckpointsMay):
    """Files to remove."""

    runs: List[Removable]


class Freed(TypedDict):
    """What was removed, and the bytes that it took."""

    removed: List[str]
    freed: int


class Removed(Freed):
    """What was removed of a run, and why the rest was kept."""

    kept: Dict[str, str]


class RemoveAnswer(TypedDict):
    """By run directory."""

    runs: Dict[str, Removed]


class SnapshotsRequest(Root, _CheckpointsMay, total=False):
    """``young_s``: how old what is unused must be."""

    young_s: float


class _TakenMay(TypedDict, total=False):
    more: int
    """So many others take it, which aren't named."""


class Taken(_TakenMay):
    """A file, or a folder, of a run that another one takes, which isn't over."""

    run_dir: str
    name: str
    """In that run directory."""
    study: str
    run: str
    """Which one takes it."""
    state: str
    """Where that stands."""


class SnapshotsAnswer(TypedDict):
    """Names of snapshots that nobody needs, the bytes they take, and why some could not be judged; the bytes of each
    copy that no run takes; what runs take from others, and why that may be anything.
    """

    unused: List[str]
    freed: int
    note: str
    copies: Dict[str, int]
    taken: List[Taken]
    doubt: str


class DiscardRequest(SnapshotsRequest):
    """Snapshots and copies to remove."""

    names: List[str]
    copies: List[str]


class Discarded(Freed):
    """The copies that are gone, besides."""

    copies: List[str]

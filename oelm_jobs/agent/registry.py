"""The agent's verbs: which module answers each, what it is asked and answers, and whether it may be asked twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, Generic, Mapping, TypeVar

if TYPE_CHECKING:
    from . import messages as m

Asks = TypeVar("Asks", bound=Mapping[str, object])
Answers = TypeVar("Answers", bound=Mapping[str, object])

VERBS: Dict[str, Verb[Any, Any]] = {}
"""All verbs, by name."""


class Verb(str, Generic[Asks, Answers]):
    """A verb: its name, by which it travels, with the types of its request and answer."""

    module: str
    """The module that answers it, with a function of the verb's name."""
    reads: bool
    """Whether it may be asked twice: it changes nothing, or a second time nothing more (``settle``)."""
    is_quick: bool
    """Whether it is answered in the client's own process where the target is this machine."""

    def __new__(cls, name: str, module: str, reads: bool = False, is_quick: bool = False) -> Verb[Asks, Answers]:
        """Return the verb, and enter it in VERBS."""
        VERBS[name] = verb = super().__new__(cls, name)
        verb.module, verb.reads, verb.is_quick = module, reads, is_quick
        return verb


LAUNCH: Verb[m.LaunchRequest, m.LaunchAnswer] = Verb("launch", "host.launch")
SETTLE: Verb[m.Submission, m.SettleAnswer] = Verb("settle", "host.launch", reads=True)
CANCEL: Verb[m.RunDirs, m.Cancelled] = Verb("cancel", "host.cancel")
ARCHIVE: Verb[m.ArchiveRequest, m.Moved] = Verb("archive", "host.archive")
PROBE: Verb[m.ProbeRequest, m.PollAnswer] = Verb("probe", "probe", reads=True, is_quick=True)
LOG: Verb[m.LogRequest, m.LogAnswer] = Verb("log", "probe", reads=True, is_quick=True)
FIND: Verb[m.FindRequest, m.FindAnswer] = Verb("find", "transfer.find", reads=True)
ARCHIVED: Verb[m.ArchivedRequest, m.ArchivedAnswer] = Verb("archived", "transfer.find", reads=True)
DATA: Verb[m.DataRequest, m.DataAnswer] = Verb("data", "transfer.tokens", reads=True, is_quick=True)
CONTENT: Verb[m.ContentRequest, m.ContentAnswer] = Verb("content", "transfer.contents", reads=True, is_quick=True)
EXPECT: Verb[m.ExpectRequest, m.ExpectAnswer] = Verb("expect", "transfer.tokens", reads=True)
ACCEPT: Verb[m.AcceptRequest, m.AcceptAnswer] = Verb("accept", "transfer.tokens")
INVENTORY: Verb[m.InventoryRequest, m.InventoryAnswer] = Verb("inventory", "transfer.inventory", reads=True)
RELEASE: Verb[m.ReleaseRequest, m.Nothing] = Verb("release", "transfer.inventory", reads=True)
REMOVE: Verb[m.RemoveRequest, m.RemoveAnswer] = Verb("remove", "transfer.inventory")
SNAPSHOTS: Verb[m.SnapshotsRequest, m.SnapshotsAnswer] = Verb("snapshots", "transfer.clean", reads=True)
DISCARD: Verb[m.DiscardRequest, m.Discarded] = Verb("discard", "transfer.clean")
EXAMINE: Verb[m.ExamineRequest, m.ExamineAnswer] = Verb("examine", "checks.examine", reads=True)
SLURM_SUBMIT: Verb[m.SlurmSubmitRequest, m.SlurmSubmitAnswer] = Verb("slurm_submit", "slurm.submit")
SLURM_SETTLE: Verb[m.Submission, m.SlurmSettleAnswer] = Verb("slurm_settle", "slurm.submit", reads=True)
SLURM_POLL: Verb[m.SlurmPollRequest, m.PollAnswer] = Verb("slurm_poll", "slurm.state", reads=True)
SLURM_CANCEL: Verb[m.SlurmCancelRequest, m.Cancelled] = Verb("slurm_cancel", "slurm.cancel")
SLURM_ARCHIVE: Verb[m.ArchiveRequest, m.Moved] = Verb("slurm_archive", "slurm.cancel")
SLURM_TRIAL: Verb[m.SlurmTrialRequest, m.SlurmTrialAnswer] = Verb(
    "slurm_trial", "checks.slurm_trial", reads=True, is_quick=True
)

NOTIFY: Verb[m.NotifyRequest, m.NotifyAnswer] = Verb("notify", "notify.asked")
NOTIFY_TEST: Verb[m.NotifyTestRequest, m.NotifyTestAnswer] = Verb("notify_test", "notify.asked")


def may_repeat(name: str) -> bool:
    """Tell whether a request may be sent twice; one without a verb only places trees, which may."""
    return not name or VERBS[name].reads

"""What Slurm's words for why a job waits mean, and which of them no waiting can clear.

Sources: squeue(1), JOB REASON CODES; the names grew over the versions, so families are told by their endings.
"""

from __future__ import annotations

import functools
import re

from ..reasons import because

HELD = {
    "JobHeldUser": "held_by_user",
    "JobHeldAdmin": "held_by_admin",
    "JobHoldMaxRequeue": "started_too_often",
    "launch_failed_requeued_held": "not_launched",
    "job_requeued_in_held_state": "held_since_requeue",
}
"""What waits for ``scontrol release``."""
KNOWN = {
    "": "waits_for_turn",
    "Priority": "waits_for_turn",
    "Resources": "waits_for_nodes",
    "Dependency": "waits_for_job_before",
    "BeginTime": "waits_for_start_time",
    "JobArrayTaskLimit": "waits_for_array",
    "Cleaning": "waits_for_earlier_start",
    "Reservation": "waits_for_reservation",
    "Licenses": "waits_for_licenses",
    "Nodes required for job are DOWN": "waits_for_its_nodes",
    "PartitionDown": "partition_down",
    "PartitionInactive": "partition_inactive",
    "ReqNodeNotAvail": "node_not_available",
    "NodeDown": "node_down",
    "PartitionNodeLimit": "too_few_nodes",
}
"""What time clears, or somebody: Slurm's words, and the codes of reasons.py."""
NEVER = {
    "PartitionTimeLimit": "time_above_limit",
    "PartitionConfig": "not_in_partition",
    "BadConstraints": "no_such_node",
    "InvalidAccount": "no_such_account",
    "AccountNotAllowed": "account_not_taken",
    "InvalidQOS": "no_such_quality",
    "QOSNotAllowed": "quality_not_taken",
    "DependencyNeverSatisfied": "impossible_dependency",
    "MaxMemPerLimit": "too_much_memory",
}
"""What no waiting clears."""
_MINUTES = re.compile(r"^(QOS|Assoc)Grp(Wall|\w*Minutes)(Limit)?$")
_LEAST = re.compile(r"^(QOS|Assoc)?Min(?!utes)\w+$")
_PER_JOB = re.compile(r"(Max\w*Per(Job|Node)(Limit)?|Max(WallDuration|Wall)\w*)$")
_PER_USER = re.compile(r"^(QOS|Assoc|Max)\w*Max\w*PerUser(Limit)?$")
_PER_GROUP = re.compile(r"^(QOS|Assoc)Grp\w+$|^(QOS)?Max\w+PerAccount(Limit)?$")


def _name(word: str) -> str:
    """Return a word's name: some are sentences, with blanks or underscores by version; a comma leads to details."""
    name = word.partition(",")[0].strip()
    underscored = name.replace(" ", "_")
    return underscored if underscored in HELD else name


def is_held(word: str) -> bool:
    """True where nothing but ``scontrol release`` lets the job start: a start that Slurm expects means nothing then."""
    return _name(word) in HELD


def is_per_user(word: str) -> bool:
    """True where the job waits for a limit on what one user has at a time."""
    return bool(_PER_USER.match(_name(word)))


def is_per_group(word: str) -> bool:
    """True where the job waits for a limit on what all users of an account or a quality of service have at a time."""
    name = _name(word)
    return bool(_PER_GROUP.match(name)) and not _MINUTES.match(name)


def can_never_start(word: str, may_clear: bool) -> str:
    """Return the code of why a job that waits for ``word`` will never start as it is; empty where it may.

    Args:
        may_clear: Whether a limit per user or group may clear, because jobs of theirs will end.
    """
    name = _name(word)
    if name in NEVER:
        return NEVER[name]
    if _LEAST.match(name):
        return "below_least"
    if _PER_JOB.search(name):
        return "above_job_limit"
    if is_per_user(name) and not may_clear:
        return "above_user_limit"
    if is_per_group(name) and not may_clear:
        return "above_group_limit"
    return ""


@functools.lru_cache(maxsize=None)  # thousands of jobs wait for a handful of reasons
def explain(word: str, may_clear: bool) -> str:
    """Return why a job waits, Slurm's own word for it in parentheses (``can_never_start``'s arguments)."""
    name = _name(word)
    never = can_never_start(name, may_clear)
    if never:
        return because("cannot_start", why=because(never), name=name)
    if name in HELD:
        return because("held", what=because(HELD[name]), name=name)
    if _MINUTES.match(name) and "Run" not in name:  # those of running jobs come back as these end
        return because("minutes_used_up", name=name)
    if name in KNOWN:
        what = because(KNOWN[name])
        details = [part.strip() for part in word.split(",")] if name == "ReqNodeNotAvail" else [name]
        return because("named", what=what, name=", ".join(details)) if name and " " not in name else what
    return because("waits_for_limit" if "Limit" in name or "Max" in name or "Grp" in name else "waits", name=name)

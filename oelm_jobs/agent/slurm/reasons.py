"""What Slurm's reasons for waiting mean, and which of them no waiting can clear.

Sources: squeue(1), JOB REASON CODES; the names grew over the versions, so families are told by their endings.
"""

from __future__ import annotations

import functools
import re

WAITING = {
    "": "waits for its turn",
    "Priority": "waits for its turn",
    "Resources": "waits for free nodes",
    "Dependency": "waits for the job before it",
    "BeginTime": "waits for its start time",
    "JobArrayTaskLimit": "waits for other runs of its array",
    "Cleaning": "waits for its earlier start to end",
    "Reservation": "waits for its reservation",
    "Licenses": "waits for licenses",
    "Nodes required for job are DOWN": "waits: its nodes are down, drained or reserved for jobs of higher priority",
}
"""Reasons that time alone clears."""
HELD = {
    "JobHeldUser": "held by you",
    "JobHeldAdmin": "held by an administrator",
    "JobHoldMaxRequeue": "held: started again too often",
    "launch_failed_requeued_held": "held: it could not be launched",
    "job_requeued_in_held_state": "held since it was requeued",
}
"""Reasons that wait for ``scontrol release``."""
PEOPLE = {
    **HELD,
    "PartitionDown": "the partition is down",
    "PartitionInactive": "the partition is inactive",
    "ReqNodeNotAvail": "a node that it asks for is not available",
    "NodeDown": "a node that it needs is down",
    "PartitionNodeLimit": "nodes are down or drained, or it asks for more of them than the partition allows",
}
"""Reasons that wait for somebody."""
NEVER = {
    "PartitionTimeLimit": "its time is above the partition's limit",
    "PartitionConfig": "the partition does not allow what it asks for",
    "BadConstraints": "no node has what it asks for",
    "InvalidAccount": "the account does not exist or is not yours",
    "AccountNotAllowed": "the partition does not take this account",
    "InvalidQOS": "the quality of service does not exist or is not yours",
    "QOSNotAllowed": "the partition does not take this quality of service",
    "DependencyNeverSatisfied": "it depends on a job that can't end as it asks",
    "MaxMemPerLimit": "it asks for more memory than one job may have",
}
"""Reasons that no waiting clears."""
_MINUTES = re.compile(r"^(QOS|Assoc)Grp(Wall|\w*Minutes)(Limit)?$")
_LEAST = re.compile(r"^(QOS|Assoc)?Min(?!utes)\w+$")
_PER_JOB = re.compile(r"(Max\w*Per(Job|Node)(Limit)?|Max(WallDuration|Wall)\w*)$")
_PER_USER = re.compile(r"^(QOS|Assoc|Max)\w*Max\w*PerUser(Limit)?$")
_PER_GROUP = re.compile(r"^(QOS|Assoc)Grp\w+$|^(QOS)?Max\w+PerAccount(Limit)?$")


def _name(reason: str) -> str:
    """Return a reason's name: some are sentences, with blanks or underscores by version; a comma leads to details."""
    name = reason.partition(",")[0].strip()
    underscored = name.replace(" ", "_")
    return underscored if underscored in HELD else name


def is_held(reason: str) -> bool:
    """True where nothing but ``scontrol release`` lets the job start: a start that Slurm expects means nothing then."""
    return _name(reason) in HELD


def is_per_user(reason: str) -> bool:
    """True where the job waits for a limit on what one user has at a time."""
    return bool(_PER_USER.match(_name(reason)))


def is_per_group(reason: str) -> bool:
    """True where the job waits for a limit on what all users of an account or a quality of service have at a time."""
    name = _name(reason)
    return bool(_PER_GROUP.match(name)) and not _MINUTES.match(name)


def can_never_start(reason: str, may_clear: bool) -> str:
    """Return why a job that waits for ``reason`` will never start as it is; empty where it may.

    Args:
        may_clear: Whether a limit per user or group may clear, because jobs of theirs will end.
    """
    name = _name(reason)
    if name in NEVER:
        return NEVER[name]
    if _LEAST.match(name):
        return "it asks for less than one job must have"
    if _PER_JOB.search(name):
        return "it asks for more than one job may have"
    if is_per_user(name) and not may_clear:
        return "it asks for more than you may have"
    if is_per_group(name) and not may_clear:
        return "it asks for more than its account or quality of service may have"
    return ""


@functools.lru_cache(maxsize=None)  # thousands of jobs wait for a handful of reasons
def explain(reason: str, may_clear: bool) -> str:
    """Return in words why a job waits, Slurm's own name for it in parentheses (``can_never_start``'s arguments)."""
    name = _name(reason)
    never = can_never_start(name, may_clear)
    if never:
        return "can't start: %s (%s)" % (never, name)
    if name in HELD:
        return "%s (%s); scontrol release lets it go" % (HELD[name], name)
    if name == "ReqNodeNotAvail":
        return "%s (%s)" % (PEOPLE[name], ", ".join(part.strip() for part in reason.split(",")))
    if name in PEOPLE:
        return "%s (%s)" % (PEOPLE[name], name)
    if _MINUTES.match(name) and "Run" not in name:  # those of running jobs come back as these end
        return "waits: the minutes of its account or quality of service are used up, or too few for it (%s)" % name
    if " " in name and name in WAITING:
        return WAITING[name]
    if name in WAITING:
        return "%s (%s)" % (WAITING[name], name) if name else WAITING[name]
    if "Limit" in name or "Max" in name or "Grp" in name:
        return "waits for a limit to clear (%s)" % name
    return "waits (%s)" % name

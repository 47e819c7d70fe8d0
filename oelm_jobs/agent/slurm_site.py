"""Owns what a cluster is like: its limits, partitions, GPUs, accounts; leaves judging it to the client (site).

Sources: scontrol(1) show config, sinfo(1), sacctmgr(1).
"""

from __future__ import annotations

import getpass
import re
from typing import Any, Dict, List, Optional

from . import slurm_commands
from .slurm_commands import SlurmError

DEFAULT_MAX_ARRAY = 1001
SACCTMGR_TIMEOUT_S = 8.0
PARTITION_FORMAT = "%R|%P|%a|%l|%L|%D|%G|%f"
"""sinfo's fields: name, name with ``*`` for the default, up or down, time limit, default time, nodes, GPUs, features."""
ACCOUNT_FIELDS = "account,partition,qos,defaultqos,maxsubmitjobs,grpsubmitjobs,maxwall"


def site() -> Dict[str, Any]:
    """Return what bears on submissions of this user.

    Returns:
        ``version``, ``cluster``; ``partitions``: a list of ``name``, ``is_default``, ``is_up``, ``max_time`` and
            ``default_time`` (as sinfo writes them), ``nodes`` (how many), ``gres`` and ``features`` (lists);
            ``accounts`` (a list of ``account``, ``qos``, …; empty without accounting); ``max_array`` (tasks),
            ``max_submit`` (jobs in the queue, or None).

    Raises:
        SlurmError: slurmctld does not answer.
    """
    config = slurm_commands.settings()
    size = int(config.get("MaxArraySize") or DEFAULT_MAX_ARRAY)
    accounts = associations() if "slurmdbd" in config.get("AccountingStorageType", "") else []
    most = max_submit(accounts)
    return {
        "version": config.get("SLURM_VERSION", ""),
        "cluster": config.get("ClusterName", ""),
        "partitions": partitions(),
        "accounts": accounts,
        "max_array": max(1, min(size, most or size)),
        "max_submit": most,
    }


def partitions() -> List[Dict[str, Any]]:
    """Return the partitions, those of unlike nodes put together.

    Raises:
        SlurmError: slurmctld does not answer.
    """
    code, out, err = slurm_commands.call(
        ["sinfo", "--noheader", "--format=" + PARTITION_FORMAT], slurm_commands.QUEUE_TIMEOUT_S
    )
    if code != 0:
        raise SlurmError("sinfo: %s" % slurm_commands.said(err, "exit code %d" % code))
    found = {}  # type: Dict[str, Dict[str, Any]]
    for line in out.splitlines():
        fields = line.split("|", 7)
        if len(fields) != 8:
            continue
        name, marked, up, limit, default, nodes, gres, features = fields
        row = found.setdefault(
            name,
            {"name": name, "is_default": marked.endswith("*"), "is_up": up == "up", "max_time": limit,
             "default_time": default, "nodes": 0, "gres": [], "features": []},
        )  # fmt: skip
        row["nodes"] += int(nodes) if nodes.isdigit() else 0
        row["gres"] += [word for word in parse_gres(gres) if word not in row["gres"]]
        row["features"] += [w for w in features.split(",") if w not in ("", "(null)") and w not in row["features"]]
    return list(found.values())


def parse_gres(words: str) -> List[str]:
    """Return ``gpu:a5000:4`` and the like from sinfo's ``gpu:a5000:4(S:0-1),shard:8``."""
    plain = re.sub(r"\([^)]*\)", "", words)
    return [part for part in plain.split(",") if part]


def associations() -> List[Dict[str, str]]:
    """Return this user's accounts as accounting has them; empty where it does not answer."""
    if slurm_commands.accounting_is_silent():
        return []
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        return []
    argv = ["sacctmgr", "--noheader", "--parsable2", "show", "association", "where", "user=" + user]
    return _table(argv, ACCOUNT_FIELDS)


def max_submit(accounts: List[Dict[str, str]]) -> Optional[int]:
    """Return how many jobs this user may have in the queue, each task of an array for one; None where nobody says."""
    words = [(row["maxsubmitjobs"], row["grpsubmitjobs"]) for row in accounts]
    if accounts:
        mine = {name for row in accounts for name in row["qos"].split(",")}
        argv = ["sacctmgr", "--noheader", "--parsable2", "show", "qos"]
        for row in _table(argv, "name,maxsubmitjobsperuser,grpsubmitjobs"):
            if row["name"] in mine:
                words.append((row["maxsubmitjobsperuser"], row["grpsubmitjobs"]))
    numbers = [int(number) for pair in words for number in pair if number.isdigit()]
    return min(numbers) if numbers else None


def _table(argv: List[str], fields: str) -> List[Dict[str, str]]:
    try:
        code, out, _ = slurm_commands.call([*argv, "format=" + fields], SACCTMGR_TIMEOUT_S)
    except SlurmError:
        slurm_commands.accounting_gave_no_answer("sacctmgr gave no answer")
        return []
    names = fields.split(",")
    rows = [line.split("|") for line in out.splitlines() if code == 0]
    return [dict(zip(names, row)) for row in rows if len(row) == len(names)]

"""Owns what a cluster is like: its limits, partitions, GPUs, accounts and disk quotas; leaves judging it to the client.

Sources: scontrol(1) show config and show partition, sinfo(1), sacctmgr(1).
"""

from __future__ import annotations

import re
from typing import Any, Dict, List, Optional

from . import slurm_commands
from .slurm_commands import SlurmError

DEFAULT_MAX_ARRAY = 1001
SACCTMGR_TIMEOUT_S = 8.0


def limits() -> Dict[str, Any]:
    """Return what bears on a submission: ``max_array`` (tasks), ``max_submit`` (jobs of this user, or None).

    Raises:
        SlurmError: slurmctld does not answer.
    """
    config = slurm_commands.settings()
    size = int(config.get("MaxArraySize") or DEFAULT_MAX_ARRAY)
    most = max_submit()
    return {"max_array": max(1, min([size] + ([most] if most else []))), "max_submit": most}


def max_submit() -> Optional[int]:
    """Return how many jobs this user may have in the queue, tasks of arrays each for one; None where nobody says."""
    known = associations()
    rows = [(row["maxsubmitjobs"], row["grpsubmitjobs"]) for row in known]
    if known:
        mine = {name for row in known for name in row["qos"].split(",")}
        fields = "name,maxsubmitjobsperuser,grpsubmitjobs"
        for row in _table(["sacctmgr", "--noheader", "--parsable2", "show", "qos"], fields):
            if row["name"] in mine:
                rows.append((row["maxsubmitjobsperuser"], row["grpsubmitjobs"]))
    numbers = [int(number) for row in rows for number in row if number.isdigit()]
    return min(numbers) if numbers else None


def associations() -> List[Dict[str, str]]:
    """Return this user's accounts as accounting has them; empty where it keeps none or does not answer."""
    fields = "account,partition,qos,defaultqos,maxsubmitjobs,grpsubmitjobs,maxjobs,maxtres,grptres,maxwall"
    return _table(["sacctmgr", "--noheader", "--parsable2", "show", "association", "where", "user=%s" % _user()], fields)


def _user() -> str:
    import getpass

    return getpass.getuser()


def _table(argv: List[str], fields: str) -> List[Dict[str, str]]:
    try:
        code, out, _ = slurm_commands.call([*argv, "format=" + fields], SACCTMGR_TIMEOUT_S)
    except SlurmError:
        return []
    names = fields.split(",")
    rows = [line.split("|") for line in out.splitlines() if code == 0]
    return [dict(zip(names, row)) for row in rows if len(row) == len(names)]


def parse_gres(words: str) -> List[str]:
    """Return ``gpu:a5000:4`` and the like from sinfo's ``gpu:a5000:4(S:0-1),shard:8``."""
    return [re.sub(r"\(.*?\)", "", part) for part in re.split(r",(?![^(]*\))", words) if part and part != "(null)"]

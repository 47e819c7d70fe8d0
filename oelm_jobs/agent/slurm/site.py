"""What a cluster is like: its limits, partitions, GPUs, accounts, and what sbatch would make of a script.

Sources: scontrol(1) show config, sinfo(1), sacctmgr(1), sbatch(1).
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Dict, List, Mapping, Optional, Sequence, cast

from .. import privacy
from . import accounts, commands, profile, submit, variables
from . import words as slurm_words
from .commands import SlurmError

if TYPE_CHECKING:
    from ..messages import Accounting, Partition, Site, Tested

DEFAULT_MAX_ARRAY = 1001
SACCTMGR_TIMEOUT_S = 8.0
PARTITION_FORMAT = "%R|%P|%a|%l|%L|%D|%G|%f"
"""sinfo's fields: name, again with ``*`` where default, up or down, time limit, default time, nodes, GPUs, features."""
UP = ("up", "down", "drain", "inact")
"""What sinfo says of a partition, and no greeting does (sinfo(1), %a)."""
JOBS = "jobs"
"""What jobs in the queue are called among the resources that are limited."""
UNITS_MIB = {"": 1.0, "K": 2.0**-10, "M": 1.0, "G": 2.0**10, "T": 2.0**20, "P": 2.0**30}
"""What follows an amount of memory; plain numbers are MiB."""
ACCOUNT_FIELDS = "account,partition,qos,defaultqos,maxsubmitjobs,grpsubmitjobs,maxwall,maxtres,grptres"
GROUP_FIELDS = "account,parentname,grpsubmitjobs,maxtres,grptres"
QUALITY_FIELDS = (
    "name,flags,maxsubmitjobsperuser,maxsubmitjobsperaccount,grpsubmitjobs,maxtres,maxtresperuser,maxtresperaccount,"
    "grptres"
)
"""sacctmgr's fields of this user's associations, of the accounts' own, and of qualities of service."""


def site(*, max_age_s: float = 0.0) -> Site:
    """Return what bears on submissions of this user.

    Args:
        max_age_s: How old accounts and limits may be: slurmdbd takes its time, and they rarely change.

    Raises:
        SlurmError: slurmctld does not answer.
    """
    with ThreadPoolExecutor(3) as pool:  # each of them waits for an answer from elsewhere
        configured, listed = pool.submit(commands.settings), pool.submit(partitions)
        accounted = pool.submit(accounting, max_age_s)
        config = configured.result()
        known = accounted.result()
    given = config.get("MaxArraySize", "")
    size = int(given) if given.isdigit() else DEFAULT_MAX_ARRAY
    tasks = re.search(r"max_array_tasks=(\d+)", config.get("SchedulerParameters", ""))
    if tasks:
        size = min(size, int(tasks[1]))
    enforced = set(config.get("AccountingStorageEnforce", "").split(","))
    found: Site = {
        "version": config.get("SLURM_VERSION", ""),
        "cluster": config.get("ClusterName", ""),
        "partitions": listed.result(),
        "users": known["users"],
        "accounts": known["accounts"],
        "groups": known["groups"],
        "qualities": known["qualities"],
        "is_enforced": bool({"associations", "limits", "qos", "safe", "wckeys"} & enforced),
        "is_limited": bool({"limits", "safe"} & enforced),
        "max_array": size,
    }
    kill_wait_s = commands.kill_wait(config)
    if kill_wait_s:
        found["kill_wait_s"] = kill_wait_s
    return found


def test_only(script: str) -> Tested:
    """Ask what sbatch would make of a script (sbatch(1), --test-only); nothing is submitted."""
    try:
        with tempfile.NamedTemporaryFile(prefix="oelm-test-", suffix=".sh") as file:
            file.write(script.encode("utf-8", "surrogateescape"))
            file.flush()
            code, out, err = submit.sbatch(file.name, ["--test-only"], commands.AS_READ)
    except (SlurmError, OSError) as error:
        return {"unknown": str(error)}
    if code == 0:
        start = re.search(r"^sbatch: Job \d+ to start at (\d+)\b", out + "\n" + err, re.MULTILINE)
        return {"starts_in_s": max(0.0, float(start[1]) - time.time()) if start else 0.0}
    answer = cast("Tested", variables.with_variables(slurm_words.read_answer(code, out, err), script))
    if "unrecognized option" in err:
        with contextlib.suppress(SlurmError):
            _, listed, _ = commands.call(["sbatch", "--help"], submit.SBATCH_TIMEOUT_S)
            answer["options"] = sorted(set(re.findall(r"^ .*?--([a-z][a-z0-9-]+)", listed, re.MULTILINE)))
    return answer


def accounting(max_age_s: float) -> Accounting:
    """Return ``users`` (this one, its default account), ``accounts`` (its associations), ``groups`` (all accounts) and
    ``qualities`` (of service), as sacctmgr names their fields, asked for together unless they are known; empty where
    accounting does not answer.
    """
    path = commands.cache_file("accounting")
    known = profile.recall(path, max_age_s)
    if known:
        return cast("Accounting", known["found"])
    cluster = commands.cluster_name()  # one slurmdbd may serve several
    here = ["cluster=" + cluster] if cluster else []
    me = privacy.user_name(os.getuid())  # whom Slurm takes this for, whatever LOGNAME says
    asked = {
        "users": (["user", "where", "name=" + me], "user,defaultaccount"),
        "accounts": (["association", "where", "user=" + me, *here], ACCOUNT_FIELDS),
        "groups": (["association", "where", "user=", *here], GROUP_FIELDS),
        "qualities": (["qos"], QUALITY_FIELDS),
    }
    with ThreadPoolExecutor(len(asked)) as pool:
        rows = {name: pool.submit(_table, words, fields) for name, (words, fields) in asked.items()}
        found = {name: row.result() for name, row in rows.items()}
    if None not in found.values():  # what was not answered is asked again
        profile.keep(path, {"found": found})
    return cast("Accounting", {name: rows or [] for name, rows in found.items()})


def partitions() -> List[Partition]:
    """Return the partitions, those of unlike nodes put together.

    Raises:
        SlurmError: slurmctld does not answer.
    """
    argv = ["sinfo", "--noheader", "--all", "--format=" + PARTITION_FORMAT]
    qualities: Dict[str, str] = {}
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(commands.qualities_of_partitions)
        out = commands.said_by(argv, commands.QUEUE_TIMEOUT_S)
        with contextlib.suppress(SlurmError):
            qualities = asked.result()
    found: Dict[str, Partition] = {}
    for line in out.splitlines():
        fields = line.split("|", 7)
        if len(fields) != 8 or fields[2] not in UP:
            continue
        name, marked, up, limit, default, nodes, gres, features = fields
        row = found.setdefault(
            name,
            {"name": name, "is_default": marked.endswith("*"), "is_up": up == "up",
             "takes_jobs": up in ("up", "down"), "max_time": limit,
             "default_time": default, "nodes": 0, "gres": [], "features": [], "qos": qualities.get(name, "")},
        )  # fmt: skip
        row["nodes"] += int(nodes) if nodes.isdigit() else 0
        plain = re.sub(r"\([^)]*\)", "", gres)  # gpu:a5000:4 of gpu:a5000:4(S:0-1); none of (null)
        for listed, words in ((row["gres"], plain), (row["features"], features.replace("(null)", ""))):
            listed += [word for word in words.split(",") if word and word not in listed]
    return list(found.values())


def limits(known: Accounting, *, account: str, qos: str, partition: str, partition_qos: str) -> Dict[str, float]:
    """Return how much of each resource (``parse_resources``) one job may get at most under all that is limited, for
    itself, its user, its account or all in a quality of service, and how many JOBS this user may have in the queue,
    each task of an array for one; what nobody limits is not in it.

    Of several places that limit the same, the first counts: the partition's quality of service, the job's (the other
    way round where that has the flag OverPartQOS), the user's association, the account's and its parents'
    (https://slurm.schedmd.com/resource_limits.html). Limits of groups hold on every level of accounts.

    Args:
        known: What ``accounting`` returns.
        account: The job's; empty where it isn't known.
        qos: The job's quality of service.
        partition: Its partition.
        partition_qos: That one's quality of service.
    """
    classes = {row["name"]: row for row in known["qualities"]}
    order = [classes[name] for name in (partition_qos, qos) if name in classes]
    if "OverPartQOS" in classes.get(qos, {}).get("flags", ""):
        order.reverse()
    above = [association(known["accounts"], account, partition)]
    parents = {row["account"]: row for row in known["groups"]}
    while account in parents:
        above.append(parents[account])
        account = parents.pop(account)["parentname"]
    of_accounts = _least([_first([row], "grptres", "grpsubmitjobs") for row in above])
    return _least(
        [
            {**of_accounts, **_first(order, "grptres", "grpsubmitjobs")},
            _first([*order, *above], "maxtres", "maxsubmitjobsperuser", "maxsubmitjobs"),
            _first(order, "maxtresperuser"),
            _first(order, "maxtresperaccount", "maxsubmitjobsperaccount"),
        ]
    )


def association(rows: Sequence[Dict[str, str]], account: str, partition: str) -> Dict[str, str]:
    """Return this user's association with an account: the one for a partition, else the one for all; empty where there
    is none.
    """
    found = {row["partition"]: row for row in rows if row["account"] == account}
    return found.get(partition) or found.get("") or {}


def _first(rows: Sequence[Mapping[str, str]], *fields: str) -> Dict[str, float]:
    """Return what fields of rows limit, each as the first row does that limits it; a plain number is one of JOBS."""
    found: Dict[str, float] = {}
    for row in reversed(rows):
        for words in (row.get(field, "") for field in fields):
            found.update({JOBS: float(words)} if words.isdigit() else parse_resources(words))
    return found


def _least(tables: Sequence[Mapping[str, float]]) -> Dict[str, float]:
    """Return what any of some tables limits, as the strictest does."""
    return {name: min(table[name] for table in tables if name in table) for table in tables for name in table}


def parse_resources(words: str) -> Dict[str, float]:
    """Return ``{"cpu": 2, "mem": 2048, "gres/gpu": 1}`` (memory in MiB) from ``cpu=2,mem=2G,gres/gpu=1``."""
    matches = re.finditer(r"([^=,]+)=([0-9.]+)([KMGTP]?)", words)
    return {match[1]: float(match[2]) * UNITS_MIB[match[3]] for match in matches}


def _table(words: List[str], fields: str) -> Optional[List[Dict[str, str]]]:
    """Return the rows of ``sacctmgr show WORDS``; None where it does not answer, or sacct did not a moment ago."""
    if accounts.is_silent() or accounts.is_silent("sacctmgr"):
        return None
    argv = ["sacctmgr", "--noheader", "--parsable2", "show", *words, "format=" + fields]
    try:
        code, out, err = commands.call(argv, SACCTMGR_TIMEOUT_S)
    except SlurmError as error:
        code, out, err = -1, "", str(error)
    if code != 0:
        accounts.gave_no_answer(err, command="sacctmgr")  # sacct may answer all the same
        return None
    names = fields.split(",")
    rows = [line.split("|") for line in out.splitlines()]
    return [dict(zip(names, row)) for row in rows if len(row) == len(names)]

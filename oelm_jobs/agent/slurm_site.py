"""Owns what a cluster is like: its limits, partitions, GPUs, accounts, and what sbatch would make of a script; leaves
judging it to the client (site).

Sources: scontrol(1) show config, sinfo(1), sacctmgr(1), sbatch(1).
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, Iterable, List, Optional, Tuple

from . import rundir, slurm_commands, slurm_submit
from .slurm_commands import SlurmError

DEFAULT_MAX_ARRAY = 1001
SACCTMGR_TIMEOUT_S = 8.0
PARTITION_FORMAT = "%R|%P|%a|%l|%L|%D|%G|%f"
"""sinfo's fields: name, again with ``*`` where default, up or down, time limit, default time, nodes, GPUs, features."""
UNITS_MIB = {"": 1.0, "K": 2.0**-10, "M": 1.0, "G": 2.0**10, "T": 2.0**20, "P": 2.0**30}
"""What follows an amount of memory; plain numbers are MiB."""
ACCOUNT_FIELDS = "account,partition,qos,defaultqos,maxsubmitjobs,grpsubmitjobs,maxwall"


def site(*, max_age_s: float = 0.0) -> Dict[str, Any]:
    """Return what bears on submissions of this user.

    Args:
        max_age_s: How old accounts and limits may be: slurmdbd takes its time, and they rarely change.

    Returns:
        ``version``, ``cluster``; ``partitions``: a list of ``name``, ``is_default``, ``is_up``, ``max_time`` and
            ``default_time`` (as sinfo writes them), ``nodes`` (how many), ``gres`` and ``features`` (lists);
            ``accounts`` (a list of ``account``, ``qos``, …; empty without accounting); ``max_array`` (tasks),
            ``max_submit`` (jobs in the queue, or None).

    Raises:
        SlurmError: slurmctld does not answer.
    """
    with ThreadPoolExecutor(3) as pool:  # each of them waits for an answer from elsewhere
        configured, listed = pool.submit(slurm_commands.settings), pool.submit(partitions)
        accounted = pool.submit(_accounting, max_age_s)
        config = configured.result()
        accounts, classes = accounted.result()
    most = max_submit(accounts, classes)
    size = int(config.get("MaxArraySize") or DEFAULT_MAX_ARRAY)
    tasks = re.search(r"max_array_tasks=(\d+)", config.get("SchedulerParameters", ""))
    if tasks:
        size = min(size, int(tasks[1]))
    return {
        "version": config.get("SLURM_VERSION", ""),
        "cluster": config.get("ClusterName", ""),
        "partitions": listed.result(),
        "accounts": accounts,
        "max_array": max(1, min(size, most or size)),
        "max_submit": most,
    }


def test_only(script: str) -> Dict[str, Any]:
    """Ask what sbatch would make of a script (sbatch(1), --test-only); nothing is submitted.

    Returns:
        ``starts_in_s``, seconds until a job would start; or ``refused``, ``limit`` (no room now) or ``unknown``, with
        sbatch's words; ``options``: the long options that it knows, where it does not know one.
    """
    try:
        with tempfile.NamedTemporaryFile(prefix="oelm-test-", suffix=".sh") as file:
            file.write(script.encode("utf-8", "surrogateescape"))
            file.flush()
            code, out, err = slurm_submit.sbatch(file.name, ["--test-only"])
    except (SlurmError, OSError) as error:
        return {"unknown": str(error)}
    if code == 0:
        start = re.search(r"to start at (\d+)\b", out + err)
        return {"starts_in_s": max(0.0, float(start[1]) - time.time()) if start else 0.0}
    answer = slurm_submit.read_answer(code, out, err)
    if "unrecognized option" in err:
        with contextlib.suppress(SlurmError):
            _, listed, _ = slurm_commands.call(["sbatch", "--help"], slurm_submit.SBATCH_TIMEOUT_S)
            answer["options"] = sorted(set(re.findall(r"^ .*?--([a-z][a-z0-9-]+)", listed, re.MULTILINE)))
    return answer


def _accounting(max_age_s: float) -> Tuple[List[Dict[str, str]], List[Dict[str, str]]]:
    """Return (accounts, qualities of service), asked for together unless they are known."""
    path = slurm_commands.cache_file("accounts")
    known = rundir.read_json(path) if path else None
    if known and 0 <= time.time() - float(known["time"]) < max_age_s:
        return known["accounts"], known["qualities"]
    with ThreadPoolExecutor(2) as pool:
        mine, classes = pool.submit(associations), pool.submit(qualities)
        found = mine.result(), classes.result()
    if path is not None:
        with contextlib.suppress(OSError):
            content = {"time": time.time(), "accounts": found[0], "qualities": found[1]}
            rundir.write_json(path, content, durable=False)
    return found


def partitions() -> List[Dict[str, Any]]:
    """Return the partitions, those of unlike nodes put together.

    Raises:
        SlurmError: slurmctld does not answer.
    """
    code, out, err = slurm_commands.call(
        ["sinfo", "--noheader", "--all", "--format=" + PARTITION_FORMAT], slurm_commands.QUEUE_TIMEOUT_S
    )
    if code != 0:
        raise SlurmError("sinfo: %s" % slurm_commands.said(err, "exit code %d" % code))
    found: Dict[str, Dict[str, Any]] = {}
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
        user = pwd.getpwuid(os.getuid()).pw_name  # whom Slurm takes this for, whatever LOGNAME says
    except KeyError:
        return []
    argv = ["sacctmgr", "--noheader", "--parsable2", "show", "association", "where", "user=" + user]
    return _table(argv, ACCOUNT_FIELDS)


def qualities() -> List[Dict[str, str]]:
    """Return the cluster's qualities of service and their limits; empty where accounting does not answer."""
    if slurm_commands.accounting_is_silent():
        return []
    argv = ["sacctmgr", "--noheader", "--parsable2", "show", "qos"]
    return _table(argv, "name,maxsubmitjobsperuser,grpsubmitjobs,maxtresperuser")


def limits_per_user(names: Iterable[str], *, max_age_s: float) -> Dict[str, float]:
    """Return how much of each resource a user may have at a time (``parse_resources``) under all of these qualities of
    service; what nobody limits is not in it.
    """
    _, classes = _accounting(max_age_s)
    found: Dict[str, float] = {}
    for row in classes:
        if row["name"] in names:
            for resource, amount in parse_resources(row.get("maxtresperuser", "")).items():
                found[resource] = min(amount, found.get(resource, amount))
    return found


def parse_resources(words: str) -> Dict[str, float]:
    """Return ``{"cpu": 2, "mem": 2048, "gres/gpu": 1}`` (memory in MiB) from ``cpu=2,mem=2G,gres/gpu=1``."""
    matches = re.finditer(r"([^=,]+)=([0-9.]+)([KMGTP]?)", words)
    return {match[1]: float(match[2]) * UNITS_MIB[match[3]] for match in matches}


def max_submit(accounts: List[Dict[str, str]], classes: List[Dict[str, str]]) -> Optional[int]:
    """Return how many jobs this user may have in the queue, each task of an array for one; None where nobody says."""
    words = [(row["maxsubmitjobs"], row["grpsubmitjobs"]) for row in accounts]
    mine = {name for row in accounts for name in row["qos"].split(",")}
    words += [(row["maxsubmitjobsperuser"], row["grpsubmitjobs"]) for row in classes if row["name"] in mine]
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

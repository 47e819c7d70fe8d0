"""Whether a cluster can give what a target's options ask for: partitions, time, GPUs, accounts; and what sbatch says.

The agent asks the cluster (agent/slurm/site.py).
"""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..agent.slurm import site as slurm_site
from ..errors import valid_choices
from ..spec.options import Asked, seconds
from ..spec.target import Target
from ..targets.sbatch import named_in, options_of
from .finding import BAD, GOOD, WARNING, Finding

SHORT_S = 3600
"""A default time below this is worth a word."""
SOON_S = 60
"""A job that Slurm would start within so long would start now."""
MENDS = {
    "starts_in_s": "",
    "limit": "none is needed where other jobs of yours take the room: runs are submitted as it comes",
    "unknown": "try it again: the cluster did not answer",
}
"""What to do about what sbatch says of a job, where the job's options are not at fault."""


def judge(target: Target, site: Mapping[str, Any], processes: Iterable[int] = ()) -> list[Finding]:
    """Return what there is to say of a cluster for a target, faults and all.

    Args:
        processes: Numbers of processes that runs start.
    """
    asked = options_of(target).asked
    keeps = "accounting answers" if site["accounts"] else "no accounting to be had"
    found = [Finding(what="slurm", verdict=GOOD, found=f"{site['version']}, cluster {site['cluster']}, {keeps}")]
    placed = _placed(target, site, _partitions(target, site), processes)
    if not asked.partitions:  # a plugin or a variable of the site's may choose another: sbatch will say
        anywhere = _placed(target, site, [str(row["name"]) for row in site["partitions"]], processes)
        sure = {each.what for each in anywhere if each.verdict == BAD}
        placed = [
            replace(each, verdict=WARNING) if each.verdict == BAD and each.what not in sure else each for each in placed
        ]
    found += placed
    found += _account(asked, site)
    found += _quota(target, site, processes)
    most = _most_jobs(target, site)
    if most is not None:
        words = f"at most {most} jobs in the queue; what is more is submitted as room comes"
        mend = ""
        if most == 0:
            words = "your account and quality of service may have no jobs in the queue"
            mend = "give another account or qos in sbatch of the target, or ask who runs the cluster"
        is_sure = bool(asked.account and asked.qos)
        verdict = GOOD if most else BAD if is_sure else WARNING
        found.append(Finding(what="limit", verdict=verdict, found=words, mend=mend))
    return found


def array_limit(target: Target, site: Mapping[str, Any]) -> int:
    """Return the most tasks that an array of the target's may have."""
    most = _most_jobs(target, site)
    return max(1, min(int(site["max_array"]), most or int(site["max_array"])))


def _partitions(target: Target, site: Mapping[str, Any]) -> list[str]:
    """Return the partitions that the target's runs go to: those that it names, else the cluster's default."""
    defaults = [str(row["name"]) for row in site["partitions"] if row["is_default"]]
    return list(options_of(target).asked.partitions) or defaults


def _placed(target: Target, site: Mapping[str, Any], names: Sequence[str], processes: Iterable[int]) -> list[Finding]:
    """Return what there is to say of partitions, and of what the target asks for in them."""
    asked = options_of(target).asked
    known = {str(row["name"]): row for row in site["partitions"]}
    found = []
    if not names:
        mend = f"set partition in sbatch of the target; {valid_choices('', known)}"
        found.append(Finding(what="partition", verdict=BAD, found="the cluster has no default one", mend=mend))
    rows = []
    for name in names:
        if name not in known:
            mend = f"change partition in sbatch of the target; {valid_choices(name, known)}"
            found.append(Finding(what="partition", verdict=BAD, found=f"there is no partition {name!r}", mend=mend))
        else:
            rows.append(known[name])
    for row in rows:
        words = f"{row['name']}: {row['nodes']} nodes, at most {row['max_time']}"
        down, mend = _down(row)
        verdict = BAD if not row["takes_jobs"] else GOOD if row["is_up"] else WARNING
        found.append(Finding(what="partition", verdict=verdict, found=words + down, mend=mend))
    places = rows or list(known.values())  # of a partition that isn't there, only what no other has is said besides
    if rows or asked.time:
        found += _time(target, places)
    found += _gpus(target, places, processes)
    found += _features(asked.constraint, places)
    return found


def _down(row: Mapping[str, Any]) -> tuple[str, str]:
    """Say of a partition that isn't up that it is so, and what to do about it."""
    if not row["takes_jobs"]:
        return ", which is drained or inactive and takes no jobs", "give another one, or wait until the site opens it"
    if not row["is_up"]:
        return ", which is down", "runs wait until the site opens it again"
    return "", ""


def _time(target: Target, rows: Sequence[Mapping[str, Any]]) -> list[Finding]:
    slurm = options_of(target)
    given = slurm.asked.time
    limits = [seconds(str(row["max_time"])) for row in rows]
    if given is None:
        first = rows[0]  # without a default time of its own, a partition's limit is it (slurm.conf(5), DefaultTime)
        default = str(first["max_time" if first["default_time"] in ("n/a", "NONE") else "default_time"])
        limit_s = seconds(default)
        words = f"none is given, so runs get {default} of {first['name']}" if limit_s else "none is given, and none set"
    else:
        limit_s, words = seconds(given), given
        if limit_s is None and given.lower() not in ("infinite", "unlimited"):
            mend = "give minutes, H:MM:SS or D-HH:MM:SS as time in sbatch of the target"
            return [Finding(what="time", verdict=BAD, found=f"{given!r} is no time", mend=mend)]
        if (limit_s or float("inf")) > max((limit or float("inf") for limit in limits), default=float("inf")):
            names = ", ".join(f"{row['name']} {row['max_time']}" for row in rows)
            mend = "lower time in sbatch of the target: runs go on by themselves after each limit"
            return [Finding(what="time", verdict=BAD, found=f"{given} is above the limit ({names})", mend=mend)]
    if limit_s and slurm.warning_s and limit_s <= 2 * slurm.warning_s:
        words += f", and runs are warned {slurm.warning_s} s before its end"
        mend = "lower warning_s of the target, or raise time: a run hardly gets to train"
        return [Finding(what="time", verdict=WARNING, found=words, mend=mend)]
    if given is None and limit_s and limit_s < SHORT_S:
        mend = "set time in sbatch of the target; until then runs start again at each limit"
        return [Finding(what="time", verdict=WARNING, found=words, mend=mend)]
    return [Finding(what="time", verdict=GOOD, found=words)]


def _gpus(target: Target, rows: Sequence[Mapping[str, Any]], processes: Iterable[int]) -> list[Finding]:
    have = [word.split(":") for row in rows for word in row["gres"] if word.split(":")[0] == "gpu"]
    types = sorted({parts[1] for parts in have if len(parts) == 3})
    most = max((int(parts[-1]) for parts in have if parts[-1].isdigit()), default=0)
    where = ", ".join(str(row["name"]) for row in rows)
    asked = options_of(target).asked
    listed = ", ".join(dict.fromkeys(":".join(parts) for parts in have))
    if not have:
        if asked.no_gpus:
            return [Finding(what="gpus", verdict=GOOD, found="none are asked for")]
        mend = 'give another partition, or gres = "none" in sbatch of the target to train on cores'
        return [Finding(what="gpus", verdict=BAD, found=f"{where} has no GPUs", mend=mend)]
    for option, name in asked.gpu_types:
        if types and name not in types:
            mend = f"change {option} in sbatch of the target; {valid_choices(name, types)}"
            return [Finding(what="gpus", verdict=BAD, found=f"{where} has no GPU called {name!r}", mend=mend)]
    largest = max((-(-number // asked.nodes) for number in processes), default=0)
    if largest > most:
        words = f"a run asks for {largest} GPUs on a node, {where} has {most}"
        mend = "set gpus_per_run of the target, or spread runs with nodes in its sbatch"
        return [Finding(what="gpus", verdict=BAD, found=words, mend=mend)]
    return [Finding(what="gpus", verdict=GOOD, found=f"{listed} a node in {where}")]


def _features(constraint: str, rows: Sequence[Mapping[str, Any]]) -> list[Finding]:
    if not constraint:
        return []
    have = sorted({feature for row in rows for feature in row["features"]})
    for word in re.split(r"[&|,()\[\]\s]+", constraint):
        name = re.sub(r"\*\d+$", "", word)  # of how many nodes
        if name and name not in have:
            mend = f"change constraint in sbatch of the target; {valid_choices(name, have)}"
            return [Finding(what="constraint", verdict=BAD, found=f"no node has the feature {name!r}", mend=mend)]
    return [Finding(what="constraint", verdict=GOOD, found=constraint)]


def _account(asked: Asked, site: Mapping[str, Any]) -> list[Finding]:
    found = []
    accounts: Sequence[Mapping[str, str]] = site["accounts"] if site["is_enforced"] else ()  # else any name is taken
    for option, names in (
        ("account", sorted({row["account"] for row in accounts})),
        ("qos", sorted({name for row in accounts for name in row["qos"].split(",") if name})),
    ):
        given = asked.account if option == "account" else asked.qos
        if given and names and given.lower() not in names:  # sacctmgr(1): names are kept in lower case
            mend = f"change {option} in sbatch of the target; {valid_choices(given, names)}"
            found.append(Finding(what=option, verdict=BAD, found=f"{option} {given!r} is not yours to use", mend=mend))
        elif given:
            found.append(Finding(what=option, verdict=GOOD, found=given))
    return found


def _limited_by(target: Target, site: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return, for each partition of the target's, what limits go by (arguments of slurm_site.limits); nothing where
    Slurm keeps to none.
    """
    asked = options_of(target).asked
    qualities = {str(row["name"]): str(row["qos"]) for row in site["partitions"]}
    account = (asked.account or next((row["defaultaccount"] for row in site["users"]), "")).lower()
    found = []
    for name in _partitions(target, site) if site["is_limited"] else ():
        mine = slurm_site.association(site["accounts"], account, name)
        allowed = mine.get("qos", "").split(",")
        # Without a default one, the only one that an account may use, else "normal".
        qos = asked.qos or mine.get("defaultqos") or (allowed[0] if len(allowed) == 1 else "normal")
        own = qualities.get(name, "")
        found.append({"account": account, "qos": qos.lower(), "partition": name, "partition_qos": own})
    return found


def _most_jobs(target: Target, site: Mapping[str, Any]) -> int | None:
    """Return how many jobs the target's user may have in the queue; None where nobody says."""
    numbers = [slurm_site.most_jobs(site, **place) for place in _limited_by(target, site)]
    return min((number for number in numbers if number is not None), default=None)


def _quota(target: Target, site: Mapping[str, Any], processes: Iterable[int]) -> list[Finding]:
    """Return what is wrong with a run's GPUs by the limits on accounts and qualities of service: such a job would wait
    for ever. Where the target names neither, a plugin or a variable of the site's may choose others: that is a
    warning.
    """
    asked = options_of(target).asked
    each = [slurm_site.limits(site, **place) for place in _limited_by(target, site)]
    most = [limits.get("gres/gpu", float("inf")) for limits in each]
    largest = 0 if asked.no_gpus else max(processes, default=0)
    if largest <= max(most, default=float("inf")):
        return []
    number = int(max(most))
    words = f"a run asks for {largest} GPUs, the limits of your account and quality of service are {number}"
    mend = f"set gpus_per_run = {number} of the target, or account or qos in its sbatch"
    if number < 1:
        mend = 'give another account or qos in sbatch of the target, or gres = "none" to train on cores'
    is_sure = bool(asked.account and asked.qos)
    return [Finding(what="quota", verdict=BAD if is_sure else WARNING, found=words, mend=mend)]


def tried(target: Target, tests: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
    """Return what sbatch says of a job of each size, equal words once.

    Args:
        tests: What it said (agent/slurm/site.py) by number of processes.
    """
    sizes: dict[tuple[str, str], list[str]] = {}
    for size, test in sorted(tests.items(), key=lambda pair: int(pair[0])):
        kind = next(kind for kind in ("starts_in_s", "refused", "limit", "unknown") if kind in test)
        words = _start(float(test[kind])) if kind == "starts_in_s" else str(test[kind])
        sizes.setdefault((kind, words), []).append(size)
    found = []
    for (kind, words), alike in sizes.items():
        if kind == "starts_in_s" or len(alike) < len(tests):
            words = f"a job of {', '.join(alike)} {'process' if alike == ['1'] else 'processes'}: {words}"
        mend = _mend(target, tests[alike[0]]) if kind == "refused" else MENDS[kind]
        verdict = BAD if kind == "refused" else WARNING if kind in ("limit", "unknown") else GOOD
        found.append(Finding(what="sbatch", verdict=verdict, found=words, mend=mend))
    return found


def out_of_reach(python: str, words: str) -> Finding:
    """Return what to say of an interpreter of runs that can't talk to Slurm, in its words."""
    return Finding(
        what="slurm for runs",
        verdict=BAD,
        found=f"{python} can't talk to Slurm, so runs don't outlive a time limit or a lost node: {words}",
        mend="let python of the target be one outside any container, or bind Slurm's commands, its configuration and"
        " munge's socket into the container",
    )


def _start(starts_in_s: float) -> str:
    if starts_in_s <= SOON_S:
        return "would start now"
    return f"would start at {time.strftime('%Y-%m-%d %H:%M', time.localtime(time.time() + starts_in_s))}"


def _mend(target: Target, test: Mapping[str, Any]) -> str:
    unknown = re.search(r"unrecognized option \W*--([a-z0-9-]+)", str(test["refused"]))
    if unknown is None:
        named = named_in(target, str(test["refused"]))
        return f"change {f'{named} in ' if named else ''}sbatch of target {target.name}"
    near = difflib.get_close_matches(unknown[1], test.get("options", ()), n=1)
    hint = f"did you mean {near[0]!r}?" if near else "sbatch --help lists the options"
    return f"change {unknown[1]} in sbatch of the target; {hint}"

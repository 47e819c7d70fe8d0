"""Whether a cluster can give what a target's options ask for: partitions, time, GPUs, accounts; and what sbatch says.

The agent asks the cluster (agent/slurm/site.py).
"""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..agent.sentences import Sentence, _
from ..agent.slurm import site as slurm_site
from ..errors import valid_choices
from ..spec.options import Asked, seconds
from ..spec.target import Target
from ..targets.sbatch import named_in, options_of
from .finding import Finding, Grade, bad, good, warning

if TYPE_CHECKING:
    from ..agent.messages import Partition, Site, Tested

SHORT_S = 3600
"""A default time below this is worth a word."""
SOON_S = 60
"""A job that Slurm would start within so long would start now."""
MENDS = {
    "starts_in_s": "",
    "limit": _("none is needed where other jobs of yours take the room: runs are submitted as it comes"),
    "unknown": _("try it again: the cluster did not answer"),
}
"""What to do about what sbatch says of a job, where the job's options are not at fault."""


def judge(target: Target, site: Site, processes: Iterable[int] = ()) -> list[Finding]:
    """Return what there is to say of a cluster for a target, faults and all.

    Args:
        processes: Numbers of processes that runs start.
    """
    asked = options_of(target).asked
    words = _(
        "{version}, cluster {cluster}, {accounting}",
        site["version"],
        site["cluster"],
        _("accounting answers") if site["accounts"] else _("no accounting to be had"),
    )
    found = [good("slurm", words)]
    placed = _placed(target, site, _partitions(target, site), processes)
    if not asked.partitions:  # a plugin or a variable of the site's may choose another: sbatch will say
        anywhere = _placed(target, site, [row["name"] for row in site["partitions"]], processes)
        sure = {each.what for each in anywhere if each.is_bad}
        placed = [
            replace(each, verdict=Grade.WARNING) if each.is_bad and each.what not in sure else each for each in placed
        ]
    found += placed
    found += _account(asked, site)
    found += _quota(target, site, processes)
    most = _most_jobs(target, site)
    if most is not None:
        words = _("at most {count} jobs in the queue; what is more is submitted as room comes", most)
        mend = ""
        if most == 0:
            words = _("your account and quality of service may have no jobs in the queue")
            mend = _("give another account or qos in sbatch of the target, or ask who runs the cluster")
        is_sure = bool(asked.account and asked.qos)
        verdict = Grade.GOOD if most else Grade.BAD if is_sure else Grade.WARNING
        found.append(Finding(what=_("limit"), verdict=verdict, found=words, mend=mend))
    return found


def array_limit(target: Target, site: Site) -> int:
    """Return the most tasks that an array of the target's may have."""
    most = _most_jobs(target, site)
    return max(1, min(site["max_array"], most or site["max_array"]))


def _partitions(target: Target, site: Site) -> list[str]:
    """Return the partitions that the target's runs go to: those that it names, else the cluster's default."""
    defaults = [row["name"] for row in site["partitions"] if row["is_default"]]
    return list(options_of(target).asked.partitions) or defaults


def _placed(target: Target, site: Site, names: Sequence[str], processes: Iterable[int]) -> list[Finding]:
    """Return what there is to say of partitions, and of what the target asks for in them."""
    asked = options_of(target).asked
    known = {row["name"]: row for row in site["partitions"]}
    found = []
    if not names:
        mend = _("set partition in sbatch of the target; {choices}", valid_choices("", known))
        words = _("the cluster has no default one")
        found.append(bad(_("partition"), words, mend))
    rows = []
    for name in names:
        if name not in known:
            words = _("there is no partition {name!r}", name)
            mend = _change("partition", valid_choices(name, known))
            found.append(bad(_("partition"), words, mend))
        else:
            rows.append(known[name])
    found += map(_partition, rows)
    places = rows or list(known.values())  # of a partition that isn't there, only what no other has is said besides
    if rows or asked.time:
        found += _time(target, places)
    found += _gpus(target, places, processes)
    found += _features(asked.constraint, places)
    return found


def _partition(row: Partition) -> Finding:
    """Judge a partition by whether it takes jobs and starts them."""
    words = _("{partition}: {count} nodes, at most {time}", row["name"], row["nodes"], row["max_time"])
    if not row["takes_jobs"]:
        words = _("{partition}, which is drained or inactive and takes no jobs", words)
        mend = _("give another one, or wait until the site opens it")
        return bad(_("partition"), words, mend)
    if not row["is_up"]:
        words = _("{partition}, which is down", words)
        mend = _("runs wait until the site opens it again")
        return warning(_("partition"), words, mend)
    return good(_("partition"), words)


def _change(option: str, what_fits: str) -> Sentence:
    """Say that a value of the target's doesn't fit, and what would."""
    return _("change {option} in sbatch of the target; {choices}", option, what_fits)


def _time(target: Target, rows: Sequence[Partition]) -> list[Finding]:
    slurm = options_of(target)
    given = slurm.asked.time
    limits = [seconds(row["max_time"]) for row in rows]
    if given is None:
        first = rows[0]  # without a default time of its own, a partition's limit is it (slurm.conf(5), DefaultTime)
        default = str(first["max_time" if first["default_time"] in ("n/a", "NONE") else "default_time"])
        limit_s = seconds(default)
        words: str = _("none is given, and none set")
        if limit_s:
            words = _("none is given, so runs get {time} of {partition}", default, first["name"])
    else:
        limit_s, words = seconds(given), given
        if limit_s is None and given.lower() not in ("infinite", "unlimited"):
            mend = _("give minutes, H:MM:SS or D-HH:MM:SS as time in sbatch of the target")
            return [bad(_("time"), _("{value!r} is no time", given), mend)]
        if (limit_s or float("inf")) > max((limit or float("inf") for limit in limits), default=float("inf")):
            limited = [f"{row['name']} {row['max_time']}" for row in rows]
            words = _("{time} is above the limit ({limits})", given, limited)
            mend = _("lower time in sbatch of the target: runs go on by themselves after each limit")
            return [bad(_("time"), words, mend)]
    if limit_s and slurm.warning_s and limit_s <= 2 * slurm.warning_s:
        words = _("{time}, and runs are warned {seconds} s before its end", words, slurm.warning_s)
        mend = _("lower warning_s of the target, or raise time: a run hardly gets to train")
        return [warning(_("time"), words, mend)]
    if given is None and limit_s and limit_s < SHORT_S:
        mend = _("set time in sbatch of the target; until then runs start again at each limit")
        return [warning(_("time"), words, mend)]
    return [good(_("time"), words)]


def _gpus(target: Target, rows: Sequence[Partition], processes: Iterable[int]) -> list[Finding]:
    have = [word.split(":") for row in rows for word in row["gres"] if word.split(":")[0] == "gpu"]
    types = sorted({parts[1] for parts in have if len(parts) == 3})
    most = max((int(parts[-1]) for parts in have if parts[-1].isdigit()), default=0)
    where = [row["name"] for row in rows]
    asked = options_of(target).asked
    if not have:
        if asked.no_gpus:
            return [good(_("gpus"), _("none are asked for"))]
        words = _("{partitions} has no GPUs", where)
        mend = _('give another partition, or gres = "none" in sbatch of the target to train on cores')
        return [bad(_("gpus"), words, mend)]
    for option, name in asked.gpu_types:
        if types and name not in types:
            words = _("{partitions} has no GPU called {name!r}", where, name)
            mend = _change(option, valid_choices(name, types))
            return [bad(_("gpus"), words, mend)]
    largest = max((-(-number // asked.nodes) for number in processes), default=0)
    if largest > most:
        words = _("a run asks for {wanted} GPUs on a node, {partitions} has {most}", largest, where, most)
        mend = _("set gpus_per_run of the target, or spread runs with nodes in its sbatch")
        return [bad(_("gpus"), words, mend)]
    listed = list(dict.fromkeys(":".join(parts) for parts in have))
    words = _("{gpus} a node in {partitions}", listed, where)
    return [good(_("gpus"), words)]


def _features(constraint: str, rows: Sequence[Partition]) -> list[Finding]:
    if not constraint:
        return []
    have = sorted({feature for row in rows for feature in row["features"]})
    for word in re.split(r"[&|,()\[\]\s]+", constraint):
        name = re.sub(r"\*\d+$", "", word)  # of how many nodes
        if name and name not in have:
            words = _("no node has the feature {name!r}", name)
            mend = _change("constraint", valid_choices(name, have))
            return [bad(_("constraint"), words, mend)]
    return [good(_("constraint"), constraint)]


def _account(asked: Asked, site: Site) -> list[Finding]:
    found = []
    accounts = site["accounts"] if site["is_enforced"] else []  # else any name is taken
    qualities = sorted({name for row in accounts for name in row["qos"].split(",") if name})
    for what, option, given, names in (
        (_("account"), "account", asked.account, sorted({row["account"] for row in accounts})),
        ("qos", "qos", asked.qos, qualities),
    ):
        if given and names and given.lower() not in names:  # sacctmgr(1): names are kept in lower case
            words = _("{option} {name!r} is not yours to use", option, given)
            mend = _change(option, valid_choices(given, names))
            found.append(bad(what, words, mend))
        elif given:
            found.append(good(what, given))
    return found


def _limited_by(target: Target, site: Site) -> list[dict[str, str]]:
    """Return, for each partition of the target's, what limits go by (arguments of slurm_site.limits); nothing where
    Slurm keeps to none.
    """
    asked = options_of(target).asked
    qualities = {row["name"]: row["qos"] for row in site["partitions"]}
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


def _most_jobs(target: Target, site: Site) -> int | None:
    """Return how many jobs the target's user may have in the queue; None where nobody says."""
    numbers = [slurm_site.most_jobs(site, **place) for place in _limited_by(target, site)]
    return min((number for number in numbers if number is not None), default=None)


def _quota(target: Target, site: Site, processes: Iterable[int]) -> list[Finding]:
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
    words = _(
        "a run asks for {wanted} GPUs, the limits of your account and quality of service are {most}", largest, number
    )
    mend = _("set gpus_per_run = {most} of the target, or account or qos in its sbatch", number)
    if number < 1:
        mend = _('give another account or qos in sbatch of the target, or gres = "none" to train on cores')
    is_sure = bool(asked.account and asked.qos)
    return [Finding(what=_("quota"), verdict=Grade.BAD if is_sure else Grade.WARNING, found=words, mend=mend)]


def tried(target: Target, tests: Mapping[str, Tested]) -> list[Finding]:
    """Return what sbatch says of a job of each size, equal words once.

    Args:
        tests: What it said (agent/slurm/site.py) by number of processes.
    """
    sizes: dict[tuple[str, str], list[str]] = {}
    for size, test in sorted(tests.items(), key=lambda pair: int(pair[0])):
        if "starts_in_s" in test:
            said = ("starts_in_s", _start(test["starts_in_s"]))
        else:
            said = next((kind, test[kind]) for kind in ("refused", "limit", "unknown") if kind in test)
        sizes.setdefault(said, []).append(size)
    found = []
    for (kind, words), alike in sizes.items():
        if kind == "starts_in_s" or len(alike) < len(tests):
            words = (
                _("a job of 1 process: {words}", words)
                if alike == ["1"]
                else _("a job of {sizes} processes: {words}", alike, words)
            )
        mend = _mend(target, tests[alike[0]]) if kind == "refused" else MENDS[kind]
        verdict = Grade.BAD if kind == "refused" else Grade.WARNING if kind in ("limit", "unknown") else Grade.GOOD
        found.append(Finding(what="sbatch", verdict=verdict, found=words, mend=mend))
    return found


def out_of_reach(python: str, words: str) -> Finding:
    """Return what to say of an interpreter of runs that can't talk to Slurm, in its words."""
    return bad(
        _("slurm for runs"),
        _("{python} can't talk to Slurm, so runs don't outlive a time limit or a lost node: {why}", python, words),
        _(
            "let python of the target be one outside any container, or bind Slurm's commands, its configuration and"
            " munge's socket into the container"
        ),
    )


def _start(starts_in_s: float) -> str:
    if starts_in_s <= SOON_S:
        return _("would start now")
    at = time.strftime("%Y-%m-%d %H:%M", time.localtime(time.time() + starts_in_s))
    return _("would start at {time}", at)


def _mend(target: Target, test: Tested) -> str:
    unknown = re.search(r"unrecognized option \W*--([a-z0-9-]+)", test["refused"])
    if unknown is None:
        named = named_in(target, test["refused"])
        if named:
            return _("change {option} in sbatch of target {target}", named, target.name)
        return _("change sbatch of target {target}", target.name)
    near = difflib.get_close_matches(unknown[1], test.get("options", ()), n=1)
    hint = _("did you mean {nearest!r}?", near[0]) if near else _("sbatch --help lists the options")
    return _change(unknown[1], hint)

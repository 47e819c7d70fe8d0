"""Whether a cluster can give what a target's options ask for: partitions, time, GPUs, accounts; and what sbatch says.

The agent asks the cluster (agent/slurm/site.py).
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..agent.sentences import Sentence, _
from ..agent.slurm import site as slurm_site
from ..errors import valid_choices
from ..spec.options import Slurm, seconds
from ..spec.target import Target
from ..targets.sbatch import named_in, options_of
from .finding import Finding, Grade, bad, good, warning

if TYPE_CHECKING:
    from ..agent.messages import Partition, Site, Tested

SHORT_S = 3600
"""A default time below this is worth a word."""
SOON_S = 60
"""A job that Slurm would start within so long would start now."""
VERDICTS = {
    "starts_in_s": (Grade.GOOD, ""),
    "refused": (Grade.BAD, ""),
    "limit": (
        Grade.WARNING,
        _("none is needed where other jobs of yours take the room: runs are submitted as it comes"),
    ),
    "unknown": (Grade.WARNING, _("try it again: the cluster did not answer")),
}
"""What to make of sbatch's words about a job, and what to do where the job's options are not at fault."""


def judge(target: Target, site: Site, processes: Collection[int] = (), stop_s: float = 0.0) -> Iterator[Finding]:
    """Yield what there is to say of a cluster for a target, faults and all.

    Args:
        processes: Numbers of processes that runs start.
        stop_s: The longest time that programs have to stop.
    """
    slurm = options_of(target)
    accounting = _("accounting answers") if site["accounts"] else _("no accounting to be had")
    words = _("{version}, cluster {cluster}, {accounting}", site["version"], site["cluster"], accounting)
    yield good("slurm", words)
    placed = list(_placed(target, site, _partitions(target, site), processes))
    if not slurm.partitions:  # a plugin or a variable of the site's may choose another: sbatch will say
        anywhere = _placed(target, site, [row["name"] for row in site["partitions"]], processes)
        sure = {each.what for each in anywhere if each.is_bad}
        placed = [
            replace(each, verdict=Grade.WARNING) if each.is_bad and each.what not in sure else each for each in placed
        ]
    yield from placed
    yield from _account(slurm, site)
    yield from _limited(slurm, _limits(target, site), processes)
    if stop_s > site.get("kill_wait_s", math.inf):
        words = _(
            "programs have {stop_s:g} s to stop (stop_s), but what scancel or a preemption ends is killed after"
            " {kill_wait_s:g} s (KillWait)",
            stop_s,
            site["kill_wait_s"],
        )
        mend = _("end runs with oelm-cancel, which leaves them that time; for preemption ask the site for a GraceTime")
        yield warning(_("time to stop"), words, mend)


def array_limit(target: Target, site: Site) -> int:
    """Return the most tasks that an array of the target's may have."""
    return max(1, min(site["max_array"], _most_jobs(_limits(target, site)) or site["max_array"]))


def _partitions(target: Target, site: Site) -> list[str]:
    """Return the partitions that the target's runs go to: those that it names, else the cluster's default."""
    defaults = [row["name"] for row in site["partitions"] if row["is_default"]]
    return options_of(target).partitions or defaults


def _placed(target: Target, site: Site, names: Sequence[str], processes: Collection[int]) -> Iterator[Finding]:
    """Yield what there is to say of partitions, and of what the target asks for in them."""
    slurm = options_of(target)
    known = {row["name"]: row for row in site["partitions"]}
    if not names:
        mend = _("set partition in sbatch of the target; {choices}", valid_choices("", known))
        yield bad(_("partition"), _("the cluster has no default one"), mend)
    for name in names:
        if name in known:
            yield _partition(known[name])
        else:
            mend = _change("partition", valid_choices(name, known))
            yield bad(_("partition"), _("there is no partition {name!r}", name), mend)
    rows = [known[name] for name in names if name in known]
    places = rows or list(known.values())  # of a partition that isn't there, only what no other has is said besides
    if rows or slurm.word("time"):
        yield _time(target, places)
    yield _gpus(slurm, places, processes)
    if slurm.word("constraint"):
        yield _features(slurm.word("constraint"), places)


def _partition(row: Partition) -> Finding:
    """Judge a partition by whether it takes jobs and starts them."""
    words = _("{partition}: {count} nodes, at most {time}", row["name"], row["nodes"], row["max_time"])
    if not row["takes_jobs"]:
        words = _("{partition}, which is drained or inactive and takes no jobs", words)
        return bad(_("partition"), words, _("give another one, or wait until the site opens it"))
    if not row["is_up"]:
        words = _("{partition}, which is down", words)
        return warning(_("partition"), words, _("runs wait until the site opens it again"))
    return good(_("partition"), words)


def _change(option: str, what_fits: str) -> Sentence:
    """Say that a value of the target's doesn't fit, and what would."""
    return _("change {option} in sbatch of the target; {choices}", option, what_fits)


def _time(target: Target, rows: Sequence[Partition]) -> Finding:
    slurm = options_of(target)
    given = slurm.sbatch.get("time")
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
            return bad(_("time"), _("{value!r} is no time", given), mend)
        if (limit_s or math.inf) > max((seconds(row["max_time"]) or math.inf for row in rows), default=math.inf):
            words = _(
                "{time} is above the limit ({limits})", given, [f"{row['name']} {row['max_time']}" for row in rows]
            )
            mend = _("lower time in sbatch of the target: runs go on by themselves after each limit")
            return bad(_("time"), words, mend)
    if limit_s and slurm.warning_s and limit_s <= 2 * slurm.warning_s:
        words = _("{time}, and runs are warned {seconds} s before its end", words, slurm.warning_s)
        return warning(_("time"), words, _("lower warning_s of the target, or raise time: a run hardly gets to train"))
    if given is None and limit_s and limit_s < SHORT_S:
        return warning(
            _("time"), words, _("set time in sbatch of the target; until then runs start again at each limit")
        )
    return good(_("time"), words)


def _gpus(slurm: Slurm, rows: Sequence[Partition], processes: Collection[int]) -> Finding:
    have = [word.split(":") for row in rows for word in row["gres"] if word.split(":")[0] == "gpu"]
    types = sorted({parts[1] for parts in have if len(parts) == 3})
    most = max((int(parts[-1]) for parts in have if parts[-1].isdigit()), default=0)
    where = [row["name"] for row in rows]
    if not have and (slurm.no_gpus or (processes and not any(processes))):
        return good(_("gpus"), _("none are asked for"))
    if not have:
        mend = _('give another partition, or gres = "none" in sbatch of the target to train on cores')
        return bad(_("gpus"), _("{partitions} has no GPUs", where), mend)
    for option, name in slurm.gpu_types:
        if types and name not in types:
            mend = _change(option, valid_choices(name, types))
            return bad(_("gpus"), _("{partitions} has no GPU called {name!r}", where, name), mend)
    largest = -(-max(processes, default=0) // slurm.nodes)
    if largest > most:
        words = _("a run asks for {wanted} GPUs on a node, {partitions} has {most}", largest, where, most)
        return bad(_("gpus"), words, _("set gpus_per_run of the target, or spread runs with nodes in its sbatch"))
    listed = list(dict.fromkeys(":".join(parts) for parts in have))
    return good(_("gpus"), _("{gpus} a node in {partitions}", listed, where))


def _features(constraint: str, rows: Sequence[Partition]) -> Finding:
    have = sorted({feature for row in rows for feature in row["features"]})
    for word in re.split(r"[&|,()\[\]\s]+", constraint):
        name = re.sub(r"\*\d+$", "", word)  # of how many nodes
        if name and name not in have:
            mend = _change("constraint", valid_choices(name, have))
            return bad(_("constraint"), _("no node has the feature {name!r}", name), mend)
    return good(_("constraint"), constraint)


def _account(slurm: Slurm, site: Site) -> Iterator[Finding]:
    accounts = site["accounts"] if site["is_enforced"] else []  # else any name is taken
    qualities = sorted({name for row in accounts for name in row["qos"].split(",") if name})
    for what, option, given, names in (
        (_("account"), "account", slurm.word("account"), sorted({row["account"] for row in accounts})),
        ("qos", "qos", slurm.word("qos"), qualities),
    ):
        if given and names and given.lower() not in names:  # sacctmgr(1): names are kept in lower case
            words = _("{option} {name!r} is not yours to use", option, given)
            yield bad(what, words, _change(option, valid_choices(given, names)))
        elif given:
            yield good(what, given)


def _limits(target: Target, site: Site) -> list[dict[str, float]]:
    """Return, for each partition of the target's, what its jobs are limited to (slurm_site.limits); nothing where Slurm
    keeps to none.
    """
    slurm = options_of(target)
    qualities = {row["name"]: row["qos"] for row in site["partitions"]}
    account = (slurm.word("account") or next((row["defaultaccount"] for row in site["users"]), "")).lower()
    found = []
    for name in _partitions(target, site) if site["is_limited"] else ():
        mine = slurm_site.association(site["accounts"], account, name)
        allowed = mine.get("qos", "").split(",")
        # Without a default one, the only one that an account may use, else "normal".
        qos = slurm.word("qos") or mine.get("defaultqos") or (allowed[0] if len(allowed) == 1 else "normal")
        own = qualities.get(name, "")
        found.append(slurm_site.limits(site, account=account, qos=qos.lower(), partition=name, partition_qos=own))
    return found


def _most_jobs(limits: Sequence[Mapping[str, float]]) -> int | None:
    """Return how many jobs a user may have in the queue under limits; None where nobody says."""
    return min((int(each[slurm_site.JOBS]) for each in limits if slurm_site.JOBS in each), default=None)


def _limited(slurm: Slurm, limits: Sequence[Mapping[str, float]], processes: Collection[int]) -> Iterator[Finding]:
    """Yield what the limits on accounts and qualities of service mean for runs: one that asks for more GPUs would wait
    for ever.
    """
    # A plugin or a variable of the site's may choose an account or a quality of service that the target doesn't name.
    wrong = bad if slurm.word("account") and slurm.word("qos") else warning
    largest = 0 if slurm.no_gpus else max(processes, default=0)
    gpus = max((each.get("gres/gpu", math.inf) for each in limits), default=math.inf)
    if largest > gpus:
        words = _(
            "a run asks for {wanted} GPUs, the limits of your account and quality of service are {most}",
            largest,
            int(gpus),
        )
        mend = _("set gpus_per_run = {most} of the target, or account or qos in its sbatch", int(gpus))
        if gpus < 1:
            mend = _('give another account or qos in sbatch of the target, or gres = "none" to train on cores')
        yield wrong(_("quota"), words, mend)
    jobs = _most_jobs(limits)
    if jobs:
        yield good(_("limit"), _("at most {count} jobs in the queue; what is more is submitted as room comes", jobs))
    elif jobs is not None:
        words = _("your account and quality of service may have no jobs in the queue")
        mend = _("give another account or qos in sbatch of the target, or ask who runs the cluster")
        yield wrong(_("limit"), words, mend)


def tried(target: Target, tests: Mapping[str, Tested]) -> Iterator[Finding]:
    """Yield what sbatch says of a job of each size, equal words once.

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
    for (kind, words), alike in sizes.items():
        if alike == ["1"] and (kind == "starts_in_s" or len(tests) > 1):
            words = _("a job of 1 process: {words}", words)
        elif kind == "starts_in_s" or len(alike) < len(tests):
            words = _("a job of {sizes} processes: {words}", alike, words)
        verdict, mend = VERDICTS[kind]
        mend = _mend(target, tests[alike[0]]) if kind == "refused" else mend
        yield Finding(what="sbatch", verdict=verdict, found=words, mend=mend)


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
    import difflib  # here, because few options are unknown

    near = difflib.get_close_matches(unknown[1], test.get("options", ()), n=1)
    hint = _("did you mean {nearest!r}?", near[0]) if near else _("sbatch --help lists the options")
    return _change(unknown[1], hint)

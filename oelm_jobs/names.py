"""Rules for names (studies, groups, tags, runs) and for paths on targets, which become parts of paths, job names and
shell arguments.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from .agent import inside, records, rundir
from .agent.sentences import _

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""Names of studies, groups, hypotheses and tags."""
SPEED_TRIAL = rundir.SPEED_TRIAL
"""Name (and group) of a study's speed trial, which is a run like any other but trains nothing."""
CONFIRM = "confirm"
"""Tag of the runs that confirm what was tuned."""
MAX_SEED = 2**63 - 1
_SEED_ENDING = re.compile(r"-s\d+$")


def why_not(name: object) -> str:
    """Return why a value can't be a name; empty where it can."""
    is_name = isinstance(name, str) and NAME.fullmatch(name)
    return "" if is_name else _("letters, digits, _ and - only, at most 64")


def why_not_study(name: object) -> str:
    """Return why a value can't be a study's name; empty where it can."""
    prefix = rundir.TRAIN_PREFIX
    if str(name).startswith(prefix):
        return _("letters, digits, _ and - only, at most 64, not beginning with {prefix!r}", prefix)
    return why_not(name)


def why_not_group(name: object) -> str:
    """Return why a value can't be a group's name; empty where it can."""
    if reason := why_not(name):
        return reason
    return _("a group's name can't end like a seed (-s43)") if _SEED_ENDING.search(str(name)) else ""


def why_not_line(text: object) -> str:
    """Return why a value can't be printed as a line of text; empty where it can."""
    return "" if isinstance(text, str) and text.isprintable() else _("must be one line without control characters")


def why_not_path(path: str) -> str:
    """Return why a value can't be a path on a target (``~`` is expanded there); empty where it can."""
    if path.startswith("-") or not path.isprintable():
        return _("a path that begins with '-' or holds control characters is refused")
    if path.startswith("~") and path[1:2] not in ("", "/"):
        return _("another user's home folder must be given as an absolute path")
    if any(re.fullmatch(r"\$(\w+|\{\w+\})", part) for part in path.split("/")):
        return _("variables are not expanded: write the path that echo prints there")
    return ""


def run_name(group: str, seed: int | None, tag: str) -> str:
    """Return a run's name; without a seed it is that of the first seed's run, the group's bare name."""
    name = group if seed is None else f"{group}-s{seed}"
    return f"{name}-{tag}" if tag else name


def what_is_wrong(known: Mapping[str, object]) -> str:
    """Return the first invalid value in a run's record as ``key = value: reason``; empty where the record could have
    come from a study file and a submission.
    """
    group, seed, tag = known.get("group"), known.get("seed"), known.get("tag")
    is_seed = type(seed) is int and 0 <= seed <= MAX_SEED
    is_hash = re.fullmatch(r"[0-9A-Za-z]{0,128}", str(known.get("fingerprint", "?")))
    reasons = {
        "study": why_not_study(known.get("study")),
        "group": why_not_group(group),
        "seed": "" if is_seed else _("seeds go from 0 to 2^63 - 1"),
        "tag": "" if tag == "" else why_not(tag),
        "label": why_not_line(known.get("label")),
        "token": "" if inside.TOKEN.fullmatch(str(known.get("token", ""))) else _("is no token of a submission"),
        "fingerprint": "" if is_hash else _("is no hash"),
        "run_dir": "" if inside.is_absolute(str(known.get("run_dir", ""))) else _("must be an absolute path"),
    }
    for key, reason in reasons.items():
        if reason:
            return _("{key} = {value!r}: {reason}", key, str(known.get(key))[:100], reason)
    assert isinstance(seed, int)
    if known.get("run") not in (run_name(str(group), None, str(tag)), run_name(str(group), seed, str(tag))):
        name = str(known.get("run"))[:100]
        return _("run = {name!r}: is not what a run of this group, seed and tag is called", name)
    return (records.SPEC.wrong(known) or records.RUN.shape.wrong(known) or "").lstrip(".")

"""Make a study of the built-in trainer where that is what scripts start: its keys say what the flags did."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..agent.sentences import _
from ..programs import built_in, typed_flags
from ..programs.typed_flags import Typed
from .commands import Command
from .found import Found
from .joining import Joined


def tables(joined: Joined, project: Path, reasons: Mapping[str, str], found: Found) -> dict[str, Any] | None:
    """Return the study's tables besides its question; None where the scripts start another program, or one that no
    study of the trainer can say.

    Args:
        reasons: Why settings that nobody declared differ, by name.
    """
    members = [(read(command, project), group) for command, group, _seed in joined.members]
    typed = [(each, group) for each, group in members if each is not None]
    if len(typed) < len(members):
        return None
    keys = [key for key in built_in.KEYS if any(key in each.stated for each, _group in typed)]
    varying = [key for key in keys if len({str(each.values[key]) for each, _group in typed}) > 1]
    if why := _why_not(typed, varying):
        first = joined.members[0][0].started
        why = _("a study of its command, not of the trainer's keys: {why}", why)
        found.leave(first.place, " ".join(first.words), why)
        return None
    for command, (each, _group) in zip((command for command, _g, _s in joined.members), typed, strict=True):
        for key in sorted(each.left_out):
            why = _("--{name} is left out: the toolkit says it to a run itself", key)
            found.leave(command.started.place, " ".join(command.started.words), why)
    one_of = {group: each for each, group in reversed(typed)}
    own = {name.replace("-", "_") for name in joined.factors}
    factors = [key for key in varying if key in own and key in built_in.FACTORS]
    groups = {
        name: {**{key: one_of[name].values[key] for key in varying}, **_gpus(group)}
        for name, group in joined.groups.items()
    }
    given = {name.replace("-", "_"): reason for name, reason in reasons.items()}
    otherwise = _("the scripts give groups different values of it")
    shared = {key: typed[0][0].values[key] for key in keys if key not in varying}
    return {
        "factors": factors,
        **({"seeds": joined.seeds} if joined.has_seed else {}),
        "train": {"global_batch": typed[0][0].global_batch, **{k: v for k, v in shared.items() if v is not None}},
        "groups": groups,
        "unequal": {key: given.get(key, otherwise) for key in varying if key not in factors},
    }


def read(command: Command, project: Path) -> Typed | None:
    """Return what a command tells the trainer; None where it starts another program."""
    head = command.program.head
    is_it = len(head) > 2 and head[0] in ("python", "torchrun") and head[-2] == "-m"
    if not is_it or not typed_flags.is_trainer(project, head[-1]):
        return None
    words = [word for argument in command.arguments.values() for word in argument.words()]
    return typed_flags.read(words, max(command.gpus, 1))


def _why_not(typed: list[tuple[Typed, str]], varying: list[str]) -> str:
    """Return why no study of the trainer can say what commands do; empty where one can."""
    batches = sorted({each.global_batch for each, _group in typed})
    if len(batches) > 1:
        return _("they have different numbers of sequences per step, {batches}", batches)
    if fixed := [key for key in varying if key in built_in.FIXED]:
        return _("{key} is the same for all groups of a study", fixed[0])
    if lacking := [key for key in varying if any(each.values[key] is None for each, _group in typed)]:
        return _("some say no {key}", lacking[0])
    values = {(group, key): set[str]() for _each, group in typed for key in varying}
    for each, group in typed:
        for key in varying:
            values[group, key].add(str(each.values[key]))
    mixed = [key for (_group, key), several in values.items() if len(several) > 1]
    return _("runs of one group differ in {key}", mixed[0]) if mixed else ""


def _gpus(group: Mapping[str, Any]) -> dict[str, int]:
    return {"gpus": max(group["gpus"], 1)} if "gpus" in group else {}

"""What groups need of others: reading it, checking it over studies, and the order that it asks for."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from .. import names
from ..agent import verbs
from ..agent.sentences import _
from ..errors import ConfigurationError, UsageError, valid_choices
from ..programs import built_in
from ..spec.lineage import SUCCESS, WHEN, Input, Parent, Source
from ..spec.study import Group, Study

if TYPE_CHECKING:
    from .. import tomlfile

KEYS = ("needs", "when", "inputs")
"""What a group may say of other runs, where no setting is called so."""
_SOURCE = re.compile(r"(?:(?P<study>[^/:]+)/)?(?P<group>[^/:]+?)(?:-s(?P<seed>\d{1,19}))?(?P<artifact>:.*)?", re.DOTALL)
_HOW = _("give [STUDY/]GROUP, with -sSEED for one run of it")
_HOW_INPUT = _(
    "give [STUDY/]GROUP:best, :latest or :PATH in its run directory, with -sSEED behind the group for one run of it"
)


class Needed(NamedTuple):
    """What a group needs, as its fields have it."""

    needs: tuple[Source, ...]
    when: str
    inputs: Mapping[str, Input]


Node = tuple[str, str]
"""A study's name and a group's."""
Item = TypeVar("Item")


# Reading --------------------------------------------------------------------------------------------------------------


def source(text: str, own: str) -> Source:
    """Return the runs that a study means.

    Args:
        own: The study's name.

    Raises:
        ValueError: It is nothing of that kind; the message says what would be.
    """
    found = _SOURCE.fullmatch(text)
    if found is None or found["artifact"] is not None or not _is_named(found):
        raise ValueError(_HOW)
    return _source(found, own)


def input_of(text: str, own: str) -> Input:
    """Return the files that a study means, as ``source`` does."""
    found = _SOURCE.fullmatch(text)
    if found is None or not _is_named(found):
        raise ValueError(_HOW_INPUT)
    artifact = (found["artifact"] or "")[1:]
    if not artifact or artifact.startswith(("/", "~")) or ".." in artifact.split("/") or not artifact.isprintable():
        raise ValueError(_HOW_INPUT)
    return Input(source=_source(found, own), artifact=artifact)


def _is_named(found: re.Match[str]) -> bool:
    return not names.why_not_group(found["group"]) and not (found["study"] and names.why_not_study(found["study"]))


def _source(found: re.Match[str], own: str) -> Source:
    study, seed = found["study"] or "", found["seed"]
    return Source(study="" if study == own else study, group=found["group"], seed=None if seed is None else int(seed))


def read(table: tomlfile.Section, own: str, settings: Iterable[str], *, is_script: bool) -> Needed:
    """Take what a group needs.

    Args:
        own: The study's name.
        settings: What the group may set: of that nothing is taken.
    """
    free = [key for key in KEYS if key not in settings]
    needs: list[Source] = []
    for text in table.take_list("needs", str, ()) if "needs" in free else ():
        try:
            needs.append(source(text, own))
        except ValueError as error:
            table.wrong("needs", error.args[0], value=text)
    inputs: dict[str, Input] = {}
    if "inputs" in free and "inputs" in table:
        section = table.take_section("inputs")
        for name in section.keys_left():
            text = section.take(name, str)
            try:
                inputs[name] = input_of(text, own)
            except ValueError as error:
                section.wrong(name, error.args[0], value=text)
        if not is_script:
            table.wrong("inputs", _("are of programs of one's own: give the trainer's key {key}", built_in.INIT_FROM))
    when = SUCCESS
    if "when" in free and "when" in table:
        when = table.take("when", str, SUCCESS, choices=WHEN)
        if not needs:
            table.wrong("when", _("says when what needs names has to be over: give needs"), value=when)
    if (count := len(needs) + len(inputs)) > verbs.MOST_NEEDS:
        most = f"{verbs.MOST_NEEDS:,}"
        table.wrong("needs", _("a run may need {most} others, here it is {count}", most, f"{count:,}"))
    return Needed(tuple(needs), when, inputs)


def check_own(top: tomlfile.Section, study: Study) -> None:
    """Note what a study's groups need of one another that can't be: what isn't there, and cycles."""
    for group in study.groups.values():
        table = top.beside("groups", group.name)
        try:
            each = list(_needs(study, group))
        except ConfigurationError as error:
            table.wrong(built_in.INIT_FROM, error.args[0])
            continue
        for key, needed in each:
            if not needed.study and (why := _why_not_in(study, needed)):
                table.wrong(key, why, value=str(needed))
    if top.is_right and (cycle := _cycle({study.name: study}, study)):
        table = top.beside("groups", cycle[0][1])
        table.wrong("needs", _("wait for one another: {cycle}", _shown(cycle, study)))


def inputs(study: Study, group: Group) -> Mapping[str, Input]:
    """Return what a group's runs take from others, by the names that they have for it.

    Raises:
        ConfigurationError: The built-in trainer's key names no run.
    """
    if study.program is not None:
        return group.inputs
    text = {**study.settings, **group.values}.get(built_in.INIT_FROM)
    if text is None:
        return {}
    try:
        return {built_in.INIT_FROM: input_of(str(text), study.name)}
    except ValueError as error:
        raise ConfigurationError(_("{key} = {value!r}: {why}", built_in.INIT_FROM, str(text), error.args[0])) from None


def _needs(study: Study, group: Group) -> Iterator[tuple[str, Source]]:
    """Yield what a group needs, with the key that says so."""
    for needed in group.needs:
        yield "needs", needed
    for name, taken in inputs(study, group).items():
        yield name if study.program is None else "inputs", taken.source


def is_used(study: Study) -> bool:
    """Tell whether any of a study's runs needs another."""
    has_weights = study.program is None and any(
        {**study.settings, **group.values}.get(built_in.INIT_FROM) is not None for group in study.groups.values()
    )
    return has_weights or any(group.needs or group.inputs for group in study.groups.values())


# Over studies ---------------------------------------------------------------------------------------------------------


def others(project: Path, study: Study, load: Callable[[Path, str], Study]) -> dict[str, Study]:
    """Return by name the studies whose runs a study's need, and those that these need, after a look at all of that.

    Args:
        load: Returns a study of a project by its name.

    Raises:
        ConfigurationError: A study, a group or a seed doesn't exist, or groups wait for one another.
    """
    known = {study.name: study}
    waiting = [study] if is_used(study) else []
    while waiting:
        one = waiting.pop()
        for group in one.groups.values():
            for key, needed in _needs(one, group):
                name = needed.study or one.name
                if name not in known:
                    try:
                        known[name] = load(project, name)
                    except UsageError as error:
                        raise _wrong(one, group, key, needed, str(error)) from None
                    waiting.append(known[name])
                if why := _why_not_in(known[name], needed):
                    raise _wrong(one, group, key, needed, why)
    if len(known) > 1 and (cycle := _cycle(known, study)):
        raise ConfigurationError(
            _("{path}: groups wait for one another: {cycle}", str(study.path), _shown(cycle, study)),
            hint=_("take one of these out of needs"),
        )
    return {name: other for name, other in known.items() if name != study.name}


def _wrong(study: Study, group: Group, key: str, needed: Source, why: str) -> ConfigurationError:
    return ConfigurationError(
        _("{path}: [groups.{group}] {key}: {source}: {why}", str(study.path), group.name, key, str(needed), why)
    )


def _why_not_in(study: Study, needed: Source) -> str:
    """Return why a study has no such runs; empty where it has them."""
    if needed.group not in study.groups:
        choices = valid_choices(needed.group, study.groups)
        return _("study {study} has no group {group!r}; {choices}", study.name, needed.group, choices)
    seeds = study.judged_seeds if needed.study else (*study.seeds, *study.confirm_seeds)
    if needed.seed is not None and needed.seed not in seeds:
        return _("study {study} has no seed {seed}; valid: {seeds}", study.name, needed.seed, list(map(str, seeds)))
    return ""


def _cycle(studies: Mapping[str, Study], first: Study) -> list[Node]:
    """Return groups that need one another in a circle, the first of them again at the end; none where there is none."""
    graph: dict[Node, list[Node]] = {}
    waiting = [(first.name, group) for group in first.groups]
    while waiting:
        node = name, group = waiting.pop(0)
        if node not in graph and name in studies and group in studies[name].groups:
            study = studies[name]
            graph[node] = [(it.study or name, it.group) for _key, it in _needs(study, study.groups[group])]
            waiting += graph[node]
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        cycle: list[Node] = error.args[1][::-1]
        return cycle
    return []


def _shown(cycle: Iterable[Node], own: Study) -> str:
    return " -> ".join(group if study == own.name else f"{study}/{group}" for study, group in cycle)


# Runs -----------------------------------------------------------------------------------------------------------------


def parents(
    study: Study,
    group: Group,
    seed: int,
    studies: Mapping[str, Study],
    name_of: Callable[[Study, str, int], str],
    fingerprint: Callable[[str, str, int, str], str],
    submitted: Container[tuple[str, str]],
) -> tuple[Parent, ...]:
    """Return the runs that a group's run of a seed needs, each with what it takes from it.

    Args:
        studies: The others by name; what is needed of one that isn't among them is left out.
        name_of: Returns the name of a study's run, by group and seed.
        fingerprint: Returns that of a run by study, group, seed and name; empty where it isn't known.
        submitted: Runs that were submitted, by study and name.

    Raises:
        ConfigurationError: Another study has no run of its seed.
    """
    found = []
    wanted = [(needed, group.when, "", "", "") for needed in group.needs]
    wanted += [(it.source, SUCCESS, name, it.artifact, str(it)) for name, it in inputs(study, group).items()]
    for needed, when, name, artifact, shown in wanted:
        other = studies.get(needed.study) if needed.study else study
        if other is None:
            continue
        its = seed if needed.seed is None else needed.seed
        run = name_of(other, needed.group, its)
        seeds = other.judged_seeds
        if needed.study and not seeds:
            raise ConfigurationError(
                _(
                    "{path}: [groups.{group}] needs {source}: study {study} tunes and has no confirm_seeds",
                    str(study.path), group.name, str(needed), other.name,
                ),
                hint=_("give it confirm_seeds: the runs that confirm what was chosen are those that others need"),
            )  # fmt: skip
        if needed.study and its not in seeds and (other.name, run) not in submitted:
            one = Source(study=needed.study, group=needed.group, seed=seeds[0])
            raise ConfigurationError(
                _(
                    "{path}: [groups.{group}] needs {source}, and study {study} has no seed {seed}; its seeds: {seeds}",
                    str(study.path), group.name, str(needed), other.name, its, list(map(str, seeds)),
                ),
                hint=_("give both studies the same seeds, or name one run for all: {source}", str(one)),
            )  # fmt: skip
        found.append(
            Parent(
                study=other.name, run=run, group=needed.group, seed=its, when=when, input=name, artifact=artifact,
                fingerprint=fingerprint(other.name, needed.group, its, run) if name else "", shown=shown,
            )
        )  # fmt: skip
    taken = {(parent.study, parent.run) for parent in found if parent.input}
    return tuple(parent for parent in found if parent.input or (parent.study, parent.run) not in taken)


def in_order(runs: Iterable[Item], name: Callable[[Item], str], needs: Callable[[Item], Iterable[str]]) -> list[Item]:
    """Return runs so that each comes after those that it needs, and otherwise in the order that they have."""
    known = {name(run): run for run in runs}
    placed: dict[str, Item] = {}

    for each, run in known.items():
        path = {each: run}
        while path:
            last = next(reversed(path))
            before = next((it for it in needs(path[last]) if it in known and it not in placed and it not in path), None)
            if before is None:
                placed.setdefault(last, path.pop(last))
            else:
                path[before] = known[before]
    return list(placed.values())

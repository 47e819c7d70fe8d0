"""Propose a study and its targets for scripts, and say what was not understood. Nothing is executed or written."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from .. import names, tomlfile
from ..agent import rundir
from ..agent.sentences import _
from ..errors import ConfigurationError, DataError, UsageError
from ..language import translated
from ..programs import script, words
from ..spec.study import Study
from ..study.files import read_tables
from ..study.implicit import free_name
from ..targets.files import append
from . import checking, places, secrets, shell, trainer
from .commands import Command, of_one_program
from .found import Found, Left, Place
from .grouping import Undeclared
from .joining import Joined, join
from .scope import as_written

SUFFIXES = (".sh", ".bash", ".sbatch", ".slurm", ".sub", ".job", ".zsh", ".batch", ".cmd")
"""Endings of scripts, of which a folder's are taken."""
MOST_SCRIPTS = 2000
METRICS = """
# [metrics]    # what it prints, with names in place of numbers; the first metric of goal is the main one
# lines = ["step {step}: loss {loss}"]
# goal = { loss = "minimize" }
"""


@dataclass(frozen=True, kw_only=True)
class Start:
    """A command of the scripts and the run that it becomes."""

    place: Place
    words: tuple[str, ...]
    run: str
    target: str


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A study and its targets, before anything is written."""

    study: Study
    """As it would be read."""
    text: str
    """Of the study's file."""
    targets_path: Path
    targets: Mapping[str, Mapping[str, Any]]
    """Tables that the targets file lacks."""
    scripts: tuple[str, ...]
    headline: str
    starts: tuple[Start, ...]
    undeclared: tuple[Undeclared, ...]
    left: tuple[Left, ...]
    """Lines that were not understood or have no place in a study."""
    notes: tuple[str, ...] = field(default_factory=tuple)
    """What is different from the scripts, or to be looked at."""

    @property
    def targets_text(self) -> str:
        """Return the targets' tables as they are in a file."""
        return tomlfile.document(self.targets).lstrip("\n") if self.targets else ""


def scripts_of(paths: Sequence[Path]) -> list[Path]:
    """Return scripts by their paths: of a folder those in it and below.

    Raises:
        DataError: A folder can't be read, or holds none, or there are too many.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        try:
            next(path.iterdir(), None)
            inside = sorted(
                each
                for each in path.rglob("*")
                if each.suffix in SUFFIXES and not any(part.startswith(".") for part in each.relative_to(path).parts)
            )
        except OSError as error:
            raise DataError(_("{path}: can't be read: {why}", str(path), error.strerror or str(error))) from None
        if not inside:
            raise DataError(
                _("{path}: no script in this folder ends in {suffixes}", str(path), list(SUFFIXES)),
                hint=_("name the files themselves: oelm import-script {path}/*", str(path)),
            )
        found += inside
    found = list(dict.fromkeys(found))
    if len(found) > MOST_SCRIPTS:
        raise DataError(
            _("{n:,} scripts are more than one study is made of; give at most {most:,}", len(found), MOST_SCRIPTS)
        )
    return found


def propose(paths: Sequence[Path], project: Path, name: str = "") -> Proposal:
    """Return the study and the targets that scripts amount to.

    Args:
        project: The folder that the study is for.
        name: Of the study; without it, that of the program.

    Raises:
        DataError: A script can't be read, or none starts anything.
        UsageError: The name can't be a study's.
    """
    if name and (reason := names.why_not_study(name) or (_("is the file of targets") if name == "targets" else "")):
        raise UsageError(_("--{option} {value!r}: {why}", "name", name, reason))
    scripts = scripts_of(paths)
    found = shell.explore(scripts, project)
    commands = of_one_program(found)
    if not commands:
        raise DataError(_nothing(scripts, found), hint=_hint(found))
    joined = join(commands, found)
    members = [command for command, _group, _seed in joined.members]
    jobs = project / "jobs"
    targets_path = jobs / "targets.toml"
    existing = tomlfile.tables(targets_path) if targets_path.exists() else {}
    tables, of_command = places.propose(members, existing, _constant(members), found)
    free = free_name(project, name or _name(members[0]))
    if name and free != name:
        raise UsageError(
            _("--{option} {value!r}: {why}", "name", name, _("oelm run has made a study of that name")),
            hint=_("give another name: --name {name}", free),
        )
    path = jobs / f"{free}.toml"
    study_tables = _tables(joined, project, found)
    study = read_tables(tomlfile.Section(path, "", study_tables))
    notes = [*_notes(joined, members, of_command, project, study), *_against(study, project, joined, found)]
    left = sorted(found.left.values(), key=lambda each: (each.place.path, each.place.line))
    runs = [
        names.run_name(group, None if seed in (-1, study.seeds[0]) else seed, "")
        for _command, group, seed in joined.members
    ]
    shown = [str(path) for path in scripts]
    return Proposal(
        study=study,
        text=_text(study_tables, shown, left),
        targets_path=targets_path,
        targets=tables,
        scripts=tuple(shown),
        headline=_headline(joined, len(scripts), study),
        starts=tuple(
            Start(
                place=command.started.place,
                words=secrets.without([as_written(word) for word in command.started.words]),
                run=run,
                target=target,
            )
            for command, run, target in zip(members, runs, of_command, strict=True)
        ),
        undeclared=tuple(joined.undeclared),
        left=tuple(left),
        notes=tuple(notes),
    )


def write(proposal: Proposal) -> list[Path]:
    """Write a study's file, and its targets behind what the targets file has; return what was written.

    Raises:
        UsageError: The study's file is there already.
        ConfigurationError: One can't be written.
    """
    path = proposal.study.path
    written = [path]
    with tomlfile.changing(path) as before:
        if before or path.exists():
            raise UsageError(
                _("{path} is there already; nothing was written", str(path)),
                hint=_("give another name: --name NAME"),
            )
        if proposal.targets:
            existing = tomlfile.tables(proposal.targets_path) if proposal.targets_path.exists() else {}
            if taken := [name for name in proposal.targets if name in existing]:
                raise ConfigurationError(_("{path}: another command has made it meanwhile", f"[{taken[0]}]"))
            append(proposal.targets_path, proposal.targets)
            written.append(proposal.targets_path)
        rundir.write_text(path, proposal.text, durable=False)
    return written


# The study's file -----------------------------------------------------------------------------------------------------


def _tables(joined: Joined, project: Path, found: Found) -> dict[str, Any]:
    unequal = {each.name: _reason(each) for each in joined.undeclared}
    sizes = {max(group.get("gpus", 1), 1) for group in joined.groups.values()}
    of_sizes = {"world_size": translated(_("the scripts give groups different numbers of GPUs"))}
    if of_trainer := trainer.tables(joined, project, unequal, found):
        unequal = of_trainer.pop("unequal") | (of_sizes if len(sizes) > 1 else {})
        unequal = {key: translated(why) for key, why in unequal.items()}
        return {"question": _question(of_trainer["factors"]), **of_trainer, **({"unequal": unequal} if unequal else {})}
    tables: dict[str, Any] = {"question": _question(joined.factors), "factors": joined.factors}
    if joined.has_seed:
        tables["seeds"] = joined.seeds
    program: dict[str, Any] = {"command": _as_file(joined.words)}
    if "{settings}" in joined.words:
        program |= {"settings": joined.spelling} if joined.spelling != "--key=value" else {}
        program |= {"booleans": joined.booleans} if joined.booleans != "true" else {}
    elif joined.booleans == "True":
        program["booleans"] = "True"
    tables["program"] = program
    if joined.settings:
        tables["settings"] = joined.settings
    tables["groups"] = joined.groups
    unequal |= dict.fromkeys(joined.labels, translated(_("it only names runs")))
    if len({group.get("gpus", 1) for group in joined.groups.values()}) > 1:
        unequal |= of_sizes
    if unequal:
        tables["unequal"] = unequal
    return tables


def _question(factors: Sequence[str]) -> str:
    return translated(_("What changes with {factors}?", factors)) if factors else ""


def _reason(undeclared: Undeclared) -> str:
    where = ", ".join(undeclared.places[:3]) + (", …" if len(undeclared.places) > 3 else "")
    return translated(
        _(
            "the scripts differ in it and nobody declared why: {others} in {where}, else {usual}",
            list(undeclared.others[:5]),
            where,
            undeclared.usual,
        )
    )


def _as_file(command: Sequence[str]) -> str | list[str]:
    """Return a command as a study file has it: text where that is split into the same words."""
    for text in (" ".join(command), shlex.join(command)):
        try:
            if words.read(text) == words.read(command):
                return text
        except words.BadWords:
            continue
    return list(command)


def _text(tables: Mapping[str, Any], scripts: Sequence[str], left: Sequence[Left]) -> str:
    """Return the file's content, with what wasn't understood at its head."""
    few = ", ".join(PurePosixPath(each).name for each in scripts[:4]) + (", …" if len(scripts) > 4 else "")
    lines = [f"# Proposed by oelm import-script from {few}. Look at it, and say what the question is."]
    if left:
        lines.append("# Not understood, or without a place in a study:")
        lines += [f"#   {each.place}  {each.source[:80]}" for each in left[:50]]
        lines += [f"#   and {len(left) - 50} more"] if len(left) > 50 else []
    clean = [re.sub(r"[^\t -\ud7ff\uf900-\ufffd]", "?", line) for line in lines]
    return "\n".join(clean) + "\n" + tomlfile.document(tables) + (METRICS if "program" in tables else "")


def _name(command: Command) -> str:
    """Return a name for the study: that of its script, module or program."""
    head = command.program.head
    place = command.program.script
    called = head[place] if place is not None else head[-1]
    called = PurePosixPath(called).stem if place is not None else called.rpartition(".")[2]
    name = re.sub(r"[^A-Za-z0-9-]+", "_", called).strip("_-")[:48]
    return "imported" if names.why_not_study(name) or name == "targets" else name


def _constant(commands: Sequence[Command]) -> set[str]:
    """Return the variables that have the same value in all commands that have them."""
    values: dict[str, set[str]] = {}
    for command in commands:
        for name, value in command.environment.items():
            values.setdefault(name, set()).add(value)
    return {name for name, several in values.items() if len(several) == 1}


# What is said of it ---------------------------------------------------------------------------------------------------


def _headline(joined: Joined, scripts: int, study: Study) -> str:
    number = len(joined.seeds) or 1
    seeds = _("1 seed") if number == 1 else _("{n:,} seeds", number)
    groups = _("1 group") if joined.arms == 1 else _("{n:,} groups", joined.arms)
    read = _("1 script") if scripts == 1 else _("{n:,} scripts", scripts)
    size = _("{scripts}: {groups} × {seeds}", read, groups, seeds)
    for each in joined.undeclared[:3]:
        number = len(each.scripts) if scripts > 1 else each.commands
        if number == 1:
            size = _("{before}; 1 differs in {key} that nobody declared", size, each.name)
        else:
            size = _("{before}; {n:,} differ in {key} that nobody declared", size, number, each.name)
    return size if len(joined.undeclared) <= 3 else _("{before}; and so on", size)


def _notes(
    joined: Joined, commands: Sequence[Command], targets: Sequence[str], project: Path, study: Study
) -> list[str]:
    notes: list[str] = []
    if joined.undeclared and len(joined.groups) > joined.arms:
        notes.append(
            _(
                "runs that differ in what nobody declared are groups of their own: {n} in all; take out those that were"
                " slips",
                len(joined.groups),
            )
        )
    for name, own in joined.seeds_of.items():
        lacking = [seed for seed in joined.seeds if seed not in own]
        if lacking and joined.has_seed:
            notes.append(
                _(
                    "no script starts group {group} with seeds {seeds}; without them: oelm-submit --group {group}"
                    " --seeds {own}",
                    name,
                    lacking,
                    ",".join(map(str, own)),
                )
            )
    if not joined.has_seed:
        notes.append(_("no command is told a seed, so each group is one run"))
    if joined.repeated:
        again = _("1 command is started again with the same words: it is one run")
        more = _("{n:,} commands are started again with the same words: each is one run", joined.repeated)
        notes.append(again if joined.repeated == 1 else more)
    by_word: dict[str, list[str]] = {}
    for argument, word in joined.replaced.items():
        if word is None:
            continue
        by_word.setdefault(word, []).append(argument if argument.startswith("-") else f"--{argument}")
    for word, several in by_word.items():
        if word.startswith("{run_dir}"):
            notes.append(_("{options} is {word}: results go into the run's own folder", several, word))
        elif word == "{port}":
            notes.append(_("{options} is {word}: a port that is free there", several, word))
        else:
            notes.append(_("{options} is {word}: a run sees only the GPUs that it leases", several, word))
    if not all(command.gpus_are_said for command in commands):
        notes.append(_("no line says how many GPUs a run has: 1 is assumed"))
    if keys := sorted({name for command in commands for name in command.secrets}):
        notes.append(
            _(
                "{names} is passed on by name (env of the target), its value isn't kept: export it where you submit",
                keys,
            )
        )
    if study.program and (why := script.why_not_there(project, study)):
        notes.append(_("the command: {why}", why))
    count = Counter(targets)
    if len(count) > 1:
        notes.append(_("{n} targets: {targets}; each group goes where --target says", len(count), sorted(count)))
        for target in sorted(count):
            groups = dict.fromkeys(
                group for (_command, group, _seed), own in zip(joined.members, targets, strict=True) if own == target
            )
            if len(groups) < len(joined.groups):
                notes.append(_("target {target}: groups {groups}", target, list(groups)))
    return notes


def _against(study: Study, project: Path, joined: Joined, found: Found) -> list[str]:
    """Name the commands that no run of the study repeats; say that the others are repeated."""
    differing = checking.differing(study, project, joined.members, joined.replaced)
    for command in differing:
        why = _("the study doesn't run this as the script does: compare with oelm-submit --dry-run")
        found.leave(command.started.place, " ".join(command.started.words), why)
    number = len(joined.members)
    if differing:
        return [_("{n:,} of {all:,} commands of the scripts are runs of the study", number - len(differing), number)]
    if number == 1:
        return [_("the script's only command is a run of the study, compared word for word")]
    return [_("all {n:,} commands of the scripts are runs of the study, compared word for word", number)]


def _nothing(scripts: Sequence[Path], found: Found) -> str:
    if len(scripts) == 1:
        return _("{path}: starts no program that could be a study's", str(scripts[0]))
    return _("none of {n:,} scripts starts a program that could be a study's", len(scripts))


def _hint(found: Found) -> str:
    first = next(iter(found.left.values()), None)
    if first is None:
        return _("looked for are python, torchrun, accelerate, deepspeed and the like")
    return _("not understood, for example: {place}  {source}: {why}", str(first.place), first.source, first.why)

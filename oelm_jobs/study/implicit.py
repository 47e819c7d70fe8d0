"""Make the study that a command line stands for, and keep it as a file that other commands find.

What is run again with other values or more seeds is added to the study of the same command; another command, with
other numbers of GPUs, data or settings that don't vary, is a study of its own.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import names, tomlfile
from ..agent import privacy, rundir
from ..agent.sentences import _
from ..errors import ConfigurationError, UsageError, valid_choices
from ..folders import COMMANDS
from ..programs import script, words
from ..spec.program import placeholders
from ..spec.study import Study
from .files import read_tables

FIRST_SEED = 42
FILLED_IN = ("settings", "seed", "run_dir", "gpus", "port", "nodes", "node_rank", "host")
"""Placeholders that need no values; what a program resumes from is said in a study file."""
HEADER = "# Made by oelm run, which adds to it what the same command runs with other values.\n"
Tables = Mapping[str, Any]
"""The content of a study file."""


@dataclass(frozen=True, kw_only=True)
class Implicit:
    """The study of a command line."""

    study: Study
    """With what earlier command lines have made part of it."""
    tables: Tables
    """What this command line asks for, as a study file of its own."""

    @property
    def groups(self) -> list[str]:
        """The groups that are asked for."""
        return list(self.tables["groups"])

    @property
    def seeds(self) -> list[int]:
        """The seeds that are asked for."""
        return list(self.tables["seeds"])


def make(
    project: Path,
    command: Sequence[str],
    values: Mapping[str, Sequence[str]],
    *,
    gpus: int = 1,
    num_seeds: int = 1,
    data: Sequence[str] = (),
    save: str = "",
) -> Implicit:
    """Return the study of a command; nothing is written.

    Args:
        values: What each placeholder or setting of the command is to be, as text.
        num_seeds: Runs of each combination of values, with other seeds.
        data: Files and folders that the program reads, as it calls them.
        save: Name of a study file in jobs/; without it the study is kept under a name after the command.

    Raises:
        UsageError: Command and values don't go together, or the name is taken.
        ConfigurationError: They make no study.
    """
    _check(command, values, num_seeds)
    tables: dict[str, Any] = {
        "factors": sorted(key for key, several in values.items() if len(several) > 1),
        "seeds": list(range(FIRST_SEED, FIRST_SEED + num_seeds)),
        "program": {"command": _as_file(command), **({"data": list(data)} if data else {})},
    }
    if shared := {key: tomlfile.value_of(several[0]) for key, several in values.items() if len(several) == 1}:
        tables["settings"] = shared
    groups = _groups(values, gpus)
    path = _place(project, name_of(command), {**tables, "groups": groups}, save)
    earlier = next((each for each in (path, _unsaved(path)) if each.exists()), None)
    before = tomlfile.tables(earlier) if earlier is not None else {}
    tables["groups"] = _named(groups, before.get("groups", {}), path.stem)
    study = read_tables(tomlfile.Section(path, "", _together(before, tables)))
    if why := script.why_not_there(project, study):
        raise UsageError(
            _("the command: {why}", why), hint=_("it runs in {folder}: give paths as seen from there", str(project))
        )
    return Implicit(study=study, tables=tables)


def keep(implicit: Implicit) -> Path:
    """Write a study's file, or add to it; return it. One that is saved has what was kept under its name till then.

    Raises:
        ConfigurationError: It can't be written, or is another study's meanwhile.
    """
    path, unsaved = implicit.study.path, _unsaved(implicit.study.path)
    with contextlib.ExitStack() as changes:
        before = changes.enter_context(tomlfile.changing(path))
        is_saved_now = not before and unsaved.exists()
        before = changes.enter_context(tomlfile.changing(unsaved)) if is_saved_now else before
        if path.parent.parent.name == rundir.CONTROL:
            privacy.ignore(str(path.parent.parent))
        if before and not _is_same(before, implicit.tables):
            why = _("another command has made it meanwhile")
            raise ConfigurationError(_("{path}: {why}", str(path), why), hint=_("run it again"))
        after = _together(before, implicit.tables)
        if after != before or is_saved_now:
            rundir.write_text(path, HEADER + tomlfile.document(after), durable=False)
        if is_saved_now:
            unsaved.unlink()
    return path


def out_of_git(project: Path, study: str) -> None:
    """Keep a study's runs out of what git shows of a checkout, which knows nothing of this toolkit."""
    if (project / ".git").exists():
        folder = project / "models" / "checkpoints" / study
        with contextlib.suppress(OSError), privacy.confined(""):  # else git shows them, which harms no run
            folder.mkdir(parents=True, exist_ok=True)
            privacy.ignore(str(folder))


def _check(command: Sequence[str], values: Mapping[str, Sequence[str]], num_seeds: int) -> None:
    if not command:
        raise UsageError(
            _("which command?"), hint=_("give it behind --, as in: oelm run -- python train.py --seed {{seed}}")
        )
    try:
        named = placeholders(words.read(command))
    except words.BadWords as error:
        raise UsageError(_("the command: {why}", str(error))) from None
    for name in sorted(named - {*values, *FILLED_IN}):
        if not re.fullmatch(r"[\w.-]+", name):
            raise UsageError(
                _("the command: {word} can't stand for a value", f"{{{name}}}"),
                hint=_("for a brace that is meant write two: {{{{ and }}}}"),
            )
        known = valid_choices(name, [*values, *FILLED_IN])
        raise UsageError(
            _("the command has {{{name}}}, and nothing says what that is; {choices}", name, known),
            hint=_("give it a value, or several: --set {name}=VALUE,VALUE", name),
        )
    for name in values:
        if name not in named and "settings" not in named:
            raise UsageError(
                _("--set {name}: the command has no place for it", name),
                hint=_("write {{{name}}} where its value belongs, as in --{name} {{{name}}}, or {{settings}}", name),
            )
    if num_seeds > 1 and "seed" not in named:
        raise UsageError(
            _("--num-seeds {number}: the command has no place for the seed", num_seeds),
            hint=_("write {{seed}} where it belongs, as in --seed {{seed}}"),
        )


def _as_file(command: Sequence[str]) -> str | list[str]:
    """Return a command as a study file has it: text where that is split into the same words."""
    text = " ".join(command)
    try:
        return text if words.read(text) == words.read(command) else list(command)
    except words.BadWords:
        return list(command)


def name_of(command: Sequence[str]) -> str:
    """Return a name for a command's study: that of its script, module or program."""
    scripts = [word for word in command if word.endswith((".py", ".sh"))]
    modules = [after.rpartition(".")[2] for word, after in itertools.pairwise(command) if word == "-m"]
    called = [*scripts, *modules, command[0]][0].rpartition("/")[2]
    name = re.sub(r"[^A-Za-z0-9-]+", "_", called.removesuffix(".py").removesuffix(".sh")).strip("_-")[:48]
    is_odd = names.why_not_study(name) or names.why_not_group(name) or name in (names.SPEED_TRIAL, "targets")
    return "run" if is_odd else name


def free_name(project: Path, name: str) -> str:
    """Return a name for a study in jobs/ that none of a command (``oelm run``) has: runs of both would lie together."""
    choices = (name if number == 1 else f"{name}-{number}" for number in itertools.count(1))
    return next(choice for choice in choices if not (project / COMMANDS / f"{choice}.toml").exists())


def _place(project: Path, name: str, tables: Tables, save: str) -> Path:
    """Return the study's file: the one that the same command has made, or one that is free."""
    jobs = project / "jobs"
    if save:
        path = jobs / f"{save}.toml"
        if reason := names.why_not_study(save) or (_("is the file of targets") if save == "targets" else ""):
            raise UsageError(_("--{option} {value!r}: {why}", "save", save, reason))
        for there in filter(Path.exists, (path, _unsaved(path))):
            if not _is_same(tomlfile.tables(there), tables):
                raise UsageError(
                    _("--save {name}: {path} is the study of another command", save, str(there)),
                    hint=_("give another name, or run that study: oelm-submit --study {study}", save),
                )
        return path
    for number in itertools.count(1):
        path = jobs / (f"{name}.toml" if number == 1 else f"{name}-{number}.toml")
        path = path if path.exists() else project / COMMANDS / path.name
        if not path.exists() or _is_same(tomlfile.tables(path), tables):
            break
    return path


def _unsaved(path: Path) -> Path:
    """Return where a study of jobs/ is kept until it is saved; for one that isn't saved, a path where nothing lies."""
    return path.parent.parent / COMMANDS / path.name


def _groups(values: Mapping[str, Sequence[str]], gpus: int) -> dict[str, Tables]:
    """Return a group for each combination of values, by its label; one with an empty label where none varies."""
    several = {key: texts for key, texts in values.items() if len(texts) > 1}
    own = {} if gpus == 1 else {"gpus": gpus}
    return {
        ", ".join(f"{key}={text}" for key, text in zip(several, texts, strict=True)): {
            **{key: tomlfile.value_of(text) for key, text in zip(several, texts, strict=True)},
            **own,
        }
        for texts in itertools.product(*several.values())
    }


def _named(groups: Mapping[str, Tables], before: Tables, study: str) -> Tables:
    """Return groups by their names: those that they have already, else ones made of their labels."""
    known = {_key(group): name for name, group in before.items()}
    found: dict[str, Tables] = {}
    taken = {name.lower() for name in before}
    for label, group in groups.items():
        name = known.get(_key(group))
        if name is None:
            name = wanted = re.sub(r"[^A-Za-z0-9-]+", "_", label.replace(", ", "-")).strip("_-")[:56] or study
            if names.why_not_group(name):
                name = wanted = "run"
            for number in itertools.count(2):
                if name.lower() not in taken:
                    break
                name = f"{wanted}_{number}"
            taken.add(name.lower())
            known[_key(group)] = name
        found[name] = {**({"label": label} if label else {}), **group}
    return found


def _key(group: Tables) -> str:
    """Return what makes a group itself."""
    return _exactly({key: value for key, value in group.items() if key != "label"})


def _exactly(value: Tables) -> str:
    """Return a table as text, in which 1, 1.0 and true are three values."""
    return json.dumps(value, sort_keys=True, default=str)


def _is_same(one: Tables, other: Tables) -> bool:
    """Tell whether two study files are about the same command, whatever the values and seeds."""
    varying = ("groups", "seeds")
    rest = [{key: value for key, value in tables.items() if key not in varying} for tables in (one, other)]
    gpus = [{str(group.get("gpus", 1)) for group in tables.get("groups", {}).values()} for tables in (one, other)]
    return _exactly(rest[0]) == _exactly(rest[1]) and gpus[0] == gpus[1]


def _together(before: Tables, tables: Tables) -> dict[str, Any]:
    """Return a study file's content with what a command line adds."""
    groups = {**before.get("groups", {})}
    groups |= {name: group for name, group in tables["groups"].items() if name not in groups}
    kept = {"name": before["name"]} if "name" in before else {}  # its file was renamed
    return {**kept, **tables, "seeds": sorted({*before.get("seeds", ()), *tables["seeds"]}), "groups": groups}

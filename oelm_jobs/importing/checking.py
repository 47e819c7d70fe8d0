"""Compare what a proposed study would run with what the scripts would have run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..programs import script, typed_flags
from ..spec.study import Run, Study
from ..study.resolve import plan_runs
from ..targets.files import LOCAL
from . import arguments, roles, trainer
from .commands import Command


def differing(
    study: Study, project: Path, members: Sequence[tuple[Command, str, int]], replaced: Mapping[str, str | None]
) -> list[Command]:
    """Return the commands that no run of the study repeats, word for word but for the order of options, how numbers are
    written, and what the toolkit gives.
    """
    runs = {(run.group, run.seed): run for run in plan_runs(study, replace(LOCAL, root=str(project)))}
    found = []
    for command, group, seed in members:
        run = runs.get((group, seed if seed >= 0 else study.seeds[0]))
        is_repeated = run is not None and (
            _is_same(command, run, replaced) if run.program else _trains_alike(command, run, project)
        )
        if not is_repeated:
            found.append(command)
    return found


def _trains_alike(command: Command, run: Run, project: Path) -> bool:
    typed = trainer.read(command, project)
    return typed is not None and typed_flags.is_repeated(typed, run)


def _is_same(command: Command, run: Run, replaced: Mapping[str, str | None]) -> bool:
    words = script.commands(run, "python")[0]
    variables: dict[str, str] = {}
    if words[:1] == ["env"]:
        words = words[1:]
        while "=" in words[0]:
            name, _sign, value = words.pop(0).partition("=")
            variables[name] = value
    head = [word.replace("{{", "{").replace("}}", "}") for word in command.program.head]
    if words[: len(head)] != head or any(command.environment.get(name) != value for name, value in variables.items()):
        return False
    return _compared(arguments.read(words[len(head) :]), replaced) == _compared(command.arguments.values(), replaced)


def _compared(several: Iterable[arguments.Argument], replaced: Mapping[str, str | None]) -> dict[str, object]:
    return {
        each.name: tuple(map(_as_number, each.values))
        for each in several
        if each.name not in replaced and not roles.is_rank(each.name)
    }


def _as_number(text: str) -> object:
    try:
        return float(text)
    except ValueError:
        return text

"""Answer for a program of the user's own what ``built_in`` answers for the trainer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import tomlfile
from ..agent.sentences import _
from ..spec import lineage
from ..spec.program import FILE_KINDS, Program, Word
from ..spec.study import Group, Run, Study
from ..train.config import hashed
from . import words

if TYPE_CHECKING:
    from ..agent.record_types import ProgramRecord

OTHERWISE = _("another command, other data or another number of GPUs")
"""What may differ where no setting does."""
BESIDES: tuple[str, ...] = ()
"""What a command may set of a study besides its settings."""
BY_CLIENT = ("settings", "seed", "run_dir")
"""Placeholders that are filled in before a run is sent, besides the settings' names."""
BY_AGENT = ("resume", "checkpoint", "gpus", "port", "nodes", "node_rank", "host", "settings_file")
"""Placeholders that each attempt fills in."""


def _program(run: Run | Study) -> Program:
    assert run.program is not None
    return run.program


def why_not_there(project: Path, study: Study) -> str:
    """Return why a command can't be run: the script that it names isn't in the project; empty where it is."""
    for stage in _program(study).stages:
        texts = [word for word in stage.words if isinstance(word, str)]
        named = [word for word in texts if word.endswith((".py", ".sh")) and not word.startswith("-")]
        for script in (*(texts[:1] if "/" in texts[0] else ()), *named[:1]) if texts else ():
            if not script.startswith(("/", "~")) and not (project / script).is_file():
                return _("{script}: no such file in {project}", script, str(project))
    return ""


def why_no_folder(project: Path, study: Study) -> str:
    """Return why data can't be placed: a file of the project stands where a folder above them is wanted; else empty."""
    for place in _program(study).data:
        above = list(Path(place).parents)[:-1] if not place.startswith(("/", "~")) else []
        for folder in above:
            if (project / folder).is_file():
                return _("{file} is a file, and {data} wants a folder there", str(project / folder), place)
    return ""


# Settings -------------------------------------------------------------------------------------------------------------


def why_not_value(value: object) -> str:
    """Return why a setting can't have a value; empty where it can."""
    if isinstance(value, dict):
        return _("a name with dots is written in quotes")
    each = value if isinstance(value, list) else [value]
    if not all(isinstance(one, (str, int, float, bool)) for one in each):
        return _("must be text, a number, true or false, or a list of these")
    if any(isinstance(one, float) and not math.isfinite(one) for one in each):
        return _("must be finite")
    if any(isinstance(one, str) and "\0" in one for one in each):
        return _("must not hold a zero byte")
    return ""


def why_not_set(study: Study, texts: Mapping[str, str]) -> dict[str, str]:
    """Return why settings can't be such texts, by setting."""
    found = {key: _why_not_set(study, key, value) for key, value in texts.items()}
    return {key: why for key, why in found.items() if why}


def _why_not_set(study: Study, key: str, value: str) -> str:
    found, before = _read(study.settings[key], value), study.settings[key]
    if kind(found) is not kind(before) or why_not_value(found):
        return _("must be of the kind that it has in the study: {value}", repr(before))
    return _("must be above zero") if key == _program(study).length and found <= 0 else ""


def why_not_together(study: Study, group: Group) -> str:
    """Return why a group's settings don't go with the study's; the script alone knows that."""
    return ""


def kind(value: object) -> type:
    """Return what a value is, in which all numbers are of one kind."""
    return float if type(value) is int else type(value)


def with_settings(study: Study, texts: Mapping[str, str]) -> Study:
    """Return a study with settings changed, as ``why_not_set`` allows it."""
    own = {key: _read(study.settings[key], value) for key, value in texts.items()}
    return replace(study, settings={**study.settings, **own})


def _read(before: object, text: str) -> Any:
    """Return a text as a value of TOML, or as it is where it is none, or where text stood before."""
    if isinstance(before, str):
        return text
    found = tomlfile.value_of(text)
    return float(found) if isinstance(before, float) and type(found) is int else found


def data(study: Study) -> dict[str, str]:
    """Return the files and folders that a study's program reads, by the names that it has for them."""
    return {path: path for path in _program(study).data}


def why_not_run(study: Study, run: Run) -> str:
    """Return why a run can't have its seed; empty where it can."""
    if _program(study).takes_seed or run.seed == study.seeds[0]:
        return ""
    return _("its program takes no seed: give {{seed}} in its command, or seed = … in [program]")


def settings_of(study: Study, run: Run, data_there: Mapping[str, str]) -> dict[str, Any]:
    """Return every setting of a run, the seed's included."""
    seed = _program(study).seed
    return {**study.settings, **study.groups[run.group].values, **({seed: run.seed} if seed else {})}


def placed(run_dir: str) -> dict[str, str]:
    """Return the settings that follow from a run's directory: none."""
    return {}


def scientific(run: Run) -> dict[str, object]:
    """Return the keys that make a run scientifically itself, seed included."""
    program = _program(run)
    own = (*program.execution, program.seed)
    keys = {key: value for key, value in run.settings.items() if key not in own}
    return {**keys, "seed": run.seed, "world_size": run.world_size}


def fingerprint(run: Run, data_hash: str) -> str:
    """Return the hash of what makes a run scientifically itself: words before anything is filled in, settings, seed,
    number of GPUs, data.
    """
    content: list[object] = [[stage.words for stage in _program(run).stages], scientific(run), data_hash]
    if run.parents and (taken := lineage.taken(run.parents)):
        content.append(taken)
    return hashed(content)


def compared(run: Run) -> dict[str, object]:
    """Return the keys by which groups are compared before anything runs."""
    taken = {parent.input: parent.shown for parent in run.parents if parent.input}
    return {**run.settings, "seed": run.seed, "world_size": run.world_size, **taken}


def of_the_place(run: Run) -> tuple[str, ...]:
    """Return the settings that may change where a run goes on."""
    return (*_program(run).execution, _program(run).seed)


def length_key(run: Run) -> str:
    """Return the setting that says how long a run is; empty where none does."""
    return _program(run).length


# Commands -------------------------------------------------------------------------------------------------------------


def commands(run: Run, python: str) -> list[list[str]]:
    """Return the commands of a run's stages as far as they are known, placeholders of an attempt as the study has
    them.
    """
    return [list(words.shown(filled)) for filled in _filled(run)]


def _filled(run: Run) -> list[list[Word]]:
    return [_filled_in(run, stage.words) for stage in _program(run).stages]


def _filled_in(run: Run, several: tuple[Word, ...]) -> list[Word]:
    program = _program(run)
    own = {key: value for key, value in run.settings.items() if key not in BY_AGENT}  # to resume has {checkpoint}, too
    values = {key: words.spelled(value, program.booleans) for key, value in own.items()}
    values |= {"seed": str(run.seed), "run_dir": run.run_dir}
    options = (
        [] if program.spelling in FILE_KINDS else words.options(_unplaced(run), program.spelling, program.booleans)
    )
    return list(words.fill(several, values, options))


def _unplaced(run: Run) -> dict[str, Any]:
    """Return the settings that no placeholder of their own name has a place for."""
    placed_by_name = _program(run).names()
    return {key: value for key, value in run.settings.items() if key not in placed_by_name}


def kept(run: Run) -> ProgramRecord:
    """Return what the index keeps of a run's record (length.KEPT); all of it takes ten times as long."""
    program = _program(run)
    steps, goal = run.settings.get(program.length), dict(program.metrics.goal)
    return {"settings": dict(run.settings), "max_steps": steps, "metrics": {"goal": goal}}


def record(run: Run) -> ProgramRecord:
    """Return what a run's record says of its program."""
    program = _program(run)
    kind = program.spelling if program.spelling in FILE_KINDS else None
    return {
        "stages": [
            {"name": stage.name, "words": _listed(filled)}
            for stage, filled in zip(program.stages, _filled(run), strict=True)
        ],
        "resume": _listed(_filled_in(run, program.resume)),
        "checkpoint": program.checkpoint,
        "best": program.best,
        "length": program.length or None,
        "max_steps": run.settings.get(program.length),
        "stop_s": program.stop_s,
        "cpus": run.cpus,
        "data": [list(pair) for pair in run.data],
        "settings": dict(run.settings),
        "settings_file": kind,
        "settings_text": words.text_of(_unplaced(run), kind) if kind else None,
        "files": list(program.files),
        "metrics": {
            "lines": list(program.metrics.lines),
            "files": list(program.metrics.files),
            "goal": dict(program.metrics.goal),
        },
    }


def _listed(several: tuple[Word, ...] | list[Word]) -> list[str | list[str]]:
    return [word if isinstance(word, str) else list(word) for word in several]

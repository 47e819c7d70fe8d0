"""Read what a study file says of a program of the user's own: [program], [[stages]], [settings], [metrics]."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from .. import names, tomlfile
from ..agent.run import line_patterns
from ..agent.sentences import _
from ..errors import valid_choices
from ..programs import script, words
from ..spec.program import BOOLEANS, FILE_KINDS, GOALS, MEASURED, SPELLINGS, Metrics, Program, Stage, Word, placeholders
from ..spec.study import Group

NOT_METRICS = ("step", "epoch", "time")
"""Names in a pattern that say where a number belongs."""
MOST_STOP_S = 86_400


def read_program(top: tomlfile.Section, seeds: Sequence[int]) -> Program:
    """Take [program], [[stages]] and [metrics]; what they say of settings is checked by ``check``.

    What depends on several keys is looked at once each of them is right.
    """
    section = top.take_section("program", required=True)
    program = Program(
        stages=_stages(top, section),
        spelling=section.take("settings", str, SPELLINGS[0], choices=(*SPELLINGS, *FILE_KINDS)),
        booleans=section.take("booleans", str, BOOLEANS[0], choices=BOOLEANS),
        resume=_words(section, "resume", ()),
        checkpoint=_pattern(section, "checkpoint", section.take("checkpoint", str, "")),
        best=_pattern(section, "best", section.take("best", str, "")),
        length=section.take("length", str, ""),
        data=take_data(section),
        execution=frozenset(section.take_list("execution", str, ())),
        stop_s=section.take("stop_s", float, Program.stop_s),
        seed=section.take("seed", str, ""),
        files=tuple(_pattern(section, "files", path) for path in section.take_list("files", str, ())),
        metrics=_metrics(top.take_section("metrics")),
    )
    section.finish()
    if not 0 <= program.stop_s <= MOST_STOP_S:
        section.wrong("stop_s", _("valid: {low} to {high}", 0, MOST_STOP_S), value=program.stop_s)
    if not top.is_right:
        return program
    used = program.names()
    if program.booleans == "flag" and program.spelling not in ("--key=value", "--key value"):
        section.wrong("booleans", _("a flag needs settings = {choices}", SPELLINGS[:2]), value="flag")
    if program.resume and "resume" not in used:
        section.wrong("resume", _("no command has a place for it: {{resume}}"))
    if "resume" in used and not program.resume:
        section.wrong("resume", _("is missing: a command has {{resume}}"))
    if not program.checkpoint and (program.resume or "checkpoint" in used):
        section.wrong("checkpoint", _("is missing: nobody would know from what to go on"))
    if ("settings_file" in used) is not (program.spelling in FILE_KINDS) or {"settings", "settings_file"} <= used:
        why = _("{{settings_file}} goes with {kinds}, {{settings}} with {spellings}", FILE_KINDS, SPELLINGS)
        section.wrong("settings", why, value=program.spelling)
    if len(seeds) > 1 and not program.takes_seed:
        why = _(
            "the program takes no seed: give {{seed}} in its command, or seed = … in [program]; else one seed alone"
        )
        top.wrong("seeds", why, value=list(seeds))
    return program


def _stages(top: tomlfile.Section, section: tomlfile.Section) -> tuple[Stage, ...]:
    if "stages" not in top:
        if "command" not in section:
            section.lacks("command", _("is missing; give the command of a run, or [[stages]] with a command each"))
            return ()
        return (Stage(name="", words=_words(section, "command")),)
    if "command" in section:
        section.wrong("command", _("there are [[stages]], too: give one of both"))
        section.take_any("command")
    found: list[Stage] = []
    for table in top.take_list("stages", dict):
        stage = top.below("stages", table)
        name = stage.take("name", str)
        if reason := names.why_not(name):
            stage.wrong("name", reason, value=name)
        if name in (each.name for each in found):
            stage.wrong("name", _("is the name of two stages"), value=name)
        if "command" in stage:
            found.append(Stage(name=name, words=_words(stage, "command")))
        else:
            stage.lacks("command", _("is missing; give {what}", tomlfile.KINDS[str]))
            found.append(Stage(name=name, words=()))
        stage.finish()
    if not found:
        top.wrong("stages", _("give at least one"))
    return tuple(found)


def _words(section: tomlfile.Section, key: str, default: tuple[Word, ...] | None = None) -> tuple[Word, ...]:
    if key not in section and default is not None:
        return default
    value = section.take_any(key)
    is_list = isinstance(value, list) and all(isinstance(each, str) for each in value)
    if not (isinstance(value, str) or is_list):
        section.wrong(key, _("must be text, or a list of words"), value=value)
        return ()
    try:
        found = words.read(value)
    except words.BadWords as error:
        section.wrong(key, str(error), value=value)
        return ()
    if not found:
        section.wrong(key, _("must not be empty"), value=value)
    return found


def _pattern(section: tomlfile.Section, key: str, text: str) -> str:
    """Return a pattern of a path below the run directory or the working folder."""
    if text.startswith(("/", "~")) or ".." in text.split("/") or not text.isprintable():
        section.wrong(key, _("must be a path below the run's folder"), value=text)
    return text


def take_data(section: tomlfile.Section) -> tuple[str, ...]:
    """Take the files and folders that a program reads."""
    paths = section.take_list("data", str, ())
    for path in paths:
        is_odd = path.startswith("~") or ".." in path.split("/") or path.strip("./") == ""
        if reason := _("must be a path in the project, or an absolute one") if is_odd else names.why_not_path(path):
            section.wrong("data", reason, value=path)
    return tuple(path if path.startswith("/") else path.removeprefix("./").rstrip("/") for path in paths)


def _metrics(section: tomlfile.Section) -> Metrics:
    lines = section.take_list("lines", str, ())
    found: list[str] = []
    for line in lines:
        try:
            found += line_patterns.compile_line(line).names
        except line_patterns.BadPattern as error:
            section.wrong("lines", str(error))
    files = tuple(_pattern(section, "files", path) for path in section.take_list("files", str, ()))
    goals = section.take_section("goal")
    goal = {name: goals.take(name, str, choices=GOALS) for name in goals.keys_left()}
    told = tuple(dict.fromkeys(name for name in found if name not in NOT_METRICS))
    measured: dict[str, str] = {}
    for kind in MEASURED:
        for name in section.take_list(kind, str, ()):
            if name not in (*goal, *told):
                why = _("neither goal nor a line names it; {choices}", valid_choices(name, [*goal, *told]))
                section.wrong(kind, why, value=name)
            if measured.setdefault(name, kind) != kind:
                section.wrong(kind, _("is said to be {kind}, too", measured[name]), value=name)
    section.finish()
    if strange := [name for name in goal if lines and not files and name not in told]:
        why = _("no line tells it; {choices}", valid_choices(strange[0], told))
        goals.wrong(strange[0], why, value=goal[strange[0]])
    return Metrics(lines=lines, files=files, goal=goal, names=told, measured=measured)


def read_value(section: tomlfile.Section, key: str) -> Any:
    """Take a setting.

    Raises:
        ConfigurationError: Its name can't be one, or its value is none.
    """
    value = section.take_any(key)
    if isinstance(value, dict):
        inner = next(iter(value), "…")
        raise section.error(key, _('is a table: a name with dots is written in quotes: "{name}" = …', f"{key}.{inner}"))
    if not key.isprintable() or any(sign in key for sign in " ={}") or not key.strip(".") or key.startswith("-"):
        raise section.error(key, _("can't be a setting's name: no blanks, braces or =, and no - in front"))
    if reason := script.why_not_value(value):
        raise section.error(key, reason, value=value)
    return value


def read_settings(section: tomlfile.Section, program: Program, factors: Iterable[str]) -> dict[str, object]:
    """Take what groups have in common from [settings]."""
    settings: dict[str, object] = {}
    for key in section.keys_left():
        if key in factors:
            section.wrong(key, _("is a factor: set it in the groups"))
        elif key == program.seed:
            section.wrong(key, _("takes the seed: set it in seeds"))
        else:
            with section.noting():
                settings[key] = read_value(section, key)
    return settings


def check(
    top: tomlfile.Section,
    program: Program,
    settings: Mapping[str, object],
    groups: Collection[Group],
    factors: Sequence[str],
    tuned: Sequence[str],
    unequal: Collection[str],
) -> None:
    """Note what a program's commands and the study's settings don't agree on: a placeholder that is unknown, a setting
    that is nowhere, a group that lacks a factor.

    Args:
        factors: Settings that every group sets.
        tuned: Settings that are tuned for each group.
        unequal: Settings that may differ.
    """
    section = top.beside("program")
    used, everywhere = program.names(), set[str]()
    takes_all = used & {"settings", "settings_file"}
    own = {program.seed} - {""}
    for group in groups:
        have = {**settings, **group.values}
        if doubled := sorted({*group.inputs} & {*have, *own, *script.BY_CLIENT, *script.BY_AGENT}):
            table = top.beside("groups", group.name, "inputs")
            table.wrong(doubled[0], _("is a setting or another placeholder already: give the input another name"))
            continue
        everywhere |= {*have, *own, *group.inputs}
        if lacking := [key for key in factors if key not in group.factors and key not in group.inputs]:
            for name in lacking:
                top.beside("groups", group.name).wrong(name, _("is missing: it is a factor, which every group sets"))
            continue
        for key, placed, others in (
            ("command", used, {*script.BY_CLIENT, *script.BY_AGENT}),
            ("resume", placeholders(program.resume), {"checkpoint", "seed", "run_dir"}),
        ):
            known = {*have, *own, *others, *group.inputs}
            if unknown := sorted(placed - known):
                if any(unknown[0] in {*other.values, *other.inputs} for other in groups):
                    top.beside("groups", group.name).wrong(unknown[0], _("is missing: the command has a place for it"))
                    continue
                choices = valid_choices(unknown[0], sorted(known))
                section.wrong(key, _("unknown placeholder {{{name}}}; {choices}", unknown[0], choices))
        if shadowed := sorted(used & {*have} & {*script.BY_CLIENT, *script.BY_AGENT}):
            why = _(
                "a setting has the name of what {{{name}}} stands for: the command can't place it by name", shadowed[0]
            )
            section.wrong("command", why)
        for given in {*group.inputs} - used - placeholders(program.resume):
            table = top.beside("groups", group.name, "inputs")
            table.wrong(given, _("is nowhere in the command: give {{{name}}} where its path belongs", given))
        if lost := [key for key in (*have, *own) if key not in used and not takes_all]:
            section.wrong(
                "command",
                _(
                    "setting {name} is nowhere in it: give {{{name}}}, or {{settings}} for all that have no place",
                    lost[0],
                ),
            )
        if program.spelling in FILE_KINDS and (clash := words.why_not_nested({*have, *own} - used)):
            section.wrong("settings", clash, value=program.spelling)
    strange = {
        name: _("no such setting; {choices}", valid_choices(name, sorted(everywhere)))
        for name in (program.length, *sorted(program.execution), *tuned, *unequal)
        if name and name not in everywhere
    }
    for key, named in (("length", [program.length]), ("execution", sorted(program.execution))):
        section.wrong_items(key, ((name, strange[name]) for name in named if name in strange))
    top.wrong_items("tuned", ((name, strange[name]) for name in tuned if name in strange))
    for name in unequal:
        if name in strange:
            top.beside("unequal").wrong(name, strange[name])
    for group in groups:
        value = {**settings, **group.values}.get(program.length)
        if program.length and (isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0):
            section.wrong("length", _("must be a setting above zero, of every group"), value=program.length)

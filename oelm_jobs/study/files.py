"""Find, read and check study files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from .. import names, tomlfile
from ..agent.sentences import _
from ..errors import ConfigurationError, UsageError, nearest, valid_choices
from ..folders import example_files, study_files
from ..programs import built_in, description
from ..spec.block import Block
from ..spec.study import Group, SpeedTrial, Study
from . import block_file, hypothesis_file, lineage, notifying, program_file, sweep, taking, tuning
from .resolve import why_not_swept

KEYS = ("question", "default", "factors", "seeds", "confirm_seeds", "max_retries", "target_loss",
        "tuned", "judge_on", "unequal", "train", "program",
        "stages", "settings", "metrics", "groups", "blocks", "hypotheses", "speed_trial", "sweep",
        "notify")  # fmt: skip
"""What a study file may hold."""
BESIDES = ("world_size", "gpu_model", "host", "port", "torch_version", "train_code", "precision", "data")
"""What may be declared unequal besides train keys."""
_HAS_NAME = re.compile(rb"^\s*[\"']?name[\"']?\s*=", re.MULTILINE)


# Finding --------------------------------------------------------------------------------------------------------------


def read_studies(project: Path, warn: Callable[[str], None] = lambda _: None) -> list[Study]:
    """Return the project's studies, sorted by name; an invalid file is reported and skipped.

    Args:
        warn: Called with one line about each such file.
    """
    studies = []
    for path in study_files(project):
        try:
            studies.append(read_study(path))
        except ConfigurationError as error:
            warn(_("{why}; passed over", str(error)))
    return studies


def load_study(project: Path, name: str | None = None, warn: Callable[[str], None] = lambda _: None) -> Study:
    """Return the study called ``name`` (or in the file ``name``); without a name, the only one in ``jobs/``, or the one
    with ``default = true``.

    Args:
        warn: Called with one line about each invalid file that is skipped.

    Raises:
        UsageError: There is no such study, or no default or two of them.
        ConfigurationError: The file is off.
    """
    files = study_files(project)
    if name is None:
        own = [path for path in files if path.parent.name == "jobs"] or files
        if len(own) == 1:
            return read_study(own[0])
        studies = read_studies(project, warn)
        defaults = [study for study in studies if study.is_default]
        if len(defaults) == 1:
            return defaults[0]
        none = _("no study") if len(studies) == len(files) else _("no study that can be read")
        found = [f"jobs/{study.path.name}" for study in defaults] or none
        examples = [f"jobs/examples/{path.name}" for path in example_files(project)]
        raise UsageError(
            _("{what} in {path} has default = true", found, str(project / "jobs")),
            hint=_("name one with --study: {studies}", [path.stem for path in files] or examples),
        )
    if name.endswith(".toml"):
        return read_study(Path(name).resolve())
    called = names_in(files)
    for path in sorted(files, key=lambda path: called[path] != name):
        if name in (called[path], path.stem):
            _check_alone(path, called)
            return read_study(path)
    choices = valid_choices(name, called.values())
    raise UsageError(_("no study {study!r} in {path}; {choices}", name, str(project / "jobs"), choices))


def names_in(files: Iterable[Path]) -> dict[Path, str]:
    """Return what the studies in files are called: by their key ``name``, else after their files."""
    return {path: _name_in(path) for path in files}


def _name_in(path: Path) -> str:
    try:
        if _HAS_NAME.search(path.read_bytes()):
            return str(tomlfile.tables(path).get("name", path.stem))
    except (OSError, ConfigurationError):  # said where it is read
        pass
    return path.stem


def _check_alone(path: Path, called: Mapping[Path, str]) -> None:
    """See that no other file's study has the name that one has by its key, or that takes the file's.

    Raises:
        ConfigurationError: One has.
    """
    others = [other for other in called if other != path and called[other] == called[path]]
    for other in others:
        if called[path] != path.stem or called[other] != other.stem:
            raise ConfigurationError(
                _("{path}: name = {name!r}: is also the study in {other}", str(path), called[path], str(other)),
                hint=_("whose runs are meant can't be told: give one of them another name"),
            )


# Reading --------------------------------------------------------------------------------------------------------------


def read_study(path: Path) -> Study:
    """Read one study file.

    Raises:
        ConfigurationError: Names file, table, key, value, the valid choices and the nearest spelling.
    """
    return read_tables(tomlfile.read(path))


def read_tables(top: tomlfile.Section) -> Study:
    """Read the content of a study file.

    Raises:
        ConfigurationError: As ``read_study``.
    """
    study = None
    with top.all_at_once():
        study = _read(top)
    assert study is not None  # else what it lacks was noted, and raised
    return study


def _read(top: tomlfile.Section) -> Study | None:
    """Read a study file, noting what is wrong; what is returned is no study then."""
    path = top.path
    name = top.take("name", str, path.stem)
    what = "name" if name != path.stem else _("the file's name")
    taking.check_name(top, what, name, names.why_not_study(name))
    factors = top.take_list("factors", str)
    is_script = "program" in top
    if not is_script and "train" not in top:
        why = _("is missing: give its keys, or [program] for a program of one's own")
        top.lacks("train", why, instead=("program",))
        for key in set(KEYS).intersection(top.keys_left()):
            top.take_any(key)
        top.finish(KEYS)
        return None  # whose keys the others are, nobody knows
    if not is_script:
        top.wrong_items("factors", ((key, _why_no_factor(key)) for key in factors if key not in built_in.FACTORS))
    seeds = top.take_list("seeds", int, (42,))
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0 or max(seeds) > names.MAX_SEED:
        top.wrong("seeds", _("give at least one seed, each once, from 0 to 2^63 - 1"), value=list(seeds))
        seeds = (42,)
    tuned = top.take_list("tuned", str, ())
    top.wrong_items("tuned", ((key, _("is a factor, which groups set")) for key in tuned if key in factors))
    if not is_script:
        strange = [key for key in tuned if key not in built_in.SCIENTIFIC]
        top.wrong_items("tuned", ((key, _("names no scientific train key")) for key in strange))
    unequal = _read_unequal(top.take_section("unequal"), [] if is_script else [*built_in.KEYS, *BESIDES])
    if is_script:
        if "train" in top:
            why = _("there is [program], too: [train] is the built-in trainer's, so give one of both")
            top.wrong("train", why)
            top.take_any("train")
        program = program_file.read_program(top, seeds)
        settings = program_file.read_settings(top.take_section("settings"), program, factors)
        global_batch, declared = 0, [key for key in (*tuned, *unequal) if key not in BESIDES]
    else:
        program = None
        section = top.take_section("train")
        global_batch = section.take("global_batch", int)
        if global_batch < 1:
            section.wrong("global_batch", _("must be a whole number above zero"), value=global_batch)
        settings = built_in.read_settings(section, factors)
        declared = [key for key in (*tuned, *unequal) if key in settings and key not in built_in.FIXED]
    are_known = not any(map(top.is_wrong, ("factors", "tuned", "unequal", "train")))
    groups = _read_groups(
        top.take_section("groups", required=True), factors, declared, is_script=is_script, are_known=are_known, own=name
    )
    if not groups:
        top.wrong("groups", _("give at least one group"))
    blocks = {}
    if "blocks" in top:
        blocks = block_file.read(top.take_section("blocks"), settings, program, groups, factors)
    if top.is_right:  # else a group may lack what is wrong above
        if program is None:
            block_file.check_groups(top, blocks, global_batch, settings, groups.values())
        else:
            for block in blocks.values() or (Block(name=""),):
                shared = {**settings, **block.settings}
                may_differ = [key for key in unequal if key not in BESIDES]
                program_file.check(top, program, shared, groups.values(), factors, tuned, may_differ)
    study = Study(
        name=name,
        path=path,
        question=taking.line(top, "question", ""),
        is_default=top.take("default", bool, False),
        factors=factors,
        seeds=seeds,
        global_batch=global_batch,
        settings=settings,
        groups=groups,
        unequal=unequal,
        hypotheses=hypothesis_file.read(
            top.take_section("hypotheses"), groups, program.metrics if program else None, blocks
        ),
        blocks=blocks,
        max_retries=taking.from_zero(top, "max_retries", int),
        target_loss=top.take("target_loss", float, 0.0) or None,
        speed_trial=_read_speed_trial(top.take_section("speed_trial")) if "speed_trial" in top else None,
        tuned=tuned,
        confirm_seeds=tuning.take_seeds(top, seeds),
        judge_on=tuning.take_judge_on(top, program),
        program=program,
        notify=notifying.read_notify(top.take_section("notify")) if "notify" in top else None,
    )
    if study.speed_trial and program is not None:
        top.wrong("speed_trial", _("is the built-in trainer's: a script is timed by its own runs"))
    if study.speed_trial and all(hypothesis.metric not in ("speed", "") for hypothesis in study.hypotheses):
        top.wrong("speed_trial", _("needs a hypothesis with metric = 'speed', whose groups it times"))
    if top.is_right:
        lineage.check_own(top, study)
    if "sweep" in top:
        study = _with_sweep(top, study)
    if top.is_right:
        tuning.check(top, study)
        block_file.check(top, study)
    top.finish(KEYS)
    return study


def _with_sweep(top: tomlfile.Section, study: Study) -> Study:
    """Take the sweep, which is judged by what the study has; where that is wrong, nobody knows."""
    tuning.check_groups(top, study)
    if not top.is_right:
        top.take_any("sweep")
        return study
    if study.speed_trial:
        top.wrong("sweep", _("the arms of a sweep are not timed: give the speed trial a study of its own"))
    about = description.of(study)

    def why_not(setting: sweep.Setting) -> dict[str, str]:
        if wrong := why_not_swept(study, setting):
            return wrong
        changed = about.with_settings(study, sweep.as_texts(setting))
        for group in study.groups.values():
            if why := about.why_not_together(changed, group):
                return {"": _("does not suit group {group}: {why}", group.name, why)}
        return {}

    return replace(study, sweep=sweep.read(top.take_section("sweep"), why_not))


def _why_no_factor(key: str) -> str:
    choices = valid_choices(key, built_in.FACTORS)
    return _("no scientific train key that groups can differ in; {choices}", choices)


def _read_speed_trial(section: tomlfile.Section) -> SpeedTrial:
    trial = SpeedTrial(rounds=section.take("rounds", int, 21), seconds=section.take("seconds", float, 1.0))
    if trial.rounds < 15:
        section.wrong("rounds", _("must be at least 15: fewer pairs decide nothing"), value=trial.rounds)
    if trial.seconds <= 0:
        section.wrong("seconds", _("must be above zero"), value=trial.seconds)
    section.finish()
    return trial


def _read_groups(
    section: tomlfile.Section,
    factors: Sequence[str],
    declared: Sequence[str],
    *,
    is_script: bool,
    are_known: bool,
    own: str,
) -> dict[str, Group]:
    """Take the groups.

    Args:
        are_known: Whether what the study says of its factors is right: else nobody knows what groups may set.
        own: The study's name.
    """
    read_value = program_file.read_value if is_script else built_in.read_value
    groups: dict[str, Group] = {}
    no_factor = _(
        "is not among the study's factors ({factors}), nor tuned or declared in [unequal]: groups may differ in those"
        " alone",
        factors,
    )
    for name in section.keys_left():
        taking.check_name(section, _("a group's name"), name, names.why_not_group(name))
        table = section.take_section(name)
        if name == names.SPEED_TRIAL:
            section.wrong(name, _("is what the study's speed trial is called"))
        label = taking.line(table, "label", name)
        port = table.take("port", int, 0) or None
        if port is not None and not 1024 <= port <= 65535:
            table.wrong("port", _("valid: {low} to {high}", 1024, 65535), value=port)
        gpus = _read_gpus(table, may_be_none=is_script) if "gpus" in table else 1
        cpus = table.take("cpus", int, 1) if is_script else 1
        if cpus < 1 or (gpus and cpus != 1):
            table.wrong("cpus", _("give a number of CPU slots, with gpus = 0"), value=cpus)
        needed = lineage.read(table, own, (*factors, *declared), is_script=is_script)
        values = {}
        for key in table.keys_left():
            if key in (*factors, *declared):
                with table.noting():
                    values[key] = read_value(table, key)
        for key in table.keys_left():
            if not are_known:
                table.take_any(key)
            elif key in built_in.FIXED and not is_script:
                table.wrong(key, _("is the same for all groups of a study: set it in [train]"))
                table.take_any(key)
            elif is_script or (key in built_in.KEYS and key not in built_in.DERIVED):
                meant = nearest(key, [*factors, *declared, "label", "gpus", "port", *(["cpus"] if is_script else [])])
                table.wrong(key, _("{why}; did you mean {nearest!r}?", no_factor, meant) if meant else no_factor)
                table.take_any(key)
        of_trainer = {nearest(key, built_in.KEYS) for key in table.keys_left()} - {""}
        table.finish([*factors, *declared, "gpus", *of_trainer])
        groups[name] = Group(
            name=name,
            label=label,
            factors={key: value for key, value in values.items() if key in factors},
            gpus=gpus,
            port=port,
            declared={key: value for key, value in values.items() if key not in factors},
            cpus=cpus,
            needs=needed.needs,
            when=needed.when,
            inputs=needed.inputs,
        )
    return groups


def _read_gpus(table: tomlfile.Section, *, may_be_none: bool) -> int | tuple[int, ...]:
    value = table.take_any("gpus")
    if type(value) is int and value >= (0 if may_be_none else 1):
        return value
    are_indices = isinstance(value, list) and all(type(index) is int and index >= 0 for index in value)
    if are_indices and value and len(set(value)) == len(value):
        return tuple(sorted(value))
    table.wrong("gpus", _("give a number of GPUs (2), or their indices, each once ([0, 1])"), value=value)
    return 1


def _read_unequal(section: tomlfile.Section, known: Sequence[str]) -> dict[str, str]:
    """Take the declared differences; without known keys, of any."""
    unequal = {}
    for key in section.keys_left():
        if not known or key in known:
            unequal[key] = section.take(key, str)
            if not unequal[key].strip():
                section.wrong(key, _("give the reason for the difference"))
    section.finish(known)
    return unequal

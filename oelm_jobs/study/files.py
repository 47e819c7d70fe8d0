"""Find, read and check study files.

The trainer's own configuration (``train.config``, standard library only) says which train keys exist and what they
default to.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import names, tomlfile
from ..agent.sentences import _, decoded
from ..errors import ConfigurationError, UsageError, valid_choices
from ..folders import study_files
from ..spec.study import METRICS, RELATIONS, Group, Hypothesis, SpeedTrial, Study
from ..train import config as trainer
from ..train.sentences import encoded

DERIVED = ("batch_size", "seed", "out_dir", "resume")
"""Train keys that the toolkit sets itself."""
OF_THE_STUDY = ("data_path", "val_data_path", "vocab_size")
"""Train keys that are the same for all groups, whatever is declared: all see the same tokens."""


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
    """Return the study called ``name`` (or in the file ``name``); without a name, the one with ``default = true``.

    Args:
        warn: Called with one line about each invalid file that is skipped.

    Raises:
        UsageError: There is no such study, or no default or two of them.
        ConfigurationError: The file is off.
    """
    files = study_files(project)
    if name is None:
        studies = read_studies(project, warn)
        defaults = [study for study in studies if study.is_default]
        if len(defaults) == 1:
            return defaults[0]
        found: str = _("no study") if len(studies) == len(files) else _("no study that can be read")
        if defaults:
            paths = [f"jobs/{study.name}.toml" for study in defaults]
            found = functools.reduce(lambda rest, path: _("{a} and {b}", rest, path), paths)
        raise UsageError(
            _("{what} in {path} has default = true", found, str(project / "jobs")),
            hint=_("name one with --study: {studies}", [path.stem for path in files]),
        )
    if name.endswith(".toml"):
        return read_study(Path(name).resolve())
    for path in files:
        if path.stem == name:
            return read_study(path)
    raise UsageError(
        _(
            "no study {study!r} in {path}; {choices}",
            name,
            str(project / "jobs"),
            valid_choices(name, [p.stem for p in files]),
        )
    )


# Reading --------------------------------------------------------------------------------------------------------------


def read_study(path: Path) -> Study:
    """Read one study file.

    Raises:
        ConfigurationError: Names file, table, key, value, the valid choices and the nearest spelling.
    """
    top = tomlfile.read(path)
    _check_name(top, _("the file's name"), path.stem, names.why_not_study(path.stem))
    factors = top.take_list("factors", str)
    for factor in factors:
        if factor not in trainer.FIELDS:
            raise top.error(
                "factors", _("no such train key; {choices}", valid_choices(factor, trainer.FIELDS)), value=factor
            )
        if factor in DERIVED or trainer.FIELDS[factor].metadata["kind"] != "scientific":
            raise top.error("factors", _("not a scientific key that groups can differ in"), value=factor)
    seeds = top.take_list("seeds", int, (42,))
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0 or max(seeds) > names.MAX_SEED:
        raise top.error("seeds", _("give at least one seed, each once, from 0 to 2^63 - 1"), value=list(seeds))
    question = _take_line(top, "question", "")
    is_default = top.take("default", bool, False)
    max_retries = top.take("max_retries", int, 0)
    if max_retries < 0:
        raise top.error("max_retries", _("must not be negative"), value=max_retries)
    target_loss = top.take("target_loss", float, 0.0)
    speed_trial = _read_speed_trial(top.take_section("speed_trial")) if "speed_trial" in top else None
    tuned = top.take_list("tuned", str, ())
    for key in tuned:
        if key not in trainer.keys_of_kind("scientific") or key in factors:
            raise top.error("tuned", _("names no scientific train key besides the factors"), value=key)
    train_section = top.take_section("train", required=True)
    global_batch = train_section.take("global_batch", int)
    if global_batch < 1:
        raise train_section.error("global_batch", _("must be a whole number above zero"), value=global_batch)
    train = _read_train(train_section, factors)
    unequal = _read_unequal(top.take_section("unequal"))
    declared = [key for key in (*tuned, *unequal) if key in train and key not in OF_THE_STUDY]
    groups = _read_groups(top.take_section("groups", required=True), factors, declared, global_batch, train)
    hypotheses = _read_hypotheses(top.take_section("hypotheses"), groups)
    if speed_trial and all(hypothesis.metric != "speed" for hypothesis in hypotheses):
        raise top.error("speed_trial", _("needs a hypothesis with metric = 'speed', whose groups it times"))
    top.finish()
    return Study(
        name=path.stem,
        path=path,
        question=question,
        is_default=is_default,
        factors=factors,
        seeds=seeds,
        global_batch=global_batch,
        train=train,
        groups=groups,
        unequal=unequal,
        hypotheses=hypotheses,
        max_retries=max_retries,
        target_loss=target_loss or None,
        speed_trial=speed_trial,
        tuned=tuned,
    )


def _read_speed_trial(section: tomlfile.Section) -> SpeedTrial:
    trial = SpeedTrial(rounds=section.take("rounds", int, 21), seconds=section.take("seconds", float, 1.0))
    if trial.rounds < 15:
        raise section.error("rounds", _("must be at least 15: fewer pairs decide nothing"), value=trial.rounds)
    if trial.seconds <= 0:
        raise section.error("seconds", _("must be above zero"), value=trial.seconds)
    section.finish()
    return trial


def _take_line(section: tomlfile.Section, key: str, default: str) -> str:
    """Take text that is printed and written into scripts: one line without control characters."""
    text = section.take(key, str, default)
    if reason := names.why_not_line(text):
        raise section.error(key, reason, value=text)
    return text


def _check_name(section: tomlfile.Section, what: str, name: str, reason: str) -> None:
    if reason:
        raise section.error(what, reason, value=name)


def _read_value(section: tomlfile.Section, key: str) -> Any:
    """Take a train key and convert it to the trainer's type."""
    value = section.take_any(key)
    wanted = trainer.FIELDS[key].metadata["type"]
    is_other = isinstance(value, str) is not (wanted is str) or (wanted is int and isinstance(value, float))
    if is_other and not (wanted is str and isinstance(value, bool)):  # compile = true is the trainer's to read
        raise section.error(key, _("must be {what}", tomlfile.KINDS[wanted]), value=value)
    try:
        return getattr(trainer.from_dict({key: value}), key)
    except trainer.ConfigError as error:
        raise section.error(key, said(error), value=value) from None


def said(error: trainer.ConfigError) -> str:
    """Return what the trainer has against a value, as a sentence of the toolkit."""
    known = encoded(error.message)
    return decoded(error.message, known.get("code"), known.get("values"), {})


def _read_train(section: tomlfile.Section, factors: Sequence[str]) -> dict[str, object]:
    settable = [key for key in trainer.FIELDS if key not in DERIVED and key not in factors]
    train = {key: trainer.FIELDS[key].default for key in settable}
    for key in section.keys_left():
        if key in DERIVED:
            raise section.error(key, _("is derived by the toolkit (batch_size from global_batch, seed from seeds)"))
        if key in factors:
            raise section.error(key, _("is a factor: set it in the groups"))
        if key in settable:
            train[key] = value = _read_value(section, key)
            if key in trainer.keys_of_kind("path") and (reason := names.why_not_path(str(value))):
                raise section.error(key, reason, value=value)
    section.finish(settable)
    return train


def _read_groups(
    section: tomlfile.Section,
    factors: Sequence[str],
    declared: Sequence[str],
    global_batch: int,
    train: Mapping[str, object],
) -> dict[str, Group]:
    groups: dict[str, Group] = {}
    for name in section.keys_left():
        _check_name(section, _("a group's name"), name, names.why_not(name))
        if name == names.SPEED_TRIAL:
            raise section.error(name, _("is what the study's speed trial is called"))
        if reason := names.why_not_group(name):
            raise section.error(name, reason)
        table = section.take_section(name)
        label = _take_line(table, "label", name)
        port = table.take("port", int, 0) or None
        if port is not None and not 1024 <= port <= 65535:
            raise table.error("port", _("valid: {low} to {high}", 1024, 65535), value=port)
        gpus = _read_gpus(table) if "gpus" in table else 1
        values = {key: _read_value(table, key) for key in table.keys_left() if key in (*factors, *declared)}
        for key in table.keys_left():
            if key in OF_THE_STUDY:
                raise table.error(key, _("is the same for all groups of a study: set it in [train]"))
            if key in trainer.FIELDS and key not in DERIVED:
                raise table.error(
                    key,
                    _(
                        "is not among the study's factors ({factors}), nor tuned or declared in [unequal]: groups"
                        " may differ in those alone",
                        factors,
                    ),
                )
        table.finish([*factors, *declared, "gpus"])
        group = Group(
            name=name,
            label=label,
            factors={key: value for key, value in values.items() if key in factors},
            gpus=gpus,
            port=port,
            declared={key: value for key, value in values.items() if key not in factors},
        )
        accumulation = int({**train, **values}["gradient_accumulation_steps"])
        micro_batch = group.world_size * accumulation
        if global_batch % micro_batch:
            fitting = [n for n in range(1, min(global_batch, 1024) + 1) if global_batch % n == 0]
            raise table.error(
                "gpus",
                _(
                    "global_batch = {global_batch} can't be divided over {world_size} processes x"
                    " gradient_accumulation_steps = {accumulation}; valid products: {products}",
                    global_batch,
                    group.world_size,
                    accumulation,
                    fitting,
                ),
                value=list(gpus) if isinstance(gpus, tuple) else gpus,
            )
        groups[name] = group
        _check_config(table, {**train, **values, "seed": 0, "batch_size": global_batch // micro_batch})
    if not groups:
        raise section.error("groups", _("give at least one group"))
    return groups


def _read_gpus(table: tomlfile.Section) -> int | tuple[int, ...]:
    value = table.take_any("gpus")
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    if (
        isinstance(value, list)
        and value
        and all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in value)
    ) and len(set(value)) == len(value):
        return tuple(sorted(value))
    raise table.error("gpus", _("give a number of GPUs (2), or their indices, each once ([0, 1])"), value=value)


def _check_config(table: tomlfile.Section, values: Mapping[str, object]) -> None:
    try:
        trainer.validate(trainer.from_dict(values))
    except trainer.ConfigError as error:
        raise table.error(error.key, said(error), value=error.value) from None


def _read_unequal(section: tomlfile.Section) -> dict[str, str]:
    known = [
        *trainer.FIELDS,
        "world_size",
        "gpu_model",
        "host",
        "port",
        "torch_version",
        "train_code",
        "precision",
        "data",
    ]
    unequal = {}
    for key in section.keys_left():
        if key in known:
            unequal[key] = section.take(key, str)
            if not unequal[key].strip():
                raise section.error(key, _("give the reason for the difference"))
    section.finish(known)
    return unequal


def _read_hypotheses(section: tomlfile.Section, groups: Mapping[str, Group]) -> tuple[Hypothesis, ...]:
    found = []
    for name in section.keys_left():
        _check_name(section, _("a hypothesis' name"), name, names.why_not(name))
        table = section.take_section(name)
        arms = {key: table.take(key, str, choices=groups) for key in ("group", "against")}
        if arms["group"] == arms["against"]:
            raise table.error("against", _("a group can't be compared with itself"), value=arms["against"])
        metric = table.take("metric", str, choices=METRICS)
        relations = [key for key in table.keys_left() if key in RELATIONS]
        if len(relations) != 1:
            raise table.error("rule", _("give exactly one of {rules}", RELATIONS))
        relation = relations[0]
        bounds = _read_bounds(table, relation)
        level = table.take("level", float, 0.95)
        if not 0.5 < level < 1:
            raise table.error("level", _("valid: above 0.5 and below 1"), value=level)
        margin = table.take("margin", float, 0.0)
        if margin < 0:
            raise table.error("margin", _("must not be negative"), value=margin)
        claim = table.take("claim", str, "")
        table.finish(RELATIONS)
        found.append(
            Hypothesis(
                id=name,
                metric=metric,
                relation=relation,
                bounds=bounds,
                margin=margin,
                level=level,
                claim=claim,
                **arms,
            )
        )
    return tuple(found)


def _read_bounds(table: tomlfile.Section, relation: str) -> tuple[float, ...]:
    if relation != "reduction":
        bound = table.take(relation, float)
        if bound <= 0:
            raise table.error(relation, _("must be above zero"), value=bound)
        return (bound,)
    bounds = table.take_list(relation, object)
    numbers = [b for b in bounds if isinstance(b, (int, float)) and not isinstance(b, bool)]
    if len(bounds) != 2 or len(numbers) != 2 or not numbers[0] < numbers[1]:
        raise table.error(relation, _("give [low, high] as fractions, low below high"), value=list(bounds))
    return (float(numbers[0]), float(numbers[1]))

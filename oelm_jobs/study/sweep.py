"""Sweeps: read what is to be swept, choose its combinations, and name them."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

from .. import names, tomlfile
from ..agent.sentences import _
from ..errors import valid_choices
from ..spec.sweep import DISTRIBUTIONS, METHODS, Parameter, Sweep

MOST = 10_000
"""So many combinations are made at most."""
DIGITS = 4
"""Of what is drawn so many significant digits count, so that a run's name tells its values exactly."""
DIGEST = 12
"""Hexadecimal digits of the hash in a name: among 10,000 of them two are equal once in five million sweeps."""
PATIENCE = 1000
"""After so many draws in a row that were known or are skipped there is little else."""
COUNTED = 100 * MOST
"""So many combinations at most are gone through for what chance did not meet."""

Setting = Mapping[str, Any]
"""Values by what is swept."""


# Reading --------------------------------------------------------------------------------------------------------------


def read(section: tomlfile.Section, why_not: Callable[[Setting], Mapping[str, str]]) -> Sweep:
    """Take [sweep], noting what is wrong.

    Args:
        why_not: Returns why the study can't have a combination of values, by key.
    """
    method = section.take("method", str, METHODS[0], choices=METHODS)
    run_cap = section.take("run_cap", int, 0) if "run_cap" in section else None
    if run_cap is not None and not 1 <= run_cap <= MOST:
        section.wrong("run_cap", _("valid: {low} to {high}", 1, MOST), value=run_cap)
    if run_cap is None and method == "random":
        section.lacks("run_cap", _("is missing: give how many combinations are drawn"))
    tables = section.take_section("parameters", required=True)
    parameters = {key: _parameter(tables.take_section(key)) for key in tables.keys_left()}
    drawn = [key for key, parameter in parameters.items() if parameter.distribution]
    if drawn and method == "grid" and section.is_right:
        section.wrong(
            "method", _('{keys} are drawn, which needs "random"; for a grid give values', drawn), value=method
        )
    if not parameters:
        section.wrong("parameters", _("give at least one, as in {example}", "max_lr = { values = [1e-3, 3e-4] }"))
    sweep = Sweep(
        method=method,
        seed=section.take("seed", int, 0),
        run_cap=run_cap,
        parameters=parameters,
        zip=_zipped(section, parameters),
        skip=_skipped(section, parameters),
    )
    section.finish()
    chosen: list[dict[str, Any]] = []
    if section.is_right:
        count = math.prod(len(axis) for axis in _axes(sweep)) if method == "grid" else 0
        if count > MOST and run_cap is None:
            section.wrong("parameters", _("make {count} combinations: give a run_cap, at most {most}", count, MOST))
        elif not (chosen := settings(sweep)):
            section.wrong("skip", _("leaves no combination"))
        elif method == "grid":
            _say_what_skips_nothing(section, sweep)
        for setting in chosen if section.is_right else ():
            wrong = why_not(setting)
            for key, why in wrong.items():
                if key in setting:
                    tables.wrong(key, _("{value}: {why}", as_text(setting[key]), why))
                else:
                    section.wrong("parameters", _("{value}: {why}", _exact(dict(setting)), why))
            if wrong:
                break
    return sweep


def _parameter(table: tomlfile.Section) -> Parameter:
    if "values" in table:
        values = table.take("values", list)
        strange = [value for value in values if not isinstance(value, (bool, int, float, str, list))]
        if table.wrong_items("values", ((value, _("is no number, text, list or truth value")) for value in strange)):
            texts = [value.casefold() for value in values if isinstance(value, str)]
            if len(set(texts)) < len({value for value in values if isinstance(value, str)}):
                why = _("two differ in capitals alone, and so would the folders of their runs")
                table.wrong("values", why, value=values)
        if not values or len({_exact(value) for value in values}) != len(values):
            table.wrong("values", _("give at least one value, each once"), value=values)
        for key in [key for key in ("distribution", "min", "max") if key in table]:
            table.wrong(key, _("there are values: give those, or a distribution with min and max"))
            table.take_any(key)
        table.finish(("distribution", "min", "max"))
        return Parameter(values=tuple(values))
    if "distribution" not in table and "min" not in table and "max" not in table:
        table.lacks(
            "values", _("is missing; give values, or a distribution with min and max"), instead=("distribution",)
        )
        table.finish(("values", "distribution", "min", "max"))
        return Parameter(values=(0,))
    distribution = table.take("distribution", str, choices=DISTRIBUTIONS)
    low, high = table.take("min", float), table.take("max", float)
    if not low < high:
        table.wrong("max", _("must be above min, which is {low:g}", low), value=high)
    elif distribution == "log_uniform_values" and low <= 0:
        table.wrong("min", _("must be above zero, since ratios count"), value=low)
    elif distribution == "int_uniform" and not (low.is_integer() and high.is_integer()):
        table.wrong("min", _("{low:g} to {high:g}: give whole numbers", low, high))
    table.finish(("values",))
    return Parameter(distribution=distribution, min=low, max=high)


def _zipped(section: tomlfile.Section, parameters: Mapping[str, Parameter]) -> tuple[tuple[str, ...], ...]:
    found: list[tuple[str, ...]] = []
    zipped = section.take_list("zip", list, ())
    for keys in zipped if section.is_right else ():  # else nobody knows what is swept
        taken = {key for group in found for key in group}
        strange = [key for key in keys if isinstance(key, str) and key not in parameters]
        if not all(isinstance(key, str) for key in keys):
            section.wrong("zip", _("every item must be {what}", tomlfile.KINDS[str]), value=keys)
        elif strange:
            section.wrong(
                "zip", _("is not swept; {choices}", valid_choices(str(strange[0]), parameters)), value=strange[0]
            )
        elif len(keys) < 2 or len({*keys} - taken) != len(keys):
            section.wrong("zip", _("give two settings or more, each once"), value=keys)
        elif any(parameters[key].distribution for key in keys):
            section.wrong("zip", _("needs values: what is drawn has no first one"), value=keys)
        elif len({len(parameters[key].values) for key in keys}) > 1:
            lengths = ", ".join(f"{key} {len(parameters[key].values)}" for key in keys)
            section.wrong("zip", _("need equal numbers of values ({numbers})", lengths), value=keys)
        else:
            found.append(tuple(keys))
    return tuple(found)


def _skipped(section: tomlfile.Section, parameters: Mapping[str, Parameter]) -> tuple[Mapping[str, Any], ...]:
    found = section.take_list("skip", dict, ())
    for condition in found if section.is_right else ():
        for key, value in condition.items():
            if key not in parameters:
                section.wrong(
                    "skip", _("{key} is not swept; {choices}", key, valid_choices(key, parameters)), value=condition
                )
            elif parameters[key].values and all(_exact(value) != _exact(known) for known in parameters[key].values):
                values = ", ".join(map(_exact, parameters[key].values))
                section.wrong("skip", _("{key} is never {value}; valid: {choices}", key, _exact(value), values))
        if not condition:
            section.wrong("skip", _("an empty condition skips everything"))
    return found


def _say_what_skips_nothing(section: tomlfile.Section, sweep: Sweep) -> None:
    for condition in sweep.skip:
        if not all(any(_may_meet(part, condition) for part in axis) for axis in _axes(sweep)):
            section.wrong("skip", _("{condition}: no combination has these values", _exact(condition)))


# Choosing -------------------------------------------------------------------------------------------------------------


def settings(sweep: Sweep) -> list[dict[str, Any]]:
    """Return the combinations of a sweep, each once: of a grid in the file's order, the last setting moving fastest; of
    a random one in the order in which they are drawn.
    """
    return list(itertools.islice(_grid(sweep) if sweep.method == "grid" else _drawn(sweep), sweep.run_cap or MOST))


def _together(sweep: Sweep) -> dict[str, tuple[str, ...]]:
    """Return for each setting those that are swept together with it, itself among them."""
    zipped = {key: keys for keys in sweep.zip for key in keys}
    return {key: zipped.get(key, (key,)) for key in sweep.parameters}


def _axes(sweep: Sweep) -> list[list[dict[str, Any]]]:
    """Return what is chosen independently: for each setting, or list of settings swept together, its values."""
    axes = dict.fromkeys(_together(sweep).values())
    return [
        [
            dict(zip(keys, values, strict=True))
            for values in zip(*(sweep.parameters[key].values for key in keys), strict=True)
        ]
        for keys in axes
    ]


def _grid(sweep: Sweep) -> Iterator[dict[str, Any]]:
    """Yield combinations; what is skipped for its first values is not gone through."""
    axes = _axes(sweep)

    def below(place: int, before: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if any(_meets(before, condition) for condition in sweep.skip):
            return
        if place == len(axes):
            yield {key: before[key] for key in sweep.parameters}
            return
        for part in axes[place]:
            yield from below(place + 1, {**before, **part})

    yield from below(0, {})


def _drawn(sweep: Sweep) -> Iterator[dict[str, Any]]:
    """Yield combinations that are drawn, each once, until none is new; each setting from a stream of its own, so that
    another one's range changes nothing here. Of what can be counted the rest follows in order: chance meets the last
    ones late.
    """
    streams = {key: random.Random(f"{sweep.seed} {keys[0]}") for key, keys in _together(sweep).items()}
    known: set[str] = set()
    in_vain = 0
    while in_vain < PATIENCE:
        setting = {key: _draw(parameter, streams[key]) for key, parameter in sweep.parameters.items()}
        exact = _exact(setting)
        is_new = exact not in known and not any(_meets(setting, condition) for condition in sweep.skip)
        in_vain = 0 if is_new else in_vain + 1
        if is_new:
            known.add(exact)
            yield setting
    whole = _counted(sweep)
    yield from (setting for setting in _grid(whole) if _exact(setting) not in known) if whole is not None else ()


def _counted(sweep: Sweep) -> Sweep | None:
    """Return the grid of all that a sweep may draw; None where that is too much to go through."""
    ranges = {key: _range(parameter) for key, parameter in sweep.parameters.items()}
    sizes = {keys[0]: len(ranges[keys[0]]) for keys in _together(sweep).values()}
    if not all(ranges.values()) or math.prod(sizes.values()) > COUNTED:
        return None
    return replace(sweep, parameters={key: Parameter(values=tuple(values)) for key, values in ranges.items()})


def _range(parameter: Parameter) -> Sequence[Any]:
    """Return all values that may be drawn; none where these are real numbers."""
    is_whole = parameter.distribution == "int_uniform"
    return range(round(parameter.min), round(parameter.max) + 1) if is_whole else parameter.values


def _draw(parameter: Parameter, stream: random.Random) -> Any:
    """Return a value; settings that are swept together have streams that are alike, so they get the same place."""
    if parameter.values:
        return stream.choice(parameter.values)
    low, high = parameter.min, parameter.max
    if parameter.distribution == "int_uniform":
        return stream.randint(round(low), round(high))
    is_log = parameter.distribution == "log_uniform_values"
    drawn = math.exp(stream.uniform(math.log(low), math.log(high))) if is_log else stream.uniform(low, high)
    return min(max(float(f"{drawn:.{DIGITS}g}"), low), high)


def _meets(setting: Setting, condition: Mapping[str, Any]) -> bool:
    return all(key in setting and _exact(setting[key]) == _exact(value) for key, value in condition.items())


def _may_meet(setting: Setting, condition: Mapping[str, Any]) -> bool:
    """Tell whether a condition holds for as many of its settings as are known."""
    return _meets(setting, {key: value for key, value in condition.items() if key in setting})


def _exact(value: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)


# Naming ---------------------------------------------------------------------------------------------------------------


def name(setting: Setting, tag: str = "") -> str:
    """Return what runs of a combination are tagged with: ``max_lr_3e-4-warmup_steps_60``.

    It depends on these values alone, in whatever order. Where they can't be told by letters and digits, or it would be
    too long, a hash of them stands at its end.

    Args:
        tag: Is put in front.
    """
    words = {key: _word(setting[key]) for key in sorted(setting)}
    parts = [f"{key}_{word}" if word else key for key, word in words.items()]
    made = plain("-".join([*([tag] if tag else []), *parts]))
    if all(words.values()) and not names.why_not(made):
        return made
    return f"{made[: 63 - DIGEST].rstrip('_-')}-{digest(setting)}"


def told_in(tag: str, known: Setting) -> list[str]:
    """Return the settings of a run that its tag tells as ``name`` does; none where that is no combination's, or a hash
    stands for it.

    Args:
        known: All settings of the run.
    """
    parts = {key: plain(f"{key}_{word}") for key, value in known.items() if (word := _word(value))}
    found: list[str] = []
    rest = f"-{tag}"
    while ends := [key for key, part in parts.items() if rest.endswith(f"-{part}")]:
        found.append(max(ends, key=lambda key: len(parts[key])))
        rest = rest[: -len(parts.pop(found[-1])) - 1]
    return found[::-1]


def plain(text: str) -> str:
    """Return a text as it stands in a name."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)


def digest(setting: Setting) -> str:
    """Return the hash at the end of a name that can't tell its values, or not all of them."""
    return hashlib.sha256(_exact({key: setting[key] for key in sorted(setting)}).encode()).hexdigest()[:DIGEST]


def _word(value: Any) -> str:
    """Return a value as letters and digits that no other one of its kind has; empty where there are none."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"m{-value}" if value < 0 else str(value)
    if isinstance(value, float):
        sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
        return f"{'m' if sign else ''}{''.join(map(str, digits))}e{exponent}"
    is_plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value)
    return str(value) if is_plain else ""


def as_text(value: Any) -> str:
    """Return a value as ``--set`` takes it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def as_texts(setting: Setting) -> dict[str, str]:
    """Return a combination of values as ``--set`` takes it."""
    return {key: as_text(value) for key, value in setting.items()}


def of_lists(values: Mapping[str, Sequence[Any]]) -> Sweep:
    """Return the grid over lists of values."""
    return Sweep(parameters={key: Parameter(values=tuple(each)) for key, each in values.items()})


def without(sweep: Sweep, fixed: Setting) -> Sweep | None:
    """Return the sweep of the other settings where some are fixed; None where none is left.

    Raises:
        ValueError: One of them is swept together with another, which has no value then; says which.
    """
    for keys in sweep.zip:
        if clash := [key for key in keys if key in fixed]:
            raise ValueError(_("it is swept together with {others}", [key for key in keys if key not in clash]))
    held = [condition for condition in sweep.skip if _may_meet(fixed, condition)]
    rest = ({key: value for key, value in condition.items() if key not in fixed} for condition in held)
    parameters = {key: parameter for key, parameter in sweep.parameters.items() if key not in fixed}
    return replace(sweep, parameters=parameters, skip=tuple(filter(None, rest))) if parameters else None

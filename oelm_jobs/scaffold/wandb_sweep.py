"""Make the study file of a W&B sweep (docs.wandb.ai, Sweep configuration options); what a study can't say is named by
its line.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import tomlfile
from ..agent.sentences import _
from ..errors import UsageError
from ..programs import script
from ..spec.program import GOALS
from ..spec.sweep import METHODS
from ..study.files import read_tables
from ..study.implicit import FIRST_SEED, free_name, name_of
from .command import NewStudy

MOST_BYTES = 1 << 20
MOST_VALUES = 1000
"""Whole numbers of a grid are written out up to so many."""
RUN_CAP = 20
"""So many combinations are drawn where the sweep goes on for ever."""
IGNORED = (
    "name",
    "description",
    "project",
    "entity",
    "parameters",
    "metric",
    "method",
    "program",
    "command",
    "run_cap",
)
MACROS = {
    "${interpreter}": "python",
    "${args}": "{settings}",
    "${args_no_hyphens}": "{settings}",
    "${args_no_boolean_flags}": "{settings}",
    "${args_json_file}": "{settings_file}",
}
"""Words of a command that stand for others; ``${env}`` and ``${program}`` besides."""
PLAIN = ("uniform", "log_uniform_values", "int_uniform")
NEAR = {
    "q_uniform": "uniform", "q_log_uniform_values": "log_uniform_values", "q_log_uniform": "log_uniform",
    "inv_log_uniform_values": "log_uniform_values", "categorical_w_probabilities": "categorical",
}  # fmt: skip
"""What is drawn instead of what a study doesn't have."""

TEMPLATE = """\
# Made by `oelm init --from {source}`{remarks}
question = {question}    # what the sweep is to answer, in one sentence
factors = []    # give groups a setting to be compared by, and swept for each
seeds = [{seeds}]

[program]
command = {command}
settings = {spelling}
{more}
[metrics]
# W&B is told by the program. A report needs the metrics as well: oelm_run.log(step=…, loss=…) after
# `import oelm_run`, or what it prints, with names in place of numbers: lines = ["step {{step}}: loss {{loss}}"]
{metrics}
[settings]
{settings}
[sweep]
method = {method}
{cap}{parameters}
[groups]
base = {{}}
"""


@dataclass(frozen=True, kw_only=True)
class Swept:
    """The study of a sweep, and what it doesn't say of it."""

    study: NewStudy
    remarks: tuple[str, ...]


@dataclass
class _Reader:
    """What is said of each key, and on which line it stands."""

    path: Path
    lines: dict[tuple[str, ...], int]
    remarks: list[str]

    def say(self, place: tuple[str, ...], what: str) -> None:
        """Remember what isn't as the sweep has it."""
        said = _("line {line}: {key}: {what}", self.lines.get(place, 0), ".".join(place), what)
        self.remarks.append(said)


def study(path: Path, folder: Path) -> Swept:
    """Return the study of a sweep's file.

    Raises:
        UsageError: It is no file of a sweep, or another study has the name that this one would have.
        ConfigurationError: It makes no study.
    """
    content, lines = _load(path)
    reader = _Reader(path, lines, [])
    for key in content:
        if key == "early_terminate":
            reader.say((key,), _("isn't supported: every run goes to its end"))
        elif key not in IGNORED:
            reader.say((key,), _("isn't supported and left out"))
    method = str(content.get("method", "random"))
    if method not in METHODS:
        reader.say(("method",), _("{value} isn't supported: combinations are drawn at random", method))
        method = "random"
    parameters = _parameters(reader, content["parameters"], method)
    seeds = _seeds(reader, parameters)
    words, spelling, booleans = _command(reader, content)
    fixed = {key: value["value"] for key, value in parameters.items() if "value" in value}
    swept = {key: value for key, value in parameters.items() if "value" not in value}
    if not swept:
        raise UsageError(_("{path}: nothing is swept in it: its parameters have one value each", str(path)))
    cap = content.get("run_cap")
    if method == "random" and not isinstance(cap, int):
        cap = RUN_CAP
        reader.remarks.append(_("run_cap is missing: {count} combinations are drawn", cap))
    called = words[words.index("python") + 1 :] if "python" in words else []
    name = free_name(folder, name_of(called or words))
    is_file = spelling == "json"
    more = {"seed": "seed"} if seeds else {}
    more |= {"booleans": booleans} if booleans != "true" and not is_file else {}
    text = TEMPLATE.format(
        source=" ".join(path.name.split()),
        remarks="".join(f"\n# {' '.join(one.split())}" for one in reader.remarks),
        question=tomlfile.as_text(str(content.get("description") or "")),
        seeds=", ".join(map(str, seeds or [FIRST_SEED])),
        command=tomlfile.as_text(words),
        spelling=tomlfile.as_text(spelling),
        more=_rows(more),
        metrics=_metric(reader, content.get("metric")),
        settings=_rows({**fixed, **{key: _first(value) for key, value in swept.items()}}),
        method=tomlfile.as_text(method),
        cap=_rows({"run_cap": cap} if isinstance(cap, int) else {}),
        parameters=_rows(swept, "parameters."),
    )
    place = folder / "jobs" / f"{name}.toml"
    if place.exists() and place.read_text(encoding="utf-8", errors="replace") != text:
        raise UsageError(
            _("{path} is there already, and is not the study of {sweep}", str(place), str(path)),
            hint=_("rename it, or remove it"),
        )
    made = read_tables(tomlfile.Section(place, "", tomlfile.loads(text)))
    lacking = script.why_not_there(folder, made)
    return Swept(study=NewStudy(name=name, text=text, lacking=lacking), remarks=tuple(reader.remarks))


def _load(path: Path) -> tuple[dict[str, Any], dict[tuple[str, ...], int]]:
    """Return what a file says, and the line of each key."""
    import yaml

    # YAML as W&B's users write it: 1e-3 is a number. It makes plain data alone.
    Plain: Any = type("Plain", (yaml.SafeLoader,), {})
    number = re.compile(r"[-+]?(?:\d[\d_]*(?:\.\d*)?[eE][-+]?\d+|\.\d+(?:[eE][-+]?\d+)?)$")
    Plain.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+0123456789."))
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            raise UsageError(_("{path}: is too large for a sweep", str(path)))
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text, Loader=Plain)):
            raise UsageError(_("{path}: names with * aren't followed: write out what they stand for", str(path)))
        node = yaml.compose(text, Loader=Plain)
        content = yaml.load(text, Loader=Plain)
    except OSError as error:
        raise UsageError(_("{path}: can't be read: {why}", str(path), error.strerror or str(error))) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(_("{path}: no YAML that can be read: {why}", str(path), str(error))) from error
    if not isinstance(content, dict) or not isinstance(content.get("parameters"), dict):
        raise UsageError(
            _("{path}: no sweep: it has no parameters", str(path)),
            hint=_("W&B's sweeps have: parameters, method, program"),
        )
    lines: dict[tuple[str, ...], int] = {}

    def walk(at: yaml.Node, place: tuple[str, ...]) -> None:
        for key, value in at.value if isinstance(at, yaml.MappingNode) else ():
            below = (*place, str(key.value))
            lines[below] = key.start_mark.line + 1
            walk(value, below)

    if node is not None:
        walk(node, ())
    return content, lines


def _parameters(reader: _Reader, tables: Mapping[str, Any], method: str) -> dict[str, dict[str, Any]]:
    """Return each parameter as a study has it: ``value``, ``values``, or a distribution."""
    found: dict[str, dict[str, Any]] = {}

    def walk(tables: Mapping[str, Any], place: tuple[str, ...]) -> None:
        for key, table in tables.items():
            at = (*place, str(key))
            inner = table.get("parameters") if isinstance(table, dict) else None
            name = ".".join(part for part in at if part != "parameters")
            if isinstance(inner, dict):
                reader.say(at, _("its parameters are given as {name}", f"{name}.…"))
                walk(inner, (*at, "parameters"))
            elif not isinstance(table, dict):
                reader.say(at, _("isn't supported and left out"))
            elif (one := _parameter(reader, table, at, method)) is not None:
                found[name] = one

    walk(tables, ("parameters",))
    return {key.removeprefix("parameters."): value for key, value in found.items()}


def _parameter(
    reader: _Reader, table: Mapping[str, Any], at: tuple[str, ...], method: str
) -> dict[str, Any] | None:  # fmt: skip
    if "value" in table:
        return {"value": table["value"]} if _is_plain(reader, [table["value"]], at) else None
    drawn = str(table.get("distribution", ""))
    if "probabilities" in table and drawn != "categorical_w_probabilities":
        drawn = "categorical_w_probabilities"
    if drawn in NEAR:
        key = "distribution" if "distribution" in table else "probabilities"
        reader.say((*at, key), _("{name} isn't supported: {other} is drawn", drawn, NEAR[drawn]))
        drawn = NEAR[drawn]
    if "values" in table:
        values = table["values"] if isinstance(table["values"], list) else []
        if not values or not _is_plain(reader, values, at):
            return None
        return {"values": [value for place, value in enumerate(values) if repr(value) not in map(repr, values[:place])]}
    low, high = table.get("min"), table.get("max")
    if not all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in (low, high)):
        if "mu" in table and isinstance(table["mu"], (int, float)):
            reader.say(at, _("{name} isn't supported: its mean is taken", drawn or "?"))
            return {"value": table["mu"]}
        reader.say(at, _("isn't supported and left out"))
        return None
    assert isinstance(low, (int, float)) and isinstance(high, (int, float))
    if drawn == "log_uniform":
        try:
            low, high, drawn = math.exp(low), math.exp(high), "log_uniform_values"
        except OverflowError:
            reader.say(at, _("isn't supported and left out"))
            return None
    drawn = drawn or ("int_uniform" if isinstance(low, int) and isinstance(high, int) else "uniform")
    if drawn not in PLAIN:
        reader.say((*at, "distribution"), _("{name} isn't supported: {other} is drawn", drawn, "uniform"))
        drawn = "uniform"
    if method == "grid":
        if drawn == "int_uniform" and high - low < MOST_VALUES:
            return {"values": list(range(int(low), int(high) + 1))}
        reader.say(at, _("a grid needs values: its ends and its middle are taken"))
        middle = math.sqrt(low * high) if drawn == "log_uniform_values" and low > 0 else (low + high) / 2
        return {"values": [float(low), float(f"{middle:.4g}"), float(high)]}
    return {"distribution": drawn, "min": low, "max": high}


def _is_plain(reader: _Reader, values: list[Any], at: tuple[str, ...]) -> bool:
    if all(isinstance(value, (bool, int, float, str)) for value in values):
        return True
    reader.say(at, _("isn't supported and left out"))
    return False


def _seeds(reader: _Reader, parameters: dict[str, dict[str, Any]]) -> list[int]:
    """Take the seeds out of what is swept, if they are: a study has them of its own."""
    table = parameters.pop("seed", None)
    if table is None:
        return []
    values = table.get("values") or [table.get("value")]
    seeds = [value for value in values if isinstance(value, int) and not isinstance(value, bool) and value >= 0]
    reader.say(("parameters", "seed"), _("these are the study's seeds, with each of which all combinations are run"))
    return seeds or [FIRST_SEED]


def _command(reader: _Reader, content: Mapping[str, Any]) -> tuple[list[str], str, str]:
    """Return the words of a command, how settings are spelled in it, and truth values."""
    program = content.get("program")
    given = content.get("command")
    said = [str(word) for word in given] if isinstance(given, list) else []
    if not said and isinstance(given, str):
        try:
            said = shlex.split(given)
        except ValueError as error:
            raise UsageError(_("{path}: no YAML that can be read: {why}", str(reader.path), str(error))) from error
    if not said and not isinstance(program, str):
        raise UsageError(
            _("{path}: it names no program", str(reader.path)), hint=_("write it there: program: train.py")
        )
    said = said or ["${env}", "${interpreter}", "${program}", "${args}"]
    spelling, booleans, words = "--key=value", "True", list[str]()
    for word in said:
        if word == "${env}" or (word == "/usr/bin/env" and not words):
            continue
        if word == "${program}":
            words.append(str(program))
        elif word in MACROS:
            spelling = {"${args_no_hyphens}": "key=value", "${args_json_file}": "json"}.get(word, spelling)
            booleans = "flag" if word == "${args_no_boolean_flags}" else booleans
            words.append(MACROS[word])
        elif "${" in word:
            reader.say(("command",), _("{value} isn't supported and left out", word))
        else:
            words.append(word.replace("{", "{{").replace("}", "}}"))
    if not {"{settings}", "{settings_file}"} & {*words}:
        words.append("{settings}")
        reader.say(("command",), _("has no place for the parameters: they come at its end"))
    return words, spelling, booleans


def _metric(reader: _Reader, metric: Any) -> str:
    """Return the lines of [metrics]."""
    goals: dict[str, Any] = {}
    if isinstance(metric, dict) and isinstance(metric.get("name"), str):
        goal = metric.get("goal", "minimize")
        goal = goal if goal in GOALS else GOALS[0]
        goals = {"goal": {metric["name"]: goal}}
        if "target" in metric:
            reader.say(("metric", "target"), _("isn't supported: every run goes to its end"))
    return _rows(goals)


def _first(table: Mapping[str, Any]) -> Any:
    """Return a value for [settings], which no run has while the setting is swept."""
    if "values" in table:
        return table["values"][0]
    return table["min"] if table["distribution"] != "uniform" else float(table["min"])


def _rows(tables: Mapping[str, Any], prefix: str = "") -> str:
    rows: Iterator[str] = (
        f"{prefix}{tomlfile.bare_key(key)} = {tomlfile.as_text(value)}\n" for key, value in tables.items()
    )
    return "".join(rows)

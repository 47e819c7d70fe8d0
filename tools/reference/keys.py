"""The pages of study files and of targets files: what their readers ask for, and what the fields say that they fill."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

from oelm_jobs.spec import program, study
from oelm_jobs.spec.block import Block
from oelm_jobs.spec.notify import Notify, Webhook
from oelm_jobs.spec.options import Slurm
from oelm_jobs.spec.program import Metrics, Program, Stage
from oelm_jobs.spec.study import Group, Hypothesis, SpeedTrial, Study
from oelm_jobs.spec.sweep import Parameter, Sweep
from oelm_jobs.spec.target import Target
from oelm_jobs.study.files import BESIDES, KEYS, read_tables
from oelm_jobs.targets import sbatch_keys
from oelm_jobs.targets.files import KINDS, read_targets

from .recording import Asked, Place, recorded
from .words import NONE, NOTE, Meaningless, choices, code, documented, documented_values, prose, table, toml

TYPES = {bool: "true or false", int: "whole number", float: "number", str: "text", list: "list", dict: "table"}
ITEMS = {int: "whole numbers", str: "texts", float: "numbers", object: "numbers", dict: "tables", list: "lists"}
ANY = {
    "command": "text or list of words",
    "resume": "text or list of words",
    "gpus": "whole number or list of them",
    "webhook": "table",
}
"""Types of keys that readers look at themselves."""

RULES = documented_values(study, study.RELATIONS)
"""What is said of each rule of a hypothesis."""
STUDIES = {
    "trainer": """
        factors = ["d_ff"]
        [train]
        global_batch = 1
        [groups]
        a = { gpus = 1, d_ff = 1 }
        b = { d_ff = 2 }
        [speed_trial]
        [notify]
        on = ["stalled"]
        stalled_after = "30m"
        webhook = { form = "json", url = "http://localhost/" }
        [hypotheses]
        speed = { metric = "speed", group = "a", against = "b", ratio_at_least = 1.0 }
        """,
    "program": """
        factors = ["lr"]
        [program]
        command = "p {lr} {d_ff} {seed} {resume}"
        resume = "r"
        checkpoint = "c"
        [settings]
        d_ff = 1
        [sweep]
        parameters.d_ff = { values = [1, 2] }
        [metrics]
        goal = { loss = "minimize" }
        [groups]
        c = { lr = 1 }
        d = { lr = 2 }
        [hypotheses]
        """
    + "\n".join(
        f'{rule} = {{ metric = "loss", group = "c", against = "d", at = "last", '
        f"{rule} = {[0.1, 0.2] if '[low' in said else 0.1} }}"
        for rule, said in RULES.items()
    ),
    "blocks": """
        factors = ["lr"]
        [program]
        command = "p {lr} {seed} {i}"
        [groups]
        c = { lr = 1, needs = ["d"], when = "always", inputs = { i = "d:best" } }
        d = { lr = 2, inputs = { i = "other/d:best" } }
        [metrics]
        goal = { loss = "minimize" }
        [blocks]
        b = { data = ["x"] }
        [hypotheses]
        h = { metric = "loss", group = "c", against = "d", at_most_above = 0.1 }
        """,
    "stages": """
        factors = ["lr"]
        stages = [{ name = "s", command = "p {lr} {d_ff} {seed}" }]
        [program]
        [settings]
        d_ff = 1
        [sweep]
        method = "random"
        run_cap = 1
        parameters.d_ff = { distribution = "int_uniform", min = 1, max = 2 }
        [groups]
        a = { lr = 1 }
        """,
}
"""Studies that let the reader ask for all keys that there are; what they name themselves differs in them."""
FACTORS = ("d_ff", "lr")
"""Theirs."""
FREE = (
    ("groups",),
    ("groups", "NAME", "inputs"),
    ("blocks",),
    ("hypotheses",),
    ("metrics", "goal"),
    ("sweep", "parameters"),
)
"""Tables of which the user says the keys."""
FILLED: Mapping[Place, type] = {
    (): Study,
    ("train",): Study,
    ("program",): Program,
    ("stages",): Stage,
    ("metrics",): Metrics,
    ("groups", "NAME"): Group,
    ("blocks", "NAME"): Block,
    ("hypotheses", "NAME"): Hypothesis,
    ("speed_trial",): SpeedTrial,
    ("notify",): Notify,
    ("notify", "webhook"): Webhook,
    ("sweep",): Sweep,
    ("sweep", "parameters", "NAME"): Parameter,
}
"""What a table becomes."""
FIELDS = {
    ((), "default"): (Study, "is_default"),
    ((), "settings"): (Study, "settings"),
    ((), "train"): (Study, "settings"),
    ((), "stages"): (Program, "stages"),
    ((), "metrics"): (Program, "metrics"),
    (("program",), "settings"): (Program, "spelling"),
    (("program",), "command"): (Stage, "words"),
    (("stages",), "command"): (Stage, "words"),
    (("notify",), "stalled_after"): (Notify, "stalled_after_s"),
}
"""The field of a key, where it isn't called as the key is."""
TOLD: Mapping[Place, Mapping[str, str]] = {
    ("metrics",): documented_values(program, program.MEASURED),
    ("hypotheses", "NAME"): RULES,
}
"""What is said of keys that become a value."""
TARGETS = {
    "local": 'kind = "local"',
    "ssh": 'kind = "ssh"\nhost = "h"',
    "slurm": 'kind = "slurm"',
    "slurm behind SSH": 'kind = "slurm"\nhost = "h"',
}
"""Targets that let the reader ask for all keys that there are."""


def study_page() -> str:
    """Return the page of study files."""
    places: dict[Place, dict[str, Asked]] = {}
    for place, key, asked in study_keys():
        places.setdefault(place, {})[key] = asked
    of_hypothesis = places["hypotheses", "NAME"]
    rules = [(code(n), _type(n, of_hypothesis.pop(n)), said) for n, said in RULES.items()]
    parts = [NOTE, STUDY_HEAD, _table((), places.pop(()))]
    for place, keys in places.items():
        parts.append(f"## {_heading(place)}\n\n{_table(place, keys)}")
        if place == ("groups", "NAME"):
            parts.append(ON_GROUPS)
        if place == ("blocks", "NAME"):
            parts.append(ON_BLOCKS)
        if place == ("hypotheses", "NAME"):
            parts.append(ON_RULES + table(("rule", "type", "holds where"), rules))
            rows = [(code(name), said) for name, said in documented_values(study, study.METRICS).items()]
            parts.append(ON_METRICS + table(("metric", "what it is"), rows))
    parts.append(ON_UNEQUAL.format(besides=", ".join(map(code, BESIDES))))
    return "\n".join(parts)


def study_keys() -> Iterator[tuple[Place, str, Asked]]:
    """Yield every key that a study file may have, with its table, in an order for reading."""
    found: dict[tuple[Place, str], Asked] = {}
    for text in STUDIES.values():
        record = recorded(read_tables, text)
        for (place, key), asked in record.keys.items():
            for free in FREE:
                if len(place) > len(free) and place[: len(free)] == free:
                    place = (*free, "NAME", *place[len(free) + 1 :])
            if place not in FREE and key not in FACTORS:
                found[place, key] = _both(found.get((place, key)), asked)
    tables, first = [*FILLED], ["name", *KEYS]

    def rank(at: tuple[Place, str]) -> tuple[int, int]:
        place, key = at
        order = first.index(key) if place == () and key in first else len(first)
        return tables.index(place) if place in tables else len(tables), order

    for place, key in sorted(found, key=rank):
        yield place, key, found[place, key]


def _both(one: Asked | None, other: Asked) -> Asked:
    """Return what two readings tell of a key: that which knows its type counts, it is required if it always is, and
    choices and defaults that differ are the studies' own.
    """
    if one is None:
        return other
    known, is_typed = (one, other.kind is not None) if one.kind is not None else (other, False)
    return dataclasses.replace(
        known,
        choices=known.choices if not is_typed or one.choices == other.choices else (),
        default=known.default if not is_typed or one.default == other.default else None,
        is_required=one.is_required and other.is_required,
        is_looked_for=one.is_looked_for or other.is_looked_for,
    )


def _heading(place: Place) -> str:
    if place == ("stages",):
        return "`[[stages]]`"
    return f"`[{'.'.join(place)}]`"


def _table(place: Place, keys: Mapping[str, Asked]) -> str:
    rows = [
        (code(key), _type(key, asked), _default(place, key, asked), _meaning(place, key)) for key, asked in keys.items()
    ]
    return table(("key", "type", "default", "meaning"), rows)


def _field(place: Place, key: str) -> tuple[type, str]:
    if (place, key) in FIELDS:
        return FIELDS[place, key]
    if place not in FILLED:
        raise Meaningless(f"{_heading(place)}: FILLED has no class whose fields say what its keys mean")
    return FILLED[place], key


def _meaning(place: Place, key: str) -> str:
    if key in TOLD.get(place, {}):
        return TOLD[place][key]
    if (place, key) == (("stages",), "command"):
        return "As in `[program]`."
    which, name = _field(place, key)
    said = documented(which).get(name)
    if not said:
        raise Meaningless(f"{_heading(place)} {key}: {which.__module__}.{which.__name__}.{name} has no docstring")
    return said


def _type(key: str, asked: Asked) -> str:
    if asked.kind is None:
        return ANY[key]
    if asked.kind is list and asked.item is not None:
        return f"list of {ITEMS[asked.item]}"
    if asked.choices:
        return choices(asked.choices)
    return TYPES[asked.kind]


def _default(place: Place, key: str, asked: Asked) -> str:
    if asked.is_required:
        return "required"
    value = asked.default
    if key == "name" and place == ():
        return "the file's name"
    if isinstance(value, (list, tuple)):
        return toml(list(value)) if value else NONE
    if value in (None, "", {}) or (not value and not isinstance(value, bool) and _may_be_none(place, key, asked)):
        return NONE
    return toml(value)


def _may_be_none(place: Place, key: str, asked: Asked) -> bool:
    which, name = _field(place, key)
    annotations = {each.name: str(each.type) for each in dataclasses.fields(which)}
    return asked.is_looked_for or "None" in annotations.get(name, "")


# Targets --------------------------------------------------------------------------------------------------------------


def targets_page() -> str:
    """Return the page of targets files."""
    rows = [
        (code(key), _kinds(by), _type_of_target(key, by), _default_of_target(by), _meaning_of_target(key))
        for key, by in target_keys().items()
    ]
    refused = [(code(option), prose(str(why))) for option, why in sbatch_keys.OWNED.items()]
    return "\n".join(
        [
            NOTE,
            TARGETS_HEAD,
            table(("key", "kinds", "type", "default", "meaning"), rows),
            ON_SBATCH,
            table(("option", "why not"), refused),
            ON_CONFIGURATION,
        ]
    )


def target_keys() -> dict[str, dict[str, Asked]]:
    """Return every key that a target may have, by the kinds of TARGETS."""
    found: dict[str, dict[str, Asked]] = {}
    for kind, text in TARGETS.items():
        record = recorded(read_targets, f"[t]\n{text}")
        for (place, key), asked in record.keys.items():
            if place == ("t",):
                found.setdefault(key, {})[kind] = asked
    for by in found.values():  # one kind asks whether it is there, so that it may be refused
        for kind in [kind for kind, asked in by.items() if asked.kind is None and len(by) > 1]:
            del by[kind]
    fields = [each.name for which in (Target, Slurm) for each in dataclasses.fields(which)]
    return dict(sorted(found.items(), key=lambda item: fields.index(item[0]) if item[0] in fields else len(fields)))


def _kinds(by: Iterable[str]) -> str:
    kinds = [kind for kind in KINDS if kind in by]
    return "all" if len(kinds) == len(KINDS) else ", ".join(kinds)


def _type_of_target(key: str, by: Mapping[str, Asked]) -> str:
    return _type(key, next(iter(by.values())))


def _default_of_target(by: Mapping[str, Asked]) -> str:
    if any(asked.is_required for asked in by.values()):
        return "required" if all(asked.is_required for asked in by.values()) else "required of ssh"
    found = {kind: _default_in(asked) for kind, asked in by.items()}
    behind = {told for kind, told in found.items() if kind in ("ssh", "slurm behind SSH")}
    here = {told for kind, told in found.items() if kind in ("local", "slurm")}
    if len(behind) == 1 and len(here) == 1 and behind != here:
        return f"{behind.pop()} behind SSH, else {here.pop()}"
    return next(iter(found.values()))


def _default_in(asked: Asked) -> str:
    value = asked.default
    if value in (None, "", {}) or (asked.is_looked_for and not value) or value in ([], ()):
        return NONE
    return toml(value)


def _meaning_of_target(key: str) -> str:
    for which in (Target, Slurm):
        if said := documented(which).get(key):
            return said
    raise Meaningless(f"a target's {key}: neither Target nor Slurm of oelm_jobs/spec has a docstring for it")


STUDY_HEAD = """# Keys of a study

A study is a file `jobs/NAME.toml`. One of `[train]` trains models of the [built-in trainer](trainer.md), one of
`[program]` compares runs of [a program of your own](../program.md). An error about a key names the file, the line,
the value and what would be right there.
"""
ON_GROUPS = """Besides, a group sets the study's `factors`, and what is `tuned` or declared in `[unequal]`.
"""
ON_BLOCKS = """Besides, a block sets what its runs have in place of the study's own: in a study with `[train]` keys of
the trainer, `data_path` at least, in one with `[program]` settings. What groups set, it can't.
"""
ON_RULES = """Exactly one of these rules stands in a hypothesis. The numbers are fractions of the other group's value;
with `scale = "difference"` they are in the metric's own units, and there is no `ratio_at_least`.
[Verdicts](../report.md#verdicts) says how they are judged.

"""
ON_METRICS = """Metrics of the built-in trainer's runs:

"""
ON_UNEQUAL = """## `[unequal]`

Any setting may be named here, and besides: {besides}. The value is the reason, a text that the report prints.
"""
TARGETS_HEAD = """# Keys of a target

A target is a table in a targets file: `targets.toml` of your configuration folder (`~/.config/oelm-jobs` on Linux,
or below `XDG_CONFIG_HOME`; `~/Library/Application Support/oelm-jobs` on macOS) for all your projects, or
`jobs/targets.toml` of a project, which wins. The target `local`, this machine, is there without a file. No password
belongs in such a file: logins use keys and agents.

`oelm-submit --host` writes the targets that it was given into `remembered.toml` of the configuration folder.
"""
ON_CONFIGURATION = """## Your own configuration

`config.toml` of the same configuration folder may hold [`[notify]`](study.md#notify), for all studies that have none.
"""
ON_SBATCH = """## `sbatch`

These options are the toolkit's own, and are refused with the reason:
"""

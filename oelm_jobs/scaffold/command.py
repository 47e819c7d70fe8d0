"""Make the study file of a command as it is typed on a terminal."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import tomlfile
from ..agent.sentences import _
from ..errors import UsageError
from ..programs import script, words
from ..programs.script import BY_AGENT, BY_CLIENT
from ..spec.program import placeholders
from ..study.files import read_tables
from ..study.implicit import FILLED_IN, FIRST_SEED, free_name, name_of

_RATE = re.compile(r"(?:.*[._-])?(?:lr|learning[_-]rate)")
"""What is compared where a command sets several numbers."""
_SHELLS = re.compile(r"[$`*?~]|^\s*[A-Za-z_]\w*=|[|&;<>]")
"""What a shell would do something with, outside of quotes."""
_QUOTED = re.compile(r"""'[^']*'|\\.|"(?:\\.|[^"\\$`])*\"""", re.DOTALL)
"""What a shell takes as it is."""
_NAME = re.compile(r"(?:--?)?([A-Za-z][\w.-]*)")

TEMPLATE = """\
# Made by `oelm init`: groups of runs of one command, and their comparison.
question = ""    # what the comparison is to answer, in one sentence
factors = {factors}    # the settings that groups differ in; in all others they are equal
seeds = [{seed}]    # a run of each group for each; for several {{seed}} stands in the command: [42, 43, 44]

[program]
# What a run executes, as it is typed: {{NAME}} stands for a setting of the group, {{seed}} for the seed.
command = {command}
# To go on after a cancel or a crash; {{resume}} then belongs into the command.
# checkpoint = "last.pt"
# resume = "--resume={{checkpoint}}"

[metrics]
# What it prints, with names in place of numbers; the first metric of goal is the main one.
# lines = ["step {{step}}: loss {{loss}}"]
# goal = {{ loss = "minimize" }}

[groups]
base = {group}
{other}
# [hypotheses]
# H1 = {{ metric = "loss", group = "other", against = "base", reduction = [0.01, inf] }}
"""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A number that a command sets: ``--lr 1e-3``, ``--lr=1e-3`` or ``lr=1e-3``."""

    name: str
    value: str
    """As it is written."""
    place: int
    """Which word holds the value."""


@dataclass(frozen=True, kw_only=True)
class NewStudy:
    """A study file that isn't written yet."""

    name: str
    text: str
    lacking: str
    """Why it can't be run yet: its script isn't there; empty where it is."""


def study(command: str, folder: Path) -> NewStudy:
    """Return the study of a command.

    Raises:
        UsageError: The text can't be a command.
        ConfigurationError: It makes no study.
    """
    texts, settings = _words(command), []
    if not texts:
        raise UsageError(_("--command: which command?"), hint=_('as in --command "python train.py --lr 1e-3"'))
    if is_shells := _is_shells(command):
        texts = ["sh", "-c", command.replace("{", "{{").replace("}", "}}")]
    else:
        _check(texts)
        settings = list(_numbers(texts))
    seed = next((one for one in settings if one.name == "seed"), None)
    others = [one for one in settings if one is not seed]
    rates = [one for one in others if _RATE.fullmatch(one.name)]
    factor = next(iter([*rates, *others]), None)
    for one in (seed, factor):
        if one is not None:
            before = texts[one.place]
            texts[one.place] = f"{before[: len(before) - len(one.value)]}{{{one.name}}}"
    name = free_name(folder, name_of(_words(command) if is_shells else texts))
    text = TEMPLATE.format(
        factors=tomlfile.as_text([factor.name] if factor else []),
        seed=seed.value if seed else FIRST_SEED,
        command=tomlfile.as_text(_as_file(texts)),
        group=f"{{ {tomlfile.bare_key(factor.name)} = {factor.value} }}" if factor else "{}",
        other=f"# other = {{ {tomlfile.bare_key(factor.name)} = {factor.value} }}    # another value\n"
        if factor
        else "",
    )
    made = read_tables(tomlfile.Section(folder / "jobs" / f"{name}.toml", "", tomlfile.loads(text)))
    return NewStudy(name=name, text=text, lacking=script.why_not_there(folder, made))


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        why = _("can't be split into words: {why}", str(error))
        raise UsageError(_("--command: {why}", why), hint=_("close the quotes in it")) from None


def _is_shells(command: str) -> bool:
    """Tell whether a command means something else without a shell."""
    return _SHELLS.search(_QUOTED.sub("quoted", command)) is not None


def _check(texts: Sequence[str]) -> None:
    """Refuse placeholders that nothing fills."""
    try:
        named = placeholders(words.read(texts))
    except words.BadWords as error:
        raise UsageError(
            _("--command: {why}", str(error)), hint=_("write a brace that is meant as two: {{{{")
        ) from None
    if unknown := sorted(named - {*FILLED_IN}):
        raise UsageError(
            _("--command: nothing says what {{{name}}} is", unknown[0]),
            hint=_("write its value there, as you type it on a terminal; the study then says it of a group"),
        )


def _numbers(texts: Sequence[str]) -> Iterator[Setting]:
    """Yield the options of a command that have a number, each name once."""
    seen = {*BY_CLIENT, *BY_AGENT} - {"seed"}
    for place, text in enumerate(texts):
        name, equals, value = text.partition("=")
        if not equals and text.startswith("-"):
            place, value = place + 1, texts[place + 1] if place + 1 < len(texts) else ""
        found = _NAME.fullmatch(name)
        if found is None or found[1] in seen or not _is_number(value):
            continue
        if found[1] != "seed" or value.isdigit():
            seen.add(found[1])
            yield Setting(name=found[1], value=value, place=place)


def _is_number(text: str) -> bool:
    value = tomlfile.value_of(text)
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _as_file(texts: Sequence[str]) -> str | list[str]:
    """Return words as text where that is split into the same ones."""
    text = " ".join(texts)
    return text if not _is_shells(text) and shlex.split(text) == list(texts) else list(texts)

"""Read the settings that a program left beside its results: JSON, YAML, or the words of its command line.

Nothing is unpickled: training_args.bin and the like are named and left.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from oelm_jobs.agent.sentences import Sentence, _

from . import files

NAMES = (
    "config", "args", "hparams", "params", "settings", "hyperparameters", "hyperparams", "options", "opts",
    "training_args", "train_args", "run_config", "experiment_config",
)  # fmt: skip
SUFFIXES = (".json", ".yaml", ".yml", ".txt", "")
WITHIN = ("", ".hydra", "files", "config", "configs", "logs")
"""Folders of a run's in which they lie (W&B's ``files``)."""
PICKLED = (".bin", ".pkl", ".pickle", ".pt")
MOST_BYTES = 1 << 20
_NUMBER = re.compile(r"[-+]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def read(folder: Path, notes: list[Sentence]) -> dict[str, Any]:
    """Return the settings of a run by name, those of tables in it under names joined by dots; of several files that
    name one the first counts. Append to ``notes`` what could not be read.
    """
    found: dict[str, Any] = {}
    for path in files_of(folder):
        if path.suffix in PICKLED:
            notes.append(files.not_understood(path.name, _("it is a pickle, which could run anything")))
            continue
        try:
            content = _content(path)
        except OSError as error:
            notes.append(files.not_understood(path.name, error.strerror or _("unreadable")))
            continue
        if content is None:
            notes.append(files.not_understood(path.name, _("it holds no names with values")))
            continue
        for name, value in _flat(content, ""):
            found.setdefault(name, value)
    return found


def files_of(folder: Path) -> Iterator[Path]:
    """Yield the files in which a run's settings may stand, those first that count first."""
    for inner in WITHIN:
        for name in NAMES:
            for suffix in (*SUFFIXES, *PICKLED):
                path = folder / inner / f"{name}{suffix}"
                if path.is_file():
                    yield path


def _content(path: Path) -> Mapping[str, Any] | None:
    """Return what a file says; None where that is nothing.

    Raises:
        OSError: It can't be read.
    """
    if path.stat().st_size > MOST_BYTES:
        return None
    text = path.read_bytes().decode("utf-8-sig", errors="replace")
    for read_as in (_json, _namespace, _words, _yaml):
        content = read_as(text)
        if isinstance(content, dict) and content:
            return content
    return None


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _namespace(text: str) -> Any:
    """Return what argparse prints of itself: ``Namespace(lr=0.001, name='a')``."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id == "Namespace":
            return {one.arg: ast.literal_eval(one.value) for one in tree.keywords if one.arg}
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return None


def _words(text: str) -> Any:
    """Return the options of a command line: ``--lr 1e-3``, ``--lr=1e-3``."""
    try:
        words = shlex.split(text, comments=True)
    except ValueError:
        return None
    if not any(word.startswith("--") for word in words):
        return None
    found: dict[str, Any] = {}
    for word, after in zip(words, [*words[1:], "--"], strict=True):
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            found[name.replace("-", "_")] = value if equals else True if after.startswith("--") else after
    return found


def _yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None


def _flat(content: Mapping[Any, Any], before: str, depth: int = 6) -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        name = f"{before}{key}"
        if name.startswith("_wandb"):
            continue
        if isinstance(value, dict) and "value" in value and set(value) <= {"value", "desc"}:
            value = value["value"]  # W&B's config.yaml
        if isinstance(value, dict) and depth:
            yield from _flat(value, f"{name}.", depth - 1)
        elif isinstance(value, str):
            yield name, _number(value)
        elif value is None or isinstance(value, (bool, int, float)):
            yield name, value
        elif isinstance(value, (list, tuple)):
            yield name, json.dumps(value, default=str)


def _number(text: str) -> str | int | float:
    """Return a text that is a number as one: YAML takes 1e-3 for text."""
    if not _NUMBER.fullmatch(text):
        return text
    value = float(text)
    return int(text) if re.fullmatch(r"[-+]?\d+", text) else value

"""What the toolkit writes and says, kept as files that tests compare it with.

``UPDATE_GOLDEN=1 pytest -k golden`` writes the files anew; read the difference before committing it.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import string
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support import REPOSITORY

HERE = Path(__file__).parent


def compare(name: str, made: str) -> None:
    """Fail where a text isn't that of a file below this folder."""
    path = HERE / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(made, encoding="utf-8")
    assert made == path.read_text(encoding="utf-8"), f"{path} says something else; see {HERE / '__init__.py'}"


def ask_agent(verb: str, request: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
    """Ask the agent in a process of its own, as it is asked on a server."""
    return subprocess.run(
        [sys.executable, "-m", "oelm_jobs.agent", verb],
        input=json.dumps(request), capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip


ADDED = ("code", "values", "gpu_hours")
"""Keys that what is said may have besides."""


def compare_json(name: str, made: Any) -> None:
    """Fail where a value isn't that of a file below this folder, added keys apart."""
    path = HERE / name
    if path.exists() and not os.environ.get("UPDATE_GOLDEN"):
        made = _without_added(made, json.loads(path.read_text(encoding="utf-8")))
    compare(name, json.dumps(made, indent=1, ensure_ascii=False) + "\n")


def _without_added(made: Any, kept: Any) -> Any:
    """Return what is said without keys that are new in it and may be."""
    if isinstance(made, dict) and isinstance(kept, dict):
        return {
            key: _without_added(each, kept.get(key)) for key, each in made.items() if key in kept or key not in ADDED
        }
    if isinstance(made, list) and isinstance(kept, list) and len(made) == len(kept):
        return [_without_added(*pair) for pair in zip(made, kept, strict=True)]
    return made


def replaced(text: str, pairs: Iterable[tuple[str, str]]) -> str:
    """Return a text with the second of each pair in the place of the first, one pair after the other."""
    for old, new in pairs:
        text = text.replace(old, new)
    return text


def without_what_varies(text: str, places: Iterable[tuple[str, str]]) -> str:
    """Return a text with names in the place of paths, tokens and hashes of code.

    Args:
        places: Paths and what to call them; a path within another one comes first.
    """
    text = replaced(text, places)
    tokens = list(dict.fromkeys(re.findall(r"oelm-[0-9a-f]{16}", text)))
    for number, token in enumerate(tokens, start=1):
        text = text.replace(token, f"oelm-TOKEN{number}")
    text = re.sub(r"(?<=/\.oelm/agent/)[0-9a-f]{16}", "AGENT", text)
    text = re.sub(r"(?<=/\.oelm/snapshots/)[0-9a-f]{16}", "SNAPSHOT", text)
    return re.sub(r'"(train_code|snapshot)": "[0-9a-f]+"', r'"\1": "HASH"', text)


def table(lines: Mapping[str, Sequence[Any]]) -> str:
    """Return what was said in many cases, shortly: each different answer once with a label, then a line of labels, of
    which ``aa*3`` stands for three.

    Args:
        lines: Name of a line to its answers, one for each column; keys in ADDED are left out.
    """
    labels = ("".join(pair) for pair in itertools.product(string.ascii_lowercase, string.ascii_lowercase))
    known: dict[str, str] = {}
    shown = []
    for name, answers in lines.items():
        texts = [json.dumps({key: row[key] for key in sorted(row) if key not in ADDED}) for row in answers]
        for text in texts:
            if text not in known:
                known[text] = next(labels)
        runs = [(label, len(list(group))) for label, group in itertools.groupby(known[text] for text in texts)]
        shown.append(f"{name}: " + " ".join(label if count == 1 else f"{label}*{count}" for label, count in runs))
    return "".join(f"{line}\n" for line in [*(f"{label} {text}" for text, label in known.items()), "", *shown])

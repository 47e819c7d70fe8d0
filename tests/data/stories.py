"""Stories for the data tests, in every form that `oelm-data make` takes, and a reader of the tokens made from them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from oelm_jobs.data.token_folder import END_OF_TEXT, read_manifest
from oelm_jobs.data.tokenizer import encoding

WORDS = 'the a Lily Tom dog ball was very happy and ran to park, said "no!" It\'s naïve 雪 🙂 1,234'.split(" ")  # noqa: SIM905


def _stories() -> list[str]:
    chosen = random.Random(7)
    made = [" ".join(chosen.choices(WORDS, k=chosen.randint(5, 60))) for _ in range(400)]
    return [f"{number}. {story}".replace("park, ", "park.\n\n").strip() for number, story in enumerate(made)]


STORIES = _stories()
"""Four hundred different stories of a few lines without blanks at their ends."""


def write_stories(path: Path, stories: list[str]) -> Path:
    """Write stories as TinyStories-train.txt, JSON lines or parquet, by the file's ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".txt":
        path.write_text("".join(f"{story}\n{END_OF_TEXT}\n" for story in stories), encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"id": i, "text": story}) + "\n" for i, story in enumerate(stories)))
    else:
        write_parquet(path, {"id": list(range(len(stories))), "text": stories}, max(len(stories) // 3, 1))
    return path


def write_parquet(path: Path, columns: dict[str, list[object]] | dict[str, list[str]], rows_per_group: int) -> Path:
    """Write a parquet file; the test is skipped where pyarrow (the parquet extra) is not installed."""
    arrow = pytest.importorskip("pyarrow", reason="the parquet extra is not installed")
    import pyarrow.parquet

    pyarrow.parquet.write_table(arrow.table(columns), path, row_group_size=rows_per_group)
    return path


def read_documents(path: Path) -> list[str]:
    """Return the documents of a token file, decoded with the vocabulary that its folder's manifest names."""
    manifest = read_manifest(path.parent)
    assert manifest is not None
    ids = np.fromfile(path, dtype="<u2")
    ends = np.flatnonzero(ids == manifest.tokenizer.eot)
    assert ends[-1] == len(ids) - 1, "the last document has no end"
    starts = [0, *(ends[:-1] + 1).tolist()]
    decode = encoding(manifest.tokenizer.vocab_size).decode
    return [decode(ids[start:end].tolist()) for start, end in zip(starts, ends, strict=True)]

"""Make data/austen_char: the first characters of the embedded novels as uint16, and what each number stands for."""

import importlib.util
import lzma
import pickle
from pathlib import Path

import numpy as np

PROJECT = Path(__file__).resolve().parents[3]
CHARACTERS = 400_000

package = PROJECT / "oelm_jobs"
if not package.is_dir():  # oelm-jobs is installed
    package = Path(importlib.util.find_spec("oelm_jobs").origin).parent
with lzma.open(package / "text" / "austen.txt.xz", "rt", encoding="utf-8") as file:
    text = file.read(CHARACTERS)
characters = sorted(set(text))
number = {character: place for place, character in enumerate(characters)}
ids = np.array([number[character] for character in text], dtype=np.uint16)
folder = PROJECT / "data" / "austen_char"
folder.mkdir(parents=True, exist_ok=True)
ids[: len(ids) * 9 // 10].tofile(folder / "train.bin")
ids[len(ids) * 9 // 10 :].tofile(folder / "val.bin")
(folder / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": len(characters), "characters": characters}))
print(f"{folder}: {len(ids):,} characters, {len(characters)} different ones")

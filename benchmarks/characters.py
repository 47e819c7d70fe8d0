"""How well this trainer learns a small text by its characters, and beside it nanoGPT by the same recipe.

    python benchmarks/characters.py                         # this trainer alone
    python benchmarks/characters.py --against ~/nanoGPT     # and a checkout of karpathy/nanoGPT on the same characters

The recipe is nanoGPT's for a CPU (its README): d_model 128, 4 layers, 4 heads, 64 characters, 12 sequences, dropout 0,
2,000 steps, learning rate 1e-3 to 1e-4 after 100 steps of warm-up, beta2 0.99. The text is the beginning of the
embedded novels, its last tenth kept for validation. Both losses are means over the whole of that tenth, in the same
windows.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from train.config import TrainConfig, to_flags

ROOT = Path(__file__).resolve().parents[1]
NOVELS = ROOT / "oelm_jobs" / "text" / "austen.txt.xz"
RECIPE = TrainConfig(
    d_model=128, num_layers=4, num_heads=4, d_ff=512, seq_len=64, dropout=0.0, batch_size=12, max_steps=2000,
    warmup_steps=100, max_lr=1e-3, min_lr=1e-4, beta2=0.99, val_interval=500, save_interval=10**9, compile="false",
)  # fmt: skip

MEASURE_THEIRS = """
import sys
import numpy as np, torch
from torch.nn import functional as F
from model import GPT, GPTConfig

torch.set_num_threads(1)
saved = torch.load("out/ckpt.pt", map_location="cpu", weights_only=True)
model = GPT(GPTConfig(**saved["model_args"])).eval()
model.load_state_dict({name.replace("_orig_mod.", ""): value for name, value in saved["model"].items()})
tokens = torch.from_numpy(np.fromfile("data/characters/val.bin", dtype="<u2").astype(np.int64))
length, total = saved["model_args"]["block_size"], 0.0
with torch.no_grad():
    for start in range(0, len(tokens) - 1, length):
        window = tokens[start : start + length + 1]
        logits, _ = model(window[None, :-1], window[None, 1:])
        total += float(F.cross_entropy(logits[0].double(), window[1:], reduction="sum"))
print(saved["iter_num"], total / (len(tokens) - 1))
"""
"""Prints the steps made and the loss over the validation file; run in the folder of nanoGPT's model.py."""


def write_characters(folder: Path, text: str) -> int:
    """Write the characters as token files, and their number in the form that nanoGPT reads; return it."""
    folder.mkdir(parents=True)
    alphabet = sorted(set(text))
    ids = np.searchsorted(np.array(alphabet), np.array(list(text))).astype("<u2")
    cut = int(0.9 * len(ids))
    ids[:cut].tofile(folder / "train.bin")
    ids[cut:].tofile(folder / "val.bin")
    (folder / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": len(alphabet)}))
    return len(alphabet)


def train_ours(config: TrainConfig) -> float:
    """Run this trainer; return its validation loss."""
    run([sys.executable, "-m", "train", *to_flags(config)], ROOT)
    outcome = json.loads((Path(str(config.out_dir)) / ".oelm" / "outcome.json").read_text(encoding="utf-8"))
    assert outcome["final"]["val_full"] and outcome["step"] == config.max_steps
    return float(outcome["final"]["val_loss"])


def train_theirs(config: TrainConfig, folder: Path, checkout: Path) -> float:
    """Run nanoGPT's train.py with the same recipe; return its validation loss."""
    for name in ("train.py", "model.py", "configurator.py"):
        shutil.copy(checkout / name, folder / name)
    settings = {
        "device": "cpu", "dtype": "float32", "compile": False, "dataset": "characters", "out_dir": "out",
        "block_size": config.seq_len, "batch_size": config.batch_size, "gradient_accumulation_steps": 1,
        "n_layer": config.num_layers, "n_head": config.num_heads, "n_embd": config.d_model, "dropout": config.dropout,
        "learning_rate": config.max_lr, "min_lr": config.min_lr, "warmup_iters": config.warmup_steps,
        "max_iters": config.max_steps, "lr_decay_iters": config.max_steps, "beta2": config.beta2,
        "weight_decay": config.weight_decay, "grad_clip": config.grad_clip, "eval_interval": config.max_steps,
        "eval_iters": 1, "log_interval": 100,
    }  # fmt: skip
    run([sys.executable, "train.py", *(f"--{key}={value}" for key, value in settings.items())], folder)
    steps, loss = run([sys.executable, "-c", MEASURE_THEIRS], folder).splitlines()[-1].split()
    assert int(steps) == config.max_steps
    return float(loss)


def run(command: list[str], folder: Path) -> str:
    """Run a command with one thread; return what it prints."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)[:200]} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--against", type=Path, metavar="DIR", help="a checkout of karpathy/nanoGPT")
    parser.add_argument("--text", type=Path, metavar="FILE", help="another text (default: the embedded novels)")
    parser.add_argument("--characters", type=int, default=1_200_000, help="how much of it (default: 1200000)")
    parser.add_argument("--steps", type=int, default=RECIPE.max_steps, help="steps (default: the recipe's 2000)")
    parser.add_argument("--seed", type=int, action="append", help="of this trainer, repeatable (default: 42)")
    arguments = parser.parse_args()
    whole = arguments.text.read_text("utf-8") if arguments.text else lzma.decompress(NOVELS.read_bytes()).decode()
    text = whole[: arguments.characters]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        steps = arguments.steps
        recipe = replace(RECIPE, max_steps=steps, warmup_steps=min(RECIPE.warmup_steps, steps // 20))
        data = folder / "data" / "characters"
        vocab_size = write_characters(data, text)
        recipe = replace(recipe, vocab_size=vocab_size, data_path=str(data / "train.bin"))
        print(f"{len(text):,} characters, {vocab_size} different ones, {steps:,} steps, ", end="")
        print(f"PyTorch {version('torch')}; guessing: {np.log(vocab_size):.3f}", flush=True)
        for seed in arguments.seed or [42]:
            config = replace(recipe, seed=seed, out_dir=str(folder / f"run{seed}"))
            print(f"  oelm-jobs, seed {seed}: validation loss {train_ours(config):.4f}", flush=True)
        if arguments.against is not None:
            print(f"  nanoGPT: validation loss {train_theirs(recipe, folder, arguments.against):.4f}")


if __name__ == "__main__":
    main()

"""How much processor time a sweep of RUNS runs takes to be resolved, named, fingerprinted and freed of equal ones.

Goal: under 2 s for 10,000.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from oelm_jobs.study.files import read_study
from oelm_jobs.study.plan import make_plan
from oelm_jobs.targets.files import LOCAL

RUNS, ROUNDS = 10_000, 5

TRAINER = """
factors = ["model_type"]
[train]
data_path = "data/x/train.bin"
vocab_size = 1024
d_model = 128
num_layers = 4
num_heads = 4
seq_len = 64
max_steps = 600
min_lr = 0.0
global_batch = 16
[groups]
gpt = { model_type = "gpt" }
oelm = { model_type = "oelm" }
"""
SCRIPT = """
factors = ["optimizer"]
[program]
command = "python train.py {settings} --seed={seed}"
[settings]
max_lr = 1e-3
warmup_steps = 10
[groups]
adam = { optimizer = "adam" }
sgd = { optimizer = "sgd" }
"""
SWEEP = f"""
[sweep]
method = "random"
run_cap = {RUNS // 2}
parameters.max_lr = {{ distribution = "log_uniform_values", min = 1e-5, max = 1e-2 }}
parameters.warmup_steps = {{ distribution = "int_uniform", min = 0, max = 100 }}
"""


def main() -> None:
    """Print the seconds of each kind of study: the median of the rounds, and their range."""
    with tempfile.TemporaryDirectory() as place:
        Path(place, "train.py").touch()
        for kind, text in (("built-in trainer", TRAINER), ("script", SCRIPT)):
            path = Path(place, "s.toml")
            path.write_text(text + SWEEP)
            seconds = []
            for _ in range(ROUNDS):
                begun = time.process_time()
                plan = make_plan(Path(place), read_study(path), replace(LOCAL, root=place), data_hash="0" * 64)
                seconds.append(time.process_time() - begun)
                assert len({run.name for run in plan.runs}) == len({run.fingerprint for run in plan.runs}) == RUNS
            print(f"{kind:<20}{statistics.median(seconds):6.2f} s  ({min(seconds):.2f} to {max(seconds):.2f})")


if __name__ == "__main__":
    main()

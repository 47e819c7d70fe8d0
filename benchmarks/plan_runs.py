"""How much processor time RUNS runs of a script take to be resolved, fingerprinted and rendered; goal: under 2 s for
10,000.

Nothing is sent: what is measured ends with the launch scripts, as the target would get them.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from oelm_jobs.code.snapshot import Snapshot
from oelm_jobs.connections import connect
from oelm_jobs.scripts.jobs import Scripts
from oelm_jobs.study.files import read_study
from oelm_jobs.study.plan import Mode, make_plan
from oelm_jobs.targets.files import LOCAL

RUNS, GROUPS, ROUNDS = 10_000, 10, 5

STUDY = """
factors = ["learning_rate"]
[program]
command = "python train.py {settings} --seed={seed} --out_dir={run_dir} {resume}"
resume = "--init_from=resume"
checkpoint = "ckpt.pt"
length = "max_iters"
[settings]
max_iters = 2000
batch_size = 12
block_size = 64
n_layer = 4
n_head = 4
n_embd = 128
dropout = 0.0
device = "cuda"
compile = false
[metrics]
lines = ["iter {step}: loss {loss}"]
goal = { loss = "minimize" }
[groups]
"""


def main() -> None:
    """Print the seconds of each part: the median of the rounds, and their range."""
    with tempfile.TemporaryDirectory() as place:
        project = Path(place)
        (project / "jobs").mkdir()
        (project / "train.py").touch()
        path = project / "jobs" / "many.toml"
        path.write_text(STUDY + "".join(f"g{i} = {{ learning_rate = {i + 1}e-4 }}\n" for i in range(GROUPS)))
        study = read_study(path)
        connection = connect(LOCAL, project)
        snapshot = Snapshot(files=(), rows=(), hash="0" * 16, size=0, held={}, train_code="0" * 16)
        taken: dict[str, list[float]] = {"resolved, fingerprinted": [], "rendered": [], "together": []}
        for _ in range(ROUNDS):
            begun = time.process_time()
            plan = make_plan(
                project, study, connection.resolved, seeds=range(RUNS // GROUPS), mode=Mode.PARALLEL, data_hash="0" * 64
            )
            resolved = time.process_time()
            made = Scripts(plan=plan, connection=connection, snapshot=snapshot, token="oelm-0")
            scripts = made.render(plan.runs)
            done = time.process_time()
            assert len(scripts) == len({run.fingerprint for run in plan.runs}) == RUNS
            for name, seconds in zip(taken, (resolved - begun, done - resolved, done - begun), strict=True):
                taken[name].append(seconds)
    for name, several in taken.items():
        print(f"{name:<24}{statistics.median(several):6.2f} s  ({min(several):.2f} to {max(several):.2f})")


if __name__ == "__main__":
    main()

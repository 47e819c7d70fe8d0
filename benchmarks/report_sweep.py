"""How fast the report of a sweep is made: 1,000 runs in 50 settings, read, judged, written, and with figures.

Goal: under 10 s with all files. CPU seconds stand beside wall seconds: on a busy machine they tell more.

    python benchmarks/report_sweep.py [--quick] [--records N]
"""

from __future__ import annotations

import argparse
import json
import math
import random
import tempfile
import time
from pathlib import Path

STUDY = """
question = "Which learning rate does each arm need?"
factors = ["freeze_qk"]
seeds = [{seeds}]
[train]
data_path = "data/train.bin"
model_type = "oelm"
vocab_size = 1024
d_model = 64
num_layers = 2
num_heads = 2
d_ff = 128
seq_len = 64
max_steps = {steps}
max_lr = 1e-3
warmup_steps = 10
global_batch = 16
[sweep]
method = "random"
run_cap = {settings}
parameters.max_lr = {{ distribution = "log_uniform_values", min = 1e-4, max = 1e-2 }}
parameters.warmup_steps = {{ values = [10, 20, 40] }}
[groups]
trained = {{ freeze_qk = false }}
frozen = {{ freeze_qk = true }}
[hypotheses]
H1 = {{ metric = "final_val_loss", group = "frozen", against = "trained", at_most_above = 0.05 }}
"""


def make(project: Path, settings: int, seeds: int, records: int) -> int:
    """Write a project with the finished runs of a sweep; return how many."""
    from dataclasses import replace

    from oelm_jobs.study.files import read_study
    from oelm_jobs.study.resolve import plan_runs
    from oelm_jobs.targets.files import LOCAL

    chance = random.Random(1)
    path = project / "jobs" / "sweep.toml"
    path.parent.mkdir(parents=True)
    words = {"settings": settings, "seeds": ", ".join(map(str, range(seeds))), "steps": records}
    path.write_text(STUDY.format(**words))
    runs = plan_runs(read_study(path), replace(LOCAL, root=str(project)), data_hash="d")
    for run in runs:
        folder = Path(run.run_dir)
        (folder / ".oelm").mkdir(parents=True)
        floor = 3 + 0.2 * (math.log10(run.settings["max_lr"]) + 3) ** 2
        lines = []
        for step in range(1, records + 1):
            loss = floor + 5 * math.exp(-8 * step / records) + chance.gauss(0, 0.02)
            line = {"step": step, "tokens": step * 1024, "time": 1.7e9 + step, "loss": loss, "lr": 1e-3,
                    "grad_norm": 0.9, "tokens_per_s": 45_000.0}  # fmt: skip
            if step % max(records // 20, 1) == 0:
                line |= {"val_loss": loss, "val_tokens": 80_000, "val_full": step == records}
            lines.append(json.dumps(line))
        (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
        own = {"run": run.name, "study": run.study, "group": run.group, "label": run.label, "seed": run.seed,
               "tag": run.tag, "fingerprint": run.fingerprint, "target": "local", "factors": dict(run.factors),
               "train": dict(run.settings), "world_size": 1, "global_batch": 16}  # fmt: skip
        (folder / ".oelm" / "run.json").write_text(json.dumps(own))
        outcome = {"status": "completed", "step": records, "max_steps": records, "tokens_per_s": 45_000.0,
                   "final": {"step": records, "val_loss": loss, "val_full": True},
                   "hardware": {"device": "cpu", "name": "cpu", "host": "h"}, "world_size": 1, "global_batch": 16,
                   "data": {"train_sha256": "d", "val_sha256": "d"}, "versions": {"torch": "2.6"}}  # fmt: skip
        result = {**own, "version": 1, "status": "DONE", "elapsed_hours": 0.1, "gpu_hours": 0.1, "outcome": outcome}
        (folder / "experiment_result.json").write_text(json.dumps(result))
    return len(runs)


def main() -> None:
    """Make the runs, then time each part of their report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer runs, to see that it works")
    parser.add_argument("--records", type=int, default=200, help="logged steps of each run")
    chosen = parser.parse_args()
    settings, seeds = (5, 2) if chosen.quick else (50, 10)
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        count = make(project, settings, seeds, chosen.records)
        print(f"{count} runs in {settings} settings, {chosen.records} records each")
        from oelm_jobs.reporting import report_on

        wall = [time.perf_counter()]
        cpu = [time.process_time()]

        def tell(what: str) -> None:
            wall.append(time.perf_counter())
            cpu.append(time.process_time())
            print(f"{what:<28}{wall[-1] - wall[-2]:7.1f} s {cpu[-1] - cpu[-2]:7.1f} s of a processor")

        report = report_on(project, "sweep")
        tell("read")
        assert len(report.report.swept) == 2 * settings
        tell("audit, verdicts, tables")
        report.show("text", width=100)
        tell("text")
        report.write()
        tell("files")
        print(
            f"{'together':<28}{wall[-1] - wall[0]:7.1f} s {cpu[-1] - cpu[0]:7.1f} s of a processor  (goal: under 10 s)"
        )
        report.write(plot=True)
        tell("figures, and files again")


if __name__ == "__main__":
    main()

"""How fast the report is made and logs are read, and in how much memory; each case in a process of its own.

Goals: 15 runs of 100,000 logged steps with plots under 12 s; 1,000 runs of 1,000 records under 60 s and 1 GB; a 2 GB
log in constant memory at 30 MB/s where every line counts and 100 MB/s where it is progress bars. CPU seconds stand
beside wall seconds: on a busy machine they tell more.

    python benchmarks/report.py [--quick] [CASE...]        cases: plots, runs, plain, equals, stamped, bars
"""

from __future__ import annotations

import argparse
import json
import math
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

GROUPS = {
    "gpt_base": {"model_type": "gpt"},
    "oelm_no_freeze": {"model_type": "oelm", "freeze_qk": False},
    "oelm_freeze": {"model_type": "oelm", "freeze_qk": True},
}
LOGS = ("plain", "equals", "stamped", "bars")
GOALS = {
    "plots": "under 12 s",
    "runs": "under 60 s and 1 GB",
    "plain": "30 MB/s, constant memory",
    "equals": "30 MB/s, constant memory",
    "stamped": "30 MB/s, constant memory",
    "bars": "100 MB/s, constant memory",
}


def make_runs(root: Path, seeds: int, records: int) -> None:
    """Write finished runs of the three groups with one record a step."""
    chance = random.Random(1)
    for group, factors in GROUPS.items():
        for seed in range(seeds):
            folder = root / f"exp_{group}-s{seed}"
            folder.mkdir(parents=True)
            with (folder / "metrics.jsonl").open("w") as out:
                for step in range(1, records + 1):
                    loss = 1.5 + 9 * math.exp(-step / (records / 8)) + chance.gauss(0, 0.05)
                    line = {
                        "step": step,
                        "tokens": step * 8192,
                        "time": 1.7e9 + step * 0.18,
                        "loss": loss,
                        "lr": 3e-4 * (1 - step / records / 2),
                        "grad_norm": 0.9312345,
                        "tokens_per_s": 45_000 + chance.random() * 1000,
                        "gpu_mem_gb": 3.1,
                    }
                    if step % max(records // 100, 1) == 0:
                        line |= {"val_loss": loss, "val_tokens": 819_200, "val_full": step == records}
                    out.write(json.dumps(line) + "\n")
            train = {
                "d_model": 512,
                "num_layers": 6,
                "d_ff": 2048,
                "seq_len": 512,
                "max_steps": records,
                "seed": seed,
                **factors,
            }
            outcome = {
                "status": "completed",
                "step": records,
                "max_steps": records,
                "tokens_per_s": 45_000.0 + seed,
                "world_size": 1,
                "global_batch": 16,
                "final": {"step": records, "val_loss": loss, "val_full": True},
                "hardware": {"name": "A5000", "host": "h"},
                "parameters": {
                    "total": 44_896_768,
                    "trainable": 44_896_768,
                    "frozen": 0,
                    "qk": 3_145_728,
                    "embedding": 25_993_728,
                },
            }
            result = {
                "version": 1,
                "study": "bench",
                "run": f"{group}-s{seed}",
                "group": group,
                "seed": seed,
                "status": "DONE",
                "world_size": 1,
                "global_batch": 16,
                "train": train,
                "factors": factors,
                "outcome": outcome,
                "gpu_hours": 5.0,
                "elapsed_hours": 5.0,
            }
            (folder / "experiment_result.json").write_text(json.dumps(result))


def make_log(path: Path, kind: str, megabytes: int) -> None:
    """Write a log of one dialect; a hundred megabytes are made up and repeated with rising steps in between."""
    with path.open("wb") as out:
        for text in pieces(kind):
            out.write(text)
            if out.tell() >= megabytes * 1_000_000:
                return


def pieces(kind: str) -> Iterator[bytes]:
    """Yield the log in pieces of a few hundred kilobytes, for ever."""
    chance, step = random.Random(2), 0
    while True:
        lines = []
        for _ in range(5_000):
            step += 1 if kind == "bars" else 100
            loss = 3 + chance.random()
            plain = f"Step {step:6d} | Loss: {loss:.4f} | PPL: {math.exp(loss):.2f} | LR: 1.23e-04\n"
            if kind == "plain":
                lines.append(plain)
            elif kind == "stamped":
                lines.append("2024-05-01 10:00:00,123 - INFO - " + plain)
            elif kind == "equals":
                lines.append(f"Step {step} | loss={loss:.4f} | ppl={math.exp(loss):.1f}\n")
            else:
                lines.append(
                    f"\rTraining: 10%|███████▌     | {step}/9999999 [00:10<10:00, 5.55it/s, loss={loss:.3f}, ppl=1.03]"
                )
                if step % 100 == 0:
                    lines.append("\n" + plain)
            if step % 1_000 == 0 and kind != "bars":
                lines.append(f"  Validation | Loss: {loss:.4f} | PPL: {math.exp(loss):.2f}\n")
        yield "".join(lines).encode()


def run_case(case: str, folder: Path) -> None:
    """Do one case and print a line with what it took (this is the child process)."""
    wall, cpu = time.perf_counter(), time.process_time()
    size = 0
    if case in LOGS:
        from oelm_jobs.analysis.reading.logs import Log

        path = folder / "training.log"
        log = Log()
        log.read(path)
        columns = log.train.finish()
        assert columns is not None and log.not_understood == 0
        size = path.stat().st_size
    else:
        from oelm_jobs.analysis import figures
        from oelm_jobs.analysis.output import writing
        from oelm_jobs.analysis.reading import loading
        from oelm_jobs.analysis.report import build

        study, runs = loading.load_folders([folder], [], None, at=1.8e9)
        report = build(study, runs)
        drawn = figures.draw(report, "en", folder / "out")[0] if case == "plots" else []
        writing.write(report, folder / "out", drawn, summary=None, made_at=1.8e9)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rate = f", {size / 1e6 / wall:.0f} MB/s ({size / 1e6 / cpu:.0f} MB per CPU second)" if size else ""
    print(f"{case:8} {wall:7.1f} s wall {cpu:7.1f} s CPU {peak:7.0f} MB peak{rate}   goal: {GOALS[case]}", flush=True)


def main() -> None:
    """Make each case's input, then do the case in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(GOALS))
    parser.add_argument("--quick", action="store_true", help="a twentieth of the size")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    for case in arguments.cases:
        if case not in GOALS:
            parser.error(f"{case}: no such case; valid: {', '.join(GOALS)}")
    if arguments.child:
        run_case(arguments.child[0], Path(arguments.child[1]))
        return
    share = 20 if arguments.quick else 1
    for case in arguments.cases or GOALS:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            if case == "plots":
                make_runs(folder, 5, 100_000 // share)
            elif case == "runs":
                make_runs(folder, 334 // share, 1_000)
            else:
                make_log(folder / "training.log", case, 2_000 // share)
            subprocess.run([sys.executable, __file__, "--child", case, name], check=True)


if __name__ == "__main__":
    main()

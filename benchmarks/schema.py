"""What comparing the answer about 10,000 runs with its schema takes, against reading its JSON alone: both in one run,
in turn, as a ratio with its spread.

Goal: nothing that a status notices: under 0.1 s, a tenth of what it may take.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

from oelm_jobs.agent import schema, verbs

RUNS, ROUNDS = 10_000, 21


def main() -> None:
    """Print both times and their ratio."""
    dirs = [f"/home/user/oelm/models/checkpoints/study/exp_group-s{number}" for number in range(RUNS)]
    row = {
        "state": "RUNNING", "reason": "", "token": "oelm-0123456789abcdef", "devices": ["gpu:0"], "attempt": 1,
        "started_at": 1.7e9, "job": "123_4", "step": 500, "max_steps": 1000, "loss": 2.5, "val_loss": 2.6,
        "tokens_per_s": 8158.0, "heartbeat_at": 1.7e9,
    }  # fmt: skip
    answer = json.dumps({"host": "box", "time": 1.7e9, "runs": dict.fromkeys(dirs, row)})
    request = {"run_dirs": dirs}
    assert verbs.wrong_answer("probe", request, json.loads(answer)) is None
    read, checked = [], []
    for _ in range(ROUNDS):
        read.append(seconds(lambda: json.loads(answer)))
        content = schema.loads(answer)
        checked.append(seconds(lambda content=content: verbs.wrong_answer("probe", request, content)))
    ratios = sorted(each / alone for each, alone in zip(checked, read, strict=True))
    print(f"{RUNS:,} runs, {len(answer) / 1e6:.1f} MB, {ROUNDS} rounds in turn")
    print(f"  reading the JSON   {statistics.median(read) * 1e3:6.1f} ms")
    print(f"  comparing it       {statistics.median(checked) * 1e3:6.1f} ms")
    print(f"  ratio              {statistics.median(ratios):6.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")


def seconds(work: Callable[[], object]) -> float:
    """Return the CPU time that some work takes."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


if __name__ == "__main__":
    main()

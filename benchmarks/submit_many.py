"""How long submitting 1,000 runs of a cheap command takes; a status of 10,000 runs.

Goals: under 5 s; a status of 10,000 stored runs under 1 s beyond start-up (``--help``) in under 150 MB.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from oelm_jobs.agent import rundir

RUNS, STORED, ROUNDS = 1_000, 10_000, 3

STUDY = """
factors = ["model_type"]
seeds = [0]
[train]
data_path = "train.bin"
vocab_size = 64
global_batch = 1
d_model = 16
num_heads = 2
num_layers = 1
d_ff = 64
[groups.gpt]
model_type = "gpt"
"""

SCRIPT = "#!/usr/bin/env bash\nexec true\n"


def submit(place: Path, number: int, *options: str) -> float:
    """Return the seconds that one submission of RUNS runs takes, as a whole process."""
    project = place / f"project-{number}"
    (project / "jobs").mkdir(parents=True)
    (project / "templates").mkdir()
    (project / "jobs" / "s.toml").write_text(STUDY)
    (project / "templates" / "launch.sh.j2").write_text(SCRIPT)
    for name in ("train.bin", "val.bin"):
        (project / name).write_bytes(b"\1\0" * 1000)
    argv = [
        sys.executable,
        "-c",
        "from oelm_jobs.cli.submit import main; main()",
        "--study",
        "s",
        "--num-seeds",
        str(RUNS),
        *options,
    ]
    begun = time.perf_counter()
    subprocess.run(argv, cwd=project, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begun


def stored_status(place: Path) -> tuple[float, float, float]:
    """Return (seconds of a status of STORED runs, of --help, peak memory in MB of the larger)."""
    from oelm_jobs.agent.states import State
    from oelm_jobs.spec.study import Run
    from oelm_jobs.store import Store

    project = place / "stored"
    (project / "jobs").mkdir(parents=True)
    (project / "jobs" / "s.toml").write_text(STUDY)
    train = {f"key_{i}": i for i in range(40)} | {"max_steps": 1000, "seq_len": 64}
    runs = [
        Run(
            name=f"g{i % 3}-s{i}",
            study="s",
            group=f"g{i % 3}",
            label="g",
            seed=i,
            tag="",
            target="local",
            gpus=1,
            port=None,
            run_dir=str(project / f"exp_{i}"),
            global_batch=16,
            factors={},
            settings=train,
            max_retries=0,
            fingerprint="f" * 64,
        )
        for i in range(STORED)
    ]
    with Store() as store:
        store.intend(project, "local", str(project), "stored", "{}", runs, lambda known: None)
        store.answer("stored", "accepted", states={run.run_dir: (State.DONE, "") for run in runs})
    seconds = []
    for arguments in ([], ["--help"]):
        argv = [sys.executable, "-c", "from oelm_jobs.cli.status import main; main()", *arguments]
        begun = time.perf_counter()
        process = subprocess.Popen(argv, cwd=project, stdout=subprocess.DEVNULL)
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = 0
        seconds.append(time.perf_counter() - begun)
        if not arguments:
            memory = usage.ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)
    return seconds[0], seconds[1], memory


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "leases").mkdir()
        os.environ.update(OELM_STATE_DIR=str(place / "state"), OELM_LEASE_DIR=str(place / "leases"))
        took = []
        for number in range(ROUNDS):
            took.append(submit(place, number))
            claims = list((place / f"project-{number}").rglob(f"{rundir.CONTROL}/{rundir.CLAIM}"))
            while any(map(rundir.is_locked, claims)):  # what waits is started one after the other
                time.sleep(1)
        spread = f"{min(took):.2f} to {max(took):.2f}"
        print(f"submitting {RUNS} runs: {statistics.median(took):.2f} s ({spread}; goal under 5)")
        status, start_up, memory = stored_status(place)
        print(
            f"oelm-status of {STORED} stored runs: {status:.2f} s, start-up {start_up:.2f} s, beyond it"
            f" {status - start_up:.2f} s (goal under 1); {memory:.0f} MB (goal under 150)"
        )


if __name__ == "__main__":
    main()

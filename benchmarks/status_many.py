"""What a status of 10,000 runs over three targets takes besides start-up and the round trips.

The targets: this machine, a server behind SSH on loopback, and the two-node Slurm of the tests; every run is asked for.
The round trips are what the targets' own agents and the way to them take, and parsing the JSON that came over SSH (some
7 ms); checking the answers, and all the rest, is ours. Goal: under 0.3 s. Needs root, sshd and Slurm.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import slurm as slurm_bench  # beside this file
import ssh as ssh_bench

from tests.slurm.testbed import Testbed
from tests.ssh.testbed import Client, Host, running

RUNS, ROUNDS = 10_000, 11

TIMED_STATUS = """
import atexit, sys, time
from oelm_jobs.agent import verbs
from oelm_jobs.cli.status import main
from oelm_jobs.connections import answers
from oelm_jobs.runs import observe
took = {"asking": 0.0, "reading": 0.0}
def timed(module, name, what):
    inner = getattr(module, name)
    def outer(*args, **more):
        begun = time.perf_counter()
        try:
            return inner(*args, **more)
        finally:
            took[what] += time.perf_counter() - begun
    setattr(module, name, outer)
timed(observe, "_poll", "asking")
timed(answers, "read", "reading")
timed(verbs, "wrong_answer", "reading")
atexit.register(lambda: print(took["asking"] - took["reading"], file=sys.stderr))
main()  # ends the process
"""


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="oelm-bench-") as folder:
        place = Path(folder)
        client, host = Client(place / "laptop"), Host(place=place / "box", name="box", gpus=4)
        os.environ.update(XDG_CONFIG_HOME=f"{place}/config", XDG_RUNTIME_DIR="", OMP_NUM_THREADS="1")
        os.environ["PATH"] = f"{client.place / 'bin'}:{os.environ['PATH']}"
        with running(host, client=client), Testbed(place / "bed", max_array_size=1001) as cluster:
            client.knows(host)
            os.environ.update(cluster.environment)
            os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
            os.environ.update(OELM_STATE_DIR=f"{place}/state", XDG_CACHE_HOME=f"{place}/cache")
            measure(place, host)


def measure(place: Path, host: Host) -> None:
    """Make the runs, look at them, and print what it took."""
    project, each = slurm_bench.make_project(place, "project"), RUNS // 3
    with (project / "jobs" / "targets.toml").open("a") as file:
        file.write(f'[box]\nkind = "ssh"\nhost = "box"\npython = "{sys.executable}"\n')
    roots = {"box": host.home() / "oelm", "local": project}
    for target, root in roots.items():
        make = [sys.executable, "-c", ssh_bench.MAKE_RUNS, str(project), str(root), target, str(each), target]
        subprocess.run(make, check=True, cwd=ssh_bench.REPOSITORY)
    waiting = RUNS - each * len(roots)
    submit = slurm_bench.oelm("submit", "--study", "s", "--target", "cluster", "--num-seeds", str(waiting))
    subprocess.run([*submit, "--mode", "parallel"], cwd=project, check=True, capture_output=True)
    for control in [path for root in roots.values() for path in root.glob("models/checkpoints/*/*/.oelm")]:
        shutil.rmtree(control)  # nothing says what became of them: they are asked for again and again
    listed = subprocess.run(slurm_bench.oelm("status", "--json"), cwd=project, check=True, capture_output=True)
    states = Counter(run["state"] for run in json.loads(listed.stdout)["runs"])
    assert states == {"UNKNOWN": each * len(roots), "QUEUED": waiting}, states
    rest, total, started = [], [], []
    for number in range(ROUNDS + 1):
        started.append(slurm_bench.timed(slurm_bench.oelm("status", "--help"), project)[0])
        begun = time.perf_counter()
        argv = [sys.executable, "-c", TIMED_STATUS]
        done = subprocess.run(argv, cwd=project, check=True, capture_output=True, text=True)
        took = time.perf_counter() - begun
        if number:
            total.append(took)
            rest.append(took - started[-1] - float(done.stderr))
    print(
        f"status of {RUNS:,} runs over three targets: {ssh_bench.spread(total)} s, start-up"
        f" {statistics.median(started):.2f} s; besides it and the round trips {ssh_bench.spread(rest)} s"
        f" ({ROUNDS} looks; goal: under 0.3)"
    )


if __name__ == "__main__":
    main()

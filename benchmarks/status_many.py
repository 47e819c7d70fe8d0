"""What a status of 10,000 runs over three targets takes besides start-up and the round trips.

The targets: this machine, a server behind SSH on loopback, and the two-node Slurm of the tests; every run is asked for.
The round trips are what the targets' own agents and the way to them take; parsing and checking the answers, and all the
rest, is ours. It is told in processor time, since wall time depends on what else the machine does, and in wall time.
Goal: under 0.3 s. Needs root, sshd and Slurm.
"""

from __future__ import annotations

import json
import os
import shutil
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
CLOCKS = (time.thread_time, time.perf_counter)
took = {"asking": [0.0, 0.0], "reading": [0.0, 0.0], "side by side": [0.0, 0.0]}
def timed(inner, what):
    def outer(*args, **more):
        begun = [clock() for clock in CLOCKS]
        try:
            return inner(*args, **more)
        finally:
            for number, clock in enumerate(CLOCKS):
                took[what][number] += clock() - begun[number]
    return outer
answers.read, verbs.wrong_answer = timed(answers.read, "reading"), timed(verbs.wrong_answer, "reading")
side_by_side = observe.side_by_side
observe.side_by_side = timed(lambda ask, names: side_by_side(timed(ask, "asking"), names), "side by side")
def tell():
    reading = took["reading"]
    ours = time.process_time() - took["asking"][0] + reading[0]
    print(ours, took["side by side"][1] - reading[1], file=sys.stderr)
atexit.register(tell)
main()  # ends the process
"""
HELP = """
import atexit, sys, time
from oelm_jobs.cli.status import main
atexit.register(lambda: print(time.process_time(), file=sys.stderr))
main()
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
    figures: dict[str, list[float]] = {what: [] for what in ("total", "start-up", "processor", "wall")}
    for number in range(ROUNDS + 1):
        start_up, said = look(project, HELP, "--help")
        start_up_cpu = float(said)
        total, said = look(project, TIMED_STATUS)
        ours, asking = map(float, said.split())
        if number:
            row = (total, start_up, ours - start_up_cpu, total - start_up - asking)
            for values, value in zip(figures.values(), row, strict=True):
                values.append(value)
    told = {what: ssh_bench.spread(values) for what, values in figures.items()}
    print(
        f"status of {RUNS:,} runs over three targets: {told['total']} s, start-up {told['start-up']} s; besides it and"
        f" the round trips {told['processor']} s of a processor, {told['wall']} s by the clock"
        f" ({ROUNDS} looks; goal: under 0.3)"
    )


def look(project: Path, program: str, *arguments: str) -> tuple[float, str]:
    """Return how long a status takes, and what the program says on stderr."""
    begun = time.perf_counter()
    argv = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(argv, cwd=project, check=True, capture_output=True, text=True)
    return time.perf_counter() - begun, done.stderr


if __name__ == "__main__":
    main()

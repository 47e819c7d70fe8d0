"""How long 1,000 runs take to submit to a real Slurm, against submitit's own map_array of 1,000 functions, and what a
status of 10,000 runs takes besides squeue: while they wait, and once they left the queue and accounting is asked.

Both sides in one run, each as a whole process, on the two-node Slurm of the tests (tests/slurm/testbed.py: run it as
root). Nothing is executed: all jobs begin in an hour. Goals: at most 1.2 times submitit, one sbatch for each array; one
squeue and no more sacct than needed for the status, and under 1 s besides these and start-up.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from submit_many import STUDY  # beside this file

from tests.slurm.testbed import Testbed

RUNS, STORED, ROUNDS = 1_000, 10_000, 11
MIN_JOB_AGE_S, FORGOTTEN_S = 10, 90
"""How long slurmctld keeps jobs that ended, and after which time it has dropped them for sure."""
QUIET_S = 3
"""Seconds after a round's jobs were cancelled, in which slurmctld, on the same processors, forgets them."""

TARGET = """
[cluster]
kind = "slurm"
poll_s = 0
[cluster.sbatch]
begin = "now+1hour"
"""
SUBMITIT = """
import submitit
executor = submitit.SlurmExecutor("submitit")
executor.update_parameters(array_parallelism=1000, additional_parameters={"begin": "now+1hour"})
jobs = executor.map_array(abs, range(1000))
assert len(jobs) == 1000
"""


def make_project(place: Path, name: str) -> Path:
    """Return a project with one group of a tiny model."""
    project = place / name
    (project / "jobs").mkdir(parents=True)
    (project / "jobs" / "s.toml").write_text(STUDY)
    (project / "jobs" / "targets.toml").write_text(TARGET)
    content = b"\1\0" * 1000
    row = {"tokens": 1000, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest = {
        "version": 1, "tokenizer": {"name": "none", "vocab_size": 64, "eot": 63}, "dtype": "uint16", "source": [],
        "split": {"val_fraction": 0.5, "unit": "document"}, "files": {"train.bin": row, "val.bin": row},
    }  # fmt: skip
    for file in manifest["files"]:
        (project / file).write_bytes(content)
    (project / "manifest.json").write_text(json.dumps(manifest))
    return project


def count_calls(place: Path) -> None:
    """Put commands that log their calls in front of Slurm's own."""
    folder = place / "bin"
    folder.mkdir()
    for command in ("sbatch", "squeue", "sacct"):
        text = (
            f'#!/bin/bash\nbegun=$EPOCHREALTIME\n/usr/bin/{command} "$@"; code=$?\n'
            f"echo {command} $begun $EPOCHREALTIME >> {place}/calls\nexit $code\n"
        )
        (folder / command).write_text(text)
        (folder / command).chmod(0o755)
    os.environ["PATH"] = f"{folder}:{os.environ['PATH']}"


def calls(place: Path) -> dict[str, int]:
    """Return how often each command was called since the last call."""
    return {command: len(took) for command, took in seconds_of_calls(place).items()}


def seconds_of_calls(place: Path) -> dict[str, list[float]]:
    """Return by command how long each call since the last one took."""
    path = place / "calls"
    found: dict[str, list[float]] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        command, begun, ended = line.split()
        found.setdefault(command, []).append(float(ended) - float(begun))
    path.unlink(missing_ok=True)
    return dict(sorted(found.items()))


def timed(argv: list[str], folder: Path) -> tuple[float, float]:
    """Return (seconds, processor seconds) that a process and its children take."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(argv, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    took, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def middle(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    """Return the medians of seconds and of processor time."""
    return statistics.median(took for took, _ in pairs), statistics.median(used for _, used in pairs)


def spread(ratios: list[float]) -> str:
    """Return the median of ratios and their range."""
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def oelm(command: str, *arguments: str) -> list[str]:
    """Return the argv of a command of the toolkit."""
    return [sys.executable, "-c", f"from oelm_jobs.cli.{command} import main; main()", *arguments]


def main() -> None:
    """Measure, and print what was found against the goals."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Testbed(Path(folder) / "bed", max_array_size=1001, min_job_age=MIN_JOB_AGE_S) as cluster,
    ):
        place = Path(folder)
        os.environ.update(cluster.environment)
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # nobody's commands are compiled anew each time
        os.environ.update(OELM_STATE_DIR=f"{place}/state", XDG_CACHE_HOME=f"{place}/cache", OMP_NUM_THREADS="1")
        count_calls(place)
        submit = oelm("submit", "--study", "s", "--target", "cluster", "--mode", "parallel", "--num-seeds", str(RUNS))
        sides: dict[str, list[tuple[float, float]]] = {"ours": [], "theirs": []}
        sent = {}
        for number in range(-1, ROUNDS):  # the first round fills caches and does not count
            project, other = make_project(place, f"project-{number}"), place / f"other-{number}"
            other.mkdir()
            steps = [("ours", submit, project), ("theirs", [sys.executable, "-c", SUBMITIT], other)]
            for side, argv, cwd in steps if number % 2 else reversed(steps):
                took = timed(argv, cwd)
                sent[side] = calls(place).get("sbatch")
                if number >= 0:
                    sides[side].append(took)
            cluster.run("scancel", "--user=root")
            time.sleep(QUIET_S)
        mine, its = middle(sides["ours"]), middle(sides["theirs"])
        pairs = list(zip(*sides.values(), strict=True))
        ratio, of_time = (spread([ours[which] / theirs[which] for ours, theirs in pairs]) for which in (0, 1))
        print(
            f"{RUNS:,} runs as arrays: {mine[0]:.2f} s ({mine[1]:.2f} s of processor time), {sent['ours']} sbatch;"
            f" submitit map_array: {its[0]:.2f} s ({its[1]:.2f} s), {sent['theirs']} sbatch;\n"
            f"  ratio {ratio}, of processor time {of_time} ({ROUNDS} pairs, load {os.getloadavg()[0]:.1f}; goal: at"
            f" most 1.2)"
        )
        project = make_project(place, "many")
        submit = oelm("submit", "--study", "s", "--target", "cluster", "--mode", "parallel", "--num-seeds", str(STORED))
        took = timed(submit, project)[0]
        print(f"{STORED:,} runs as arrays: {took:.2f} s; {calls(place).get('sbatch')} sbatch")
        timed(oelm("status"), project)
        start_up = middle([timed(oelm("status", "--help"), project) for _ in range(ROUNDS)])[0]
        report("waiting", [look(place, project) for _ in range(ROUNDS)], start_up)
        cluster.run("scancel", "--user=root")
        time.sleep(FORGOTTEN_S)
        assert not cluster.run("squeue", "--noheader", "--states=all"), "slurmctld has forgotten them"
        index = place / "state" / "runs.sqlite3"
        before, looks = index.read_bytes(), []
        for _ in range(ROUNDS):
            index.write_bytes(before)
            os.sync()  # or the status would write this copy to disk, too
            looks.append(look(place, project))
        report("gone from the queue", looks, start_up)


def look(place: Path, project: Path) -> tuple[float, dict[str, list[float]]]:
    """Return the seconds of an oelm-status, and of each call that it made."""
    calls(place)
    return timed(oelm("status"), project)[0], seconds_of_calls(place)


def report(what: str, looks: list[tuple[float, dict[str, list[float]]]], start_up: float) -> None:
    """Print what a status took besides start-up and Slurm's own commands."""
    rest = sorted(took - start_up - sum(map(sum, made.values())) for took, made in looks)
    commands = ", ".join(
        f"{len(took)} {command} {statistics.median(sum(made[command]) for _, made in looks):.2f} s"
        for command, took in looks[-1][1].items()
    )
    print(
        f"status of {STORED:,} runs {what}: {statistics.median(took for took, _ in looks):.2f} s, of that start-up"
        f" {start_up:.2f} s, {commands}; the rest {statistics.median(rest):.2f} s ({rest[0]:.2f} to {rest[-1]:.2f},"
        f" {ROUNDS} looks; goal: under 1)"
    )


if __name__ == "__main__":
    main()

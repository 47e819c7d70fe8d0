"""How fast a GPU server behind SSH is used, against the bare tools, side by side in one run, on a server on loopback.

    python benchmarks/ssh.py [--rounds 7] [--megabytes 1000] [--only submit,status,fetch]

Goals: submitting three groups takes at most 3 s more than as many times ``ssh HOST true`` as it has round trips, and
at most 6 of them; ``oelm-status`` of 100 runs has one, and takes at most 1.3 x ``ssh HOST true`` + 0.3 s; fetching and
verifying 1 GB has at least 0.9 x the throughput of ``rsync -a -e ssh``; fetching again with nothing new takes at most
1.5 x rsync. Round trips are counted by the server's own log. Needs root and sshd.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from tests.ssh.testbed import Client, Host, running  # noqa: E402
from tests.support import TINY_STUDY, write_tokens  # noqa: E402

WAYS = ("fabric", "openssh")

MAKE_RUNS = """
import json, sys, time
from pathlib import Path
from oelm_jobs.agent import processes, rundir
from oelm_jobs.agent.states import State
from oelm_jobs.store import Store
from tests.support import make_run
project, root, target, count = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
study = token = sys.argv[5]
now = time.time()
runs = []
for i in range(count):
    name = f"g{i % 3}-s{i}"
    run_dir = root / "models" / "checkpoints" / study / f"exp_{name}"
    train = {"max_steps": 1000, "seq_len": 16}
    runs.append(make_run(root, name, study=study, target=target, run_dir=str(run_dir), settings=train))
    control = rundir.control(run_dir, "")
    control.mkdir(parents=True, exist_ok=True)
    identity = dict(processes.identify(1).to_json(), token=token)
    end = {"state": "DONE", "reason": "", "token": token, "ended_at": now, "attempts": [{"number": 1}]}
    (control / "claim").write_text(json.dumps(identity))
    (control / "start.json").write_text(json.dumps(dict(identity, number=1, started_at=now, devices=["gpu:0"])))
    (control / "end.json").write_text(json.dumps(end))
    (run_dir / "heartbeat.json").write_text(json.dumps({"step": 900, "max_steps": 1000, "loss": 3.5, "time": now}))
    (run_dir / "metrics.jsonl").write_text('{"step": 1, "val_loss": 3.6}\\n' * 300)
with Store() as store:
    store.intend(project, target, str(root), token, "{}", runs, lambda known: None)
    store.answer(token, "accepted", states={run.run_dir: (State.QUEUED, "") for run in runs})
"""


def seconds(argv: list[str], cwd: Path) -> float:
    """Return the wall time of one whole process."""
    begun = time.perf_counter()
    done = subprocess.run(argv, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    took = time.perf_counter() - begun
    if done.returncode:
        raise SystemExit(f"{argv}: {done.stderr.decode()}")
    return took


def oelm(name: str, *arguments: str) -> list[str]:
    """Return the argv of a command of the toolkit."""
    return [sys.executable, "-c", f"from oelm_jobs.cli.{name} import main; main()", *arguments]


def spread(values: list[float], digits: int = 2) -> str:
    """Return median and range."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


class Bench:
    """A laptop, a server and a project."""

    def __init__(self, place: Path, rounds: int) -> None:
        self.place, self.rounds = place, rounds
        self.client = Client(place / "laptop")
        self.host = Host(place=place / "box", name="box", gpus=4)
        self.project = place / "project"
        (self.project / "jobs").mkdir(parents=True)
        (self.project / "jobs" / "tiny.toml").write_text(TINY_STUDY)
        shutil.copytree(REPOSITORY / "train", self.project / "train", ignore=shutil.ignore_patterns("__pycache__"))
        for way in WAYS:
            keys = {"kind": "ssh", "host": "box", "root": way, "python": sys.executable, "connection": way}
            with (self.project / "jobs" / "targets.toml").open("a") as file:
                file.write(f"[{way}]\n" + "".join(f'{key} = "{value}"\n' for key, value in keys.items()))
        for way in WAYS:
            write_tokens(self.host.home() / way / "data" / "tiny" / "train.bin", 4000, 64)
            write_tokens(self.host.home() / way / "data" / "tiny" / "val.bin", 800, 64)

    def state(self, name: str) -> None:
        """Let the commands use a fresh state folder."""
        os.environ["OELM_STATE_DIR"] = str(self.place / "state" / name)

    def bare(self) -> float:
        """Return the seconds of ``ssh HOST true``."""
        return seconds(["ssh", "box", "true"], self.project)

    @contextmanager
    def trips(self) -> Iterator[list[int]]:
        """Count the commands that the server runs meanwhile."""
        before, counted = self.host.commands(), [0]
        yield counted
        counted[0] = self.host.commands() - before

    # Cases ------------------------------------------------------------------------------------------------------------

    def submit(self, way: str) -> None:
        """Three groups, queued; each round with other seeds."""
        extra, counts = [], []
        self.state(f"submit-{way}")
        for number in range(self.rounds + 1):
            argv = oelm(
                "submit", "--study", "tiny", "--target", way, "--seeds", str(100 + number), "--mode", "parallel"
            )
            with self.trips() as counted:
                took = seconds(argv, self.project)
            alone = [self.bare() for _ in range(counted[0])]
            if number:
                extra.append(took - sum(alone))
                counts.append(counted[0])
            seconds(oelm("cancel", "--all", "--yes"), self.project)
        print(
            f"submit, 3 groups, {way:<8} {spread(extra)} s more than its round trips (goal at most 3),"
            f" {max(counts)} round trips (goal at most 6)"
        )

    def status(self, way: str) -> None:
        """A hundred runs that are asked for."""
        self.state(f"status-{way}")
        root = self.host.home() / way
        make = [sys.executable, "-c", MAKE_RUNS, str(self.project), str(root), way, "100", "tiny"]
        subprocess.run(make, check=True, cwd=REPOSITORY)
        saved = self.place / "saved"
        shutil.rmtree(saved, ignore_errors=True)
        shutil.copytree(os.environ["OELM_STATE_DIR"], saved)
        over, times, alone = [], [], []
        for number in range(self.rounds + 1):
            shutil.rmtree(os.environ["OELM_STATE_DIR"])
            shutil.copytree(saved, os.environ["OELM_STATE_DIR"])
            bare = self.bare()
            with self.trips() as counted:
                took = seconds(oelm("status"), self.project)
            if number:
                over.append(took - 1.3 * bare)
                times.append(took)
                alone.append(bare)
        print(
            f"status, 100 runs, {way:<8} {spread(times)} s, ssh HOST true {spread(alone)} s:"
            f" 1.3 x it + {spread(over)} s (goal at most 0.3), {counted[0]} round trip (goal 1)"
        )

    def fetch(self, way: str, megabytes: int) -> None:
        """One large checkpoint, and nothing new."""
        self.state(f"fetch-{way}")
        root = self.host.home() / way
        make = [sys.executable, "-c", MAKE_RUNS, str(self.project), str(root), way, "1", "tiny"]
        subprocess.run(make, check=True, cwd=REPOSITORY)
        run_dir = root / "models" / "checkpoints" / "tiny" / "exp_g0-s0"
        checkpoint = run_dir / "best_model.pt"
        with open(checkpoint, "wb") as file:
            for _ in range(megabytes):
                file.write(os.urandom(1_000_000))
        files = []
        for path in sorted(path for path in run_dir.iterdir() if path.is_file() and path.name != "MANIFEST.json"):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            files.append({"name": path.name, "size": path.stat().st_size, "sha256": digest})
        (run_dir / "MANIFEST.json").write_text(json.dumps({"version": 1, "files": files}))
        home = self.project / "models"
        copy = self.place / "copy"
        plain = ["rsync", "-a", "-e", "ssh", f"box:{run_dir}/", f"{copy}/"]
        ratios: dict[str, list[float]] = {"first": [], "again": []}
        rates: dict[str, list[float]] = {"ours": [], "rsync": []}
        steps: list[tuple[str, Callable[[], float]]] = [
            ("rsync", lambda: seconds(plain, self.project)), ("ours", lambda: seconds(oelm("fetch"), self.project)),
        ]  # fmt: skip
        for number in range(max(3, self.rounds // 2) + 1):
            took: dict[str, float] = {}
            for folder in (home, copy):
                shutil.rmtree(folder, ignore_errors=True)
            for name, step in steps if number % 2 else reversed(steps):  # in turn: caches favour the second
                took[name] = step()
            again = {name: statistics.median(step() for _ in range(3)) for name, step in steps}
            assert (home / "checkpoints/tiny/exp_g0-s0/best_model.pt").stat().st_size == megabytes * 1_000_000
            if number:
                ratios["first"].append(took["rsync"] / took["ours"])
                ratios["again"].append(again["ours"] / again["rsync"])
                rates["ours"].append(megabytes / took["ours"])
                rates["rsync"].append(megabytes / took["rsync"])
        print(
            f"fetch, {megabytes} MB, {way:<8} {spread(ratios['first'])} x the throughput of rsync -a -e ssh"
            f" (goal at least 0.9): {spread(rates['ours'], 0)} against {spread(rates['rsync'], 0)} MB/s"
        )
        print(f"fetch, nothing new, {way:<8} {spread(ratios['again'])} x rsync (goal at most 1.5)")
        checkpoint.unlink()
        for folder in (home, copy):
            shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--only", default="submit,status,fetch")
    options = parser.parse_args()
    only = options.only.split(",")
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, load {load}, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(prefix="oelm-bench-") as folder:
        os.environ.update(XDG_CONFIG_HOME=f"{folder}/config", XDG_RUNTIME_DIR="", OMP_NUM_THREADS="1")
        bench = Bench(Path(folder), options.rounds)
        os.environ["PATH"] = f"{bench.client.place / 'bin'}:{os.environ['PATH']}"
        with running(bench.host, client=bench.client):
            bench.client.knows(bench.host)
            for way in WAYS:
                if "submit" in only:
                    bench.submit(way)
                if "status" in only:
                    bench.status(way)
                if "fetch" in only:
                    bench.fetch(way, options.megabytes)


if __name__ == "__main__":
    main()

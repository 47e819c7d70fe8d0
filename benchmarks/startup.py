"""What the everyday ``oelm-status`` costs against ``python -c pass``: both in one run, in turn, as ratios with spread.

Processor time, since wall time depends on what else the machine does. Goals: ``--help`` at most 4.5 x, 50 finished runs
5.5 x, 50 runs that are asked for 7 x. What a shell's completion costs with 10,000 runs in the index is told against
``oelm-status --help``: at most 1.5 x.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROUNDS = 21
STUDY = Path(__file__).resolve().parent.parent / "jobs" / "qk_freeze.toml"

MAKE_RUNS = """
import json, sys, time
from pathlib import Path
from oelm_jobs.agent import processes, rundir; from oelm_jobs.agent.run import result
from oelm_jobs.agent.states import State
from oelm_jobs.spec.study import Run
from oelm_jobs.store import Store
root, count, final = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "final"
runs = []
for i in range(count):
    run = Run(name=f"g{i % 3}-s{i}", study="s", group=f"g{i % 3}", label="g", seed=i, tag="", target="local",
              run_dir=str(root / "models" / "checkpoints" / "s" / f"exp_g{i % 3}-s{i}"), gpus=1, port=None,
              global_batch=16, factors={},
              settings={"max_steps": 1000, "seq_len": 64}, max_retries=0, fingerprint="f" * 64)
    control = rundir.control(run.run_dir, "")
    control.mkdir(parents=True)
    identity = processes.identify(1).to_json()
    (control / "claim").write_text(json.dumps(dict(identity, token="t")))
    start = dict(identity, number=1, token="t", started_at=time.time(), devices=["cpu:0"])
    (control / "start.json").write_text(json.dumps(start))
    end = {"state": "DONE", "token": "t", "reason": "", "attempts": [{"number": 1}]}
    (control / "end.json").write_text(json.dumps(end))
    Path(run.run_dir, "heartbeat.json").write_text(json.dumps(
        {"step": 1000, "max_steps": 1000, "loss": 3.5, "tokens_per_s": 1e4, "time": time.time()}))
    Path(run.run_dir, "metrics.jsonl").write_text("".join(
        json.dumps({"step": s, "loss": 3.5, "val_loss": 3.6, "time": time.time()}) + "\\n" for s in range(100)))
    runs.append(run)
with Store() as store:
    store.intend(root, "local", str(root), "t", "{}", runs, lambda known: None)
    store.answer("t", "accepted", states={run.run_dir: (State.DONE if final else State.QUEUED, "") for run in runs})
"""


MAKE_INDEX = """
import sys
from dataclasses import replace
from pathlib import Path
from oelm_jobs.store import Store
from oelm_jobs.study.files import read_study
from oelm_jobs.study.resolve import plan_runs
from oelm_jobs.connections import unreached
from oelm_jobs.targets.files import LOCAL
root = Path(sys.argv[1])
study = read_study(root / "jobs" / "s.toml")
runs = plan_runs(study, unreached(LOCAL, root), seeds=range(10_000 // len(study.groups)))
with Store() as store:
    store.intend(root, "local", str(root), "t", "{}", runs, lambda known: None)
"""

COMPLETED = {
    "a run among 10,000": "oelm-status gpt_base-s99",
    "any of 10,000 runs": "oelm-status ",
    "a group": "oelm-submit --group g",
    "a study": "oelm-submit --study ",
    "a target": "oelm-submit --target ",
    "a key of --set": "oelm-submit --set max_",
    "a command": "oelm sta",
}
"""What is completed, and in which line."""
COMPLETION_GOAL = 1.5

Case = tuple[list[str], dict[str, str]]
"""A command and its environment."""


def seconds(argv: list[str], cwd: Path, environment: dict[str, str]) -> float:
    """Return the processor time of one whole process, its children included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(argv, cwd=cwd, env=environment, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compare(
    base: Case, cases: dict[str, tuple[Case, float]], cwd: Path, against: str, fresh: Callable[[str], None] = str
) -> list[dict[str, object]]:
    """Measure cases in turn with a base, print the ratios, and return them.

    Args:
        cases: Each with its goal.
        fresh: Is called before each measurement with the case's name.
    """
    ratios: dict[str, list[float]] = {name: [] for name in cases}
    for round_number in range(ROUNDS + 1):
        for name, (case, _) in cases.items():
            fresh(name)
            before = seconds(base[0], cwd, base[1])
            ratio = seconds(case[0], cwd, case[1]) / before
            if round_number:
                ratios[name].append(ratio)
    rows: list[dict[str, object]] = []
    for name, (_, goal) in cases.items():
        low, middle, high = statistics.quantiles(ratios[name], n=4)
        quartiles = [round(low, 2), round(high, 2)]
        rows.append({"case": name, "ratio": round(middle, 2), "quartiles": quartiles, "goal": goal})
        print(f"{name:<34} {middle:5.2f} x {against}  (quartiles {low:.2f} to {high:.2f}; goal: {goal})")
    return rows


def main() -> None:
    """Measure and print."""
    script = str(Path(sys.executable).with_name("oelm-status"))
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "project"
        (project / "jobs").mkdir(parents=True)
        (project / "jobs" / "s.toml").write_text("")
        environment = {**os.environ, "OELM_LEASE_DIR": str(Path(folder) / "leases")}
        (Path(folder) / "leases").mkdir()
        kept: dict[str, dict[str, str]] = {}
        for name in ("probed", "final"):
            kept[name] = {**environment, "OELM_STATE_DIR": str(Path(folder) / name)}
            subprocess.run([sys.executable, "-c", MAKE_RUNS, str(project), "50", name], env=kept[name], check=True)
            if name == "probed":
                shutil.copytree(Path(folder) / name, Path(folder) / "saved")
                shutil.rmtree(project / "models")

        def fresh(name: str) -> None:
            if name.endswith("asked"):  # each time as before the first look
                shutil.rmtree(Path(folder) / "probed")
                shutil.copytree(Path(folder) / "saved", Path(folder) / "probed")

        rows = compare(
            ([sys.executable, "-c", "pass"], environment),
            {
                "oelm-status --help": (([script, "--help"], environment), 4.5),
                "oelm-status, 50 runs, all over": (([script], kept["final"]), 5.5),
                "oelm-status, 50 runs, all asked": (([script], kept["probed"]), 7.0),
            },
            project,
            "python -c pass",
            fresh,
        )
        (project / "jobs" / "s.toml").write_text(STUDY.read_text(encoding="utf-8"), encoding="utf-8")
        many = {**environment, "OELM_STATE_DIR": str(Path(folder) / "many")}
        subprocess.run([sys.executable, "-c", MAKE_INDEX, str(project)], env=many, check=True, cwd=project)
        completed = {
            f"completing {what}": (
                (
                    [script.replace("oelm-status", line.split()[0])],
                    {**many, "_OELM_COMPLETE": "bash", "COMP_LINE": line},
                ),
                COMPLETION_GOAL,
            )
            for what, line in COMPLETED.items()
        }
        rows += compare(([script, "--help"], environment), completed, project, "oelm-status --help")
        if "--json" in sys.argv:
            print(json.dumps(rows))


if __name__ == "__main__":
    main()

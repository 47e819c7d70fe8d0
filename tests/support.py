"""Make projects, runs and token files for tests, and wait for conditions."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs.agent import probe, processes, rundir
from oelm_jobs.agent.host import cancel, launch
from oelm_jobs.scripts import templates
from oelm_jobs.scripts.jobs import records_text
from oelm_jobs.spec.study import Run
from oelm_jobs.spec.target import Target
from oelm_jobs.targets.files import LOCAL

REPOSITORY = Path(__file__).resolve().parent.parent
TRAINER = REPOSITORY / "tests" / "ssh" / "trainer.py"

TINY_STUDY = """
question = "Does the machinery work?"
factors = ["model_type", "freeze_qk"]
seeds = [42]
max_retries = 0
[train]
data_path = "data/tiny/train.bin"
vocab_size = 64
global_batch = 4
d_model = 16
num_layers = 1
num_heads = 2
d_ff = 32
seq_len = 16
dropout = 0.0
max_steps = 12
warmup_steps = 2
log_interval = 2
val_interval = 6
val_batches = 2
save_interval = 6
[groups]
gpt_base = { label = "Group A: GPT-Base", model_type = "gpt" }
oelm_no_freeze = { label = "Group B: OELM-NoFreeze", model_type = "oelm", freeze_qk = false }
oelm_freeze = { label = "Group C: OELM-Freeze", model_type = "oelm", freeze_qk = true }
[hypotheses]
H1 = { metric = "trainable_params", group = "oelm_freeze", against = "oelm_no_freeze", reduction = [0.10, 0.20] }
H2 = { metric = "final_val_ppl", group = "oelm_freeze", against = "oelm_no_freeze", equivalent_within = 0.05 }
H3 = { metric = "speed", group = "oelm_freeze", against = "oelm_no_freeze", ratio_at_least = 1.0, margin = 0.02 }
H4 = { metric = "final_val_ppl", group = "oelm_freeze", against = "gpt_base", at_most_above = 0.10 }
"""
"""Three groups that train for a few seconds."""


def needs(*commands: str, root: bool = False, linux: bool = False) -> None:
    """Skip the test where this machine lacks what it needs, and say what; in CI, where all of it is there, fail."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"  # where Debian keeps sshd and ip, also for users
    lacking = [command for command in commands if shutil.which(command, path=path) is None]
    if lacking:
        lacking[-1] += " (tools/system-packages.sh installs them)"
    lacking += ["root"] if root and os.geteuid() != 0 else []
    lacking = ["Linux"] if linux and not sys.platform.startswith("linux") else lacking
    if lacking:
        # CI installs all of it (.ci/run), so that nothing is passed over there without anybody seeing it.
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"needs {', '.join(lacking)}")


def write_tokens(path: Path, count: int, vocab_size: int) -> None:
    """Write a token file that a model can learn something from: runs of neighbouring ids."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ids = bytearray()
    value = 1
    for position in range(count):
        value = (value * 5 + 3 + position // 7) % vocab_size
        ids += (value if position % 3 else (value + 1) % vocab_size).to_bytes(2, "little")
    path.write_bytes(bytes(ids))


def end_all(root: Path) -> None:
    """End every run below ``root``, and who watches over one."""
    run_dirs = [str(path.parent) for path in root.rglob(rundir.CONTROL) if (path / rundir.CLAIM).exists()]
    if run_dirs:
        cancel.cancel({"run_dirs": run_dirs})
    for settings in root.rglob(f"{rundir.CONTROL}/{rundir.NOTIFY}/*/settings.json"):  # who watches leaves then
        settings.unlink(missing_ok=True)


def kill(identities: Iterable[processes.Identity]) -> None:
    """Kill processes; one that has ended meanwhile, with its launcher or by Slurm, is no error."""
    for identity in identities:
        with contextlib.suppress(ProcessLookupError):
            os.kill(identity.pid, signal.SIGKILL)


def held(folder: Path, run: str = "gpt_base") -> Path:
    """Return the file, in ``folder/holds``, that holds a run after its first checkpoint as long as it is there; the
    run's stand-in trainer finds that folder in TRAINER_HOLD.
    """
    file = folder / "holds" / f"exp_{run}"
    file.parent.mkdir()
    file.touch()
    return file


SEED = int(os.environ.get("TEST_SEED", "0"))
"""Another seed means other moments for the faults; ``for s in $(seq 20); do TEST_SEED=$s make test ...`` tries many."""


def random_moment(longest_s: float = 0.8) -> None:
    """Let a time pass that the seed and the caller decide: the fault that follows comes at no special moment."""
    caller = sys._getframe(1).f_code.co_name
    time.sleep(random.Random(f"{SEED} {caller}").uniform(0, longest_s))


MOST_PATIENCE_S = float(os.environ.get("TEST_PATIENCE_S", "inf"))
"""No wait for a condition is longer: tools/breaks.py sees tests fail, and has not four minutes for each."""


def holding(folder: Path, words: bytes) -> list[Path]:
    """Return the files below a folder that hold the words; one that goes meanwhile holds none."""
    found = []
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            if words in path.read_bytes():
                found.append(path)
    return found


def wait_until(condition: Callable[[], Any], what: str, patience_s: float = 240.0) -> Any:
    """Return the condition's first true value; fail when it stays false.

    Where asking takes long (a command, say), it is asked less often: what is waited for needs the processor, too.
    """
    patience_s = min(patience_s, MOST_PATIENCE_S)
    deadline = time.monotonic() + patience_s
    while (asked := time.monotonic()) < deadline:
        value = condition()
        if value:
            return value
        time.sleep(min(0.5, max(0.05, time.monotonic() - asked)))
    raise AssertionError(f"waited {patience_s} s in vain for {what}")


def read(path: Path) -> dict[str, Any]:
    """Return a JSON file's object."""
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def stand_in_for_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: str) -> None:
    """Put a script of these lines first on PATH as nvidia-smi, and let trainers use the CPU in place of its GPUs."""
    monkeypatch.setenv("OELM_STAND_IN_GPUS", "1")
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{lines}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def stand_in_for_python(path: Path, options: str = "", *, python: str = sys.executable, trainer: Path = TRAINER) -> str:
    """Make ``path`` a ``python`` that trains with tests/ssh/trainer.py and is the suite's own for all else; return it.

    Args:
        options: Of the suite's python, ``-S`` to keep the toolkit and torch from it.
        python: Another one in place of the suite's.
        trainer: A copy of the script.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "#!/bin/sh\n"
        f"case \"$2\" in train | torch.distributed.run) exec '{python}' -S '{trainer}' \"$@\" ;; esac\n"
        f"exec '{python}' {options} \"$@\"\n"
    )
    path.chmod(0o755)
    return str(path)


STEP = "        progress.step += 1\n"
"""A line of train/loop.py: a step was made."""


def after_each_step(project: Path, line: str) -> None:
    """Give the project's trainer a line of Python that follows each step."""
    loop = project / "train" / "loop.py"
    assert loop.read_text().count(STEP) == 1
    loop.write_text(loop.read_text().replace(STEP, f"{STEP}        {line}\n"))


def pause_after_each_step(project: Path) -> None:
    """Give the project's trainer a pause after each step, of as many seconds as TEST_STEP_S says."""
    after_each_step(project, "time.sleep(float(__import__('os').environ.get('TEST_STEP_S', '0')))")


def outcome_of(status: str, reason: str = "") -> list[str]:
    """Return a command that ends at once and leaves the outcome record of a trainer."""
    program = (
        "import json, os, pathlib; out = pathlib.Path(os.environ['OELM_RUN_DIR'], '.oelm', 'outcome.json');"
        f" said = {{'attempt': os.environ['OELM_ATTEMPT'], 'status': {status!r}, 'reason': {reason!r}}};"
        " out.write_text(json.dumps(said))"
    )
    return [sys.executable, "-S", "-c", program]


def sleeping(seconds: float = 600.0) -> list[str]:
    """Return a command that does nothing for a long time."""
    return [sys.executable, "-S", "-c", f"import time; time.sleep({seconds})"]


def make_run(root: Path, name: str, **changes: Any) -> Run:
    """Return a run below ``root`` as plan_runs would make it."""
    values: dict[str, Any] = {
        "name": name, "study": "s", "group": name, "label": name, "seed": 42, "tag": "", "target": "local",
        "run_dir": str(root / f"exp_{name}"), "gpus": 1, "port": None, "global_batch": 4, "factors": {},
        "settings": {"max_steps": 1, "seq_len": 1}, "max_retries": 0, "fingerprint": "f" * 64,
    }  # fmt: skip
    return Run(**{**values, **changes})


def script_of(root: Path, run: Run, command: Sequence[str], token: str, target: Any = LOCAL, **extra: Any) -> str:
    """Return the run's launch script with any command in place of training."""
    gpus = list(run.gpus) if isinstance(run.gpus, tuple) else run.gpus
    record = {
        "token": token, "run": run.name, "run_dir": run.run_dir, "gpus": gpus, "port": run.port, "study": run.study,
        "fingerprint": run.fingerprint, "max_retries": run.max_retries, **extra,
    }  # fmt: skip
    return launch_script(
        REPOSITORY,
        target,
        run,
        record,
        command=command,
        python=sys.executable,
        supervisor=[sys.executable, "-m", "oelm_jobs.agent"],
        code=str(root),
    )


def launch_runs(
    root: Path, runs: Sequence[tuple[Run, Sequence[str]]], token: str = "t1", **extra: Any
) -> dict[str, Any]:
    """Launch runs as a submission of ``token``; sequential where ``after`` is given as True."""
    sequential, requests, before = extra.pop("sequential", False), [], None
    for run, command in runs:
        gpus, after = list(run.gpus) if isinstance(run.gpus, tuple) else run.gpus, before if sequential else None
        script = script_of(root, run, command, token, **extra, after=after)
        requests.append({"run_dir": run.run_dir, "token": token, "script": script, "gpus": gpus, "after": after})
        before = run.run_dir
    return launch.launch({"root": str(root), "token": token, "runs": requests})


def state(run: Run) -> dict[str, Any]:
    """Return what a probe says of a run."""
    row: dict[str, Any] = probe.probe({"run_dirs": [run.run_dir]})["runs"][run.run_dir]
    return row


def wait_for_state(run: Run, *wanted: str, patience_s: float = 240.0) -> dict[str, Any]:
    """Return the probe's row once the run is in one of the states."""
    return wait_until(
        lambda: row if (row := state(run))["state"] in wanted else None,
        f"{run.name} to be {wanted}: {state(run)}",
        patience_s,
    )


def shell(command: Sequence[str]) -> str:
    """Return a command as a line of shell."""
    return shlex.join(command)


def launch_script(
    project: Path,
    target: Target,
    run: Run,
    record: Mapping[str, Any],
    *,
    command: Sequence[str],
    **program: Any,
) -> str:
    """Return a run's launch script; ``program`` is what templates.Installed takes."""
    return slurm_script(project, target, [run], [record], commands=[command], header=[], **program)


def slurm_script(
    project: Path,
    target: Target,
    runs: Sequence[Run],
    records: Sequence[Mapping[str, Any]],
    *,
    commands: Sequence[Sequence[str]],
    header: Sequence[str],
    **program: Any,
) -> str:
    """Return the script of one run or of an array; ``program`` is what templates.Installed takes."""
    content = templates.ScriptContent(
        program=templates.Installed(**{**program, "supervisor": tuple(program["supervisor"])}),
        runs=tuple(runs),
        record=records_text(records, commands),
        command=tuple(commands[0]) if len(runs) == 1 else (),
        header=tuple(header),
    )
    return templates.script(project, target, content)


def rules_on_the_page(table: str) -> list[str]:
    """Return the names of the rules that docs/architecture.md lists for a decision table, in its order."""
    page = (REPOSITORY / "docs" / "architecture.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines()]
    return [row[1].strip("`") for row in rows if len(row) == 4 and row[0] == f"`{table}`"]

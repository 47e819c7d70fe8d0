"""Launch scripts of every kind, character by character, as the command prints them and as they are sent.

``UPDATE_GOLDEN=1 pytest tests/test_golden_scripts.py`` writes them anew; read the difference before committing it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner

from oelm_jobs.cli.submit import main as submit
from tests.golden import compare, without_what_varies
from tests.golden.slurm import stand_in_for_slurm
from tests.support import TINY_STUDY, needs, stand_in_for_python

ONE = ("--group", "oelm_freeze")
SLURM = '[there]\nkind = "slurm"\nroot = "/data/oelm"\n'
HOST = '[there]\nkind = "ssh"\nhost = "gpu1"\n'
SPEED = TINY_STUDY.replace(
    'factors = ["model_type"', 'speed_trial = { rounds = 15, seconds = 2 }\nfactors = ["model_type"'
)


class Case(NamedTuple):
    """A submission whose scripts are kept."""

    targets: str = ""
    """The targets file."""
    arguments: Sequence[str] = ONE
    """Of ``oelm-submit``, besides study and target."""
    study: Callable[[str], str] = str
    """Changes the study file."""


def with_gpus(gpus: str) -> Callable[[str], str]:
    """Return what gives a group other GPUs."""
    return lambda text: text.replace("freeze_qk = true", f"freeze_qk = true, gpus = {gpus}, port = 29511")


CASES = {
    "local_one": Case(),
    "local_lane": Case(arguments=("--stop-on-failure",)),
    "local_parallel_seeds": Case(arguments=("--mode", "parallel", *ONE, "--num-seeds", "2")),
    "local_tag_settings": Case(arguments=(*ONE, "--tag", "long", "--set", "max_steps=24", "--set", "dropout=0.1")),
    "local_several_gpus": Case(study=with_gpus("2")),
    "local_exact_gpus": Case(study=with_gpus("[1, 3]"), arguments=(*ONE, "--seeds", "42,43")),
    "local_retries": Case(study=lambda text: text.replace("max_retries = 0", "max_retries = 3")),
    "local_speed_trial": Case(study=lambda text: SPEED, arguments=()),
    "local_setup": Case(
        '[there]\nkind = "local"\nroot = "/data/it\'s oelm"\npython = "/opt/v env/bin/python"\nshare = "group"\n'
        'setup = ["source /etc/profile.d/modules.sh", "export A=\\"$HOME\\" # why"]\ngpus = [0, 1]\n'
        'env = ["WANDB_API_KEY"]\ncheckpoint_root = "/scratch/runs"\n[there.data]\n"data/tiny" = "/big/tiny"\n'
    ),
    "ssh_one": Case(HOST),
    "ssh_lane": Case(
        HOST + 'user = "me"\nport = 2222\nroot = "/data/oelm"\npython = "~/venv/bin/python"\nenv = ["HF_TOKEN"]\n'
        'setup = ["module load cuda"]\ngpus_per_run = 2\n[there.data]\n"data/tiny" = "~/tokens"\n',
        arguments=("--group", "gpt_base,oelm_freeze"),
    ),
    "slurm_one": Case(SLURM),
    "slurm_lane": Case(SLURM, arguments=("--group", "gpt_base,oelm_freeze")),
    "slurm_array": Case(SLURM + "max_parallel = 2\n", arguments=("--mode", "parallel")),
    "slurm_arrays_of_two_sizes": Case(
        SLURM, study=with_gpus("2"), arguments=("--mode", "parallel", "--num-seeds", "2")
    ),
    "slurm_nodes": Case(
        SLURM + '[there.sbatch]\nnodes = 2\ngpus-per-node = "a100:{gpus}"\ntime = "1-00:00:00"\n', study=with_gpus("4")
    ),
    "slurm_tasks": Case(
        SLURM + "[there.sbatch]\nnodes = 2\nntasks = 4\ngpus-per-task = 1\ncpus-per-task = 6\n", study=with_gpus("4")
    ),
    "slurm_options": Case(
        SLURM + '[there.sbatch]\npartition = "Pro,low"\naccount = "lab"\nqos = "normal"\ntime = "12:00:00"\n'
        'mem = "32G"\ngres = "gpu:a5000:{gpus}"\nconstraint = "gpu_48g&ib"\nexclude = "n[3-4]"\nexclusive = true\n'
        'mail-type = "END,FAIL"\ncomment = "it\'s a \\"test\\" # of \\\\ quotes"\nnice = 100\n'
    ),
    "slurm_variants": Case(SLURM + '[there.sbatch]\ntime = 90\nmem-per-cpu = "2G"\ngpus = "{gpus}"\n'),
    "slurm_cpus": Case(SLURM + '[there.sbatch]\ngres = "none"\ncpus-per-task = 4\n'),
    "slurm_no_requeue": Case(SLURM + "requeue = false\nwarning_s = 0\nmax_timeouts = 3\n"),
    "slurm_warning": Case(SLURM + 'warning_s = 600\nmax_timeouts = 7\npoll_s = 60\n[there.sbatch]\ntime = "2:00"\n'),
    "slurm_modules": Case(
        SLURM + 'login_shell = true\npython = "/opt/conda/envs/t/bin/python"\nshare = "group"\n'
        'setup = ["module purge", "module load Miniforge3 cuda/12.4", "conda activate t"]\n'
    ),
    "slurm_container": Case(
        SLURM + 'setup = ["module load apptainer"]\npython = "/data/oelm/in-container"\nenv = ["HF_TOKEN"]\n'
        '[there.sbatch]\ncontainer = "/images/torch.sif"\ngpus = "{gpus}"\n'
    ),
    "slurm_cluster": Case(
        SLURM + 'host = "login.hpc"\n[there.sbatch]\nclusters = "cm2"\ndependency = "afterok:204"\n',
        arguments=("--group", "gpt_base,oelm_freeze"),
    ),
    "slurm_speed_trial": Case(SLURM, study=lambda text: SPEED, arguments=()),
}


def printed(project: Path, case: Case, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what ``oelm-submit --dry-run --script`` prints."""
    monkeypatch.chdir(project)
    study = project / "jobs" / "tiny.toml"
    study.write_text(case.study(study.read_text()))
    (project / "jobs" / "targets.toml").write_text(case.targets)
    where = ("--target", "there") if case.targets else ()
    done = CliRunner().invoke(submit, ["--study", "tiny", *where, *case.arguments, "--dry-run", "--script"])
    assert done.exit_code == 0, done.output
    return done.stdout


def places(project: Path) -> list[tuple[str, str]]:
    """Return paths in scripts and what stands in their place."""
    return [(str(project), "/project"), (sys.executable, "/python")]


@pytest.mark.parametrize("name", CASES)
def test_a_printed_script_is_what_it_was(name: str, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = printed(project, CASES[name], monkeypatch)
    compare(f"scripts/{name}.sh", without_what_varies(text, places(project)))


def sent(project: Path, paths: Sequence[Path]) -> str:
    """Return scripts that were sent, one behind the other, without what varies."""
    text = "\n".join(path.read_text() for path in paths)
    elsewhere = str(project.parent / "elsewhere")
    return without_what_varies(text, [(elsewhere, "/elsewhere"), *places(project)])


def set_steps(project: Path, steps: int) -> None:
    study = project / "jobs" / "tiny.toml"
    study.write_text(study.read_text().replace("max_steps = 12", f"max_steps = {steps}"))


@pytest.mark.slow
def test_scripts_that_a_host_got_are_what_they_were(oelm, project: Path, tmp_path: Path) -> None:
    """First in a lane; then further, from where a finished run stands; then over again on another target."""
    tables = [f'[{name}]\nkind = "local"\npython = {json.dumps(stand_in_for_python(tmp_path / "bin" / "python"))}\n'
              for name in ("here", "there")]  # fmt: skip
    (project / "jobs" / "targets.toml").write_text(f'{"".join(tables)}root = "{tmp_path / "elsewhere"}"\n')
    words = ("submit", "--study", "tiny", "--wait")
    oelm(*words, "--target", "here", "--group", "gpt_base,oelm_freeze")
    runs = project / "models" / "checkpoints" / "tiny"
    paths = [runs / f"exp_{name}" / ".oelm" / "launch.sh" for name in ("gpt_base", "oelm_freeze")]

    def keep(name: str, paths: Sequence[Path]) -> None:
        compare(f"scripts/{name}.sh", sent(project, paths).replace(str(tmp_path / "bin" / "python"), "/venv/python"))

    keep("sent_local_lane", paths)
    set_steps(project, 24)
    oelm(*words, "--target", "here", "--group", "gpt_base", "--extend")
    keep("sent_local_extended", paths[:1])
    oelm(*words, "--target", "there", "--group", "gpt_base", "--rerun", "--yes", "--send-data")
    keep("sent_local_moved", [tmp_path / "elsewhere/models/checkpoints/tiny/exp_gpt_base/.oelm/launch.sh"])


@pytest.mark.parametrize("mode", ["sequential", "parallel"])
def test_scripts_that_sbatch_got_are_what_they_were(
    oelm, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    commands = stand_in_for_slurm(tmp_path, monkeypatch)
    (project / "jobs" / "targets.toml").write_text(
        '[here]\nkind = "slurm"\nsetup = ["module load cuda"]\nmax_parallel = 2\n[here.sbatch]\ntime = 30\nmem = "8G"\n'
    )
    oelm("submit", "--study", "tiny", "--target", "here", "--mode", mode)
    folder = project / ".oelm" / "slurm"
    compare(f"scripts/sent_slurm_{mode}.sh", sent(project, sorted(folder.glob("*.sh"))))
    calls = without_what_varies((commands / "sbatch.calls").read_text(), [(str(folder), "/slurm")])
    first, *others = [line.rpartition(" ") for line in calls.splitlines() if "--test-only" not in line]
    assert first[0] == "" and [line[0] for line in others] == [
        f"--dependency=afterany:{number}" for number in range(1, len(others) + 1)
    ]
    assert len(others) == (2 if mode == "sequential" else 0)


SCRIPTS = sorted((Path(__file__).parent / "golden" / "scripts").glob("*.sh"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_kept_scripts_pass_bash_and_shellcheck(path: Path) -> None:
    assert subprocess.run(["bash", "-n", str(path)]).returncode == 0
    needs("shellcheck")
    # Several jobs are printed one behind the other, and each execs; no host was asked what ~ is.
    words = ["shellcheck", "--shell=bash", "--severity=warning", "--exclude=SC2093,SC2088", str(path)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout

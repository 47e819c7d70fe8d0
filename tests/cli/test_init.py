"""``oelm init``: what it makes works, what exists stays."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from oelm_jobs.cli import init, submit
from oelm_jobs.errors import UsageError
from oelm_jobs.scaffold import command, examples, existing, files, targets
from oelm_jobs.study.files import load_study, read_study
from oelm_jobs.targets.files import load_targets
from tests.support import end_all

Oelm = Callable[..., subprocess.CompletedProcess[str]]

SCRIPT = "import sys\nfor step in range(3):\n    print(f'step {step}: loss {3 - step} {sys.argv[1:]}', flush=True)\n"
CONFIG = """
Include more/*.conf
Host box gpu?? !gpu99 "with blank"
    HostName 10.0.0.1
Host github.com
    User git
Match host x
    User me
host=login.example.org
    User = me
Host *
    ForwardAgent no
"""


def with_sinfo(place: Path, monkeypatch: pytest.MonkeyPatch, lines: str) -> None:
    """Put a script of these lines first on PATH as sinfo."""
    program = place / "bin" / "sinfo"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\n{lines}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder, on a machine without a cluster, of somebody who knows a host."""
    user = tmp_path / "user"
    (user / ".ssh").mkdir(parents=True)
    (user / ".ssh" / "config").write_text("Host box\n")
    monkeypatch.setenv("HOME", str(user))
    with_sinfo(user, monkeypatch, "exit 0")
    place = tmp_path / "mine"
    place.mkdir()
    yield place
    end_all(place)


@pytest.fixture
def here(folder: Path) -> Oelm:
    def run(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-c", "from oelm_jobs.cli.main import main; main()", *arguments]
        done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
        assert not check or done.returncode == 0, done.stderr + done.stdout
        return done

    return run


@pytest.mark.slow
def test_a_command_becomes_a_study_that_runs(here: Oelm, folder: Path) -> None:
    (folder / "train.py").write_text(SCRIPT)
    made = here("init", "--command", "python train.py --lr 1e-3 --seed 7 --name=a")
    assert made.stdout.splitlines() == [
        "made   jobs/train.toml",
        "made   jobs/targets.toml: ready to use: local; in comments, from ~/.ssh/config: box",
        f"added  .gitignore: {', '.join(files.IGNORED)}",
    ]
    for line in ("oelm submit --dry-run ", "oelm run -- python train.py --lr 1e-3", "oelm report --from old_runs/"):
        assert f"  {line}" in made.stderr
    assert "--lr 0.001 --seed 7 --name=a" in here("submit", "--dry-run").stdout
    assert "DONE" in here("submit", "--wait").stdout
    assert "['--lr', '0.001', '--seed', '7', '--name=a']" in here("logs", "base").stdout
    assert "base" in here("report").stdout


@pytest.mark.slow
def test_the_reference_experiment_comes_with_its_plan_and_the_commands_for_its_data(here: Oelm, folder: Path) -> None:
    made = here("init", "--study", "reference")
    assert {path.name for path in (folder / "jobs").iterdir()} == {"qk_freeze.toml", "demo.toml", "targets.toml"}
    for line in ("oelm data demo ", "oelm submit --study demo --wait", "oelm data make TEXT..."):
        assert f"  {line}" in made.stderr
    planned = here("submit", "--dry-run")
    assert "study qk_freeze" in planned.stdout and planned.stdout.count("-m train") == 4
    assert "study demo" in here("submit", "--study", "demo", "--dry-run").stdout


@pytest.mark.slow
def test_what_exists_is_named_and_left(here: Oelm, folder: Path) -> None:
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    (folder / ".gitignore").write_text("*.pyc\nmodels/")
    (folder / "jobs").mkdir()
    (folder / "jobs" / "train.toml").write_text("mine = 1\n")
    said = here("init", "--command", "python train.py").stdout
    assert "kept   jobs/train.toml" in said and "added  .gitignore: /.oelm/, /experiments/analysis/" in said
    assert (folder / "jobs" / "train.toml").read_text() == "mine = 1\n"
    assert (folder / ".gitignore").read_text().startswith("*.pyc\nmodels/\n# what oelm-jobs makes\n/.oelm/\n")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert here("init").stdout.count("kept ") == 3, "with a study there is nothing to ask"
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "--study"),
        (["--study", "script"], "--command"),
        (["--study", "reference", "--command", "x"], "--study script"),
        (["--command", "python train.py --lr {lr}"], "{lr}"),
        (["--command", "python 'train.py"], "quotes"),
        (["--command", ""], "--command"),
        (["--study", "reference", "--host", "a/b"], "--host a/b"),
        (["--study", "reference", "--host", "local"], "--host local"),
    ],
)
def test_where_nobody_can_be_asked_the_option_is_named_and_nothing_is_made(
    here: Oelm, folder: Path, arguments: list[str], named: str
) -> None:
    done = here("init", *arguments, check=False)
    assert done.returncode == 2 and named in done.stderr, done.stderr
    assert not list(folder.iterdir())


@pytest.mark.slow
def test_a_home_folder_is_no_project_and_one_that_is_closed_is_named(here: Oelm, folder: Path) -> None:
    refused = here("init", os.environ["HOME"], "--study", "reference", check=False)
    assert refused.returncode == 2 and "is no program's folder" in refused.stderr
    (folder / "jobs").write_text("")
    refused = here("init", "--study", "reference", check=False)
    assert refused.returncode == 74 and "jobs" in refused.stderr and "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("typed", "written", "factor"),
    [
        ("python train.py", "python train.py", {}),
        ("python train.py --steps 5 --lr=3e-4", "python train.py --steps 5 --lr={lr}", {"lr": 3e-4}),
        ("torchrun train.py n=2 optim.lr=1 x=y", "torchrun train.py n=2 optim.lr={optim.lr} x=y", {"optim.lr": 1}),
        ("python train.py --seed {seed} --port 80", "python train.py --seed {seed} --port 80", {}),
        ("torchrun --nnodes {nodes} train.py", "torchrun --nnodes {nodes} train.py", {}),
        ('python train.py --name "a b"', ["python", "train.py", "--name", "a b"], {}),
        ("A=1 python train.py > $HOME/log", ["sh", "-c", "A=1 python train.py > $HOME/log"], {}),
    ],
)
def test_a_number_of_a_command_becomes_a_factor_and_all_else_stays(
    tmp_path: Path, typed: str, written: str | list[str], factor: dict[str, object]
) -> None:
    made = command.study(typed, tmp_path)
    name, text = made.name, made.text
    assert name == "train" and ("train.py" in made.lacking) is (not typed.startswith("A=1"))
    files.make(tmp_path, f"jobs/{name}.toml", text)
    study = load_study(tmp_path)
    assert study.factors == tuple(factor) and study.groups["base"].factors == factor
    words = written.split() if isinstance(written, str) else written
    assert study.program is not None and len(study.program.stages[0].words) == len(words)
    assert f"command = {written!r}".replace("'", '"') in text
    switched_on = text.replace("# other", "other").replace("# lines", "lines").replace("# goal", "goal")
    files.make(
        tmp_path, "jobs/on.toml", switched_on.replace("# [hyp", "[hyp").replace("# H1", "H1") if factor else text
    )
    assert len(read_study(tmp_path / "jobs" / "on.toml").groups) == 1 + bool(factor)


@pytest.mark.slow
def test_hosts_that_are_named_are_ready_to_use_in_a_new_file_and_an_old_one(here: Oelm, folder: Path) -> None:
    made = here("init", "--command", "python train.py", "--host", "box,other")
    assert "ready to use: local, box, other\n" in made.stdout and "oelm doctor box " in made.stderr
    assert {name: target.host for name, target in load_targets(folder).items() if target.host} == {
        "box": "box", "other": "other",
    }  # fmt: skip
    before = (folder / "jobs" / "targets.toml").read_text()
    assert "kept   jobs/targets.toml" in here("init", "--host", "box").stdout
    assert "added  jobs/targets.toml: third" in here("init", "--host", "box,third").stdout
    assert (folder / "jobs" / "targets.toml").read_text().startswith(before)
    assert load_targets(folder)["third"].kind == "ssh"


def answered(folder: Path, text: str) -> str:
    """Return what ``oelm init`` says on a terminal where this is typed."""
    primary, secondary = os.openpty()
    argv = [sys.executable, "-c", "from oelm_jobs.cli.main import main; main()", "init"]
    with subprocess.Popen(
        argv, cwd=folder, stdin=secondary, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        os.close(secondary)
        os.write(primary, text.encode())
        said = process.communicate(timeout=300)[0].decode()
    os.close(primary)
    return said


@pytest.mark.slow
def test_on_a_terminal_hosts_are_offered_and_a_misspelt_one_is_asked_again(folder: Path) -> None:
    said = answered(folder, "script\npython train.py\nbocks\nbox\n")
    assert "~/.ssh/config names box. Nothing is connected to now." in said and "bocks: valid: box" in said
    assert load_targets(folder)["box"].host == "box"
    assert "~/.ssh/config names" not in answered(folder, ""), "the file is there"


@pytest.mark.slow
def test_without_an_answer_hosts_stand_in_comments(folder: Path) -> None:
    answered(folder, "script\npython train.py\n\n")
    assert "box" not in load_targets(folder) and "# [box]" in (folder / "jobs" / "targets.toml").read_text()


def test_scripts_and_logs_that_are_here_are_found_by_where_most_of_them_lie(tmp_path: Path) -> None:
    assert existing.look(tmp_path) == existing.Existing(scripts="", results="")
    for name in ("scripts/deep/a.sh", "scripts/b.sbatch", "install.sh", ".venv/bin/x.sh", "old runs/a/train.log"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("make\n" if name == "install.sh" else "x=1 python train.py\n")
    assert existing.look(tmp_path) == existing.Existing(scripts="scripts/", results="'old runs/'")
    (tmp_path / "mine").mkdir()
    for name in ("a.sh", "b.sh", "c.sbatch"):
        (tmp_path / "mine" / name).write_text("srun python train.py\n")
    assert existing.look(tmp_path / "mine").scripts == "*.sh *.sbatch"


@pytest.mark.slow
def test_init_names_the_commands_for_scripts_and_logs_that_are_here(here: Oelm, folder: Path) -> None:
    for name in ("scripts/a.sh", "logs/a.log"):
        (folder / name).parent.mkdir()
        (folder / name).write_text("python train.py\n")
    said = here("init", "--command", "python train.py").stderr
    assert "  oelm import-script scripts/ " in said and "  oelm report --from logs/ " in said


@pytest.mark.slow
def test_a_study_is_not_called_as_one_that_oelm_run_has_made(here: Oelm, folder: Path) -> None:
    (folder / "train.py").write_text(SCRIPT)
    here("run", "--", "python", "train.py", "--lr", "1")
    made = here("init", "--command", "python train.py --lr 1")
    assert "made   jobs/train-2.toml" in made.stdout
    assert "DONE" in here("submit", "--study", "train-2", "--wait").stdout
    assert {row["study"] for row in json.loads(here("status", "--json").stdout)["runs"]} == {"train", "train-2"}


def test_a_command_without_words_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="which command"):
        command.study("  ", tmp_path)


def test_hosts_are_those_that_the_users_file_calls_by_name(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.conf").write_text("Host inner\nInclude config\n")
    config = tmp_path / "config"
    config.write_text(CONFIG)
    assert targets.hosts(config) == ["inner", "box", "login.example.org"]
    assert targets.hosts(tmp_path / "none") == []


SINFO = """
echo 'debug|debug|up|30:00|30:00|2|(null)|(null)'
echo 'gpu|gpu*|up|2-00:00:00|1:00:00|4|gpu:a100:4(S:0-1),gpu:v100:2|(null)'
echo 'old|old|drain|infinite|n/a|1|gpu:2|(null)'
echo 'long|long|up|infinite|n/a|1|gpu:2|(null)'
"""


def test_partitions_are_ready_to_use_and_hosts_stand_in_comments_that_can_be_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_sinfo(tmp_path, monkeypatch, SINFO)
    config = tmp_path / "config"
    config.write_text("Host box gpu local\nHost login.example.org\n")
    proposal = targets.propose(config)
    assert proposal.ready == ("local", "gpu-a100", "gpu-v100", "debug", "long")
    assert proposal.commented == ("box", "gpu", "login.example.org")
    files.make(tmp_path, "jobs/targets.toml", proposal.text)
    found = load_targets(tmp_path)
    assert {name: target.slurm.sbatch for name, target in found.items() if target.slurm} == {
        "gpu-a100": {"partition": "gpu", "gpus": "a100:{gpus}", "time": "2-00:00:00"},
        "gpu-v100": {"partition": "gpu", "gpus": "v100:{gpus}", "time": "2-00:00:00"},
        "debug": {"partition": "debug", "time": "30:00"},
        "long": {"partition": "long", "gpus": "{gpus}"},
    }
    head, _, hosts = proposal.text.partition(targets.OF_HOSTS)
    (tmp_path / "jobs" / "targets.toml").write_text(head + hosts.replace("# ", ""))
    assert load_targets(tmp_path)["login.example.org"].kind == "ssh"


def test_a_slurm_that_does_not_answer_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_sinfo(tmp_path, monkeypatch, "echo 'sinfo: error: no controller' >&2; exit 1")
    proposal = targets.propose(tmp_path / "none")
    assert proposal.ready == ("local",) and "no controller" in proposal.remarks[0]


@pytest.mark.parametrize("name", examples.NAMES)
def test_an_example_is_copied_and_what_exists_stays(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(folder)
    script = folder / "jobs" / "examples" / name / "train.py"
    script.parent.mkdir(parents=True)
    script.write_text("mine = 1\n")
    made = CliRunner().invoke(init.main, ["--example", name])
    assert made.exit_code == 0 and f"made   jobs/{name}.toml\n" in made.stdout
    assert f"kept   jobs/examples/{name}/train.py" in made.stdout and script.read_text() == "mine = 1\n"
    assert f"oelm submit --study {name} --dry-run" in made.stderr and f"head jobs/{name}.toml" in made.stderr
    assert load_study(folder).name == name
    first = (folder / "jobs" / f"{name}.toml").read_text().partition("\nquestion")[0]
    assert first.endswith(f"#   oelm-submit --study {name}")
    copied = {path.name for path in script.parent.iterdir()}
    assert copied == {path.name for path in (examples.folder() / "examples" / name).glob("*.*")}


def test_there_are_as_many_examples_as_are_named_and_a_wrong_name_tells_them(tmp_path: Path) -> None:
    assert sorted(examples.NAMES) == sorted(path.stem for path in (examples.folder() / "examples").glob("*.toml"))
    wrong = CliRunner().invoke(init.main, [str(tmp_path), "--example", "spiral"])
    assert wrong.exit_code == 2 and all(name in wrong.stderr for name in examples.NAMES)
    both = CliRunner().invoke(init.main, [str(tmp_path), "--example", "spirals", "--study", "script"])
    assert both.exit_code == 2 and "--example and --study exclude each other" in both.stderr
    assert not list(tmp_path.iterdir())


def test_a_folder_with_examples_alone_is_a_project_whose_studies_are_named_by_their_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(examples.folder() / "examples", folder / "jobs" / "examples")
    monkeypatch.chdir(folder)
    planned = CliRunner().invoke(submit.main, ["--study", "jobs/examples/spirals.toml", "--dry-run"])
    assert planned.exit_code == 0 and "study spirals" in planned.stdout
    unnamed = CliRunner().invoke(submit.main, ["--dry-run"])
    assert unnamed.exit_code == 2 and "--study: jobs/examples/campaign.toml, jobs/examples/hydra_app" in unnamed.stderr


def test_the_examples_that_come_along_are_studies() -> None:
    found = sorted(examples.folder().glob("**/*.toml"))
    assert len(found) > 8
    for path in found:
        assert path.name == "targets.toml" or read_study(path).groups

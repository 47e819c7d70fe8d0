"""Scripts of different hands: what comes out of each, that bash would start the same, and that the study runs it.

``UPDATE_GOLDEN=1 pytest tests/importing/test_scripts.py`` writes what comes out anew.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from oelm_jobs.cli.import_script import main
from oelm_jobs.importing import proposal, shell
from oelm_jobs.importing.scope import END, MARK
from oelm_jobs.programs import script
from oelm_jobs.study.files import read_study
from oelm_jobs.study.plan import make_plan
from oelm_jobs.targets.files import LOCAL, load_targets
from tests.golden import compare

HERE = Path(__file__).parent
CASES = sorted(path.name for path in (HERE / "scripts").iterdir())
GIVEN = {"out-dir", "output", "output_dir", "save", "log_dir", "gpu", "device", "hydra.run.dir", "multirun", "m"}
"""Flags of the scripts that the toolkit gives its own values."""
OTHERS = ("evaluate.py",)
"""Programs of the scripts that are none of the study's."""
STAND_INS = ["python", "python3", "torchrun", "accelerate", "deepspeed", "apptainer", "srun", "tmux", "ssh", "sbatch"]
STAND_INS += ["sleep", "module", "ml", "conda", "scontrol", "rsync", "scp"]


@pytest.fixture
def case(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the scripts of a case and the program that they start."""
    folder = tmp_path / "mine"
    shutil.copytree(HERE / "scripts" / request.param, folder)
    for text in [path.read_text() for path in folder.iterdir()]:
        for name in re.findall(r"(?<!\S)(?:\"?\$ROOT/)?([\w/]+\.py)", text):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
    for name in ("train_unet.py", "train_dit.py"):
        (folder / name).touch()
    (folder / ".git").mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "100")
    return folder


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_what_comes_out(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["."], standalone_mode=False)
    compare(f"importing/{case_name(case)}.txt", capsys.readouterr().out)


def case_name(folder: Path) -> str:
    return next(
        name for name in CASES if all((folder / each.name).exists() for each in (HERE / "scripts" / name).iterdir())
    )


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, indirect=True)
def test_bash_starts_the_same_commands(case: Path, tmp_path: Path) -> None:
    found = shell.explore(proposal.scripts_of([case]), case)
    recorded = in_bash(case, tmp_path)
    read = [" ".join([each.words[0].rpartition("/")[2], *each.words[1:]]) for each in found.started]
    assert len(read) == len(recorded)
    for text in read:
        pattern = re.sub(r"\s*" + MARK + r"\$@" + END, "", text).replace(" ./", " ")
        shape = "".join(
            ".*?" if part.startswith(MARK) else re.escape(part) for part in re.split(f"({MARK}.*?{END})", pattern)
        )
        match = next((words for words in recorded if re.fullmatch(shape, " ".join(words[2:]))), None)
        assert match is not None, text
        recorded.remove(match)


@pytest.mark.slow
@pytest.mark.parametrize("case", [name for name in CASES if name != "hydra"], indirect=True)
def test_the_study_runs_what_bash_starts(case: Path, tmp_path: Path) -> None:
    made = proposal.propose([case], case)
    proposal.write(made)
    recorded = in_bash(case, tmp_path)
    study = read_study(case / "jobs" / f"{made.study.name}.toml")
    plan = make_plan(case, study, replace(LOCAL, root=str(case)))
    planned = [told(script.commands(run, "python")[0]) for run in plan.runs]
    own = [words for words in recorded if not any(name in " ".join(words) for name in OTHERS)]
    assert len(own) == len(made.starts)
    for words in own:
        seed, dropout, *rest = words
        before = ([f"DROPOUT={float(dropout)}"] if dropout else []) + ([f"SEED={seed}"] if seed else [])
        is_exported = not any(text.startswith("env ") for text in planned)
        assert told(rest if is_exported else ["env", *before, *rest]) in planned
    assert made.targets.keys() <= load_targets(case).keys()


def told(words: list[str]) -> str:
    """Return a command with its flags sorted, without what the toolkit gives, numbers in one spelling."""
    flags: dict[str, str] = {}
    others: list[str] = []
    place = next((at for at, word in enumerate(words) if word.endswith(".py")), None)
    place = words.index("-m") + 1 if place is None else place
    name = ""
    for word in words[place + 1 :]:
        if word.startswith("-"):
            name, _equals, value = word.lstrip("-").partition("=")
            flags[name] = number(value) if value else ""
        elif name:
            flags[name] += " " + number(word)
        else:
            others.append(word)
    kept = sorted(f"{key}:{value.strip()}" for key, value in flags.items() if key not in GIVEN)
    start = "env " + " ".join(sorted(words[1:3])) + " " if words[0] == "env" else ""
    return f"{start}{words[place].removeprefix('./')} {' '.join(others)} {' '.join(kept)}"


def number(text: str) -> str:
    try:
        return str(float(text))
    except ValueError:
        return text


def in_bash(folder: Path, tmp_path: Path) -> list[list[str]]:
    """Return what bash starts of a case's scripts: SEED, DROPOUT, then the words of each command."""
    programs, home = tmp_path / "bin", tmp_path / "home"
    programs.mkdir()
    for name in STAND_INS:
        (programs / name).symlink_to(HERE / "stand_ins.sh")
    for name in ("miniconda3/etc/profile.d/conda.sh", "envs/qk/bin/activate", "work/vit/venv/bin/activate"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).touch()
    for place in (home / "projects/qk", folder / "logs", folder / ".venv" / "bin"):
        place.mkdir(parents=True, exist_ok=True)
    (folder / ".venv" / "bin" / "python").symlink_to(HERE / "stand_ins.sh")
    calls = " ".join(path.read_text() for path in folder.iterdir() if path.is_file())
    for path in [path for path in folder.iterdir() if path.suffix in proposal.SUFFIXES]:
        text = path.read_text().replace("/opt/conda/envs/rl/bin", str(programs)).replace("/home/me/gnn", str(folder))
        path.write_text(text)
    record = tmp_path / "record"
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(home), "RECORD": str(record), "USER": "me"}
    for path in sorted(path for path in folder.iterdir() if path.suffix in proposal.SUFFIXES):
        if path.name not in calls:  # else another one calls it
            program = "sbatch" if "#SBATCH" in path.read_text().partition("\ncat")[0] else "bash"
            subprocess.run(
                [program, path.name], cwd=folder, env=environment, capture_output=True, check=False, timeout=60
            )
    return [text.replace(f"{folder}/", "").split("\x1f")[:-1] for text in record.read_text().split("\x1e")[:-1]]

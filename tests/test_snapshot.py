"""What a run remembers of the code that it trained with."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from oelm_jobs import snapshot


def git(project: Path, *words: str) -> str:
    own = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", str(project), *own, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_snapshot_knows_the_commit_and_how_files_differ_from_it(project: Path) -> None:
    assert (snapshot.take(project).revision, snapshot.take(project).diff) == ("", "")
    git(project, "init", "-q")
    git(project, "add", "train", "jobs")
    git(project, "commit", "-q", "-m", "first")
    clean = snapshot.take(project)
    assert clean.revision == git(project, "rev-parse", "HEAD") and clean.diff == ""
    model = project / "train" / "model.py"
    model.write_text(model.read_text() + "# changed since\n")
    changed = snapshot.take(project)
    assert changed.revision == f"{clean.revision}-dirty" and "+# changed since" in changed.diff
    assert changed.hash != clean.hash and changed.train_code != clean.train_code
    model.write_text(model.read_text() + "# much\n" * 10000)
    assert len(snapshot.take(project).diff) < 20000 and "cut here" in snapshot.take(project).diff


def test_a_trainer_that_lies_elsewhere_is_kept_and_data_that_git_does_not_ignore_is_not(
    project: Path, tmp_path: Path
) -> None:
    (project / "train").rename(tmp_path / "trainer")
    (project / "train").symlink_to(tmp_path / "trainer")
    (project / "weights.pt").write_bytes(b"x")
    git(project, "init", "-q")
    names = {name for name, _ in snapshot.take(project).files}
    assert {"train/model.py", "train/__main__.py", "jobs/tiny.toml"} <= names
    assert not {name for name in names if name.endswith((".pt", ".bin"))}


@pytest.mark.parametrize(
    "files",
    [
        {"images/cat.txt": "data"},
        {"__init__.py": "", "loop.py": "def fit(): ...\n"},
        {"__init__.py": "", "__main__.py": "print('fitting a forest')\n"},
    ],
)
def test_what_somebody_else_calls_train_does_not_replace_the_trainer(
    oelm,  # type: ignore[no-untyped-def]
    project: Path,
    files: dict[str, str],
) -> None:
    shutil.rmtree(project / "train")
    for name, content in files.items():
        (project / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        (project / "train" / name).write_text(content)
    done = oelm("submit", "--study", "tiny", "--group", "gpt_base", "--wait")
    assert f"{project / 'train'} is not the trainer: runs use the installed one" in done.stderr
    assert "DONE" in done.stdout + oelm("status").stdout
    assert "is not the trainer" in oelm("doctor", check=False).stdout


def test_a_link_to_a_folder_of_data_called_train_is_not_walked(project: Path, tmp_path: Path) -> None:
    (project / "train").rename(tmp_path / "elsewhere")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "cat.py").write_text("x")
    (project / "train").symlink_to(tmp_path / "images")
    git(project, "init", "-q")
    names = {name for name, _ in snapshot.take(project).files}
    assert "train/__main__.py" in names and "train/cat.py" not in names

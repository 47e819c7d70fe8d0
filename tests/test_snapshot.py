"""What a run remembers of the code that it trained with."""

from __future__ import annotations

import subprocess
from pathlib import Path

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

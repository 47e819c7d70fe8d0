"""What a run remembers of the code that it trained with, what belongs to that, and where it is kept."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from oelm_jobs.agent import trees
from oelm_jobs.agent.sentences import encoded
from oelm_jobs.code import contents, snapshot
from oelm_jobs.spec.target import Target
from oelm_jobs.submit import sent
from tests.support import stand_in_for_python


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


def files_of(project: Path) -> set[str]:
    """Return what a snapshot for a script holds."""
    return {name for name, _ in snapshot.take(project, is_script=True).files}


def test_a_scripts_folder_keeps_what_it_calls_train_and_gets_no_trainer(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "loop.py").write_text("def fit(): ...\n")
    (tmp_path / "main.py").write_text("import train.loop\n")
    assert files_of(tmp_path) == {"main.py", "train/loop.py"}
    assert snapshot.take(tmp_path, is_script=True).passed_over == ""


def test_code_of_a_plain_folder_comes_along_whatever_its_folder_is_called_but_no_environment(tmp_path: Path) -> None:
    code = {f"{folder}/net.py" for folder in ("models", "data", "build", "dist", "env", "lib/build")}
    environment = {"py310/lib/site.py", "py310/pyvenv.cfg", "conda/conda-meta/history", "conda/lib/site.py"}
    for name in (*code, *environment, "build/net.o", "data/rows.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    assert files_of(tmp_path) == code


def test_of_a_scripts_checkout_all_comes_along_that_git_tracks_but_weights(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    tracked = {"build/net.py", "models/config.json", "data/prompts.txt"}
    for name in (*tracked, "data/rows.bin", "models/checkpoints/old/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    git(tmp_path, "add", ".")
    (tmp_path / "data" / "rows.csv").write_text("1\n")
    assert files_of(tmp_path) == tracked


@pytest.mark.parametrize(
    "files",
    [
        {"images/cat.txt": "data"},
        {"__init__.py": "", "loop.py": "def fit(): ...\n"},
        {"__init__.py": "", "__main__.py": "print('fitting a forest')\n"},
    ],
)
def test_what_somebody_else_calls_train_does_not_replace_the_trainer(
    oelm,
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


# What belongs to it ---------------------------------------------------------------------------------------------------


def names_of(project: Path) -> set[str]:
    return {name for name, _ in snapshot.take(project).files}


def reasons(project: Path) -> dict[str, str]:
    return {left.name: left.reason for left in snapshot.take(project).left}


def write(project: Path, name: str, content: str = "x\n") -> Path:
    path = project / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


@pytest.fixture
def checkout(project: Path) -> Path:
    """The project as a git repository with one commit."""
    git(project, "init", "-q")
    write(project, ".gitignore", "/data/\n__pycache__/\n")
    git(project, "add", ".")
    git(project, "commit", "-q", "-m", "first")
    return project


def keys(folder: Path) -> dict[str, str]:
    """Make private keys in every format that ssh-keygen and openssl write."""
    made = {}
    for kind, form in (("rsa", "PEM"), ("ed25519", "RFC4716"), ("ecdsa", "PKCS8")):
        path = folder / f"{kind}-{form}"
        words = ["ssh-keygen", "-q", "-t", kind, "-m", form, "-N", "", "-f", str(path)]
        subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
        made[path.name] = path.read_text()
    return made


SECRET_NAMES = [
    ".env", ".env.production", "conf/.envrc", "prod.env", "id_rsa", "keys/id_ed25519", "id_ecdsa.bak", "server.pem",
    "tls/Server.KEY", "me.p12", ".netrc", ".pypirc", ".npmrc", ".aws/credentials", ".ssh/config", "credentials.json",
    "kaggle.json", ".git-credentials", "huggingface/token", ".docker/config.json", "service-account-prod.json",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("with_git", [True, False])
def test_what_holds_keys_or_passwords_never_comes_along(project: Path, tmp_path: Path, with_git: bool) -> None:
    if with_git:
        git(project, "init", "-q")
    for name in SECRET_NAMES:
        write(project, name)
    hidden = {f"notes/{name}.txt": content for name, content in keys(tmp_path).items()}
    body = hidden["notes/rsa-PEM.txt"].splitlines()[1]
    hidden["conf.json"] = json.dumps({"type": "service_account", "private_key": f"-----BEGIN PRIVATE KEY-----\n{body}"})
    hidden["signing.asc"] = f"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n{body}\n"
    hidden["putty.txt"] = "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n"
    for name, content in hidden.items():
        write(project, name, content)
    (project / "alias.txt").symlink_to(tmp_path / "rsa-PEM")
    kept = ["id_rsa.pub", "environment.py", "tokens.py", "docs/env.md", "keyboard.py"]
    for name in kept:
        write(project, name)
    write(project, "speaks.py", 'HEADER = "-----BEGIN RSA PRIVATE KEY-----"\n')
    left = reasons(project)
    assert set(SECRET_NAMES) | set(hidden) | {"alias.txt"} == set(left)
    assert all(each.is_secret for each in snapshot.take(project).left)
    assert names_of(project) >= {*kept, "speaks.py"} and not names_of(project) & set(left)


def test_a_secret_that_git_tracks_is_known_as_such_and_its_change_is_in_no_diff(checkout: Path) -> None:
    write(checkout, ".env", "TOKEN=one\n")
    write(checkout, "config.yaml", "a: 1\n")
    git(checkout, "add", "-f", ".env", "config.yaml")
    git(checkout, "commit", "-q", "-m", "oops")
    write(checkout, ".env", "TOKEN=two\n")
    write(checkout, "config.yaml", "a: 2\n")
    taken = snapshot.take(checkout)
    assert [(left.name, left.is_secret, left.is_tracked) for left in taken.left] == [(".env", True, True)]
    assert "+a: 2" in taken.diff and "TOKEN" not in taken.diff and taken.revision.endswith("-dirty")
    (checkout / ".env").unlink()
    assert "TOKEN" not in snapshot.take(checkout).diff


@pytest.mark.slow
def test_files_of_submodules_come_along_and_one_that_is_not_checked_out_is_named(
    checkout: Path, tmp_path: Path
) -> None:
    inner, library = tmp_path / "inner", tmp_path / "library"
    for repository in (inner, library):
        repository.mkdir()
        git(repository, "init", "-q")
        write(repository, "code.py")
        write(repository, ".gitignore", "ignored.txt\n")
        git(repository, "add", ".")
        git(repository, "commit", "-q", "-m", "first")
    allow = ("-c", "protocol.file.allow=always")
    git(library, *allow, "submodule", "add", "-q", str(inner), "deep/inner")
    git(library, "commit", "-q", "-m", "with a submodule")
    for place in ("lib/one", "lib/two"):
        git(checkout, *allow, "submodule", "add", "-q", str(library), place)
    git(checkout, *allow, "submodule", "update", "-q", "--init", "--recursive", "lib/one")
    git(checkout, "commit", "-q", "-m", "with submodules")
    git(checkout, "submodule", "deinit", "-q", "-f", "lib/two")
    write(checkout, "lib/one/new.py")
    write(checkout, "lib/one/ignored.txt")
    write(checkout, "lib/one/id_rsa")
    git(tmp_path, "init", "-q", str(checkout / "other"))
    write(checkout, "other/loose.py")
    found = names_of(checkout)
    assert {"lib/one/code.py", "lib/one/new.py", "lib/one/deep/inner/code.py", "other/loose.py"} <= found
    assert not [name for name in found if "ignored" in name or ".git/" in name or "two" in name]
    assert reasons(checkout) == {
        "lib/two": "is a submodule that is not checked out here",
        "lib/one/id_rsa": "is a private key",
    }


def test_tracked_files_that_are_left_out_are_named(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "MAX_FILE_BYTES", 1 << 20)
    for name in ("weights.pt", "table.parquet", "data/tiny/ids.txt", "models/checkpoints/exp_a/config.json"):
        write(checkout, name)
    write(checkout, "large.json", "x" * (1 << 21))
    (checkout / "elsewhere").symlink_to(checkout.parent)
    git(checkout, "add", "-f", "weights.pt", "data", "models", "large.json", "elsewhere")
    write(checkout, "more.pt")
    found = reasons(checkout)
    assert found["weights.pt"] == "is data by its ending" and found["large.json"] == "is larger than 1 MB"
    assert found["elsewhere"] == "is a link to a folder"
    assert found["data/tiny/ids.txt"] == found["models/checkpoints/exp_a/config.json"] == "is what runs read or write"
    assert "more.pt" not in found, "nobody expects it to come along"


@pytest.mark.parametrize("with_git", [True, False])
def test_run_outputs_never_come_along_and_code_in_their_folders_does(project: Path, with_git: bool) -> None:
    if with_git:
        git(project, "init", "-q")
    outputs = ["models/checkpoints/tiny/exp_a/train.py", "experiments/report.md", "data/x.json", ".oelm/slurm/a.sh"]
    code = ["models/gpt.py", "data/prepare.py", "experiments/sweep.toml", "lib/models/net.json", "lib/data/vocab.json"]
    for name in outputs + code:
        write(project, name)
    found = names_of(project)
    assert set(code) <= found and not set(outputs) & found


@pytest.mark.parametrize("with_git", [True, False])
def test_what_targets_in_the_project_hold_never_comes_along(
    oelm: Callable[..., subprocess.CompletedProcess[str]], project: Path, tmp_path: Path, with_git: bool
) -> None:
    if with_git:
        git(project, "init", "-q")
    python = stand_in_for_python(tmp_path / "bin" / "python")
    targets = f"[near]\nkind = 'local'\npython = '{python}'\nroot = 'scratch/near'\n"
    (project / "jobs" / "targets.toml").write_text(
        targets + targets.replace("near", "disk") + "checkpoint_root = 'out'\n"
    )
    for target in ("near", "disk"):
        shutil.copytree(project / "data", project / "scratch" / target / "data")
        oelm("submit", "--study", "tiny", "--group", "gpt_base", "--target", target, "--tag", target, "--wait")
    assert list(project.glob("out/**/training.log")) and list(project.glob("scratch/near/models/**/training.log"))
    write(project, "scratch/plot.py")
    write(project, "inner/.oelm/submissions/a.json")  # a project of its own in this one
    write(project, "inner/model.py")
    found = names_of(project)
    assert {name for name in found if name.startswith(("scratch/", "out/", "inner/"))} == {
        "scratch/plot.py",
        "inner/model.py",
    }


def test_an_unchanged_project_is_not_read_again_and_every_change_is_seen(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "RECENT_S", -1.0)
    first = snapshot.take(project)
    read: list[bytes] = []
    real = contents.credentials.why_by_content
    monkeypatch.setattr(contents.credentials, "why_by_content", lambda content: read.append(content) or real(content))
    assert snapshot.take(project).hash == first.hash and read == []
    path = write(project, "train/model.py", (project / "train" / "model.py").read_text().replace("a", "b", 1))
    os.utime(path, ns=(1, 1))
    changed = snapshot.take(project)
    assert changed.hash != first.hash and len(read) == 1
    os.utime(path, ns=(1, 1))  # another time of the inode's change alone
    path.write_text(path.read_text().replace("b", "c", 1))
    os.utime(path, ns=(1, 1))
    assert snapshot.take(project).hash not in (first.hash, changed.hash)


@pytest.mark.slow
def test_a_remembered_reason_is_the_sentence_that_was_said_first(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "RECENT_S", -1.0)
    git(project, "init", "-q")
    write(project, "lib/notes.txt", next(iter(keys(tmp_path).values())))
    first, again = (encoded(reasons(project)["lib/notes.txt"]) for _ in range(2))
    assert first == again == {"code": "is a private key", "values": {}}


# Where it is kept -----------------------------------------------------------------------------------------------------


def used(folder: Path) -> int:
    """Return the bytes of all files below a folder, each counted once whatever names it has."""
    found = {(s.st_dev, s.st_ino): s.st_size for path in folder.rglob("*") if path.is_file() for s in [path.lstat()]}
    return sum(found.values())


def test_an_unchanged_file_is_stored_once_over_all_snapshots(project: Path, tmp_path: Path) -> None:
    write(project, "large.txt", "x" * 1_000_000)
    write(project, "run.sh").chmod(0o755)
    folder = tmp_path / "root" / ".oelm" / "snapshots"
    first = snapshot.keep(snapshot.take(project), folder)
    before = used(folder.parent)
    write(project, "train/model.py", "changed = True\n")
    second = snapshot.keep(snapshot.take(project), folder)
    assert first != second and used(folder.parent) - before == len("changed = True\n")
    assert (first / "large.txt").samefile(second / "large.txt")
    assert (
        (second / "train" / "model.py").read_text() == "changed = True\n" != (first / "train" / "model.py").read_text()
    )
    assert os.access(second / "run.sh", os.X_OK) and not os.access(second / "large.txt", os.X_OK)


def test_a_stored_file_that_a_run_has_written_into_is_not_used_again(project: Path, tmp_path: Path) -> None:
    write(project, "large.txt", "x" * 1000)
    folder = tmp_path / "root" / ".oelm" / "snapshots"
    first = snapshot.keep(snapshot.take(project), folder)
    mode = stat.S_IMODE((first / "large.txt").stat().st_mode)
    assert mode & 0o222 == 0
    (first / "large.txt").chmod(0o644)
    with open(first / "large.txt", "r+") as file:
        file.write("y")
    (first / "large.txt").chmod(mode)
    write(project, "train/model.py", "changed = True\n")
    second = snapshot.keep(snapshot.take(project), folder)
    assert (second / "large.txt").read_text() == "x" * 1000
    write(project, "train/model.py", "changed = twice\n")
    third = snapshot.keep(snapshot.take(project), folder)
    assert (third / "large.txt").samefile(second / "large.txt")


def test_a_file_that_was_being_written_to_is_kept_as_it_was(project: Path, tmp_path: Path) -> None:
    write(project, "nohup.out", "step 1\n")
    taken = snapshot.take(project)
    write(project, "nohup.out", "step 1\nstep 2\n")
    kept = snapshot.keep(taken, tmp_path / "root" / ".oelm" / "snapshots")
    assert (kept / "nohup.out").read_text() == "step 1\n"


def test_a_file_that_changes_while_it_is_kept_leaves_nothing_behind(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "RECENT_S", -1.0)
    taken = snapshot.take(project)
    write(project, "train/model.py", "changed = True\n")
    folder = tmp_path / "root" / ".oelm" / "snapshots"
    with pytest.raises(trees.Damaged, match="train/model.py changed while it was sent"):
        snapshot.keep(taken, folder)
    assert list(folder.iterdir()) == []


def test_trees_that_lead_out_of_their_folder_are_refused(tmp_path: Path) -> None:
    for name in ("/etc/x", "../x", "a/../../x"):
        rows = [(name, False, "0" * 64)]
        with pytest.raises(trees.Damaged):
            trees.keep(str(tmp_path / "t"), trees.name_of(rows), rows, lambda lacking: lambda number: b"")


def test_a_tree_is_kept_only_under_its_own_hash_and_with_the_content_that_it_announces(tmp_path: Path) -> None:
    rows = [("a.py", False, hashlib.sha256(b"print()").hexdigest())]
    folder = tmp_path / "t"
    for name, content in (("0" * 16, b"print()"), (trees.name_of(rows), b"print(1)")):
        with pytest.raises(trees.Damaged):
            trees.keep(str(folder), name, rows, lambda lacking, content=content: lambda number: content)
        assert not folder.exists() or list(folder.iterdir()) == []
    trees.keep(str(folder), trees.name_of(rows), rows, lambda lacking: lambda number: b"print()")
    assert (folder / trees.name_of(rows) / "a.py").read_bytes() == b"print()"


def test_a_submission_says_what_is_sent_and_what_is_left_out(
    oelm: Callable[..., subprocess.CompletedProcess[str]], checkout: Path
) -> None:
    write(checkout, ".env", "TOKEN=x\n")
    write(checkout, "server.pem")
    git(checkout, "add", "-f", "server.pem")
    write(checkout, "big.txt", "x" * 11_000_000)
    said = oelm("submit", "--study", "tiny", "--group", "gpt_base").stderr
    assert re.search(r"code: \d+ files, 11\.\d MB, the largest big.txt \(11.0 MB\)", said), said
    assert "a snapshot of 11." in said
    assert "warning: tracked by git, but left out since it is a private key: server.pem" in said
    assert "left out since it may hold passwords: .env" in said
    assert git(checkout, "status", "--porcelain", ".oelm") == ""


def test_a_file_of_ones_own_that_a_group_gets_to_read_is_named(project: Path) -> None:
    write(project, "notes.md").chmod(0o600)
    taken = snapshot.take(project)
    target = Target(name="box", kind="ssh", root="oelm", python="python3")
    alone, shared = ("\n".join(sent.words(taken, replace(target, share=share))) for share in ("", "group"))
    assert "notes.md" not in alone
    assert "the group of box's root may read what you alone may read here: notes.md" in shared

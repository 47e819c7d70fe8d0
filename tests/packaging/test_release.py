"""What a release takes: the checklist's commands exist, and tools/dist.sh tries both packages on two Pythons."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import REPOSITORY

CHECKLIST = (REPOSITORY / "docs" / "release.md").read_text(encoding="utf-8")
OLDEST = (3, 10)
"""As python_requires says; what runs on servers is held to 3.8 by tests of its own."""

# A Python that notes what it is asked to do, and can make environments and packages.
PYTHON = """#!/bin/sh
echo "$(basename "$0") $*" | sed "s|$SCRATCH|SCRATCH|g" >>"$LOG"
case "$*" in
    --version) echo "Python of $0" ;;
    "-m venv"*) for folder do :; done; mkdir -p "$folder/bin"; cp "$0" "$folder/bin/python" ;;
    "-m build"*) mkdir -p dist; touch dist/x.whl dist/x.tar.gz ;;
    *pytest*) echo "client $PACKAGED_CLIENT" | sed "s|$SCRATCH|SCRATCH|g" >>"$LOG"; exit "${TESTS_END:-0}" ;;
esac
"""


@pytest.mark.parametrize("command", re.findall(r"^   \$ (.*)$", CHECKLIST, re.M))
def test_every_command_of_the_checklist_is_there(command: str) -> None:
    program, *words = command.split()
    if program == "make":
        assert re.search(rf"^{words[0]}:", (REPOSITORY / "Makefile").read_text(), re.M)
    elif words[0].startswith("tools/"):
        assert (REPOSITORY / words[0]).is_file()
    else:
        own = re.fullmatch(r"\.venv/bin/(python|mypy)", program)
        assert own or program in ("git", "pip", "debootstrap", "chroot")


def test_files_that_the_checklist_names_are_there() -> None:
    named = re.findall(r"`((?:\.github|tools|oelm_jobs)/[\w./]+|[\w]+\.(?:md|cfg))", CHECKLIST)
    assert len(named) >= 5
    assert [name for name in named if not (REPOSITORY / name).is_file()] == []


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["oelm_jobs", "analysis"])
def test_the_client_is_written_in_the_oldest_python(folder: str) -> None:
    assert f"python_requires = >={OLDEST[0]}.{OLDEST[1]}\n" in (REPOSITORY / "setup.cfg").read_text()
    for path in (REPOSITORY / folder).rglob("*.py"):
        ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=OLDEST)


def dist(tmp_path: Path, *pythons: str, **environment: str) -> tuple[int, list[str]]:
    """Run tools/dist.sh on a machine with these Pythons; return its exit code and what they were asked to do."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "dirname", "basename", "mkdir", "mktemp", "cp", "rm", "touch", "sed", "head", "tail"):
        (programs / name).symlink_to(str(shutil.which(name)))
    for path in [programs / name for name in pythons] + [tmp_path / "venv" / "bin" / "python"]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(PYTHON)
        path.chmod(0o755)
    script = tmp_path / "tools" / "dist.sh"
    script.parent.mkdir()
    shutil.copy(REPOSITORY / "tools" / "dist.sh", script)
    (tmp_path / "scratch").mkdir()
    places = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path / "scratch"), "SCRATCH": str(tmp_path / "scratch")}
    log = tmp_path / "log"
    done = subprocess.run(
        [script, tmp_path / "venv"], env={"PATH": str(programs), "LOG": str(log), **places, **environment}
    )
    assert os.listdir(tmp_path / "scratch") == []
    return done.returncode, log.read_text().splitlines()


def test_both_packages_are_tried_on_the_oldest_and_the_newest_python(tmp_path: Path) -> None:
    code, asked = dist(tmp_path, "python3.11", "python3.12", "python3.13")
    assert code == 0
    assert [line.split()[0] for line in asked if " -m venv " in line] == ["python3.11", "python3.13"]
    tried = [line.rpartition(" ")[2] for line in asked if "--force-reinstall" in line]
    assert tried == ["dist/x.whl", "dist/x.tar.gz"] * 2
    assert sum("twine check --strict dist/x.tar.gz dist/x.whl" in line for line in asked) == 1
    assert sum(line.startswith("client SCRATCH") for line in asked) == 4


def test_a_package_that_fails_ends_it(tmp_path: Path) -> None:
    code, asked = dist(tmp_path, "python3.12", TESTS_END="1")
    assert code == 1 and sum("pytest" in line for line in asked) == 1

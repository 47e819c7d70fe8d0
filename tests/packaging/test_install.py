"""Tests of what `make demo` and `.ci/run` install, with stand-ins for Python, pip, apt-get and the machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import needs

REPOSITORY = Path(__file__).resolve().parents[2]
INSTALL = REPOSITORY / "tools" / "install.sh"
SYSTEM_PACKAGES = REPOSITORY / "tools" / "system-packages.sh"

# A Python that answers what install.sh asks. MISSING: a module that it lacks. REFUSE: words of requirements that fail.
PYTHON = """#!/bin/sh
case "$*" in
    *version_info*-venv*|*"%d.%d-venv"*) echo python3.11-venv ;;
    *version_info*) exit "${TOO_OLD:-0}" ;;
    --version) echo Python 3.11.2 ;;
    *ensurepip*) [ "${MISSING:-}" != ensurepip ] ;;
    *"import torch"*) [ -n "${HAS_TORCH:-}" ] ;;
    "-m venv"*) for folder do :; done; mkdir -p "$folder/bin"; cp "$0" "$folder/bin/python" ;;
    "-m pip --version") [ "$(basename "$0")" = python ] ;;
    "-m pip"*) shift 2; echo "$@" >>"$LOG"; for word in ${REFUSE:-}; do case "$*" in *"$word"*) exit 1;; esac; done ;;
esac
"""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder of programs that is the whole PATH: the few real ones that scripts need, and stand-ins."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "dirname", "basename", "tr", "mkdir", "cp", "rm", "cat"):
        real = shutil.which(name)
        assert real is not None
        (programs / name).symlink_to(real)
    place(programs, uname="echo Linux")
    return programs


def place(programs: Path, **scripts: str) -> None:
    for name, script in scripts.items():
        path = programs / name.replace("_", "-")
        path.write_text(script if script.startswith("#!") else f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)


def run(script: Path, machine: Path, *arguments: str, **environment: str) -> tuple[int, str, list[str]]:
    """Return the exit code, what was said on stderr, and the calls of pip or apt-get."""
    log = machine.parent / "log"
    log.unlink(missing_ok=True)
    env = {"PATH": str(machine), "LOG": str(log), **environment}
    done = subprocess.run([script, *arguments], env=env, cwd=machine.parent, capture_output=True, text=True)
    return done.returncode, done.stderr, log.read_text().splitlines() if log.exists() else []


def torch_calls(calls: list[str]) -> list[str]:
    return [call.partition("install ")[2] for call in calls if "torch" in call]


def test_without_a_gpu_the_cpu_build_of_pips_own_sources_comes_first(machine: Path) -> None:
    place(machine, python3=PYTHON)
    code, said, calls = run(INSTALL, machine, str(machine.parent / "venv"), TORCH_VERSION="9.9.9")
    assert code == 0, said
    assert torch_calls(calls) == ["torch==9.9.9+cpu"]
    assert calls[-1].endswith("install --editable .[train]")
    assert "making the virtual environment" in said and "CPU build" in said


def test_then_pytorchs_index_of_cpu_builds_then_whatever_there_is(machine: Path) -> None:
    place(machine, python3=PYTHON)
    _, _, calls = run(INSTALL, machine, str(machine.parent / "venv"), REFUSE="+cpu")
    assert torch_calls(calls)[1:] == ["--retries 1 --timeout 20 --index-url https://download.pytorch.org/whl/cpu torch"]
    shutil.rmtree(machine.parent / "venv")
    _, said, calls = run(INSTALL, machine, str(machine.parent / "venv"), REFUSE="+cpu --index-url")
    assert torch_calls(calls)[2:] == ["torch"]
    assert "several GB" in said


@pytest.mark.parametrize("change", [{"nvidia_smi": "exit 0"}, {"uname": "echo Darwin"}])
def test_with_a_gpu_or_on_macos_torch_comes_as_it_is(machine: Path, change: dict[str, str]) -> None:
    place(machine, python3=PYTHON, **change)
    code, _, calls = run(INSTALL, machine, str(machine.parent / "venv"))
    assert code == 0
    assert torch_calls(calls) == ["torch"]


def test_a_driver_that_does_not_answer_is_no_gpu(machine: Path) -> None:
    place(machine, python3=PYTHON, nvidia_smi="exit 9")
    _, _, calls = run(INSTALL, machine, str(machine.parent / "venv"))
    assert "+cpu" in torch_calls(calls)[0]


def test_an_environment_that_is_there_is_kept_and_torch_in_it_is_not_installed_again(machine: Path) -> None:
    place(machine, python3=PYTHON)
    run(INSTALL, machine, str(machine.parent / "venv"))
    (machine.parent / "venv" / "mine").touch()
    _, said, calls = run(INSTALL, machine, str(machine.parent / "venv"), "test", HAS_TORCH="1")
    assert (machine.parent / "venv" / "mine").exists()
    assert torch_calls(calls) == []
    assert calls[-1].endswith("install --editable .[train,test]")
    assert "what its tests need" in said


def test_a_python_without_ensurepip_names_the_debian_package(machine: Path) -> None:
    place(machine, python3=PYTHON)
    code, said, calls = run(INSTALL, machine, str(machine.parent / "venv"), MISSING="ensurepip")
    assert code != 0
    assert "apt-get install python3.11-venv" in said
    assert calls == []


def test_no_python_or_an_old_one_is_said_with_what_to_do(machine: Path) -> None:
    code, said, _ = run(INSTALL, machine, str(machine.parent / "venv"))
    assert code != 0 and "no Python >= 3.10" in said and "PYTHON=" in said
    place(machine, python3=PYTHON)
    code, said, _ = run(INSTALL, machine, str(machine.parent / "venv"), TOO_OLD="1")
    assert code != 0 and "no Python >= 3.10" in said


def test_a_newer_python_is_found_behind_an_old_one_and_one_that_is_named_comes_first(machine: Path) -> None:
    place(machine, python3="exit 1", python3_13="exit 127")
    (machine / "python3.12").write_text(PYTHON)
    (machine / "python3.12").chmod(0o755)
    assert run(INSTALL, machine, str(machine.parent / "venv"))[0] == 0
    place(machine, mine=PYTHON)
    code, said, _ = run(INSTALL, machine, str(machine.parent / "venv2"), PYTHON=str(machine / "mine"))
    assert code == 0, said


def test_a_failed_installation_fails(machine: Path) -> None:
    place(machine, python3=PYTHON)
    assert run(INSTALL, machine, str(machine.parent / "venv"), REFUSE="--editable")[0] != 0


APT = 'echo "$@" >>"$LOG"'


def commands() -> dict[str, str]:
    """Return the Debian package of each command, as system-packages.sh lists them."""
    listed = SYSTEM_PACKAGES.read_text().partition("list='")[2].partition("'")[0]
    return dict(line.split() for line in listed.strip().splitlines())


def present(machine: Path, *absent: str) -> None:
    place(machine, **{name: "" for name in commands() if name not in absent})


def test_missing_system_packages_are_installed_at_once_by_root(machine: Path) -> None:
    present(machine, "rsync", "shellcheck")
    place(machine, id="echo 0", apt_get=APT, python3="exit 1")
    code, said, calls = run(SYSTEM_PACKAGES, machine)
    assert code == 0, said
    assert calls == ["update -qq", "install -y -qq --no-install-recommends rsync shellcheck python3-venv"]


def test_nothing_is_asked_of_apt_when_nothing_is_missing(machine: Path) -> None:
    present(machine)
    place(machine, id="echo 0", apt_get=APT)
    assert run(SYSTEM_PACKAGES, machine) == (0, "", [])


def test_without_root_the_missing_packages_are_named_and_the_suite_goes_on(machine: Path) -> None:
    present(machine, "rsync")
    place(machine, id="echo 1000", apt_get=APT)
    code, said, calls = run(SYSTEM_PACKAGES, machine)
    assert code == 0 and calls == []
    assert "rsync" in said


def test_a_failure_of_apt_is_a_failure(machine: Path) -> None:
    place(machine, id="echo 0", apt_get="echo no such package; exit 100", python3="")
    code, said, _ = run(SYSTEM_PACKAGES, machine)
    assert code != 0 and "no such package" in said


@pytest.mark.parametrize(
    "path", [*sorted((REPOSITORY / "tools").glob("*.sh")), REPOSITORY / ".ci" / "run"], ids=lambda path: path.name
)
def test_scripts_are_sound_shell(path: Path) -> None:
    assert os.access(path, os.X_OK)
    assert subprocess.run(["bash", "-n", path]).returncode == 0
    needs("shellcheck")
    done = subprocess.run(["shellcheck", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout

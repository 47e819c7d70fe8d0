"""Tests of what is built and installed: wheel, sdist and editable, used from another folder."""

from __future__ import annotations

import ast
import configparser
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from oelm_jobs.cli.main import COMMANDS

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDERS = {"oelm_jobs": "oelm_jobs"} | {name: f"oelm_jobs/{name}" for name in ("train", "analysis", "templates")}
"""Where the checkout's folders lie once installed."""
NOT_SOURCES = {".git", ".hypothesis", ".venv", ".oelm", "build", "dist", "data", "models", "experiments", "__pycache__"}

pytestmark = pytest.mark.slow


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(REPOSITORY / "setup.cfg", encoding="utf-8")
    return parser


def run(*argv: str | Path, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a program with neither PYTHONPATH nor an active environment that could lend what the distribution lacks."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(argv, cwd=cwd, env=kept, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def source_files() -> Iterator[tuple[Path, str]]:
    """Yield each file that an installation must hold, and its place there."""
    for folder, place in FOLDERS.items():
        for path in sorted((REPOSITORY / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc":
                yield path, f"{place}/{path.relative_to(REPOSITORY / folder).as_posix()}"


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout without what is made in it, in a folder whose name has a blank and Chinese characters."""
    copy = tmp_path_factory.mktemp("packaging") / "my 项目"

    def ignore(folder: str, names: list[str]) -> set[str]:
        made = {name for name in names if name.endswith((".egg-info", ".pyc", "_cache")) or name == "__pycache__"}
        return made | (NOT_SOURCES & set(names) if Path(folder) == REPOSITORY else set())

    shutil.copytree(REPOSITORY, copy, ignore=ignore)
    return copy


@pytest.fixture(scope="session")
def sdist(checkout: Path) -> Path:
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", "../dist", cwd=checkout)
    (built,) = (checkout.parent / "dist").glob("*.tar.gz")
    return built


@pytest.fixture(scope="session")
def wheel(sdist: Path) -> Path:
    """The wheel as it is built from the sdist, so that what the sdist lacks is missed."""
    unpacked = sdist.parent / "unpacked"
    with tarfile.open(sdist) as archive:
        if hasattr(tarfile, "data_filter"):
            archive.extractall(unpacked, filter="data")
        else:  # before 3.10.12
            archive.extractall(unpacked)
    (folder,) = unpacked.iterdir()
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", sdist.parent, cwd=folder)
    (built,) = sdist.parent.glob("*.whl")
    return built


class Installed:
    """A virtual environment of its own that sees the dependencies of the one that runs the tests."""

    def __init__(self, folder: Path, *pip_install: str | Path) -> None:
        venv.create(folder, with_pip=False)
        self.bin = folder / "bin"
        self.python = self.bin / "python"
        ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
        self.site_packages = Path(run(self.python, "-c", ask, cwd=folder).stdout.strip())
        # A .pth file adds the outer packages but reads none of their .pth files: an editable oelm-jobs stays out there.
        (self.site_packages / "outer.pth").write_text(sysconfig.get_path("purelib") + "\n")
        options = ("--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed", "--quiet")
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", self.python)
        run(*pip, "install", *options, *pip_install, cwd=folder)


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("wheel") / "venv", wheel)


@pytest.fixture(scope="session")
def editable(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("editable") / "venv", "--editable", checkout)


def test_every_package_of_the_tree_is_listed() -> None:
    listed = set(setup_cfg()["options"]["packages"].split())
    held = {place.rpartition("/")[0].replace("/", ".") for path, place in source_files() if path.suffix == ".py"}
    assert held == listed


def test_the_wheel_holds_every_source_file_and_only_oelm_jobs(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0].partition("-")[0] for name in held} == {"oelm_jobs"}
    assert {place for _, place in source_files()} - held == set()
    assert not [name for name in held if name.endswith(".pyc") or "__pycache__" in name]


def test_the_wheel_carries_the_text_and_its_licence(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    for name in ("austen.txt.xz", "gpt2-vocab.bpe", "README.md"):
        assert archive.read(f"oelm_jobs/text/{name}") == (REPOSITORY / "oelm_jobs" / "text" / name).read_bytes()
    assert [name for name in archive.namelist() if name.endswith("LICENSE")]
    (metadata,) = [archive.read(name).decode() for name in archive.namelist() if name.endswith("METADATA")]
    assert "Requires-Python: >=3.10" in metadata
    assert "License" in metadata and "MIT" in metadata


def test_the_sdist_holds_what_tests_and_the_makefile_need(sdist: Path, checkout: Path) -> None:
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    for folder in ("tests", "jobs", "docs", "benchmarks", "tools", ".ci", ".github"):
        expected = {path.relative_to(checkout).as_posix() for path in (checkout / folder).rglob("*") if path.is_file()}
        assert expected - held == set()
    assert {"CHANGELOG.md", "CONTRIBUTING.md", "Makefile", "LICENSE", "pyproject.toml", "setup.cfg", "setup.py"} <= held
    made = (".venv", ".git/", "models/", "data/", "experiments/")
    assert not [name for name in held if name.endswith(".pyc") or name.startswith(made)]


@pytest.mark.parametrize("way", ["installed", "editable"])
def test_an_installation_works_from_another_folder(way: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    environment: Installed = request.getfixturevalue(way)
    done = run(environment.bin / "oelm-data", "demo", "--vocab", "1024", cwd=tmp_path)
    assert "1,517,799 tokens" in done.stdout
    assert (tmp_path / "data" / "demo" / "manifest.json").exists()
    assert "--dry-run" in run(environment.bin / "oelm-submit", "--help", cwd=tmp_path).stdout


@pytest.mark.parametrize("way", ["installed", "editable"])
def test_an_installation_finds_the_folders_of_the_top_level(
    way: str, request: pytest.FixtureRequest, checkout: Path, tmp_path: Path
) -> None:
    environment: Installed = request.getfixturevalue(way)
    program = (
        "import pathlib, oelm_jobs, oelm_jobs.train, oelm_jobs.analysis, oelm_jobs.templates\n"
        "for module in (oelm_jobs, oelm_jobs.train, oelm_jobs.analysis, oelm_jobs.templates):\n"
        "    print(pathlib.Path(module.__file__).resolve().parent)\n"
    )
    places = [Path(line) for line in run(environment.python, "-c", program, cwd=tmp_path).stdout.splitlines()]
    if way == "editable":
        assert places == [checkout / folder for folder in FOLDERS]
    else:
        assert places == [environment.site_packages / place for place in FOLDERS.values()]
        assert not [name for name in ("train", "analysis", "templates") if (environment.site_packages / name).exists()]


def test_every_console_script_starts(installed: Installed, tmp_path: Path) -> None:
    entries = setup_cfg()["options.entry_points"]["console_scripts"].strip().splitlines()
    scripts = [entry.split(" = ")[0] for entry in entries]
    failed = {script: run(installed.bin / script, "--help", cwd=tmp_path, check=False).stderr for script in scripts}
    assert {script: error.strip().splitlines()[-1:] for script, error in failed.items() if error} == {}


def test_every_command_has_its_dashed_name() -> None:
    """As the README and the help of ``oelm`` say of all of them."""
    entries = setup_cfg()["options.entry_points"]["console_scripts"].strip().splitlines()
    dashed = [f"oelm-{name} = oelm_jobs.cli.{name}:main" for name in COMMANDS]
    assert entries == ["oelm = oelm_jobs.cli.main:main", *dashed]


def test_every_import_of_the_package_is_a_declared_dependency() -> None:
    """What the code imports and setup.cfg does not name would be missing on a fresh machine."""
    requirements = setup_cfg()["options"]["install_requires"].strip().splitlines()
    declared = {re.match(r"[\w-]+", line.strip()).group().lower() for line in requirements}  # type: ignore[union-attr]
    optional = {
        "mlflow",
        "pandas",
        "pyarrow",
        "torch",
        "wandb",
        "tensorboard",
        "tomllib",
    }  # tomllib: tomli before Python 3.11
    own = {"oelm_jobs", "train", "analysis", "agent"}  # on a server the agent is a package of its own
    missing: dict[str, set[str]] = {}
    for path, _ in source_files():
        if path.suffix != ".py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                tops = {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                tops = {node.module.split(".")[0]}
            else:
                continue
            unknown = {top for top in tops if top.lower() not in declared | optional | own} - sys.stdlib_module_names
            if unknown:
                missing.setdefault(str(path.relative_to(REPOSITORY)), set()).update(unknown)
    assert missing == {}

"""Tests of what is built and installed: wheel, sdist and editable, used from another folder."""

from __future__ import annotations

import ast
import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from oelm_jobs import __version__
from oelm_jobs.cli.main import COMMANDS
from tests.support import write_tokens

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


def applies(requirement: Requirement, extra: str = "") -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def with_dependencies(requirements: Iterable[str]) -> dict[str, metadata.Distribution]:
    """Return the distributions that pip would install for these requirements, as the suite's environment has them."""
    found: dict[str, metadata.Distribution] = {}
    wanted = [(Requirement(text), "") for text in requirements]
    while wanted:
        requirement, extra = wanted.pop()
        if not applies(requirement, extra):
            continue
        name = canonicalize_name(requirement.name)
        if name in found and not requirement.extras:
            continue
        found[name] = metadata.distribution(name)
        needed = [Requirement(text) for text in found[name].requires or ()]
        wanted += [(each, extra) for each in needed for extra in ("", *requirement.extras)]
    return found


class Installed:
    """A virtual environment of its own with what the distribution asks for and nothing else. ``PACKAGED_CLIENT`` names
    one into which pip has installed the wheel (tools/dist.sh).
    """

    def __init__(self, folder: Path, *pip_install: str | Path) -> None:
        self.bin = folder / "bin"
        self.python = self.bin / "python"
        if pip_install:
            venv.create(folder, with_pip=False)
        ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
        self.site_packages = Path(run(self.python, "-c", ask, cwd=folder).stdout.strip())
        if not pip_install:
            return
        self._link(with_dependencies(["setuptools", "wheel"]))  # which pip builds an editable one with
        options = ("--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed", "--quiet")
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", self.python)
        run(*pip, "install", *options, *pip_install, cwd=folder)
        (itself,) = metadata.distributions(name="oelm-jobs", path=[str(self.site_packages)])
        self._link(with_dependencies(itself.requires or ()))

    def _link(self, distributions: dict[str, metadata.Distribution]) -> None:
        """Put links to installed distributions into this environment: copies would take a minute."""
        for distribution in distributions.values():
            for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
                if not (self.site_packages / top).exists():
                    (self.site_packages / top).symlink_to(str(distribution.locate_file(top)))


@pytest.fixture(scope="session")
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The client: the wheel without extras."""
    if folder := os.environ.get("PACKAGED_CLIENT"):
        return Installed(Path(folder).absolute())
    return Installed(tmp_path_factory.mktemp("wheel") / "venv", request.getfixturevalue("wheel"))


@pytest.fixture(scope="session")
def editable(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("editable") / "venv", "--editable", checkout)


PROGRAM = """
factors = ["rate"]
seeds = [1]
[program]
command = "python climb.py {settings}"
[metrics]
lines = ["step {step}: loss {loss}"]
goal = { loss = "minimize" }
[groups]
low = { rate = 1 }
high = { rate = 2 }
[hypotheses]
H1 = { metric = "loss", group = "high", against = "low", reduction = [0.1, 1.0] }
"""
TRAINER = """
factors = ["model_type"]
seeds = [1]
[train]
data_path = "data/tiny/train.bin"
vocab_size = 64
seq_len = 16
global_batch = 4
max_steps = 4
[groups]
gpt = { model_type = "gpt" }
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a study of each kind, and the data of both."""
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "climb.toml").write_text(PROGRAM)
    (tmp_path / "jobs" / "trainer.toml").write_text(TRAINER)
    (tmp_path / "climb.py").write_text(
        "import sys\nrate = int(sys.argv[1].partition('=')[2])\n"
        "for step in range(1, 6):\n    print(f'step {step}: loss {5 / step / rate}')\n"
    )
    for name in ("train", "val"):
        write_tokens(tmp_path / "data" / "tiny" / f"{name}.bin", 800, 64)
    return tmp_path


def test_every_package_of_the_tree_is_listed() -> None:
    listed = set(setup_cfg()["options"]["packages"].split())
    held = {place.rpartition("/")[0].replace("/", ".") for path, place in source_files() if path.suffix == ".py"}
    assert held | {"oelm_jobs.jobs"} == listed  # which holds the examples, and no module


def test_the_wheel_holds_every_source_file_and_only_oelm_jobs(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0].partition("-")[0] for name in held} == {"oelm_jobs"}
    assert {place for _, place in source_files()} - held == set()
    assert not [name for name in held if name.endswith(".pyc") or "__pycache__" in name]


def test_the_wheel_carries_the_studies_that_init_makes_and_the_examples(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("oelm_jobs/jobs/")}
    listed = run("git", "ls-files", "jobs", cwd=REPOSITORY).stdout.split()
    assert held == {f"oelm_jobs/{name}" for name in listed if name != "jobs/targets.toml"}


def test_an_installation_makes_a_project_of_an_empty_folder(installed: Installed, tmp_path: Path) -> None:
    run(installed.bin / "oelm", "init", "--study", "reference", cwd=tmp_path)
    assert "study qk_freeze" in run(installed.bin / "oelm", "submit", "--dry-run", cwd=tmp_path).stdout


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


def test_every_console_script_of_the_client_starts(installed: Installed, tmp_path: Path) -> None:
    entries = setup_cfg()["options.entry_points"]["console_scripts"].strip().splitlines()
    scripts = [entry.split(" = ")[0] for entry in entries]
    failed = {script: run(installed.bin / script, "--help", cwd=tmp_path, check=False).stderr for script in scripts}
    assert {script: error.strip().splitlines()[-1:] for script, error in failed.items() if error} == {}


def test_the_client_runs_a_program_and_reports_on_it_without_torch(installed: Installed, project: Path) -> None:
    assert run(installed.python, "-c", "import torch", cwd=project, check=False).returncode == 1
    run(installed.bin / "oelm-submit", "--study", "climb", "--wait", cwd=project)
    status = run(installed.bin / "oelm-status", "--study", "climb", cwd=project).stdout
    assert status.count("DONE") == 2
    report = run(installed.bin / "oelm-report", "--study", "climb", "--plot", cwd=project).stdout
    assert "MET (ONE SEED)" in report
    assert list((project / "experiments" / "climb").rglob("*.png"))


def test_the_client_refuses_to_train_without_torch_before_anything_is_queued(
    installed: Installed, project: Path
) -> None:
    done = run(installed.bin / "oelm-submit", "--study", "trainer", cwd=project, check=False)
    said = " ".join(done.stderr.split())
    assert done.returncode == 2 and "Traceback" not in said
    assert "has no torch, which the built-in trainer needs; nothing was queued" in said
    assert "-m pip install 'oelm-jobs[train]'" in said
    listed = json.loads(run(installed.bin / "oelm-status", "--json", cwd=project).stdout)
    assert listed["runs"] == [] and not (project / "models").exists()
    doctor = run(installed.bin / "oelm-doctor", cwd=project, check=False)
    assert doctor.returncode and "No module named 'torch'" in doctor.stdout
    assert "-m pip install 'oelm-jobs[train]'" in " ".join(doctor.stdout.split())


@pytest.mark.parametrize(("extra", "asked"), [("", False), ("train", True), ("all", True)])
def test_torch_comes_with_the_extras_that_say_so(installed: Installed, extra: str, asked: bool) -> None:
    (itself,) = metadata.distributions(name="oelm-jobs", path=[str(installed.site_packages)])
    requirements = [Requirement(text) for text in itself.requires or ()]
    extras = {extra}
    for each in requirements:
        if each.name == "oelm-jobs" and applies(each, extra):
            extras |= each.extras
    assert ("torch" in {each.name for each in requirements if any(applies(each, one) for one in extras)}) == asked


def test_every_command_has_its_dashed_name() -> None:
    """As the README and the help of ``oelm`` say of all of them."""
    entries = setup_cfg()["options.entry_points"]["console_scripts"].strip().splitlines()
    dashed = [f"oelm-{name} = oelm_jobs.cli.{name.replace('-', '_')}:main" for name in COMMANDS]
    assert entries == ["oelm = oelm_jobs.cli.main:main", *dashed]


def test_every_import_of_the_package_is_a_declared_dependency() -> None:
    """What the code imports and setup.cfg does not name would be missing on a fresh machine."""
    requirements = setup_cfg()["options"]["install_requires"].strip().splitlines()
    declared = {re.match(r"[\w-]+", line.strip()).group().lower() for line in requirements}
    declared |= {"yaml"} if "pyyaml" in declared else set()
    optional = {"mlflow", "pandas", "pyarrow", "torch", "wandb", "tomllib"}  # extras; tomli before Python 3.11
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


def test_the_version_is_said_in_one_place(wheel: Path, sdist: Path) -> None:
    """All else takes it from there; the changelog's newest section is about it."""
    assert setup_cfg()["metadata"]["version"] == "attr: oelm_jobs.__version__"
    assert wheel.name.startswith(f"oelm_jobs-{__version__}-") and sdist.name == f"oelm_jobs-{__version__}.tar.gz"
    sections = re.findall(
        r"^## \[(.*)\] - (unreleased|\d{4}-\d\d-\d\d)$", (REPOSITORY / "CHANGELOG.md").read_text(), re.M
    )
    assert sections and sections[0][0] == __version__


def test_an_index_would_take_both(wheel: Path, sdist: Path) -> None:
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist, cwd=wheel.parent)

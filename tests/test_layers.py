"""The layers of docs/architecture.md: imports point downward, heavy libraries are imported where they are used."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from oelm_jobs.train import config as trainer

from oelm_jobs.agent.states import State
from oelm_jobs.store import ACCEPTED, Store
from tests.support import REPOSITORY, make_run
from tools import layers
from tools.layers import imported, modules, part_of


def layers_on_the_page() -> dict[str, list[list[str]]]:
    """Return for each package its parts as docs/architecture.md shows them, a list for each row, from the top; one may
    import what lies in a lower row, and itself.
    """
    page = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    client, others = (
        [re.split(r" {2,}", line) for line in block.splitlines()]
        for block in re.findall(r"```\n(.*?)```", page, re.DOTALL)
    )
    columns = {"oelm_jobs": [row[0] for row in client]}
    for number, name in enumerate(others[0]):
        columns[f"oelm_jobs.{name}"] = [row[number] for row in others[1:] if len(row) > number]
    return {package: [cell.split() for cell in cells] for package, cells in columns.items()}


LAYERS = layers_on_the_page()


@pytest.mark.parametrize("package", LAYERS)
def test_every_part_of_a_package_has_its_layer(package: str) -> None:
    rows = LAYERS[package]
    listed = [part for row in rows for part in row]
    parts = {part_of(name, package) for name in modules()} - {""}
    if package == "oelm_jobs":
        parts |= {"templates"}
    assert sorted(listed) == sorted(parts), "give it a layer in docs/architecture.md"


@pytest.mark.parametrize("name", modules())
def test_imports_point_downward(name: str) -> None:
    for package, rows in LAYERS.items():
        layer = {part: number for number, row in enumerate(rows) for part in row}
        own = part_of(name, package)
        for each in imported(name):
            other = part_of(each, package)
            if own and other and own != other:
                assert layer[other] > layer[own], f"{name} imports {each}"


def test_no_modules_import_each_other() -> None:
    graph = {
        name: {each for each in imported(name, for_types=False) if not each.startswith(name + ".")}
        for name in modules()  # a package names what is in it
    }
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " imports ".join([*above[above.index(name) :], name])
        if name not in done:
            for each in graph[name]:
                visit(each, (*above, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("package", ["oelm_jobs.train", "oelm_jobs.agent"])
def test_what_runs_on_the_server_imports_nothing_of_the_toolkit(package: str) -> None:
    for name in modules():
        if name.startswith(package):
            assert all(each.startswith(package) for each in imported(name)), name


def test_the_agent_uses_the_standard_library_only() -> None:
    for name, path in modules().items():
        if name.startswith("oelm_jobs.agent"):
            for node in ast.walk(ast.parse(path.read_text())):
                several = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                several += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
                for each in several:  # where it lies on a server it is a package of its own
                    assert each.split(".")[0] in (*sys.stdlib_module_names, "agent"), f"{path} imports {each}"


def test_mypy_knows_what_lies_in_the_package_once_installed() -> None:
    typed = REPOSITORY / "tools" / "typed"
    wanted = {
        each: f"from {each.partition('.')[2]} import *\n"
        for package in (f"oelm_jobs.{folder}." for folder in layers.BESIDE)
        for name in modules()
        if not name.startswith(package)
        for each in imported(name)
        if each.startswith(package)
    }
    found = {
        ".".join(path.relative_to(typed).with_suffix("").parts): path.read_text(encoding="utf-8")
        for path in typed.rglob("*.pyi")
        if path.name != "__init__.pyi"
    }
    assert found == wanted, "each has that line as its file in tools/typed; then remove .mypy_cache, which remembers"


def test_the_picture_of_the_layers_is_that_of_the_code() -> None:
    assert layers.PICTURE.read_text(encoding="utf-8") == layers.picture(), "draw it anew: python tools/layers.py"


def test_all_of_the_agent_travels() -> None:
    from oelm_jobs.code import snapshot

    top = REPOSITORY / "oelm_jobs" / "agent"
    sent = {name for name, _ in snapshot.agent().files}
    assert sent == {f"agent/{path.relative_to(top).as_posix()}" for path in top.rglob("*.py")} | {"__main__.py"}


def test_one_package_of_the_client_knows_the_flags_of_the_trainer() -> None:
    words = {"seed", "resume", "position"}  # of the toolkit, too
    elsewhere = {
        "oelm_jobs.cli.data": {"vocab_size"},  # an option of its own
        "oelm_jobs.importing.roles": {"out_dir", "wandb_run_name"},  # flags of many programs
    }
    for name, path in modules().items():
        is_client = name.startswith("oelm_jobs.") and part_of(name, "oelm_jobs") not in ("agent", "analysis", "train")
        if not is_client or name.startswith("oelm_jobs.programs"):
            continue
        of_trainer = {each for each in imported(name) if part_of(each, "oelm_jobs") == "train"}
        assert of_trainer <= {"oelm_jobs.train", "oelm_jobs.train.vocabulary"}, name
        constants = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
        named = constants & (trainer.FIELDS.keys() - words - elsewhere.get(name, set()))
        assert not named, f"{name} names flags of the trainer: {named}"


@pytest.mark.parametrize("arguments", [["status", "--help"], ["status"], ["submit", "--help"], ["report", "--help"]])
def test_heavy_libraries_are_not_imported_at_start(arguments: list[str], project: Path) -> None:
    program = (
        f"import sys; sys.argv = ['oelm-{arguments[0]}', *{arguments[1:]!r}]\n"
        f"from oelm_jobs.cli.{arguments[0]} import main\n"
        "try:\n    main.main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'matplotlib', 'scipy', 'fabric', 'submitit', 'numpy', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=project, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_help_of_the_status_imports_neither_the_api_nor_what_reads_files() -> None:
    program = (
        "import sys; sys.argv = ['oelm-status', '--help']\n"
        "sys.modules.pop('pathlib', None)  # what finds an editable installation has imported it\n"
        "from oelm_jobs.cli.status import main\n"
        "try:\n    main.main()\nexcept SystemExit:\n    pass\n"
        "print({'pathlib', 'json', 'sqlite3', 'oelm_jobs.project'} & set(sys.modules), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "set()"


def test_a_look_at_runs_that_are_over_imports_nothing_that_asks_targets(project: Path) -> None:
    with Store() as store:
        run = make_run(project, "a")
        store.intend(project, "local", str(project), "t", "{}", [run], lambda known: None)
        store.answer("t", ACCEPTED, states={run.run_dir: (State.DONE, "")})
    program = (
        "import sys; sys.argv = ['oelm-status']\n"
        "from oelm_jobs.cli.status import main\n"
        "try:\n    main.main()\nexcept SystemExit:\n    pass\n"
        "asks = {'agent.processes', 'connections', 'schedulers', 'targets.files', 'runs.moving'}\n"
        "asks = {f'oelm_jobs.{name}' for name in asks} | {'msgspec', 'concurrent.futures', 'rich', 'tabulate'}\n"
        "print(asks & set(sys.modules), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=project, capture_output=True, text=True, check=True)
    assert "DONE" in done.stdout and done.stderr.strip() == "set()"


def test_reading_a_targets_file_imports_nothing_of_a_submission(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "targets.toml").write_text('[cluster]\nkind = "slurm"\n[cluster.sbatch]\ntime = "8:00:00"\n')
    program = (
        "import sys; from pathlib import Path; from oelm_jobs.targets.files import load_targets\n"
        "assert load_targets(Path.cwd())['cluster'].slurm.word('time')\n"
        "print({'oelm_jobs.spec.study', 'oelm_jobs.agent.slurm', 'subprocess'} & set(sys.modules))\n"
    )
    found = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"

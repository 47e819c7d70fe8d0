"""The site builds strictly; commands, options and files of its pages exist."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from oelm_jobs import tomlfile
from oelm_jobs.cli.main import COMMANDS
from oelm_jobs.study import sweep
from oelm_jobs.study.files import read_study
from oelm_jobs.targets.files import read_targets
from tests.support import REPOSITORY, TINY_STUDY, stand_in_for_python
from tests.tutorial import Reader

DOCS = REPOSITORY / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


def blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of a page that are in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def named(page: Path) -> str:
    """Return a page's path below docs/, by which tests are called."""
    return str(page.relative_to(DOCS))


def commands(page: Path) -> list[list[str]]:
    """Return the words of each command of the toolkit that a page's console blocks have."""
    typed = [line[2:] for block in blocks(page, "console") for line in block.splitlines() if line.startswith("$ ")]
    words = [shlex.split(line, comments=True) for line in typed]
    return [some for some in words if re.fullmatch(r"oelm(-[a-z-]+)?", some[0])]


def mentions(page: Path) -> list[list[str]]:
    """Return the words of each command of the toolkit that a page's sentences and tables name."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    words = [shlex.split(text, comments=True) for text in re.findall(r"`(oelm[- ][^`\n]*)`", prose)]
    return [some for some in words if not re.fullmatch(r"oelm-jobs|oelm[- ][A-Z]+", " ".join(some))]


def parse(words: list[str]) -> None:
    """Have click read a command line as the command would, without running it.

    Raises:
        click.UsageError: There is no such command or option, or an option's value is none of its choices.
    """
    name, arguments = (words[0][5:], words[1:]) if "-" in words[0] else (words[1], words[2:])
    if name not in COMMANDS:
        raise click.UsageError(f"no command oelm-{name}")
    command: click.Command = importlib.import_module(f"oelm_jobs.cli.{name.replace('-', '_')}").main
    if isinstance(command, click.Group) and arguments:
        if arguments[0] not in command.commands:
            raise click.UsageError(f"no command oelm-{name} {arguments[0]}")
        command, arguments = command.commands[arguments[0]], arguments[1:]
    context = click.Context(command, **command.context_settings)
    values, _, _ = command.make_parser(context).parse_args(arguments)
    for param in command.params:
        value = values.get(param.name or "")
        is_placeholder = isinstance(value, str) and value.isupper()
        if isinstance(param.type, click.Choice) and isinstance(value, str) and not is_placeholder:
            param.type.convert(value, param, context)


def test_what_does_not_exist_is_noticed() -> None:
    for line in ("oelm frobnicate", "oelm-submit --grp x", "oelm submit --mode quickly", "oelm data mke x"):
        with pytest.raises(click.UsageError):
            parse(shlex.split(line))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_command_and_option_of_a_page_exists(page: Path) -> None:
    for words in commands(page):
        try:
            parse(words)
        except click.UsageError as error:
            pytest.fail(f"{shlex.join(words)}: {error.format_message()}")
    for words in mentions(page):
        try:
            parse(words)
        except click.BadOptionUsage:  # an option that is named without its value
            pass
        except click.UsageError as error:
            pytest.fail(f"{shlex.join(words)}: {error.format_message()}")


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_study_and_targets_file_of_a_page_can_be_read(page: Path, tmp_path: Path) -> None:
    for number, text in enumerate(blocks(page, "toml")):
        path = tmp_path / f"shown{number}.toml"
        path.write_text(text, encoding="utf-8")
        content = tomlfile.tables(path)
        if "groups" in content and "factors" in content:
            assert read_study(path).groups
        elif content and all(isinstance(value, dict) and "kind" in value for value in content.values()):
            assert read_targets(tomlfile.read(path))


def test_the_sweep_that_is_shown_can_be_made_as_a_grid_too(tmp_path: Path) -> None:
    shown = next(text for text in blocks(DOCS / "howto" / "sweeps.md", "toml") if text.startswith("[sweep]"))
    drawn = re.search(r"\{ distribution = .*\}", shown)
    assert drawn
    as_grid = re.sub(r"run_cap = .*", "", shown.replace('"random"', '"grid"')).replace(drawn[0], "{ values = [1e-3] }")
    for text, count in ((shown, 20), (as_grid, 3)):
        path = tmp_path / "swept.toml"
        path.write_text(TINY_STUDY + text, encoding="utf-8")
        swept = read_study(path).sweep
        assert swept and len(sweep.settings(swept)) == count, text


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_script_of_a_page_has_the_form_of_its_language(page: Path) -> None:
    for text in blocks(page, "python"):
        compile(text, str(page), "exec")
    for text in blocks(page, "bash"):
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)


@pytest.mark.slow
def test_every_command_of_the_tutorial_that_needs_no_other_machine_runs(
    oelm, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the page's order, with its files; what trains models is stood in for. tests/ssh, tests/slurm have the rest."""
    mine = root / "mine"
    mine.mkdir()
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "reader")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "reader@example.org")
    python = stand_in_for_python(root / "bin" / "python")
    reader = Reader(mine, oelm, instead={'kind = "local"': f'kind = "local"\npython = "{python}"'})
    reader.read()
    assert len(reader.given) > 25
    states = {name: row["state"] for name, row in reader.rows().items()}
    assert len(states) == 12 and set(states.values()) == {"DONE"}, states


@pytest.mark.slow
def test_the_site_builds_strictly(tmp_path: Path) -> None:
    """No link, anchor or picture that leads nowhere, no page that no menu leads to."""
    if importlib.util.find_spec("material") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs mkdocs-material (the docs extra)")
    site = tmp_path / "site"
    build = [sys.executable, "-m", "mkdocs", "build", "--strict"]  # --quiet would count no warnings
    done = subprocess.run(
        [*build, "--site-dir", str(site)],
        cwd=REPOSITORY,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (site / "index.html").exists()
    assert '<html lang="zh' in (site / "tutorial.zh" / "index.html").read_text("utf-8")
    elsewhere = re.findall(r'(?:src|<link[^>]*href)="(https?://[^"]+)"', (site / "index.html").read_text("utf-8"))
    assert not elsewhere, "the site loads something from another machine"

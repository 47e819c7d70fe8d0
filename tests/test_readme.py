"""The README and the pages behind it can't lie: what can run here is run, options and files that they name exist."""

from __future__ import annotations

import importlib
import json
import re
import shlex
from pathlib import Path

import pytest

from oelm_jobs.cli.main import COMMANDS
from oelm_jobs.study.files import read_study
from tests.support import REPOSITORY, TINY_STUDY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
HOWTO = REPOSITORY / "docs" / "howto"
PAGES = [README, *((HOWTO / f"{name}.md").read_text(encoding="utf-8") for name in ("everyday", "trainer", "target"))]
"""The README, and the pages that go on from it with the reference experiment, in the order in which they are read."""
BLOCKS = [block for page in PAGES for block in re.findall(r"^```console\n(.*?)^```", page, re.MULTILINE | re.DOTALL)]
IN_BLOCKS = [line[2:] for block in BLOCKS for line in block.splitlines() if line.startswith("$ ")]
IN_TEXT = [text for page in PAGES for text in re.findall(r"`((?:oelm|python -m train)[^`\n]*)`", page)]
ELSEWHERE = ("git ", "make ", "pip ", "oelm demo", "oelm-demo")
"""Commands that a fresh clone or environment runs (`make demo` and `make test` themselves), not a test inside it."""


def runnable(command: str) -> bool:
    """Say whether a command can run in a test: no placeholder in capitals, nothing endless, no other machine."""
    elsewhere = re.search(r"\b[A-Z]{2,}\b|--watch|box|cluster|gpu43|oelm[ -]clean", command)
    return not elsewhere and not command.startswith(ELSEWHERE)


def test_the_pages_have_commands() -> None:
    assert len(IN_BLOCKS) >= 10 and len(IN_TEXT) >= 30


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 200


def test_every_installed_command_has_its_section_in_the_reference() -> None:
    lines = (REPOSITORY / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
    installed = re.findall(r"^    (oelm\S*) = oelm_jobs", (REPOSITORY / "setup.cfg").read_text(), re.MULTILINE)
    assert len(installed) == len(COMMANDS) + 1
    installed.remove("oelm")
    assert [name for name in installed if not re.search(rf"^#+ {name}$", lines, re.MULTILINE)] == []


def write_old_runs(folder: Path) -> None:
    """Write two runs as another program leaves them; the learning rate of one fell, that of the other did not."""
    for width, ended_at in ((64, 1e-4), (256, 1e-3)):
        run = folder / f"width{width}"
        run.mkdir(parents=True)
        (run / "config.json").write_text(json.dumps({"width": width, "seed": 1}))
        (run / "metrics.csv").write_text(f"step,val_loss,lr\n10,3.5,1e-3\n20,3.1,{ended_at}\n")


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_every_command_of_the_readme_and_its_pages_runs(oelm, project: Path) -> None:
    """In their order, in a project whose default study has the reference experiment's groups and trains for seconds."""
    (project / "jobs" / "tiny.toml").unlink()
    (project / "jobs" / "qk_freeze.toml").write_text("default = true\n" + TINY_STUDY)
    (project / "jobs" / "qk_init.toml").write_text(TINY_STUDY)
    (project / "train.py").write_text("import sys; print('step 1: loss 2.31', sys.argv)\n")
    write_old_runs(project / "old_runs")
    oelm("submit", "--wait")
    for command in filter(runnable, dict.fromkeys([*IN_BLOCKS, *IN_TEXT])):
        words = shlex.split(command, comments=True)
        if not words[0].startswith("oelm") or (len(words) == 1 and "-" not in words[0]):
            continue
        name, arguments = (words[0][5:], words[1:]) if "-" in words[0] else (words[1], words[2:])
        if "--rerun" in arguments or name == "cancel":
            arguments.append("--yes")  # which a reader is asked on a terminal
        done = oelm(name, *arguments, check=False)
        assert done.returncode == 0 or (name == "data" and "demo" not in arguments), f"{command}: {done.stderr}"
        if "old_runs/" in arguments:
            assert "your arms ended at different learning rates" in done.stdout
        if name == "submit" and "--dry-run" not in arguments:
            oelm("submit", "--wait", check=False)


@pytest.mark.parametrize("command", [text for text in sorted({*IN_BLOCKS, *IN_TEXT}) if text.startswith("oelm")])
def test_every_option_that_the_pages_name_exists(command: str) -> None:
    words = shlex.split(command, comments=True)
    if words == ["oelm"]:
        return
    name = words[0].partition("-")[2] or words[1]
    assert name in COMMANDS, command
    main = importlib.import_module(f"oelm_jobs.cli.{name.replace('-', '_')}").main
    known = {option for param in main.params for option in param.opts} | {"--help"}
    for sub in getattr(main, "commands", {}).values():
        known |= {option for param in sub.params for option in param.opts}
    for word in words[: words.index("--")] if "--" in words else words:
        if word.startswith("-"):
            assert word.partition("=")[0] in known, f"{command}: {word}"


def test_every_link_and_picture_of_the_readme_exists() -> None:
    paths = re.findall(r"\]\(([^)#]+)|src=\"([^\"]+)", README)
    assert len(paths) > 20
    for path in map("".join, paths):
        assert path.startswith("http") or (REPOSITORY / path).exists(), path


def test_the_readme_leads_to_every_page() -> None:
    docs = REPOSITORY / "docs"
    pages = {f"docs/{page.relative_to(docs)}" for page in docs.rglob("*.md") if not page.name.endswith(".zh.md")}
    assert sorted(pages - set(re.findall(r"\]\(([^)#]+)", README))) == ["docs/index.md", "docs/release.md"]


def test_every_place_and_command_that_contributing_names_exists() -> None:
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = re.findall(r"`((?:oelm_jobs|analysis|train|tests|tools)/[\w./]*)`|\]\(([^)#:]+)\)", text)
    assert len(paths) > 20
    for path in map("".join, paths):
        assert (REPOSITORY / path).exists(), path
    targets = re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"\bmake ([a-z]+)\b", text)) <= set(targets)


def test_the_study_that_the_page_on_the_trainer_shows_is_the_demo() -> None:
    shown = re.search(r"```toml\n(.*?)```", (HOWTO / "trainer.md").read_text(encoding="utf-8"), re.DOTALL)
    assert shown is not None
    assert shown.group(1) == (REPOSITORY / "jobs" / "demo.toml").read_text()
    assert read_study(REPOSITORY / "jobs" / "demo.toml").groups


def test_both_kinds_of_study_on_the_first_screen_can_be_read(tmp_path: Path) -> None:
    trained, program = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)[:2]
    for name, text in (("trained", trained), ("program", program)):
        (tmp_path / f"{name}.toml").write_text(text)
    assert read_study(tmp_path / "trained.toml").program is None
    assert read_study(tmp_path / "program.toml").program is not None


def test_the_readme_mentions_every_command() -> None:
    for name in COMMANDS:
        assert f"oelm-{name}" in README or f"oelm {name}" in README, name

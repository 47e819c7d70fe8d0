"""Completion as bash, zsh and fish ask for it, and what is offered where something is broken."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from oelm_jobs.cli.main import COMMANDS
from oelm_jobs.folders import index_path
from oelm_jobs.store import Store
from tests.support import MOST_PATIENCE_S, REPOSITORY, make_run, needs

SCRIPTS = REPOSITORY / "oelm_jobs" / "cli"
CTRL_T, CTRL_U = "\x14", "\x15"
SHOW = {
    "bash": """bind -x '"\\C-t": echo "<<$READLINE_LINE>>"'\nbind 'set enable-bracketed-paste off'\n""",
    "zsh": "show() { print -r -- \"<<$BUFFER>>\" }\nzle -N show\nbindkey '^T' show\nunset zle_bracketed_paste\n",
}
"""What makes a shell print the line that is being typed, at Ctrl-T."""


@pytest.fixture
def runs(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That project with runs in the index, as the current folder; its commands are on PATH."""
    bin_folder = project.parent / "bin"
    bin_folder.mkdir()
    for name in ("oelm", *(f"oelm-{name}" for name in COMMANDS)):
        module = name.partition("-")[2] or "main"
        program = bin_folder / name
        program.write_text(f"#!{sys.executable}\nfrom oelm_jobs.cli.{module} import main\nmain()\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_folder}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.chdir(project)
    fill(project, ["gpt_base", "oelm_freeze", "oelm_freeze-s43", "oelm_no_freeze"])
    (project / "jobs" / "targets.toml").write_text('[box]\nkind = "ssh"\nhost = "h"\n["me@host:22"]\nkind = "ssh"\n')
    return project


def fill(project: Path, names: list[str], study: str = "tiny") -> None:
    """Put runs into the index."""
    with Store() as store:
        several = [make_run(project, name, study=study, group=re.sub(r"-s\d+$", "", name)) for name in names]
        store.intend(project, "local", str(project), f"token-{study}", "{}", several, lambda known: None)


class Shell:
    """An interactive shell with the completion script of ``oelm completion``."""

    def __init__(self, name: str, home: Path) -> None:
        needs(name)
        rc = home / {"bash": "bashrc", "zsh": ".zshrc"}[name]
        rc.write_text(f'PS1="> "\neval "$(oelm completion {name})"\n{SHOW[name]}echo ready\n')
        argv = ["bash", "--noprofile", "--rcfile", str(rc), "-i"] if name == "bash" else ["zsh", "-i"]
        environment = {**os.environ, "HOME": str(home), "ZDOTDIR": str(home), "TERM": "dumb", "COLUMNS": "200"}
        self._terminal, theirs = pty.openpty()
        self._process = subprocess.Popen(
            argv, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
        )
        os.close(theirs)
        read_until(self._terminal, "ready\r?\n.*> ")

    def end(self) -> None:
        """End it."""
        os.close(self._terminal)
        self._process.send_signal(signal.SIGHUP)
        self._process.wait()

    def typed(self, text: str) -> str:
        """Return what the line becomes when a text (with tabs) is typed."""
        os.write(self._terminal, (text + CTRL_T + CTRL_U).encode())
        said = read_until(self._terminal, "<<.*>>")
        assert "Traceback" not in said and "rror" not in said, said
        return str(re.findall("<<(.*)>>", said)[-1])


@pytest.fixture(params=["bash", "zsh"])
def shell(request: pytest.FixtureRequest, runs: Path, tmp_path: Path) -> Iterator[Shell]:
    """Each of the shells that edit a line in a terminal."""
    (tmp_path / "home").mkdir()
    started = Shell(request.param, tmp_path / "home")
    yield started
    started.end()


def read_until(terminal: int, pattern: str) -> str:
    """Read what appears on a terminal until a pattern has."""
    said = b""
    while not re.search(pattern, said.decode(errors="replace"), re.DOTALL):
        readable, _, _ = select.select([terminal], [], [], min(60.0, MOST_PATIENCE_S))
        assert readable, f"waited in vain for {pattern!r} after {said!r}"
        said += os.read(terminal, 65536)
    return said.decode(errors="replace")


def offered(line: str, **environment: str) -> list[str]:
    """Return what a command offers for a line, and see that it says nothing else."""
    asked = {**os.environ, **environment, "COMP_LINE": line, "_OELM_COMPLETE": "bash"}
    done = subprocess.run([line.split()[0]], env=asked, capture_output=True, text=True, timeout=60)
    assert done.stderr == "" and done.returncode == 0
    return [row.split("\t")[1] for row in done.stdout.splitlines()]


LINES = [
    ("oelm stat\t", "oelm status "),
    ("oelm-submit --gr\t", "oelm-submit --group"),  # or --groups
    ("oelm-submit --stu\tti\t", "oelm-submit --study tiny "),
    ("oelm submit --study tiny --group oelm_n\t", "oelm submit --study tiny --group oelm_no_freeze "),
    ("oelm-submit --group gpt_base,oelm_f\t", "oelm-submit --group gpt_base,oelm_freeze "),
    ("oelm-submit --set max_l\t", "oelm-submit --set max_lr="),
    ("oelm-submit --set qk_init=normal_\t", "oelm-submit --set qk_init=normal_scaled "),
    ("oelm-submit --set=use_am\t", "oelm-submit --set=use_amp="),
    ("oelm-logs gpt\t", "oelm-logs gpt_base "),
    ("oelm-logs tiny/oelm_freeze-\t", "oelm-logs tiny/oelm_freeze-s43 "),
    ("oelm-doctor bo\t", "oelm-doctor box "),
    ("oelm-doctor me@host:\t", "oelm-doctor me@host:22 "),
    ("oelm-report --from jo\t", "oelm-report --from jobs/"),
    ("oelm run -- python jobs/ti\t", "oelm run -- python jobs/tiny.toml "),
]


@pytest.mark.slow
def test_a_tab_completes_what_is_typed(shell: Shell) -> None:
    assert {line: shell.typed(line) for line, _ in LINES} == dict(LINES)


@pytest.mark.slow
def test_fish_offers_the_same_with_what_it_means(runs: Path, tmp_path: Path) -> None:
    needs("fish")

    def complete(line: str) -> list[str]:
        program = f"oelm completion fish | source; complete -C'{line}'"
        environment = {**os.environ, "HOME": str(tmp_path)}
        done = subprocess.run(["fish", "-c", program], env=environment, capture_output=True, text=True, timeout=60)
        assert done.stderr == ""
        return done.stdout.splitlines()

    assert complete("oelm stat") == ["status\tShow where runs stand."]
    assert complete("oelm-submit --set max_l") == ["max_lr="]
    assert complete("oelm-submit --set=max_l") == ["--set=max_lr="]
    assert complete("oelm-logs oelm_freeze-") == ["oelm_freeze-s43"]
    assert complete("oelm-doctor ") == ["local", "box", "me@host:22"]
    assert "jobs/" in complete("oelm run -- python jo")


@pytest.mark.slow
def test_of_ten_thousand_runs_no_common_beginning_is_made_up(runs: Path) -> None:
    fill(runs, [f"{group}-s{seed}" for seed in range(2000) for group in ("a", "b")], study="many")
    everything = offered("oelm-status --study many ")
    assert {"a", "b"} <= set(everything)
    of_a = offered("oelm-logs a-s")
    assert len(of_a) < 1000 and {name[3] for name in of_a} > {"0", "9"}  # a shell inserts what all begin with
    assert offered("oelm-logs a-s1999") == ["a-s1999"]


@pytest.mark.slow
def test_nothing_that_is_broken_says_a_word_into_the_line(runs: Path, tmp_path: Path) -> None:
    (runs / "jobs" / "broken.toml").write_text("[train\n")
    assert offered("oelm-submit --group gp") == []  # which study is meant isn't said
    assert offered("oelm-submit --study tiny --group gp") == ["gpt_base"]
    assert offered("oelm-submit --study broken --group g") == []
    assert offered("oelm-submit --study nothing --set m") == []
    (runs / ".oelm" / "studies").mkdir(parents=True, exist_ok=True)
    (runs / ".oelm" / "studies" / "mine.toml").write_text("[settings]\n")
    (runs / "jobs" / "broken.toml").unlink()
    assert offered("oelm-submit --group gp") == ["gpt_base"], "the only one in jobs is meant"
    shutil.rmtree(runs / ".oelm" / "studies")
    (runs / "jobs" / "targets.toml").write_text("nonsense")
    assert offered("oelm-doctor ") == ["local"]
    assert offered('oelm-submit --set "max_l') == ["max_lr="]
    locked = sqlite3.connect(index_path(), isolation_level=None)
    locked.execute("BEGIN EXCLUSIVE")
    assert offered("oelm-status ") == []
    locked.close()
    index_path().write_bytes(b"not a database" * 100)
    assert offered("oelm-status ") == []
    assert "tiny" in offered("oelm-submit --study ", OELM_LANG="xx")
    shutil.rmtree(runs / "jobs")
    assert offered("oelm-status ") == offered("oelm-submit --set ") == []


@pytest.mark.slow
def test_completing_writes_nothing(project: Path, runs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OELM_STATE_DIR", str(tmp_path / "nowhere"))
    assert offered("oelm-status g") == []
    assert not (tmp_path / "nowhere").exists()


def test_every_command_is_completed() -> None:
    from click.testing import CliRunner

    from oelm_jobs.cli.completion import main

    for shell in ("bash", "zsh", "fish"):
        script = CliRunner().invoke(main, [shell]).output
        assert all(f"oelm-{name}" in script for name in COMMANDS) and "COMMANDS" not in script


def test_the_script_for_bash_passes_shellcheck() -> None:
    needs("shellcheck")
    argv = ["shellcheck", "--shell=bash", str(SCRIPTS / "completion.bash")]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout

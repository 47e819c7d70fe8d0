"""What people run by hand on a target: a shell as runs have it, and TensorBoard through a forwarded port."""

from __future__ import annotations

import base64
import random
import shlex
import socket
from collections.abc import Iterable
from pathlib import Path

from ..connections import connect, interpreter, unreached
from ..spec.study import Study
from ..spec.target import Target
from ..stored_run import StoredRun

PROFILE = [
    "[ ! -r /etc/profile ] || . /etc/profile",
    "if [ -r ~/.bash_profile ]; then . ~/.bash_profile",
    "elif [ -r ~/.bash_login ]; then . ~/.bash_login",
    "elif [ -r ~/.profile ]; then . ~/.profile; fi",
]
"""What a login shell reads (bash(1), INVOCATION); one that is told to read a file besides is none."""


def _as_bash(script: str, how: str) -> str:
    """Return a line for any login shell that hands ``script`` to bash.

    It travels in base64: csh has no quoting for what a script may hold.
    """
    return how.replace("SCRIPT", f"printf %s {base64.b64encode(script.encode()).decode()} | base64 -d")


def _home(path: str) -> str:
    """Return a path as a word of bash, ``~`` standing for the home folder there."""
    if path in ("~", "~/"):
        return '"$HOME"'
    return '"$HOME"/' + shlex.quote(path[2:]) if path.startswith("~/") else shlex.quote(path)


def shell(project: Path, target: Target) -> list[str]:
    """Return the words of a command that opens a shell on ``target``: its set-up applied, in its root.

    Raises:
        TargetError: It can't be reached.
    """
    there = unreached(target, project)
    begin = PROFILE if target.login_shell else ["[ ! -f ~/.bashrc ] || . ~/.bashrc"]
    lines = [*begin, f"mkdir -p -- {_home(there.root)}", f"cd -- {_home(there.root)}"]
    lines += [*target.setup, f"PS1={shlex.quote(f'({target.name}) ')}$PS1"]
    line = _as_bash("\n".join(lines) + "\n", "exec bash -c 'exec bash --rcfile <(SCRIPT) -i'")
    return connect(target, project).terminal(line, "-t")


def tensorboard(project: Path, target: Target, study_folder: str, preferred: int) -> tuple[list[str], list[str], int]:
    """Lead a port of this machine to a target; return the words of a command that shows its runs there, of one that
    ends the forwarding afterwards (empty where nothing has to be ended), and the port.

    Args:
        study_folder: Folder of run directories below the target's checkpoint folder; empty for all studies.
        preferred: The port, if it is free.

    Raises:
        TargetError: It can't be reached.
    """
    there = unreached(target, project)
    folder = there.checkpoint_root or f"{there.root}/models/checkpoints"
    folder = f"{folder}/{study_folder}" if study_folder else folder
    port = _free_port(preferred)
    remote = port if not target.host else random.randint(20000, 60000)
    connection = connect(target, project)
    python = _home(interpreter(target))
    board = f"exec {python} -m tensorboard.main --logdir {_home(folder)} --host 127.0.0.1 --port {remote}"
    login = " -l" if target.login_shell else ""
    line = _as_bash("\n".join([*target.setup, board]) + "\n", f"exec bash -c 'exec bash{login} <(SCRIPT)'")
    end = connection.forward(port, remote) if target.host else []
    # -tt: without a terminal there the program would outlive this command.
    return connection.terminal(line, "-tt"), end, port


def study_folder(study: Study, target: str, known: Iterable[StoredRun]) -> str:
    """Return a study's folder below a target's checkpoints, as its known runs have it; empty where they lie in none of
    their own.
    """
    mine = [run for run in known if (run.study, run.target) == (study.name, target)]
    places = {Path(run.run_dir).parent.name for run in mine}
    has_own = places == {study.name} if places else not study.is_default
    return study.name if has_own else ""


def _free_port(preferred: int) -> int:
    """Return ``preferred`` if it is free on this machine's loopback, else one that is."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", preferred))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

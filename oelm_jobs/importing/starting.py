"""Say what a command of a script starts: a program, another script, or a command within nohup, tmux, ssh or sbatch."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..agent.sentences import _
from . import headers, repeating
from .scope import is_known

if TYPE_CHECKING:
    from . import nodes
    from .shell import Shell

STARTERS = frozenset(
    {"accelerate", "apptainer", "colossalai", "composer", "conda", "deepspeed", "fairseq-hydra-train",
     "fairseq-train", "hatch", "horovodrun", "julia", "lightning", "litgpt", "llamafactory-cli", "mamba",
     "micromamba", "mpiexec", "mpirun", "numactl", "pipenv", "pixi", "poetry", "Rscript", "singularity", "taskset",
     "torchrun", "tune", "uv", "xvfb-run"}
)  # fmt: skip
"""Programs that train, or start what does, besides Python's own."""
PYTHON = re.compile(r"(.*/)?python[0-9.]*")
_AROUND = {"nohup": 0, "time": 0, "exec": 0, "setsid": 0, "command": 0, "builtin": 0, "unbuffer": 0, "stdbuf": 0,
           "caffeinate": 0, "coproc": 0, "nice": 0, "ionice": 0, "timeout": 1}  # fmt: skip
"""Programs that start the command behind them, and how many words of their own stand before it."""
_VALUED = {"nice": "n", "ionice": "cn", "stdbuf": "", "timeout": "sk", "exec": "a"}
_SHELLS = frozenset({"bash", "sh", "zsh", "dash"})
_LAUNCHERS = frozenset({"torchrun", "accelerate", "deepspeed"})
_TMUX = frozenset({"new", "new-session", "neww", "new-window", "splitw", "split-window"})
_TMUX_VALUED = "tsncxyeFflp"
_SSH_VALUED = "bcDEeFIiJLlmOopQRSWw"
_NO_RUN = ("pip", "venv", "ensurepip", "http.server", "json.tool", "pytest", "unittest", "wandb", "ipykernel",
           "torch.utils.collect_env", "tensorboard", "tensorboard.main", "virtualenv", "compileall")  # fmt: skip
"""Modules of Python that train nothing."""
_KEYS = re.compile(r"(C-m|Enter|KPEnter|C-j)")


def start(shell: Shell, words: list[str], before: Mapping[str, str], node: nodes.Simple) -> None:
    """Take down what a command starts, or name it as one that has no place in a study."""
    before = dict(before)
    while words:
        name = posixpath.basename(words[0])
        if name in _AROUND:
            words = _behind(words, _VALUED.get(name, ""), _AROUND[name])
        elif name == "env":
            words = _of_env(words, before)
        elif name == "srun":
            words = _of_srun(shell, words, node)
        else:
            break
    if not words:
        return
    if not is_known(words[0]):
        shell.leave(node, _("which program it starts isn't known before it runs"))
        return
    name = posixpath.basename(words[0])
    if name in _SHELLS:
        _shell(shell, words, before, node)
    elif name == "tmux":
        _tmux(shell, words, before, node)
    elif name == "screen":
        _screen(shell, words, before, node)
    elif name == "ssh":
        _ssh(shell, words, before, node)
    elif name == "sbatch":
        _sbatch(shell, words, before, node)
    elif name in ("qsub", "bsub", "oarsub", "pjsub"):
        shell.leave(node, _("submits to another scheduler than Slurm, which no target speaks: give the script itself"))
    elif name in ("xargs", "parallel"):
        _repeated(shell, name, words, before, node)
    elif PYTHON.fullmatch(words[0]):
        _python(shell, words, before, node)
    elif (text := shell.script_text(words[0])) is not None and not words[0].endswith(".py"):
        _call(shell, words[0], text, words[1:], before, None, node)
    elif name in STARTERS or words[0].endswith((".py", ".jl", ".R")) or words[0].startswith("./"):
        shell.started(words, before, node)
    else:
        shell.leave(node, _("starts no training that is known: left out"))


def _behind(words: list[str], valued: str, own: int) -> list[str]:
    """Return the command behind a program's options and words of its own."""
    place = 1
    while place < len(words) and words[place].startswith("-"):
        is_apart = len(words[place]) == 2 and words[place][1] in valued
        place += 2 if is_apart else 1
    return words[place + own :]


def _of_env(words: list[str], before: dict[str, str]) -> list[str]:
    place = 1
    while place < len(words):
        name, equals, value = words[place].partition("=")
        if equals and name.isidentifier():
            before[name] = value
        elif words[place] in ("-u", "-C"):
            place += 1
        elif not words[place].startswith("-"):
            break
        place += 1
    return words[place:]


def _of_srun(shell: Shell, words: list[str], node: nodes.Simple) -> list[str]:
    options, rest = headers.parse(words[1:])
    tasks = options.get("ntasks", "1")
    is_launched = any(posixpath.basename(word) in _LAUNCHERS or "torch.distributed" in word for word in rest[:4])
    if tasks != "1" and rest and not is_launched:
        shell.leave(node, _("srun starts {n} processes: the study's command starts one, give it a launcher", tasks))
    return rest


def _python(shell: Shell, words: list[str], before: Mapping[str, str], node: nodes.Simple) -> None:
    for place, word in enumerate(words[1:], start=1):
        if word in ("-c", "-") or word in ("-V", "--version", "-h", "--help"):
            shell.leave(node, _("starts no training that is known: left out"))
            return
        if word == "-m" and words[place + 1 : place + 2] and words[place + 1] in _NO_RUN:
            shell.leave(node, _("starts no training that is known: left out"))
            return
        if not word.startswith("-"):
            break
    if len(words) > 1:
        shell.started(words, before, node)
    else:
        shell.leave(node, _("starts no training that is known: left out"))


def _shell(shell: Shell, words: list[str], before: Mapping[str, str], node: nodes.Simple) -> None:
    rest = words[1:]
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if "c" in option.lstrip("-") and not option.startswith("--") and rest:
            if is_known(rest[0]) or "$" not in rest[0]:
                shell.inner(rest[0], node, before)
            else:
                shell.leave(node, _("what the shell executes isn't known before it runs"))
            return
        if option == "-o" and rest:
            rest.pop(0)
    if rest:
        text = shell.script_text(rest[0])
        if text is None:
            shell.leave(node, _("{path}: no such script in the project: left out", rest[0]))
        else:
            _call(shell, rest[0], text, rest[1:], before, None, node)
        return
    if lines := shell.lines_read(node):
        shell.inner("\n".join(lines), node, before)


def _call(
    shell: Shell,
    path: str,
    text: tuple[str, int],
    arguments: list[str],
    before: Mapping[str, str],
    options: Mapping[str, str] | None,
    node: nodes.Simple,
) -> None:
    if shell.is_deep:
        shell.leave(node, _("scripts call each other without end: left out"))
        return
    if any(not is_known(word) for word in arguments if "$@" in word):
        shell.leave(node, _("what the script is given on its command line isn't known"))
    shell.other(shell.real_path(path), text, arguments, before, options)


def _tmux(shell: Shell, words: list[str], before: Mapping[str, str], node: nodes.Simple) -> None:
    rest = words[1:]
    while rest and rest[0].startswith("-"):
        rest = rest[2:] if rest[0][1:] in ("L", "S", "f") else rest[1:]
    if not rest:
        return
    if rest[0] in ("send-keys", "send"):
        keys = [word for word in _behind(rest, "tN", 0) if not _KEYS.fullmatch(word)]
        pane = rest[rest.index("-t") + 1] if "-t" in rest[:-1] else ""
        shell.inner(" ".join(keys), node, before, pane=f"tmux:{pane}")
    elif rest[0] in _TMUX:
        command = _behind(rest, _TMUX_VALUED, 0)
        if command:
            shell.inner(command[0] if len(command) == 1 else shlex.join(command), node, before)


def _screen(shell: Shell, words: list[str], before: Mapping[str, str], node: nodes.Simple) -> None:
    rest = words[1:]
    if "-X" in rest:
        text = rest[-1].replace("\\n", "\n").replace("^M", "\n")
        if "stuff" in rest:
            shell.inner(text.strip().strip("$'\""), node, before)
        return
    while rest and rest[0].startswith("-"):
        rest = rest[2:] if rest[0].endswith(("S", "L", "t", "c", "s", "h")) and rest[0] != "-L" else rest[1:]
    if rest:
        shell.inner(shlex.join(rest), node, before)


def _ssh(shell: Shell, words: list[str], before: Mapping[str, str], node: nodes.Simple) -> None:
    rest = words[1:]
    user, port = "", ""
    while rest and rest[0].startswith("-"):
        if rest[0] in ("-p", "-l") and len(rest) > 1:
            user, port = (rest[1], port) if rest[0] == "-l" else (user, rest[1])
        rest = rest[2:] if len(rest[0]) == 2 and rest[0][1] in _SSH_VALUED else rest[1:]
    if not rest or not all(map(is_known, (rest[0], user, port))):
        shell.leave(node, _("on which host it is isn't known before it runs"))
        return
    host = (f"{user}@" if user else "") + rest[0] + (f":{port}" if port.isdigit() else "")
    command = " ".join(rest[1:])
    for each in node.redirections:
        if each.operator in ("<<", "<<-"):
            command = shell.expanded(each.target, is_quoted=each.is_quoted)
    if command:
        shell.inner(command, node, {}, host=host)


def _repeated(shell: Shell, name: str, words: list[str], before: Mapping[str, str], node: nodes.Simple) -> None:
    known = all(map(is_known, words))
    read = repeating.xargs if name == "xargs" else repeating.parallel
    lines = read(words, shell.lines_read(node), shell.lines_of) if known else None
    if lines is None:
        shell.leave(node, _("for which words {program} starts a command isn't known before it runs", name))
    for line in lines or ():
        shell.inner(line, node, before)


def _sbatch(shell: Shell, words: list[str], before: Mapping[str, str], node: nodes.Simple) -> None:
    options, rest = headers.parse(words[1:])
    wrapped, exported = options.pop("wrap", ""), options.pop("export", "")
    given = dict(before)
    for part in exported.split(",") if exported else ():
        name, equals, value = part.partition("=")
        if equals:
            given[name] = value
    text: tuple[str, int] | None = None
    path, arguments = "", rest[1:]
    if wrapped:
        text, path = (wrapped, node.line), ""
    elif rest:
        path, text = rest[0], shell.script_text(rest[0])
        if text is None:
            shell.leave(node, _("{path}: no such script in the project: left out", path))
            return
    else:
        here = next((each for each in node.redirections if each.operator in ("<<", "<<-")), None)
        if here is not None:
            text = shell.expanded(here.target, is_quoted=here.is_quoted), node.line + 1
    if text is None:
        shell.leave(node, _("which script it submits isn't known before it runs"))
    elif path:
        _call(shell, path, text, arguments, given, options, node)
    else:
        shell.other(shell.path, text, arguments, given, options)

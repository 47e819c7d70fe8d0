"""Tell launcher, program and arguments of a command apart: torchrun, accelerate, deepspeed, python and others."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass

from .starting import PYTHON

_TORCHRUN = ("torch.distributed.run", "torch.distributed.launch")
_TORCHRUN_SWITCHES = frozenset({"standalone", "no_python", "run_path", "use_env", "m", "module"})
_TORCHRUN_OURS = frozenset(
    {"nproc_per_node", "nnodes", "node_rank", "master_addr", "master_port", "rdzv_backend", "rdzv_endpoint", "rdzv_id",
     "rdzv_conf", "standalone", "use_env", "max_restarts", "log_dir", "tee", "redirects", "start_method"}
)  # fmt: skip
"""What torchrun is told by the toolkit, or what concerns its own restarts and logs."""
_ACCELERATE_SWITCHES = frozenset(
    {"multi_gpu", "cpu", "mps", "tpu", "use_deepspeed", "use_fsdp", "use_megatron_lm", "same_network", "no_python",
     "debug", "quiet", "m", "module", "q"}
)  # fmt: skip
_ACCELERATE_OURS = frozenset({"num_processes", "main_process_port", "main_process_ip", "num_machines", "machine_rank"})
_DEEPSPEED_SWITCHES = frozenset(
    {"no_python", "no_local_rank", "save_pid", "force_multi", "module", "bind_cores_to_rank"}
)
_DEEPSPEED_OURS = frozenset(
    {"num_gpus", "include", "exclude", "master_port", "master_addr", "num_nodes", "hostfile", "launcher"}
)
_PYTHON_VALUED = ("-W", "-X")
_SCRIPT = re.compile(r".+\.(py|jl|R|sh)")
_FEW = 3
"""Words of a program that is none of Python's which may belong to its name, as in ``litgpt finetune lora``."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """A command taken apart."""

    head: tuple[str, ...]
    """Words of a study's command before the program's own arguments, with placeholders."""
    script: int | None
    """Place of the script's path in the head."""
    arguments: tuple[str, ...]
    """Of the program, as they are."""
    processes: int | None = None
    """On each node, as its launcher says; None where it doesn't."""
    nodes: int = 1
    python: str = ""
    """Path of an interpreter that isn't simply the environment's."""


def recognise(words: Sequence[str], folder: str = "") -> Program:
    """Return the parts of a command.

    Args:
        folder: Where it is started, as seen from the project: its script's path is seen from there.
    """
    words = list(words)
    for place, word in enumerate(words):
        name = posixpath.basename(word)
        if name in ("torchrun", "accelerate", "deepspeed") or PYTHON.fullmatch(word):
            return _known(words[:place], words[place:], name, folder)
        if word.endswith(".py") or (place and word.startswith("--")):
            break
    return _other(words, folder)


def _known(before: list[str], words: list[str], name: str, folder: str) -> Program:
    if name == "torchrun":
        return _torchrun(before, words[1:], folder)
    if name == "accelerate" and words[1:2] == ["launch"]:
        return _accelerate(before, words[2:], folder)
    if name == "deepspeed":
        return _deepspeed(before, words[1:], folder)
    if not PYTHON.fullmatch(words[0]):
        return _other([*before, *words], folder)
    python = words[0] if "/" in words[0] else ""
    place = 1
    while place < len(words) and words[place].startswith("-") and words[place] != "-m":
        place += 2 if words[place] in _PYTHON_VALUED else 1
    if words[place : place + 1] == ["-m"] and words[place + 1 : place + 2]:
        if words[place + 1] in _TORCHRUN:
            return _torchrun(before, words[place + 2 :], folder, python)
        if words[place + 1] in ("accelerate.commands.launch", "accelerate"):
            return _accelerate(before, words[place + 2 :], folder, python)
        head = (*_escaped(before), "python", *_escaped(words[1 : place + 2]))
        return Program(head=head, script=None, arguments=tuple(words[place + 2 :]), python=python)
    script = _path(words[place], folder) if place < len(words) else ""
    head = (*_escaped(before), "python", *_escaped(words[1:place]), *_escaped([script] if script else []))
    return Program(
        head=head, script=len(head) - 1 if script else None, arguments=tuple(words[place + 1 :]), python=python
    )


def _torchrun(before: list[str], words: list[str], folder: str, python: str = "") -> Program:
    options, rest = _options(words, _TORCHRUN_SWITCHES)
    processes = options.get("nproc_per_node", "")
    nodes = options.get("nnodes", "1")
    kept = _kept(options, _TORCHRUN_OURS)
    is_module = "m" in options or "module" in options
    kept = [word for word in kept if word not in ("--m", "--module")]
    head = [*_escaped(before), "torchrun", *_escaped(kept), *(["-m"] if is_module else [])]
    return _launched(head, rest, folder, is_module, processes, nodes, python)


def _accelerate(before: list[str], words: list[str], folder: str, python: str = "") -> Program:
    options, rest = _options(words, _ACCELERATE_SWITCHES)
    is_module = "m" in options or "module" in options
    kept = [word for word in _kept(options, _ACCELERATE_OURS) if word not in ("--m", "--module")]
    head = [*_escaped(before), "accelerate", "launch", "--num_processes", "{gpus}", "--main_process_port", "{port}"]
    head += [*_escaped(kept), *(["-m"] if is_module else [])]
    return _launched(head, rest, folder, is_module, options.get("num_processes", ""), "1", python)


def _deepspeed(before: list[str], words: list[str], folder: str) -> Program:
    options, rest = _options(words, _DEEPSPEED_SWITCHES)
    included = options.get("include", "").rpartition(":")[2]
    processes = options.get("num_gpus", "") or (str(len(included.split(","))) if included else "")
    head = [*_escaped(before), "deepspeed", "--num_gpus", "{gpus}", "--master_port", "{port}"]
    head += _escaped(_kept(options, _DEEPSPEED_OURS))
    return _launched(head, rest, folder, "module" in options, processes, options.get("num_nodes", "1"), "")


def _launched(
    head: list[str], rest: list[str], folder: str, is_module: bool, processes: str, nodes: str, python: str
) -> Program:
    script = rest[:1] if is_module else [_path(word, folder) for word in rest[:1]]
    return Program(
        head=(*head, *_escaped(script)),
        script=None if is_module or not script else len(head),
        arguments=tuple(rest[1:]),
        processes=int(processes) if processes.isdigit() else None,
        nodes=int(nodes) if nodes.isdigit() else 1,
        python=python,
    )


def _other(words: list[str], folder: str) -> Program:
    place = next((at for at, word in enumerate(words) if _SCRIPT.fullmatch(word)), None)
    if place is not None:
        head = (*_escaped(words[:place]), *_escaped([_path(words[place], folder)]))
        return Program(head=head, script=place, arguments=tuple(words[place + 1 :]))
    number = next((at for at, word in enumerate(words) if at and not re.fullmatch(r"[A-Za-z][\w-]*", word)), len(words))
    number = max(min(number, _FEW), 1)
    return Program(head=tuple(_escaped(words[:number])), script=None, arguments=tuple(words[number:]))


def _options(words: Sequence[str], switches: frozenset[str]) -> tuple[dict[str, str], list[str]]:
    """Return a launcher's options, dashes in their names as _, and the words behind them."""
    found: dict[str, str] = {}
    place = 0
    while place < len(words) and words[place].startswith("-"):
        name, equals, value = words[place].lstrip("-").partition("=")
        key = name.replace("-", "_")
        place += 1
        if equals:
            found[key] = value
        elif key in switches:
            found[key] = ""
        elif place < len(words):
            found[key] = words[place]
            place += 1
    return found, list(words[place:])


def _kept(options: dict[str, str], ours: frozenset[str]) -> list[str]:
    found: list[str] = []
    for key, value in options.items():
        if key not in ours:
            found += [f"--{key}"] if not value else [f"--{key}", value]
    return found


def _path(script: str, folder: str) -> str:
    """Return a script's path as seen from the project."""
    if script.startswith(("/", "~")):
        return script.removeprefix(folder.rstrip("/") + "/") if folder.startswith(("/", "~")) else script
    if folder.startswith(("/", "~")):
        return posixpath.normpath(script)
    return posixpath.normpath(posixpath.join(folder, script))


def _escaped(words: Sequence[str]) -> list[str]:
    """Return words in which braces mean themselves."""
    return [word.replace("{", "{{").replace("}", "}}") for word in words]

"""Try the start of a target's runs: the set-up in the shell that runs get, and whether its interpreter could train.

The client sends the script, which it makes from the template of the launch scripts (trial.sh.j2).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, List, cast

from .. import reasons
from ..sentences import _

if TYPE_CHECKING:
    from ..messages import Trial

QUESTION = """
import gc, importlib.util, json, sys
gc.disable()
found = {"python": sys.version.split()[0], "wandb": importlib.util.find_spec("wandb") is not None}
import torch
found.update(torch=torch.__version__, cuda=torch.cuda.is_available(), gpus=torch.cuda.device_count())
try:
    import train.run
except Exception as error:
    found["trainer_error"] = "%s: %s" % (type(error).__name__, error)
try:
    from train.compiling import lacking
    found["compiling"] = ", ".join(lacking(torch.device("cuda" if torch.version.cuda else "cpu")))
except Exception:  # the project's own train/ may do without, and a sick card may not answer
    pass
gc.freeze()
print(json.dumps(found))
"""
"""What the target's interpreter is asked, in the folder of the code: whether it could train, and compile.

To look for garbage in all that it imports, meanwhile and at its end, would take a third of its time.
"""
OF_SLURM = """
import json, os, sys
found = globals().get("found", {})
try:
    sys.path.insert(0, os.environ["OELM_TRIAL_AGENT"])
    from agent.slurm import commands as slurm_commands
    slurm_commands.settings(30.0)
    found["slurm_error"] = ""
except Exception as error:
    found["slurm_error"] = why = str(getattr(error, "plainly", error))
    if hasattr(why, "template"):
        from agent.sentences import encoded
        found.update(encoded(why))
print(json.dumps(found))
"""
"""What it is asked besides where jobs are Slurm's, or for itself: whether a supervisor could talk to it."""
REACHED_WORDS = "oelm-doctor: set-up passed"
"""What the script says on stderr between set-up and question."""
FAILED_WORDS = "set-up failed: "
"""What a launch script says before the line that failed (launch.sh.j2)."""
TELLING_WORDS = "(?i)error|not found|no such|denied|unknown"
"""Where advice follows an error (conda, Lmod), the error is what is shown."""
TRIAL_TIMEOUT_S = 180.0


def agent_folder() -> str:
    """Return the folder that holds the agent's package, by the path that scripts name (a link stays one); empty where
    it runs from memory (bootstrap).
    """
    place = globals().get("__file__")
    return str(Path(os.path.abspath(place)).parents[2]) if place else ""


def attempt(
    script: str,
    setup: List[str],
    python: str,
    folder: str,
    *,
    question: str = "",
    timeout_s: float = TRIAL_TIMEOUT_S,
) -> Trial:
    """Run the script by its shebang and report how far it gets.

    Args:
        script: The target's own beginning of a launch script; empty where none could be made.
        setup: The target's set-up lines.
        python: The interpreter, as it is known after the set-up.
        folder: Of the code.
        question: A program that prints a line of JSON; QUESTION where it is empty.

    Returns:
        What the question printed; or ``error``, the interpreter's message; or ``setup_error``, the set-up's message,
        with ``line``, the set-up line that failed (empty where it isn't known), and ``is_broken`` where that is no
        whole command; or nothing without a script.
    """
    if not script:
        return {}
    variables = {"OELM_TRIAL": question or QUESTION, "OELM_TRIAL_PYTHON": python, "OELM_TRIAL_FOLDER": folder}
    variables["OELM_TRIAL_AGENT"] = agent_folder()
    home = os.path.expanduser("~")  # where a command over ssh begins, whatever folder this one was given in
    # Files, not pipes: what a set-up line leaves running would keep a pipe open. And not with -c, which would source
    # ~/.bashrc here (Debian's bash below sshd), and not for a run.
    with contextlib.ExitStack() as files:
        try:
            path = files.enter_context(tempfile.NamedTemporaryFile(prefix="oelm-trial-", suffix=".sh"))
            out, err = (files.enter_context(tempfile.TemporaryFile()) for _ in range(2))
            path.write(script.encode("utf-8", "surrogateescape"))
            path.flush()
            interpreter = script.partition("\n")[0].partition("#!")[2].split() or ["bash"]
            child = subprocess.Popen(
                [*interpreter, path.name],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=home if os.path.isdir(home) else "/",
                env=dict(os.environ, OELM_TRIAL_REACHED=REACHED_WORDS, **variables),
                start_new_session=True,
            )
        except OSError as error:
            return {"error": str(error)}
        try:
            ending = _("exit code {code}", child.wait(timeout_s))
        except subprocess.TimeoutExpired:
            ending = _("no end within {seconds:.0f} s", timeout_s)
        with contextlib.suppress(OSError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        printed, said = (_text(file) for file in (out, err))
    before, is_through, after = said.partition(REACHED_WORDS)
    if not is_through:
        return _blame(before.replace(path.name, "bash"), setup, ending)
    try:
        found = dict(json.loads(printed.splitlines()[-1]))
    except (ValueError, IndexError):
        return {"error": _last(after) or ending}
    beside = {key: found.pop(key, None) for key in reasons.BESIDE}
    if "slurm_error" in found:
        found["slurm_error"] = reasons.read(dict(beside, reason=found["slurm_error"]))
    return cast("Trial", found)


def _text(file: Any) -> str:
    file.seek(0)
    return str(file.read().decode("utf-8", "replace"))


def _last(text: str, telling: str = "") -> str:
    """Return the last line that isn't blank; of those that match a pattern, if any do."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if re.search(telling, line)] or lines
    return lines[-1] if lines else ""


def _blame(said: str, setup: List[str], ending: str) -> Trial:
    """Return which line of a set-up failed, and its message."""
    said = re.sub(r"^bash: \S+ \d+: ", "bash: ", said, flags=re.MULTILINE)  # of a file that is gone by now
    for line in setup:
        message = _syntax_error(line)
        if message:
            return {"setup_error": message, "line": line, "is_broken": True}
    before, is_named, line = said.rpartition(FAILED_WORDS)
    if is_named:
        return {"setup_error": _last(before, TELLING_WORDS), "line": line.rstrip("\n"), "is_broken": False}
    return {"setup_error": _last(said, TELLING_WORDS) or ending, "line": "", "is_broken": False}


def _syntax_error(line: str) -> str:
    """Return bash's syntax error about a set-up line as launch scripts write it; empty where it is a whole command."""
    whole = ("{ :\n%s\n}\n" % line).encode("utf-8", "surrogateescape")
    try:
        done = subprocess.run(["bash", "-n"], input=whole, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except OSError:
        return ""
    message = done.stderr.decode("utf-8", "replace").strip().partition("\n")[0]
    return re.sub(r"^bash: \S+ \d+: ", "bash: ", message) if done.returncode else ""

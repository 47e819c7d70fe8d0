"""Owns launch scripts: which template, which variables, how they are quoted; leaves the decisions in them to plan.

Templates are looked up in the project's ``templates/`` first, then in the installed package, and override each
other's blocks.
"""

from __future__ import annotations

import functools
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import jinja2.nodes

from ..agent import rundir
from ..errors import ConfigurationError, valid_choices
from ..spec import Run, Target
from ..targets import sbatch

TEMPLATES = {"local": "launch.sh.j2", "ssh": "launch.sh.j2", "slurm": "slurm.sh.j2"}
"""Kind of target to the template of its launch script."""
TRIAL = "trial.sh.j2"
"""Template that puts a question in the place of the run into one of them."""


@functools.lru_cache(maxsize=8)
def environment(project: Path) -> jinja2.Environment:
    """Return the template environment: an undefined name is an error, everything but names from an allow-list goes
    through ``quote``.
    """
    import oelm_jobs.templates as templates

    folders = [project / "templates", Path(str(templates.__file__)).parent]
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders, encoding="utf-8-sig"),  # Windows' editors put a mark in front
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # it's shell, not HTML: the quote filter is what keeps it safe
    )
    found.filters["quote"] = lambda value: shlex.quote(str(value))
    found.filters["comment"] = lambda value: " ".join(str(value).split())
    return found


def script(
    project: Path,
    target: Target,
    run: Run,
    record: Mapping[str, Any],
    *,
    command: Sequence[str],
    python: str,
    supervisor: Sequence[str],
    code: str,
    note: str = "",
) -> str:
    """Return a run's launch script.

    Args:
        record: The run's record, handed to the supervisor on its stdin.
        supervisor: Words that start the supervisor.
        code: Working directory: the snapshot.
        note: A comment for the reader.

    Raises:
        ConfigurationError: A template of the project is broken (names file and line).
    """
    return _print(
        project,
        target,
        run=run,
        runs=[run],
        command=list(command),
        python=python,
        supervisor=list(supervisor),
        code=code,
        record=json.dumps(record, ensure_ascii=False, indent=1),
        header=[],
        note=note,
    )


def slurm_script(
    project: Path,
    target: Target,
    runs: Sequence[Run],
    records: Sequence[Mapping[str, Any]],
    *,
    commands: Sequence[Sequence[str]],
    header: Sequence[str],
    python: str,
    supervisor: Sequence[str],
    code: str,
    note: str = "",
) -> str:
    """Return the script of a Slurm job: of one run, or of an array, whose tasks pick their record by their index.

    Args:
        records: The runs' records.
        commands: The runs' commands; an array's script has them in the records.
        header: Options of sbatch, one a line.

    Raises:
        ConfigurationError: A template of the project is broken (names file and line).
    """
    if len(runs) == 1:
        record = json.dumps(records[0], ensure_ascii=False, indent=1)
    else:
        several = [{**known, "command": list(words)} for known, words in zip(records, commands, strict=True)]
        shared, rests = sbatch.shared_part(several)
        lines = ",\n".join(map(json.JSONEncoder(ensure_ascii=False).encode, rests))
        record = f'{{"shared": {json.dumps(shared, ensure_ascii=False)},\n"runs": [\n{lines}\n]}}'
    return _print(
        project,
        target,
        run=runs[0],
        runs=list(runs),
        command=list(commands[0]) if len(runs) == 1 else [],
        python=python,
        supervisor=list(supervisor),
        code=code,
        record=record,
        header=list(header),
        note=note,
    )


def trial(project: Path, target: Target) -> str:
    """Return a script that begins as the target's launch scripts do, and then tries the interpreter
    (agent/checks/trial.py); empty where the target's template has no block for the command that could be replaced.

    Raises:
        ConfigurationError: A template of the project is broken (names file and line).
    """
    words: dict[str, Any] = {"run": None, "runs": [], "command": [], "python": "", "supervisor": [], "code": "/"}
    text = _print(project, target, TRIAL, base=_template(target), record="", header=[], note="", **words)
    return text if "$OELM_TRIAL_REACHED" in text else ""


def _template(target: Target) -> str:
    return target.template or TEMPLATES[target.kind]


def _print(project: Path, target: Target, template: str = "", **values: Any) -> str:
    name = _template(target)
    values.update(target=target, claim_fd=rundir.CLAIM_FD, launched=rundir.LAUNCHED)
    values.update(umask="007" if target.share else "077")
    try:
        _check_blocks(project, name)
        return environment(project).get_template(template or name).render(**values)
    except jinja2.TemplateNotFound as error:
        raise ConfigurationError(
            f"target {target.name}: template {error.name!r} is neither in {project / 'templates'} nor the toolkit's own"
        ) from error
    except jinja2.TemplateSyntaxError as error:
        raise ConfigurationError(f"{error.filename or error.name}: line {error.lineno}: {error.message}") from error
    except jinja2.UndefinedError as error:
        raise ConfigurationError(f"template {name}: {error.message}") from error


@functools.lru_cache(maxsize=8)
def _check_blocks(project: Path, name: str) -> None:
    """See to it that what a template puts in the place of its parent's blocks replaces some.

    Raises:
        ConfigurationError: A block that the parent doesn't have.
        jinja2.TemplateError: It isn't there, or broken.
    """
    known, tree = _inherited(project, name), _parsed(project, name)
    called = {call.attr for call in tree.find_all(jinja2.nodes.Getattr) if getattr(call.node, "name", "") == "self"}
    for block in tree.body if known else ():
        if isinstance(block, jinja2.nodes.Block) and block.name not in known | called:
            raise ConfigurationError(
                f"template {name}: line {block.lineno}: there is no block {block.name!r} to override;"
                f" {valid_choices(block.name, known)}"
            )


def _inherited(project: Path, name: str) -> set[str]:
    """Return the blocks that a template's parents have; none where it has no parent."""
    found: set[str] = set()
    parent = _parsed(project, name).find(jinja2.nodes.Extends)
    while parent is not None and isinstance(parent.template, jinja2.nodes.Const):
        tree = _parsed(project, str(parent.template.value))
        found.update(block.name for block in tree.find_all(jinja2.nodes.Block))
        parent = tree.find(jinja2.nodes.Extends)
    return found


def _parsed(project: Path, name: str) -> jinja2.nodes.Template:
    templates = environment(project)
    assert templates.loader is not None
    source, path, _ = templates.loader.get_source(templates, name)
    return templates.parse(source, name, path)

"""Printing launch scripts from templates: which template, which variables, how they are quoted.

Templates are looked up in the project's ``templates/`` first, then in the installed package, and override each
other's blocks.
"""

from __future__ import annotations

import functools
import shlex
from dataclasses import dataclass
from pathlib import Path

import jinja2
import jinja2.nodes

from ..agent import rundir
from ..agent.sentences import _
from ..errors import ConfigurationError, valid_choices
from ..spec.study import Run
from ..spec.target import Target

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


@dataclass(frozen=True, kw_only=True)
class Installed:
    """What a launch script runs, and where."""

    python: str
    """The interpreter of the run's command."""
    supervisor: tuple[str, ...]
    """Argv that starts the supervisor."""
    code: str
    """Working directory: the snapshot."""
    note: str = ""
    """A comment for the reader."""


@dataclass(frozen=True, kw_only=True)
class ScriptContent:
    """What a launch script is printed from, besides its target."""

    program: Installed
    runs: tuple[Run, ...]
    """One, or those of an array."""
    record: str
    """The runs' records as JSON, handed to the supervisor on its stdin."""
    command: tuple[str, ...]
    """The run's command; empty for an array, whose records hold their own."""
    header: tuple[str, ...] = ()
    """Options of sbatch, one a line."""


def trial(project: Path, target: Target) -> str:
    """Return a script that begins as the target's launch scripts do, and then tries the interpreter
    (agent/checks/trial.py); empty where the target's template has no block for the command that could be replaced.

    Raises:
        ConfigurationError: A template of the project is broken (names file and line).
    """
    nothing = ScriptContent(program=Installed(python="", supervisor=(), code="/"), runs=(), record="", command=())
    text = script(project, target, nothing, TRIAL)
    return text if "$OELM_TRIAL_REACHED" in text else ""


def script(project: Path, target: Target, content: ScriptContent, over: str = "") -> str:
    """Return a launch script.

    Args:
        over: Template that puts something else in the place of blocks of the target's own.

    Raises:
        ConfigurationError: A template of the project is broken (names file and line).
    """
    name = target.template or TEMPLATES[target.kind]
    try:
        _check_blocks(project, name)
        template = environment(project).get_template(over or name)
        return template.render(
            {**vars(content.program), **vars(content)},
            base=name,
            run=content.runs[0] if content.runs else None,
            target=target,
            umask="007" if target.share else "077",
            claim_fd=rundir.CLAIM_FD,
            launched=rundir.LAUNCHED,
        )
    except jinja2.TemplateNotFound as error:
        raise ConfigurationError(
            _(
                "target {target}: template {name!r} is neither in {folder} nor the toolkit's own",
                target.name,
                error.name,
                str(project / "templates"),
            )
        ) from error
    except jinja2.TemplateSyntaxError as error:
        path = error.filename or error.name
        raise ConfigurationError(_("{path}: line {line}: {why}", path, error.lineno, error.message)) from error
    except jinja2.UndefinedError as error:
        raise ConfigurationError(_("template {name}: {why}", name, error.message)) from error


@functools.lru_cache(maxsize=8)
def _check_blocks(project: Path, name: str) -> None:
    """See to it that what a template puts in the place of its parent's blocks replaces some.

    Raises:
        ConfigurationError: A block that the parent doesn't have.
        jinja2.TemplateError: It isn't there, or broken.
    """
    if not (project / "templates").is_dir():  # the toolkit's own fit together
        return
    tree, known = _parsed(project, name), set[str]()
    parent = tree.find(jinja2.nodes.Extends)
    while parent is not None and isinstance(parent.template, jinja2.nodes.Const):
        above = _parsed(project, str(parent.template.value))
        known.update(block.name for block in above.find_all(jinja2.nodes.Block))
        parent = above.find(jinja2.nodes.Extends)
    called = {call.attr for call in tree.find_all(jinja2.nodes.Getattr) if getattr(call.node, "name", "") == "self"}
    for block in tree.body if known else ():
        if isinstance(block, jinja2.nodes.Block) and block.name not in known | called:
            raise ConfigurationError(
                _(
                    "template {name}: line {line}: there is no block {block!r} to override; {choices}",
                    name,
                    block.lineno,
                    block.name,
                    valid_choices(block.name, known),
                )
            )


def _parsed(project: Path, name: str) -> jinja2.nodes.Template:
    templates = environment(project)
    assert templates.loader is not None
    source, path, _ = templates.loader.get_source(templates, name)
    return templates.parse(source, name, path)

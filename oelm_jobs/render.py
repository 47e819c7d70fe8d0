"""Owns launch scripts: which template, which variables, how they are quoted; leaves the decisions in them to workflow.

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

from .agent import rundir
from .errors import ConfigurationError
from .spec import Run, Target

TEMPLATES = {"local": "launch.sh.j2"}
"""Kind of target to the template of its launch script."""


@functools.lru_cache(maxsize=8)
def environment(project: Path) -> jinja2.Environment:
    """Return the template environment: an undefined name is an error, everything but names from an allow-list goes
    through ``quote``.
    """
    import oelm_jobs.templates as templates

    folders = [project / "templates", Path(str(templates.__file__)).parent]
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders),
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
    try:
        template = environment(project).get_template(TEMPLATES[target.kind])
        return template.render(
            run=run,
            target=target,
            command=list(command),
            python=python,
            supervisor=list(supervisor),
            code=code,
            record=json.dumps(record, ensure_ascii=False, indent=1),
            claim_fd=rundir.CLAIM_FD,
            note=note,
        )
    except jinja2.TemplateSyntaxError as error:
        raise ConfigurationError(f"{error.filename or error.name}: line {error.lineno}: {error.message}") from error
    except jinja2.UndefinedError as error:
        raise ConfigurationError(f"template {TEMPLATES[target.kind]}: {error.message}") from error

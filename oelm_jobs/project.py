"""Find the project: the folder whose ``jobs/`` holds studies."""

from __future__ import annotations

from pathlib import Path

from .errors import UsageError


def find_project(start: Path) -> Path:
    """Return the nearest folder at or above ``start`` that has studies in ``jobs/``.

    Raises:
        UsageError: There is none.
    """
    start = start.resolve()
    for folder in (start, *start.parents):
        if any((folder / "jobs").glob("*.toml")):
            return folder
    raise UsageError(
        f"no project here: neither {start} nor a folder above it has a study in jobs/*.toml",
        hint="go to your project's folder; a study file is described in the README under 'Add a study'",
    )


def study_files(project: Path) -> list[Path]:
    """Return the project's study files, sorted by name."""
    return sorted(path for path in (project / "jobs").glob("*.toml") if path.name != "targets.toml")

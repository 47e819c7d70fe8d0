"""The studies that come with the toolkit: ``jobs/`` of a checkout, inside of the package once that is installed."""

from __future__ import annotations

from pathlib import Path

REFERENCE = ("qk_freeze.toml", "demo.toml")
"""The reference experiment, and the same at a size for two CPU cores."""

NAMES = ("spirals", "nanogpt", "trainer", "hydra_app", "pipeline", "campaign")
"""Studies of programs of one's own, which run on a laptop in a minute: the file and the folder in ``examples/``."""


def folder() -> Path:
    """Return the folder in which they lie."""
    package = Path(__file__).resolve().parent.parent
    return next(place for place in (package / "jobs", package.parent / "jobs") if place.is_dir())


def text(name: str) -> str:
    """Return one of them."""
    return (folder() / name).read_text(encoding="utf-8")


def program(name: str) -> dict[str, str]:
    """Return the files of one of NAMES by their paths in a project: the study in ``jobs/``, its program where the study
    looks for it.
    """
    own = sorted(path for path in (folder() / "examples" / name).iterdir() if path.is_file())
    study = text(f"examples/{name}.toml").replace(f"--study jobs/examples/{name}.toml", f"--study {name}")
    programs = {f"jobs/examples/{name}/{path.name}": path.read_text(encoding="utf-8") for path in own}
    return {f"jobs/{name}.toml": study, **programs}

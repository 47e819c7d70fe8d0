"""The studies that come with the toolkit: ``jobs/`` of a checkout, inside of the package once that is installed."""

from __future__ import annotations

from pathlib import Path

REFERENCE = ("qk_freeze.toml", "demo.toml")
"""The reference experiment, and the same at a size for two CPU cores."""


def folder() -> Path:
    """Return the folder in which they lie."""
    package = Path(__file__).resolve().parent.parent
    return next(place for place in (package / "jobs", package.parent / "jobs") if place.is_dir())


def text(name: str) -> str:
    """Return one of them."""
    return (folder() / name).read_text(encoding="utf-8")

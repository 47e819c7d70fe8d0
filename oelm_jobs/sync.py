"""Owns bringing results home and knowing that they are whole; leaves which runs, and saying so, to workflow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .agent import result, rundir


@dataclass(frozen=True, kw_only=True)
class Verified:
    """How a run's files compare with its manifest."""

    files: int
    """Files that the manifest lists."""
    size: int
    """Their bytes."""
    damaged: tuple[str, ...]
    """Listed files that are missing or differ."""
    has_manifest: bool
    """False before a run is over."""


def verify(run_dir: Path) -> Verified:
    """Compare a run directory with its manifest: presence, sizes and SHA-256.

    A name in the manifest that leads out of the run directory counts as damaged.
    """
    manifest = rundir.read_json(run_dir / rundir.MANIFEST)
    entries = manifest.get("files", []) if manifest else []
    damaged = []
    for entry in entries:
        path = run_dir / str(entry["name"])
        inside = not path.is_symlink() and path.resolve().is_relative_to(run_dir.resolve())
        if (
            not inside
            or not path.is_file()
            or path.stat().st_size != entry["size"]
            or result.sha256(path) != entry["sha256"]
        ):
            damaged.append(str(entry["name"]))
    return Verified(
        files=len(entries),
        size=sum(int(entry["size"]) for entry in entries),
        damaged=tuple(damaged),
        has_manifest=manifest is not None,
    )

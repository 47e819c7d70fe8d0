"""What ``--set`` may change of a study, for a shell's completion: nothing is checked, and little is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DERIVED = ("batch_size", "seed", "test_data_path", "out_dir", "resume")
"""Keys of the built-in trainer that the toolkit sets itself."""
BESIDES = ("global_batch",)
"""What a command may set of a study of the built-in trainer besides its settings."""
TRUTH = ("true", "false")


def settable(study: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the keys that may be set of a study, each with its values where only some are valid.

    Args:
        study: The tables of its file.
    """
    tables = [table for table in study.get("groups", {}).values() if isinstance(table, dict)]
    of_groups = {*study.get("factors", ()), *(key for table in tables for key in table)}
    if "program" in study:
        found = {key: TRUTH if isinstance(value, bool) else () for key, value in study.get("settings", {}).items()}
    else:
        from ..train import config as trainer  # here: completing anything else takes no trainer

        found = {
            key: field.metadata["choices"] or (TRUTH if field.metadata["type"] is bool else ())
            for key, field in trainer.FIELDS.items()
            if key not in DERIVED
        } | dict.fromkeys(BESIDES, ())
    return {key: values for key, values in found.items() if key not in of_groups}

"""Where runs on a cluster stand, for all that Slurm and their records may say: as it always was.

``UPDATE_GOLDEN=1 pytest tests/slurm/test_golden_rows.py`` writes it anew; read the difference before committing it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.golden import compare, table
from tests.slurm.cases import LINES, ask


@pytest.mark.slow
@pytest.mark.usefixtures("no_cluster")
def test_each_of_thousands_of_cases_has_its_state_and_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: dict[str, list[dict[str, Any]]] = {}
    for name, line in LINES.items():
        said, asked = ask(tmp_path, line, monkeypatch)
        lines[f"{name} (sacct: {asked})"] = said
    compare("states/slurm_rows.txt", table(lines))

"""The studies that come along, run by run: names, fingerprints, ports, GPUs and commands, character by character.

``UPDATE_GOLDEN=1 pytest tests/test_golden_plans.py`` writes them anew: old runs are then no longer known as theirs.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from oelm_jobs.folders import study_files
from oelm_jobs.programs import built_in
from oelm_jobs.study import resolve
from oelm_jobs.study.files import load_study
from oelm_jobs.targets.files import LOCAL
from tests.golden import compare_json
from tests.support import REPOSITORY

STUDIES = [path.stem for path in study_files(REPOSITORY)]


@pytest.mark.parametrize("name", STUDIES)
def test_runs_of_a_study_that_comes_along_stay_what_they_are(name: str) -> None:
    study = load_study(REPOSITORY, name, warn=pytest.fail)
    runs = resolve.plan_runs(study, replace(LOCAL, root="/project"), data_hash="0" * 64)
    compare_json(
        f"plans/{name}.json",
        [
            {
                "name": run.name,
                "run_dir": run.run_dir,
                "fingerprint": run.fingerprint,
                "gpus": run.gpus,
                "port": run.port,
                "command": list(built_in.command(run, "python")),
            }
            for run in runs
        ],
    )

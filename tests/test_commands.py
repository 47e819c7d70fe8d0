"""What users type wrongly: one clear line on stderr, an exit code, no traceback, nothing queued."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["submit", "--study", "tinny"], ["no study 'tinny'", "did you mean 'tiny'?"]),
        (["submit"], ["no study", "has default = true", "--study: tiny"]),
        (["submit", "--study", "tiny", "--group", "oelm_freez"], ["did you mean 'oelm_freeze'?"]),
        (["submit", "--study", "tiny", "--target", "bxo"], ["no target 'bxo'", "valid: local"]),
        (["submit", "--study", "tiny", "--set", "max_steps=5"], ["--tag NAME"]),
        (["submit", "--study", "tiny", "--seeds", "a"], ["whole numbers"]),
        (["submit", "--study", "tiny", "--tag", "a b"], ["letters, digits"]),
        (["submit", "--study", "tiny", "--script"], ["goes with --dry-run"]),
        (["status", "--state", "runing"], ["did you mean 'RUNNING'?"]),
        (["status", "nothing"], ["'nothing' names no study, group or run"]),
        (["logs", "nothing"], ["'nothing' names no study, group or run"]),
        (["cancel"], ["name a study, a group or a run"]),
    ],
)
def test_a_wrong_word_is_named_with_the_right_ones(oelm, arguments: list[str], expected: list[str]) -> None:
    done = oelm(*arguments, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    for part in expected:
        assert part in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_data_is_named_before_anything_is_queued(oelm, project: Path) -> None:
    (project / "data" / "tiny" / "val.bin").unlink()
    done = oelm("submit", "--study", "tiny", check=False)
    assert (
        done.returncode == 2
        and "val.bin: no such file; nothing was queued" in done.stderr
        and "oelm-data" in done.stderr
    )
    assert "No run yet" in oelm("status").stderr


def test_more_devices_than_the_machine_has_are_refused_before_anything_is_queued(oelm, project: Path) -> None:
    study = project / "jobs" / "tiny.toml"
    study.write_text(study.read_text().replace("global_batch = 4", "global_batch = 4096").replace(
        'model_type = "gpt" }', 'model_type = "gpt", gpus = 2048 }'))  # fmt: skip
    done = oelm("submit", "--study", "tiny", "--group", "gpt_base", check=False)
    assert done.returncode == 2 and "asks for 2048 CPU slots" in done.stderr and "nothing was queued" in done.stderr
    assert "No run yet" in oelm("status").stderr


def test_an_internal_error_shows_its_traceback_only_when_asked(
    oelm, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import subprocess
    import sys

    program = (
        "from oelm_jobs import observe\n"
        "def broken(*a, **k): raise RuntimeError('oops')\n"
        "observe.refresh = broken\n"
        "from oelm_jobs.cli.status import main; main()"
    )
    plain = subprocess.run([sys.executable, "-c", program], cwd=project, capture_output=True, text=True)
    assert (
        plain.returncode == 70
        and "internal error: RuntimeError: oops" in plain.stderr
        and "Traceback" not in plain.stderr
    )
    debug = subprocess.run([sys.executable, "-c", program, "--debug"], cwd=project, capture_output=True, text=True)
    assert "Traceback" in debug.stderr


def test_status_without_runs_says_what_to_do_and_prints_valid_json(oelm) -> None:
    done = oelm("status")
    assert done.stdout == "" and "oelm-submit" in done.stderr
    assert json.loads(oelm("status", "--json").stdout)["runs"] == []

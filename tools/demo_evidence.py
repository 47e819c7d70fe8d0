"""The whole way of a claim at a size for two CPU cores: locked, tuned, confirmed, carried on to a second text, judged
over both, bundled, and reproduced from the bundle.

    python tools/demo_evidence.py VENV

Everything lies in build/demo-evidence and is made anew each time.
"""

from __future__ import annotations

import filecmp
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
STUDIES = ("evidence", "evidence_transfer")
SAME = ("hypothesis_validation.txt", "analysis_results.json", "comparison_table.txt")
"""What a report from the bundle has in common with the first one, to the byte."""
MANUAL = "from pydoc_data.topics import topics; print('\\n\\n'.join(topics[name] for name in sorted(topics)))"
"""Prints Python's language reference, a text that every machine has."""


def main(venv: Path) -> int:
    """Run it; return the exit code."""
    beside = REPOSITORY / "build" / "demo-evidence"
    place = beside / "project"
    shutil.rmtree(beside, ignore_errors=True)
    for folder in ("jobs", "data"):
        (place / folder).mkdir(parents=True)
    for study in STUDIES:
        shutil.copy(REPOSITORY / "jobs" / "examples" / "evidence" / f"{study}.toml", place / "jobs")
    environment = {**os.environ, "OELM_STATE_DIR": str(beside / "state"), "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{venv / 'bin'}:{environment['PATH']}"

    def do(command: str) -> None:
        print(f"\n\033[1m$ {command}\033[0m" if sys.stdout.isatty() else f"\n$ {command}", flush=True)
        subprocess.run(shlex.split(command), cwd=place, env=environment, check=True)

    begun = time.monotonic()
    with (place / "data" / "manual.txt").open("w", encoding="utf-8") as text:
        subprocess.run([venv / "bin" / "python", "-c", MANUAL], stdout=text, check=True)
    first, second = STUDIES
    do("oelm-data demo --test")
    do("oelm-data make data/manual.txt --output data/manual --vocab 1024")
    do(f"oelm-report --lock --study {first}")
    do(f"oelm-submit --study {first} --mode parallel --wait")
    do(f"oelm-submit --study {first} --confirm --mode parallel --wait")
    do(f"oelm-report --lock --study {second}")
    do(f"oelm-submit --study {second} --mode parallel --wait")
    environment["SOURCE_DATE_EPOCH"] = str(int(time.time()))  # when the reports say that they were made
    for study in STUDIES:
        do(f"oelm-report --study {study} --plot")
        do(f"oelm-report --study {study} --bundle {study}.tar.gz")
        do(f"oelm-report --from {study}.tar.gz --output again/{study}")
        match, differs, missing = filecmp.cmpfiles(
            place / "experiments" / study / "analysis", place / "again" / study, SAME, shallow=False
        )
        if differs or missing:
            print(f"From the bundle, {', '.join(differs + missing)} came out otherwise", file=sys.stderr)
            return 1
        print(f"From {study}.tar.gz the same bytes: {', '.join(match)}")
    print(f"\nDone in {(time.monotonic() - begun) / 60:.1f} minutes: {place / 'experiments'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).absolute()))

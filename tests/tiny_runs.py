"""Two hundred runs that do nothing but say that they ran."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path

from tests.cli.test_run import argv_of
from tests.support import wait_until

RUNS = 200
PROGRAM = 'import os\nwith open("ran.txt", "a") as file:\n    file.write(os.environ["OELM_ATTEMPT"] + "\\n")\n'


def see_each_done_once(folder: Path, target: str, checkpoints: Path) -> None:
    """Submit them twice at the same time, and see that each ends as DONE and ran once.

    Args:
        checkpoints: Where run directories lie on the target.
    """
    (folder / "tiny.py").write_text(PROGRAM)
    argv = argv_of("run", "--target", target, "--num-seeds", str(RUNS), "--detach", "--", "python", "tiny.py", "{seed}")
    both = [
        subprocess.Popen(argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300)[1].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], said

    def states() -> Counter[str]:
        told = subprocess.run(argv_of("status", "--json"), cwd=folder, capture_output=True, text=True, check=True)
        return Counter(run["state"] for run in json.loads(told.stdout)["runs"])

    wait_until(lambda: not states() - Counter(DONE=RUNS), "each to be done", 500)
    assert states() == {"DONE": RUNS}
    ran = [path.read_text().splitlines() for path in checkpoints.glob("tiny/exp_tiny*/work/ran.txt")]
    assert len(ran) == RUNS and {len(lines) for lines in ran} == {1}

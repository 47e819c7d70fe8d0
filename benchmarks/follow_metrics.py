"""What it costs a supervisor to follow a program's metrics: its processor time while a real program prints 1 MB/s."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from oelm_jobs.agent import rundir
from oelm_jobs.agent.run.metrics import Reader, watch

LINES = ("step {step}: train loss {train_loss}, val loss {val_loss}", "iter {step}: loss {loss}")
PROGRAM = """
import sys, time
form, rate, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
begin, step, said = time.monotonic(), 0, 0
while (at := time.monotonic() - begin) < seconds:
    while said < rate * at:
        line = form.encode().decode("unicode_escape") % step
        said += sys.stdout.write(line)
        step += 1
    sys.stdout.flush()
    time.sleep(0.05)
"""
CASES = {
    "nothing printed": ("%d", 0, LINES, ()),
    "lines that fit": ("iter %d: loss 3.1415, time 12.34ms, mfu 40.00%%\\n", 1 << 20, LINES, ()),
    "lines that nearly fit": ("iter %d loss 3.1415, time 12.34ms, step 1\\n", 1 << 20, LINES, ()),
    "coloured lines": ("\\x1b[32miter\\x1b[0m %d: loss \\x1b[1m3.1415\\x1b[0m\\n", 1 << 20, LINES, ()),
    "a progress bar": ("\\r  4%%|#     | %d/90000 [00:10<03:40, 95.1it/s, loss=3.1415]", 1 << 20,
                       ("{step}/{max_steps} [", "loss={loss}"), ()),
    "regular expressions": ("iter %d: loss 3.1415, time 12.34ms\\n", 1 << 20,
                            (r"iter (?P<step>\d+): loss (?P<loss>\S+),", r"step (?P<step>\d+).*val (?P<val>\S+)"), ()),
    "JSON lines": ('{"step": %d, "loss": 3.1415, "lr": 0.0003}\\n', 1 << 20, (), ("out.jsonl",)),
    "JSON lines, 16 MB/s": ('{"step": %d, "loss": 3.1415, "lr": 0.0003}\\n', 16 << 20, (), ("out.jsonl",)),
    "lines that fit, 16 MB/s": ("iter %d: loss 3.1415, time 12.34ms\\n", 16 << 20, LINES, ()),
}  # fmt: skip
"""For each case: a line, bytes per second, patterns of lines, the file that it goes to where that is not the log."""


def share(form: str, rate: int, lines: tuple[str, ...], files: tuple[str, ...], seconds: float) -> tuple[float, Reader]:
    """Return this process's processor time as a share of a core while it follows a program."""
    with tempfile.TemporaryDirectory() as folder, Path(folder, files[0] if files else rundir.LOG).open("wb") as log:
        reader = Reader({"lines": lines, "files": files, "goal": {"loss": "minimize"}}, folder)
        argv = [sys.executable, "-c", PROGRAM, form, str(rate), str(seconds)]
        child = subprocess.Popen(argv, stdout=log)
        before, began = time.process_time(), time.monotonic()
        watch(child, lambda: reader.beat("t:1"))
        return (time.process_time() - before) / (time.monotonic() - began), reader


def main(seconds: float) -> None:
    """Print the shares."""
    print(f"processor time of following metrics, {seconds:g} s each (goal: under 1 % of a core at 1 MB/s)")
    for name, (form, rate, lines, files) in CASES.items():
        used, reader = share(form, rate, lines, files, seconds)
        print(f"{name:26}{100 * used:8.3f} %   step {reader.step or 0:,}")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0)

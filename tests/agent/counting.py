"""A program that nobody here trains with: it counts, says so, saves where it is, and goes on from there."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path


def main() -> None:
    """Count to ``--steps``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--every", type=int, default=5, help="steps from one checkpoint to the next")
    parser.add_argument("--pause", type=float, default=0.02)
    parser.add_argument("--out", default=".")
    parser.add_argument("--resume", default="")
    parser.add_argument("--slow-stop", type=float, default=0.0, help="seconds before it gives in to SIGTERM")
    parser.add_argument("--die-at", type=int, default=-1, help="step at which it fails, unless it was resumed")
    parser.add_argument("--always", action="store_true", help="fail there also once it was resumed")
    args = parser.parse_args()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    step = json.loads(Path(args.resume).read_text())["step"] if args.resume else 0
    print(f"begins at {step} as {os.getpid()}", flush=True)
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))

    def save() -> None:
        temporary = out / ".new"
        temporary.write_text(json.dumps({"step": step}))
        temporary.rename(out / "ckpt.json")

    while step < args.steps and not stopped:
        step += 1
        time.sleep(args.pause)
        print(f"iter {step}: loss {1 / step:.4f}", flush=True)
        if step % args.every == 0:
            save()
        if step == args.die_at and (args.always or not args.resume):
            raise ValueError(f"on purpose at {step}")
    if stopped:
        until = time.monotonic() + args.slow_stop
        while time.monotonic() < until:
            time.sleep(0.05)
        print(f"SIGTERM {len(stopped)} times at {step}", flush=True)
        save()
    (out / "result.txt").write_text(f"{step}\n")


if __name__ == "__main__":
    sys.exit(main())

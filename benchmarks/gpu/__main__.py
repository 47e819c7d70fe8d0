"""Check the trainer on this machine's GPUs and measure it: a table, and the file that docs/benchmarks.md is made from.

    python -m benchmarks.gpu --against ~/nanoGPT     # the same as: make check-gpu NANOGPT=~/nanoGPT
    python -m benchmarks.gpu --docs                  # write all that was measured into docs/benchmarks.md
    python -m benchmarks.gpu --rehearse              # on the CPU, at a tiny size: shows that the script runs

It needs Python, PyTorch and NumPy, no network, and at most 8 minutes. Runs that are compared to the bit share a GPU
with one another; what is timed has it for itself. Ends with 1 if something isn't as it should be.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import checks, speed, table
from benchmarks.gpu.place import Place, Row
from benchmarks.train_step import write_data
from train.config import TrainConfig
from train.environment import describe_hardware, describe_versions

LIMIT_S = 460.0
"""Of the 8 minutes; the rest is for starting and writing. A rehearsal takes as long as it takes."""
SMALL = TrainConfig(
    model_type="oelm", freeze_qk=True, d_model=256, num_layers=4, num_heads=4, d_ff=1024, seq_len=256, vocab_size=8192,
    max_lr=1e-3, warmup_steps=10, batch_size=8, val_batches=2,
)  # fmt: skip
TINY = replace(SMALL, d_model=32, num_layers=1, num_heads=2, d_ff=64, seq_len=32, vocab_size=256, batch_size=4)


def machine(device: str, gpus: int) -> dict[str, Any]:
    """Return what the machine is, for the record."""
    versions = describe_versions(None)
    name = describe_hardware(torch.device(device))["name"]
    return {"gpu": name, "gpus": gpus, **{key: versions[key] for key in ("python", "torch", "cuda", "revision")}}


def check(place: Place) -> list[Row]:
    """Make all checks in the order of their importance, and print each line of the table as it comes."""
    rows: list[Row] = []
    # Bits and estimates first, which may share the GPU; then what is timed.
    for section, parts in (
        (checks.SECTION, (checks.check, checks.check_steady, checks.check_memory)),
        (speed.SECTION, (speed.check_steps, speed.check_head, speed.check_freezing)),
    ):
        for part in parts:
            for row in rows_of(part, place, section):
                rows.append(row)
                print(table.as_text([row]), flush=True)
    return rows


def rows_of(part: Callable[[Place], Iterator[Row]], place: Place, section: str) -> Iterator[Row]:
    """Yield the rows of a part; one that fails in a way that nobody foresaw takes no other with it."""
    try:
        yield from part(place)
    except Exception as error:
        traceback.print_exc()
        yield Row(section, part.__name__, f"{type(error).__name__}: {error}", False)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--against", type=Path, metavar="DIR", help="a checkout of karpathy/nanoGPT")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="where to write (default: benchmarks/measured/<GPU>.json)"
    )
    parser.add_argument(
        "--docs", action="store_true", help="write what was measured into docs/benchmarks.md, nothing else"
    )
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, at a tiny size")
    arguments = parser.parse_args()
    if arguments.docs:
        table.write_page()
        return 0
    gpus = 0 if arguments.rehearse else torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not gpus and not arguments.rehearse:
        print(f"torch {torch.__version__} sees no GPU; --rehearse runs on the CPU, at a tiny size", file=sys.stderr)
        return 2
    begun = time.monotonic()
    device, small = ("cuda", SMALL) if gpus else ("cpu", TINY)
    reference = TrainConfig() if gpus else replace(TINY, model_type="gpt", freeze_qk=False)
    facts = machine(device, gpus)
    print(f"{gpus} x {facts['gpu']}, PyTorch {facts['torch']}, CUDA {facts['cuda']}\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        write_data(data, min(small.vocab_size, reference.vocab_size))
        path = str(data / "train.bin")
        place = Place(
            device, gpus, Path(folder), begun + (LIMIT_S if gpus else 3600.0), replace(reference, data_path=path),
            replace(small, data_path=path), arguments.against, 1.0 if gpus else 0.1,
        )  # fmt: skip
        rows = check(place)
    took = time.monotonic() - begun
    record = {"version": 1, "date": time.strftime("%Y-%m-%d"), "seconds": took, "machine": facts}
    record["rows"] = [asdict(row) for row in rows]
    print(f"\n{table.as_text(rows)}\n\n{took:.0f} s")
    name = re.sub(r"\W+", "-", facts["gpu"]).strip("-") or "cpu"
    target = arguments.json or (table.MEASURED / f"{name}.json" if gpus else None)
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"{target}: written; python -m benchmarks.gpu --docs puts it into docs/benchmarks.md")
    return 1 if any(row.ok is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())

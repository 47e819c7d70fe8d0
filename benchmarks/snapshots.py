"""What another snapshot of a large project costs when one of its files has changed.

    python benchmarks/snapshots.py                # 20,000 files, 11 rounds
    python benchmarks/snapshots.py --files 2000

In each round one file of a git checkout is changed, and two ways are taken in turn, who begins alternating: every file
is hashed and copied, as was done before files were stored once, and ours, from looking at the checkout to the whole
snapshot in its place. Disk space is what the file system says is allocated, folders included.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from oelm_jobs.code import contents, snapshot


def make_project(project: Path, number: int) -> list[Path]:
    """Write a checkout with so many files of code in folders of 100; return them."""
    draw = random.Random(1)
    paths = []
    for place in range(number):
        path = project / f"package{place // 1000}" / f"part{place // 100}" / f"module_{place}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {place}\n" + "".join(f"x{n} = {draw.random()}\n" for n in range(draw.randrange(20, 180))))
        paths.append(path)
    own = ["-c", "user.name=b", "-c", "user.email=b@example.org", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-C", str(project), *own, *words], check=True)
    return paths


def copy_whole(project: Path, folder: Path) -> None:
    """Hash and copy every file that git lists."""
    listed = subprocess.run(["git", "-C", str(project), "ls-files", "-z"], capture_output=True, check=True).stdout
    names = [os.fsdecode(name) for name in listed.split(b"\0") if name]
    digest = hashlib.sha256()
    for name in names:
        digest.update(hashlib.sha256((project / name).read_bytes()).digest())
    top = folder / digest.hexdigest()[:16]
    for name in names:
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(project / name, path)
        path.chmod(0o555 if os.access(project / name, os.X_OK) else 0o444)


def keep_changes(project: Path, folder: Path) -> None:
    """Take and keep a snapshot."""
    snapshot.keep(snapshot.take(project), folder)


def allocated(folder: Path) -> int:
    """Return the bytes that a folder takes on its disk, each file counted once."""
    found = {}
    for place, _, names in os.walk(folder):
        for path in [place, *(os.path.join(place, name) for name in names)]:
            look = os.lstat(path)
            found[look.st_ino] = look.st_blocks * 512
    return sum(found.values())


def shown(values: list[float], unit: str, form: str = ".2f") -> str:
    """Return a median with its range."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}}){unit}"


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=11)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        os.environ["OELM_STATE_DIR"] = f"{place}/state"
        project = Path(place) / "project"
        paths = make_project(project, asked.files)
        ways: dict[str, Callable[[Path, Path], None]] = {"copied": copy_whole, "kept": keep_changes}
        folders = {name: Path(place) / name / "snapshots" for name in ways}
        size = sum(path.stat().st_size for path in paths)
        print(f"{len(paths):,} files, {size / 1e6:.0f} MB, one of them changed, load {os.getloadavg()[0]:.1f}")
        time.sleep(contents.RECENT_S + 1)  # a file that changed a moment ago is read again
        for name, way in ways.items():
            begun = time.perf_counter()
            way(project, folders[name])
            took = time.perf_counter() - begun
            print(f"the first, {name}: {took:.2f} s, {allocated(folders[name].parent) / 1e6:.1f} MB")
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        megabytes: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(asked.rounds):
            with paths[number * 7 % len(paths)].open("a") as file:
                file.write(f"changed = {number}\n")
            for name in list(ways)[:: 1 if number % 2 else -1]:
                before = allocated(folders[name].parent)
                begun = time.perf_counter()
                ways[name](project, folders[name])
                seconds[name].append(time.perf_counter() - begun)
                megabytes[name].append((allocated(folders[name].parent) - before) / 1e6)
        for name in ways:
            print(f"another, {name}: {shown(seconds[name], ' s')}, {shown(megabytes[name], ' MB')}")
        ratios = [old / new for old, new in zip(seconds["copied"], seconds["kept"], strict=True)]
        less = [old / new for old, new in zip(megabytes["copied"], megabytes["kept"], strict=True)]
        print(f"{shown(ratios, ' times as fast', '.1f')}, {shown(less, ' times less disk', '.0f')}")


if __name__ == "__main__":
    main()

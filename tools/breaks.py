"""Break the code on purpose, one guarantee at a time, and check that the tests notice (tests/breaks.toml lists the
breaks).

    python tools/breaks.py             all of them
    python tools/breaks.py lease fsync those whose name or file holds one of these
    python tools/breaks.py --list      only say which there are

Each break is made in a copy of the checkout, uncommitted changes included, with an environment that imports the copy
and has its commands. Ends with 1 when a break was not noticed.
"""

from __future__ import annotations

import argparse
import configparser
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import venv
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).resolve().parent.parent
BREAKS = REPOSITORY / "tests" / "breaks.toml"
LIMIT_S = 1800.0
"""For the tests of one break; one that makes a test wait in vain ends at the test's own time limit before."""
PATIENCE_S = 60.0
"""For pytest to end what its tests have started, once it is interrupted."""
WAIT_S = 40.0
"""How long a test waits at most for what a break keeps from happening; without a break it takes a few seconds."""
TESTS_FAILED = 1
"""Exit code of pytest."""
_bed = threading.Lock()
"""Held while tests run that set up daemons on this machine: two sets of those get in each other's way."""

FINDER = """
import importlib.util, sys

FOLDERS = {folders!r}

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        folder = FOLDERS.get(name)
        if folder is None:
            return None
        return importlib.util.spec_from_file_location(
            name, folder + "/__init__.py", submodule_search_locations=[folder]
        )

sys.meta_path.insert(0, Finder)
"""


@dataclass(frozen=True, kw_only=True)
class Break:
    """A change that breaks one guarantee."""

    name: str
    """What is broken, as a part of a sentence."""
    file: str
    """Path within the checkout."""
    find: str
    """Text that stands in the file exactly once."""
    replace: str
    """What stands in its place."""
    tests: tuple[str, ...]
    """Node ids for pytest; one of them has to fail."""

    def broken(self, text: str) -> str:
        """Return the file's text with the break applied.

        Raises:
            ValueError: The place is not there, or not the only one.
        """
        if (count := text.count(self.find)) != 1:
            raise ValueError(f"{self.name}: what is to be replaced stands {count} times in {self.file}, not once")
        return text.replace(self.find, self.replace)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of a run of tests."""

    is_noticed: bool
    """Whether a test failed: not where pytest couldn't run them, or took too long."""
    result: str
    """Which test failed, or why none did."""
    output: str
    """What pytest printed."""
    seconds: float
    """Wall time."""


def read(path: Path = BREAKS) -> list[Break]:
    """Return the breaks in a file.

    Raises:
        ValueError: An entry has other keys than it should.
    """
    entries: list[dict[str, Any]] = tomllib.loads(path.read_text(encoding="utf-8"))["break"]
    for entry in entries:
        if entry.keys() != Break.__annotations__.keys():
            raise ValueError(f"{path}: {entry.get('name')}: has {sorted(entry)}, not {sorted(Break.__annotations__)}")
    return [Break(**{**entry, "tests": tuple(entry["tests"])}) for entry in entries]


# Copies ---------------------------------------------------------------------------------------------------------------


def copy_checkout(place: Path) -> None:
    """Copy the files that git tracks, and those that are new and not ignored, as they are now."""
    listing = ["git", "-C", str(REPOSITORY), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listing, check=True, capture_output=True).stdout.split(b"\0"):
        source = REPOSITORY / os.fsdecode(name)
        if name and os.path.lexists(source):  # a file may have been removed since it was committed
            target = place / os.fsdecode(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)


def make_environment(checkout: Path) -> Path:
    """Make a virtual environment that has this one's packages, and the toolkit of a checkout; return its Python.

    Paths in a .pth file are added, but .pth files there are not read: an editable toolkit stays out.
    """
    folder = checkout / ".venv"
    venv.create(folder, with_pip=False)
    programs = folder / "bin"
    (packages,) = folder.glob("lib/python*/site-packages")
    outer = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    settings = configparser.ConfigParser()
    settings.read(checkout / "setup.cfg", encoding="utf-8")
    folders = {"oelm_jobs": str(checkout / "oelm_jobs")}
    for line in settings["options"]["package_dir"].split("\n"):
        name, found, path = line.partition("=")
        if found:
            folders[name.strip()] = str(checkout / path.strip())
    (packages / "_checkout.py").write_text(FINDER.format(folders=folders), encoding="utf-8")
    (packages / "_checkout.pth").write_text("\n".join(["import _checkout", *outer, ""]), encoding="utf-8")
    for line in settings["options.entry_points"]["console_scripts"].strip().splitlines():
        name, module, function = re.split(r"\s*[=:]\s*", line.strip())
        script = f"#!{programs / 'python'}\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n"
        (programs / name).write_text(script, encoding="utf-8")
        (programs / name).chmod(0o755)
    return programs / "python"


# Tests ----------------------------------------------------------------------------------------------------------------


def run_tests(checkout: Path, tests: Sequence[str], *options: str) -> Outcome:
    """Run tests of a copy, in an environment that is made for it."""
    python = make_environment(checkout)
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    environment |= {
        "PATH": f"{python.parent}:{os.environ['PATH']}",
        "VIRTUAL_ENV": str(python.parent.parent),
        "OMP_NUM_THREADS": "1",
        "TEST_PATIENCE_S": str(WAIT_S),
    }
    argv = [str(python), "-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider", *options, *tests]
    begun = time.monotonic()
    with _bed if any(test.startswith(("tests/slurm/", "tests/ssh/")) for test in tests) else nullcontext():
        process = subprocess.Popen(
            argv, cwd=checkout, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace",
        )  # fmt: skip
        try:
            output, _ = process.communicate(timeout=LIMIT_S)
            result = ""
        except subprocess.TimeoutExpired:
            result = f"no answer within {LIMIT_S:.0f} s"
            output = _end(process)
        except BaseException:
            _end(process)
            raise
        finally:
            _end_what_is_left(checkout)
    failed = re.search(r"^FAILED (.+?)(?: - |$)", output, re.MULTILINE)
    noticed = not result and process.returncode == TESTS_FAILED and failed is not None
    if noticed and failed is not None:
        result = failed[1]
    elif not result:
        last = next((line for line in reversed(output.splitlines()) if line.strip()), "")
        result = f"pytest ended with {process.returncode}: {last}"
    return Outcome(is_noticed=noticed, result=result, output=output, seconds=time.monotonic() - begun)


def _end(process: subprocess.Popen[str]) -> str:
    """Interrupt pytest, so that its fixtures end what they have started; kill it if it goes on."""
    process.send_signal(signal.SIGINT)
    try:
        return process.communicate(timeout=PATIENCE_S)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[0]


def _end_what_is_left(checkout: Path) -> None:
    """Kill what a break kept tests from ending, which has the copy in its environment or command line."""
    mark = f"{checkout}{os.sep}"
    found: set[psutil.Process] = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(mark in word for word in (*process.cmdline(), *process.environ().values())):
                found |= {process, *process.children(recursive=True)}  # which may have dropped their environment
    for process in found:
        with suppress(psutil.Error):
            process.kill()


def try_break(base: Path, place: Path, change: Break) -> Outcome:
    """Make one break in a copy of ``base`` and run its tests there; the copy is removed."""
    shutil.copytree(base, place, symlinks=True, ignore=lambda folder, _: [".venv"] if Path(folder) == base else [])
    try:
        path = place / change.file
        path.write_text(change.broken(path.read_text(encoding="utf-8")), encoding="utf-8")
        return run_tests(place, change.tests, "-x")
    finally:
        shutil.rmtree(place, ignore_errors=True)


# The command ----------------------------------------------------------------------------------------------------------


def main() -> int:
    """Make the breaks that the command line names; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="parts of names or files; all breaks without any")
    parser.add_argument("-n", type=int, default=1, metavar="N", dest="processes", help="so many at once (default 1)")
    parser.add_argument("--list", action="store_true", help="print names, files and tests, and break nothing")
    arguments = parser.parse_args()
    known = read()
    breaks = [b for b in known if not arguments.parts or any(w in b.name or w in b.file for w in arguments.parts)]
    if not breaks:
        print(f"no break fits {' '.join(arguments.parts)}; --list shows all {len(known)}", file=sys.stderr)
        return 2
    if arguments.list:
        for change in breaks:
            print(f"{change.name}\n    {change.file}\n    {' '.join(change.tests)}")
        return 0
    with tempfile.TemporaryDirectory(prefix="oelm-breaks-") as folder:
        return _try_all(Path(folder), breaks, arguments.processes)


def _try_all(folder: Path, breaks: Sequence[Break], processes: int) -> int:
    base = folder / "base"
    copy_checkout(base)
    tests = sorted({test for change in breaks for test in change.tests})
    print(f"{len(tests)} tests of {len(breaks)} breaks, without any: ", end="", flush=True)
    side_by_side = ("-n", str(processes), "--dist", "loadfile") if processes > 1 else ()
    sound = run_tests(base, tests, *side_by_side)
    print(f"{sound.seconds:.0f} s", flush=True)
    if " passed" not in sound.output or re.search(r"\d (failed|error|skipped)", sound.output.splitlines()[-1]):
        print(sound.output)
        print("these have to pass before anything is broken", file=sys.stderr)
        return 1
    survived = []

    def attempt(numbered: tuple[int, Break]) -> None:
        number, change = numbered
        outcome = try_break(base, folder / str(number), change)
        if not outcome.is_noticed:
            survived.append(change.name)
        verdict = f"{'caught' if outcome.is_noticed else 'SURVIVED'} {outcome.seconds:4.0f} s"
        print(f"{number:3}/{len(breaks)} {verdict}  {change.name}: {outcome.result}", flush=True)

    with ThreadPoolExecutor(processes) as pool:
        try:
            list(pool.map(attempt, enumerate(breaks, 1)))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    print(f"{len(breaks) - len(survived)} of {len(breaks)} breaks caught")
    for name in survived:
        print(f"SURVIVED: {name}")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())

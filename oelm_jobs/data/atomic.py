"""Make a folder that is either complete or absent: unfinished files lie in a scratch folder beside its final place."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..agent.rundir import sync_folder
from ..agent.sentences import _

SCRATCH_PREFIX = ".oelm-data-"


@contextlib.contextmanager
def scratch_folder(output: Path) -> Iterator[Path]:
    """Yield a folder on the output's disk for unfinished files, and remove it at the end; also remove those that killed
    processes left.

    A maker holds a lock on its folder for as long as it lives; the kernel frees it.
    """
    base = output if output.is_dir() else output.parent
    base.mkdir(parents=True, exist_ok=True)
    for left in base.glob(f"{SCRATCH_PREFIX}*"):
        with _locked(left) as has_ended:
            if has_ended:
                shutil.rmtree(left, ignore_errors=True)
    made = base / f".{secrets.token_hex(4)}{SCRATCH_PREFIX}"  # not mkdtemp: its mode 0700 would stay
    made.mkdir()
    with _locked(made):
        # Before it is locked, it has a name by which nobody takes it for a dead maker's.
        scratch = made.rename(base / f"{SCRATCH_PREFIX}{secrets.token_hex(4)}")
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Hold a folder's lock; yield whether it is held: not where another process has it, or where there are no locks."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    is_held = False
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_held = True
        yield is_held
    finally:
        os.close(handle)


def publish(scratch: Path, output: Path, names: Sequence[str], *, replace: bool, stale: Sequence[str] = ()) -> None:
    """Give finished files their final names: all at once where the output is new, else in the order of ``names``.

    Args:
        stale: Names of files that are not made and go with the old ones.

    Raises:
        FileExistsError: One of them is there already and ``replace`` is false.
    """
    if not output.exists():
        try:
            scratch.rename(output)
        except OSError:
            pass  # another maker was faster
        else:
            return sync_folder(output.parent)
    if not replace and (held := [name for name in names if (output / name).exists()]):
        raise FileExistsError(
            errno.EEXIST, _("appeared while this was made; look at it and run again"), output / held[0]
        )
    # Old files go first, the last-named before the others: new files beside old ones must never be seen.
    for name in reversed((*stale, *names)):
        (output / name).unlink(missing_ok=True)
    sync_folder(output)
    for name in names:
        (scratch / name).replace(output / name)
    sync_folder(output)

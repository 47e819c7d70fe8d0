"""Write, find, check and delete checkpoint files.

A file appears under its name only when all of it is on the disk (temporary file, fsync, rename, fsync of the folder),
so the previous one stays good whatever interrupts the write. ``state`` decides what is in them.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
import zipfile
from typing import Any, BinaryIO, Callable, Dict, List, Optional, Tuple

import torch

from .errors import CheckpointError, DiskFull, TrainError, is_disk_full
from .sentences import _

BEST = "best_model.pt"
WRITING_THREAD = "checkpoint"
_NAME = re.compile(r"checkpoint_(\d+)\.pt")


def checkpoint_name(step: int) -> str:
    """Return the file name of a step's checkpoint."""
    return f"checkpoint_{step}.pt"


def list_checkpoints(out_dir: str) -> List[Tuple[int, str]]:
    """Return (step, path) of the checkpoints in a folder, newest first."""
    names = os.listdir(out_dir) if os.path.isdir(out_dir) else []
    matches = [match for match in map(_NAME.fullmatch, names) if match]
    return sorted(((int(match.group(1)), os.path.join(out_dir, match.group(0))) for match in matches), reverse=True)


def load_checkpoint(path: str) -> Dict[str, Any]:
    """Read a checkpoint onto the CPU, every byte of it checked against its zip archive's checksums.

    Raises:
        CheckpointError: the file is missing, torn or not a checkpoint of this trainer.
    """
    if not os.path.isfile(path):
        raise CheckpointError(_("checkpoint not found: {path}", path))
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        loaded = torch.load(path, map_location="cpu", weights_only=True) if damaged is None else None
    except Exception as error:  # zipfile, pickle and torch fail in many ways on a torn file
        why = f"{type(error).__name__}: {error}"
        raise CheckpointError(_("{path} is torn or no checkpoint ({why})", path, why)) from None
    if damaged is not None:
        raise CheckpointError(_("{path} is damaged: the checksum of {part} differs", path, damaged))
    if not isinstance(loaded, dict) or "model" not in loaded or "config" not in loaded:
        raise CheckpointError(_("{path} is not a checkpoint of this trainer", path))
    return loaded


def newest_good_checkpoint(out_dir: str, say: Callable[[str], None]) -> Tuple[Optional[str], Optional[Dict[str, Any]]]:
    """Return path and content of the newest checkpoint that can be read, or (None, None) where there is none at all.

    Raises:
        CheckpointError: there are checkpoints, but none can be read: starting over would hide that.
    """
    candidates = list_checkpoints(out_dir)
    count = len(candidates)
    for _step, path in candidates:
        try:
            return path, load_checkpoint(path)
        except CheckpointError as error:
            say(f"Skipping a checkpoint: {error}")
    if count:
        raise CheckpointError(
            _("none of the {count} checkpoints in {folder} can be read; --resume none starts over", count, out_dir)
        )
    return None, None


def copy_to_cpu(value: Any) -> Any:
    """Return a deep copy whose tensors lie in host memory: what a writer may save while training goes on."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: copy_to_cpu(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(copy_to_cpu(item) for item in value)
    return value


class _Recorder:
    """A file that remembers its first error: torch.save reports a full disk as a RuntimeError without an errno."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.error: Optional[OSError] = None

    def write(self, data: bytes) -> int:
        try:
            return self._stream.write(data)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        self._stream.flush()


def write_atomically(path: str, content: Dict[str, Any]) -> None:
    """Save to a temporary file beside ``path``, make it durable, and rename it.

    Raises:
        DiskFull: no room; nothing is left behind.
        TrainError: the file can't be written for another reason.
    """
    folder = os.path.dirname(path) or "."
    partial = os.path.join(folder, f".{os.path.basename(path)}.partial")
    recorder = None
    try:
        with open(partial, "wb", buffering=1 << 20) as stream:
            recorder = _Recorder(stream)
            torch.save(content, recorder)  # type: ignore[arg-type]  # write and flush are enough for torch
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
        sync_folder(folder)
    except (OSError, RuntimeError) as error:
        cause = recorder.error if recorder is not None and recorder.error is not None else error
        _remove(partial)
        if is_disk_full(cause):
            raise DiskFull(_("disk full")) from error
        raise TrainError(_("can't write {path}: {why}", path, str(cause))) from error


def sync_folder(folder: str) -> None:
    """Make a rename in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


class CheckpointWriter:
    """Writes checkpoints of one folder in the background, one at a time, and deletes those past their time.

    Without ``out_dir`` nothing is kept. ``save`` copies the state (a fraction of a second) and returns; an error of the
    write is raised by the next call.
    """

    def __init__(self, out_dir: Optional[str], keep_last: int, keep_every: int) -> None:
        self._out_dir = out_dir or ""
        self._keep_last = keep_last
        self._keep_every = keep_every
        self._thread: Optional[threading.Thread] = None
        self.error: Optional[Exception] = None
        """What the last write failed with, which nobody has heard of yet."""
        self.blocked_s = 0.0
        """Seconds for which training stood still: copying, and waiting for the write before."""

    def save(self, name: str, content: Dict[str, Any]) -> None:
        """Copy ``content`` and begin to write it under ``name``; waits for the write before. Raises its error."""
        if not self._out_dir:
            return
        self.finish()
        start = time.perf_counter()
        copied = copy_to_cpu(content)
        self._thread = threading.Thread(target=self._write, args=(name, copied), name=WRITING_THREAD)
        self._thread.start()
        self.blocked_s += time.perf_counter() - start

    def finish(self) -> None:
        """Wait until all is written. Raises the error of the last write."""
        if self._thread is not None:
            start = time.perf_counter()
            self._thread.join()
            self._thread = None
            self.blocked_s += time.perf_counter() - start
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    def _write(self, name: str, content: Dict[str, Any]) -> None:
        try:
            write_atomically(os.path.join(self._out_dir, name), content)
            match = _NAME.fullmatch(name)
            if match:
                self._prune(int(match.group(1)))
        except Exception as error:  # whatever it is: nobody else hears of it in this thread
            self.error = error

    def _prune(self, newest: int) -> None:
        """Delete checkpoints that neither ``keep_last`` nor ``keep_every`` asks for, the oldest first.

        Those past step ``newest``, which has just been written, are not counted: they may be torn, and will be written
        again when the run comes there.
        """
        if not self._keep_last:
            return
        older = [(step, path) for step, path in list_checkpoints(self._out_dir) if step <= newest]
        for step, path in reversed(older[self._keep_last :]):
            if not self._keep_every or step % self._keep_every:
                _remove(path)

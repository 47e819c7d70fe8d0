"""The optional trackers, TensorBoard and Weights & Biases, neither of which may ever fail a run.

A tracker that is missing or fails is named once in the log and not used again.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from typing import Any, Callable, Dict, Iterator, Optional

from . import config as configuration
from .config import TrainConfig

_SKIPPED = ("step", "time", "val_full")


class Trackers:
    """Passes records of metrics.jsonl on to the trackers that were opened."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._opened: Dict[str, Any] = {}
        """By name, what has ``log`` and ``finish``."""

    def open(self, config: TrainConfig, out_dir: Optional[str]) -> None:
        """Open the trackers that the configuration asks for."""
        if config.use_tensorboard:
            with self._attempt("TensorBoard"):
                self._opened["TensorBoard"] = _TensorBoard(out_dir)
        if config.use_wandb:
            with self._attempt("W&B"):
                self._opened["W&B"] = _wandb(config, out_dir)

    def add(self, record: Dict[str, Any]) -> None:
        """Pass a record on."""
        values = {key: value for key, value in record.items() if key not in _SKIPPED and value is not None}
        for name, tracker in list(self._opened.items()):
            with self._attempt(name):
                tracker.log(values, step=record["step"])

    def close(self) -> None:
        """Flush and close all trackers."""
        for name, tracker in list(self._opened.items()):
            with self._attempt(name):
                tracker.finish()

    @contextlib.contextmanager
    def _attempt(self, name: str) -> Iterator[None]:
        try:
            yield
        except BaseException as error:  # wandb ends processes; a tracker's fault is never the run's
            if isinstance(error, KeyboardInterrupt):
                raise
            self._opened.pop(name, None)
            self._say(f"{name} is off: {type(error).__name__}: {error}")


class _TensorBoard:
    """TensorBoard as W&B looks: what is logged becomes files in ``out_dir``."""

    def __init__(self, out_dir: Optional[str]) -> None:
        if not out_dir:
            raise ValueError("it needs --out_dir")
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(os.path.join(out_dir, "tensorboard"))
        self.finish = self._writer.close

    def log(self, values: Dict[str, Any], step: int) -> None:
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)


def _wandb(config: TrainConfig, out_dir: Optional[str]) -> Any:
    os.environ.setdefault("WANDB_MODE", "offline")  # a login prompt or a dead network would stop a run
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb  # type: ignore[import-not-found, unused-ignore]  # optional

    return wandb.init(
        project=config.wandb_project,
        name=config.wandb_run_name or (os.path.basename(out_dir) if out_dir else None),
        id=_wandb_id(out_dir) if out_dir else None,
        dir=out_dir or None,
        config=configuration.to_dict(config),
        resume="allow",
    )


def _wandb_id(out_dir: str) -> str:
    """Return W&B's name of this run, made up by its first attempt and kept for those that go on with it."""
    path = os.path.join(out_dir, "wandb", "run_id")
    if not os.path.exists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(uuid.uuid4().hex)
    with open(path) as file:
        return file.read()

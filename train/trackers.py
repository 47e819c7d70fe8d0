"""The optional trackers, TensorBoard and Weights & Biases, neither of which may ever fail a run.

A tracker that is missing or fails is named once in the log and not used again.
"""

from __future__ import annotations

import os
import uuid
from typing import Any, Callable, Dict, List, Optional

from . import config as configuration
from .config import TrainConfig

_SKIPPED = ("step", "time", "val_full")


class Trackers:
    """Passes records of metrics.jsonl on to the trackers that the configuration asks for."""

    def __init__(self, config: TrainConfig, out_dir: Optional[str], say: Callable[[str], None]) -> None:
        self._say = say
        self._sinks: Dict[str, Any] = {}
        self._closers: List[Callable[[], Any]] = []
        if config.use_tensorboard:
            self._attempt("TensorBoard", lambda: self._open_tensorboard(out_dir))
        if config.use_wandb:
            self._attempt("W&B", lambda: self._open_wandb(config, out_dir))

    def add(self, record: Dict[str, Any]) -> None:
        """Pass a record on."""
        step = record["step"]
        values = {key: value for key, value in record.items() if key not in _SKIPPED and value is not None}
        for name, sink in list(self._sinks.items()):
            self._attempt(name, lambda sink=sink: sink(values, step))  # type: ignore[misc]

    def close(self) -> None:
        """Flush and close all trackers."""
        for closer in self._closers:
            self._attempt("a tracker", closer)
        self._closers = []

    def _attempt(self, name: str, action: Callable[[], Any]) -> None:
        try:
            action()
        except BaseException as error:  # wandb ends processes; a tracker's fault is never the run's
            if isinstance(error, KeyboardInterrupt):
                raise
            self._sinks.pop(name, None)
            self._say(f"{name} is off: {type(error).__name__}: {error}")

    def _open_tensorboard(self, out_dir: Optional[str]) -> None:
        if not out_dir:
            raise ValueError("it needs --out_dir")
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(os.path.join(out_dir, "tensorboard"))

        def sink(values: Dict[str, Any], step: int) -> None:
            for key, value in values.items():
                writer.add_scalar(key, value, step)

        self._sinks["TensorBoard"] = sink
        self._closers.append(writer.close)

    def _open_wandb(self, config: TrainConfig, out_dir: Optional[str]) -> None:
        os.environ.setdefault("WANDB_MODE", "offline")  # a login prompt or a dead network would stop a run
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb  # type: ignore[import-not-found, unused-ignore]

        run = wandb.init(
            project=config.wandb_project,
            name=config.wandb_run_name or (os.path.basename(out_dir) if out_dir else None),
            id=_wandb_id(out_dir) if out_dir else None,
            dir=out_dir or None,
            config=configuration.to_dict(config),
            resume="allow",
        )
        self._sinks["W&B"] = lambda values, step: run.log(values, step=step)
        self._closers.append(run.finish)


def _wandb_id(out_dir: str) -> str:
    """Return W&B's name of this run, made up by its first attempt and kept for those that go on with it."""
    path = os.path.join(out_dir, "wandb", "run_id")
    if not os.path.exists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(uuid.uuid4().hex)
    with open(path) as file:
        return file.read()

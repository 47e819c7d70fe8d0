"""A run's state at a step: its progress, what a checkpoint holds of it, and when a checkpoint may be resumed.

Learning rate, data and dropout are pure functions of (seed, step), so there is no scheduler, loader or generator state
to keep.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Dict, List, Optional

import torch

from . import config as configuration
from .compiling import wants_compile
from .config import TrainConfig
from .data import DataRecord, TokenFile
from .distributed import World
from .errors import CheckpointError
from .model import Transformer
from .optimizer import Precision, leave_out_frozen
from .sentences import _

VERSION = 1
_SHAPE = ("d_model", "num_layers", "num_heads", "d_ff", "vocab_size", "seq_len", "position", "qk_norm")
"""Keys by which weights are those of a model, or of another; seq_len where there is a vector for each place."""
ARITHMETIC = {"fp16": 3, "bf16": 3, "tf32": 2}
"""Version of a step's arithmetic, by precision (1 where none is named): raised with every change of a step's bits, so
that an older run which goes on says that it isn't exact.
"""


@dataclass
class Progress:
    """How far a run has come; everything is a primitive, so that it loads with ``weights_only=True``."""

    step: int = 0
    """Optimizer steps made."""
    tokens: int = 0
    """Tokens trained on, over all processes."""
    loss_sums: List[float] = field(default_factory=list)
    """Sum of the mean losses since the last record, per process: a sum's bits depend on its order."""
    loss_steps: int = 0
    """Steps in those sums."""
    validated: bool = True
    """Whether the validation due at this step has taken place; false if a signal cut it short."""
    last: Dict[str, Any] = field(default_factory=dict)
    """The newest record of metrics.jsonl, without its validation."""
    best: Dict[str, Any] = field(default_factory=dict)
    """Step and val_loss of the best validation at an interval."""
    final: Dict[str, Any] = field(default_factory=dict)
    """The last step's validation; empty before it."""
    train_s: float = 0.0
    """Seconds spent in training steps, over all attempts."""
    val_s: float = 0.0
    """Seconds spent in validations, over all attempts."""
    checkpoint_s: float = 0.0
    """Seconds for which checkpoints held training up, over all attempts."""
    tokens_per_s: float = 0.0
    """Median over the steady steps of the newest attempt that had some."""
    compiled: Optional[bool] = None
    """Whether the newest attempt's blocks were compiled; None before the first."""
    inexact: List[str] = field(default_factory=list)
    """Why, since some earlier resumption, the run can't equal the uninterrupted one to the bit; empty if it does."""


@dataclass(frozen=True)
class Resumption:
    """The step from which a run resumes, and whether it does so as if it had never stopped."""

    progress: Progress
    """Where it stood."""
    treatment: Dict[str, Any]
    """treatment.json as it was before the first step."""
    from_step: Optional[int]
    """The checkpoint's step; None for a run from the start."""
    inexact: List[str]
    """What this resumption adds to ``progress.inexact``."""


@dataclass(frozen=True)
class Parts:
    """What a run trains with."""

    config: TrainConfig
    world: World
    model: Transformer
    optimizer: torch.optim.Optimizer
    precision: Precision
    data: DataRecord
    """What the files below hold."""
    train_file: TokenFile
    val_file: TokenFile
    test_file: Optional[TokenFile] = None
    """On which the last step's model is measured; None where it isn't."""

    @property
    def global_batch(self) -> int:
        """Sequences per step, over all processes."""
        return configuration.global_batch(self.config, self.world.size)


def checkpoint_content(parts: Parts, progress: Progress, treatment: Dict[str, Any]) -> Dict[str, Any]:
    """Return the checkpoint of a run at a step: primitives and tensors only, not yet copied."""
    scaler = parts.precision.scaler
    return {
        "version": VERSION,
        "model": parts.model.state_dict(),
        "optimizer": parts.optimizer.state_dict(),
        "scaler": scaler.state_dict() if scaler is not None else {},
        "progress": asdict(progress),
        "treatment": treatment,
        "config": configuration.to_dict(parts.config),
        "data": parts.data.to_dict(),
        "world": _describe_world(parts),
        "global_batch": parts.global_batch,
        "fingerprint": configuration.scientific_hash(parts.config, parts.global_batch),
    }


def _describe_world(parts: Parts) -> Dict[str, Any]:
    """Return what the exact result of a step depends on besides configuration and data."""
    world, precision = parts.world, parts.precision.name
    return {
        "size": world.size,
        "device": world.device.type,
        "name": world.hardware()["name"],
        "threads": torch.get_num_threads() if world.device.type == "cpu" else 0,
        "torch": str(torch.__version__),
        "precision": precision,
        "arithmetic": ARITHMETIC.get(precision, 1),
    }


def best_content(model: Transformer, config: TrainConfig, step: int, val_loss: float) -> Dict[str, Any]:
    """Return the content of best_model.pt: weights to evaluate and sample from, a third of a checkpoint's size."""
    return {
        "version": VERSION,
        "model": model.state_dict(),
        "config": configuration.to_dict(config),
        "progress": {"step": step, "val_loss": val_loss},
    }


def restore(loaded: Dict[str, Any], path: str, parts: Parts) -> Resumption:
    """Put a checkpoint's content into model, optimizer and scaler.

    Raises:
        CheckpointError: it holds weights alone, or belongs to a run that is scientifically another.
    """
    if "optimizer" not in loaded:
        raise CheckpointError(_("{path} holds weights alone; a run resumes from a checkpoint_<step>.pt", path))
    config, world, scaler = parts.config, parts.world, parts.precision.scaler
    _refuse_another_run(loaded, path, parts)
    if loaded["progress"]["step"] > config.freeze_from_step:
        parts.model.freeze()
        leave_out_frozen(parts.optimizer)
    parts.model.load_state_dict(loaded["model"])
    for group, own in zip(loaded["optimizer"]["param_groups"], parts.optimizer.param_groups):
        group["fused"] = own["fused"]  # which this device and PyTorch decide, not those of the checkpoint
    parts.optimizer.load_state_dict(loaded["optimizer"])
    if scaler is not None and loaded["scaler"]:
        scaler.load_state_dict(loaded["scaler"])
    progress = Progress(**loaded["progress"])
    if progress.compiled is None:  # a checkpoint of an older version, which did as it was told
        then = replace(config, compile=loaded["config"]["compile"], max_steps=loaded["config"]["max_steps"])
        progress.compiled = wants_compile(then, loaded["world"]["device"])
    inexact = _reasons_for_inexactness(loaded, parts)
    progress.inexact += [reason for reason in inexact if reason not in progress.inexact]
    if len(progress.loss_sums) != world.size:
        # The mean over processes stays what it was: the whole sum, scaled, on the first.
        whole = sum(progress.loss_sums) * world.size / max(1, len(progress.loss_sums))
        progress.loss_sums = [whole] + [0.0] * (world.size - 1)
    if config.max_steps > progress.step:
        progress.final = {}
    return Resumption(progress, loaded["treatment"], progress.step, inexact)


def begin_with(loaded: Dict[str, Any], path: str, parts: Parts) -> None:
    """Put the weights of a checkpoint, whatever run's, into the model that is about to be trained.

    Raises:
        CheckpointError: it holds a model of another shape.
    """
    config = parts.config
    then, now = configuration.in_full(loaded["config"]), configuration.in_full(configuration.to_dict(config))
    shape = [key for key in _SHAPE if key != "seq_len" or config.position == "learned"]
    differing = [_("{key} = {there} there and {here} here", key, str(then.get(key)), str(now[key]))
                 for key in shape if then.get(key) != now[key]]  # fmt: skip
    if differing:
        raise CheckpointError(_("{path} holds another model: {differences}", path, differing))
    try:
        parts.model.load_state_dict(loaded["model"])
    except (RuntimeError, AttributeError, TypeError) as error:
        raise CheckpointError(_("{path} holds another model: {differences}", path, [str(error)])) from None


def _refuse_another_run(loaded: Dict[str, Any], path: str, parts: Parts) -> None:
    """Raise CheckpointError unless the checkpoint is of this very run, or of this run with fewer steps planned."""
    config, data = parts.config, parts.data
    then, now = configuration.in_full(loaded["config"]), configuration.in_full(configuration.to_dict(config))
    beside = {
        _("global batch"): (loaded["global_batch"], parts.global_batch),
        _("training data"): (loaded["data"]["train_sha256"][:12], data.train_sha256[:12]),
        _("validation data"): (loaded["data"]["val_sha256"][:12], data.val_sha256[:12]),
    }
    for key, (there, here) in beside.items():
        then[key], now[key] = there, here
    keys = (*configuration.keys_of_kind("scientific"), *beside)
    differing = [key for key in keys if then.get(key) != now[key]]
    if differing == ["max_steps"] and config.max_steps > then["max_steps"]:
        return
    if differing:
        listed = [
            _("{key} = {there} there and {here} here", key, str(then.get(key)), str(now[key])) for key in differing
        ]
        raise CheckpointError(
            _(
                "{path} belongs to another run: {differences}; use another --out_dir, or start over with --resume none",
                path, listed,
            )
        )  # fmt: skip


def _reasons_for_inexactness(loaded: Dict[str, Any], parts: Parts) -> List[str]:
    config, now = parts.config, _describe_world(parts)
    then = {**now, "arithmetic": 1, **loaded["world"]}  # older checkpoints tell less
    before, planned = loaded["config"], loaded["config"]["max_steps"]
    reasons = []
    if then["size"] != now["size"]:
        reasons.append(f"{then['size']} processes then, {now['size']} now: gradients are summed in another order")
    elif before["batch_size"] != config.batch_size:
        reasons.append(f"batch_size {before['batch_size']} then, {config.batch_size} now")
    if then["device"] != now["device"]:
        reasons.append(f"{then['device']} then, {now['device']} now")
    else:
        if then["name"] != now["name"]:
            reasons.append(f"{then['name']} then, {now['name']} now: its kernels round differently")
        if then["threads"] != now["threads"]:
            reasons.append(f"{then['threads']} threads then, {now['threads']} now: sums are cut differently")
        if now["device"] == "cuda" and (before.get("deterministic") == "false") is not (
            config.deterministic == "false"
        ):
            reasons.append("deterministic kernels then or now, but not both")
        if then["precision"] != now["precision"]:
            reasons.append(f"{then['precision']} then, {now['precision']} now")
        elif then["arithmetic"] != now["arithmetic"]:
            reasons.append("another version of this trainer then, which computes otherwise")
    if then["torch"] != now["torch"]:
        reasons.append(f"PyTorch {then['torch']} then, {now['torch']} now")
    if planned != config.max_steps:
        reasons.append(f"{planned} steps planned then, {config.max_steps} now: the learning rate was another")
    return reasons

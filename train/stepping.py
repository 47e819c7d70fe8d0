"""One optimizer step: forward and backward over the micro-batches, clipping, update, and the loss so far."""

from __future__ import annotations

import contextlib
import math
import os
from typing import Any, ContextManager, List, Optional

import torch
from torch import Tensor, nn

from .config import TrainConfig
from .data import Slicing
from .distributed import World
from .errors import Diverged
from .model import Transformer
from .optimizer import Precision, learning_rate, trainable_parameters
from .seeds import stream_seed
from .sentences import _

COMPILE_PAYS_AFTER_STEPS = 2_000
"""Compilation takes a minute or so; ``--compile auto`` takes it only for runs that win it back."""


class Stepper:
    """Makes the optimizer steps of one process. Collective where there are several."""

    def __init__(
        self,
        config: TrainConfig,
        world: World,
        model: Transformer,
        optimizer: torch.optim.Optimizer,
        precision: Precision,
        compiled: bool,
    ) -> None:
        self.slicing = Slicing(config.batch_size, config.gradient_accumulation_steps, world.rank, world.size)
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=world.device)
        """Sum of this process's mean losses since it was last set to zero."""
        self._config = config
        self._device = world.device
        self._optimizer = optimizer
        self._precision = precision
        self._parameters = trainable_parameters(optimizer)
        self._norm = _LaggingNorm(world.device)
        if compiled:
            # Block by block: all blocks share one compilation, and DDP can send a block's gradients while the
            # one below still computes.
            for block in model.blocks:
                block.forward = torch.compile(block.forward)
        self.compiled = compiled
        """Whether the blocks are compiled."""
        self._wrapped: nn.Module = model
        self.repeats = self._insist_on_repeatability() if self._on_gpu else True
        """Whether the same step gives the same bits each time."""
        if world.size > 1:
            self._wrapped = nn.parallel.DistributedDataParallel(
                model, device_ids=[world.device.index] if self._on_gpu else None, gradient_as_bucket_view=True
            )
            # DDP lays its buckets out anew after its first backward pass, by the order in which gradients came. A
            # gradient's place in its bucket decides in which order the values of three or more processes are summed,
            # so the first step of an attempt would round as no other step does.
            self._pass_without_effect()

    @property
    def _on_gpu(self) -> bool:
        return self._device.type == "cuda"

    def step(self, step: int, batches: List[Tensor]) -> None:
        """Make a step, numbered from 1, on this process's micro-batches [batch_size, seq_len + 1].

        Raises:
            Diverged: the gradient is not finite (on a GPU, the one of the step before was not); it is not applied.
        """
        numbers = self.slicing.numbers()
        for batch, number in zip(batches, numbers):
            if self._config.dropout:
                # Masks are a pure function of the micro-batch's place: nothing to restore on resume, and the same
                # whichever process draws them.
                torch.manual_seed(stream_seed(self._config.seed, "dropout", step, number))
            with self._reduction(number == numbers[-1]):
                with self._precision.autocast():
                    loss = self._wrapped(batch[:, :-1], batch[:, 1:], 1.0 / len(batches))
                self.loss_sum += loss.detach()
                scaler = self._precision.scaler
                (scaler.scale(loss) if scaler is not None else loss).backward()
        self._update(step)
        self._optimizer.zero_grad(set_to_none=True)

    def newest_norm(self) -> Optional[float]:
        """Return the newest step's gradient norm before clipping, waiting for it; None before the first."""
        return self._norm.newest()

    def _insist_on_repeatability(self) -> bool:
        """Make GPU kernels deterministic; return False, and leave them as they are, if one of them has no such form.

        (https://pytorch.org/docs/stable/notes/randomness.html)
        """
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        deterministic = getattr(torch.utils, "deterministic", None)  # from PyTorch 2.2
        if deterministic is not None:
            deterministic.fill_uninitialized_memory = False  # meant for finding errors, and costs time
        torch.use_deterministic_algorithms(True)
        try:
            self._pass_without_effect()
        except RuntimeError as error:
            if "deterministic" not in str(error):
                raise
            torch.use_deterministic_algorithms(False)
            self._optimizer.zero_grad(set_to_none=True)
            return False
        return True

    def _pass_without_effect(self) -> None:
        """Go forward and backward once over made-up tokens, and discard the gradient."""
        batch = torch.zeros(self._config.batch_size, self._config.seq_len + 1, dtype=torch.long, device=self._device)
        with self._precision.autocast():
            loss = self._wrapped(batch[:, :-1], batch[:, 1:])
        loss.backward()
        self._optimizer.zero_grad(set_to_none=True)

    def _reduction(self, is_last: bool) -> ContextManager[Any]:
        """Return the context of a micro-batch: gradients go round the processes once a step, with the last one."""
        if isinstance(self._wrapped, nn.parallel.DistributedDataParallel) and not is_last:
            return self._wrapped.no_sync()
        return contextlib.nullcontext()

    def _update(self, step: int) -> None:
        """Clip the gradient and apply it."""
        scaler = self._precision.scaler
        lr = learning_rate(self._config, step)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        if scaler is not None:
            scaler.unscale_(self._optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._config.grad_clip or math.inf)
        known = self._norm.exchange(norm)
        if scaler is not None:  # which skips steps that are not finite and lowers its scale by itself
            scaler.step(self._optimizer)
            scaler.update()
            return
        if not math.isfinite(known):
            raise Diverged(_("gradient norm is {norm} at step {step}", str(known), step))
        if self._on_gpu:
            # Fused AdamW leaves out a step on the device if told so, as it does for a gradient scaler.
            self._optimizer.found_inf = (~torch.isfinite(norm)).float()  # type: ignore[attr-defined]
        self._optimizer.step()


class _LaggingNorm:
    """The gradient norm, read one step late on a GPU so that the GPU always has a step to work on."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._value: Optional[Tensor] = None
        self._copied: Any = None

    def exchange(self, norm: Tensor) -> float:
        """Note this step's norm; return it on a CPU, the step before's on a GPU (0 before the first)."""
        if not self._on_gpu:
            self._value = norm
            return float(norm)
        previous = self.newest() or 0.0
        self._value = norm.detach().to("cpu", non_blocking=True)
        self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._copied.record()
        return previous

    def newest(self) -> Optional[float]:
        """Return the newest norm, waiting for it; None before the first step."""
        if self._value is None:
            return None
        if self._copied is not None:
            self._copied.synchronize()
        return float(self._value)


def wants_compile(config: TrainConfig, device: str) -> bool:
    """Tell whether to compile on a kind of device: as the flag says, or on a GPU if the run is long enough.

    The whole run counts, not the steps that are left: compiled and eager blocks round differently, so a resumed run
    must choose as it did before.
    """
    if config.compile == "auto":
        return device == "cuda" and config.max_steps >= COMPILE_PAYS_AFTER_STEPS
    return config.compile == "true"

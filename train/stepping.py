"""One optimizer step: forward and backward over the micro-batches, clipping, update, and the loss so far."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import Any, Callable, ContextManager, List, Optional

import torch
from torch import Tensor, nn

from . import compiling
from .config import TrainConfig
from .data import micro_batches
from .distributed import World
from .errors import Diverged, TrainError, is_out_of_memory
from .model import Transformer
from .optimizer import Precision, learning_rate, leave_out_frozen, trainable_parameters
from .seeds import stream_seed
from .sentences import _


@dataclass(eq=False)
class Stepper:
    """Makes the optimizer steps of one process. Collective where there are several."""

    config: TrainConfig
    world: World
    model: Transformer
    optimizer: torch.optim.Optimizer
    precision: Precision
    compiled: bool
    """Whether to compile the blocks; then whether they are."""

    def __post_init__(self) -> None:
        self._require_one_precision()
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=self.world.device)
        """Sum of this process's mean losses since it was last set to zero."""
        self._numbers = micro_batches(self.config, self.world)
        self._on_gpu = self.world.device.type != "cpu"
        self._parameters = trainable_parameters(self.optimizer)
        self._norm: Optional[Tensor] = None
        self._norm_copied: Any = None
        self._wrapped: nn.Module = self.model
        self.repeats = not self._on_gpu or (self.config.deterministic != "false" and self._insist_on_repeatability())
        """Whether the same step gives the same bits each time."""
        self.why_eager = ""
        """Why the blocks are not compiled although they should be; empty otherwise."""
        if self.compiled:
            self._compile(compiling.compile_model)
        self._wrap()

    def freeze(self) -> None:
        """Train no more what the configuration freezes after some steps: this is the time. Collective.

        Raises:
            TrainError: the blocks can't be compiled anew, and the configuration says that they must be.
        """
        self.model.freeze()
        leave_out_frozen(self.optimizer)
        self._parameters = trainable_parameters(self.optimizer)
        self._unwrap()
        if self.compiled:
            self._compile(compiling.compile_anew)
        self._wrap()

    def _unwrap(self) -> None:
        """Undo ``_wrap``: gradients would be waited for that don't come any more."""
        if isinstance(self._wrapped, nn.parallel.DistributedDataParallel):
            # The hooks go with the reducer, which goes with its last reference; the wrapper may live on in a cycle.
            del self._wrapped.reducer, self._wrapped.logger
        self._wrapped = self.model

    def _wrap(self) -> None:
        """Have the gradients of what is trained now go round the processes, if there are several."""
        if self.world.size == 1:
            return
        device_ids = [self.world.device.index] if self._on_gpu else None
        self._wrapped = nn.parallel.DistributedDataParallel(
            self.model, device_ids=device_ids, process_group=self.world.gradients, gradient_as_bucket_view=True
        )
        # DDP lays its buckets out anew after its first backward pass, by the order in which gradients came. A
        # gradient's place in its bucket decides in which order the values of three or more processes are summed, so
        # the first step of an attempt would round as no other step does.
        self._pass_without_effect()

    def step(self, step: int, batches: List[Tensor]) -> None:
        """Make a step, numbered from 1, on this process's micro-batches [batch_size, seq_len + 1].

        Raises:
            Diverged: the gradient is not finite (on a GPU, the one of the step before was not); it is not applied.
        """
        for batch, number in zip(batches, self._numbers):
            if self.config.dropout:
                # Masks are a pure function of the micro-batch's place: nothing to restore on resume, and the same
                # whichever process draws them.
                torch.manual_seed(stream_seed(self.config.seed, "dropout", step, number))
            with self._reduction(number == self._numbers[-1]):
                with self.precision.autocast():
                    loss = self._wrapped(batch[:, :-1], batch[:, 1:], 1.0 / len(batches))
                self.loss_sum += loss.detach()
                scaler = self.precision.scaler
                (scaler.scale(loss) if scaler is not None else loss).backward()
        self._update(step)
        self.optimizer.zero_grad(set_to_none=True)

    def newest_norm(self) -> Optional[float]:
        """Return the newest step's gradient norm before clipping, waiting for it; None before the first."""
        if self._norm_copied is not None:
            self._norm_copied.synchronize()
        return None if self._norm is None else float(self._norm)

    def _require_one_precision(self) -> None:
        """Refuse processes each of whose cards is computed on in its own precision. Collective.

        Raises:
            TrainError: names the first that differs; all processes raise the same.
        """
        names = self.world.everyones(self.precision.name)
        for rank, name in enumerate(names):
            if name != names[0]:
                raise TrainError(
                    _(
                        "process {rank} would compute in {name} on {card}, process 0 in {first} on {first_card}: a "
                        "run's GPUs must be alike; choose them by the target's gpus or avoid, Slurm's gres or "
                        "constraint, or CUDA_VISIBLE_DEVICES",
                        rank, name, self.world.cards[rank], names[0], self.world.cards[0],
                    )
                )  # fmt: skip

    def _compile(self, prepare: Callable[[Transformer], None]) -> None:
        """Compile the blocks, in a pass that is no step; leave them eager and note why if a process can't. Collective.

        Args:
            prepare: Has them compiled at their first call.

        Raises:
            TrainError: one can't, and the configuration says that they must be.
        """
        why = ""
        try:
            prepare(self.model)
            self._pass_without_effect()
        except Exception as error:  # of compilers, Triton, or one that nobody foresaw
            if is_out_of_memory(error):
                raise
            why = compiling.why_not(error, self.world.device)
        self.why_eager = self._first(why)
        self.compiled = not self.why_eager
        if self.compiled:
            return
        if self.config.compile == "true":
            raise TrainError(_("--compile true can't be kept, auto goes on without it: {why}", self.why_eager))
        compiling.leave_eager(self.model)
        self.optimizer.zero_grad(set_to_none=True)

    def _insist_on_repeatability(self) -> bool:
        """Make GPU kernels deterministic; return False, and leave them as they are, if one of them has no such form on
        the GPU of some process. Collective.

        (https://pytorch.org/docs/stable/notes/randomness.html)

        Raises:
            TrainError: one has none, and the configuration says that all must.
        """
        deterministic = getattr(torch.utils, "deterministic", None)  # from PyTorch 2.2
        if deterministic is not None:
            deterministic.fill_uninitialized_memory = False  # meant for finding errors, and costs time
        torch.use_deterministic_algorithms(True)
        why = ""
        try:
            self._pass_without_effect()
        except RuntimeError as error:
            if "deterministic" not in str(error):
                raise
            why = str(error).splitlines()[0]
        why = self._first(why)
        if not why:
            return True
        if self.config.deterministic == "true":
            raise TrainError(_("--deterministic true can't be kept, auto goes on without it: {why}", why))
        torch.use_deterministic_algorithms(False)
        self.optimizer.zero_grad(set_to_none=True)
        return False

    def _first(self, why: str) -> str:
        """Return the words of the first process that has some; empty where none has. Collective."""
        return next(filter(None, self.world.everyones(why)), "")

    def _pass_without_effect(self) -> None:
        """Go forward and backward once over made-up tokens, and discard the gradient."""
        batch = torch.zeros(self.config.batch_size, self.config.seq_len + 1, dtype=torch.long, device=self.world.device)
        with self.precision.autocast():
            loss = self._wrapped(batch[:, :-1], batch[:, 1:])
        loss.backward()
        self.optimizer.zero_grad(set_to_none=True)

    def _reduction(self, is_last: bool) -> ContextManager[Any]:
        """Return the context of a micro-batch: gradients go round the processes once a step, with the last one."""
        if isinstance(self._wrapped, nn.parallel.DistributedDataParallel) and not is_last:
            return self._wrapped.no_sync()
        return contextlib.nullcontext()

    def _update(self, step: int) -> None:
        """Clip the gradient and apply it."""
        scaler = self.precision.scaler
        lr = learning_rate(self.config, step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        if scaler is not None:
            scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self.config.grad_clip or math.inf)
        known = self._note_norm(norm)
        if scaler is not None:  # which skips steps that are not finite and lowers its scale by itself
            scaler.step(self.optimizer)
            scaler.update()
            return
        if not math.isfinite(known):
            raise Diverged(_("gradient norm is {norm} at step {step}", str(known), step))
        if self._on_gpu:
            # Fused AdamW leaves out a step on the device if told so, as it does for a gradient scaler.
            self.optimizer.found_inf = (~torch.isfinite(norm)).float()  # type: ignore[attr-defined]  # set as GradScaler does
        self.optimizer.step()

    def _note_norm(self, norm: Tensor) -> float:
        """Note a step's norm; return it on a CPU, on a GPU the step before's (0 before the first), so that the GPU
        always has a step to work on.
        """
        if not self._on_gpu:
            self._norm = norm
            return float(norm)
        previous = self.newest_norm() or 0.0
        self._norm = norm.detach().to("cpu", non_blocking=True)
        self._norm_copied = torch.cuda.Event()  # type: ignore[no-untyped-call]  # not typed in torch
        self._norm_copied.record()
        return previous

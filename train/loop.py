"""The training loop: steps, and between them records, validations and checkpoints, until the end or a signal.

All processes make the same decisions: what only one process knows (a signal, a failed write) is agreed on after each
step.
"""

from __future__ import annotations

import gc
import math
import signal
import statistics
import time
from typing import Any, Callable, Dict, List, Optional

import torch
from torch import Tensor

from . import checkpoint, state
from .data import TrainingBatches
from .errors import Diverged
from .optimizer import learning_rate
from .records import Records, step_line, validation_line
from .sentences import _
from .stepping import Stepper
from .validation import Measurement, combine, interval_windows, measure

GO_ON, STOP, FAILED = 0, 1, 2
"""What a process may say after a step; the largest over all processes counts."""

DIVERGED_NATS = 2.0
"""A mean loss this far above ln(vocab_size), that of guessing, in two records in a row means divergence."""


class Interruption:
    """Remembers that SIGTERM or SIGINT has come since its construction; a second SIGINT ends the process at once."""

    def __init__(self) -> None:
        self.came = False
        signal.signal(signal.SIGTERM, self._note)
        signal.signal(signal.SIGINT, self._note)

    def _note(self, number: int, frame: Any) -> None:
        if self.came and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.came = True


class Trainer:
    """Trains a model from where ``progress`` stands; ``train`` returns whether the run is complete."""

    def __init__(
        self,
        parts: state.Parts,
        records: Records,
        stepper: Stepper,
        resumption: state.Resumption,
        interruption: Interruption,
        tell_trackers: Callable[[Dict[str, Any]], None],
    ) -> None:
        self.parts = parts
        self.config, self.world, self.model, self.val_file = parts.config, parts.world, parts.model, parts.val_file
        self.records = records
        self.stepper = stepper
        self.treatment = resumption.treatment
        self.progress = resumption.progress
        self.tell_trackers = tell_trackers
        self.slicing = stepper.slicing
        config, world = parts.config, parts.world
        self.batches = TrainingBatches(
            parts.train_file, config.seed, config.seq_len, self.slicing, world.device, config.num_workers
        )
        self.interruption = interruption
        self.writer: Optional[checkpoint.CheckpointWriter] = None
        if world.is_main and records.out_dir:
            self.writer = checkpoint.CheckpointWriter(records.out_dir, config.keep_last, config.keep_every)
        sums = self.progress.loss_sums or [0.0] * world.size
        stepper.loss_sum.fill_(sums[world.rank])
        self._step_seconds: List[float] = []
        self._window_s = 0.0
        self._window_steps = 0
        self._hot_records = 0

    def train(self) -> bool:
        """Make the steps that are left; return False if a signal stopped the run after a checkpoint.

        Raises:
            Diverged: the gradient or the loss is not finite, or the loss is far above that of guessing.
            DiskFull, TrainError: a checkpoint could not be written.
        """
        config, progress = self.config, self.progress
        self.model.train()
        gc.collect()
        gc.freeze()
        gc.disable()  # collections at random steps make processes wait for one another
        if self._stop_wanted():  # the signal came while data were read or the network built
            return self._finish(complete=False)
        if not progress.validated:  # a signal cut the validation of this very step short
            self.records.say(step_line(progress.step, progress.last["loss"], progress.last["lr"]))
            complete = self._validate()
            self._save()
            if not complete:
                return self._finish(complete=False)
        for batches in self.batches.steps(progress.step + 1, config.max_steps):
            self._step(batches)
            if progress.step % 1000 == 0:
                gc.collect()
            stop = self._stop_wanted()
            is_last = progress.step == config.max_steps
            validation_due = is_last or progress.step % config.val_interval == 0
            if is_last or validation_due or progress.step % config.log_interval == 0 or progress.step == 1:
                self._record()
            if self.records.heartbeat_due():
                self._beat()
            if validation_due and (stop or not self._validate()):
                stop, progress.validated = True, False
                self.records.add_metrics(progress.last)
            if stop or is_last or progress.step % config.save_interval == 0:
                self._save()
            if stop:
                return self._finish(complete=False)
        return self._finish(complete=True)

    def _step(self, batches: List[Tensor]) -> None:
        """Make one optimizer step on this rank's micro-batches [batch_size, seq_len + 1]."""
        progress = self.progress
        start = time.perf_counter()
        try:
            self.stepper.step(progress.step + 1, batches)
        except Diverged as error:
            self._diverge(str(error))
        seconds = time.perf_counter() - start
        progress.step += 1
        progress.tokens += self.slicing.global_batch * self.config.seq_len
        progress.loss_steps += 1
        progress.train_s += seconds
        self._step_seconds.append(seconds)
        self._window_s += seconds
        self._window_steps += 1

    def _stop_wanted(self) -> bool:
        """Agree over all processes whether to stop; raise what a background write failed with."""
        code = STOP if self.interruption.came else GO_ON
        if self.writer is not None and self.writer.failed:
            code = FAILED
        agreed = self.world.agree(code)
        if agreed == FAILED:
            if self.writer is not None:
                self.writer.finish()  # raises
            raise SystemExit(1)  # rank 0 has the reason
        return agreed == STOP

    def _record(self) -> None:
        """Write the mean loss since the last record to log, metrics and trackers. Collective."""
        config, progress = self.config, self.progress
        waited = time.perf_counter()
        loss_sum = float(self.stepper.loss_sum)  # waits for a GPU to finish the step
        waited = time.perf_counter() - waited
        self._window_s += waited
        progress.train_s += waited
        loss = self.world.total([loss_sum])[0] / self.world.size / progress.loss_steps
        lr = learning_rate(config, progress.step)
        tokens = self._window_steps * self.slicing.global_batch * config.seq_len
        record = {
            "step": progress.step,
            "tokens": progress.tokens,
            "time": time.time(),
            "loss": loss,
            "lr": lr,
            "grad_norm": self.stepper.newest_norm(),
            "tokens_per_s": tokens / self._window_s if self._window_s else None,
            "gpu_mem_gb": peak_gpu_mem_gb(self.world.device),
        }
        progress.last = {key: value for key, value in record.items() if value is not None}
        self.stepper.loss_sum.zero_()
        progress.loss_steps = 0
        self._window_s, self._window_steps = 0.0, 0
        self.records.say(step_line(progress.step, loss, lr))
        if not self._validation_due():
            self.records.add_metrics(record)
        self.tell_trackers(progress.last)
        self._hot_records = self._hot_records + 1 if loss > math.log(config.vocab_size) + DIVERGED_NATS else 0
        if not math.isfinite(loss):
            self._diverge(_("loss is {loss} at step {step}", str(loss), progress.step))
        if self._hot_records >= 2:
            self._diverge(_("loss is {loss:.2f} at step {step}, far above guessing", loss, progress.step))

    def _validation_due(self) -> bool:
        step = self.progress.step
        return step == self.config.max_steps or step % self.config.val_interval == 0

    def _validate(self) -> bool:
        """Measure validation loss, on the whole file at the last step; return False if a signal cut it short."""
        config, progress = self.config, self.progress
        start = time.perf_counter()
        windows = interval_windows(config, self.val_file, self.slicing.global_batch)
        at_interval = self._measure(0, windows)
        measured = at_interval
        if at_interval is not None and progress.step == config.max_steps and not at_interval.is_full:
            rest = self._measure(windows, self.val_file.windows(config.seq_len))
            measured = combine(at_interval, rest, self.val_file) if rest is not None else None
        progress.val_s += time.perf_counter() - start
        if at_interval is None or measured is None:
            return False
        found = {"val_loss": measured.loss, "val_tokens": measured.num_tokens, "val_full": measured.is_full}
        progress.last = dict(progress.last, time=time.time(), **found)
        self.records.say(validation_line(measured.loss))
        self.records.add_metrics(progress.last)
        self.tell_trackers(progress.last)
        if not math.isfinite(measured.loss):
            self._diverge(_("validation loss is {loss} at step {step}", str(measured.loss), progress.step))
        if progress.step == config.max_steps:
            progress.final = dict(step=progress.step, loss=progress.last.get("loss"), **found)
        # Like is compared with like: the same sequences at every step, also at the last.
        if not progress.best or at_interval.loss < progress.best["val_loss"]:
            progress.best = {"step": progress.step, "val_loss": at_interval.loss}
            if self.writer is not None:
                content = state.best_content(self.model, config, progress.step, at_interval.loss)
                self.writer.save(checkpoint.BEST, content)
        progress.validated = True
        return True

    def _measure(self, first: int, last: int) -> Optional[Measurement]:
        def should_stop() -> bool:
            if self.records.heartbeat_due():
                self._beat()
            return self.world.agree(STOP if self.interruption.came else GO_ON) == STOP

        return measure(
            self.model, self.val_file, self.config, self.world, self.parts.precision, first, last, should_stop
        )

    def _beat(self) -> None:
        last = self.progress.last
        self.records.beat(self.progress.step, self.config.max_steps, last.get("loss"), last.get("tokens_per_s"))

    def _save(self, name: str = "") -> None:
        """Hand a checkpoint of this step to the writer. Collective."""
        progress = self.progress
        own = float(self.stepper.loss_sum)
        sums = [own if rank == self.world.rank else 0.0 for rank in range(self.world.size)]
        progress.loss_sums = self.world.total(sums)  # adding zeros changes no bits
        if self.writer is None:
            return
        self._settle_times()
        self.records.sync()
        content = state.checkpoint_content(self.parts, progress, self.treatment)
        self.writer.save(name or checkpoint.checkpoint_name(progress.step), content)

    def _settle_times(self) -> None:
        progress = self.progress
        if self.writer is not None:
            progress.checkpoint_s += self.writer.blocked_s
            self.writer.blocked_s = 0.0
        steady = self._step_seconds[min(10, len(self._step_seconds) // 2) :]
        if steady:
            progress.tokens_per_s = self.slicing.global_batch * self.config.seq_len / statistics.median(steady)

    def _finish(self, complete: bool) -> bool:
        if self.writer is not None:
            self.writer.finish()
        self._settle_times()
        self._beat()
        self.records.sync()
        gc.enable()
        return complete

    def _diverge(self, reason: str) -> None:
        """Save the state for a look at it, under a name that is never resumed from, and raise."""
        self._save(f"diverged_{self.progress.step}.pt")
        if self.writer is not None:
            self.writer.finish()
        raise Diverged(reason)


def peak_gpu_mem_gb(device: torch.device) -> Optional[float]:
    """Return the most memory that tensors took on a GPU, in GB; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None

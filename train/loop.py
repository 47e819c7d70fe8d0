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
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional

import torch
from torch import Tensor

from . import checkpoint, state
from .data import TokenFile, TrainingBatches
from .errors import Diverged
from .optimizer import learning_rate
from .peak_rates import mfu
from .records import Records, perplexity, speed_line, step_line, validation_line
from .sentences import _
from .stepping import Stepper
from .treatment import note_freezing
from .validation import Measurement, combine, measure

GO_ON, STOP, FAILED = 0, 1, 2
"""What a process may say after a step; the largest over all processes counts."""

DIVERGED_NATS = 2.0
"""A mean loss this far above ln(vocab_size), that of guessing, in two records in a row means divergence."""
LEAST_SCALE = 2.0**-10
"""fp16's loss scale begins at 2^16 and is halved at each step whose gradients are not finite, which is left out."""


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


@dataclass(eq=False)
class Trainer:
    """Trains a model from where a resumption stands; ``train`` returns whether the run is complete."""

    parts: state.Parts
    records: Records
    stepper: Stepper
    resumption: state.Resumption
    interruption: Interruption
    tell_trackers: Callable[[Dict[str, Any]], None]

    def __post_init__(self) -> None:
        parts = self.parts
        config, world = self.config, self.world = parts.config, parts.world
        self.model, self.val_file, self.progress = parts.model, parts.val_file, self.resumption.progress
        self.batches = TrainingBatches(parts.train_file, config, world)
        self.step_tokens = parts.global_batch * config.seq_len
        self.writer = checkpoint.CheckpointWriter(self.records.out_dir, config.keep_last, config.keep_every)
        sums = self.progress.loss_sums or [0.0] * world.size
        self.stepper.loss_sum.fill_(sums[world.rank])
        self._device_name = world.hardware()["name"]
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
        self._beat(always=True)
        self.model.train()
        gc.collect()
        gc.freeze()
        gc.disable()  # collections at random steps make processes wait for one another
        try:
            complete = self._make_steps()
        except Diverged:  # the state is for a look at it, under a name that is never resumed from
            self._save(f"diverged_{self.progress.step}.pt")
            self.writer.finish()
            raise
        self.writer.finish()
        self._settle_times()
        self._beat(always=True)
        self.records.sync()
        gc.enable()
        return complete

    def _make_steps(self) -> bool:
        config, progress = self.config, self.progress
        if self._stop_wanted():  # the signal came while data were read or the network built
            return False
        if not progress.validated:  # a signal cut the validation of this very step short
            self.records.say(step_line(progress.step, progress.last["loss"], progress.last["lr"]))
            complete = self._validate()
            self._save()
            if not complete:
                return False
        for batches in self.batches.steps(progress.step + 1, config.max_steps):
            if progress.step == config.freeze_from_step > 0:
                self._freeze()
            self._step(batches)
            if progress.step % 1000 == 0:
                gc.collect()
            stop = self._stop_wanted()
            validation_due = self._validation_due()
            if validation_due or progress.step % config.log_interval == 0 or progress.step == 1:
                self._record()
            self._beat()
            if validation_due and (stop or not self._validate()):
                stop, progress.validated = True, False
                self.records.add_metrics(progress.last)
            if stop or progress.step == config.max_steps or progress.step % config.save_interval == 0:
                self._save()
            if stop:
                return False
        return True

    def _freeze(self) -> None:
        """Freeze what is to be frozen from this step on, and record that. Collective.

        Compiled blocks are compiled anew for it, which is no step's time.
        """
        was_compiled = self.stepper.compiled
        self.stepper.freeze()
        self.progress.compiled = self.stepper.compiled
        treatment = self.resumption.treatment
        note_freezing(treatment, self.model, self.parts.optimizer, self.config)
        self.records.write("treatment.json", treatment)
        held = sum(layer["total"] - layer["trainable"] for layer in self.model.layers())
        self.records.say(f"Frozen after step {self.progress.step}: {held:,} parameters")
        if was_compiled and not self.stepper.compiled:
            self.records.say(f"Not compiled any more, so slower: {self.stepper.why_eager}")

    def _step(self, batches: List[Tensor]) -> None:
        """Make one optimizer step on this rank's micro-batches [batch_size, seq_len + 1]."""
        progress = self.progress
        start = time.perf_counter()
        self.stepper.step(progress.step + 1, batches)
        progress.step += 1
        progress.tokens += self.step_tokens
        progress.loss_steps += 1
        self._window_steps += 1
        self._step_seconds.append(0.0)
        self._add_to_step(time.perf_counter() - start)

    def _loss_sum(self) -> float:
        """Return the sum of losses, for which a GPU finishes what it has to do: that time is the newest step's."""
        start = time.perf_counter()
        loss_sum = float(self.stepper.loss_sum)
        if self._step_seconds:
            self._add_to_step(time.perf_counter() - start)
        return loss_sum

    def _add_to_step(self, seconds: float) -> None:
        """Count time as the newest step's."""
        self.progress.train_s += seconds
        self._step_seconds[-1] += seconds
        self._window_s += seconds

    def _stop_wanted(self) -> bool:
        """Agree over all processes whether to stop; raise what a background write failed with."""
        agreed = self.world.largest(FAILED if self.writer.error else STOP if self.interruption.came else GO_ON)
        if agreed == FAILED:
            self.writer.finish()  # raises where it failed
            raise SystemExit(1)  # rank 0 has the reason
        return agreed == STOP

    def _record(self) -> None:
        """Write the mean loss since the last record to log, metrics and trackers. Collective."""
        config, progress = self.config, self.progress
        loss = self.world.total([self._loss_sum()])[0] / self.world.size / progress.loss_steps
        lr = learning_rate(config, progress.step)
        speed = self._window_steps * self.step_tokens / self._window_s if self._window_s else None
        precision = self.parts.precision.name
        record = {
            "step": progress.step,
            "tokens": progress.tokens,
            "time": time.time(),
            "loss": loss,
            "lr": lr,
            "grad_norm": self.stepper.newest_norm(),
            "tokens_per_s": speed,
            "mfu": mfu(config, speed, self.world.size, self._device_name, precision, progress.step) if speed else None,
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
            raise Diverged(_("loss is {loss} at step {step}", str(loss), progress.step))
        scaler = self.parts.precision.scaler
        if scaler is not None and scaler.get_scale() < LEAST_SCALE:  # no step was applied for a long time
            raise Diverged(_("gradients are not finite in fp16 by step {step}, whatever their scale", progress.step))
        if self._hot_records >= 2:
            raise Diverged(_("loss is {loss:.2f} at step {step}, far above guessing", loss, progress.step))

    def _validation_due(self) -> bool:
        step = self.progress.step
        return step == self.config.max_steps or step % self.config.val_interval == 0

    def _validate(self) -> bool:
        """Measure validation loss, on the whole file at the last step; return False if a signal cut it short."""
        config, progress = self.config, self.progress
        start = time.perf_counter()
        whole = self.val_file.windows(config.seq_len)
        windows = min(config.val_batches * self.parts.global_batch, whole)
        at_interval = self._measure(0, windows)
        measured = at_interval
        if at_interval is not None and progress.step == config.max_steps and not at_interval.is_full:
            rest = self._measure(windows, whole)
            measured = combine(at_interval, rest, self.val_file) if rest is not None else None
        tested = self._test() if measured is not None and progress.step == config.max_steps else {}
        progress.val_s += time.perf_counter() - start
        if at_interval is None or measured is None or tested is None:
            return False
        found = {"val_loss": measured.loss, "val_tokens": measured.num_tokens, "val_full": measured.is_full}
        progress.last = dict(progress.last, time=time.time(), **found, **tested)
        if measured is not at_interval:  # the end of the curve, beside the end result
            progress.last["val_loss_sampled"] = at_interval.loss
        self.records.say(validation_line(measured.loss))
        if tested:
            self.records.say(f"Test Loss: {tested['test_loss']:.4f} | Test PPL: {perplexity(tested['test_loss']):.2f}")
        if "mfu" in progress.last:
            self.records.say(speed_line(progress.last["tokens_per_s"], progress.last["mfu"]))
        self.records.add_metrics(progress.last)
        self.tell_trackers(progress.last)
        if not math.isfinite(measured.loss):
            raise Diverged(_("validation loss is {loss} at step {step}", str(measured.loss), progress.step))
        if progress.step == config.max_steps:
            progress.final = dict(step=progress.step, loss=progress.last.get("loss"), **found, **tested)
        # Like is compared with like: the same sequences at every step, also at the last.
        if not progress.best or at_interval.loss < progress.best["val_loss"]:
            progress.best = {"step": progress.step, "val_loss": at_interval.loss}
            content = state.best_content(self.model, config, progress.step, at_interval.loss)
            self._write(checkpoint.BEST, content)
        progress.validated = True
        return True

    def _test(self) -> Optional[Dict[str, Any]]:
        """Return what is recorded of a measurement on the test file, nothing without one; None if a signal cut it
        short.
        """
        file = self.parts.test_file
        if file is None:
            return {}
        measured = self._measure(0, file.windows(self.config.seq_len), file)
        return None if measured is None else {"test_loss": measured.loss, "test_tokens": measured.num_tokens}

    def _measure(self, first: int, last: int, file: Optional[TokenFile] = None) -> Optional[Measurement]:
        def should_stop() -> bool:
            self._beat()
            return self._stop_wanted()

        parts, whole = self.parts, self.stepper.compiled
        return measure(
            self.model,
            file or self.val_file,
            parts.config,
            parts.world,
            parts.precision,
            first,
            last,
            should_stop,
            whole,
        )

    def _beat(self, always: bool = False) -> None:
        self.records.beat(self.progress.step, self.config.max_steps, self.progress.last, always)

    def _save(self, name: str = "") -> None:
        """Hand a checkpoint of this step to the writer. Collective."""
        progress = self.progress
        own = self._loss_sum()
        sums = [own if rank == self.world.rank else 0.0 for rank in range(self.world.size)]
        progress.loss_sums = self.world.total(sums)  # adding zeros changes no bits
        self._settle_times()
        self.records.sync()
        content = state.checkpoint_content(self.parts, progress, self.resumption.treatment)
        self._write(name or checkpoint.checkpoint_name(progress.step), content)

    def _write(self, name: str, content: Dict[str, Any]) -> None:
        """Have rank 0 write a file, for which it may have to wait until the one before is written. Collective."""
        self.writer.save(name, content)
        self.world.meet()

    def _settle_times(self) -> None:
        progress = self.progress
        progress.checkpoint_s += self.writer.blocked_s
        self.writer.blocked_s = 0.0
        steady = self._step_seconds[min(10, len(self._step_seconds) // 2) :]
        if steady:
            progress.tokens_per_s = self.step_tokens / statistics.median(steady)


def peak_gpu_mem_gb(device: torch.device) -> Optional[float]:
    """Return the most memory that tensors took on a GPU, in GB; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None

"""One attempt of a run, from flags to outcome.json: build all parts, train, and record how it ended.

This is the only place that catches errors; it turns them into an outcome, one line on standard error and an exit code.
"""

from __future__ import annotations

import json
import os
import random
import time
import traceback
from dataclasses import asdict
from typing import Any, Dict, List, Optional, Tuple

from . import checkpoint, environment, memory, state
from . import config as configuration
from .config import TrainConfig
from .data import DataRecord, TokenFile, default_val_path, open_tokens, verify
from .distributed import World, join
from .errors import (
    CheckpointError,
    DiskFull,
    OutOfMemory,
    PeerLost,
    TrainError,
    is_disk_full,
    is_out_of_memory,
    is_peer_lost,
)
from .loop import Interruption, Trainer, peak_gpu_mem_gb
from .model import Transformer
from .optimizer import Precision, build_optimizer
from .records import Records, complain, write_outcome
from .sentences import _
from .stepping import Stepper, wants_compile
from .trackers import Trackers
from .treatment import complete_treatment, describe_treatment

EXIT_COMPLETED, EXIT_FAILED, EXIT_RESUMABLE = 0, 1, 75
"""Exit codes for a person's shell, besides 2 for a wrong configuration; torchrun turns them into 1, so programs read
outcome.json.
"""


class Outcome:
    """outcome.json in the making: facts are added as they become known, so that an early end has what there is.

    Rank 0 writes it, or the process that alone knows why the run failed.
    """

    def __init__(self, records: Records, config: TrainConfig, world: World) -> None:
        self._out_dir = config.out_dir
        self._world = world
        self.facts: Dict[str, Any] = {
            "max_steps": config.max_steps,
            "world_size": world.size,
            "global_batch": configuration.global_batch(config, world.size),
            "hardware": environment.describe_hardware(world.device),
            "versions": environment.describe_versions(records.out_dir),
            "config": configuration.to_dict(config),
        }

    def write(self, status: str, reason: str, progress: Optional[state.Progress]) -> None:
        """Write the file."""
        record: Dict[str, Any] = {"step": 0}
        if progress is not None:
            record["exact"] = not progress.inexact
            final = progress.final or {
                key: progress.last[key]
                for key in ("step", "val_loss", "val_tokens", "val_full", "loss")
                if key in progress.last
            }
            record.update(step=progress.step, tokens=progress.tokens, final=final or None, best=progress.best or None)
            record.update(tokens_per_s=progress.tokens_per_s or None, train_s=progress.train_s, val_s=progress.val_s)
            record.update(checkpoint_s=progress.checkpoint_s, peak_gpu_mem_gb=peak_gpu_mem_gb(self._world.device))
        write_outcome(self._out_dir, status, reason, {**record, **self.facts, "time": time.time()})


def main(config: TrainConfig, warnings: List[str]) -> int:
    """Run one attempt and return its exit code. Every process of the run calls this."""
    out_dir = config.out_dir
    interruption = Interruption()
    try:
        world = join()
    except (TrainError, RuntimeError) as error:
        complain(str(error))
        if isinstance(error, TrainError):
            # The run ended before its parts were there; every process writes the same.
            write_outcome(out_dir, error.status, str(error), {"step": 0, "time": time.time()})
        return EXIT_FAILED
    memory.keep_freed_memory()
    try:
        records = Records(out_dir if world.is_main else None, quiet=not world.is_main)
    except OSError as error:
        complain(f"can't write to {out_dir}: {error.strerror}")
        world.close()
        return EXIT_FAILED
    outcome = Outcome(records, config, world)
    session = _Session(config, world, records, outcome, interruption)
    try:
        for warning in warnings:
            records.say(f"Warning: {warning}")
        complete = session.run()
        status = "completed" if complete else "resumable"
        step = session.progress.step if session.progress is not None else 0
        reason = "" if complete else _("stopped by a signal at step {step}, which can be resumed", step)
        outcome.write(status, reason, session.progress)
        records.say("Training complete" if complete else f"Stopped: {reason}")
        return EXIT_COMPLETED if complete else EXIT_RESUMABLE
    except Exception as error:  # the outcome names what nobody foresaw, too
        failure = session.explain(error)
        _report(failure, error, world, records, outcome, session.progress)
        return EXIT_FAILED
    finally:
        session.close()


def _report(
    failure: TrainError,
    error: BaseException,
    world: World,
    records: Records,
    outcome: Outcome,
    progress: Optional[state.Progress],
) -> None:
    """Print how an attempt failed, once: by the process with the cause, not by those that only lost it."""
    if isinstance(failure, PeerLost):
        if world.is_main:
            time.sleep(1.0)  # the process with the cause may be writing it
            if records.out_dir and os.path.exists(os.path.join(records.out_dir, ".oelm", "outcome.json")):
                return
            outcome.write(failure.status, str(failure), progress)
        return
    same_everywhere = not isinstance(failure, OutOfMemory) and isinstance(error, TrainError)
    if same_everywhere and not world.is_main:
        return  # all processes found the same; rank 0 says it
    if not isinstance(error, TrainError) and failure.status == "error":
        traceback.print_exception(type(error), error, error.__traceback__)
    complain(f"{'' if world.size == 1 else f'process {world.rank}: '}{failure}")
    records.note(f"Stopped ({failure.status}): {failure}")
    outcome.write(failure.status, str(failure), progress)


class _Session:
    """The parts of one attempt, built in order; what is built so far serves the error report."""

    def __init__(
        self, config: TrainConfig, world: World, records: Records, outcome: Outcome, interruption: Interruption
    ) -> None:
        self.config = config
        self.world = world
        self.records = records
        self.outcome = outcome
        self.interruption = interruption
        self.model: Optional[Transformer] = None
        self.progress: Optional[state.Progress] = None
        self.trackers: Optional[Trackers] = None

    def run(self) -> bool:
        """Train to the end or to a signal; return whether the run is complete."""
        config, world, records = self.config, self.world, self.records
        train_file, val_file, data = self._open_data()
        self.outcome.facts["data"] = asdict(data)
        random.seed(config.seed)
        model = self.model = Transformer(config)
        model.to(world.device)
        optimizer = build_optimizer(model, config)
        precision = Precision(config, world.device)
        counts = model.count_parameters()
        self.outcome.facts.update(parameters=counts, precision=precision.name)
        parts = state.Parts(config, world, model, optimizer, precision, data, train_file, val_file)
        resumption = self._resume(parts)
        progress = self.progress = resumption.progress
        self.outcome.facts.update(resumed_from=resumption.from_step)
        self._announce(parts, resumption)
        records.write("treatment.json", resumption.treatment)
        if world.is_main:
            self.trackers = Trackers(config, records.out_dir, records.say)
        compiled = wants_compile(config, world.device.type)
        if compiled:
            records.say("Compiling the blocks with torch.compile")
        stepper = Stepper(config, world, model, optimizer, precision, compiled)
        if not stepper.repeats:
            records.say("Steps don't repeat to the bit: this GPU's kernels add in no fixed order")
            if resumption.from_step is not None:
                progress.inexact.append("kernels add in no fixed order")
        tell_trackers = self.trackers.add if self.trackers is not None else lambda record: None
        trainer = Trainer(parts, records, stepper, resumption, self.interruption, tell_trackers)
        records.beat(progress.step, config.max_steps, progress.last.get("loss"), progress.last.get("tokens_per_s"))
        complete = trainer.train()
        if complete and world.is_main:
            records.write("treatment.json", complete_treatment(resumption.treatment, model, config))
        return complete

    def explain(self, error: Exception) -> TrainError:
        """Return the error as one that a person can act on."""
        if isinstance(error, TrainError):
            return error
        if is_disk_full(error):
            return DiskFull(_("disk full"))
        if is_out_of_memory(error):
            return OutOfMemory(memory.advice(self.config, self.world.device))
        if is_peer_lost(error):
            return PeerLost()
        return TrainError(f"{type(error).__name__}: {error}")

    def close(self) -> None:
        if self.trackers is not None:
            self.trackers.close()
        self.world.close()

    def _open_data(self) -> Tuple[TokenFile, TokenFile, DataRecord]:
        """Map both files; rank 0 reads and checks them, the others hear what it found. Collective."""
        config = self.config
        train_file = open_tokens(config.data_path, config.seq_len)
        val_file = open_tokens(config.val_data_path or default_val_path(config.data_path), config.seq_len)
        found: Any = None
        if self.world.is_main:
            try:
                found = verify(train_file, val_file, config.vocab_size)
            except TrainError as error:
                found = error
        found = self.world.from_main(found)
        if isinstance(found, TrainError):
            raise found
        record, warnings = found
        for warning in warnings:
            self.records.say(f"Warning: {warning}")
        return train_file, val_file, record

    def _resume(self, parts: state.Parts) -> state.Resumption:
        """Restore the checkpoint that ``--resume`` asks for, or begin. Collective."""
        config, world = self.config, self.world
        path: Optional[str] = None
        loaded: Optional[Dict[str, Any]] = None
        if config.resume not in ("auto", "none"):
            path, loaded = config.resume, checkpoint.load_checkpoint(config.resume)
        elif config.resume == "auto" and config.out_dir:
            found: Any = None
            if world.is_main:
                try:
                    path, loaded = checkpoint.newest_good_checkpoint(config.out_dir, self.records.say)
                    found = path
                except CheckpointError as error:
                    found = error
            found = world.from_main(found)
            if isinstance(found, CheckpointError):
                raise found
            if found is not None and loaded is None:
                path, loaded = found, checkpoint.load_checkpoint(found)
        elif config.resume == "none" and config.out_dir and world.is_main:
            self._set_aside(config.out_dir)
        if path is not None and loaded is not None:
            return state.restore(loaded, path, parts)
        treatment = describe_treatment(parts.model, parts.optimizer, config)
        return state.Resumption(state.Progress(), treatment, None, [])

    def _set_aside(self, out_dir: str) -> None:
        """Move what an older run left in the folder into one of its own: results are never deleted."""
        names = ["metrics.jsonl", checkpoint.BEST, "treatment.json", "tensorboard", "wandb"]
        names += [os.path.basename(path) for _, path in checkpoint.list_checkpoints(out_dir)]
        names = [name for name in names if os.path.exists(os.path.join(out_dir, name))]
        names = [name for name in names if os.path.getsize(os.path.join(out_dir, name))]
        if not names:
            return
        number = 1
        while os.path.exists(os.path.join(out_dir, f"old_{number}")):
            number += 1
        folder = os.path.join(out_dir, f"old_{number}")
        os.makedirs(folder)
        for name in names:
            os.replace(os.path.join(out_dir, name), os.path.join(folder, name))
        self.records.reopen_metrics()
        self.records.say(f"Starting over: {', '.join(names)} of an older run moved to {folder}")

    def _announce(self, parts: state.Parts, resumption: state.Resumption) -> None:
        """Write the head of the log: what runs, where, on which devices and data, and how large it is."""
        say, config, world, data = self.records.say, self.config, self.world, parts.data
        counts = self.outcome.facts["parameters"]
        versions, hardware = self.outcome.facts["versions"], self.outcome.facts["hardware"]
        say(f"Device: {hardware['device']} ({hardware['name']}) on {hardware['host']}, {parts.precision.name}")
        say(f"Versions: Python {versions['python']}, PyTorch {versions['torch']}, revision {versions['revision']}")
        say(f"Configuration: {json.dumps(configuration.to_dict(config))}")
        batch = self.outcome.facts["global_batch"]
        say(
            f"Batch: {batch} sequences of {config.seq_len} tokens a step = {config.batch_size} x {world.size} "
            f"processes x {config.gradient_accumulation_steps} micro-steps"
        )
        say(f"Data: {data.train_tokens:,} training and {data.val_tokens:,} validation tokens {data.tokenizer}".rstrip())
        for entry in resumption.treatment["layers"]:
            say(f"  {entry['name']:<32} {entry['total']:>12,} {'trained' if entry['trainable'] else 'frozen'}")
        total = counts["total"]
        say(f"Total parameters: {total:,}")
        say(f"Trainable parameters: {counts['trainable']:,} ({100 * counts['trainable'] / total:.1f}%)")
        say(f"Frozen parameters: {counts['frozen']:,} ({100 * counts['frozen'] / total:.1f}%)")
        if self.records.out_dir:
            say(checkpoint.disk_forecast(self.records.out_dir, config))
        if resumption.from_step is not None:
            say(f"Resumed from step {resumption.from_step}")
            for reason in resumption.inexact:
                say(f"Not exact: {reason}")

"""One attempt of a run, from flags to outcome.json: build all parts, train, and record how it ended.

This is the only place that catches errors; it turns them into an outcome, one line on standard error and an exit code.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
import traceback
from typing import Any, Dict, List, Optional

from . import checkpoint, environment, memory, state
from . import config as configuration
from .compiling import wants_compile
from .config import TrainConfig
from .data import default_val_path, open_tokens, verify
from .distributed import World, join
from .errors import DiskFull, OutOfMemory, PeerLost, TrainError, is_disk_full, is_out_of_memory, is_peer_lost
from .estimate import checkpoint_disk_bytes
from .loop import Interruption, Trainer, peak_gpu_mem_gb
from .model import Transformer
from .optimizer import Precision, build_optimizer
from .peak_rates import mfu
from .records import Records, complain, write_outcome
from .sentences import _
from .stepping import Stepper
from .trackers import Trackers
from .treatment import complete_treatment, describe_treatment

EXIT_COMPLETED, EXIT_FAILED, EXIT_RESUMABLE = 0, 1, 75
"""Exit codes for a person's shell, besides 2 for a wrong configuration; torchrun turns them into 1, so programs read
outcome.json.
"""
CAUSE_S = 1.0
"""So long a process with a worse idea of the cause waits for one with a better to record it."""


def main(config: TrainConfig, warnings: List[str]) -> int:
    """Run one attempt and return its exit code. Every process of the run calls this."""
    interruption = Interruption()
    attempt: Optional[_Attempt] = None

    def lost_another() -> None:
        if attempt is not None:
            attempt.fail(PeerLost())

    try:
        world = join(lost_another)
    except (TrainError, RuntimeError) as error:
        complain(str(error))
        if isinstance(error, TrainError):
            # The run ended before its parts were there; every process writes the same.
            write_outcome(config.out_dir, error.status, str(error), {"step": 0, "time": time.time()})
        return EXIT_FAILED
    memory.keep_freed_memory()
    code = EXIT_FAILED
    try:
        records = Records(config.out_dir if world.is_main else None, quiet=not world.is_main)
        attempt = _Attempt(config, world, records, interruption)
    except OSError as error:
        complain(f"can't write to {config.out_dir}: {error.strerror}")
        world.close(failed=True)
        return code
    try:
        code = attempt.run(warnings)
    except Exception as error:  # the outcome names what nobody foresaw, too
        attempt.fail(error)
    finally:
        if code == EXIT_FAILED:
            world.warn()
        attempt.trackers.close()  # which may take its time
        world.close(failed=code == EXIT_FAILED)
    return code


class _Attempt:
    """The parts of one attempt, built in order; an early end is recorded with what there is by then.

    Rank 0 writes outcome.json, or the process that alone knows why the run failed.
    """

    def __init__(self, config: TrainConfig, world: World, records: Records, interruption: Interruption) -> None:
        self.config = config
        self.world = world
        self.records = records
        self.interruption = interruption
        self.progress: Optional[state.Progress] = None
        self.trackers = Trackers(records.say)
        self._failing = threading.Lock()  # the thread that watches other processes may find a failure, too
        self._failed = False
        self.facts: Dict[str, Any] = {
            "max_steps": config.max_steps,
            "world_size": world.size,
            "global_batch": configuration.global_batch(config, world.size),
            "hardware": world.hardware(),
            "versions": environment.describe_versions(records.out_dir),
            "config": configuration.to_dict(config),
        }
        """What outcome.json says besides the progress."""

    def run(self, warnings: List[str]) -> int:
        """Train to the end or to a signal; return the exit code."""
        config, world, records = self.config, self.world, self.records
        for warning in warnings:
            records.say(f"Warning: {warning}")
        train_file = open_tokens(config.data_path, config.seq_len)
        val_file = open_tokens(config.val_data_path or default_val_path(config.data_path), config.seq_len)
        test_file = open_tokens(config.test_data_path, config.seq_len) if config.test_data_path else None
        data, warnings = world.from_main(lambda: verify(train_file, val_file, config.vocab_size, test_file))
        for warning in warnings:
            records.say(f"Warning: {warning}")
        self.facts["data"] = data.to_dict()
        model = Transformer(config)
        model.to(world.device)
        optimizer = build_optimizer(model, config)
        precision = Precision(config, world.device)
        self.facts.update(parameters=model.count_parameters(), precision=precision.name)
        parts = state.Parts(config, world, model, optimizer, precision, data, train_file, val_file, test_file)
        resumption = self._resume(parts)
        progress = self.progress = resumption.progress
        self.facts.update(resumed_from=resumption.from_step)
        self._announce(parts, resumption)
        records.write("treatment.json", resumption.treatment)
        if world.is_main:
            self.trackers.open(config, records.out_dir)
        compiled = wants_compile(config, world.device.type)
        if compiled:
            records.say("Compiling the blocks with torch.compile")
        stepper = Stepper(config, world, model, optimizer, precision, compiled)
        self.facts.update(deterministic=stepper.repeats)
        if stepper.why_eager:
            records.say(f"Not compiled, so slower: {stepper.why_eager}")
        self._note_compilation(stepper.compiled)
        if not stepper.repeats:
            records.say("Steps don't repeat to the bit: kernels of this GPU add in no fixed order")
            if resumption.from_step is not None:
                progress.inexact.append("kernels add in no fixed order")
        if not Trainer(parts, records, stepper, resumption, self.interruption, self.trackers.add).train():
            reason = _("stopped by a signal at step {step}, which can be resumed", progress.step)
            self._end("resumable", reason)
            records.say(f"Stopped: {reason}")
            return EXIT_RESUMABLE
        if world.is_main:
            records.write("treatment.json", complete_treatment(resumption.treatment, model, config))
        self._end("completed", "")
        records.say("Training complete")
        return EXIT_COMPLETED

    def _note_compilation(self, compiled: bool) -> None:
        """Note whether blocks are compiled; a run that was otherwise before is not exact from here."""
        progress = self.progress
        assert progress is not None
        if progress.compiled not in (None, compiled):
            progress.inexact.append("compiled then or now, but not both")
            self.records.say(f"Not exact: {progress.inexact[-1]}")
        progress.compiled = compiled

    def fail(self, error: Exception) -> None:
        """Record how the attempt failed: by the first cause, not by what other processes met because of it.

        Who knows the cause records it at once. Rank 0 speaks for all of what all find, as they do most ``TrainError``s,
        and of a process that is gone without a word; who has only that to say gives the cause time to be recorded.
        """
        with self._failing:
            failure = self._explained(error)
            is_lost = isinstance(failure, PeerLost)
            if self._failed or (is_lost and not self.world.is_main):
                return
            self._failed = True
            if is_lost and self._is_recorded(2 * CAUSE_S):
                return
            if isinstance(error, TrainError) and not self.world.is_main and self._is_recorded(CAUSE_S):
                return
            if not is_lost:
                self._tell(error, failure)
            if not self._is_recorded():
                self._end(failure.status, str(failure))

    def _tell(self, error: Exception, failure: TrainError) -> None:
        """Print how the attempt failed, with a traceback where nobody foresaw it."""
        if failure is not error and failure.status == "error":
            traceback.print_exception(type(error), error, error.__traceback__)
        complain(f"{'' if self.world.size == 1 else f'process {self.world.rank}: '}{failure}")
        self.records.note(f"Stopped ({failure.status}): {failure}")

    def _is_recorded(self, patience_s: float = 0.0) -> bool:
        """Tell whether a process has written outcome.json, or does so within some seconds."""
        if not self.config.out_dir:
            return False
        folder, deadline = os.path.join(self.config.out_dir, ".oelm"), time.monotonic() + patience_s
        # Listed, because NFS may remember for half a minute that a name was not there (nfs(5), lookupcache).
        while not os.path.isdir(folder) or "outcome.json" not in os.listdir(folder):
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
        return True

    def _explained(self, error: Exception) -> TrainError:
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

    def _end(self, status: str, reason: str) -> None:
        """Write outcome.json; what can't be told beside the reason, as of a GPU that answers no more, is left out."""
        try:
            facts = {**self._reached(), **self.facts}
        except Exception as error:
            complain(f"outcome.json says less: {type(error).__name__}: {error}")
            facts = {"step": self.progress.step if self.progress is not None else 0, **self.facts}
        write_outcome(self.config.out_dir, status, reason, {**facts, "time": time.time()})

    def _reached(self) -> Dict[str, Any]:
        """Return what outcome.json says of how far the attempt has come, and how fast."""
        record: Dict[str, Any] = {"step": 0}
        progress = self.progress
        if progress is not None:
            record.update(exact=not progress.inexact, compiled=progress.compiled)
            final = progress.final or {
                key: progress.last[key]
                for key in ("step", "val_loss", "val_tokens", "val_full", "loss")
                if key in progress.last
            }
            record.update(step=progress.step, tokens=progress.tokens, final=final or None, best=progress.best or None)
            record.update(tokens_per_s=progress.tokens_per_s or None, train_s=progress.train_s, val_s=progress.val_s)
            record.update(checkpoint_s=progress.checkpoint_s, peak_gpu_mem_gb=peak_gpu_mem_gb(self.world.device))
            name, precision = self.facts["hardware"]["name"], self.facts["precision"]
            record.update(mfu=mfu(self.config, progress.tokens_per_s, self.world.size, name, precision) or None)
        return record

    def _resume(self, parts: state.Parts) -> state.Resumption:
        """Restore the checkpoint that ``--resume`` asks for, or begin. Collective."""
        config, out_dir = self.config, self.config.out_dir or ""
        path: Optional[str] = None
        loaded: Optional[Dict[str, Any]] = None

        def newest() -> Optional[str]:
            nonlocal loaded
            found, loaded = checkpoint.newest_good_checkpoint(out_dir, self.records.say)
            return found

        if config.resume not in ("auto", "none"):
            path = config.resume
        elif out_dir and config.resume == "auto":
            path = self.world.from_main(newest)
        elif out_dir and self.world.is_main:
            self._set_aside(out_dir)
        if path is None:
            if config.init_from:
                state.begin_with(checkpoint.load_checkpoint(config.init_from), config.init_from, parts)
                self.records.say(f"Weights: {config.init_from}")
            treatment = describe_treatment(parts.model, parts.optimizer, config)
            return state.Resumption(state.Progress(), treatment, None, [])
        return state.restore(loaded or checkpoint.load_checkpoint(path), path, parts)

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
        say, config, data = self.records.say, self.config, parts.data
        versions, hardware, counts = self.facts["versions"], self.facts["hardware"], self.facts["parameters"]
        say(f"Device: {hardware['device']} ({hardware['name']}) on {hardware['host']}, {parts.precision.name}")
        say(f"Versions: Python {versions['python']}, PyTorch {versions['torch']}, revision {versions['revision']}")
        say(f"Configuration: {json.dumps(self.facts['config'])}")
        say(
            f"Batch: {parts.global_batch} sequences of {config.seq_len} tokens a step = {config.batch_size} x "
            f"{self.world.size} processes x {config.gradient_accumulation_steps} micro-steps"
        )
        say(f"Data: {data.train_tokens:,} training and {data.val_tokens:,} validation tokens {data.tokenizer}".rstrip())
        for entry in resumption.treatment["layers"]:
            say(f"  {entry['name']:<32} {entry['total']:>12,} {'trained' if entry['trainable'] else 'frozen'}")
        say(f"Total parameters: {counts['total']:,}")
        for kind in ("trainable", "frozen"):
            say(f"{kind.capitalize()} parameters: {counts[kind]:,} ({100 * counts[kind] / counts['total']:.1f}%)")
        if self.records.out_dir:
            need, free = checkpoint_disk_bytes(config), shutil.disk_usage(self.records.out_dir).free
            warning = " - not enough: lower --keep_last or --keep_every" if need > free else ""
            say(f"Disk: checkpoints need up to {need / 1e9:.2f} GB, {free / 1e9:.2f} GB are free{warning}")
        if resumption.from_step is not None:
            say(f"Resumed from step {resumption.from_step}")
            for reason in resumption.inexact:
                say(f"Not exact: {reason}")

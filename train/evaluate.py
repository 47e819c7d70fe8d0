"""``python -m train.evaluate CHECKPOINT``: measure the validation loss of a checkpoint again.

It uses the measurement of the training loop (``validation``), so the number equals the one in the training log.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from typing import Any, Dict, List, Optional, Tuple

from . import config as configuration
from .checkpoint import load_checkpoint
from .config import ConfigError, TrainConfig
from .data import default_val_path, open_tokens
from .device import choose
from .distributed import World
from .errors import DataError, TrainError
from .model import Transformer
from .optimizer import Precision
from .records import complain, perplexity
from .sentences import _
from .validation import Measurement, measure


def load_model(path: str) -> Tuple[Transformer, TrainConfig, Dict[str, Any]]:
    """Return the model of a checkpoint (or best_model.pt) on the CPU, its configuration and the file's progress.

    Raises:
        CheckpointError: the file is missing, torn or no checkpoint.
    """
    loaded = load_checkpoint(path)
    config = configuration.from_dict({k: v for k, v in loaded["config"].items() if k in configuration.FIELDS})
    model = Transformer(config)
    model.load_state_dict(loaded["model"])
    return model.eval(), config, loaded["progress"]


def evaluate(path: str, data_path: Optional[str], batch_size: Optional[int], windows: int) -> Tuple[int, Measurement]:
    """Return a checkpoint's step and its loss over the first ``windows`` sequences of the data, 0 meaning all.

    Raises:
        CheckpointError, DataError: a file is missing or not what it should be.
        NoGpu: there is a GPU that can't be used.
    """
    device = choose()
    model, config, progress = load_model(path)
    where = data_path or config.val_data_path or default_val_path(config.data_path)
    file = open_tokens(where, config.seq_len)
    if int(file.tokens.max()) >= config.vocab_size:
        raise DataError(_("{path} holds token ids past the model's vocabulary of {size}", where, config.vocab_size))
    if batch_size:
        config = replace(config, batch_size=batch_size)
    last = min(windows or file.windows(config.seq_len), file.windows(config.seq_len))
    measured = measure(model.to(device), file, config, World(0, 1, device), Precision(config, device), 0, last)
    assert measured is not None
    return int(progress["step"]), measured


def main(argv: List[str]) -> int:
    """Print the loss; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m train.evaluate", description="Measure a checkpoint's loss.")
    parser.add_argument("checkpoint", help="a checkpoint_<step>.pt or best_model.pt")
    parser.add_argument("--data_path", "--data-path", help="token file (default: the run's validation file)")
    parser.add_argument("--batch_size", "--batch-size", type=int, help="sequences at a time (default: the run's)")
    parser.add_argument("--sequences", type=int, default=0, help="use only so many, from the start (default: all)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(argv)
    try:
        step, found = evaluate(arguments.checkpoint, arguments.data_path, arguments.batch_size, arguments.sequences)
    except (TrainError, ConfigError) as error:
        complain(str(error))
        return 1
    if arguments.json:
        record = {"step": step, "val_loss": found.loss, "val_tokens": found.num_tokens, "val_full": found.is_full}
        print(json.dumps(record))
    else:
        name = os.path.basename(arguments.checkpoint)
        print(f"{name} (step {step}) | Loss: {found.loss:.4f} | PPL: {perplexity(found.loss):.2f}", end="")
        print(f" | {found.num_tokens:,} tokens{'' if found.is_full else ' (a part of the file)'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Cut token files into batches: the sequences that each training step and each validation reads.

A training step's global batch is a pure function of (seed, step), cut into micro-batches that ranks take in turn, so
the tokens of a step do not depend on the number of processes.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import threading
from dataclasses import asdict, dataclass, replace
from typing import Any, Dict, Iterator, List, Optional, Tuple, Union

import numpy as np
import torch
from torch import Tensor

from .config import TrainConfig, fewest_tokens, global_batch
from .cross_entropy import IGNORED
from .distributed import World
from .errors import DataError
from .seeds import draw_offsets
from .sentences import _

_HASH_BLOCK_BYTES = 1 << 24


@dataclass(frozen=True)
class TokenFile:
    """A flat file of little-endian uint16 token ids, mapped into memory."""

    path: str
    """Where the file is."""
    tokens: np.ndarray
    """The ids [num_tokens], uint16, read-only."""

    @property
    def num_tokens(self) -> int:
        return int(self.tokens.shape[0])

    def windows(self, seq_len: int) -> int:
        """Return how many sequences of ``seq_len`` targets the file holds, the last one possibly shorter."""
        return -(-(self.num_tokens - 1) // seq_len)


@dataclass(frozen=True)
class DataRecord:
    """What was trained and validated on, as outcome.json records it."""

    train_sha256: str
    """Hash of the training file."""
    val_sha256: str
    """Hash of the validation file."""
    train_tokens: int
    """Length of the training file."""
    val_tokens: int
    """Length of the validation file."""
    tokenizer: str
    """The tokenizer's name by the manifest; empty without one."""
    test_sha256: str = ""
    """Hash of the file that the last step is tested on; empty where there is none."""
    test_tokens: int = 0
    """Length of that file."""

    def to_dict(self) -> Dict[str, Any]:
        """Return it as it is recorded: without a test file where there is none."""
        return {key: value for key, value in asdict(self).items() if value or not key.startswith("test_")}


def default_val_path(data_path: str) -> str:
    """Return val.bin beside the training file."""
    return os.path.join(os.path.dirname(data_path), "val.bin")


def open_tokens(path: str, seq_len: int) -> TokenFile:
    """Map a token file.

    Raises:
        DataError: the file is missing, of odd size, or too short for one sequence.
    """
    if not os.path.isfile(path):
        if os.path.basename(path) == "val.bin":
            raise DataError(
                _(
                    "data file not found: {path}; --val_data_path names it if it lies elsewhere; "
                    "oelm-data makes token files from text",
                    path,
                )
            )
        raise DataError(_("data file not found: {path}; oelm-data makes token files from text", path))
    size = os.path.getsize(path)
    if size % 2:
        raise DataError(_("{path} has {size} bytes, an odd number: not a file of uint16 token ids", path, size))
    if size // 2 < fewest_tokens(seq_len):
        raise DataError(
            _(
                "{path} has {count} tokens; seq_len = {seq_len} needs at least {least}",
                path, size // 2, seq_len, fewest_tokens(seq_len),
            )
        )  # fmt: skip
    return TokenFile(path, np.memmap(path, dtype="<u2", mode="r"))


def verify(
    train: TokenFile, val: TokenFile, vocab_size: int, test: Optional[TokenFile] = None
) -> Tuple[DataRecord, List[str]]:
    """Read the files once, compare them with the manifest where there is one; return the record and warnings.

    Raises:
        DataError: a token id is outside the vocabulary, or a file is not the one that its manifest describes.
    """
    warnings: List[str] = []
    hashes = []
    tokenizer = ""
    for file in (train, val) if test is None else (train, val, test):
        digest, largest = _scan(file)
        if largest >= vocab_size:
            raise DataError(
                _(
                    "{path} holds token id {token}; vocab_size = {vocab_size} allows ids below that",
                    file.path, largest, vocab_size,
                )
            )  # fmt: skip
        manifest = _read_manifest(file.path)
        if manifest is None:
            warnings.append(f"no manifest.json beside {file.path}: what the tokens are can't be checked")
        else:
            entry = manifest.get("files", {}).get(os.path.basename(file.path))
            if entry is not None and entry.get("sha256") not in (None, digest):
                raise DataError(
                    _("{path} is not the file that its manifest.json describes (sha256 differs)", file.path)
                )
            known = manifest.get("tokenizer", {})
            if file is train:
                tokenizer = str(known.get("name", ""))
                if known.get("vocab_size", vocab_size) < vocab_size:
                    warnings.append(
                        f"vocab_size = {vocab_size}, but tokenizer {tokenizer} has {known['vocab_size']} ids: "
                        f"the rest is never used"
                    )
        hashes.append(digest)
    record = DataRecord(hashes[0], hashes[1], train.num_tokens, val.num_tokens, tokenizer)
    if test is not None:
        record = replace(record, test_sha256=hashes[2], test_tokens=test.num_tokens)
    return record, list(dict.fromkeys(warnings))


def _scan(file: TokenFile) -> Tuple[str, int]:
    """Return the sha256 of a file and its largest token id, reading it once with constant memory."""
    digest = hashlib.sha256()
    largest = 0
    with open(file.path, "rb") as stream:
        while block := stream.read(_HASH_BLOCK_BYTES):
            digest.update(block)
            largest = max(largest, int(np.frombuffer(block, dtype="<u2").max()))
    return digest.hexdigest(), largest


def _read_manifest(data_path: str) -> Optional[Dict[str, Any]]:
    path = os.path.join(os.path.dirname(data_path), "manifest.json")
    if not os.path.isfile(path):
        return None
    try:
        with open(path, encoding="utf-8") as stream:
            manifest = json.load(stream)
    except ValueError as error:
        raise DataError(_("{path} is not valid JSON: {error}", path, str(error))) from None
    if not isinstance(manifest, dict):
        raise DataError(_("{path} is not a manifest: its outermost value is no object", path))
    return manifest


def micro_batches(config: TrainConfig, world: World) -> List[int]:
    """Return which micro-batches of the global batch are this process's: its m-th of a step is number
    ``m * world.size + world.rank``.
    """
    return [m * world.size + world.rank for m in range(config.gradient_accumulation_steps)]


class TrainingBatches:
    """The micro-batches of one rank, step after step; on a GPU prepared ahead in pinned memory by one thread."""

    def __init__(self, file: TokenFile, config: TrainConfig, world: World) -> None:
        self._file = file
        self._config = config
        self._world = world
        # Gathering a batch takes a CPU run microseconds; a thread would only take its core away.
        self._ahead = config.num_workers if world.device.type == "cuda" else 0

    def steps(self, first: int, last: int) -> Iterator[List[Tensor]]:
        """Yield for each step in [first, last] the rank's micro-batches, each [batch_size, seq_len + 1], int64.

        Raises what went wrong while they were prepared, in whichever thread that was.
        """
        if not self._ahead:
            for step in range(first, last + 1):
                yield [self._to_device(batch) for batch in self.host_batches(step)]
            return
        ready: "queue.Queue[Union[List[Tensor], BaseException]]" = queue.Queue(self._ahead)
        stopped = threading.Event()

        def hand_over(item: Union[List[Tensor], BaseException]) -> None:
            while not stopped.is_set():
                try:
                    return ready.put(item, timeout=1.0)
                except queue.Full:
                    continue

        def prepare() -> None:
            try:
                for step in range(first, last + 1):
                    hand_over([batch.pin_memory() for batch in self.host_batches(step)])
                    if stopped.is_set():
                        return
            except BaseException as error:  # whoever waits for batches would wait for ever
                hand_over(error)

        threading.Thread(target=prepare, name="batches", daemon=True).start()
        try:
            for _ in range(first, last + 1):
                item = ready.get()
                if isinstance(item, BaseException):
                    raise item
                yield [self._to_device(batch) for batch in item]
        finally:
            stopped.set()

    def host_batches(self, step: int) -> List[Tensor]:
        """Return the rank's micro-batches of a step, each [batch_size, seq_len + 1], int16 holding uint16's bits."""
        config, count = self._config, global_batch(self._config, self._world.size)
        seed = config.seed if config.data_seed is None else config.data_seed
        offsets = draw_offsets(seed, step, count, self._file.num_tokens - config.seq_len)
        offsets = offsets.reshape(-1, config.batch_size)
        span = np.arange(config.seq_len + 1)
        numbers = micro_batches(config, self._world)
        # PyTorch had no uint16 before 2.3; the bits travel as int16, at a quarter of int64's traffic.
        return [torch.from_numpy(self._file.tokens[offsets[n][:, None] + span].view(np.int16)) for n in numbers]

    def _to_device(self, batch: Tensor) -> Tensor:
        return batch.to(self._world.device, non_blocking=True).long() & 0xFFFF


def validation_batch(file: TokenFile, seq_len: int, first: int, last: int) -> Tuple[Tensor, Tensor]:
    """Return tokens and targets [last - first, seq_len], int64, of the windows [first, last) in file order.

    Window i holds the targets i * seq_len + 1 … (i + 1) * seq_len; what lies past the file's end is ``IGNORED``.
    """
    flat = file.tokens[first * seq_len : last * seq_len + 1].astype(np.int64)
    count = (last - first) * seq_len
    tokens = np.zeros(count, dtype=np.int64)
    targets = np.full(count, IGNORED, dtype=np.int64)
    tokens[: min(count, flat.size)] = flat[:count]
    targets[: flat.size - 1] = flat[1:]
    shape = (last - first, seq_len)
    return torch.from_numpy(tokens.reshape(shape)), torch.from_numpy(targets.reshape(shape))

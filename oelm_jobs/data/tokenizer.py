"""Encode text in GPT-2's vocabulary, whole or truncated, in several processes."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..agent.sentences import _
from ..errors import DataError
from .token_folder import END_OF_TEXT

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    import tiktoken

GPT2_VOCAB_SIZE = 50257
SMALLEST_VOCAB_SIZE = 257
"""The 256 bytes, so that any text can be encoded, and `END_OF_TEXT`."""
RANKS_PATH = Path(__file__).parents[1] / "text" / "gpt2-vocab.bpe"
RANKS_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
# GPT-2's own pattern in the form that tiktoken uses for speed (possessive quantifiers, the same matches).
PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"

Key = TypeVar("Key")


def tokenizer_name(vocab_size: int) -> str:
    """Return the name that manifests and results carry: ``gpt2``, or ``gpt2-1024`` for a truncated vocabulary."""
    return "gpt2" if vocab_size == GPT2_VOCAB_SIZE else f"gpt2-{vocab_size}"


def check_vocab_size(vocab_size: int) -> None:
    """Raise DataError when GPT-2's merges can't make a vocabulary of this size."""
    if not SMALLEST_VOCAB_SIZE <= vocab_size <= GPT2_VOCAB_SIZE:
        raise DataError(
            _(
                "no vocabulary of {n} entries can be made of GPT-2's merges; valid: {low} (bytes alone) to"
                " {high} (GPT-2 itself)",
                vocab_size,
                SMALLEST_VOCAB_SIZE,
                GPT2_VOCAB_SIZE,
            ),
            hint=_("--vocab 1024 suits the demo, --vocab 50257 is GPT-2's own"),
        )


@lru_cache(maxsize=2)
def encoding(vocab_size: int = GPT2_VOCAB_SIZE) -> tiktoken.Encoding:
    """Return the encoding of the first ``vocab_size - 1`` ranks with `END_OF_TEXT` as the last id.

    A merge only ever uses earlier ranks, so every prefix of the ranks that holds the 256 bytes encodes any text, and
    decoding gives the text back. Needs no network.
    """
    import tiktoken

    check_vocab_size(vocab_size)
    return tiktoken.Encoding(
        tokenizer_name(vocab_size),
        pat_str=PATTERN,
        mergeable_ranks=_read_ranks(vocab_size - 1),
        special_tokens={END_OF_TEXT: vocab_size - 1},
    )


def _read_ranks(count: int) -> dict[bytes, int]:
    """Return the first ``count`` ranks; GPT-2 writes bytes as printable characters and merges as two words a line."""
    raw = RANKS_PATH.read_bytes()
    if hashlib.sha256(raw).hexdigest() != RANKS_SHA256:
        raise DataError(
            _("{path} is damaged: its sha256 isn't {hash}", str(RANKS_PATH), RANKS_SHA256),
            hint=_("install oelm-jobs again"),
        )
    printable = [byte for byte in range(256) if chr(byte).isprintable() and chr(byte) != " "]
    others = [byte for byte in range(256) if byte not in printable]
    byte_of = {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
    ranks = {bytes([byte]): rank for rank, byte in enumerate(printable + others)}
    merges = raw.decode("utf-8").splitlines()[1:]  # the first line is a version
    for rank, merge in enumerate(merges[: count - len(ranks)], start=len(ranks)):
        ranks[bytes(byte_of[character] for character in merge if character != " ")] = rank
    return ranks


def encode(text: str, vocab_size: int) -> bytes:
    """Return the ids of ``text`` as little-endian uint16; each `END_OF_TEXT` in it becomes that one id."""
    array = encoding(vocab_size).encode_to_numpy(text, allowed_special={END_OF_TEXT})
    return bytes(array.astype("<u2").tobytes())


def usable_cpus() -> int:
    """Return how many CPUs this process may use (Slurm and containers allow fewer than the machine has)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def encode_batches(
    batches: Iterable[tuple[Key, str]], vocab_size: int, *, processes: int
) -> Iterator[tuple[Key, bytes]]:
    """Yield ``(key, ids)`` for each ``(key, text)``, in order, whatever the number of processes.

    Each process holds one batch at a time and the next is read only when one is free, so that memory stays constant.
    With one process nothing is started. (Threads would be simpler, but two of them were measured to encode no faster
    than one.)

    Raises:
        DataError: A process was killed, for instance for lack of memory.
    """
    if processes <= 1:
        for key, text in batches:
            yield key, encode(text, vocab_size)
        return
    waiting: deque[tuple[Key, _Worker]] = deque()
    workers: list[_Worker] = []
    try:
        for key, text in batches:
            if len(workers) < processes:
                workers.append(_Worker(vocab_size))
                workers[-1].send(text)
                waiting.append((key, workers[-1]))
                continue
            done, worker = waiting.popleft()
            tokens = worker.receive()
            worker.send(text)  # before the tokens are written, so that it works meanwhile
            waiting.append((key, worker))
            yield done, tokens
        for done, worker in waiting:
            yield done, worker.receive()
    finally:
        for worker in workers:
            worker.close()


class _Worker:
    """One encoding process. It ends by itself when its pipe closes, so even a killed parent leaves none behind."""

    def __init__(self, vocab_size: int) -> None:
        # spawn: the child inherits no descriptor, hence none of the pipe ends whose closing ends its siblings.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(theirs, vocab_size), daemon=True)
        self.process.start()
        theirs.close()

    def send(self, text: str) -> None:
        with self._explained():
            self.pipe.send_bytes(text.encode("utf-8"))

    def receive(self) -> bytes:
        with self._explained():
            return self.pipe.recv_bytes()
        raise AssertionError("unreachable")

    def close(self) -> None:
        self.pipe.close()
        self.process.join(timeout=10)
        if self.process.is_alive():
            self.process.kill()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError) as error:
            self.process.join(timeout=10)
            raise DataError(
                _("an encoding process ended early (exit code {n})", self.process.exitcode),
                hint=_("its own message is above if it had one; with little memory, use --processes 1"),
            ) from error


def _serve(pipe: Connection, vocab_size: int) -> None:
    """Answer each text with its ids until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    while True:
        try:
            text = pipe.recv_bytes().decode("utf-8")
            pipe.send_bytes(encode(text, vocab_size))
        except (EOFError, OSError):
            return

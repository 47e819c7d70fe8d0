"""Encode text in GPT-2's vocabulary, whole or truncated, in several processes."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..agent.sentences import _
from ..errors import DataError
from ..train.vocabulary import Vocabulary
from .token_folder import END_OF_TEXT

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

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
        valid = _("valid: {low} (bytes alone) to {high} (GPT-2 itself)", SMALLEST_VOCAB_SIZE, GPT2_VOCAB_SIZE)
        raise DataError(
            _("no vocabulary of {n} entries can be made of GPT-2's merges; {valid}", vocab_size, valid),
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
    if hashlib.sha256(RANKS_PATH.read_bytes()).hexdigest() != RANKS_SHA256:
        raise DataError(
            _("{path} is damaged: its sha256 isn't {hash}", str(RANKS_PATH), RANKS_SHA256),
            hint=_("install oelm-jobs again"),
        )
    return tiktoken.Encoding(
        tokenizer_name(vocab_size),
        pat_str=PATTERN,
        mergeable_ranks=Vocabulary(str(RANKS_PATH), vocab_size).rank,
        special_tokens={END_OF_TEXT: vocab_size - 1},
    )


def encode(text: str, vocab_size: int) -> bytes:
    """Return the ids of ``text`` as little-endian uint16; each `END_OF_TEXT` in it becomes that one id."""
    array = encoding(vocab_size).encode_to_numpy(text, allowed_special={END_OF_TEXT})
    return bytes(array.astype("<u2").tobytes())


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
    encoders: list[_Encoder] = []
    waiting: deque[tuple[Key, _Encoder]] = deque()
    try:
        for key, text in batches:
            if len(waiting) < processes:
                encoders.append(encoder := _Encoder())
                encoder.take(text, vocab_size)
                waiting.append((key, encoder))
                continue
            done, encoder = waiting.popleft()
            tokens = encoder.answer()
            encoder.take(text, vocab_size)  # before the tokens are written, so that it works meanwhile
            waiting.append((key, encoder))
            yield done, tokens
        for done, encoder in waiting:
            yield done, encoder.answer()
    except _Ended as error:
        raise DataError(
            _("an encoding process ended early: it was killed, or could not start"),
            hint=_("its own message is above if it had one; with little memory, use --processes 1"),
        ) from error
    finally:
        for encoder in encoders:
            encoder.close()


class _Ended(Exception):
    """A process is gone, or could not be started."""


class _Encoder:
    """A process that encodes one text at a time.

    The pools of the standard library can wait for ever where one of theirs is killed while another is started; a pipe
    whose other end is gone says so.
    """

    def __init__(self) -> None:
        """Start the process; raises _Ended."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        try:
            self._process.start()
        except OSError as error:
            self._pipe.close()
            raise _Ended(str(error)) from error
        finally:
            theirs.close()  # its end is the process's alone, so that it is gone with it

    def take(self, text: str, vocab_size: int) -> None:
        """Hand it a text; it has none. Raises _Ended."""
        try:
            self._pipe.send((text, vocab_size))
        except OSError as error:
            raise _Ended(str(error)) from error

    def answer(self) -> bytes:
        """Wait for the ids of its text; raises _Ended, or what went wrong in it."""
        try:
            answer: bytes | Exception = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise _Ended(str(error)) from error
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """Let it end, and wait until it has: after the text that it works on."""
        self._pipe.close()
        self._process.join()


def _serve(pipe: Connection) -> None:
    """Encode what comes through a pipe until its other end is closed, or its process gone, even killed; Ctrl-C, which
    reaches both processes, is the other's.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, OSError):
        while True:
            text, vocab_size = pipe.recv()
            try:
                answer: bytes | Exception = encode(text, vocab_size)
            except Exception as error:  # whatever it is, the other process raises it
                answer = error
            pipe.send(answer)

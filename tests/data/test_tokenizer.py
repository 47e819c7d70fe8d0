"""Tests of the encoding and of the processes that encode."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from oelm_jobs.data import tokenizer
from oelm_jobs.data.token_folder import END_OF_TEXT
from oelm_jobs.data.tokenizer import encode, encode_batches, encoding
from oelm_jobs.errors import DataError

GPT2_PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""


def ids(text: str, vocab_size: int) -> list[int]:
    return np.frombuffer(encode(text, vocab_size), dtype="<u2").tolist()


def test_the_whole_vocabulary_gives_gpt2s_published_ids() -> None:
    assert ids("Hello world", 50257) == [15496, 995]
    assert ids("The quick brown fox jumps over the lazy dog.", 50257) == [
        464, 2068, 7586, 21831, 18045, 625, 262, 16931, 3290, 13,
    ]  # fmt: skip
    assert ids(f"a{END_OF_TEXT}", 50257) == [64, 50256]
    assert encoding(50257).name == "gpt2"


@functools.cache
def ranks(vocab_size: int) -> dict[bytes, int]:
    return {encoding(50257).decode_single_token_bytes(rank): rank for rank in range(vocab_size - 1)}


def plain_encode(text: str, vocab_size: int) -> list[int]:
    """Encode as GPT-2's own encoder.py does: its pattern, then the pair of lowest rank merged until none is left."""
    table = ranks(vocab_size)
    tokens = []
    for word in regex.findall(GPT2_PATTERN, text):
        parts = [bytes([byte]) for byte in word.encode()]
        while True:
            pairs = [(table.get(a + b, vocab_size), i) for i, (a, b) in enumerate(itertools.pairwise(parts))]
            rank, at = min(pairs, default=(vocab_size, 0))
            if rank == vocab_size:
                break
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        tokens += [table[part] for part in parts]
    return tokens


@pytest.mark.slow
@settings(deadline=None)
@given(text=st.text() | st.text(alphabet="abc \n'st12.") | st.text(alphabet=" \n\t\r\u00a0x"))
def test_encoding_is_what_gpt2s_own_encoder_does(text: str) -> None:
    assert ids(text, 50257) == plain_encode(text, 50257)
    assert ids(text, 600) == plain_encode(text, 600)


@pytest.mark.parametrize("vocab_size", [257, 1024, 4096, 50257])
@settings(deadline=None)
@given(text=st.text() | st.text(alphabet="abc \n'st") | st.text(alphabet="éß雪🙂\u0300\u200d"))
def test_any_text_survives_any_vocabulary(vocab_size: int, text: str) -> None:
    tokens = ids(text, vocab_size)
    assert encoding(vocab_size).decode(tokens) == text
    assert all(token < vocab_size for token in tokens)


def test_a_smaller_vocabulary_is_a_prefix_of_the_larger_one() -> None:
    small, large = encoding(1024), encoding(50257)
    assert all(small.decode_single_token_bytes(i) == large.decode_single_token_bytes(i) for i in range(1023))
    assert small.decode([1023]) == END_OF_TEXT


@pytest.mark.parametrize("vocab_size", [-1, 0, 256, 50258, 65536])
def test_a_vocabulary_that_cannot_be_made_is_refused_with_the_valid_range(vocab_size: int) -> None:
    with pytest.raises(DataError, match=rf"{vocab_size} entries.*257.*50257"):
        encode("x", vocab_size)


def test_damaged_ranks_are_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    damaged = tmp_path / "gpt2-vocab.bpe"
    damaged.write_bytes(tokenizer.RANKS_PATH.read_bytes()[:-10])
    monkeypatch.setattr(tokenizer, "RANKS_PATH", damaged)
    tokenizer.encoding.cache_clear()  # another test may have made it of sound ones
    with pytest.raises(DataError, match="damaged"):
        encode("x", 300)


@pytest.mark.slow
def test_several_processes_answer_in_order_and_as_one_does() -> None:
    batches = [(number, f"batch {number} " * (50 * (number % 3 + 1))) for number in range(11)]
    alone = list(encode_batches(batches, 1024, processes=1))
    assert list(encode_batches(batches, 1024, processes=3)) == alone
    assert [key for key, _ in alone] == list(range(11))


@pytest.mark.slow
def test_reading_runs_at_most_one_batch_per_process_ahead() -> None:
    read = 0

    def batches():
        nonlocal read
        for read in range(1, 21):
            yield read, "text"

    for done, _ in encode_batches(batches(), 300, processes=2):
        assert read <= done + 2


@pytest.mark.slow
def test_a_killed_process_is_an_error_not_a_hang() -> None:
    def batches():
        yield 0, "first"
        (child,) = wait_for_encoders(os.getpid(), 1)
        child.send_signal(signal.SIGKILL)
        child.wait()
        yield 1, "second"
        yield 2, "third"

    with pytest.raises(DataError, match="ended early") as caught:
        list(encode_batches(batches(), 300, processes=2))
    assert "--processes 1" in caught.value.hint


def test_a_process_that_cannot_be_started_is_the_same_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: object) -> None:
        raise OSError("no more processes")

    monkeypatch.setattr("multiprocessing.context.SpawnProcess.start", start)
    with pytest.raises(DataError, match="ended early"):
        list(encode_batches([(0, "first")], 300, processes=2))


def test_what_goes_wrong_in_a_process_is_told_as_it_is() -> None:
    with pytest.raises(DataError, match="no vocabulary of 3 entries"):
        list(encode_batches([(0, "first"), (1, "second")], 3, processes=2))


@pytest.mark.slow
def test_no_process_outlives_whoever_stops_reading() -> None:
    answers = encode_batches(((number, "text") for number in range(9)), 300, processes=2)
    next(answers)
    children = wait_for_encoders(os.getpid(), 2)
    answers.close()
    assert not any(child.is_running() for child in children)


def wait_for_encoders(parent: int, count: int) -> list[psutil.Process]:
    """Return the encoding processes of ``parent`` once so many run (between fork and exec they look like it)."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = []
        for child in psutil.Process(parent).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                found += [child] if any("spawn_main" in word for word in child.cmdline()) else []
        if len(found) == count:
            return found
        time.sleep(0.01)
    raise AssertionError(f"{len(found)} instead of {count} encoding processes")


@pytest.mark.slow
def test_no_process_survives_a_killed_parent() -> None:
    program = (
        "import sys\n"
        "from oelm_jobs.data.tokenizer import encode_batches\n"
        "def batches():\n"
        "    yield 0, 'a'\n    yield 1, 'b'\n"
        "    print('ready', flush=True); sys.stdin.read()\n    yield 2, 'c'\n"
        "if __name__ == '__main__':\n    list(encode_batches(batches(), 300, processes=2))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert parent.stdout is not None and parent.stdout.readline() == b"ready\n"
        children = wait_for_encoders(parent.pid, 2)
    finally:
        parent.kill()
        parent.communicate()
    _, alive = psutil.wait_procs(children, timeout=300)
    assert not alive

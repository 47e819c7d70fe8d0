"""A compiled network: when they pay, what happens where they can't be had, and what costs no second compilation."""

from __future__ import annotations

import functools
import importlib.util
import os
import sysconfig
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support import needs
from tests.train.support import TINY, Ended, Trainers, outcome, train_here
from tests.train.test_stepping import ALONE, CPU
from train import compiling, run
from train.checkpoint import load_checkpoint
from train.compiling import PAYS_AFTER_STEPS, lacking, wants_compile
from train.config import TrainConfig
from train.data import open_tokens
from train.model import Transformer
from train.optimizer import Precision
from train.validation import measure


def test_whether_blocks_are_compiled_is_decided_by_the_whole_run() -> None:
    long, short = (replace(TINY, max_steps=PAYS_AFTER_STEPS - less) for less in (0, 1))
    assert wants_compile(long, "cuda") and not wants_compile(short, "cuda")
    assert not wants_compile(long, "cpu")
    assert wants_compile(replace(short, compile="true"), "cpu")
    assert not wants_compile(replace(long, compile="false"), "cuda")


@pytest.mark.slow
def test_a_run_that_cannot_compile_says_so_once_and_goes_on_eagerly(
    tiny: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(function: Any, **_: Any) -> Any:
        raise ValueError("a compiler that nobody foresaw\nand its traceback")

    eager = replace(tiny, out_dir=str(tmp_path / "eager"))
    assert train_here(eager) == 0
    assert outcome(eager)["compiled"] is False and "ot compiled" not in capsys.readouterr().out
    monkeypatch.setattr(run, "wants_compile", lambda *_: True)
    monkeypatch.setattr(torch, "compile", fail)
    assert train_here(tiny) == 0
    assert capsys.readouterr().out.count("Not compiled, so slower: a compiler that nobody foresaw\n") == 1
    assert outcome(tiny)["compiled"] is False and outcome(tiny)["exact"] is True
    found, expected = (load_checkpoint(f"{run.out_dir}/checkpoint_24.pt")["model"] for run in (tiny, eager))
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    monkeypatch.setattr(run, "wants_compile", wants_compile)
    assert train_here(replace(tiny, resume=f"{tiny.out_dir}/checkpoint_20.pt")) == 0
    assert outcome(tiny)["exact"] is True, "what was compiled counts, not what should have been"


@pytest.mark.slow
def test_where_one_process_cannot_compile_none_does(tiny: TrainConfig, trainers: Trainers) -> None:
    processes = trainers.start(tiny, 2, env={"OELM_TEST_FAULT": "compiler"}, module="tests.train.faulty")
    ended = [Ended(process) for process in processes]
    assert [process.code for process in ended] == [0, 0], ended[1].err
    assert ended[0].out.count("Not compiled, so slower: no compiler on rank 1") == 1
    assert outcome(tiny)["compiled"] is False


@pytest.mark.slow
def test_without_a_compiler_compile_true_fails_in_one_line_that_names_the_flag(
    tiny: TrainConfig, tmp_path: Path, trainers: Trainers
) -> None:
    # Kernels of earlier runs would need no compiler.
    env = {"PATH": str(tmp_path), "CXX": "/nowhere/g++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    ended = trainers.run(replace(tiny, compile="true"), env=env)
    reason = "--compile true can't be kept, auto goes on without it: no C compiler (/nowhere/g++, clang++)"
    assert ended.code == 1 and ended.err == f"train: {reason}\n"
    assert outcome(tiny)["reason"] == reason


@pytest.mark.slow
def test_a_short_last_batch_of_a_validation_is_filled_up_and_not_compiled_for(tiny: TrainConfig) -> None:
    shapes: list[tuple[int, ...]] = []

    def counting(graph: Any, inputs: Any) -> Any:
        shapes.append(tuple(inputs[0].shape))
        return graph.forward

    config = replace(tiny, batch_size=3)
    model, file = Transformer(config), open_tokens(str(Path(config.data_path).parent / "val.bin"), config.seq_len)
    last = file.windows(config.seq_len)
    assert last % config.batch_size, "the last batch is a whole one"
    asked = functools.partial(measure, model, file, config, ALONE, Precision(config, CPU))
    plain = asked(0, last), asked(0, 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", functools.partial(torch.compile, backend=counting))
        compiling.compile_model(model)
    whole = asked(0, config.batch_size, whole_batches=True)
    assert whole is not None and whole.num_tokens == config.batch_size * config.seq_len
    before = len(shapes)
    assert before > 0
    filled = asked(0, last, whole_batches=True), asked(0, 4, whole_batches=True)
    assert len(shapes) == before
    for one, other in zip(plain, filled, strict=True):
        assert one is not None and other is not None
        assert (one.num_tokens, one.is_full) == (other.num_tokens, other.is_full)
        assert one.loss == pytest.approx(other.loss, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("arm", [{"freeze_qk": False}, {}, {"freeze_qk": False, "freeze_q": True}], ids=str)
def test_blocks_share_one_whole_compilation_for_training_and_one_for_validation(
    arm: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[Any] = []

    def counting(graph: Any, inputs: Any) -> Any:
        compiled.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counting))
    model = Transformer(replace(TINY, num_layers=3, **arm))
    tokens = torch.zeros(2, TINY.seq_len, dtype=torch.long)
    compiling.compile_model(model)
    for dtype in (torch.bfloat16, torch.float16):
        compiled.clear()
        for _ in range(2):
            with torch.autocast("cpu", dtype=dtype):
                model(tokens, tokens).backward()
        with torch.autocast("cpu", dtype=dtype), torch.no_grad():
            model.eval().losses(tokens, tokens)
            model.train()
        assert len(compiled) == 3, "a block twice, the head's softmax once"


def test_what_compiling_lacks_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cuda = torch.device("cuda", 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CC", "cc-of-the-site")
    monkeypatch.setattr(sysconfig, "get_path", lambda _: "/nowhere")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (6, 1))
    assert lacking(cuda) == [
        "no Triton",
        "no GPU of sm_70 or newer (sm_61)",
        "no C compiler (cc-of-the-site, clang, cc)",
        "no headers of Python (/nowhere/Python.h)",
    ]
    monkeypatch.undo()
    needs("g++")
    assert lacking(CPU) == [] or not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h"))

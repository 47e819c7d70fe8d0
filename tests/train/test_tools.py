"""What is done with checkpoints and arms outside of training: evaluate, sample, the speed trial."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.support import Ended, Trainers, metrics, outcome, read_json, train_here, write_tokens
from train import config as configuration
from train import evaluate, sample, speed_trial
from train.config import ConfigError, TrainConfig, to_flags
from train.speed_trial import compare, median_interval, read_arms
from train.vocabulary import Vocabulary, find_merges


@pytest.mark.slow
def test_evaluating_a_checkpoint_gives_the_number_of_its_log(
    tiny: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_here(replace(tiny, keep_last=0, save_interval=8)) == 0
    folder = Path(str(tiny.out_dir))
    capsys.readouterr()
    assert evaluate.main([str(folder / "checkpoint_24.pt"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {key: metrics(tiny)[24][key] for key in ("step", "val_loss", "val_tokens", "val_full")}
    assert evaluate.main([str(folder / "checkpoint_8.pt"), "--sequences", "12", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["val_loss"] == metrics(tiny)[8]["val_loss"] and found["val_full"] is False
    assert evaluate.main([str(folder / "best_model.pt")]) == 0
    assert f"best_model.pt (step {outcome(tiny)['best']['step']}) | Loss: " in capsys.readouterr().out


@pytest.mark.slow
def test_the_last_step_alone_is_measured_on_the_test_file_which_changes_nothing_else(
    tiny: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = tmp_path / "test.bin"
    test.write_bytes(Path(tiny.data_path).with_name("val.bin").read_bytes()[:600])
    tested = replace(tiny, test_data_path=str(test), out_dir=str(tmp_path / "tested"))
    assert train_here(tiny) == train_here(tested) == 0
    before, after = outcome(tiny), outcome(tested)
    assert {key: after["final"][key] for key in before["final"]} == before["final"]
    assert (after["final"]["test_tokens"], after["data"]["test_tokens"]) == (299, 300)
    assert not {"test_loss", "test_tokens"} & {*before["final"]} and "test_sha256" not in before["data"]
    assert [step for step, record in metrics(tested).items() if "test_loss" in record] == [24]
    assert "test_data_path" not in before["config"]
    capsys.readouterr()
    checkpoint = str(tmp_path / "tested" / "checkpoint_24.pt")
    assert evaluate.main([checkpoint, "--data_path", str(test), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["val_loss"] == after["final"]["test_loss"]


def test_evaluating_nonsense_is_one_line(tiny: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "torn.pt").write_bytes(b"PK")
    assert evaluate.main([str(tmp_path / "torn.pt")]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "is torn or no checkpoint" in line


@pytest.fixture
def speaking(tmp_path: Path) -> TrainConfig:
    """A finished run on a vocabulary of 300 GPT-2 entries."""
    path = write_tokens(tmp_path / "text", vocab_size=300)
    config = replace(
        TrainConfig(),
        d_model=16, num_layers=1, num_heads=2, d_ff=32, seq_len=16, vocab_size=300, max_steps=3, batch_size=2,
        val_batches=1, data_path=str(path), out_dir=str(tmp_path / "run"),
    )  # fmt: skip
    assert train_here(config) == 0
    return config


@pytest.mark.slow
def test_samples_go_on_from_the_prompt_and_are_repeatable(
    speaking: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = str(Path(str(speaking.out_dir)) / "best_model.pt")
    capsys.readouterr()
    arguments = [checkpoint, "--prompt", "Once upon", "--max_new_tokens", "30", "--num_samples", "2"]
    printed = []
    for seed in ("1", "1", "2"):
        assert sample.main([*arguments, "--seed", seed]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] != printed[2]
    assert printed[0].count("Once upon") == 2 and printed[0].count("\n---\n") == 1
    assert sample.main([checkpoint, "--temperature", "0", "--max-new-tokens", "5"]) == 0


@pytest.mark.slow
def test_without_a_vocabulary_samples_are_ids(tiny: TrainConfig, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_here(replace(tiny, max_steps=1)) == 0
    capsys.readouterr()
    assert sample.main([str(Path(str(tiny.out_dir)) / "checkpoint_1.pt"), "--max_new_tokens", "8"]) == 0
    ids = [int(word) for word in capsys.readouterr().out.split()]
    assert len(ids) == 8 and all(0 <= i < tiny.vocab_size for i in ids)


@pytest.mark.parametrize("size", [1024, 50257])
def test_the_vocabulary_is_that_of_the_data_sets(size: int) -> None:
    from oelm_jobs.data import tokenizer

    merges = find_merges("absent/train.bin")
    assert merges is not None
    own, theirs = Vocabulary(merges, size), tokenizer.encoding(size)
    for text in ("Emma's father, 1815 — naïve\n\n  “Mr. Knightley”", "a<|endoftext|>b", "x_y 3.14 \t\r\n z"):
        ids = own.encode(text)
        assert ids == theirs.encode(text, allowed_special="all")
        assert own.decode(ids) == text


@pytest.mark.slow
def test_a_speed_trial_records_paired_ratios_of_all_arms_and_a_control(
    tiny: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    arms = ["--arm", "freeze:model_type=oelm,freeze_qk=true", "--arm", "base:model_type=gpt,freeze_qk=false"]
    assert speed_trial.main([*arms, "--rounds", "15", "--seconds", "0.02", *to_flags(tiny)]) == 0
    record = json.loads((Path(str(tiny.out_dir)) / "speed_trial.json").read_text())
    assert [(entry["group"], entry["against"]) for entry in record["comparisons"]] == [
        ("freeze", "base"),
        ("base", "freeze"),
    ]
    for entry in [*record["comparisons"], record["control"]]:
        assert len(entry["ratios"]) == record["rounds"] == 15
        low, high = entry["ci95"]
        assert 0 < low <= entry["median_ratio"] <= high
    pairs = zip(*(entry["ratios"] for entry in record["comparisons"]), strict=True)
    assert all(one * other == pytest.approx(1.0) for one, other in pairs)
    assert record["comparisons"][0]["flop_ratio"] > 1 > record["comparisons"][1]["flop_ratio"]
    assert record["control"]["group"] == "base"
    assert record["arms"]["freeze"]["config"]["freeze_qk"] is True
    assert "control base / base: " in capsys.readouterr().out
    assert not (Path(str(tiny.out_dir)) / "metrics.jsonl").exists()


def test_a_trial_takes_place_at_the_real_world_size(tiny: TrainConfig, trainers: Trainers) -> None:
    arms = ["--arm", "freeze:model_type=oelm,freeze_qk=true", "--arm", "trained:model_type=oelm,freeze_qk=false"]
    extra = [*arms, "--rounds", "15", "--seconds", "0.02"]
    ended = [Ended(process) for process in trainers.start(tiny, 2, module="train.speed_trial", extra=extra)]
    assert [process.code for process in ended] == [0, 0], ended[0].err
    record = read_json(Path(str(tiny.out_dir)) / "speed_trial.json")
    assert record["world_size"] == outcome(tiny)["world_size"] == 2 and outcome(tiny)["status"] == "completed"
    assert record["comparisons"][0]["flop_ratio"] > 1
    assert "control trained / trained: " in ended[0].out and ended[1].out == ""


@pytest.mark.slow
def test_what_nobody_foresaw_in_a_trial_of_several_processes_is_told(
    tiny: TrainConfig, tmp_path: Path, trainers: Trainers
) -> None:
    (tmp_path / "file").write_text("")
    config = replace(tiny, out_dir=str(tmp_path / "file" / "trial"))
    arms = ["--arm", "a:model_type=oelm,freeze_qk=true", "--arm", "b:freeze_qk=false"]
    extra = [*arms, "--rounds", "15", "--seconds", "0.02"]
    ended = [Ended(process) for process in trainers.start(config, 2, module="train.speed_trial", extra=extra)]
    assert ended[0].code == 1 and "NotADirectoryError" in ended[0].err


def test_a_trial_without_enough_memory_names_a_batch_size(
    tiny: TrainConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: Any) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(speed_trial, "run_trial", fail)
    arms = ["--arm", "a:model_type=oelm,freeze_qk=true", "--arm", "b:model_type=gpt,freeze_qk=false"]
    assert speed_trial.main([*arms, *to_flags(tiny)]) == 1
    assert "--batch_size 2 --gradient_accumulation_steps 2 should fit" in capsys.readouterr().err
    assert outcome(tiny)["status"] == "oom" and "out of memory at --batch_size 4" in outcome(tiny)["reason"]


def test_a_trial_with_too_few_arms_or_rounds_is_refused(tiny: TrainConfig, capsys: pytest.CaptureFixture[str]) -> None:
    assert speed_trial.main(["--arm", "a:seed=1", *to_flags(tiny)]) == 2
    assert "at least two arms" in capsys.readouterr().err
    assert speed_trial.main(["--rounds", "3", *to_flags(tiny)]) == 2
    assert "at least 15" in capsys.readouterr().err
    for wrong in (["a:x=1", "b:seed=2"], ["a:seed", "b:seed=2"], ["a:seed=1", "a:seed=2"]):
        with pytest.raises(ConfigError):
            read_arms(wrong, tiny)
    with pytest.raises(ConfigError, match="deterministic = false: must be the same for all arms"):
        read_arms(["a:deterministic=false", "b:"], tiny)
    assert read_arms(["a:d-model=64", "b:"], tiny)["b"] == tiny
    assert configuration.to_dict(read_arms(["a:d-model=64", "b:"], tiny)["a"])["d_model"] == 64


def test_ratios_are_of_speed_and_the_interval_is_that_of_order_statistics() -> None:
    found = compare([1.0] * 15, [2.0] * 15)
    assert found["median_ratio"] == 2.0 and found["ci95"] == [2.0, 2.0]
    # Tables of the sign test: the 4th and 12th of 15 values, the 6th and 16th of 21.
    assert median_interval([float(n) for n in range(1, 16)]) == (4.0, 12.0)
    assert median_interval([float(n) for n in range(1, 22)]) == (6.0, 16.0)
    assert median_interval([1.0, 2.0]) == (1.0, 2.0)


def test_generation_sees_no_more_than_the_model_can(tiny: TrainConfig) -> None:
    from train.model import Transformer

    model = Transformer(tiny).eval()
    start = torch.arange(40) % tiny.vocab_size
    source = torch.Generator().manual_seed(0)
    whole = sample.generate(model, start, 5, 0.0, 0, source)
    tail = sample.generate(model, start[-tiny.seq_len :], 5, 0.0, 0, source)
    assert whole.tolist() == tail.tolist()

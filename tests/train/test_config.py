"""The trainer's flags: what is accepted, what is refused, and in which words."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import FrozenInstanceError, replace

import pytest

from tests.train.support import ROOT, clean_environment
from train.config import (
    FIELDS,
    KINDS,
    ConfigError,
    TrainConfig,
    from_dict,
    from_flags,
    global_batch,
    keys_of_kind,
    scientific_hash,
    to_dict,
    to_flags,
)
from train.limits import validate


def test_the_defaults_are_the_reference_configuration() -> None:
    config = TrainConfig()
    assert (config.d_model, config.num_layers, config.num_heads, config.d_ff) == (512, 6, 8, 2048)
    assert (config.seq_len, config.vocab_size, config.dropout, config.batch_size) == (512, 50257, 0.1, 8)
    assert (config.max_lr, config.min_lr, config.warmup_steps, config.max_steps) == (3e-4, 3e-5, 2000, 100_000)
    assert (config.beta1, config.beta2, config.weight_decay, config.grad_clip) == (0.9, 0.95, 0.1, 1.0)
    assert (config.val_interval, config.val_batches, config.log_interval, config.save_interval) == (
        1000,
        100,
        100,
        5000,
    )
    assert (config.seed, config.keep_last, config.keep_every) == (42, 2, 25_000)


def test_flags_accept_dashes_underscores_and_equals_signs() -> None:
    config = from_flags(["--model-type", "oelm", "--freeze_qk", "true", "--max-steps=7", "--d_model", "64"])
    assert (config.model_type, config.freeze_qk, config.max_steps, config.d_model) == ("oelm", True, 7, 64)


@pytest.mark.parametrize(("text", "value"), [("", True), (" true", True), (" false", False), (" False", False)])
def test_booleans_are_true_false_or_the_bare_flag(text: str, value: bool) -> None:
    assert from_flags(f"--freeze_ffn{text}".split()).freeze_ffn is value


def test_bare_resume_means_auto_and_false_means_none() -> None:
    assert from_flags(["--resume"]).resume == "auto"
    assert from_flags(["--resume", "false"]).resume == "none"
    assert from_flags(["--resume", "x/checkpoint_5.pt"]).resume == "x/checkpoint_5.pt"


def test_a_home_folder_that_the_shell_left_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    config = from_flags(["--out_dir=~/runs/a", "--data-path=~/data/train.bin", "--wandb_run_name=~/a"])
    assert (config.out_dir, config.data_path, config.wandb_run_name) == (
        "/home/me/runs/a",
        "/home/me/data/train.bin",
        "~/a",
    )


def test_every_configuration_survives_the_command_line() -> None:
    config = replace(
        TrainConfig(), model_type="oelm", freeze_qk=True, max_lr=1e-3, out_dir="out dir/läuft", compile="false", seed=7
    )
    assert from_flags(to_flags(config)) == config
    assert from_dict(to_dict(config)) == config


def test_flags_of_some_keys_come_in_reading_order() -> None:
    keys = {"out_dir": "o", "max_steps": 5, "d_model": 64, "freeze_qk": True, "model_type": "oelm", "data-path": "d"}
    assert to_flags(keys) == (
        [
            "--model_type",
            "oelm",
            "--freeze_qk",
            "true",
            "--d_model",
            "64",
            "--max_steps",
            "5",
            "--data_path",
            "d",
            "--out_dir",
            "o",
        ]
    )


def test_an_unknown_flag_is_answered_with_the_nearest_spelling() -> None:
    with pytest.raises(ConfigError, match="--freeze_qk"):
        from_flags(["--freze-qk", "true"])
    with pytest.raises(ConfigError, match="--help lists all"):
        from_flags(["--xyzzy", "true"])


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (f"--d_model {10**30} --num_heads 7", "num_heads = 7: must divide d_model = 1000"),
        ("--num_heads 7", "num_heads = 7: must divide d_model = 512; choose one of 1, 2, 4"),
        ("--model_type bert", "model_type = bert: choose one of gpt, oelm"),
        ("--qk_init ortho --model_type oelm", "choose one of orthogonal_head, orthogonal, normal, normal_scaled"),
        ("--batch_size 0", "batch_size = 0: must be at least 1"),
        ("--dropout 1", "dropout = 1.0: must be at least 0 and below 1"),
        ("--min_lr 1", "min_lr = 1.0: must be at most max_lr"),
        ("--max_steps 2.5", "max_steps = 2.5: must be a whole number"),
        ("--max_lr fast", "max_lr = fast: must be a number"),
        ("--max_lr nan", "must be a number"),
        ("--freeze_qk maybe", "freeze_qk = maybe: choose one of true, false"),
        ("--freeze_qk true", "only model_type oelm freezes Q/K"),
        ("--qk_init normal_scaled", "qk_init needs model_type oelm"),
        ("--vocab_size 70000", "at most 65536"),
        ("--max_steps", "expected one argument"),
        ("stray", "unrecognized arguments: stray"),
    ],
)
def test_a_value_that_cannot_run_is_refused_with_key_value_and_choices(flags: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(from_flags(flags.split()))
    assert expected in str(caught.value)


def test_a_warm_up_longer_than_the_run_and_no_out_dir_are_warnings() -> None:
    found = validate(from_flags(["--max_steps", "100"]))
    assert len(found) == 2 and "warm-up" in found[0] and "out_dir" in found[1]
    assert validate(replace(TrainConfig(), out_dir="o")) == []


def test_the_laptop_check_of_the_notes_is_legal() -> None:
    flags = (
        "--model_type oelm --freeze_qk true --d_model 256 --num_layers 2 --num_heads 4 --max_steps 100 --batch_size 4 "
        "--data_path data/tiny_stories/train.bin"
    )
    assert all("out_dir" in warning or "warm-up" in warning for warning in validate(from_flags(flags.split())))


def test_every_key_has_a_kind_and_a_help_text() -> None:
    assert sorted(key for kind in KINDS for key in keys_of_kind(kind)) == sorted(FIELDS)
    assert all(len(field.metadata["help"]) > 5 for field in FIELDS.values())


def test_the_scientific_hash_hears_scientific_keys_and_the_global_batch_alone() -> None:
    config = TrainConfig()
    same = replace(config, batch_size=4, gradient_accumulation_steps=2, out_dir="elsewhere", log_interval=7)
    assert scientific_hash(config, 16) == scientific_hash(same, 16)
    assert scientific_hash(config, 16) != scientific_hash(config, 32)
    assert scientific_hash(config, 16) != scientific_hash(replace(config, dropout=0.2), 16)


def test_the_global_batch_counts_processes_and_accumulation() -> None:
    assert global_batch(replace(TrainConfig(), batch_size=4, gradient_accumulation_steps=2), 4) == 32


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        TrainConfig().seed = 1  # type: ignore[misc]  # which is the point


@pytest.mark.parametrize("arguments", [["--help"], ["--nonsense"]])
def test_help_and_errors_come_without_torch(arguments: list[str]) -> None:
    program = (
        "import sys, runpy\n"
        f"sys.argv = ['train'] + {arguments!r}\n"
        "try:\n    runpy.run_module('train', run_name='__main__')\n"
        "except SystemExit as end:\n    code = end.code\n"
        "print('torch' in sys.modules, 'numpy' in sys.modules, code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=clean_environment(), capture_output=True, text=True
    )
    expected = "False False 0" if arguments == ["--help"] else "False False 2"
    assert done.stdout.strip().endswith(expected), done.stdout + done.stderr
    assert "Traceback" not in done.stderr

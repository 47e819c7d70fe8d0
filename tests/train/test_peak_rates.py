"""MFU: what a card could do at most, by the name that CUDA gives it, and what a run makes of it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.train.support import metrics, outcome, train_here
from train import distributed
from train.config import TrainConfig
from train.flops import flops_per_token
from train.peak_rates import mfu, peak_flops


@pytest.mark.parametrize(
    ("name", "precision", "tflops"),
    [
        ("Tesla V100-SXM2-16GB", "fp16", 125),
        ("Tesla V100-SXM2-32GB", "fp32", 15.7),
        ("Tesla V100-PCIE-32GB", "fp16", 112),
        ("Tesla T4", "fp16", 65),
        ("NVIDIA A100-SXM4-40GB", "bf16", 312),
        ("A100-PCIE-40GB", "tf32", 156),
        ("NVIDIA A100 80GB PCIe", "bf16", 312),
        ("NVIDIA A10", "bf16", 125),
        ("NVIDIA A10G", "bf16", 70),
        ("NVIDIA L4", "bf16", 121),
        ("NVIDIA L40S", "bf16", 362),
        ("NVIDIA GeForce RTX 3090", "bf16", 71.2),
        ("NVIDIA GeForce RTX 4090", "bf16", 165.2),
        ("NVIDIA GeForce RTX 5090", "tf32", 104.8),
        ("NVIDIA RTX A6000", "bf16", 154.8),
        ("NVIDIA H100 80GB HBM3", "bf16", 989.4),
        ("NVIDIA H100 PCIe", "bf16", 756),
        ("NVIDIA H100 NVL", "bf16", 835.5),
        ("NVIDIA H200", "tf32", 494.7),
        ("NVIDIA B200", "bf16", 2250),
        ("NVIDIA GB200", "bf16", 2500),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "bf16", 503.8),
    ],
)
def test_todays_cards_are_known_by_the_names_that_cuda_gives_them(name: str, precision: str, tflops: float) -> None:
    assert peak_flops(name, precision) == pytest.approx(1e12 * tflops)


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("Tesla T4", "bf16"),
        ("Tesla V100-SXM2-16GB", "tf32"),
        ("NVIDIA A100-SXM4-40GB", "fp32"),
        ("NVIDIA A100-SXM4-40GB MIG 3g.20gb", "bf16"),
        ("GRID A100-10C", "bf16"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bf16"),
        ("NVIDIA GeForce RTX 4090 D", "bf16"),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "bf16"),
        ("AMD EPYC 9654", "fp32"),
        ("", "bf16"),
    ],
)
def test_what_no_data_sheet_says_has_no_rate_and_no_mfu(name: str, precision: str) -> None:
    assert peak_flops(name, precision) is None
    assert mfu(TrainConfig(), 1e6, 1, name, precision) is None


def test_mfu_is_the_part_of_all_cards_rates_that_a_step_needs() -> None:
    reference = TrainConfig()
    found = mfu(reference, 1e6, 2, "NVIDIA H100 80GB HBM3", "bf16")
    assert found == pytest.approx(1e6 * flops_per_token(reference) / (2 * 989.4e12)) == pytest.approx(0.1448, abs=1e-4)
    frozen = mfu(replace(reference, model_type="oelm", freeze_qk=True), 1e6, 2, "NVIDIA H100 80GB HBM3", "bf16")
    assert found is not None and frozen is not None and frozen < found, "it has less to do"
    late = replace(reference, model_type="oelm", freeze_qk=True, freeze_from_step=9)
    by_step = [mfu(late, 1e6, 2, "NVIDIA H100 80GB HBM3", "bf16", step) for step in (9, 10, None)]
    assert by_step == [found, frozen, frozen], "before the freeze a step has to do as much as a trained one's"


def test_a_run_on_a_known_card_tells_its_mfu_in_log_metrics_and_result(
    tiny: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_a_t4(*arguments: Any) -> dict[str, str]:
        return {"device": "cpu", "name": "Tesla T4", "host": "here"}

    monkeypatch.setattr(distributed, "describe_hardware", on_a_t4)
    assert train_here(replace(tiny, max_steps=8)) == 0
    for record in metrics(tiny).values():
        assert record["mfu"] == pytest.approx(record["tokens_per_s"] * flops_per_token(tiny) / 8.1e12)
    ended = outcome(tiny)
    assert ended["mfu"] == pytest.approx(ended["tokens_per_s"] * flops_per_token(tiny) / 8.1e12)
    log = (Path(str(tiny.out_dir)) / "training.log").read_text()
    assert re.search(r"^Step.*\n  Validation .*\n  Speed \| [\d,]+ tokens/s \| MFU: \d+\.\d %$", log, re.M)

"""Run directories and old result folders made up for tests: the forms of docs/run-directory.md with chosen numbers."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from oelm_jobs.analysis.reading import reference, run_directory
from oelm_jobs.analysis.reading.loaded_run import LoadedRun

from oelm_jobs.spec.study import Group, Hypothesis, Study

GROUPS = {name: factors for name, (_, factors) in reference.GROUPS.items()}
TOTAL, QK, EMBEDDING = 879_616, 131_072, 139_264
START = 1_700_000_000.0


def sha(word: str) -> str:
    return hashlib.sha256(word.encode()).hexdigest()


def study(
    *,
    seeds: tuple[int, ...] = (42,),
    hypotheses: tuple[Hypothesis, ...] = reference.HYPOTHESES,
    unequal: Mapping[str, str] | None = None,
    groups: Mapping[str, Mapping[str, Any]] = GROUPS,
    name: str = "demo",
) -> Study:
    return Study(
        name=name,
        path=Path(f"jobs/{name}.toml"),
        question="Does it keep perplexity?",
        is_default=False,
        factors=("model_type", "freeze_qk"),
        seeds=seeds,
        global_batch=16,
        settings={"d_model": 128},
        groups={
            key: Group(
                name=key,
                label=reference.GROUPS[key][0] if key in reference.GROUPS else key,
                factors=dict(factors),
                gpus=1,
                port=None,
            )
            for key, factors in groups.items()
        },
        unequal=unequal or {},
        hypotheses=hypotheses,
        max_retries=0,
    )


def record(folder: Path, name: str, content: object) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def make_run(
    root: Path,
    group: str,
    seed: int = 42,
    *,
    final_loss: float = 3.8,
    first_seed: int = 42,
    steps: int = 400,
    stop: int | None = None,
    val_interval: int = 100,
    speed: float = 40_000.0,
    status: str = "DONE",
    reason: str = "",
    world_size: int = 1,
    global_batch: int = 16,
    train: Mapping[str, Any] | None = None,
    hardware: Mapping[str, str] | None = None,
    study_name: str = "demo",
    treatment: bool = True,
    frozen: bool | None = None,
    tag: str = "",
) -> Path:
    """Write a run directory whose last validation has exactly ``final_loss``; ``stop`` leaves it unfinished at that
    step.
    """
    factors = GROUPS.get(group, {"model_type": "gpt"})
    is_frozen = factors.get("freeze_qk", False) if frozen is None else frozen
    name = (group if seed == first_seed else f"{group}-s{seed}") + (f"-{tag}" if tag else "")
    folder = root / f"exp_{name}"
    folder.mkdir(parents=True)
    chance = random.Random(f"{group} {seed}")
    config = {
        "d_model": 128,
        "num_layers": 4,
        "num_heads": 4,
        "d_ff": 512,
        "seq_len": 64,
        "vocab_size": 1024,
        "max_steps": steps,
        "max_lr": 2e-3,
        "min_lr": 2e-4,
        "warmup_steps": steps // 10,
        "val_interval": val_interval,
        "seed": seed,
        "batch_size": global_batch // world_size,
        "out_dir": "out",
        **factors,
        **(train or {}),
    }
    warmup, peak, low = config["warmup_steps"], config["max_lr"], config["min_lr"]
    lines, end, time = [], stop or steps, START
    val_loss = math.nan
    for step in range(20, end + 1, 20):
        time += 20 * global_batch * 64 / speed
        left = math.exp(-step / (steps / 6)) - math.exp(-6)
        done = (step - warmup) / (steps - warmup)
        rate = peak * step / warmup if step < warmup else low + (peak - low) * 0.5 * (1 + math.cos(math.pi * done))
        line: dict[str, Any] = {
            "step": step,
            "tokens": step * global_batch * 64,
            "time": time,
            "loss": final_loss - 0.1 + 3 * left + chance.gauss(0, 0.03),
            "lr": rate,
            "grad_norm": 0.8,
            "tokens_per_s": speed * chance.uniform(0.99, 1.01),
        }
        if step % val_interval == 0 or step == steps:
            val_loss = final_loss + 3 * left
            line |= {"val_loss": val_loss, "val_tokens": 80_000, "val_full": step == steps}
        lines.append(json.dumps(line))
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    counts = {
        "total": TOTAL,
        "trainable": TOTAL - QK * is_frozen,
        "frozen": QK * is_frozen,
        "qk": QK,
        "embedding": EMBEDDING,
    }
    if treatment:
        tensors = {
            "qk": {
                "requires_grad": not is_frozen,
                "in_optimizer": not is_frozen,
                "sha256_start": sha(f"qk {seed}"),
                "sha256_end": sha(f"qk {seed}") if is_frozen else sha(f"qk {name}"),
            },
            "other": {
                "requires_grad": True,
                "in_optimizer": True,
                "sha256_start": sha(f"other {seed}"),
                "sha256_end": sha(name),
            },
        }
        layers = [{"name": "tokens", "total": EMBEDDING, "trainable": EMBEDDING}]
        rest = TOTAL - QK - EMBEDDING
        for i in range(4):
            layers.append({"name": f"blocks.{i}.attn.qk", "total": QK // 4, "trainable": 0 if is_frozen else QK // 4})
            layers.append({"name": f"blocks.{i}.ffn.up", "total": rest // 4, "trainable": rest // 4})
        record(
            folder,
            "treatment.json",
            {
                "version": 1,
                "model_type": factors["model_type"],
                "freeze_qk": factors.get("freeze_qk", False),
                "freeze_ffn": False,
                "qk_init": "orthogonal_head",
                "parameters": counts,
                "groups": tensors,
                "qk_orthogonality_error": 2.4e-7,
                "layers": layers,
            },
        )
    planned = {
        "version": 1,
        "study": study_name,
        "run": name,
        "group": group,
        "label": "",
        "seed": seed,
        "tag": tag,
        "factors": factors,
        "train": config,
        "world_size": world_size,
        "global_batch": global_batch,
        "fingerprint": sha(f"fingerprint {name}"),
        "revision": "abc1234",
        "snapshot": "0123456789abcdef",
        "train_code": "fedcba9876543210",
        "target": "local",
    }
    record(folder, ".oelm/run.json", planned)
    record(
        folder,
        "heartbeat.json",
        {"step": end, "max_steps": steps, "loss": 3.8, "tokens_per_s": speed, "time": time, "attempt": "t:1"},
    )
    if stop:
        return folder
    outcome = {
        "version": 1,
        "attempt": "t:1",
        "status": "completed" if status == "DONE" else reason or "error",
        "reason": reason,
        "step": end,
        "max_steps": steps,
        "final": {"step": end, "val_loss": val_loss, "val_tokens": 80_000, "val_full": True, "loss": 3.7},
        "best": {"step": end, "val_loss": val_loss},
        "parameters": counts,
        "tokens_per_s": speed,
        "peak_gpu_mem_gb": 3.1,
        "world_size": world_size,
        "global_batch": global_batch,
        "data": {"train_sha256": sha("train"), "val_sha256": sha("val")},
        "hardware": {"device": "cuda", "name": "RTX A5000", "host": "box", **(hardware or {})},
        "versions": {"python": "3.11.7", "torch": "2.13.0", "numpy": "2.4.6", "revision": "abc1234"},
        "precision": "fp32",
        "config": config,
    }
    wall = time - START
    record(
        folder,
        "experiment_result.json",
        {
            **planned,
            "status": status,
            "reason": reason,
            "started_at": START,
            "ended_at": time,
            "elapsed_hours": wall / 3600,
            "gpu_hours": wall / 3600 * world_size,
            "outcome": outcome,
            "attempts": [
                {
                    "number": 1,
                    "state": status,
                    "reason": reason,
                    "started_at": START,
                    "ended_at": time,
                    "wall_s": wall,
                    "devices": [f"cuda:{i}" for i in range(world_size)],
                }
            ],
        },
    )
    return folder


def make_arms(root: Path, losses: Mapping[str, list[float]], **options: Any) -> list[LoadedRun]:
    """Write and load runs: per group the final losses of seeds 42, 43 and so on."""
    return [
        load(make_run(root, group, 42 + i, final_loss=loss, **options))
        for group, values in losses.items()
        for i, loss in enumerate(values)
    ]


def load(folder: Path, now: float = START) -> LoadedRun:
    return run_directory.load(folder, now=now, groups=tuple(GROUPS), first_seed=42)


def old_log(
    *,
    steps: int = 10_000,
    val_interval: int = 1_000,
    schedule_end: int | None = None,
    min_lr: float = 3e-5,
    max_lr: float = 3e-4,
    warmup: int = 500,
    final_loss: float = 1.5,
    frozen: int = 3_145_728,
    total: int = 44_896_768,
    header: str = "",
    dialect: str = "plain",
    with_lr: bool = True,
    seed: int = 0,
) -> str:
    """Return a log as users have it; dialects: ``plain``, ``bracket``, ``equals``, ``bars``."""
    chance = random.Random(seed)
    out = [header] if header else []
    out += [
        f"Total parameters: {total:,}",
        f"Trainable parameters: {total - frozen:,} ({100 * (total - frozen) / total:.1f}%)",
        f"Frozen parameters: {frozen:,} ({100 * frozen / total:.1f}%)",
    ]
    end = schedule_end or steps
    for step in range(100, steps + 1, 100):
        loss = final_loss + 8 * math.exp(-step / 600) + chance.gauss(0, 0.02)
        done = min(1.0, (step - warmup) / (end - warmup))
        rate = (
            max_lr * step / warmup
            if step < warmup
            else min_lr + (max_lr - min_lr) * 0.5 * (1 + math.cos(math.pi * done))
        )
        tail = f" | LR: {rate:.2e}" if with_lr else ""
        line = f"Step {step:6d} | Loss: {loss:.4f} | PPL: {min(math.exp(loss), 22026.47):.2f}{tail}"
        if dialect == "equals":
            line = f"Step {step} | loss={loss:.4f} | ppl={min(math.exp(loss), 22026.47):.1f}"
        if dialect == "bars":
            done_percent = 100 * step // steps
            bar = f"\rTraining: {done_percent:3d}%|███▌ | {step}/{steps} [00:10<10:00, 5.5it/s, loss=0.031, ppl=1.03]"
            line = bar + bar + "\r" + " " * 40 + "\r" + line
        out.append(line)
        if step % val_interval == 0:
            val = final_loss + 8 * math.exp(-step / 600)
            ppl = math.exp(val)
            out.append(
                {
                    "bracket": f"[Step {step}] Validation - Loss: {val:.4f}, PPL: {ppl:.2f}",
                    "equals": f"Eval step {step} | loss={val:.4f} | ppl={ppl:.2f}",
                }.get(dialect, f"  Validation | Loss: {val:.4f} | PPL: {ppl:.2f}")
            )
    return "\n".join(out) + "\n"


SCORES = {"val_loss": "minimize", "accuracy": "maximize"}
"""What the made-up script tells and is judged by, the main metric first."""


def script_study(*hypotheses: Hypothesis, seeds: tuple[int, ...] = (1, 2, 3), name: str = "rates") -> Study:
    """Return a study of a script of two learning rates."""
    arms = {"low": {"lr": 3e-4}, "high": {"lr": 1e-3}}
    return replace(
        study(seeds=seeds, hypotheses=hypotheses, name=name),
        question="Which learning rate does it want?",
        factors=("lr",),
        groups={
            key: Group(name=key, label=f"{key.capitalize()} rate", factors=factors, gpus=1, port=None)
            for key, factors in arms.items()
        },
    )


def make_script_run(
    root: Path,
    group: str,
    seed: int,
    loss: float,
    accuracy: float,
    *,
    steps: int = 2000,
    interval: int = 100,
    status: str = "DONE",
    inexact: bool = False,
    goal: Mapping[str, str] = SCORES,
    device: str = "gpu:0",
) -> Path:
    """Write the run directory of a script whose last validation is as given."""
    name = group if seed == 1 else f"{group}-s{seed}"
    folder = root / f"exp_{name}"
    folder.mkdir(parents=True)
    chance = random.Random(f"{group} {seed}")
    rows = ["step,train_loss,val_loss,accuracy"]
    for step in range(10, steps + 1, 10):
        left = math.exp(-step / (steps / 5)) - math.exp(-5)
        train = f"{loss - 0.1 + 2 * left + chance.gauss(0, 0.05):.5f}"
        is_validation = step % interval == 0 or step == steps
        noise = chance.gauss(0, 0.004) if step != steps else 0.0
        told = f"{loss + 2 * left + noise:.5f},{accuracy - 0.6 * left + noise:.5f}" if is_validation else ","
        rows.append(f"{step},{train},{told}")
    (folder / "metrics.csv").write_text("\n".join(rows) + "\n")
    planned = {
        "version": 1, "study": "rates", "run": name, "group": group, "label": "", "seed": seed, "tag": "",
        "factors": {"lr": 3e-4 if group == "low" else 1e-3}, "world_size": 1, "global_batch": 0, "target": "local",
        "fingerprint": sha(f"fingerprint {name}"), "revision": "abc1234",
        "program": {
            "stages": [{"name": "", "words": ["python", "train.py"]}], "length": "max_iters", "max_steps": steps,
            "settings": {"lr": 3e-4 if group == "low" else 1e-3, "max_iters": steps},
            "metrics": {"lines": ["step {step}: loss {train_loss}"], "files": ["metrics.csv"], "goal": dict(goal)},
        },
    }  # fmt: skip
    record(folder, ".oelm/run.json", planned)
    attempt = {"number": 1, "state": status, "reason": "", "started_at": START, "ended_at": START + 60, "wall_s": 60.0,
               "devices": [device]}  # fmt: skip
    again = {**attempt, "number": 2, "resumed_from": "ckpt.pt", "inexact_resume": True}
    if status == "RUNNING":
        record(folder, ".oelm/start.json", {"number": 1, "started_at": START})
        record(folder, "heartbeat.json", {"step": steps, "time": START, "metrics": {}})
        return folder
    result = {**planned, "status": status, "reason": "", "started_at": START, "ended_at": START + 60,
              "elapsed_hours": 1 / 60, "gpu_hours": 1 / 60, "attempts": [attempt, *([again] if inexact else [])],
              "outcome": {}}  # fmt: skip
    record(folder, "experiment_result.json", result)
    return folder


def script_runs(root: Path, **options: Any) -> list[LoadedRun]:
    """Write and load three seeds of both groups; the higher rate is better by 0.05 nats and 2 points."""
    ends = {"low": [(1.52, 0.61), (1.55, 0.60), (1.50, 0.615)], "high": [(1.47, 0.63), (1.495, 0.622), (1.455, 0.634)]}
    paths = [
        make_script_run(root, group, seed, *values, **options)
        for group, arm in ends.items()
        for seed, values in enumerate(arm, start=1)
    ]
    return [run_directory.load(path, now=START, groups=tuple(ends), first_seed=1) for path in paths]

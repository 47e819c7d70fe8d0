"""Whether the trainer is right on a GPU: the same bits again and resumed, in all precisions; memory; no waits."""

from __future__ import annotations

import json
import math
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.place import Ended, Job, Place, Row
from train.config import TrainConfig, to_flags
from train.estimate import training_bytes

SECTION = "right"
STEPS = 40
HALF = STEPS // 2
OLDER = "benchmarks.gpu.older"
"""The trainer on a card that says it is older than it is: without bf16."""


@dataclass(frozen=True)
class Variant:
    """A way to compute: by its flags."""

    name: str
    """Of its folders."""
    config: TrainConfig
    module: str = "train"
    processes: int = 1
    local_ranks: tuple[int, ...] = (0,)


def variants(place: Place) -> list[Variant]:
    """Return the ways to compute that are checked here."""
    small = replace(
        place.small, max_steps=STEPS, save_interval=HALF, val_interval=HALF, log_interval=HALF // 2, keep_last=0
    )
    eager, compiled = replace(small, compile="false"), replace(small, compile="true")
    found = [Variant("eager", eager)]
    if place.device == "cuda":
        found += [Variant("compiled", compiled), Variant("full", replace(eager, use_amp=False))]
        if torch.cuda.get_device_capability()[0] >= 8:
            found.append(Variant("older", eager, OLDER))
    # With one card, both processes have it, which most versions of NCCL refuse.
    ranks = (0, 1) if place.gpus != 1 else (0, 0)
    half = replace(eager, batch_size=small.batch_size // 2)
    return [*found, Variant("two", half, processes=2, local_ranks=ranks)]


def check(place: Place) -> Iterator[Row]:
    """Run each variant from the start, once more, and from half of its way; compare."""
    found = variants(place)
    first = _run_all(place, found, "a")
    again = _run_all(place, [v for v in found if _whole(first[v.name])], "b", "c")
    for variant in found:
        yield from _compared(place, variant, first[variant.name], again)
    yield from _precisions(place, found)
    yield from _frozen(place)


def check_memory(place: Place) -> Iterator[Row]:
    """Compare the estimate of memory with what the allocator gave out."""
    what = "memory of the reference configuration"
    if place.device != "cuda":
        yield Row(SECTION, what, "needs a GPU")
        return
    sizes = (place.reference.batch_size, 4 * place.reference.batch_size)
    configs = {
        f"batch {size}": replace(
            place.reference, batch_size=size, max_steps=3, compile="false", val_interval=3, val_batches=1,
            out_dir=str(place.folder / f"memory-{size}"),
        )
        for size in sizes
    }  # fmt: skip
    ended = place.run([Job(name, ["-m", "train", *to_flags(c)]) for name, c in configs.items()], limit_s=60)
    for name, config in configs.items():
        if ended[name].code:
            yield Row(SECTION, f"{what}, {name}", ended[name].complaint, False)
            continue
        took, estimated = float(_outcome(config)["peak_gpu_mem_gb"]), training_bytes(config) / 1e9
        says = f"estimated {estimated:.2f} GB, took {took:.2f} GB: {estimated / took:.2f} x"
        yield Row(SECTION, f"{what}, {name}", says, 0.85 <= estimated / took <= 1.5)


def check_steady(place: Place) -> Iterator[Row]:
    """Make steps that may not wait for the GPU."""
    modules = {"mixed precision": "benchmarks.gpu.steady"}
    if place.device == "cuda" and torch.cuda.get_device_capability()[0] >= 8:
        modules["fp16"] = OLDER
    config = replace(place.small, gradient_accumulation_steps=2, compile="false")
    jobs = [Job(name, ["-m", module, *to_flags(config)], {"OELM_STEADY": "1"}) for name, module in modules.items()]
    for name, ended in place.run(jobs, limit_s=60).items():
        what = f"a steady step waits for nothing, {name}"
        if ended.code:
            yield Row(SECTION, what, ended.complaint, False)
        else:
            yield Row(SECTION, what, ended.line("Steps in "), True if place.device == "cuda" else None)


def _run_all(place: Place, found: list[Variant], *kinds: str) -> dict[str, list[Ended]]:
    """Run variants of each kind (a: from the start, b: the same again, c: from a's half), all at the same time.

    Compiled again means really again: with caches of its own.
    """
    jobs: list[Job] = []
    for variant in found:
        for kind in kinds:
            config = replace(variant.config, out_dir=str(_folder(place, variant, kind)))
            if kind == "c":
                config = replace(config, resume=str(_folder(place, variant, "a") / f"checkpoint_{HALF}.pt"))
            port = free_port()
            for rank, local_rank in enumerate(variant.local_ranks):
                ranks = {"RANK": rank, "LOCAL_RANK": local_rank, "WORLD_SIZE": variant.processes, "MASTER_PORT": port}
                env = {key: str(value) for key, value in ranks.items()} if variant.processes > 1 else {}
                if kind == "b":
                    env["TORCHINDUCTOR_CACHE_DIR"] = str(place.folder / "compiled again")
                words = ["-m", variant.module, *to_flags(config)]
                jobs.append(Job(f"{variant.name} {kind} {rank}", words, {**env, "MASTER_ADDR": "127.0.0.1"}))
    ended = place.run(jobs, limit_s=120)
    return {f"{v.name}": [ended[job.name] for job in jobs if job.name.startswith(f"{v.name} ")] for v in found}


def _whole(ended: list[Ended]) -> bool:
    return all(process.code == 0 for process in ended)


def _compared(place: Place, variant: Variant, first: list[Ended], again: dict[str, list[Ended]]) -> Iterator[Row]:
    """Yield what the runs of a variant show."""
    title = {"two": "two processes", "compiled": "compiled"}.get(variant.name, "eager")
    if not _whole(first):
        why = next(process.complaint for process in first if process.code)
        refused = variant.name == "two" and place.gpus == 1 and any("uplicate GPU" in each.text for each in first)
        says = "NCCL refuses two processes on one card" if refused else why
        yield Row(SECTION, title if variant.name != "older" else "fp16", says, None if refused else False)
        return
    ended = _outcome(replace(variant.config, out_dir=str(_folder(place, variant, "a"))))
    title = f"{ended['precision']}, {title}"
    if place.device == "cuda" and not ended["deterministic"]:
        yield Row(SECTION, title, "steps don't repeat: a kernel has no deterministic form", False)
        return
    if variant.name == "compiled" and not ended.get("compiled", True):
        yield Row(SECTION, title, "was not compiled", False)
        return
    if not _whole(again[variant.name]):
        yield Row(SECTION, title, next(each.complaint for each in again[variant.name] if each.code), False)
        return
    for kind, words in (("b", "the same run again"), ("c", f"resumed from step {HALF}")):
        differs = difference(
            _folder(place, variant, "a") / f"checkpoint_{STEPS}.pt",
            _folder(place, variant, kind) / f"checkpoint_{STEPS}.pt",
        )
        yield Row(SECTION, f"{title}: {words}", differs or f"the same bits after {STEPS} steps", not differs)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def difference(path: Path, other: Path) -> str:
    """Return where two checkpoints' weights, optimizer or loss scaling differ, empty where they don't."""
    a, b = (torch.load(each, map_location="cpu", weights_only=True) for each in (path, other))
    for part in ("model", "optimizer", "scaler"):
        for (name, one), (_, two) in zip(_tensors(a[part], part), _tensors(b[part], part), strict=True):
            if not torch.equal(one, two):
                return f"{name} differs by {float((one.double() - two.double()).abs().max()):.1e}"
    return ""


def _tensors(value: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield all tensors and numbers inside of a value, with where they stand."""
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, (bool, int, float)):
        yield name, torch.tensor(float(value), dtype=torch.float64)
    elif isinstance(value, (dict, list, tuple)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _tensors(item, f"{name}.{key}")


def _precisions(place: Place, found: list[Variant]) -> Iterator[Row]:
    """Compare the losses of all precisions with that of the fullest: the same training, rounded otherwise."""
    losses = {}
    for variant in found:
        config = replace(variant.config, out_dir=str(_folder(place, variant, "a")))
        if variant.processes == 1 and (_folder(place, variant, "a") / ".oelm" / "outcome.json").exists():
            ended = _outcome(config)
            if ended["status"] == "completed":
                losses[variant.name] = (ended["precision"], float(ended["final"]["val_loss"]))
    against = losses.get("full") or losses.get("eager")
    if against is None:
        return
    guess = math.log(place.small.vocab_size)
    for name, (precision, loss) in losses.items():
        what = f"{precision}{', compiled' if name == 'compiled' else ''}: validation loss after {STEPS} steps"
        says = f"{loss:.4f}, in {against[0]} {against[1]:.4f}, guessing {guess:.2f}"
        most = 0.2 if precision == "fp16" else 0.05  # its scaler may leave out a step until it has found its scale
        yield Row(SECTION, what, says, abs(loss - against[1]) < most and loss < guess)


def _frozen(place: Place) -> Iterator[Row]:
    """See that frozen weights are those that were drawn."""
    path = place.folder / "eager-a" / "treatment.json"
    if not path.exists():
        return
    frozen = json.loads(path.read_text())["groups"]["qk"]
    same = frozen["sha256_start"] == frozen.get("sha256_end") and not frozen["requires_grad"]
    yield Row(SECTION, "frozen Q/K after training", "those that were drawn" if same else "have moved", same)


def _folder(place: Place, variant: Variant, kind: str) -> Path:
    return place.folder / f"{variant.name}-{kind}"


def _outcome(config: TrainConfig) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(str(config.out_dir)) / ".oelm" / "outcome.json").read_text())
    return found

"""How fast the trainer is on a GPU: beside nanoGPT, without determinism, the head alone, frozen beside trained Q/K."""

from __future__ import annotations

import json
import statistics
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from benchmarks.gpu.head import OWN_HEADS
from benchmarks.gpu.place import Job, Place, Row
from benchmarks.train_step import OURS, THEIRS, Side, measure, our_side, precision, their_side, write_data
from train.config import global_batch, to_flags
from train.environment import describe_hardware
from train.peak_rates import mfu
from train.speed_trial import median_interval

SECTION = "fast"
FASTEST = "with --deterministic false"
STEPS_PER_LINE = 10
FARTHEST = {"fp32": 1e-5, "bf16": 1e-2, "fp16": 1e-3}
"""By how much the gradients of this trainer's head may be off: three times the rounding of the precision."""
TURNS = 9
ROUNDS = 15
"""Of the speed trial: its fewest."""


def sides(place: Place) -> list[Side]:
    """Return the programs that are compared: the trainer as it is, with the fastest kernels, and nanoGPT."""
    bench = place.folder / "bench"
    config = replace(place.reference, compile="true" if place.device == "cuda" else "false")
    fastest, every = replace(config, deterministic="false"), STEPS_PER_LINE if place.device == "cuda" else 1
    found = [our_side(config, bench, place.env, OURS, every), our_side(fastest, bench, place.env, FASTEST, every)]
    if place.nanogpt is not None:
        found.append(their_side(config, bench, place.nanogpt, place.env, place.device, every))
    return found


def check_steps(place: Place) -> Iterator[Row]:
    """Measure the steps of all sides in turn."""
    write_data(place.folder / "bench" / "data" / "bench", place.reference.vocab_size)
    compared = sides(place)
    why_not = _try_beforehand(place, compared)
    for name, why in why_not.items():
        yield Row(SECTION, f"{name}: a step", why, False)
    if why_not.keys() - {THEIRS}:
        return
    compared = [side for side in compared if side.name not in why_not]
    in_time = threading.Timer(place.left_s, _end_all, (compared,))
    in_time.start()
    try:
        measure(compared, TURNS, place.seconds)
    except SystemExit as error:
        says = "not measured: the time was up" if not place.left_s else str(error).strip().splitlines()[-1][:200]
        yield Row(SECTION, "steps of the reference configuration", says, None if not place.left_s else False)
        return
    finally:
        in_time.cancel()
        _end_all(compared)
    device = torch.device(place.device)
    tokens = global_batch(place.reference, 1) * place.reference.seq_len
    for side in compared:
        wall, cpu = statistics.median(side.wall_s), statistics.median(side.cpu_s)
        used = mfu(place.reference, tokens / wall, 1, describe_hardware(device)["name"], precision(place.device))
        share = f", MFU {100 * used:.1f} %" if used else ""
        what = f"{side.name}: a step of {tokens:,} tokens, {precision(place.device)}"
        yield Row(
            SECTION, what, f"{1e3 * wall:.2f} ms, {tokens / wall:,.0f} tokens/s{share}; processor {1e3 * cpu:.2f} ms"
        )
    ours, fastest, *theirs = compared
    yield Row(SECTION, "cost of determinism: time of a step", f"{_ratio(ours, fastest)} that of the fastest kernels")
    if theirs:
        yield Row(SECTION, "steps per second", f"{_ratio(theirs[0], ours)} nanoGPT's")
    elif place.nanogpt is None:
        yield Row(SECTION, "steps per second beside nanoGPT's", "not measured: no checkout was given (--against DIR)")


def check_head(place: Place) -> Iterator[Row]:
    """Measure the output head alone."""
    reference = place.reference
    sizes = (global_batch(reference, 1) * reference.seq_len, reference.d_model, reference.vocab_size)
    (ended,) = place.run([Job("head", ["-m", "benchmarks.gpu.head", *map(str, sizes)])], limit_s=90).values()
    if ended.code:
        yield Row(SECTION, "the output head alone", ended.complaint, False)
        return
    for name, kinds in json.loads(ended.line("{")).items():
        for kind, entry in kinds.items():
            memory = f", {entry['gb']:.2f} GB" if "gb" in entry else ""
            x, weight = entry["error"]
            says = f"{1e3 * entry['s']:.3f} ms{memory}; gradients off by {100 * x:.2g} % and {100 * weight:.2g} %"
            ok = max(x, weight) < FARTHEST[name] if kind in OWN_HEADS else None
            yield Row(SECTION, f"head, {name}, {kind}", says, ok)


def check_freezing(place: Place) -> Iterator[Row]:
    """Let frozen and trained Q/K race, with an A/A control."""
    folder = place.folder / "trial"
    config = replace(
        place.reference,
        compile="true" if place.device == "cuda" else "false",
        data_path=str(place.folder / "bench" / "data" / "bench" / "train.bin"),
        out_dir=str(folder),
    )
    arms = [f"{name}:model_type=oelm,freeze_qk={value}" for name, value in (("frozen", "true"), ("trained", "false"))]
    words = ["-m", "train.speed_trial", *(word for arm in arms for word in ("--arm", arm))]
    words += ["--rounds", str(ROUNDS), "--seconds", str(place.seconds / 2), *to_flags(config)]
    (ended,) = place.run([Job("trial", words)], limit_s=place.left_s).values()
    if ended.code:
        yield Row(SECTION, "frozen beside trained Q/K", ended.complaint, None if not place.left_s else False)
        return
    record: dict[str, Any] = json.loads((folder / "speed_trial.json").read_text())
    frozen, control = record["comparisons"][0], record["control"]
    says = f"{_interval(frozen)} the speed; by counted FLOPs {frozen['flop_ratio']:.4f}"
    yield Row(SECTION, "frozen beside trained Q/K", says)
    yield Row(SECTION, "trained beside itself (control)", f"{_interval(control)} the speed")


def _end_all(compared: Sequence[Side]) -> None:
    for side in compared:
        side.end()


def _try_beforehand(place: Place, compared: Sequence[Side]) -> dict[str, str]:
    """Run all sides at once for a few steps, so that each finds its kernels compiled when it is measured; return why
    some can't be measured, by name.
    """
    jobs = []
    for side in compared:
        words = list(side.command[1:])
        if side.name == THEIRS:
            words += ["--max_iters=2"]
        else:
            words += ["--max_steps", "3", "--out_dir", str(place.folder / "beforehand" / side.name.replace(" ", "_"))]
        jobs.append(Job(side.name, words, side.env, side.folder))
    ended = place.run(jobs, limit_s=120)
    return {name: each.complaint for name, each in ended.items() if each.code}


def _ratio(slow: Side, fast: Side) -> str:
    """Return how many times as long a side's steps take as another's, with the 95 % interval of the median."""
    ratios = [a / b for a, b in zip(slow.wall_s, fast.wall_s, strict=True)]
    low, high = median_interval(ratios)
    return f"{statistics.median(ratios):.3f} x ({low:.3f} … {high:.3f})"


def _interval(entry: dict[str, Any]) -> str:
    low, high = entry["ci95"]
    return f"{entry['median_ratio']:.4f} x ({low:.4f} … {high:.4f})"

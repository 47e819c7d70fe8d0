"""``python -m train.speed_trial``: measure how fast arms train, side by side on the same devices.

The report judges the measurements (``speed_trial.json``). Arms take short turns in random order, so whatever else slows
the machine slows all of them; an arm measured against its own twin (A/A) shows how far the trial can be trusted.
Validation, checkpoints and compilation are not measured.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import random
import re
import statistics
import sys
import time
import traceback
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Dict, Iterator, List, Sequence, Tuple

import torch
from torch import Tensor

from . import config as configuration
from . import order_statistics
from .compiling import wants_compile
from .config import ConfigError, TrainConfig
from .data import TrainingBatches, open_tokens
from .distributed import World, join
from .environment import describe_versions
from .errors import TrainError, is_out_of_memory
from .flops import flops_per_token
from .limits import validate
from .memory import advice, keep_freed_memory
from .model import Transformer
from .optimizer import Precision, build_optimizer
from .peak_rates import mfu
from .records import complain, write_json, write_outcome
from .sentences import _
from .stepping import Stepper

MIN_ROUNDS = 15
WARMUP_STEPS = 5
TURN_S = 0.05
"""Time of a turn: short against what disturbs a machine, long against what starting a turn costs."""
FILE_NAME = "speed_trial.json"


@dataclass(frozen=True)
class Arm:
    """One arm of the trial: its name and configuration, with everything that makes its steps."""

    name: str
    """The group's name; the control's is that of its twin with ``(again)``."""
    stepper: Stepper
    """Makes its steps."""
    batches: Iterator[List[Tensor]]
    """Its data, the same for all arms."""


def read_arms(specifications: Sequence[str], common: TrainConfig) -> Dict[str, TrainConfig]:
    """Return configurations by arm from texts like ``oelm_freeze:model_type=oelm,freeze_qk=true,freeze_layers=0,2``.

    Raises:
        ConfigError: fewer than two arms, a name twice, an unknown key, or a value that can't be.
    """
    arms: Dict[str, TrainConfig] = {}
    for specification in specifications:
        name, _colon, settings = specification.partition(":")
        pairs = [item.partition("=") for item in re.split(r",(?=[\w-]+=)", settings) if item]
        if not name or name in arms or any(not equals for _key, equals, _value in pairs):
            raise ConfigError("arm", specification, _("write NAME:key=value,key=value, each name once"))
        values = dict(configuration.to_dict(common), **{key.replace("-", "_"): value for key, _equals, value in pairs})
        arms[name] = configuration.from_dict(values)
        validate(arms[name])
        if arms[name].deterministic != common.deterministic:
            together = _("must be the same for all arms: it holds for a whole process")
            raise ConfigError("deterministic", arms[name].deterministic, together)
    if len(arms) < 2:
        raise ConfigError("arm", len(arms), _("a trial needs at least two arms"))
    return arms


def build_arm(name: str, config: TrainConfig, world: World) -> Arm:
    """Build an arm's model, optimizer and data. Collective.

    An arm that freezes after some steps is timed as it is from then on: before, it is like one that trains.
    """
    config = replace(config, freeze_from_step=0)
    model = Transformer(config).to(world.device)
    optimizer, precision = build_optimizer(model, config), Precision(config, world.device)
    compiled = wants_compile(config, world.device.type)
    stepper = Stepper(config, world, model.train(), optimizer, precision, compiled)
    if stepper.why_eager and world.is_main:
        print(f"{name}: not compiled, so slower: {stepper.why_eager}")
    file = open_tokens(config.data_path, config.seq_len)
    return Arm(name, stepper, TrainingBatches(file, config, world).steps(1, 1 << 40))


def time_steps(arm: Arm, count: int, first: int, world: World) -> float:
    """Make ``count`` steps; return the seconds of the slowest process. Collective."""
    world.meet()
    _synchronize(world.device)
    start = time.perf_counter()
    for step in range(first, first + count):
        arm.stepper.step(step, next(arm.batches))
    _synchronize(world.device)
    return world.largest(time.perf_counter() - start)


def run_trial(
    arms: Sequence[Arm], rounds: int, seconds: float, seed: int, world: World
) -> Tuple[Dict[str, List[float]], int]:
    """Return seconds per step by arm, one per round, and the steps of a round. Collective.

    All arms make the same number of steps a round, enough for the fastest to take about ``seconds``, a few at a time.
    """
    for arm in arms:
        time_steps(arm, WARMUP_STEPS, 1, world)
    fastest = min(time_steps(arm, 2, 1 + WARMUP_STEPS, world) / 2 for arm in arms)
    turn = math.ceil(TURN_S / fastest)
    turns = math.ceil(seconds / (turn * fastest))
    order, first = list(arms), 3 + WARMUP_STEPS
    shuffler = random.Random(seed)  # the same on all processes
    found: Dict[str, List[float]] = {arm.name: [] for arm in arms}
    for _round in range(rounds):
        taken = dict.fromkeys(found, 0.0)
        for _turn in range(turns):
            shuffler.shuffle(order)
            for arm in order:
                taken[arm.name] += time_steps(arm, turn, first, world)
            first += turn
        for name, whole in taken.items():
            found[name].append(whole / (turn * turns))
    return found, turn * turns


def compare(a: Sequence[float], b: Sequence[float]) -> Dict[str, Any]:
    """Return how much faster ``a`` is than ``b``: the paired ratios of speed, their median and its 95 % interval.

    The interval is that of order statistics, which assumes nothing about the noise.
    """
    ratios = [theirs / mine for mine, theirs in zip(a, b)]
    return {"median_ratio": statistics.median(ratios), "ci95": [*median_interval(ratios)], "ratios": ratios}


def median_interval(values: Sequence[float]) -> Tuple[float, float]:
    """Return the narrowest symmetric pair of order statistics that covers the median with 95 % confidence, the extremes
    where none does.
    """
    ordered = sorted(values)
    found = order_statistics.bounds(ordered, 0.025, partial(order_statistics.sign_tail, len(ordered)))
    return found or (ordered[0], ordered[-1])


def trial_record(
    configs: Dict[str, TrainConfig], control: str, found: Dict[str, List[float]], count: int, world: World
) -> Dict[str, Any]:
    """Return the content of speed_trial.json: all ordered pairs of arms, and the control."""
    flops = {name: flops_per_token(config) for name, config in configs.items()}
    tokens = {name: configuration.global_batch(c, world.size) * c.seq_len for name, c in configs.items()}
    precision, hardware = Precision(configs[control], world.device).name, world.hardware()
    speeds = {name: tokens[name] / statistics.median(found[name]) for name in configs}
    return {
        "version": 1,
        "time": time.time(),
        "rounds": len(found[control]),
        "steps_per_round": count,
        "world_size": world.size,
        "precision": precision,
        "hardware": hardware,
        "versions": describe_versions(None),
        "arms": {
            name: {
                "config": configuration.to_dict(config),
                "step_s": statistics.median(found[name]),
                "tokens_per_s": speeds[name],
                "flops_per_token": flops[name],
                "mfu": mfu(config, speeds[name], world.size, hardware["name"], precision),
            }
            for name, config in configs.items()
        },
        "comparisons": [
            {"group": a, "against": b, "flop_ratio": flops[b] / flops[a], **compare(found[a], found[b])}
            for a, b in itertools.permutations(configs, 2)
        ],
        "control": {"group": control, **compare(found[_twin(control)], found[control])},
    }


def _twin(name: str) -> str:
    return f"{name} (again)"


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main(argv: List[str]) -> int:
    """Run a trial and write its record; return the exit code. Every process calls this."""
    parser = argparse.ArgumentParser(
        prog="python -m train.speed_trial",
        description="Measure arms against one another. Other options are the trainer's and hold for all arms.",
    )
    parser.add_argument("--arm", action="append", default=[], metavar="NAME:KEY=VALUE,…", help="repeat for each arm")
    parser.add_argument("--rounds", type=int, default=21, help=f"paired rounds, at least {MIN_ROUNDS} (default: 21)")
    parser.add_argument("--seconds", type=float, default=1.0, help="time of a measurement, about (default: 1)")
    arguments, others = parser.parse_known_args(argv)
    world, common, code = None, TrainConfig(), 1
    try:
        if arguments.rounds < MIN_ROUNDS:
            raise ConfigError("rounds", arguments.rounds, _("must be at least {least}", MIN_ROUNDS))
        common = configuration.from_flags(others)
        configs = read_arms(arguments.arm, common)
        world = join()
        keep_freed_memory()
        arms = [build_arm(name, config, world) for name, config in configs.items()]
        control = list(configs)[-1]
        arms.append(build_arm(_twin(control), configs[control], world))
        found, count = run_trial(arms, arguments.rounds, arguments.seconds, common.seed, world)
        record = trial_record(configs, control, found, count, world)
        if world.is_main:
            if common.out_dir:
                os.makedirs(common.out_dir, exist_ok=True)
                write_json(os.path.join(common.out_dir, FILE_NAME), record)
                told = {key: record[key] for key in ("world_size", "precision", "hardware", "versions")}
                write_outcome(common.out_dir, "completed", "", told)
            _show(record)
        code = 0
    except (ConfigError, TrainError) as error:
        if os.environ.get("RANK", "0") == "0":
            complain(str(error))
        code = 2 if isinstance(error, ConfigError) else 1
    except Exception as error:
        if world is None or not is_out_of_memory(error):
            traceback.print_exc()  # now: one process of several is ended at once below
        else:
            reason = advice(common, world.device)
            complain(reason)
            write_outcome(common.out_dir, "oom", reason, {})
    finally:
        if world is not None:
            world.close(failed=code != 0)
    return code


def _show(record: Dict[str, Any]) -> None:
    for name, arm in record["arms"].items():
        share = f", MFU {100 * arm['mfu']:.1f} %" if arm["mfu"] else ""
        print(f"{name}: {1e3 * arm['step_s']:.1f} ms a step, {arm['tokens_per_s']:,.0f} tokens/s{share}")
    for entry in record["comparisons"]:
        low, high = entry["ci95"]
        print(
            f"{entry['group']} / {entry['against']}: {entry['median_ratio']:.4f} "
            f"(95 % interval {low:.4f} … {high:.4f}; by counted FLOPs {entry['flop_ratio']:.4f})"
        )
    low, high = record["control"]["ci95"]
    name, ratio = record["control"]["group"], record["control"]["median_ratio"]
    print(f"control {name} / {name}: {ratio:.4f} (95 % interval {low:.4f} … {high:.4f})")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

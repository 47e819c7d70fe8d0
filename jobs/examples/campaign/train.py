"""Learn the coefficients of a curve by stochastic gradient descent: many steps on one, few on another that is near."""

from __future__ import annotations

import argparse
import json
import random
from operator import mul

BEFORE, NOW = (1.0, -2.0, 3.0), (1.2, -1.8, 2.9)
"""The curve of pre-training, and that of the task."""


def points(curve: tuple[float, ...], count: int, rng: random.Random) -> list[tuple[list[float], float]]:
    """Return points with noise, each as powers of x, and y."""
    found = []
    for _ in range(count):
        x = rng.uniform(-1.0, 1.0)
        powers = [x**k for k in range(len(curve))]
        found.append((powers, sum(map(mul, curve, powers)) + rng.gauss(0.0, 0.05)))
    return found


def error(weights: list[float], data: list[tuple[list[float], float]]) -> float:
    """Return the mean squared error."""
    return sum((sum(map(mul, weights, powers)) - y) ** 2 for powers, y in data) / len(data)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("stage", choices=("pretrain", "tune", "evaluate"))
    parser.add_argument("--init", default="", help="weights to begin with; empty for none")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    args = parser.parse_args()
    weights = [0.0, 0.0, 0.0]
    if args.init:
        with open(args.init, encoding="utf-8") as file:
            weights = json.load(file)
    rng = random.Random(f"{args.seed} {args.stage}")
    curve = BEFORE if args.stage == "pretrain" else NOW
    held_out = points(curve, 500, rng)
    steps = {"pretrain": 20 * args.steps, "tune": args.steps, "evaluate": 0}[args.stage]
    for step in range(1, steps + 1):
        ((powers, y),) = points(curve, 1, rng)
        off = sum(map(mul, weights, powers)) - y
        weights = [w - args.lr * off * powers[k] for k, w in enumerate(weights)]
        if step % 20 == 0:
            print(f"step {step}: error {error(weights, held_out):.5f}", flush=True)
    if not steps:
        print(f"step 0: error {error(weights, held_out):.5f}")
    with open("weights.json", "w", encoding="utf-8") as file:
        json.dump(weights, file)


if __name__ == "__main__":
    main()

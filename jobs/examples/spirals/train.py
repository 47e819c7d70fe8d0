"""Tell two spirals apart with a network of three layers; a script as one writes it before there is any tool."""

import argparse
import os
import sys

import torch
from torch import nn


def batch(count: int) -> tuple:
    """Return points of two noisy spirals and which one each is of."""
    label = torch.randint(0, 2, (count, 1)).float()
    turn = 3 * torch.pi * torch.rand(count, 1) ** 0.5
    angle = turn + torch.pi * label
    points = turn / 10 * torch.cat([angle.cos(), angle.sin()], 1)
    return points + 0.02 * torch.randn(count, 2), label


def main() -> None:
    """Train, and every 100 steps validate and save."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--resume")
    args = parser.parse_args()
    torch.manual_seed(0)
    val_points, val_labels = batch(2000)  # the same for every seed
    torch.manual_seed(args.seed)
    model = nn.Sequential(
        nn.Linear(2, args.width), nn.Tanh(), nn.Linear(args.width, args.width), nn.Tanh(), nn.Linear(args.width, 1)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    loss_of = nn.BCEWithLogitsLoss()
    first = 0
    if args.resume:
        saved = torch.load(args.resume)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        torch.set_rng_state(saved["random"])
        first = saved["step"]
    for step in range(first + 1, args.steps + 1):
        points, labels = batch(128)
        optimizer.zero_grad()
        loss_of(model(points), labels).backward()
        optimizer.step()
        if step % 100 == 0 or step == args.steps:
            with torch.no_grad():
                out = model(val_points)
                val_loss, val_acc = loss_of(out, val_labels), ((out > 0) == (val_labels > 0.5)).float().mean()
            print(f"step {step}: val_loss {val_loss:.4f}, val_acc {val_acc:.4f}", flush=True)
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            torch.save({**state, "random": torch.get_rng_state()}, "last.pt.part")
            os.replace("last.pt.part", "last.pt")  # never half a checkpoint


if __name__ == "__main__":
    sys.exit(main())

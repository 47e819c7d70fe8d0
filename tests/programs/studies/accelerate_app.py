"""Train with accelerate, which saves and loads the whole state."""

import argparse
import shutil

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn


def main():
    """Train; save every 20 steps, and keep the newest state alone."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--resume")
    args = parser.parse_args()
    accelerator = Accelerator(cpu=True)
    set_seed(args.seed)
    model = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))
    model, optimizer = accelerator.prepare(model, torch.optim.Adam(model.parameters(), lr=args.lr))
    first = 0
    if args.resume:
        accelerator.load_state(args.resume)
        first = int(args.resume.rstrip("/").rpartition("_")[2])
    x = torch.linspace(-3, 3, 256)[:, None]
    for step in range(first + 1, args.steps + 1):
        loss = nn.functional.mse_loss(model(x), torch.sin(2 * x))
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        if step % 20 == 0:
            accelerator.print(f"{step}/{args.steps} loss={loss.item():.5f}", flush=True)
            accelerator.save_state(f"state_{step}")
            shutil.rmtree(f"state_{step - 40}", ignore_errors=True)


if __name__ == "__main__":
    main()

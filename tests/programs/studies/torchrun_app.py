"""Train on the processes that torchrun starts; they agree on a stop before they leave the loop."""

import argparse
import os

import oelm_run
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def main():
    """Train; the first process saves every 20 steps."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--resume")
    args = parser.parse_args()
    dist.init_process_group("gloo")
    torch.manual_seed(args.seed)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1)))
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    first = 0
    if args.resume:
        saved = torch.load(args.resume)
        model.module.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["step"]
    x = torch.linspace(-3, 3, 256)[dist.get_rank() :: dist.get_world_size(), None]
    for step in range(first + 1, args.steps + 1):
        loss = nn.functional.mse_loss(model(x), torch.sin(2 * x))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        stops = torch.tensor(float(oelm_run.should_stop()))
        dist.all_reduce(stops, dist.ReduceOp.MAX)
        if stops or step % 20 == 0:
            oelm_run.log(step=step, loss=loss)
            if dist.get_rank() == 0:
                state = {"model": model.module.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
                torch.save(state, "snapshot.pt.part")
                os.replace("snapshot.pt.part", "snapshot.pt")
        if stops:
            break
    dist.destroy_process_group()


if __name__ == "__main__":
    main()

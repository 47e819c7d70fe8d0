"""Walk down Rosenbrock's valley by gradient descent; configured by Hydra, watched through oelm_run."""

import json
import os
import random
import time
from pathlib import Path

import hydra
import oelm_run  # in every run; copy that file beside this one to start it by hand, too
from omegaconf import DictConfig

STATE = Path("state.json")


def gradient(x: float, y: float) -> tuple:
    """Return the loss and its gradient at a point."""
    return (1 - x) ** 2 + 10 * (y - x * x) ** 2, -2 * (1 - x) - 40 * x * (y - x * x), 20 * (y - x * x)


@hydra.main(version_base=None, config_path=".", config_name="config")
def main(config: DictConfig) -> None:
    """Go on from what is saved, or begin where the seed says."""
    random.seed(config.seed)
    x, y, dx, dy, first = random.uniform(-2, 0), random.uniform(1, 3), 0.0, 0.0, 0
    if STATE.exists():
        x, y, dx, dy, first = json.loads(STATE.read_text())
    for step in range(first + 1, config.steps + 1):
        loss, gx, gy = gradient(x, y)
        dx = config.optim.momentum * dx - config.optim.lr * gx
        dy = config.optim.momentum * dy - config.optim.lr * gy
        x, y = x + dx, y + dy
        time.sleep(0.001)  # a real one would take its time, too
        stops = oelm_run.should_stop()
        if stops or step % config.save_every == 0 or step == config.steps:
            oelm_run.log(step=step, loss=loss)
            STATE.with_suffix(".part").write_text(json.dumps([x, y, dx, dy, step]))
            os.replace(STATE.with_suffix(".part"), STATE)
        if stops:
            break


if __name__ == "__main__":
    main()

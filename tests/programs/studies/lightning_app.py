"""Fit a curve with Lightning's Trainer, its CSV logger and its checkpoints."""

import argparse

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Curve(L.LightningModule):
    """A network of two layers."""

    def __init__(self, width):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(1, width), nn.Tanh(), nn.Linear(width, 1))

    def training_step(self, batch, place):
        loss = nn.functional.mse_loss(self.net(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, place):
        self.log("val_loss", nn.functional.mse_loss(self.net(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def main():
    """Train, validate every 20 steps, and save."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--max_steps", type=int, required=True)
    parser.add_argument("--ckpt_path")
    args = parser.parse_args()
    L.seed_everything(args.seed)
    x = torch.linspace(-3, 3, 320)[:, None]
    data = TensorDataset(x, torch.sin(2 * x))
    saved = ModelCheckpoint(args.root + "/saved", filename="best", monitor="val_loss", save_last=True)
    trainer = L.Trainer(
        max_steps=args.max_steps, default_root_dir=args.root, callbacks=[saved], logger=CSVLogger(args.root),
        accelerator="cpu", val_check_interval=20, log_every_n_steps=10, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    loaders = (DataLoader(data, batch_size=16, shuffle=True), DataLoader(data, batch_size=64))
    trainer.fit(Curve(args.width), *loaders, ckpt_path=args.ckpt_path, weights_only=False)


if __name__ == "__main__":
    main()

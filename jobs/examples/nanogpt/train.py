"""Train a small GPT on characters, in the manner of nanoGPT: settings are globals that files and words change."""

import math
import os
import pickle
import sys
import time
from ast import literal_eval
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

out_dir, init_from, dataset = "out", "scratch", "austen_char"
eval_interval, eval_iters, log_interval = 100, 20, 10
n_layer, n_head, n_embd, dropout = 4, 4, 128, 0.0
block_size, batch_size = 128, 32
learning_rate, min_lr, weight_decay, grad_clip = 1e-3, 1e-5, 0.1, 1.0
max_iters, lr_decay_iters, warmup_iters = 2000, 2000, 100
seed, compile = 1337, False

keys = [name for name, value in globals().items() if isinstance(value, (int, float, bool, str)) and name[0] != "_"]
for word in sys.argv[1:]:
    if not word.startswith("--"):
        exec(Path(word).read_text())
        continue
    key, _, value = word[2:].partition("=")
    assert key in keys, f"no setting: {key}"
    try:
        globals()[key] = literal_eval(value)
    except (SyntaxError, ValueError):
        globals()[key] = value

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(seed)
folder = os.path.join("data", dataset)
tokens = {split: np.fromfile(os.path.join(folder, split + ".bin"), dtype=np.uint16) for split in ("train", "val")}
vocab_size = pickle.loads(Path(folder, "meta.pkl").read_bytes())["vocab_size"]


def get_batch(split):
    """Return characters and those that follow them."""
    places = torch.randint(len(tokens[split]) - block_size - 1, (batch_size,)).tolist()
    rows = torch.from_numpy(np.stack([tokens[split][at : at + block_size + 1] for at in places]).astype(np.int64))
    return rows[:, :-1].to(device), rows[:, 1:].to(device)


class Block(nn.Module):
    """Attention and a feed-forward layer, each on what a layer norm leaves."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(n_embd), nn.LayerNorm(n_embd)
        self.qkv, self.proj = nn.Linear(n_embd, 3 * n_embd), nn.Linear(n_embd, n_embd)
        self.mlp = nn.Sequential(nn.Linear(n_embd, 4 * n_embd), nn.GELU(), nn.Linear(4 * n_embd, n_embd))

    def forward(self, x):
        shape = (*x.shape[:2], n_head, n_embd // n_head)
        q, k, v = (part.view(shape).transpose(1, 2) for part in self.qkv(self.norm1(x)).split(n_embd, 2))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout if self.training else 0.0)
        x = x + self.proj(mixed.transpose(1, 2).reshape(x.shape))
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    """Embeddings, blocks, and a head that shares its weights with the embeddings."""

    def __init__(self):
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocab_size, n_embd), nn.Embedding(block_size, n_embd)
        self.blocks, self.norm = nn.Sequential(*(Block() for _ in range(n_layer))), nn.LayerNorm(n_embd)
        for table in (self.tokens, self.places):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, x, y):
        h = self.tokens(x) + self.places(torch.arange(x.shape[1], device=x.device))
        logits = self.norm(self.blocks(h)) @ self.tokens.weight.T
        return F.cross_entropy(logits.flatten(0, 1), y.flatten())


def get_lr(it):
    """Warm up, then decay along a cosine."""
    if it < warmup_iters:
        return learning_rate * (it + 1) / (warmup_iters + 1)
    ratio = min(1.0, (it - warmup_iters) / max(1, lr_decay_iters - warmup_iters))
    return min_lr + 0.5 * (1 + math.cos(math.pi * ratio)) * (learning_rate - min_lr)


@torch.no_grad()
def estimate_loss():
    """Return the mean loss on some batches of each split."""
    model.eval()
    means = {s: sum(run(*get_batch(s)).item() for _ in range(eval_iters)) / eval_iters for s in ("train", "val")}
    model.train()
    return means


iter_num, best_val_loss = 0, 1e9
model = GPT().to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.95), weight_decay=weight_decay)
if init_from == "resume":
    checkpoint = torch.load(os.path.join(out_dir, "ckpt.pt"), map_location=device, weights_only=False)
    model.load_state_dict(checkpoint["model"])
    optimizer.load_state_dict(checkpoint["optimizer"])
    iter_num, best_val_loss = checkpoint["iter_num"], checkpoint["best_val_loss"]
run = torch.compile(model) if compile else model

os.makedirs(out_dir, exist_ok=True)
began = time.time()
while True:
    for group in optimizer.param_groups:
        group["lr"] = get_lr(iter_num)
    if iter_num % eval_interval == 0:
        losses = estimate_loss()
        print(f"step {iter_num}: train loss {losses['train']:.4f}, val loss {losses['val']:.4f}", flush=True)
        best_val_loss = min(best_val_loss, losses["val"])
        if iter_num > 0:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            path = os.path.join(out_dir, "ckpt.pt")
            torch.save({**state, "iter_num": iter_num, "best_val_loss": best_val_loss}, path + ".part")
            os.replace(path + ".part", path)  # never half a checkpoint
    loss = run(*get_batch("train"))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), grad_clip)
    optimizer.step()
    if iter_num % log_interval == 0:
        now = time.time()
        print(f"iter {iter_num}: loss {loss.item():.4f}, time {(now - began) * 1000:.2f}ms", flush=True)
        began = now
    iter_num += 1
    if iter_num > max_iters:
        break

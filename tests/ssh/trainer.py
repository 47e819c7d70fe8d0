"""Stands in for training where a test is about everything else: the files of a run directory, made in no time.

Run as ``python trainer.py -m train …``, or ``-m torch.distributed.run … -m train …`` as several processes.
TRAINER_STEP_S is how long a step takes, TRAINER_BYTES how large a checkpoint is, TRAINER_LOSS each loss. After its
first checkpoint it waits while the folder TRAINER_HOLD has a file with the name of the run directory. It resumes from
its newest checkpoint and checkpoints on SIGTERM.
"""

import json
import os
import random
import signal
import sys
import time

argv = sys.argv[1:]
option = {argv[i][2:]: argv[i + 1] for i in range(len(argv) - 1) if argv[i].startswith("--")}
out, steps = option["out_dir"], int(option["max_steps"])
pace, size = float(os.environ.get("TRAINER_STEP_S", "0")), int(os.environ.get("TRAINER_BYTES", "1000"))
loss = float(os.environ.get("TRAINER_LOSS", "4.0"))
every = int(option.get("save_interval", "5000"))
hold = os.path.join(os.environ.get("TRAINER_HOLD", "/nowhere"), os.path.basename(out))
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))


def write(name, content):
    path = os.path.join(out, name)
    with open(path + ".tmp", "wb") as file:
        file.write(content)
    os.replace(path + ".tmp", path)


def save(step):
    random.seed(step)
    write(f"checkpoint_{step}.pt", b"%d\n" % step + random.randbytes(size))
    write("best_model.pt", b"best %d\n" % step + random.randbytes(size))
    for name in os.listdir(out):
        number = name[len("checkpoint_") : -len(".pt")]
        if name.startswith("checkpoint_") and name.endswith(".pt") and int(number) < step - every:
            os.unlink(os.path.join(out, name))


def outcome(status, step):
    point = {"step": step, "val_loss": loss, "val_tokens": 10, "val_full": True}
    content = {
        "version": 1, "attempt": os.environ["OELM_ATTEMPT"], "status": status, "reason": "", "step": step,
        "max_steps": steps, "final": point, "best": point, "resumed_from": begin, "tokens_per_s": 1000.0,
        "parameters": {"total": 100, "trainable": 90, "frozen": 10, "qk": 10, "embedding": 50},
    }  # fmt: skip
    write(".oelm/outcome.json", json.dumps(content).encode())


kept = [int(name[11:-3]) for name in os.listdir(out) if name.startswith("checkpoint_") and name.endswith(".pt")]
begin = max(kept, default=0)
print(f"Resumed from step {begin}" if begin else "Started", flush=True)
print("devices", os.environ.get("CUDA_VISIBLE_DEVICES", ""), "ranks", option.get("nproc_per_node", "1"), flush=True)
with open(os.path.join(out, "metrics.jsonl"), "a") as metrics:
    for step in range(begin + 1, steps + 1):
        time.sleep(pace)
        while step == every + 1 and os.path.exists(hold) and not stopped:
            time.sleep(0.05)
        print(f"Step {step:6} | Loss: 4.0000 | PPL: 54.60 | LR: 1.00e-03", flush=True)
        metrics.write(json.dumps({"step": step, "loss": loss, "val_loss": loss, "time": time.time()}) + "\n")
        metrics.flush()
        beat = {"step": step, "max_steps": steps, "loss": loss, "tokens_per_s": 1000.0, "time": time.time()}
        write("heartbeat.json", json.dumps(beat).encode())
        if step % every == 0 or step == steps or stopped:
            save(step)
        if stopped:
            outcome("resumable", step)
            sys.exit(1)
outcome("completed", steps)
print("Training complete", flush=True)

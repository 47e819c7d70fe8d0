"""How a job's ranks are started: its nodes and GPUs, torchrun's rendezvous, and the step of srun over several nodes."""

from __future__ import annotations

import itertools
import os
import re
from typing import Collection, List, Optional, Sequence, Tuple

from ..host import ports
from ..sentences import _
from . import words as slurm_words

OF_TASKS = (
    "SLURM_GPUS_PER_TASK", "SLURM_TRES_PER_TASK", "SLURM_NTASKS_PER_GPU", "SLURM_NTASKS_PER_TRES", "SLURM_GPU_BIND",
    "SLURM_TRES_BIND",
)  # fmt: skip
"""Variables by which srun would give each node's one task the GPUs of one process (srun(1), INPUT ENVIRONMENT
VARIABLES).
"""
FIRST_PORT, PORTS = 20000, 10000
"""Rendezvous ports of several nodes, below the kernel's range for outgoing connections."""


def hosts(node: str) -> List[str]:
    """Return the names of the job's nodes, the first one first.

    Args:
        node: This process's.

    Raises:
        OSError: They are not as many as Slurm says.
    """
    listed = os.environ.get("SLURM_JOB_NODELIST") or node
    number = int(os.environ.get("SLURM_JOB_NUM_NODES") or 1)
    if number == 1:
        return [listed]
    found = expand(listed)
    if len(found) != number:
        raise OSError(_("{nodes} are not {count} nodes", listed, number))
    return found


def expand(listed: str) -> List[str]:
    """Return the names in a list of nodes as Slurm writes it (``n[01-03,7]x[1-2],m1``), in its order. By itself: what a
    site's own programs print around the answer of ``scontrol show hostnames`` could be names, too.
    """
    found: List[str] = []
    for name in re.split(r",(?![^\[]*\])", listed):
        parts = re.split(r"\[([^\]]*)\]", name)  # every second one is what stood in brackets
        choices = [slurm_words.numbers(part) if place % 2 else [part] for place, part in enumerate(parts)]
        found += ["".join(chosen) for chosen in itertools.product(*choices)]
    return found


def words(
    command: Sequence[str], nodes: Sequence[str], job: int, rendezvous: str, avoided: Collection[int] = ()
) -> Tuple[List[str], Optional[int]]:
    """Return (words that start a run on a job's nodes, port of its rendezvous or None where torchrun finds one).

    Args:
        command: The trainer's; of several processes torchrun's, with ``--nproc_per_node`` for all of them and a
            ``--master_port``.
        nodes: This process's first.
        job: The job's number, from which the port follows.
        rendezvous: Name of the rendezvous: this attempt's own.
        avoided: Ports that turned out to be a stranger's.
    """
    port: Optional[int] = None
    endpoint = "localhost:0"
    if len(nodes) > 1:
        port = free_port(job, avoided)
        endpoint = "%s:%d" % (nodes[0], port)
    made = list(command)
    if "--master_port" in made[:-1]:
        at = made.index("--master_port")
        made[at : at + 2] = ["--rdzv-backend=c10d", "--rdzv-endpoint=" + endpoint, "--rdzv-id=" + rendezvous]
    if len(nodes) == 1:
        return made, port
    if "--nproc_per_node" in made[:-1]:
        at = made.index("--nproc_per_node")
        per_node = int(made[at + 1]) // len(nodes)
        made[at : at + 2] = ["--nnodes", str(len(nodes)), "--nproc_per_node", str(per_node)]
    return [*on_each(len(nodes)), *made], port


def free_port(job: int, avoided: Collection[int] = ()) -> int:
    """Return a port that is free on this node, the job's first one; it is derived from the job, so that jobs that share
    a node rarely meet.
    """
    port = FIRST_PORT + job % PORTS
    while port in avoided or not ports.port_is_free(port):
        port += 1
    return port


def on_each(nodes: int) -> List[str]:
    """Return the words that start a command once on each node, with all that the job has there."""
    step = ["srun", "--kill-on-bad-exit=1", "--input=none", "--mpi=none", "--export=ALL"]
    step += ["--nodes=%d" % nodes, "--ntasks=%d" % nodes, "--ntasks-per-node=1"]
    # From 22.05 on a step has one CPU a task unless told otherwise (srun(1), --cpus-per-task).
    step.append("--cpus-per-task=%d" % cpus_per_node())
    prefix, gpus = gpus_of_a_task(), visible_gpus()
    if gpus and prefix is not None:
        step.append("--gpus-per-node=%s%d" % (prefix, len(gpus)))
    unset = ["--unset=" + name for name in OF_TASKS if name in os.environ]
    return ["env", *unset, *step] if gpus and unset else step


def visible_gpus() -> List[str]:
    """Return the GPUs that Slurm granted on this node, by the node's own index; empty where the job has none.

    In a cgroup, CUDA_VISIBLE_DEVICES counts those of the job alone from 0 (gres.conf(5)).
    """
    listed = [os.environ.get(name, "").split(",") for name in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_GPUS")]
    seen, granted = ([part for part in parts if part and part != "NoDevFiles"] for parts in listed)
    return granted if len(granted) == len(seen) or not seen else seen


def gpus_of_a_task() -> Optional[str]:
    """Return the type of the GPUs that the job asked for by task (``a100:``; empty where it named none); None where it
    did not ask that way.
    """
    asked = os.environ.get("SLURM_GPUS_PER_TASK")
    if asked is None:  # from 23.11 on, the other variable may hold cores alone
        others = os.environ.get("SLURM_TRES_PER_TASK", "").split(",")
        asked = next((part.partition("gpu")[2][1:] for part in others if "gpu" in part), None)
    if asked is None:
        return None
    name = re.sub(r"(^|[:=])\d+$", "", asked)
    return name + ":" if name else ""


def cpus_per_node() -> int:
    """Return the CPUs that the job has on its poorest node (``16(x2),8`` in SLURM_JOB_CPUS_PER_NODE)."""
    listed = os.environ.get("SLURM_JOB_CPUS_PER_NODE") or os.environ.get("SLURM_CPUS_ON_NODE") or "1"
    return min(int(number) for number in re.findall(r"(?:^|,)(\d+)", listed))

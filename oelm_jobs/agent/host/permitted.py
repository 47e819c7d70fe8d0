"""Which GPUs the environment allows to runs: by CUDA_VISIBLE_DEVICES, an enclosing Slurm job, and the target.

Sources: CUDA C++ Programming Guide (CUDA environment variables); salloc(1) and srun(1) (SLURM_JOB_GPUS,
SLURM_STEP_GPUS); nvidia-smi(1).
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Dict, List, Mapping, Sequence

from .. import processes
from ..sentences import _

if TYPE_CHECKING:
    from .devices import Device

CUDA = "CUDA_VISIBLE_DEVICES"
AT_SUBMISSION = "OELM_VISIBLE_DEVICES"
"""CUDA_VISIBLE_DEVICES as it was where a run was submitted: set-up lines may set another one, which frees no GPU."""
OF_TARGET = "OELM_GPUS"
"""Indices that the target's ``gpus`` names."""
AVOIDED, PREFERRED = "OELM_AVOIDED_GPUS", "OELM_PREFERRED_GPUS"
"""Indices that its ``avoid`` and ``prefer`` name."""
MAX_PARALLEL, PER_GPU = "OELM_MAX_PARALLEL", "OELM_PER_GPU"
"""Its ``max_parallel`` and ``per_gpu``."""
OF_JOB = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS")
"""Indices of what Slurm granted to the step or job that this process is in."""
LISTING_TIMEOUT_S = 30.0


def travelling(environment: Mapping[str, str]) -> Dict[str, str]:
    """Return the variable that carries a submission's limit to its runs; empty where there is none."""
    return {AT_SUBMISSION: environment[CUDA]} if CUDA in environment else {}


def limits() -> Dict[str, str]:
    """Return the variables that limit runs to some of the host's GPUs, with their values."""
    found = {name: os.environ[name] for name in (AT_SUBMISSION, CUDA) if name in os.environ}
    if found.get(AT_SUBMISSION) == found.get(CUDA):
        found.pop(AT_SUBMISSION, None)
    first_of_job = next((name for name in OF_JOB if os.environ.get(name)), "")
    found.update({name: os.environ[name] for name in (OF_TARGET, AVOIDED, first_of_job) if os.environ.get(name)})
    return found


def description() -> str:
    """Return the limits for people, as in ``CUDA_VISIBLE_DEVICES=0,1``; empty where there are none."""
    described = [_described(name, value) for name, value in limits().items()]
    return _("{limits}", described) if described else ""


def _described(name: str, value: str) -> str:
    if name == OF_TARGET:
        return _("gpus of the target={gpus}", value)
    if name == AVOIDED:
        return _("avoid of the target={gpus}", value)
    if name == AT_SUBMISSION:
        return _("{variable} at submission={gpus}", CUDA, value)
    return "%s=%s" % (name, value)


def hides_all() -> bool:
    """Tell whether CUDA_VISIBLE_DEVICES hides all GPUs: empty, -1, or Slurm's NoDevFiles."""
    return any(
        value.split(",")[0].strip() in ("", "-1", "NoDevFiles")
        for name, value in limits().items()
        if name in (CUDA, AT_SUBMISSION)
    )


def of(gpus: Sequence[Device]) -> List[Device]:
    """Return the GPUs of a host that runs may have, in order of their indices; possibly none."""
    kept = list(gpus)
    for name, value in limits().items():
        if name in (CUDA, AT_SUBMISSION):
            named = {device.key: device for device in _as_cuda(value, gpus)}
            kept = [device if device.cuda_name else named[device.key] for device in kept if device.key in named]
        elif name == AVOIDED:
            kept = [device for device in kept if device.index not in _indices(value)]
        else:
            indices = _indices(value)
            # In a cgroup nvidia-smi lists the job's GPUs alone and counts them from 0: nothing is left to be held to.
            if name == OF_TARGET or len(gpus) > len(indices):
                kept = [device for device in kept if device.index in indices]
    return sorted(kept, key=lambda device: device.index)


def preferred() -> List[int]:
    """Return the indices of the GPUs that runs should have first."""
    return _indices(os.environ.get(PREFERRED, ""))


def number(name: str, otherwise: int) -> int:
    """Return the number that a variable of the target's holds."""
    value = os.environ.get(name, "")
    return int(value) if value.isdigit() and value.isascii() else otherwise


def _indices(value: str) -> List[int]:
    """Return the indices in ``0,2-3``."""
    found: List[int] = []
    for part in re.split(r"[,\s]+", value):
        match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", part, re.ASCII)
        if match:
            found += range(int(match[1]), int(match[2] or match[1]) + 1)
    return found


def _as_cuda(value: str, gpus: Sequence[Device]) -> List[Device]:
    """Return the GPUs that a value of CUDA_VISIBLE_DEVICES names; as in CUDA, only up to the first invalid entry.

    Indices are nvidia-smi's, which are CUDA's with CUDA_DEVICE_ORDER=PCI_BUS_ID. A MIG instance stands for the GPU
    that it is a part of: that one is leased, and the run sees the instance alone.
    """
    found: Dict[str, Device] = {}
    for entry in (part.strip() for part in value.split(",")):
        if re.fullmatch(r"\d{1,9}", entry, re.ASCII):
            matches = [device for device in gpus if device.index == int(entry)]
        elif entry.upper().startswith("GPU-"):
            matches = [device for device in gpus if _is_called(device, entry)]
        elif entry.upper().startswith("MIG-"):
            instance, parent = _mig_instance(entry)
            matches = [
                # What is in use on the whole GPU says nothing about a part of it.
                replace(device, cuda_name=instance, memory_mb=0, memory_used_mb=0, utilisation=0)
                for device in gpus
                if parent and _is_called(device, parent)
            ]
        else:
            matches = []
        if len(matches) != 1:  # none, or a beginning that several share
            break
        found.setdefault(matches[0].key, matches[0])
    return list(found.values())


def _is_called(device: Device, beginning: str) -> bool:
    return device.key.lower().startswith("gpu-" + beginning.lower())


def _mig_instance(entry: str) -> "tuple[str, str]":
    """Return (UUID of the one MIG instance that an entry names, UUID of its GPU); empty where there is none."""
    old = re.fullmatch(r"MIG-(GPU-[0-9a-fA-F-]+)/\d+/\d+", entry)  # of drivers before R470
    if old:
        return entry, old[1]
    found, parent = [], ""
    for line in processes.output(["nvidia-smi", "-L"], LISTING_TIMEOUT_S).splitlines():
        uuid = re.search(r"\(UUID: ([^)\s]+)\)", line)
        if uuid and line.startswith("GPU "):
            parent = uuid[1]
        elif uuid and uuid[1].lower().startswith(entry.lower()):
            found.append((uuid[1], parent))
    return found[0] if len(found) == 1 else ("", "")

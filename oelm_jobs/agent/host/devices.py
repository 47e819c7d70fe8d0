"""List the devices of a plain host, their names, and the processes that compute on them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import List, Optional

from ..sentences import _
from . import permitted

NUMBER = re.compile(r"\d{1,9}", re.ASCII)
FOREIGN_MEMORY_MB = 1000
"""A GPU on which others hold more than this is busy (Xorg or an idle notebook holds less)."""
FOREIGN_UTILISATION = 25
"""A GPU without a lease that is busier than this (percent) is in use by somebody who didn't ask."""
UNTOLD_WORDS = ("N/A", "Not Supported")
"""What nvidia-smi says for the utilisation of a healthy GPU in MIG mode, and of some models; a memory in use that can't
be told is a fault: nobody knows who computes there.
"""


@dataclass(frozen=True)
class Device:
    """A GPU, or a CPU slot where the host has no GPU."""

    key: str
    """Names the lock: ``gpu-<uuid>`` or ``cpu-<n>``."""
    index: int
    """What the user calls it, in PCI bus order."""
    name: str
    """Model."""
    memory_mb: int = 0
    """Total memory; 0 for CPU slots."""
    memory_used_mb: int = 0
    """Memory in use by anybody."""
    utilisation: int = 0
    """Percent."""
    fault: str = ""
    """What nvidia-smi says in place of values (``[GPU requires reset]``); such a GPU is leased to nobody."""
    cuda_name: str = ""
    """What CUDA calls what runs may have of it, where that is not all of it: a MIG instance."""

    @property
    def is_gpu(self) -> bool:
        """False for a CPU slot."""
        return self.key.startswith("gpu-")

    @property
    def kind(self) -> str:
        """``gpu`` or ``cpu``."""
        return "gpu" if self.is_gpu else "cpu"

    @property
    def label(self) -> str:
        """``gpu:0`` or ``cpu:0``."""
        return "%s:%d" % (self.kind, self.index)

    @property
    def is_used_by_others(self) -> bool:
        """Tell whether processes without a lease compute on it; call it under the device's lock."""
        return self.memory_used_mb > FOREIGN_MEMORY_MB or self.utilisation > FOREIGN_UTILISATION


def of_host() -> List[Device]:
    """Return the GPUs that nvidia-smi lists and the environment permits to runs; one CPU slot for each core where there
    is no nvidia-smi, or where CUDA_VISIBLE_DEVICES hides every GPU.

    Empty where the environment permits none of the GPUs that are there without saying that none is wanted.

    Raises:
        OSError: nvidia-smi is there and does not answer: training on the CPU instead would waste a night.
    """
    found = [] if permitted.hides_all() else _gpus()
    if found:
        return permitted.of(found)
    return [Device("cpu-%d" % index, index, _("CPU core")) for index in range(cores())]


def cores() -> int:
    """Return how many cores this process may use (Slurm and containers allow fewer than the machine has)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus() -> List[Device]:
    import shutil  # here, because a probe for states alone never needs them
    import subprocess

    # Looked for, because exec(3) says that permission is denied where a folder of PATH is closed and it is in none.
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = "index,uuid,name,memory.total,memory.used,utilization.gpu"
    try:
        done = subprocess.run(
            [program, "--query-gpu=" + query, "--format=csv,noheader,nounits"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=30,
        )
    except subprocess.TimeoutExpired:
        raise OSError(_("nvidia-smi gave no answer within 30 s")) from None
    listing = done.stdout.decode("utf-8", "replace")
    found = [device for device in map(_gpu, listing.splitlines()) if device is not None]
    # One that fell off the bus makes nvidia-smi fail, and lists the others.
    if done.returncode != 0 and not found and "No devices were found" not in listing:
        lines = listing.strip().splitlines()
        raise OSError(_("nvidia-smi fails: {why}", lines[0] if lines else _("exit code {code}", done.returncode)))
    return found


def _gpu(line: str) -> Optional[Device]:
    """Return the GPU in a line of nvidia-smi's output; None where there is none."""
    fields = [part.strip() for part in line.split(",")]
    if len(fields) < 6 or not NUMBER.fullmatch(fields[0]):
        return None
    uuid, name, values = fields[1], ", ".join(fields[2:-3]), fields[-3:]
    faults = [value for value in values[:2] if not NUMBER.fullmatch(value)]
    if not NUMBER.fullmatch(values[2]) and values[2].strip("[]") not in UNTOLD_WORDS:
        faults.append(values[2])
    key = "gpu-" + uuid
    if not re.fullmatch(r"[A-Za-z0-9-]+", uuid):  # it names a file
        key, faults = "gpu-index-" + fields[0], [uuid, *faults]
    total, used, busy = (int(value) if NUMBER.fullmatch(value) and not faults else 0 for value in values)
    return Device(key, int(fields[0]), name, total, used, busy, fault=faults[0] if faults else "")

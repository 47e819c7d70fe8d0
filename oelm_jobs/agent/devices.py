"""Owns which devices a plain host has, what they are called, and whether somebody computes on them without asking;
leaves who may use them to lease.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import List

FOREIGN_MEMORY_MB = 1000
"""A GPU on which others hold more than this is busy (Xorg or an idle notebook holds less)."""
FOREIGN_UTILISATION = 25
"""A GPU without a lease that is busier than this (percent) is in use by somebody who didn't ask."""


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

    @property
    def is_gpu(self) -> bool:
        """False for a CPU slot."""
        return self.key.startswith("gpu-")

    @property
    def label(self) -> str:
        """``gpu:0`` or ``cpu:0``."""
        return "%s:%d" % ("gpu" if self.is_gpu else "cpu", self.index)

    @property
    def is_used_by_others(self) -> bool:
        """True where somebody without a lease computes on it; asked under the device's lock."""
        return self.memory_used_mb > FOREIGN_MEMORY_MB or self.utilisation > FOREIGN_UTILISATION


def of_host() -> List[Device]:
    """Return the host's GPUs as nvidia-smi lists them, or one CPU slot for each core where there is no nvidia-smi.

    ``OELM_GPUS`` (indices with commas between them) names the only ones that count.

    Raises:
        OSError: nvidia-smi is there and does not answer: training on the CPU instead would waste a night.
    """
    import subprocess  # here, because a probe for states alone never needs it

    query = "index,uuid,name,memory.total,memory.used,utilization.gpu"
    listing = ""
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=" + query, "--format=csv,noheader,nounits"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=30,
        )
        listing = done.stdout.decode("utf-8", "replace")
        if done.returncode != 0 and "No devices were found" not in listing:
            raise OSError(
                "nvidia-smi fails: %s" % (listing.strip().splitlines() or ["exit code %d" % done.returncode])[0]
            )
    except FileNotFoundError:
        pass
    except subprocess.TimeoutExpired:
        raise OSError("nvidia-smi gave no answer within 30 s") from None
    found = []
    for line in listing.splitlines():
        fields = [part.strip() for part in line.split(",")]
        if len(fields) == 6 and fields[0].isdigit():
            memory = [int(part) if part.isdigit() else 0 for part in fields[3:]]
            found.append(Device("gpu-" + fields[1], int(fields[0]), fields[2], *memory))
    if found:
        allowed = os.environ.get("OELM_GPUS", "").replace(",", " ").split()
        return sorted(
            (device for device in found if not allowed or str(device.index) in allowed), key=lambda device: device.index
        )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return [Device("cpu-%d" % index, index, "CPU core") for index in range(cores)]

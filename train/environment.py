"""Describe the hardware and software of a run, for its records.

Facts that can't be found are left out.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
from typing import Any, Dict, Optional

import numpy as np
import torch


def describe_hardware(device: torch.device) -> Dict[str, Any]:
    """Return device kind, its model name and the host's name."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    return {"device": device.type, "name": name, "host": socket.gethostname()}


def cpu_name() -> str:
    """Return the processor's model name."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as stream:
            for line in stream:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def describe_versions(out_dir: Optional[str]) -> Dict[str, Any]:
    """Return the versions of Python, PyTorch, CUDA and NumPy, and the code's git revision."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda,
        "numpy": np.__version__,
        "revision": _revision(out_dir),
    }


def _revision(out_dir: Optional[str]) -> Optional[str]:
    """Return the revision that the supervisor recorded, or that of the checkout; a snapshot has no git folder."""
    if out_dir:
        try:
            with open(os.path.join(out_dir, ".oelm", "run.json"), encoding="utf-8") as stream:
                recorded = json.load(stream).get("revision")
            if recorded:
                return str(recorded)
        except (OSError, ValueError, AttributeError):
            pass
    here = os.path.dirname(os.path.abspath(__file__))
    try:
        found = subprocess.run(
            ["git", "-C", here, "rev-parse", "HEAD"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.decode().strip() or None if found.returncode == 0 else None

"""``python -m benchmarks.gpu.older``: a trainer's command on a GPU that passes for one without bf16: in fp16."""

from __future__ import annotations

import os
import sys

import torch

from benchmarks.gpu import steady
from train.__main__ import main

if __name__ == "__main__":
    torch.cuda.get_device_capability = lambda device=None: (7, 0)
    torch.cuda.is_bf16_supported = lambda *arguments, **options: False
    sys.exit(steady.main(sys.argv[1:]) if os.environ.get("OELM_STEADY") else main())

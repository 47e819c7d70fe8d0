"""The command line ``python -m train``: flags in, exit code out.

``run`` is imported only when there is something to run, so ``--help`` and a misspelt flag answer at once, without
PyTorch.
"""

from __future__ import annotations

import gc
import os
import sys

from .config import ConfigError, from_flags
from .limits import validate


def main() -> int:
    """Parse the flags and run; return the exit code."""
    try:
        config = from_flags(sys.argv[1:])
        warnings = validate(config)
    except ConfigError as error:
        if os.environ.get("RANK", "0") == "0":  # under torchrun all processes find the same
            print(f"train: {error}", file=sys.stderr)
        return 2
    # To look for garbage in what imports make would take an eighth of the start; training looks for it (loop.py).
    gc.disable()
    from .run import main as run

    return run(config, warnings)


if __name__ == "__main__":
    sys.exit(main())

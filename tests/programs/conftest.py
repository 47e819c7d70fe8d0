"""These tests need programs that others wrote, in an environment of their own: `make test-programs` makes it."""

from __future__ import annotations

import os
from importlib.util import find_spec

# Named beside other tests in another environment they are left out, as plain `pytest` leaves them out.
collect_ignore_glob = ["test_*.py"] if find_spec("mlflow") is None and not os.environ.get("CI") else []

"""Look at runs again and again, until nothing more happens to them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from ..agent.states import State
from ..errors import ConfigurationError
from .observe import View

INTERVAL_S = 2.0
"""Between two looks."""


def views(look: Callable[[], View], interval_s: float = INTERVAL_S) -> Iterator[View]:
    """Yield what each look finds, for ever.

    A file of the project's that is invalid meanwhile (half saved, say) leaves what was seen before in place.

    Raises:
        ConfigurationError: Such a file is invalid at the first look.
    """
    view: View | None = None
    while True:
        try:
            view = look()
        except ConfigurationError as error:
            if view is None:
                raise
            view = replace(view, unreachable=dict.fromkeys((run.target for run in view.runs), str(error)))
        yield view
        time.sleep(interval_s)


class Over:
    """Tells when nothing more will happen to runs: each is final, or has long been unknown to its target."""

    PATIENCE_S = 60.0

    def __init__(self) -> None:
        self._unknown_since: dict[tuple[str, str], float] = {}

    def __call__(self, view: View) -> bool:
        """Return whether all runs of a view, newer than the one before, are over."""
        now, unknown = time.monotonic(), {}
        for run in view.runs:
            if run.state is State.UNKNOWN and run.target not in view.unreachable:
                key = (run.study, run.name)
                unknown[key] = self._unknown_since.get(key, now)
        self._unknown_since = unknown
        return all(
            run.state.is_final or now - unknown.get((run.study, run.name), now) >= self.PATIENCE_S for run in view.runs
        )

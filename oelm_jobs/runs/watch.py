"""Look at runs again and again, until nothing more happens to them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from ..agent.states import State
from ..errors import ConfigurationError
from .observe import View

INTERVAL_S = 2.0
"""Between two looks."""
PATIENCE_S = 60.0
"""A run that has been unknown to its target for so long is not waited for."""


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


def until_over(looks: Iterable[View], timeout_s: float, show: Callable[[View], None] | None) -> View:
    """Return the first view in which nothing more will happen to any run: each is final, or has long been unknown to
    its target; or that of the moment when the time is over.

    Args:
        show: Is given every look.
    """
    until = time.monotonic() + timeout_s
    unknown: dict[tuple[str, str], float] = {}
    for view in looks:
        if show is not None:
            show(view)
        now, before, unknown = time.monotonic(), unknown, {}
        for run in view.runs:
            if run.state is State.UNKNOWN and run.target not in view.unreachable:
                unknown[run.study, run.name] = before.get((run.study, run.name), now)
        long_unknown = {key for key, since in unknown.items() if now - since >= PATIENCE_S}
        if now >= until or all(run.state.is_final or (run.study, run.name) in long_unknown for run in view.runs):
            return view
    raise AssertionError("watching never ends")

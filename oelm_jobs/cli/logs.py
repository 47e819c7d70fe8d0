"""``oelm-logs``: what a run says, over all its attempts."""

from __future__ import annotations

import sys
import time

import click

from .common import command, narrate, project


@command("oelm-logs")
@click.argument("run")
@click.option(
    "-n", "--lines", type=click.IntRange(0), default=50, show_default=True, help="How many of the last lines."
)
@click.option("-f", "--follow", is_flag=True, help="Go on until the run is over.")
@click.option("--supervisor", is_flag=True, help="The supervisor's own log: waiting, attempts, signals.")
@click.option("--study", metavar="NAME", help="The run's study, where its name is not unique.")
def main(run: str, lines: int, follow: bool, supervisor: bool, study: str | None) -> None:
    """Print a run's log."""
    from .. import observe, workflow
    from ..agent import rundir
    from ..store import Store
    from .select import select_one

    root = project()
    name = f"{rundir.CONTROL}/{rundir.SUPERVISOR_LOG}" if supervisor else rundir.LOG
    out = sys.stdout.buffer
    with Store() as store:
        chosen = select_one(store, root, run, study)
        offset: int | None = None
        try:
            while True:
                # The state is asked before the log: what a run wrote before it was over is then never missed.
                current = observe.refresh(store, root, [chosen]).runs[0]
                content, begin, size = workflow.read_log(root, chosen, name, offset=offset, lines=lines)
                out.write(content)
                out.flush()
                offset = begin + len(content)
                if offset < size:
                    continue
                if not follow or current.state.is_final:
                    break
                time.sleep(1.0)
        except KeyboardInterrupt:
            return
        if offset == 0:
            why = current.reason or "its training hasn't started"
            narrate(f"{chosen.name} is {current.state} and has written nothing yet ({why})")

"""``oelm``: one command with all others as subcommands; each is imported when it is called."""

from __future__ import annotations

import importlib

import click

from ..language import tr
from .common import CONTEXT, EndingGroup

COMMANDS = {
    "submit": "Put runs where the GPUs are.",
    "status": "Show where runs stand.",
    "logs": "Print a run's log.",
    "cancel": "End runs.",
    "fetch": "Bring results home, verified.",
    "clean": "Free a target's disk of what is at home.",
    "report": "Tables, verdicts and figures.",
    "doctor": "Check a target before it costs a night.",
    "data": "Make train.bin and val.bin from text.",
    "shell": "Open a shell on a target, as runs have it.",
    "tensorboard": "Show a target's runs in TensorBoard.",
}
"""Command to its line in the overview."""


class _Commands(EndingGroup):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"oelm_jobs.cli.{cmd_name}").main
        return command

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section(tr("Commands")):
            formatter.write_dl([(name, tr(line)) for name, line in COMMANDS.items()])


@click.group("oelm", cls=_Commands, context_settings=CONTEXT)
def main() -> None:
    """Run a few groups of training experiments on GPUs that are somewhere else, and get an answer that holds.

    Each command also exists under its dashed name: oelm-submit, oelm-status and so on.
    """

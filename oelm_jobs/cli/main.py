"""``oelm``: one command with all others as subcommands; each is imported when it is called."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import click

from ..agent.sentences import _
from .common import EndingGroup

COMMANDS = {
    "init": _("Make a project: a study, targets, .gitignore."),
    "demo": _("Train three small groups and write the report, in three minutes."),
    "run": _("Run a command of your own as it stands."),
    "submit": _("Put runs where the GPUs are."),
    "status": _("Show where runs stand."),
    "logs": _("Print a run's log."),
    "cancel": _("End runs."),
    "forget": _("Take runs out of what counts, with a line of why."),
    "fetch": _("Bring results home, verified."),
    "clean": _("Free a target's disk of what is at home."),
    "report": _("Tables, verdicts and figures."),
    "doctor": _("Check a target before it costs a night."),
    "data": _("Make train.bin and val.bin from text."),
    "import-script": _("Propose a study for shell scripts."),
    "shell": _("Open a shell on a target, as runs have it."),
    "tensorboard": _("Show a target's runs in TensorBoard."),
    "completion": _("Print what makes a shell complete all this."),
}
"""Command to its line in the overview."""


class _Commands(EndingGroup):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"oelm_jobs.cli.{cmd_name.replace('-', '_')}").main
        return command

    def overview(self) -> Mapping[str, str]:
        return COMMANDS


@click.group("oelm", cls=_Commands)
def main() -> None:
    """Run a few groups of training experiments on GPUs that are somewhere else, and get an answer that holds.

    Each command also exists under its dashed name: oelm-submit, oelm-status and so on.
    """

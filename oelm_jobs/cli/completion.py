"""``oelm completion``: print what makes a shell complete oelm's commands."""

from __future__ import annotations

from pathlib import Path

import click

from .common import command, put
from .main import COMMANDS


@command("oelm-completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def main(shell: str) -> None:
    """Print a script that makes SHELL complete commands, options, and the names of studies, groups, runs and targets.

    For bash, a line in ~/.bashrc: eval "$(oelm-completion bash)"

    For zsh, a line in ~/.zshrc: eval "$(oelm-completion zsh)"

    For fish, a line in ~/.config/fish/config.fish: oelm-completion fish | source
    """
    script = Path(__file__).with_name(f"completion.{shell}").read_text(encoding="utf-8")
    commands = " ".join(["oelm", *(f"oelm-{name}" for name in COMMANDS)])
    put(script.replace("COMMANDS", commands), nl=False)

"""``oelm import-script``: propose a study and its targets for shell scripts."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .. import visible
from ..agent.sentences import _
from ..errors import UsageError
from ..fitting import wrap
from ..language import translated
from .common import command, narrate, put_json, say

if TYPE_CHECKING:
    from ..importing.proposal import Proposal


@command("oelm-import-script")
@click.argument("paths", nargs=-1, metavar="FILE|DIR...", type=click.Path(path_type=Path))
@click.option("--name", default="", metavar="NAME", help=_("Name of the study; else that of its program."))
@click.option(
    "--write", "is_written", is_flag=True, help=_("Write jobs/NAME.toml and the targets; nothing is overwritten.")
)
@click.option("--json", "as_json", is_flag=True, help=_("Print one JSON object."))
def main(paths: tuple[Path, ...], name: str, is_written: bool, as_json: bool) -> None:
    """Read sbatch, torchrun, srun, nohup and tmux scripts and propose one study for them, with its targets.

    Copies become groups, flags that differ settings, seeds seeds, headers options of targets; every line that wasn't
    understood is named. Nothing in the scripts is executed, and without --write nothing is written.
    """
    if not paths:
        raise UsageError(_("which scripts?"), hint=_("give files or folders: oelm import-script scripts/*.sh"))
    from ..folders import program_folder
    from ..importing import proposal

    made = proposal.propose(paths, program_folder(Path.cwd()), name)
    written = proposal.write(made) if is_written else []
    if as_json:
        put_json(_as_json(made, written))
        return
    _show(made, is_written=is_written)
    for path in written:
        narrate(_("wrote {path}", str(path)))
    if not is_written:
        narrate(_("nothing was written; --write does"))
    narrate(_("next: oelm-submit --study {name} --dry-run", made.study.name))


def _show(made: Proposal, *, is_written: bool) -> None:
    say(made.headline, bold=True)
    for note in made.notes:
        _wrapped(note, "  ")
    if not is_written:
        say()
        say(f"jobs/{made.study.path.name}", bold=True)
        for line in made.text.splitlines():
            say(line)
        if made.targets:
            say()
            say("jobs/targets.toml", bold=True)
            for line in made.targets_text.splitlines():
                say(line)
    if made.left:
        say()
        say(_("Not understood, or without a place in a study ({n:,})", len(made.left)), bold=True)
        for each, following in zip(made.left, (*made.left[1:], None), strict=True):
            say(f"  {each.place}  {each.source}")
            if following is None or following.why != each.why:  # a reason is told once for lines that follow each other
                _wrapped(each.why, "      ")


def _wrapped(text: str, indent: str) -> None:
    for line in wrap(visible.text(translated(text)), min(shutil.get_terminal_size().columns, 110), indent, indent):
        say(line)


def _as_json(made: Proposal, written: list[Path]) -> dict[str, object]:
    return {
        "version": 1,
        "headline": translated(made.headline),
        "scripts": made.scripts,
        "study": {"name": made.study.name, "path": made.study.path, "text": made.text},
        "targets": {"path": made.targets_path, "names": list(made.targets), "text": made.targets_text},
        "commands": [
            {
                "file": each.place.path,
                "line": each.place.line,
                "words": each.words,
                "run": each.run,
                "target": each.target,
            }
            for each in made.starts
        ],
        "undeclared": [
            {"setting": each.name, "usual": each.usual, "others": each.others, "scripts": each.scripts}
            for each in made.undeclared
        ],
        "not_understood": [
            {"file": each.place.path, "line": each.place.line, "source": each.source, "why": translated(each.why)}
            for each in made.left
        ],
        "notes": [translated(note) for note in made.notes],
        "written": written,
    }

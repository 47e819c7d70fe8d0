"""``oelm-data``: make and check token files."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..agent.sentences import _
from ..errors import UsageError
from ..folders import expanded
from ..language import translated
from .common import group, narrate, open_project, put_json, say

if TYPE_CHECKING:
    from ..data.check import Need
    from ..data.maker import Made, Report
    from ..data.token_folder import Manifest


class _Path(click.Path):
    """A path; ``~`` is expanded where the shell left it (``--output=~/data``): no folder of that name is made."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(expanded(os.fspath(value)), param, ctx)


PATH = _Path(path_type=Path)


def vocab(default: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add ``--vocab``."""
    return click.option(
        "--vocab",
        "vocab_size",
        type=int,
        metavar="N",
        default=default,
        show_default=True,
        help=_("Entries of the vocabulary: 50257 is GPT-2's own, less truncates it (at least 257)."),
    )


in_json = click.option("--json", "as_json", is_flag=True, help=_("Print JSON."))
force = click.option("--force", is_flag=True, help=_("Replace other data in the output folder."))


@group("oelm-data")
def main() -> None:
    """Make train.bin and val.bin from text, and check them."""


@main.command()
@vocab(1024)
@click.option("--output", type=PATH, metavar="DIR", help=_("Folder to make.  [default: data/demo in the project]"))
@force
@in_json
def demo(vocab_size: int, output: Path | None, force: bool, as_json: bool) -> None:
    """Make a small data folder of the embedded novels, in seconds and without a network."""
    from ..data import maker

    folder = output or _from_here(_project_or_here() / "data" / "demo")
    with _progress() as report:
        made = maker.demo(folder, vocab_size=vocab_size, force=force, report=report)
    _print(folder, made, as_json=as_json)


@main.command()
@click.argument("sources", nargs=-1, required=True, type=PATH, metavar="SOURCE...")
@click.option("--output", required=True, type=PATH, metavar="DIR", help=_("Folder to make."))
@vocab(50257)
@click.option(
    "--field",
    metavar="NAME",
    default="text",
    show_default=True,
    help=_("Column of parquet files or key of JSON lines that holds the text."),
)
@click.option(
    "--val",
    "validation",
    multiple=True,
    type=PATH,
    metavar="SOURCE",
    help=_("Validation text of its own (repeatable).  [default: sources named validation-… or …-valid, else a split]"),
)
@click.option(
    "--val-fraction",
    type=float,
    metavar="X",
    default=0.05,
    show_default=True,
    help=_("Share of the sources that becomes validation where they are split."),
)
@click.option(
    "--split",
    "unit",
    type=click.Choice(["auto", "document", "tail"]),
    default="auto",
    show_default=True,
    help=_(
        "Validate on documents chosen by hash or on the tail of each file; auto takes the tail for a few plain texts."
    ),
)
@click.option(
    "--processes",
    type=click.IntRange(min=0),
    metavar="N",
    default=0,
    help=_("How many processes encode.  [default: one per CPU]"),
)
@force
@in_json
def make(sources: tuple[Path, ...], output: Path, as_json: bool, **options: Any) -> None:
    """Make a data folder of text: .txt, .jsonl or .parquet files, or folders of them (TinyStories in either form).

    Documents in a .txt are separated by <|endoftext|>. Memory stays constant whatever the size of the text, and the
    output appears under its name only when it is complete.
    """
    from ..data import maker

    with _progress() as report:
        made = maker.make(sources, output, report=report, **options)
    _print(output, made, as_json=as_json)


@main.command()
@click.argument("folder", type=PATH, metavar="DIR")
@in_json
def check(folder: Path, as_json: bool) -> None:
    """Verify sizes, hashes and ids, and that this project's studies can use the files."""
    from ..data import check as data_check
    from ..data import token_folder

    manifest = data_check.check(folder, _needs(folder))
    if as_json:
        _print_json(folder, manifest)
        return
    if manifest is None:
        manifest_name = token_folder.MANIFEST
        narrate(_("{path} has no {file}: only the lengths could be checked", str(folder), manifest_name))
    else:
        _describe(folder, manifest)
    say(_("{path}: sound", str(folder)))


def _needs(folder: Path) -> list[tuple[str, Need]]:
    """Return by file name what the project's studies require of token files in a folder; empty outside of a project."""
    try:
        return open_project().token_files(folder)
    except UsageError:
        return []


def _project_or_here() -> Path:
    """Return the project's folder; outside of a project the current one."""
    try:
        return open_project().folder
    except UsageError:
        return Path.cwd()


def _from_here(path: Path) -> Path:
    """Return a path as it is shown: relative where it lies in the current folder."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


@contextlib.contextmanager
def _progress() -> Iterator[Report]:
    """Show a bar on stderr where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    labels = {"hash": _("reading for hashes"), "encode": _("encoding")}
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        tasks = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(translated(labels[stage]), total=total)
            progress.update(tasks[stage], completed=done)

        yield report


def _print_json(folder: Path, manifest: Manifest | None) -> None:
    import msgspec

    put_json({"version": 1, "folder": str(folder), "manifest": msgspec.to_builtins(manifest)})


def _print(folder: Path, made: Made, *, as_json: bool) -> None:
    if as_json:
        _print_json(folder, made.manifest)
        return
    if made.up_to_date:
        check_it = shlex.join(["oelm-data", "check", str(folder)])
        narrate(
            _("{path} is up to date ({command} verifies its hashes, --force makes it again)", str(folder), check_it)
        )
    _describe(folder, made.manifest)


def _describe(folder: Path, manifest: Manifest) -> None:
    names = [source.name for source in manifest.source]
    of = names[0] if names else _("nothing")
    if len(names) > 1:
        of = _("{name} and {count} more", names[0], len(names) - 1)
    say(_("{path}: {tokenizer} tokens of {source}", str(folder), manifest.tokenizer.name, of))
    for name, file in manifest.files.items():
        say(
            _(
                "  {file:<10}{tokens:>13,} tokens {documents:>11,} documents {size:>9.1f} MB",
                name,
                file.tokens,
                file.documents,
                file.size / 1e6,
            )
        )
    split, duplicates = manifest.split, manifest.duplicates
    if split.unit == "source":
        say(_("  validation: {sources}", [source.name for source in split.source]))
    elif split.val_fraction is not None and split.unit == "document":
        say(_("  validation: {share:.3g} of the documents", split.val_fraction))
    elif split.val_fraction is not None:
        say(_("  validation: {share:.3g} of the text, the last part of each file", split.val_fraction))
    if duplicates is not None:
        say(
            _(
                "  duplicates: {count:,} of {all:,} validation documents are in the training text too; "
                "{others:,} training documents repeat another",
                duplicates.val_in_train,
                manifest.files["val.bin"].documents,
                duplicates.within_train,
            )
        )
    if (odd := manifest.oddities) is not None and odd.not_finite:
        say(_("  read all the same: {count:,} JSON lines with NaN or an infinite number in them", odd.not_finite))
    if odd is not None and odd.surrogates:
        say(_("  read all the same: {count:,} texts with halves of characters, which became U+FFFD", odd.surrogates))

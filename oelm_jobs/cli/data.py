"""``oelm-data``: make and check token files."""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..agent.sentences import _, joined
from ..errors import UsageError
from ..folders import expanded
from .common import EndingGroup, narrate, open_project, put_json, say
from .progress import Meter

if TYPE_CHECKING:
    from ..data.maker import Made, Report
    from ..data.token_folder import Manifest
    from ..project import Project


class _Path(click.Path):
    """A path; ``~`` is expanded where the shell left it (``--output=~/data``): no folder of that name is made."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(expanded(os.fspath(value)), param, ctx)


PATH = _Path(path_type=Path)


vocab = functools.partial(
    click.option,
    "--vocab",
    "vocab_size",
    type=int,
    metavar="N",
    show_default=True,
    help=_("Entries of the vocabulary: 50257 is GPT-2's own, less truncates it (at least 257)."),
)
in_json = click.option("--json", "as_json", is_flag=True, help=_("Print JSON."))
test = click.option(
    "--test", is_flag=True, help=_("Set as much text apart again, as test.bin: to judge on, nothing is chosen by it.")
)
force = click.option("--force", is_flag=True, help=_("Replace other data in the output folder."))


@click.group("oelm-data", cls=EndingGroup)
def main() -> None:
    """Make train.bin and val.bin from text, and check them."""


@main.command()
@vocab(default=1024)
@click.option("--output", type=PATH, metavar="DIR", help=_("Folder to make.  [default: data/demo in the project]"))
@test
@force
@in_json
def demo(vocab_size: int, output: Path | None, test: bool, force: bool, as_json: bool) -> None:
    """Make a small data folder of the embedded novels, in seconds and without a network."""
    from ..data import maker

    if output is None:
        here, project = Path.cwd(), _project()
        output = (project.folder if project else here) / "data" / "demo"
        output = output.relative_to(here) if output.is_relative_to(here) else output
    with progress() as report:
        made = maker.demo(output, vocab_size=vocab_size, test=test, force=force, report=report)
    print_made(output, made, as_json=as_json)


@main.command()
@click.argument("sources", nargs=-1, required=True, type=PATH, metavar="SOURCE...")
@click.option("--output", required=True, type=PATH, metavar="DIR", help=_("Folder to make."))
@vocab(default=50257)
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
@test
@force
@in_json
def make(sources: tuple[Path, ...], output: Path, as_json: bool, **options: Any) -> None:
    """Make a data folder of text: .txt, .jsonl or .parquet files, or folders of them (TinyStories in either form).

    Documents in a .txt are separated by <|endoftext|>. Memory stays constant whatever the size of the text, and the
    output appears under its name only when it is complete.
    """
    from ..data import maker

    with progress() as report:
        made = maker.make(sources, output, report=report, **options)
    print_made(output, made, as_json=as_json)


@main.command()
@click.argument("folder", type=PATH, metavar="DIR")
@in_json
def check(folder: Path, as_json: bool) -> None:
    """Verify sizes, hashes and ids, and that this project's studies can use the files."""
    from ..data import check as data_check
    from ..data import token_folder

    project = _project()
    manifest = data_check.check(folder, project.token_files(folder) if project else [])
    if manifest is None and not as_json:
        narrate(_("{path} has no {file}: only the lengths could be checked", str(folder), token_folder.MANIFEST))
    _print(folder, manifest, as_json=as_json)
    if not as_json:
        say(_("{path}: sound", str(folder)))


def _project() -> Project | None:
    """Return the project of the current folder; None outside of one."""
    try:
        return open_project()
    except UsageError:
        return None


@contextlib.contextmanager
def progress() -> Iterator[Report]:
    """Show how far the making of data is."""
    labels = {"hash": _("reading for hashes"), "encode": _("encoding")}
    with Meter() as meter:
        yield lambda stage, total, more: meter.go_on(labels[stage], total, more)


def print_made(folder: Path, made: Made, *, as_json: bool) -> None:
    """Say what was made, or that it was there."""
    if made.up_to_date and not as_json:
        check_it = shlex.join(["oelm-data", "check", str(folder)])
        narrate(
            _("{path} is up to date ({command} verifies its hashes, --force makes it again)", str(folder), check_it)
        )
    _print(folder, made.manifest, as_json=as_json)


def _print(folder: Path, manifest: Manifest | None, *, as_json: bool) -> None:
    if as_json:
        import msgspec

        put_json({"version": 1, "folder": str(folder), "manifest": msgspec.to_builtins(manifest)})
    elif manifest is not None:
        _describe(folder, manifest)


def _describe(folder: Path, manifest: Manifest) -> None:
    names = [source.name for source in manifest.source]
    of = names[0] if names else _("nothing")
    if len(names) > 1:
        of = _("{name} and {count} more", names[0], len(names) - 1)
    say(_("{path}: {tokenizer} tokens of {source}", str(folder), manifest.tokenizer.name, of))
    for name, file in manifest.files.items():
        amount = _("{tokens:>13,} tokens {documents:>11,} documents", file.tokens, file.documents)
        say(_("  {file:<10}{amount} {size:>9.1f} MB", name, amount, file.size / 1e6))
    split, duplicates = manifest.split, manifest.duplicates
    if split.unit == "source":
        say(_("  validation: {sources}", [source.name for source in split.source]))
    elif split.val_fraction is not None and split.unit == "document":
        say(_("  validation: {share:.3g} of the documents", split.val_fraction))
    elif split.val_fraction is not None:
        say(_("  validation: {share:.3g} of the text, the last part of each file", split.val_fraction))
    if duplicates is not None:
        copied, everything = duplicates.val_in_train, manifest.files["val.bin"].documents
        what = _("{count:,} of {all:,} validation documents are in the training text too", copied, everything)
        others = _("{count:,} training documents repeat another", duplicates.within_train)
        say(_("  duplicates: {what}", joined((what, others))))
    odd = manifest.oddities
    if odd is not None and odd.not_finite:
        say(_("  read all the same: {count:,} JSON lines with NaN or an infinite number in them", odd.not_finite))
    if odd is not None and odd.surrogates:
        say(_("  read all the same: {count:,} texts with halves of characters, which became U+FFFD", odd.surrogates))

"""``oelm init``: make a project, in an empty folder or an existing repository."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..agent.sentences import _, joined
from ..errors import UsageError, few, valid_choices
from ..folders import check_home, home, study_files
from ..language import translated
from ..scaffold import examples
from .common import ask, columns, command, narrate, say, split_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..scaffold.existing import Existing
    from ..scaffold.files import Written
    from ..scaffold.targets import Proposal

KINDS = {
    "reference": _("the reference experiment: GPT against OELM, by the built-in trainer"),
    "script": _("a program of your own, whatever it is written with"),
}
"""What a study may be about."""
TARGETS = "jobs/targets.toml"
NO_HOST = "none"


@command("oelm-init")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=".", metavar="[FOLDER]")
@click.option("--study", "kind", type=click.Choice(list(KINDS)), help=_("What is compared; else it is asked."))
@click.option(
    "--command",
    "text",
    metavar="TEXT",
    help=_('The command of one run, as you type it: --command "python train.py --lr 1e-3". Goes with --study script.'),
)
@click.option(
    "--example",
    type=click.Choice(examples.NAMES),
    help=_("Copy this example, a study of a small program, to see how one is done."),
)
@click.option(
    "--from",
    "sweep",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="SWEEP.yaml",
    help=_("Make the study of this W&B sweep; what a study can't say is named line by line."),
)
@click.option(
    "--host",
    "given",
    multiple=True,
    metavar="NAME,NAME",
    help=_("Hosts that ssh reaches by that name and that become targets; nothing is connected to."),
)
def main(
    folder: Path, kind: str | None, text: str | None, example: str | None, sweep: Path | None, given: tuple[str, ...]
) -> None:
    """Make a project of a folder: a study, a file of targets, lines for .gitignore.

    Targets are partitions that sinfo tells on a cluster, and those hosts of ~/.ssh/config that you name; nothing is
    connected to. Nothing that exists is overwritten: in a project it adds what is missing.
    """
    from ..scaffold import command as of_command
    from ..scaffold import existing, files, targets, wandb_sweep

    if sweep is not None and (
        others := [o for o, v in (("--study", kind), ("--command", text), ("--example", example)) if v]
    ):
        raise UsageError(_("--from and {option} exclude each other", others[0]))
    if example is not None and (kind is not None or text is not None):
        raise UsageError(_("--example and {option} exclude each other", "--study" if kind is not None else "--command"))
    if text is not None and kind == "reference":
        raise UsageError(_("--command goes with --study script"))
    check_home(folder.resolve())
    found = existing.look(folder)
    there = [path.stem for path in study_files(folder) if path.parent.name == "jobs"]
    kind = kind or ("script" if text is not None else "" if there or example or sweep else _ask_kind(found))
    copied = examples.program(example) if example else {}
    studies: dict[str, str] = {}
    lacking = ""
    if sweep is not None:
        swept = wandb_sweep.study(sweep, folder)
        studies, lacking = {swept.study.name: swept.study.text}, swept.study.lacking
        for remark in swept.remarks:
            narrate(_("{path}: {what}", str(sweep), remark))
    elif kind == "script":
        text = text if text is not None else _ask_command()
        new = of_command.study(text, folder)
        studies, lacking = {new.name: new.text}, new.lacking
    elif kind == "reference":
        studies = {Path(name).stem: examples.text(name) for name in examples.REFERENCE}
    hosts = split_names(given)
    is_new = not (folder / TARGETS).exists()
    if is_new and not given:
        hosts = _ask_hosts(targets.hosts(home() / ".ssh" / "config"))
    proposal = targets.propose(chosen=hosts)
    wanted = [*files.IGNORED, *(files.DATA if kind == "reference" else ())]
    made = [
        *(files.make(folder, f"jobs/{name}.toml", content) for name, content in studies.items()),
        *(files.make(folder, name, content) for name, content in copied.items()),
        *(
            files.kept(path)
            for path in (f"jobs/{name}.toml" for name in there if name not in studies)
            if path not in copied
        ),
        files.make(folder, TARGETS, proposal.text)
        if is_new
        else files.added(TARGETS, targets.add(folder / TARGETS, hosts)),
        files.ignore(folder, wanted),
    ]
    for one in made:
        say(_line(one, proposal))
        if one.fate is files.Fate.MADE and one.path.name == "targets.toml":
            for remark in proposal.remarks:
                narrate(remark)
    if lacking:
        narrate(_("Not there yet: {why}", lacking))
    narrate("")
    for line in _next(folder, kind, [*([example] if example else studies), *there], text or "", hosts, found, example):
        narrate(line)


def _ask_kind(found: Existing) -> str:
    if not sys.stdin.isatty():
        raise UsageError(
            _("What is to be compared? Nobody can be asked here."),
            hint=_("give --study reference, or --study script --command TEXT"),
        )
    if found.scripts:
        narrate(
            _("There are scripts that start training: oelm import-script {paths} makes a study of them.", found.scripts)
        )
    narrate(_("What is to be compared?"))
    for name, what in KINDS.items():
        narrate(_("  {name:<10} {what}", name, what))
    return ask(_("Study"), type=click.Choice(list(KINDS)), default="script")


def _ask_command() -> str:
    if not sys.stdin.isatty():
        raise UsageError(
            _("Which command? Nobody can be asked here."), hint=_('give it: --command "python train.py --lr 1e-3"')
        )
    return ask(_("The command of one run, as you type it"))


def _ask_hosts(known: Sequence[str]) -> list[str]:
    """Return those of the user's hosts that runs may go to; none where nobody can be asked."""
    if not known or not sys.stdin.isatty():
        return []

    def checked(answer: str) -> str:
        for name in split_names((answer,)) if answer != NO_HOST else ():
            if name not in known:
                raise click.BadParameter(translated(_("{name}: {choices}", name, valid_choices(name, known))))
        return answer

    narrate(_("~/.ssh/config names {hosts}. Nothing is connected to now.", few(known)))
    answer = ask(_("Those that runs may go to, with commas between them"), default=NO_HOST, value_proc=checked)
    return [] if answer == NO_HOST else split_names((answer,))


def _line(one: Written, proposal: Proposal) -> str:
    """Return what became of a file."""
    from ..scaffold.files import Fate

    if one.fate is Fate.KEPT:
        return _("kept   {path}, which is there already", str(one.path))
    if one.lines:
        return _("added  {path}: {lines}", str(one.path), list(one.lines))
    if one.path.name != "targets.toml":
        return _("made   {path}", str(one.path))
    ready = _("ready to use: {targets}", list(proposal.ready))
    commented = _("in comments, from ~/.ssh/config: {targets}", few(proposal.commented)) if proposal.commented else ""
    return _("made   {path}: {what}", str(one.path), joined((ready, commented)))


def _next(
    folder: Path, kind: str, studies: list[str], text: str, hosts: Sequence[str], found: Existing, example: str | None
) -> Iterator[str]:
    """Yield the commands that come next."""
    where = "" if folder.resolve() == Path.cwd() else shlex.quote(str(folder))
    study = f" --study {studies[0]}" if example or len(study_files(folder)) > 1 else ""
    there = f" --target {hosts[0]}" if hosts else ""
    yield _("Next, after cd {folder}:", where) if where else _("Next:")
    rows: dict[str, str] = {}
    for host in hosts[:3]:
        rows[f"oelm doctor {host}"] = _("connect, and see what runs there would lack")
    if example:
        rows[f"head jobs/{example}.toml"] = _("what it shows, and what it needs")
    if kind == "reference":
        if importlib.util.find_spec("torch") is None:
            rows[f"{shlex.quote(sys.executable)} -m pip install 'oelm-jobs[train]'"] = _(
                "torch, to train on this machine"
            )
        rows |= {
            "oelm data demo": _("the demo's data, in seconds"),
            "oelm submit --study demo --wait": _("its three groups, about three minutes on two cores"),
            "oelm report --study demo --plot": _("what became of them"),
            "oelm submit --dry-run": _("the plan of the reference experiment, which takes GPUs"),
            "oelm data make TEXT... --output data/tiny_stories": _("its data, of the texts of TinyStories"),
        }
    else:
        rows |= {
            f"oelm submit{study}{there} --dry-run": _("what would run"),
            f"oelm submit{study}{there} --wait": _("run it there; here without --target")
            if there
            else _("run it here; elsewhere with --target NAME"),
            f"oelm report{study}": _("compare its groups"),
        }
    yield from columns(rows)
    yield _("Without a study:")
    rows = {f"oelm run -- {text or 'python train.py'}": _("any command as it stands")}
    if found.scripts:
        rows[f"oelm import-script {found.scripts}"] = _("a study of the scripts that are here")
    old = found.results or "old_runs/"
    rows[f"oelm report --from {old}"] = _("compare runs that you have: no training, no server")
    yield from columns(rows)

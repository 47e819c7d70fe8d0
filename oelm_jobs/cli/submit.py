"""``oelm-submit``: submit runs, each at most once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click

from ..agent.sentences import _
from ..errors import EXIT_INTERRUPTED, RunFailed, UsageError
from . import complete
from .common import command, confirm, narrate, narrate_wrapped, open_project, put_json, say, split_names

if TYPE_CHECKING:
    from ..confirming import Confirmation
    from ..project import Project
    from ..runs.observe import View
    from ..spec.target import Target
    from ..study.plan import Plan
    from ..submit.submission import Submitted


@command("oelm-submit")
@click.option(
    "--study",
    metavar="NAME",
    shell_complete=complete.studies,
    help=_("Study in jobs/ (or a .toml file); without it, the only one, or the one with default = true."),
)
@click.option(
    "--group",
    "--groups",
    "groups",
    multiple=True,
    metavar="NAME",
    shell_complete=complete.groups,
    help=_("Only this group; repeatable, or a,b,c."),
)
@click.option(
    "--target", "name", metavar="NAME", shell_complete=complete.targets, help=_("Where to run.  [default: local]")
)
@click.option("--remote", is_flag=True, help=_("The one remote target of the targets files."))
@click.option("--host", default="", metavar="HOST", help=_("A machine behind SSH, in no targets file."))
@click.option("--user", default="", metavar="USER", help=_("With --host: the login name there."))
@click.option("--port", default=0, type=click.IntRange(0, 65535), metavar="N", help=_("With --host: its SSH port."))
@click.option("--root", default="", metavar="DIR", help=_("With --host: folder for runs.  [default: oelm]"))
@click.option("--setup", multiple=True, metavar="LINE", help=_("With --host: a shell line to run first; repeatable."))
@click.option(
    "--mode",
    type=click.Choice(["sequential", "parallel"]),
    default="sequential",
    show_default=True,
    help=_("Each run after the one before it, or each as soon as it has its devices."),
)
@click.option("--seeds", metavar="N,N", help=_("These seeds instead of the study's."))
@click.option(
    "--num-seeds",
    type=click.IntRange(1, 10_000),
    metavar="N",
    help=_("The study's seeds, continued upward to N of them."),
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    shell_complete=complete.settings,
    help=_("Set a key for these runs; needs --tag. KEY=V,V and KEY=range(0,9,3) sweep it, and need none."),
)
@click.option(
    "--block", "blocks", multiple=True, metavar="NAME", help=_("Only this block of the study; repeatable, or a,b,c.")
)
@click.option("--tag", default="", metavar="TAG", help=_("Name these runs apart from the study's own."))
@click.option(
    "--confirm",
    "confirming",
    is_flag=True,
    help=_("Once every trial of what is tuned is over: choose, lock, and run each group's best on confirm_seeds."),
)
@click.option("--rerun", is_flag=True, help=_("Archive runs that are over, and start them over."))
@click.option("--why", default="", metavar="TEXT", help=_("With --rerun: your reason, for the ledger."))
@click.option("--extend", is_flag=True, help=_("The study's max_steps was raised: train finished runs further."))
@click.option(
    "--stop-on-failure",
    is_flag=True,
    help=_("A failed run cancels the ones behind it (default: they run all the same)."),
)
@click.option(
    "--dry-run", is_flag=True, help=_("Show what would be done; needs no data, GPU or network, leaves nothing behind.")
)
@click.option("--script", is_flag=True, help=_("With --dry-run: print the launch scripts alone, ready to paste."))
@click.option("--send-data", is_flag=True, help=_("Send the study's data where the target lacks them."))
@click.option("--wait", is_flag=True, help=_("Stay and show progress; exit code 1 when a run failed."))
@click.option("--yes", is_flag=True, help=_("Don't ask before runs are archived, or run anew."))
@click.option("--json", "as_json", is_flag=True, help=_("Print JSON."))
def main(
    study: str | None,
    groups: tuple[str, ...],
    mode: str,
    seeds: str | None,
    num_seeds: int | None,
    settings: tuple[str, ...],
    tag: str,
    blocks: tuple[str, ...],
    confirming: bool,
    rerun: bool,
    why: str,
    extend: bool,
    stop_on_failure: bool,
    dry_run: bool,
    script: bool,
    send_data: bool,
    wait: bool,
    yes: bool,
    as_json: bool,
    **where: Any,
) -> None:
    """Submit a study's runs.

    What is running or done is left alone; what failed or was cancelled goes on from its last checkpoint. The terminal
    may be closed as soon as this returns.
    """
    if script and not dry_run:
        raise UsageError(_("--script goes with --dry-run"))
    if rerun and extend:
        raise UsageError(_("--rerun and --extend exclude each other"))
    of_trials = {"set": settings, "tag": tag, "seeds": seeds, "num-seeds": num_seeds, "extend": extend}
    for option in [option for option, value in of_trials.items() if value and confirming]:
        raise UsageError(_("--confirm and --{option} exclude each other", option))
    if why and not rerun:
        raise UsageError(_("--why goes with --rerun"))
    from .progress import Meter

    with open_project() as project:
        chosen, target = project.study(study), _target(project, **where)
        names, changes, numbers = split_names(groups), _settings(settings), _seeds(seeds, num_seeds, chosen.seeds)
        confirmation = project.choose(chosen) if confirming else None
        if confirmation is not None:
            show_choice(confirmation, narrate if as_json or script else say)
            chosen, numbers, tag = confirmation.study, confirmation.seeds, confirmation.tag
        with Meter(_("sending")) as meter:
            planned = project.plan(
                chosen, target, groups=names, blocks=split_names(blocks), seeds=numbers, tag=tag, settings=changes,
                mode=mode, stop_on_failure=stop_on_failure, offline=dry_run, sending=meter if send_data else None,
            )  # fmt: skip
        values = confirmation.values if confirmation is not None else None
        if dry_run:
            from .planned import show

            show(project, planned, script=script, as_json=as_json, chosen=values)
            narrate_wrapped(_("--script prints the complete launch scripts."))
            return
        if rerun:
            confirm_archiving(project, planned, yes=yes)
        confirm_anew(project, planned, yes=yes)
        if confirmation is not None:
            project.record(confirmation)
        submitted = project.submit(planned, "rerun" if rerun else "extend" if extend else "resume", why=why)
        show_submitted(
            planned, submitted, as_json=as_json and not wait, tell=narrate if as_json else say, chosen=values
        )
        if wait:
            wait_for(project, planned, as_json=as_json)


def show_choice(confirmation: Confirmation, tell: Callable[[str], None]) -> None:
    """Print what was chosen for each group, and among what."""
    choice = confirmation.choice
    if confirmation.is_recorded:
        tell(_("Chosen on {date}, by the best mean of {metric}:", choice.chosen, choice.metric))
    else:
        tell(_("Chosen by the best mean of {metric} over seeds {seeds}:", choice.metric, [*map(str, choice.seeds)]))
    for group, one in choice.groups.items():
        values = ", ".join(f"{key} = {value}" for key, value in one.values.items())
        failed = sum(trial.state == "failed" for trial in one.trials)
        tell(_("  {group}: {values}  ({count} trials, {failed} failed)", group, values, len(one.trials), failed))


def _target(project: Project, *, name: str | None, remote: bool, host: str, **of_host: Any) -> Target:
    """Return the target that the options name.

    Raises:
        UsageError: There is none, or the options contradict each other.
    """
    if name == "":
        raise UsageError(_("--target was given no name"), hint=_("leave it out to mean local"))
    if host:
        if name:
            raise UsageError(_("--target and --host exclude each other"))
        return project.host(host, **of_host)
    for option, value in of_host.items():
        if value:
            raise UsageError(
                _("--{option} goes with --host", option),
                hint=_("what a target of a targets file needs is written there"),
            )
    if name or not remote:
        target = project.target(name or "local")
        if remote and not target.host:
            raise UsageError(_("--remote: target {target} is this machine", target.name))
        return target
    remotes = [target for target in project.targets().values() if target.host]
    if len(remotes) == 1:
        return remotes[0]
    why = _("no targets file knows one")
    if remotes:
        names = [target.name for target in remotes]
        why = _("the targets files know {targets}: name one with --target", names)
    raise UsageError(_("--remote: which machine? {why}", why), hint=_("or give --host HOST [--user USER]"))


def _seeds(listed: str | None, number: int | None, own: tuple[int, ...]) -> tuple[int, ...]:
    if listed is not None and number is not None:
        raise UsageError(_("--seeds and --num-seeds exclude each other"))
    if listed is not None:
        try:
            return tuple(int(part) for part in listed.split(","))
        except ValueError:
            raise UsageError(
                _("--seeds {seeds}: give whole numbers with commas between them, as in 42,43,44", listed)
            ) from None
    if number is not None:
        more = (seed for seed in range(own[0], own[0] + number + len(own)) if seed not in own)
        return (*own, *more)[:number]
    return ()


def _settings(settings: tuple[str, ...]) -> dict[str, str | list[str]]:
    """Return what each key is set to, or the values over which it is swept."""
    from .values import several, unquoted  # here, since few commands set anything

    values: dict[str, list[str]] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        try:
            found = [unquoted(part) for part in several(text.strip())]
        except ValueError as error:
            raise UsageError(_("--set {setting}: {why}", setting, str(error))) from None
        if not equals or not key or not all(found):
            raise UsageError(_("--set {setting}: give KEY=VALUE, as in --set max_steps=1000", setting))
        name = key.strip().replace("-", "_")
        values[name] = list(dict.fromkeys([*values.get(name, ()), *found]))
    return {key: found[0] if len(found) == 1 else found for key, found in values.items()}


def confirm_archiving(project: Project, plan: Plan, *, yes: bool) -> None:
    """Ask before runs of a plan that are over are moved aside; without a terminal ``--yes`` must have been given."""
    planned = {run.name for run in plan.runs}
    known = [run for run in project.runs() if run.study == plan.study.name and run.name in planned]
    over = [run.name for run in project.refresh(*known).runs if run.state.is_final] if known else []
    if over:
        confirm(_("Move what {runs} made to .archive and start over?", over), yes=yes)


def confirm_anew(project: Project, plan: Plan, *, yes: bool) -> None:
    """Ask before what a study that has no file any more has run is run anew: the file may only have been renamed."""
    known = project.ran_before(plan)
    for study in dict.fromkeys(run.study for run in known):
        count, path = sum(run.study == study for run in known), str(plan.study.path)
        narrate(
            _(
                'If {path} is study {study} renamed, write name = "{name}" into it: its runs stay its own.',
                path,
                study,
                study,
            )
        )
        what = _(
            "{count} of {all} runs were run as study {study}, which has no file any more.", count, len(plan.runs), study
        )
        confirm(_("{what} Run them anew as study {name}?", what, plan.study.name), yes=yes)


def show_submitted(
    plan: Plan,
    submitted: list[Submitted],
    *,
    as_json: bool = False,
    tell: Callable[[str], None] = say,
    chosen: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Print what became of each run of a submission, in JSON with what was ``chosen`` for its groups."""
    if as_json:
        runs = [
            {"run": s.run.name, "state": s.state, "submitted": not s.note, "note": s.note, "run_dir": s.run.run_dir}
            for s in submitted
        ]
        about = {"version": 1, "study": plan.study.name, "target": plan.target.name, "runs": runs}
        put_json({**about, **({"chosen": chosen} if chosen else {})})
        return
    for difference in plan.differences:
        if difference.reason:
            narrate(_("unequal by declaration: {key}: {reason}", difference.key, difference.reason))
    for item in submitted:
        done = _("{run}: submitted to {target}", item.run.name, plan.target.name)
        tell(_("{run}: left alone, {why}", item.run.name, item.note) if item.note else done)
    if any(not item.note for item in submitted):
        narrate(_("Runs go on without this terminal. Watch them: oelm-status --watch"))


def wait_for(
    project: Project, plan: Plan, *, as_json: bool = False, also: Callable[[View], None] = lambda view: None
) -> None:
    """Show where a plan's runs stand until they are over.

    Args:
        also: Is given every look, too.

    Raises:
        RunFailed: One is not done.
    """
    from ..agent.states import State
    from . import view

    try:
        with nullcontext() if as_json else view.screen() as show:

            def look(seen: View) -> None:
                also(seen)
                if show is not None:
                    show(seen)

            last = project.wait(*plan.runs, show=look)
    except KeyboardInterrupt:
        narrate(
            _("\nNo longer waiting; the runs go on. Come back with: oelm-status --watch; end them with: oelm-cancel")
        )
        raise SystemExit(EXIT_INTERRUPTED) from None
    if as_json:
        put_json(view.as_json(last))
    failed = [run.name for run in last.runs if run.state is not State.DONE]
    if failed:
        raise RunFailed(_("not done: {runs}", failed), hint=_("what it said: oelm-logs {run}", failed[0]))
